//! Locks as the lease host sees them: slots `lock/APP/NAME` that are asked for by name, whenever a process wants one, and not by assignment.
//!
//! They differ from the other slots in three ways. Nothing on this node runs under a lock but processes that know of it, so there is no word
//! for the guard: whoever holds a lock is told its deadline, and counts by that itself. An agent that starts takes none up: the processes
//! lost their locks with the connection to the agent before. And for the same reason a planned restart does not make them long.

use std::collections::{BTreeMap, VecDeque};

use cluster_lease::holder::{Action, Candidacy, Event};
use cluster_lease::message::Why;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, NodeName, Slot};
use tokio::sync::mpsc;

use super::host::Host;

/// What the names of locks' slots begin with.
pub const PREFIX: &str = "lock/";

/// Events that may wait for whoever keeps the locks. What only repeats a deadline is left out when they are more: the next one says more.
pub const EVENTS_WAITING: usize = 4096;

/// Whether the slot is a lock.
#[must_use]
pub fn is_lock(slot: &Slot) -> bool {
    matches!(slot, Slot::Named(name) if name.as_str().starts_with(PREFIX))
}

/// What the keeper of this node's locks asks of the lease host.
#[derive(Debug)]
pub enum LockAsk {
    /// Say there what becomes of locks, from now on.
    Listen(mpsc::Sender<LockEvent>),
    /// Ask for it now, once.
    Acquire {
        /// This one.
        slot: Slot,
        /// T.
        t: Span,
    },
    /// Ask for it whenever it is free, in this order of nodes (rule P7).
    Wait {
        /// This one.
        slot: Slot,
        /// T.
        t: Span,
        /// Nodes that wait, the first one first.
        order: Vec<NodeName>,
    },
    /// It is not wanted any more. What is held stays held.
    Withdraw(Slot),
    /// Its process has stopped or says that it is done: let go of it.
    Release {
        /// This one.
        slot: Slot,
        /// Of the tenure.
        epoch: Epoch,
        /// Who waits first.
        successor: Option<NodeName>,
        /// Ask for it anew in the same breath, for the next process on this node.
        again: Option<Span>,
    },
    /// Nobody counts on this lost tenure any more.
    Stopped {
        /// This one.
        slot: Slot,
        /// Of the tenure.
        epoch: Epoch,
    },
}

/// What becomes of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockEvent {
    /// It is held by this node.
    Granted {
        /// This one.
        slot: Slot,
        /// The token.
        epoch: Epoch,
        /// Until when, for now, by the clock of leases.
        deadline: Time,
    },
    /// It is held for longer.
    Extended {
        /// This one.
        slot: Slot,
        /// The token.
        epoch: Epoch,
        /// Until when now.
        deadline: Time,
    },
    /// It is not held any more, though nobody let go of it.
    Lost {
        /// This one.
        slot: Slot,
        /// The token.
        epoch: Epoch,
    },
    /// It was asked for and not granted.
    Failed {
        /// This one.
        slot: Slot,
        /// Who holds it, where a voter said so.
        by: Option<NodeName>,
        /// A majority of the voters answered: it is taken, or the epoch was too low.
        answered: bool,
    },
}

/// What the host remembers of locks.
#[derive(Debug, Default)]
pub(super) struct Locking {
    listener: Option<mpsc::Sender<LockEvent>>,
    /// Not told yet. One entry for each slot and kind at most, but for attempts.
    untold: VecDeque<LockEvent>,
    /// Held, with their epochs.
    held: BTreeMap<Slot, Epoch>,
}

impl Locking {
    fn tell(&mut self, event: LockEvent) {
        let repeats = matches!(event, LockEvent::Extended { .. } | LockEvent::Failed { .. });
        if self.untold.len() < EVENTS_WAITING || !repeats {
            self.untold.push_back(event);
        }
    }

    /// Tells what was not told yet, as far as there is room.
    pub(super) fn flush(&mut self) {
        let Some(listener) = &self.listener else { return self.untold.clear() };
        while let Some(event) = self.untold.pop_front() {
            match listener.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => return self.untold.push_front(event),
                // The agent ends.
                Err(mpsc::error::TrySendError::Closed(_)) => return self.untold.clear(),
            }
        }
    }
}

