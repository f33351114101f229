//! Locks and semaphores for the processes of this node: slots of the lease service (docs/locks.md).
//!
//! [`Locks::acquire`] is the whole of it: the lock is held until the [`Grant`] is dropped or [lost](Grant::until). Who comes when is decided by pure
//! code ([`core`]); this task carries it out.

mod core;
mod line;
mod name;
mod note;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_bus::Bus;
use cluster_fence::clock;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{NodeName, Slot};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

pub use self::core::LockError;
use self::core::{Core, Id, Input, Output};
pub use self::name::{HOLDERS_MAX, LockName, NameError};
use crate::lease::LeaseHandle;
use crate::lease::locking::{EVENTS_WAITING, LockAsk};
use crate::lease::view::Command;

/// Claims of processes on this node: those that wait and those that have what they wanted.
pub const CLAIMS_MAX: usize = 1_024;
/// Claims of one App's locks.
pub const CLAIMS_PER_APP_MAX: usize = 512;
/// Claims of one lock.
pub const CLAIMS_PER_LOCK_MAX: usize = 256;
/// Claims of one lock in the whole cluster that have a place in its queue; more are served in any order.
pub const QUEUE_MAX: usize = 512;
/// How long one waits who does not wait: until the voters answered, or this.
const ONCE: Span = Span::from_millis(2_000);
/// Requests that may wait for the task.
const REQUESTS_WAITING: usize = 256;
/// Wait before subscribing again after the client gave a subscription up.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(250);

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// Which lock.
    pub name: LockName,
    /// The lease: how long the lock stays with a node that dies. 200 ms to 5 s.
    pub lease: Span,
    /// How long to wait for it; zero: it is had at once or not at all.
    pub wait: Duration,
}

/// A lock that is held for as long as this is kept.
#[derive(Debug)]
pub struct Grant {
    /// Rises with each holder of the lock, or of this place of the semaphore.
    pub token: u64,
    /// Which place of a semaphore; 0 for a lock.
    pub place: u16,
    until: watch::Receiver<Option<Time>>,
    _claim: Kept,
}

impl Grant {
    /// Until when it is held, by the clock of leases; moves on, and is `None` once it is lost. A time that passed is a loss too.
    #[must_use]
    pub fn until(&self) -> watch::Receiver<Option<Time>> {
        self.until.clone()
    }
}

/// A claim: given up when dropped.
#[derive(Debug)]
struct Kept {
    id: Id,
    /// At most [`CLAIMS_MAX`] messages and those of refused requests: each claim sends one.
    gone: mpsc::UnboundedSender<Id>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The agent ends.
        let _nobody_there = self.gone.send(self.id);
    }
}

/// What the task says of a lock that is had.
#[derive(Debug)]
struct Had {
    token: u64,
    place: u16,
    until: watch::Receiver<Option<Time>>,
}

struct Request {
    id: Id,
    want: Want,
    answer: oneshot::Sender<Result<Had, LockError>>,
}

/// Locks of this node.
#[derive(Debug, Clone)]
pub struct Locks {
    requests: mpsc::Sender<Request>,
    gone: mpsc::UnboundedSender<Id>,
    next: Arc<AtomicU64>,
    held: watch::Receiver<BTreeMap<Slot, u64>>,
}

impl Locks {
    /// Begins to keep locks for node `me`.
    #[must_use]
    pub fn start(me: &NodeName, leases: LeaseHandle, bus: Bus) -> Self {
        let (requests, incoming) = mpsc::channel(REQUESTS_WAITING);
        let (gone, left) = mpsc::unbounded_channel();
        let (held, held_now) = watch::channel(BTreeMap::new());
        let core = Core::new(me.clone());
        let keeper = Keeper { core, me: me.clone(), leases, bus, asked: BTreeMap::new(), had: BTreeMap::new(), held };
        tokio::spawn(keeper.run(incoming, left));
        // Claims of an earlier agent of this node may still stand in queues: they must not be taken for these.
        Self { requests, gone, next: Arc::new(clock::now().0.into()), held: held_now }
    }

