//! The cluster in motion: its parts, and the queue of events.

use super::node::{Machine, Place};
use super::stats::{Blow, Stats};
use super::{Outcome, Plan, Rng};
use crate::change::SetChange;
use crate::holder::Event;
use crate::message::Message;
use crate::rules::Planted;
use crate::set::{Member, VoterSet};
use crate::slots::SlotMap;
use crate::time::Span;
use crate::types::{Epoch, NodeName, SetNo, Slot, SlotName, VoterId};
use crate::voter::Journal;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3Default;

/// Milliseconds in nanoseconds.
pub(super) const MS: u64 = 1_000_000;

pub(super) enum Happening {
    Deliver(usize, Box<Message>),
    Driver(Box<Message>),
    Wake(usize),
    Guard(usize, Slot),
    Stop(usize, Slot, Epoch),
    Start(usize),
    Resume(usize),
    Drive,
    Heal(Blow, usize),
}

/// What the checks know of a slot.
#[derive(Default)]
pub(super) struct Truth {
    /// Who runs it.
    pub runs: Option<usize>,
    pub highest: Epoch,
    /// Who asked since it was last given up.
    pub asked: u64,
    /// When its last unit ended.
    pub ended: u64,
}

pub(super) struct World {
    pub plan: Plan,
    pub rules: Planted,
    pub rng: Rng,
    pub now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, Happening>,
    pub machines: Vec<Machine>,
    pub slots: Vec<(Slot, Span)>,
    pub truth: SlotMap<Truth>,
    pub set: VoterSet,
    pub driver: Option<SetChange<Planted>>,
    pub split: u64,
    pub lossy: bool,
    pub fair: bool,
    pub stats: Stats,
    pub broken: Option<String>,
    trace: Xxh3Default,
}

pub(super) fn name(index: usize) -> NodeName {
    #[expect(clippy::unwrap_used, reason = "a short name")]
    NodeName::new(&format!("n{index}")).unwrap()
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        #[expect(clippy::unwrap_used, reason = "short names")]
        let slot_name = |text: &str| SlotName::new(text).unwrap();
        let mut rng = Rng::new(plan.seed);
        let ring = slot_name("cache");
        let lengths = [200, 350, 350, 600, 1_000].map(Span::from_millis);
        let ring_t = lengths[rng.index(lengths.len())];
        let mut slots: Vec<(Slot, Span)> =
            (0..plan.partitions).map(|partition| (Slot::Ring { ring: ring.clone(), partition }, ring_t)).collect();
        for index in 0..plan.named {
            slots.push((Slot::Named(slot_name(&format!("app/a{index}"))), lengths[rng.index(lengths.len())]));
        }
        let voters = if plan.nodes >= 5 && rng.per_mille(500) { 5 } else { 3 };
        let members = (0..voters).map(|index| Member { id: VoterId(index as u128 + 1), node: name(index) }).collect();
        #[expect(clippy::unwrap_used, reason = "three or five different voters")]
        let set = VoterSet::new(SetNo(1), members).unwrap();
        let mut world = Self {
            rules: Planted(plan.fault),
            rng,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            machines: Vec::new(),
            truth: SlotMap::default(),
            slots,
            set: set.clone(),
            driver: None,
            split: 0,
            lossy: false,
            fair: false,
            stats: Stats::default(),
            broken: None,
            trace: Xxh3Default::new(),
            plan,
        };
        for (slot, _) in &world.slots {
            world.truth.insert(slot, Truth::default());
        }
        for index in 0..world.plan.nodes {
            let id = VoterId(index as u128 + 1);
            let mut places = SlotMap::default();
            for (slot, _) in &world.slots {
                places.insert(slot, Place::default());
            }
            world.machines.push(Machine {
                name: name(index),
                boot: 1,
                lives: 0,
                drift: world.rng.range(0, 2_000) as i64 - 1_000,
                powered: true,
                cut: false,
                agent: None,
                places,
                journal: Journal::new(id, set.has(id).then(|| set.clone())),
                run: None,
                order: Arc::from([]),
                ready: true,
            });
        }
        for index in 0..world.plan.nodes {
            world.start(index);
        }
        world
    }

    pub(super) fn outcome(mut self) -> Outcome {
        self.stats.simulated = self.now;
        Outcome { seed: self.plan.seed, stats: self.stats, trace: self.trace.digest(), broken: self.broken }
    }

    pub(super) fn at(&mut self, time: u64, what: Happening) {
        self.seq += 1;
        self.queue.push(Reverse((time.max(self.now), self.seq)));
        self.what.insert(self.seq, what);
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(format!("{} at {} ns", what.into(), self.now));
        }
    }

    /// Handles everything up to this time.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, seq))) = self.queue.peek().copied().filter(|next| next.0.0 <= end) {
            if self.broken.is_some() {
                return;
            }
            self.queue.pop();
            self.now = time;
            let Some(what) = self.what.remove(&seq) else { continue };
            self.stats.events += 1;
            self.trace.update(&time.to_le_bytes());
            self.happen(what);
        }
        self.now = end;
    }

    pub(super) fn note(&mut self, what: u8, node: usize, number: u64) {
        self.trace.update(&[what, node as u8]);
        self.trace.update(&number.to_le_bytes());
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Deliver(node, message) => {
                self.note(1, node, 0);
                self.deliver(node, *message);
            }
            Happening::Driver(message) => {
                self.note(2, 0, 0);
                if let Message::SetAnswer(answer) = *message {
                    self.drive(Some(&answer));
                }
            }
            Happening::Wake(node) => {
                self.note(3, node, 0);
                let now = self.now;
                if let Some(agent) = self.machines[node].agent.as_mut().filter(|agent| agent.wake == Some(now)) {
                    agent.wake = None;
                    if agent.paused_until <= now {
                        self.tick_voter(node);
                        self.event(node, Event::Tick);
                    }
                }
            }
            Happening::Guard(node, slot) => self.guard(node, &slot),
            Happening::Stop(node, slot, epoch) => self.stop(node, &slot, epoch),
            Happening::Start(node) => {
                self.note(6, node, 0);
                if self.machines[node].agent.is_none() && self.machines[node].powered {
                    self.start(node);
                }
            }
            Happening::Resume(node) => {
                self.note(7, node, 0);
                let now = self.now;
                let backlog = match self.machines[node].agent.as_mut().filter(|agent| agent.paused_until <= now) {
                    Some(agent) => std::mem::take(&mut agent.backlog),
                    None => return,
                };
                for message in backlog {
                    self.deliver(node, message);
                }
                self.tick_voter(node);
                self.event(node, Event::Tick);
            }
            Happening::Drive => self.drive(None),
            Happening::Heal(blow, node) => {
                self.note(9, node, 0);
                self.heal(blow, node);
            }
        }
    }
}
