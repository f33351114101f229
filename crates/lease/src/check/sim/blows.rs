//! What is done to the cluster, and in what state it found it.

use super::stats::{Blow, Found};
use super::world::{Happening, MS, World, name};
use crate::change::Stage;
use crate::holder::{Event, Phase};
use crate::set::{Member, VoterSet};
use crate::types::{SetNo, Slot};

const BLOWS: [Blow; 12] = [
    Blow::CutOff,
    Blow::Split,
    Blow::Lossy,
    Blow::AgentKilled,
    Blow::TornRecord,
    Blow::AgentRestarted,
    Blow::AgentPaused,
    Blow::PowerLost,
    Blow::Moved,
    Blow::FencedEarly,
    Blow::VotersChanged,
    Blow::DriverKilled,
];

impl World {
    /// One blow.
    pub(super) fn strike(&mut self) {
        let node = self.rng.index(self.machines.len());
        let mut blow = BLOWS[self.rng.index(BLOWS.len())];
        // A voter that boots waits for seconds: power losses as frequent as the rest would leave no majority for most of the time.
        if blow == Blow::PowerLost && self.rng.per_mille(800) {
            blow = Blow::Moved;
        }
        self.record(blow, node);
        match blow {
            Blow::CutOff => {
                self.machines[node].cut = true;
                self.heal_later(blow, node);
            }
            Blow::Split => {
                self.split = self.rng.bits() & 0x1ff;
                self.heal_later(blow, node);
            }
            Blow::Lossy => {
                self.lossy = true;
                self.heal_later(blow, node);
            }
            Blow::AgentKilled => self.kill_agent(node, false),
            Blow::TornRecord => self.kill_agent(node, true),
            Blow::AgentRestarted => {
                if self.machines[node].agent.as_ref().is_some_and(|agent| agent.paused_until <= self.now) {
                    self.event(node, Event::RenewLong);
                }
                let end = self.now + 20 * MS;
                self.run_until(end);
                self.kill_agent(node, false);
            }
            Blow::AgentPaused => {
                let until = self.now + self.rng.range(10 * MS, 1_500 * MS);
                if let Some(agent) = &mut self.machines[node].agent {
                    agent.paused_until = until;
                    self.at(until, Happening::Resume(node));
                }
            }
            Blow::PowerLost => {
                self.power_off(node);
                let later = self.now + self.rng.range(200 * MS, 3_000 * MS);
                self.machines[node].powered = true;
                self.at(later, Happening::Start(node));
            }
            Blow::Moved => self.move_slots(node),
            Blow::FencedEarly => {
                let many = self.rng.range(1, 100) as usize;
                let slots: Vec<Slot> = self.held_by(node).into_iter().take(many).collect();
                for slot in slots {
                    if let Some(place) = self.machines[node].places.get(&slot) {
                        place.word.fence();
                    }
                    self.at(self.now + MS, Happening::Guard(node, slot));
                }
            }
            Blow::VotersChanged => self.change_voters(),
            Blow::DriverKilled => {
                if let Some(driver) = self.driver.take_if(|driver| driver.stage() != Stage::Committed) {
                    let (next, from) = (driver.next().clone(), self.set.clone());
                    self.new_driver(from, next);
                }
            }
        }
        if self.rng.per_mille(200) {
            let node = self.rng.index(self.machines.len());
            self.machines[node].ready = self.rng.per_mille(700);
            if self.machines[node].agent.as_ref().is_some_and(|agent| agent.paused_until <= self.now) {
                self.assign(node);
            }
        }
    }

    /// What the network suffers passes, so that most of the time there is a majority and something is held to be hit.
    fn heal_later(&mut self, blow: Blow, node: usize) {
        let later = self.now + self.rng.range(20 * MS, 1_200 * MS);
        self.at(later, Happening::Heal(blow, node));
    }

    pub(super) fn heal(&mut self, blow: Blow, node: usize) {
        match blow {
            Blow::CutOff => self.machines[node].cut = false,
            Blow::Split => self.split = 0,
            _ => self.lossy = false,
        }
    }