    /// Waits for a lock, and holds it until the grant is dropped. Dropping the future gives the claim up.
    ///
    /// # Errors
    /// Why it is not had.
    pub async fn acquire(&self, want: Want) -> Result<Grant, LockError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Dropped after the receiver: the task either finds nobody who waits, or hears afterwards that nobody does any more.
        let claim = Kept { id, gone: self.gone.clone() };
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { id, want, answer }).await.map_err(|_| LockError::Ending)?;
        let Had { token, place, until } = answered.await.unwrap_or(Err(LockError::Ending))?;
        Ok(Grant { token, place, until, _claim: claim })
    }

    /// What processes of this node hold: slots with their tokens.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<BTreeMap<Slot, u64>> {
        self.held.clone()
    }
}

/// The task: it carries out what the core decides.
#[derive(Debug)]
struct Keeper {
    core: Core,
    me: NodeName,
    leases: LeaseHandle,
    bus: Bus,
    /// Who waits for an answer.
    asked: BTreeMap<Id, oneshot::Sender<Result<Had, LockError>>>,
    /// Who has a lock.
    had: BTreeMap<Id, watch::Sender<Option<Time>>>,
    held: watch::Sender<BTreeMap<Slot, u64>>,
}

impl Keeper {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut gone: mpsc::UnboundedReceiver<Id>) {
        let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
        self.leases.ask(Command::Lock(LockAsk::Listen(sender))).await;
        let (noted, mut notes) = mpsc::channel(REQUESTS_WAITING);
        tokio::spawn(hear(self.bus.clone(), self.me.clone(), noted));
        loop {
            let pause = self.core.next_wake().map(|at| Duration::from_nanos((at - clock::now()).0));
            let outputs = tokio::select! {
                biased;
                Some(event) = events.recv() => self.core.handle(clock::now(), Input::Lease(event)),
                Some(id) = gone.recv() => {
                    self.asked.remove(&id);
                    self.had.remove(&id);
                    self.core.handle(clock::now(), Input::Gone(id))
                }
                request = requests.recv() => match request {
                    Some(request) => self.take(request),
                    None => return,
                },
                Some((from, note)) = notes.recv() => self.core.handle(clock::now(), Input::Note { from, note }),
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => self.core.handle(clock::now(), Input::Tick),
            };
            for output in outputs {
                self.carry_out(output).await;
            }
            self.held.send_if_modified(|known| {
                let now: BTreeMap<Slot, u64> = self.core.held().into_iter().map(|(slot, epoch)| (slot, epoch.0)).collect();
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    }

    fn take(&mut self, request: Request) -> Vec<Output> {
        let Request { id, want, answer } = request;
        // Nobody waits for it any more, and that was told already.
        if answer.is_closed() {
            return Vec::new();
        }
        self.asked.insert(id, answer);
        let (now, once) = (clock::now(), want.wait.is_zero());
        let wait = if once { ONCE } else { Span(u64::try_from(want.wait.as_nanos()).unwrap_or(u64::MAX)) };
        self.core.handle(now, Input::Want { id, name: want.name, t: want.lease, until: now + wait, once })
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Lease(ask) => self.leases.ask(Command::Lock(ask)).await,
            Output::Send(to, note) => self.bus.publish_lock_note(self.me.as_str(), to.as_str(), &note.into()).await,
            Output::Give { id, place, epoch, deadline } => {
                let (sender, until) = watch::channel(Some(deadline));
                self.had.insert(id, sender);
                // Who does not wait any more says so with its claim.
                let _nobody = self.asked.remove(&id).map(|answer| answer.send(Ok(Had { token: epoch.0, place, until })));
            }
            Output::Extend { id, deadline } => {
                if let Some(until) = self.had.get(&id) {
                    until.send_replace(Some(deadline));
                }
            }
            Output::Lose(id) => {
                if let Some(until) = self.had.get(&id) {
                    until.send_replace(None);
                }
            }
            Output::Refuse(id, error) => {
                debug!(id, "a lock is not had: {error}");
                let _nobody = self.asked.remove(&id).map(|answer| answer.send(Err(error)));
            }
        }
    }
}

/// Hears what other nodes say of locks.
async fn hear(bus: Bus, me: NodeName, noted: mpsc::Sender<(NodeName, note::LockNote)>) {
    loop {
        if let Ok(mut notes) = bus.lock_notes(me.as_str()).await {
            while let Some((from, note)) = notes.next().await {
                let Ok(from) = NodeName::new(&from) else { continue };
                // The others say it again.
                if let Err(mpsc::error::TrySendError::Closed(_)) = noted.try_send((from, note.into())) {
                    return;
                }
            }
        }
        warn!("the notes about locks ended, beginning anew");
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}
