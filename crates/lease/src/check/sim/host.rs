//! What a host does for its agent: candidacies, actions, the guard, and the units.

use super::world::{Happening, MS, World, name};
use crate::holder::{Action, Candidacy, Event};
use crate::time::{Span, Time};
use crate::types::{Epoch, NodeName, Slot};
use std::sync::Arc;

/// Candidates of one slot at most.
const CANDIDATES_MAX: usize = 4;

/// Slots side by side that have the same candidates.
const BLOCK: usize = 128;

impl World {
    /// Starts an agent: adopts what is armed (P6), then becomes candidate for everything.
    pub(super) fn start(&mut self, node: usize) {
        let (now, rules, mut set) = (self.now, self.rules, self.set.clone());
        let machine = &mut self.machines[node];
        // What an agent starts with may come from a voter that is ahead of the others.
        if let Some(ahead) = machine.journal.set.as_ref().filter(|ahead| ahead.number() > set.number()) {
            set = ahead.clone();
        }
        machine.start(now, rules, set);
        let clock = machine.clock(now);
        let mut former = Vec::new();
        for (slot, place) in machine.places.iter() {
            match place.unit {
                Some(epoch) => former.push((slot, epoch, place.word.deadline().unwrap_or_default())),
                // Armed, and the unit stopped or was never started: this host starts nothing late, so it is not held.
                None => {
                    place.word.fence();
                }
            }
        }
        for (slot, epoch, deadline) in former {
            self.stats.adopted += u64::from(clock < deadline);
            let t = self.t(&slot);
            self.event(node, Event::Adopt { slot, t, epoch, deadline });
        }
        self.assign(node);
        self.tick_voter(node);
    }

    pub(super) fn t(&self, slot: &Slot) -> Span {
        match slot {
            Slot::Ring { .. } => self.slots[0].1,
            Slot::Named(_) => self.slots.iter().find(|(known, _)| known == slot).map_or(Span::from_millis(350), |(_, t)| *t),
        }
    }

    /// Tells an agent its candidacies. Orders differ by node at times, as assignments may be stale.
    pub(super) fn assign(&mut self, node: usize) {
        let mut order: Vec<NodeName> = (0..self.plan.nodes).map(name).collect();
        let turns = if self.fair || self.rng.per_mille(600) { 0 } else { self.rng.index(order.len()) };
        order.rotate_left(turns);
        if !self.fair && self.rng.per_mille(300) {
            order.retain(|other| *other != self.machines[node].name);
            order.insert(0, self.machines[node].name.clone());
        }
        self.machines[node].order = Arc::from(order);
        for index in 0..self.slots.len() {
            // Each block of slots has its candidates, as a planner would spread them.
            let nodes = self.machines.len();
            if (node + nodes - index / BLOCK % nodes) % nodes >= CANDIDATES_MAX {
                continue;
            }
            let (slot, t) = self.slots[index].clone();
            let machine = &self.machines[node];
            let candidacy = Candidacy { order: Arc::clone(&machine.order), ready: machine.ready, unready_may_go: true };
            self.event(node, Event::Candidate { slot, t, candidacy });
        }
    }

    pub(super) fn event(&mut self, node: usize, event: Event) {
        let jitter = Span(self.rng.range(0, 5 * MS));
        let mut actions = Vec::new();
        let clock = self.machines[node].clock(self.now);
        if let Some(agent) = &mut self.machines[node].agent {
            agent.holder.handle(clock, jitter, event, &mut actions);
        }
        for action in actions {
            self.act(node, action);
        }
        self.plan_wake(node);
    }