    fn record(&mut self, blow: Blow, node: usize) {
        let mut found = Vec::new();
        if let Some(agent) = &self.machines[node].agent {
            for (_, slot) in agent.holder.slots() {
                found.push(match &slot.phase {
                    Phase::Idle => Found::Idle,
                    Phase::Attempt(_) => Found::Attempt,
                    Phase::Holding(holding) if holding.stopping.is_some() => Found::Stopping,
                    Phase::Holding(_) => Found::Holding,
                    Phase::Ended { .. } => Found::Ended,
                });
                found.extend(slot.releasing.as_ref().map(|_| Found::Releasing));
            }
            let clock = self.machines[node].clock(self.now);
            found.extend(agent.voter.waiting(clock).map(|_| Found::VoterWaiting));
        }
        let changing = self.driver.as_ref().is_some_and(|driver| driver.stage() != Stage::Committed);
        found.extend(changing.then_some(Found::Changing));
        found.sort_unstable();
        found.dedup();
        for found in found {
            *self.stats.table.entry((blow, found)).or_default() += 1;
        }
    }

    fn held_by(&self, node: usize) -> Vec<Slot> {
        self.truth.iter().filter(|(_, truth)| truth.runs == Some(node)).map(|(slot, _)| slot).collect()
    }

    fn kill_agent(&mut self, node: usize, torn: bool) {
        let torn = torn.then(|| self.rng.index(self.slots.len()));
        self.machines[node].kill(torn);
        // Mostly back in time to adopt, at times not.
        let later = self.now + if self.rng.per_mille(700) { self.rng.range(10 * MS, 120 * MS) } else { self.rng.range(MS, 2_000 * MS) };
        self.at(later, Happening::Start(node));
    }

    /// Everything on the machine ends at once; /run and the boot are gone.
    pub(super) fn power_off(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        machine.kill(None);
        machine.run = None;
        machine.boot += 1;
        machine.powered = false;
        let slots: Vec<Slot> = machine.places.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            machine.places.insert(&slot, super::node::Place::default());
            if let Some(truth) = self.truth.get_mut(&slot).filter(|truth| truth.runs == Some(node)) {
                (truth.runs, truth.ended) = (None, now);
            }
        }
    }

    pub(super) fn power_on(&mut self, node: usize) {
        self.machines[node].powered = true;
        self.at(self.now + MS, Happening::Start(node));
    }

    /// A planned move of some slots to another node.
    fn move_slots(&mut self, node: usize) {
        let paused = self.machines[node].agent.as_ref().is_none_or(|agent| agent.paused_until > self.now);
        if paused {
            return;
        }
        let to = self.rng.index(self.machines.len());
        let many = self.rng.range(1, self.slots.len() as u64) as usize;
        for slot in self.held_by(node).into_iter().take(many) {
            let Some(epoch) = self.machines[node].places.get(&slot).and_then(|place| place.unit) else { continue };
            self.event(node, Event::Release { slot: slot.clone(), successor: Some(name(to)) });
            let time = self.now + self.rng.range(MS, 40 * MS);
            self.at(time, Happening::Stop(node, slot, epoch));
        }
    }

    fn change_voters(&mut self) {
        if self.driver.as_ref().is_some_and(|driver| driver.stage() != Stage::Committed) {
            return;
        }
        let mut members: Vec<Member> = self.set.members().to_vec();
        let outside: Vec<usize> = (0..self.machines.len()).filter(|node| members.iter().all(|m| m.node != name(*node))).collect();
        if members.len() > 3 && (outside.is_empty() || self.rng.per_mille(500)) || members.len() >= 5 {
            members.remove(self.rng.index(members.len()));
        } else if !outside.is_empty() {
            let node = outside[self.rng.index(outside.len())];
            members.push(Member { id: self.machines[node].journal.voter, node: name(node) });
        }
        if let Ok(next) = VoterSet::new(SetNo(self.set.number().0 + 1), members) {
            self.new_driver(self.set.clone(), next);
        }
    }

    /// Everything works again.
    pub(super) fn mend(&mut self) {
        self.fair = true;
        (self.split, self.lossy) = (0, false);
        for node in 0..self.machines.len() {
            self.machines[node].cut = false;
            self.machines[node].ready = true;
            self.machines[node].powered = true;
            let now = self.now;
            match &mut self.machines[node].agent {
                Some(agent) => {
                    agent.paused_until = 0;
                    self.at(now + 1, Happening::Resume(node));
                }
                None => self.at(now + 1, Happening::Start(node)),
            }
        }
        let end = self.now + 2 * MS;
        self.run_until(end);
        for node in 0..self.machines.len() {
            self.assign(node);
        }
    }
}