impl Host {
    /// Does what the keeper of locks asks.
    pub(super) fn lock_asked(&mut self, ask: LockAsk) {
        let candidate = |t, order: Vec<NodeName>| (t, Candidacy { order: order.into(), ready: true, unready_may_go: false });
        let events = match ask {
            LockAsk::Listen(listener) => {
                self.state.locking.listener = Some(listener);
                return;
            }
            // Before the voters are known nobody can be asked.
            LockAsk::Acquire { slot, .. } if self.holder.is_none() => {
                return self.state.locking.tell(LockEvent::Failed { slot, by: None, answered: false });
            }
            LockAsk::Acquire { slot, t } => vec![Event::Acquire { slot, t }],
            LockAsk::Wait { slot, t, order } => {
                let (t, candidacy) = candidate(t, order);
                vec![Event::Candidate { slot, t, candidacy }]
            }
            LockAsk::Withdraw(slot) => vec![Event::Withdraw(slot)],
            LockAsk::Release { slot, epoch, successor, again } => {
                self.state.locking.held.remove(&slot);
                // The process is gone or said so itself: nothing has to be stopped first (rule P5).
                let mut events = vec![Event::Release { slot: slot.clone(), successor }, Event::Stopped { slot: slot.clone(), epoch }];
                events.extend(again.map(|t| Event::Acquire { slot, t }));
                events
            }
            LockAsk::Stopped { slot, epoch } => {
                self.state.locking.held.remove(&slot);
                vec![Event::Stopped { slot, epoch }]
            }
        };
        self.holder_events(events);
    }

    /// Takes an action that is about a lock; gives back what is not.
    pub(super) fn lock_action(&mut self, action: Action) -> Option<Action> {
        let locking = &mut self.state.locking;
        match action {
            Action::Arm { slot, tenure, deadline } if is_lock(&slot) => {
                locking.held.insert(slot.clone(), tenure.epoch);
                locking.tell(LockEvent::Granted { slot, epoch: tenure.epoch, deadline });
            }
            Action::Extend { slot, epoch, deadline } if is_lock(&slot) => locking.tell(LockEvent::Extended { slot, epoch, deadline }),
            Action::Lost { slot, epoch } if is_lock(&slot) => {
                locking.held.remove(&slot);
                locking.tell(LockEvent::Lost { slot, epoch });
            }
            Action::Failed { slot, why, taken } if is_lock(&slot) => {
                let answered = taken || matches!(why, Some(Why::Held { .. } | Why::Epoch(_) | Why::Released));
                let by = match why {
                    Some(Why::Held { by, .. }) => Some(by.name),
                    _ => None,
                };
                locking.tell(LockEvent::Failed { slot, by, answered });
            }
            // There is no word.
            Action::Disarm { slot, .. } | Action::Released { slot, .. } if is_lock(&slot) => {}
            other => return Some(other),
        }
        None
    }

    /// Before a planned restart: locks go with the connections of their processes, so nobody may be kept waiting for them by a long lease.
    pub(super) fn end_locks(&mut self) {
        let held = std::mem::take(&mut self.state.locking.held);
        self.holder_events(held.into_iter().map(|(slot, epoch)| Event::Fenced { slot, epoch }).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extended(n: u64) -> LockEvent {
        LockEvent::Extended { slot: "lock/a/b".parse().expect("a slot"), epoch: Epoch(1), deadline: Time(n) }
    }

    #[test]
    fn what_repeats_itself_is_left_out_when_nobody_listens_fast_enough() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut locking = Locking { listener: Some(sender), ..Locking::default() };
        for n in 0..EVENTS_WAITING as u64 + 10 {
            locking.tell(extended(n));
        }
        let lost = LockEvent::Lost { slot: "lock/a/b".parse().expect("a slot"), epoch: Epoch(1) };
        locking.tell(lost.clone());
        locking.flush();
        let mut last = None;
        let mut count = 0;
        while let Ok(event) = receiver.try_recv() {
            last = Some(event);
            count += 1;
            locking.flush();
        }
        assert_eq!((last, count), (Some(lost), EVENTS_WAITING + 1), "the loss is told whatever else is not");
    }

    #[test]
    fn only_locks_are_locks() {
        assert!(is_lock(&"lock/api/nightly".parse().expect("a slot")));
        for other in ["app/lock", "ring/lock/3", "vip/10.0.0.1"] {
            assert!(!is_lock(&other.parse().expect("a slot")), "{other}");
        }
    }
}
