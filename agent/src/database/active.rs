//! The active: captures what the application commits, ships it, counts what standbys confirm; and the end of a tenure.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use cluster_bus::DatabaseMessage;
use cluster_replica::capture::{CaptureError, Watch};
use cluster_replica::host::{Host, HostError};
use cluster_replica::lineage::Position;
use cluster_replica::role::Confirmations;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Stage;
use super::answer::Waiting;
use super::task::Task;
use super::wall::now_ms;
use super::wire::{Confirm, Head, json, read};

/// Longest time without a look, whatever the kernel tells.
const LOOK: Duration = Duration::from_millis(100);
/// Looks a millisecond apart after a wake that brought nothing: SQLite publishes frames a moment after it wrote them.
const LOOKS: u8 = 10;
/// A standby that was heard this long ago is there.
pub(super) const THERE: Duration = Duration::from_millis(2500);
/// Longest wait, at the end of a tenure, for the standbys that are there to have all of it (rule D11).
const HAND_OVER: Duration = Duration::from_secs(5);

/// The notifications of a file, and their descriptor as the runtime waits for it.
struct Written {
    watch: Watch,
    ready: AsyncFd<OwnedFd>,
}

impl Written {
    /// None where the kernel does not notify: then it is looked at each tenth of a second.
    fn new(watch: Watch) -> Option<Self> {
        let ready = readable(watch.fd()?.try_clone_to_owned().ok()?).ok()?;
        Some(Self { watch, ready })
    }
}

#[expect(unsafe_code, reason = "tokio cannot know that a type keeps its descriptor open; this one does")]
fn readable(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for its whole life, which nobody else has, and `AsyncFd` owns it from here on.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// What is known of a standby.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standby {
    pub place: Position,
    pub at: Instant,
}

/// The present epoch, as its active.
pub(super) struct Following {
    pub epoch: u64,
    written: Option<Written>,
    look_at: Instant,
    looks: u8,
    /// When the application wrote last.
    wrote_at: Instant,
    /// Records were dropped on their way out: say where we are at once, so that those who miss them ask.
    dropped: bool,
    pub confirmations: Confirmations,
    pub standbys: BTreeMap<String, Standby>,
    /// `db sync` that waits for confirmations.
    pub waiting: Vec<Waiting>,
}

impl Following {
    /// Pends until the application wrote something.
    pub(super) async fn written(following: &Option<Self>) {
        let Some(written) = following.as_ref().and_then(|f| f.written.as_ref()) else { return pending().await };
        if let Ok(mut ready) = written.ready.readable().await {
            ready.clear_ready();
        }
    }

    /// When to look without being told.
    pub(super) fn next_look(&self) -> Instant {
        self.look_at
    }
}

/// The end of a tenure: everything is in the log, and standbys take it.
pub(super) struct Retiring {
    epoch: u64,
    end: Position,
    left: BTreeSet<String>,
    pub until: Instant,
}

impl Task {
    /// The epoch has begun.
    pub(super) fn now_active(&mut self, epoch: u64) {
        let now = Instant::now();
        self.promoting = None;
        self.fetch = None;
        self.stage = Stage::Active(epoch);
        self.well();
        self.following = Some(Following {
            epoch,
            written: None,
            look_at: now,
            looks: 0,
            wrote_at: now,
            dropped: false,
            confirmations: Confirmations::new(epoch),
            standbys: BTreeMap::new(),
            waiting: Vec::new(),
        });
        self.watch();
        self.capture(false);
        self.say_where();
    }

    fn watch(&mut self) {
        let watch = self.host.as_ref().and_then(Host::watch);
        let Some(following) = &mut self.following else { return };
        following.written = watch.and_then(Written::new);
    }

    /// The epoch goes on; what could not be followed is tried again.
    pub(super) fn go_on(&mut self, epoch: u64) {
        let Some(host) = self.host.as_mut().filter(|host| host.capture().is_none()) else { return };
        if self.retry_at.is_some() {
            return;
        }
        match host.resume(epoch, now_ms()) {
            Ok(true) => {
                let resyncs = host.capture().map(|capture| capture.counters().resyncs.clone()).unwrap_or_default();
                info!(app = self.setup.name.app, epoch, ?resyncs, "following the database again");
                self.well();
                self.watch();
                self.capture(false);
            }
            Ok(false) => self.trouble("Deposed", "a later epoch is known, this tenure's is not gone on with".to_owned()),
            Err(error) => self.host_failed(&error),
        }
    }

    /// Looks when it is time.
    pub(super) fn follow(&mut self, now: Instant) {
        if self.following.as_ref().is_some_and(|f| f.look_at <= now) {
            self.capture(false);
        }
        if self.following.as_mut().is_some_and(|f| std::mem::take(&mut f.dropped)) {
            self.say_where();
        }
        self.give_up_waiting(now);
    }