    pub(super) fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Send(to, message) => {
                self.check_sent(node, &message);
                self.send(node, &to, message);
            }
            Action::Arm { slot, tenure, deadline } => self.arm(node, &slot, tenure.epoch, deadline),
            Action::Extend { slot, epoch, deadline } => {
                let clock = self.machines[node].clock(self.now);
                let place = self.machines[node].places.get(&slot);
                if place.is_none_or(|place| place.word.extend(deadline, || clock).is_err()) {
                    self.event(node, Event::Fenced { slot, epoch });
                }
            }
            Action::Lost { slot, epoch } => {
                self.stats.lost += 1;
                let time = self.now + self.rng.range(MS, 20 * MS);
                self.at(time, Happening::Stop(node, slot, epoch));
            }
            Action::Disarm { slot, .. } => {
                if let Some(place) = self.machines[node].places.get(&slot) {
                    place.word.fence();
                }
            }
            Action::Released { .. } => self.stats.released += 1,
            Action::Failed { .. } => {}
        }
    }

    pub(super) fn arm(&mut self, node: usize, slot: &Slot, epoch: Epoch, deadline: Time) {
        self.note(8, node, epoch.0);
        let clock = self.machines[node].clock(self.now);
        let Some(truth) = self.truth.get_mut(slot) else { return };
        let rises = epoch > truth.highest;
        let contested = truth.asked.count_ones() > 1;
        (truth.highest, truth.asked) = (truth.highest.max(epoch), 0);
        self.stats.acquired += 1;
        self.stats.contested += u64::from(contested);
        if !rises {
            self.fail(format!("epochs do not rise: {slot} epoch {epoch}"));
            return;
        }
        let Some(place) = self.machines[node].places.get_mut(slot) else { return };
        // A former tenure's unit must be gone first.
        if place.unit.is_some() || place.word.arm(epoch, deadline, || clock).is_err() {
            self.event(node, Event::Fenced { slot: slot.clone(), epoch });
            return;
        }
        place.unit = Some(epoch);
        place.stopping = false;
        if let Some(other) = self.truth.get_mut(slot).and_then(|truth| truth.runs.replace(node)) {
            self.fail(format!("two run {slot}: node {other}, and node {node} in epoch {epoch}"));
        }
        self.watch_word(node, slot, deadline);
    }

    /// The guard looks at its words a little after each deadline. A look planned for later does not do: the word may have been fenced
    /// and armed anew with a nearer deadline.
    pub(super) fn watch_word(&mut self, node: usize, slot: &Slot, deadline: Time) {
        let late = self.rng.range(0, 10 * MS);
        let time = self.machines[node].true_time(deadline).max(self.now) + late;
        let Some(place) = self.machines[node].places.get_mut(slot) else { return };
        if place.look.is_none_or(|planned| time < planned) {
            place.look = Some(time);
            self.at(time, Happening::Guard(node, slot.clone()));
        }
    }

    /// The guard: fences what is past its deadline, and ends what runs unarmed (F5).
    pub(super) fn guard(&mut self, node: usize, slot: &Slot) {
        let clock = self.machines[node].clock(self.now);
        let now = self.now;
        let Some(place) = self.machines[node].places.get_mut(slot) else { return };
        place.look = place.look.filter(|planned| *planned > now);
        place.word.fence_if_passed(clock);
        if let Some(deadline) = place.word.deadline() {
            self.watch_word(node, slot, deadline);
            return;
        }
        if let Some(epoch) = place.unit {
            self.note(4, node, epoch.0);
            // Wake, kill and address removal within F.
            let time = self.now + self.rng.range(4 * MS, 80 * MS);
            self.at(time, Happening::Stop(node, slot.clone(), epoch));
        }
    }

    /// The unit has ended and the agent, if it can, hears of it.
    pub(super) fn stop(&mut self, node: usize, slot: &Slot, epoch: Epoch) {
        let now = self.now;
        let Some(place) = self.machines[node].places.get_mut(slot) else { return };
        if place.unit == Some(epoch) {
            place.unit = None;
            if let Some(truth) = self.truth.get_mut(slot) {
                (truth.runs, truth.ended) = (None, now);
            }
        } else if place.unit.is_some() {
            return;
        }
        if let Some(agent) = &self.machines[node].agent {
            if agent.paused_until > now {
                let time = agent.paused_until + 1;
                self.at(time, Happening::Stop(node, slot.clone(), epoch));
            } else {
                self.event(node, Event::Stopped { slot: slot.clone(), epoch });
            }
        }
    }
}
