//! The list of slots that this node wants hints about (P7).

use super::sends::split_set;
use super::{Action, Holder, Phase, WATCH_DELAY, WATCH_EVERY};
use crate::message::{Message, Watch};
use crate::rules::Rules;
use crate::slots::SlotSet;
use crate::time::Time;

impl<R: Rules> Holder<R> {
    /// The list of watched slots has changed. Changes come in thousands at a time, so the list goes out once for all of them.
    pub(super) fn watch_soon(&mut self, now: Time) {
        let soon = now + WATCH_DELAY;
        self.watch_at = Some(self.watch_at.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn send_watch(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.watch_at.is_none_or(|at| now < at) {
            return;
        }
        let mut wanted = SlotSet::default();
        for (slot, state) in self.slots.iter() {
            if state.candidacy.is_some() && !matches!(state.phase, Phase::Holding(_)) {
                wanted.insert(&slot);
            }
        }
        let candidate = self.slots.values().any(|state| state.candidacy.is_some());
        self.watch_at = candidate.then_some(now + WATCH_EVERY);
        if wanted.is_empty() {
            return;
        }
        for (part, slots) in (0u16..).zip(split_set(&wanted)) {
            for member in self.sets.current().members() {
                let (cluster, voter, node) = (self.config.cluster, member.id, self.config.node.name.clone());
                let watch = Watch { cluster, voter, node, part, slots: slots.clone() };
                actions.push(Action::Send(member.node.clone(), Message::Watch(watch)));
            }
        }
    }
}
