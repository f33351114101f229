//! How many of a voter's records are of locks.

use super::LOCKS_MAX;
use crate::types::Slot;

/// Whether the slot is a lock's.
pub(super) fn is_lock(slot: &Slot) -> bool {
    matches!(slot, Slot::Named(name) if name.as_str().starts_with("lock/"))
}

#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    known: usize,
    /// After the last look so many were held; the next look is worth its time when there are twice as many.
    held: usize,
}

impl Locks {
    /// A slot's record is new.
    pub(super) fn count(&mut self, slot: &Slot) {
        self.known += usize::from(is_lock(slot));
    }

    pub(super) const fn are_many(&self) -> bool {
        self.known >= LOCKS_MAX && self.known >= 2 * self.held
    }

    pub(super) const fn recount(&mut self, left: usize) {
        self.known = left;
        self.held = left;
    }
}
