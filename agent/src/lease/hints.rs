//! What this node hears of named slots before it takes them over: for the record of take-overs, nothing is decided by it.

use std::collections::BTreeMap;

use cluster_fence::clock;
use cluster_lease::message::Message;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, Slot};

use super::DEFAULT_T;
use super::host::Host;
use super::view::Acquired;

/// The former holder's word to its successor may come so long after the grant.
const LATE: Span = Span::from_millis(1_000);

/// The first hint after a tenure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint {
    /// The tenure that is over.
    epoch: Epoch,
    /// When it came.
    at: Time,
    /// It came from the former holder, which names this node as its successor.
    handed: bool,
}

/// The last hints, for slots that this node is a candidate for.
pub(super) type Hints = BTreeMap<Slot, Hint>;

impl Host {
    /// Keeps the first hint that a named slot is free.
    pub(super) fn note_hint(&mut self, message: &Message) {
        let (claims, handed) = match message {
            Message::Free(free) => (&free.floors, false),
            Message::Handover(handover) => (&handover.released, true),
            _ => return,
        };
        let at = clock::now();
        for (slot, epoch) in claims.iter() {
            // Named ones come first, and there may be thousands of the others.
            if !matches!(slot, Slot::Named(_)) {
                break;
            }
            let Some(t) = self.state.wanted.get(&slot).map(|w| w.t) else { continue };
            // The voters may have told first: then its word comes after the grant, and still says why the slot was free.
            if let Some(acquired) = self.state.acquired.get_mut(&slot).filter(|a| handed && epoch.0 < a.epoch) {
                if !acquired.handed && at - acquired.granted < LATE {
                    acquired.handed = true;
                    self.state.dirty = true;
                }
                continue;
            }
            let hint = self.state.hints.entry(slot).or_insert(Hint { epoch, at, handed });
            // Those after one tenure come together. What a failed attempt of another left free earlier is another matter.
            if epoch > hint.epoch || at - hint.at > t || handed && !hint.handed {
                *hint = Hint { epoch, at, handed };
            }
        }
    }

    /// Notes how a tenure began.
    pub(super) fn note_acquired(&mut self, slot: &Slot, epoch: Epoch) {
        if !matches!(slot, Slot::Named(_)) {
            return;
        }
        let hint = self.state.hints.remove(slot);
        let t = self.state.wanted.get(slot).map_or(DEFAULT_T, |w| w.t);
        let (free, handed) = (hint.map(|h| h.at), hint.is_some_and(|h| h.handed));
        let acquired = Acquired { epoch: epoch.0, granted: clock::now(), free, handed, t };
        self.state.acquired.insert(slot.clone(), acquired);
    }
}
