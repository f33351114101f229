//! The rounds, and what must be true in them.

use super::world::{MS, World};
use super::{SETTLE, takeover_bound};
use crate::message::Message;
use crate::time::MAX_T;
use crate::types::Slot;

impl World {
    /// A bad time, then a fair one with its checks.
    pub(super) fn round(&mut self) {
        self.fair = false;
        for _ in 0..self.plan.blows {
            self.strike();
            let pause = if self.rng.per_mille(300) { 5 * MS } else { 400 * MS };
            let end = self.now + self.rng.range(MS, pause);
            self.run_until(end);
        }
        self.mend();
        let end = self.now + SETTLE.0;
        while self.now < end && self.broken.is_none() && self.truth.values().any(|truth| truth.runs.is_none()) {
            self.run_until(self.now + 50 * MS);
        }
        self.check_held("at the end of the fair time");
        // A while of peace, so that the last leases of the longest T are not counted as slow take-overs.
        let end = self.now + MAX_T.0 + 2 * self.slots.iter().map(|(_, t)| t.0).max().unwrap_or(0);
        self.run_until(end);
        self.check_held("in peace");
        self.check_takeover();
    }

    pub(super) fn check_sent(&mut self, node: usize, message: &Message) {
        match message {
            Message::Release(ask) => {
                let runs = ask
                    .claims
                    .iter()
                    .any(|(slot, epoch)| self.machines[node].places.get(&slot).is_some_and(|place| place.unit == Some(epoch)));
                if runs {
                    self.fail("P5: Release sent while the unit runs");
                }
            }
            Message::Acquire(ask) => {
                for (slot, _) in ask.claims.iter() {
                    if let Some(truth) = self.truth.get_mut(&slot) {
                        truth.asked |= 1 << node;
                    }
                }
            }
            _ => {}
        }
    }

    fn check_held(&mut self, when: &str) {
        let free: Vec<_> = self.truth.iter().filter(|(_, truth)| truth.runs.is_none()).map(|(slot, _)| slot).collect();
        if let (Some(slot), true) = (free.first(), self.broken.is_none()) {
            self.fail(format!("{} slots are free {when}, first {slot}", free.len()));
        }
    }

    /// Power loss of one machine in fair times: its slots must be held again within the bound.
    fn check_takeover(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let node = self.rng.index(self.machines.len());
        let lost = self.now;
        let held: Vec<Slot> = self.truth.iter().filter(|(_, truth)| truth.runs == Some(node)).map(|(slot, _)| slot).collect();
        self.power_off(node);
        let longest = self.slots.iter().map(|(_, t)| *t).max().unwrap_or_default();
        let bound = takeover_bound(longest, self.machines.len());
        let mut left = held;
        while self.now < lost + bound.0 && !left.is_empty() {
            self.run_until(self.now + MS);
            left.retain(|slot| self.truth.get(slot).is_some_and(|truth| truth.runs.is_none()));
        }
        self.stats.longest_takeover = self.stats.longest_takeover.max(self.now - lost);
        if let Some(slot) = left.first() {
            self.fail(format!("{} slots of node {node} are free {bound} after its power loss, first {slot}", left.len()));
        }
        self.power_on(node);
    }
}
