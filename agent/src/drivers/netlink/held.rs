//! The addresses that the driver holds, and when the neighbours are told of them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::kernel::Kernel;
use crate::drivers::neighbours::Announcer;

/// When the later announcements of a take-over go out, counted from the first.
const TAKE_OVER: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// When the announcements after a heal go out. A switch may not forward for some seconds after a link came up.
const HEAL: [Duration; 4] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// A heal so soon after another one needs no announcements of its own: those of the first are still to come.
const HEAL_PAUSE: Duration = Duration::from_millis(200);
/// Most addresses that are held, watched and announced again. More can be held; they are announced when they are taken over only.
const HELD_MAX: usize = 256;

/// What is held, shared by the driver and its tasks.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kernel: Kernel,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Index of the interface, by address.
    places: BTreeMap<IpAddr, u32>,
    /// Announcements under way, by address: at most one row of them each.
    bursts: BTreeMap<IpAddr, Burst>,
}

#[derive(Debug)]
struct Burst {
    task: AbortHandle,
    /// When it began, if it was for a heal.
    heal: Option<Instant>,
}

impl Held {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kernel: Kernel::default(), inner: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// The address is here, by our doing.
    pub(super) fn note(&self, ip: IpAddr, index: u32) {
        let mut inner = self.inner();
        if inner.places.get(&ip) == Some(&index) {
            return;
        }
        if inner.places.len() >= HELD_MAX && !inner.places.contains_key(&ip) {
            tracing::warn!(%ip, "more than {HELD_MAX} addresses are held, conflicts of this one are not watched");
            return;
        }
        inner.places.insert(ip, index);
        self.changed.send_replace(());
    }

    /// The address is none of ours any more: nothing more is said of it.
    pub(super) fn forget(&self, ip: IpAddr) {
        let mut inner = self.inner();
        if let Some(burst) = inner.bursts.remove(&ip) {
            burst.task.abort();
        }
        if inner.places.remove(&ip).is_some() {
            self.changed.send_replace(());
        }
    }

    /// What is held, with the index of its interface.
    pub(super) fn places(&self) -> BTreeMap<IpAddr, u32> {
        self.inner().places.clone()
    }

    /// Tells of a change of [`Self::places`].
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether the kernel has the address, with our mark, on this interface.
    pub(super) async fn is_here(&self, ip: IpAddr, index: u32) -> bool {
        self.kernel.addresses().await.is_ok_and(|all| all.iter().any(|a| a.ours && a.ip == ip && a.index == index))
    }

    /// The first announcement of an address that was just put there; the later ones follow in the background.
    pub(super) fn announce(self: &Arc<Self>, ip: IpAddr, index: u32) -> io::Result<()> {
        let Some(announcer) = Announcer::open(index)? else { return Ok(()) };
        announcer.announce(ip)?;
        self.start(ip, index, Some(announcer), &TAKE_OVER);
        Ok(())
    }

    /// Announces again what is held on this interface, or on all, in the background. How many addresses that concerns.
    pub(super) fn heal(self: &Arc<Self>, on: Option<u32>) -> usize {
        let concerned: Vec<_> = self.places().into_iter().filter(|(_, index)| on.is_none_or(|on| on == *index)).collect();
        for (ip, index) in &concerned {
            let fresh = |burst: &Burst| burst.heal.is_some_and(|began| began.elapsed() < HEAL_PAUSE) && !burst.task.is_finished();
            if !self.inner().bursts.get(ip).is_some_and(fresh) {
                self.start(*ip, *index, None, &HEAL);
            }
        }
        concerned.len()
    }

    /// One announcement of an address that somebody else claims.
    pub(super) fn defend(&self, ip: IpAddr, index: u32) {
        let sent = Announcer::open(index).and_then(|announcer| announcer.map_or(Ok(()), |announcer| announcer.announce(ip)));
        if let Err(error) = sent {
            tracing::debug!(%error, %ip, "an address was not announced against another's claim");
        }
    }

    /// Ends all announcements under way.
    pub(super) fn end(&self) {
        std::mem::take(&mut self.inner().bursts).into_values().for_each(|burst| burst.task.abort());
    }

    /// Announcements at these times, as long as the address is still here.
    fn start(self: &Arc<Self>, ip: IpAddr, index: u32, announcer: Option<Announcer>, times: &'static [Duration]) {
        let mut inner = self.inner();
        inner.bursts.retain(|_, burst| !burst.task.is_finished());
        if inner.bursts.len() >= HELD_MAX && !inner.bursts.contains_key(&ip) {
            return;
        }
        let heal = announcer.is_none().then(Instant::now);
        // The task must not keep alive what ends it.
        let held = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            let start = Instant::now();
            for at in times {
                tokio::time::sleep_until(start + *at).await;
                let Some(held) = held.upgrade() else { return };
                if !held.is_here(ip, index).await {
                    return;
                }
                let sent = match &announcer {
                    Some(announcer) => announcer.announce(ip),
                    None => Announcer::open(index).and_then(|found| found.map_or(Ok(()), |announcer| announcer.announce(ip))),
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, %ip, "a later announcement was not sent");
                }
            }
        });
        if let Some(earlier) = inner.bursts.insert(ip, Burst { task: task.abort_handle(), heal }) {
            earlier.task.abort();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
