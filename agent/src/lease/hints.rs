//! What this node hears of named slots before it takes them over: for the record of take-overs, nothing is decided by it.

use std::collections::BTreeMap;

use cluster_fence::clock;
use cluster_lease::message::Message;
use cluster_lease::time::Time;
use cluster_lease::types::{Epoch, Slot};

use super::DEFAULT_T;
use super::host::Host;
use super::view::Acquired;

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
            if !self.state.wanted.contains_key(&slot) {
                continue;
            }
            let hint = self.state.hints.entry(slot).or_insert(Hint { epoch, at, handed });
            if epoch > hint.epoch {
                *hint = Hint { epoch, at, handed };
            }
            hint.handed |= handed;
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