    /// Takes what was committed and ships it. `woken`: the application wrote.
    pub(super) fn capture(&mut self, woken: bool) {
        let (Some(host), Some(following)) = (&mut self.host, &mut self.following) else { return };
        let now = Instant::now();
        following.look_at = now + LOOK;
        if host.capture().is_none() {
            return;
        }
        if woken {
            // Takes the notifications in, so that the next one wakes again.
            let _wrote = following.written.as_ref().map(|written| written.watch.wait(Duration::ZERO));
            following.looks = LOOKS;
        }
        let before = host.member().position();
        let subject = self.setup.link.names().database_live(&self.setup.name.app, self.setup.link.node());
        let outgoing = &self.setup.outgoing;
        let mut dropped = false;
        let polled = host.poll(now.duration_since(following.wrote_at), now_ms(), |record| {
            // Once something is dropped, what follows it is of no use: it is asked for.
            dropped = dropped || !outgoing.send(subject.clone(), Bytes::copy_from_slice(record));
        });
        following.dropped |= dropped;
        if matches!(polled, Err(HostError::Capture(CaptureError::Locked(_)))) {
            // The application was stopped while it published a commit: it is there when it goes on.
            (following.looks, following.look_at) = (LOOKS, now + Duration::from_millis(1));
            return;
        }
        if let Err(error) = polled {
            host.let_go();
            following.written = None;
            self.host_failed(&error);
            return;
        }
        if host.member().position() != before {
            (following.wrote_at, following.looks) = (now, LOOKS);
        } else if following.looks > 0 {
            following.looks -= 1;
            following.look_at = now + Duration::from_millis(1);
        }
    }

    /// Says where this node is: the active to its replicas, a replica to the active.
    pub(super) fn say_where(&mut self) {
        let Some(host) = &self.host else { return };
        let place = host.member().position();
        match self.stage {
            Stage::Active(epoch) | Stage::Retiring(epoch) if place.epoch == epoch => {
                let head = Head { db: self.db.to_string(), place: place.into() };
                let subject = self.setup.link.names().database_live(self.app(), self.setup.link.node());
                self.say(subject, json(&head));
            }
            Stage::Standby => self.confirm(),
            _ => {}
        }
    }

    /// A replica says what it has.
    pub(super) fn confirmed(&mut self, message: &DatabaseMessage) {
        let Some(confirm) = read::<Confirm>(&message.payload).filter(|c| c.db == self.db.to_string()) else { return };
        if message.from == self.setup.link.node() {
            return;
        }
        let place = Position::from(confirm.place);
        if let Some(retiring) = &mut self.retiring
            && confirm.counts
            && (place.epoch, place.tx) == (retiring.end.epoch, retiring.end.tx)
        {
            retiring.left.remove(&message.from);
        }
        let Some(following) = &mut self.following else { return };
        following.standbys.insert(message.from.clone(), Standby { place, at: Instant::now() });
        if confirm.counts {
            following.confirmations.confirm(&message.from, place.epoch, place.tx);
            self.tell_waiting();
        }
    }

    /// The tenure is over and the unit stopped: the rest is read and shipped, and the standbys that are there get the time to take it.
    pub(super) fn retire(&mut self) {
        if let Some(retiring) = &self.retiring {
            let (done, late) = (retiring.left.is_empty(), retiring.until <= Instant::now());
            if !done && !late {
                return;
            }
            if !done {
                warn!(app = self.app(), epoch = retiring.epoch, missing = ?retiring.left, "standbys do not have all of the database");
            }
            self.retiring = None;
            self.stage = Stage::Standby;
            self.well();
            return;
        }
        self.promoting = None;
        self.fetch = None;
        let following = self.following.take();
        // An active that found itself deposed has the file still.
        let deposed = match self.stage {
            Stage::Refused(epoch) if self.host.as_ref().is_some_and(|host| host.capture().is_some()) => Some(epoch),
            _ => None,
        };
        let Some(epoch) = self.stage.open().or(deposed) else {
            self.stage = Stage::Standby;
            return;
        };
        let Some(host) = &mut self.host else { return };
        let subject = self.setup.link.names().database_live(&self.setup.name.app, self.setup.link.node());
        let outgoing = &self.setup.outgoing;
        let ship = |record: &[u8]| {
            let _room = outgoing.send(subject.clone(), Bytes::copy_from_slice(record));
        };
        let mut retired = host.retire(now_ms(), ship);
        if let Err(error) = &retired {
            warn!(
                app = self.setup.name.app,
                "the database is looked at again without its application: {}",
                cluster_telemetry::chain(error)
            );
            // Where the file is gone, the replica's is made for the same user.
            retired = match super::place::prepare(&self.setup.name.path, &self.setup.owner) {
                Ok(()) => host.retire(now_ms(), ship),
                Err(why) => return self.close_place(&why),
            };
        }
        if let Err(error) = retired {
            // It holds up nobody: the lease goes, and what is here is sorted out as a replica.
            return self.close(&error);
        }
        let end = host.member().position();
        let there = following.map(|f| f.standbys).unwrap_or_default();
        let lacks = |seen: &Standby| (seen.place.epoch, seen.place.tx) != (end.epoch, end.tx);
        let left = there.into_iter().filter(|(_, seen)| seen.at.elapsed() < THERE && lacks(seen)).map(|(node, _)| node);
        let left: BTreeSet<String> = left.collect();
        info!(app = self.setup.name.app, epoch, transaction = end.tx, waits_for = ?left, "the database is a replica again");
        let left = if end.epoch == epoch { left } else { BTreeSet::new() };
        self.retiring = Some(Retiring { epoch, end, left, until: Instant::now() + HAND_OVER });
        self.stage = Stage::Retiring(epoch);
        self.say_where();
        if self.retiring.as_ref().is_some_and(|r| r.left.is_empty()) {
            self.retire();
        }
    }
}
