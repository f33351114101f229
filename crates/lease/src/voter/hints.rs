//! The voter's hints "free" (P7): who wants to hear, and when a grant should be looked at again.
//!
//! Soft state only. Losing all of it costs candidates the time until their next [`Watch`], never safety.

use crate::message::Watch;
use crate::slots::SlotSet;
use crate::time::{Span, Time};
use crate::types::{NodeName, Slot};
use std::collections::BTreeMap;

/// A candidate that has not repeated its [`Watch`] for so long is forgotten.
pub const WATCH_TTL: Span = Span::from_millis(3_000);
/// Lists of candidates remembered at most; the next ones get no hints and depend on their own observation.
pub const WATCHERS_MAX: usize = 4096;

#[derive(Clone, Debug)]
struct Watcher {
    until: Time,
    slots: SlotSet,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    watchers: BTreeMap<(NodeName, u16), Watcher>,
    /// When to look at which grants. A slot is in it at most once: a renewal leaves its entry, which moves on when it is due.
    due: BTreeMap<Time, SlotSet>,
}

impl Hints {
    pub(super) fn watch(&mut self, now: Time, watch: &Watch) {
        let key = (watch.node.clone(), watch.part);
        if self.watchers.len() < WATCHERS_MAX || self.watchers.contains_key(&key) {
            self.watchers.insert(key, Watcher { until: now + WATCH_TTL, slots: watch.slots.clone() });
        }
    }

    /// Look at this slot at `at`.
    pub(super) fn queue(&mut self, slot: &Slot, at: Time) {
        self.due.entry(at).or_default().insert(slot);
    }

    /// The slots to look at now.
    pub(super) fn pop_due(&mut self, now: Time) -> Vec<Slot> {
        let mut slots = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| *entry.key() <= now) {
            slots.extend(entry.remove().iter());
        }
        self.watchers.retain(|_, watcher| now < watcher.until);
        slots
    }

    /// Who wants to hear of these slots, and of which of them.
    pub(super) fn interested<'a>(&'a self, slots: &'a [Slot]) -> impl Iterator<Item = (NodeName, Vec<&'a Slot>)> + 'a {
        self.watchers.iter().filter_map(|((node, _), watcher)| {
            let wanted: Vec<_> = slots.iter().filter(|slot| watcher.slots.contains(slot)).collect();
            (!wanted.is_empty()).then(|| (node.clone(), wanted))
        })
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.keys().next().copied()
    }
}
