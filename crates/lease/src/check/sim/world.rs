//! The cluster in motion: the queue of events, the network, the guards, and the checks.

use super::node::{CLUSTER, Machine, Place};
use super::stats::Stats;
use super::{Outcome, Plan, Rng, SETTLE, takeover_bound};
use crate::change::{SetChange, Stage};
use crate::holder::{Action, Candidacy, Event};
use crate::message::{Message, Verdict};
use crate::rules::Planted;
use crate::set::{Member, VoterSet};
use crate::slots::SlotMap;
use crate::time::{MAX_T, Span, Time};
use crate::types::{Epoch, NodeName, SetNo, Slot, SlotName, VoterId};
use crate::voter::{Journal, VoterAction};
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
}

/// What the checks know of a slot.
#[derive(Default)]
pub(super) struct Truth {
    /// Who runs it.
    pub runs: Option<usize>,
    pub highest: Epoch,
    /// Who asked since it was last given up.
    asked: u64,
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

    fn note(&mut self, what: u8, node: usize, number: u64) {
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
        }
    }

    /// Starts an agent: adopts what is armed (P6), then becomes candidate for everything.
    pub(super) fn start(&mut self, node: usize) {
        let (now, rules, set) = (self.now, self.rules, self.set.clone());
        let machine = &mut self.machines[node];
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

    fn t(&self, slot: &Slot) -> Span {
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

    fn plan_wake(&mut self, node: usize) {
        let Some(agent) = &self.machines[node].agent else { return };
        let wakes = agent.holder.next_wake().into_iter().chain(agent.voter.next_wake());
        let Some(wake) = wakes.map(|wake| self.machines[node].true_time(wake)).min() else { return };
        let wake = wake.max(self.now + 1);
        if let Some(agent) = self.machines[node].agent.as_mut().filter(|agent| agent.wake.is_none_or(|planned| wake < planned)) {
            agent.wake = Some(wake);
            self.at(wake, Happening::Wake(node));
        }
    }

    fn tick_voter(&mut self, node: usize) {
        let clock = self.machines[node].clock(self.now);
        let mut actions = Vec::new();
        if let Some(agent) = &mut self.machines[node].agent {
            agent.voter.tick(clock, &mut actions);
        }
        self.voter_actions(node, actions);
        self.plan_wake(node);
    }

    fn voter_actions(&mut self, node: usize, actions: Vec<VoterAction>) {
        for action in actions {
            if let VoterAction::Send(to, message) = action {
                self.send(node, &to, message);
            }
        }
    }

    fn deliver(&mut self, node: usize, message: Message) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(agent) = &mut machine.agent else { return };
        if agent.paused_until > now {
            machine.keep(message);
            return;
        }
        self.stats.delivered += 1;
        if !message.is_for_voter() {
            self.event(node, Event::Message(message));
            return;
        }
        let clock = machine.clock(now);
        let Some(agent) = &mut machine.agent else { return };
        let mut actions = Vec::new();
        agent.voter.handle(clock, &message, &mut actions);
        let refused = |action: &VoterAction| match action {
            VoterAction::Send(_, Message::Answer(answer)) => match &answer.verdict {
                Verdict::Refused(_) => true,
                Verdict::Slots { accepted, .. } => accepted.is_empty(),
            },
            _ => false,
        };
        // V2: a refusal stores nothing.
        if actions.iter().any(refused) && actions.iter().any(|action| !matches!(action, VoterAction::Send(..))) {
            self.fail("V2: a refusal changed a voter");
        }
        self.voter_actions(node, actions);
        self.plan_wake(node);
    }

    pub(super) fn send(&mut self, from: usize, to: &NodeName, message: Message) {
        let to = match to.as_str() {
            "ctl" => None,
            other => other.get(1..).and_then(|digits| digits.parse::<usize>().ok()),
        };
        self.route(Some(from), to, message);
    }

    /// `None` is the controller, which no fault cuts off.
    #[expect(clippy::needless_pass_by_value, reason = "a message that was routed is gone for its sender")]
    fn route(&mut self, from: Option<usize>, to: Option<usize>, message: Message) {
        let alone = |node: Option<usize>| node.is_some_and(|node| self.machines[node].cut || !self.machines[node].powered);
        let side = |node: Option<usize>| node.is_some_and(|node| self.split >> node & 1 == 1);
        let same = from == to;
        if !same && (alone(from) || alone(to) || from.is_some() && to.is_some() && side(from) != side(to)) {
            return;
        }
        let mut copies = 1;
        if self.lossy && !same && !self.fair {
            copies = if self.rng.per_mille(100) {
                0
            } else if self.rng.per_mille(100) {
                2
            } else {
                1
            };
        }
        for _ in 0..copies {
            let mut delay = self.rng.range(100_000, 2 * MS);
            if !self.fair && self.rng.per_mille(10) {
                delay = self.rng.range(MS, 1_500 * MS);
            }
            let time = self.now + if same { 1_000 } else { delay };
            let message = Box::new(message.clone());
            self.at(
                time,
                match to {
                    Some(to) => Happening::Deliver(to, message),
                    None => Happening::Driver(message),
                },
            );
        }
    }

    fn act(&mut self, node: usize, action: Action) {
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

    fn check_sent(&mut self, node: usize, message: &Message) {
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

    fn arm(&mut self, node: usize, slot: &Slot, epoch: Epoch, deadline: Time) {
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
        let watched = std::mem::replace(&mut place.watched, true);
        if let Some(other) = self.truth.get_mut(slot).and_then(|truth| truth.runs.replace(node)) {
            self.fail(format!("two run {slot}: node {other}, and node {node} in epoch {epoch}"));
        }
        if !watched {
            self.watch_word(node, slot, deadline);
        }
    }

    fn watch_word(&mut self, node: usize, slot: &Slot, deadline: Time) {
        let late = self.rng.range(0, 10 * MS);
        let time = self.machines[node].true_time(deadline) + late;
        self.at(time, Happening::Guard(node, slot.clone()));
    }

    /// The guard: fences what is past its deadline, and ends what runs unarmed (F5).
    fn guard(&mut self, node: usize, slot: &Slot) {
        let clock = self.machines[node].clock(self.now);
        let Some(place) = self.machines[node].places.get_mut(slot) else { return };
        place.word.fence_if_passed(clock);
        if let Some(deadline) = place.word.deadline() {
            self.watch_word(node, slot, deadline);
            return;
        }
        place.watched = false;
        if let Some(epoch) = place.unit {
            self.note(4, node, epoch.0);
            // Wake, kill and address removal within F.
            let time = self.now + self.rng.range(4 * MS, 80 * MS);
            self.at(time, Happening::Stop(node, slot.clone(), epoch));
        }
    }

    /// The unit has ended and the agent, if it can, hears of it.
    fn stop(&mut self, node: usize, slot: &Slot, epoch: Epoch) {
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

    pub(super) fn drive(&mut self, answer: Option<&crate::message::SetAnswer>) {
        let now = Time(self.now);
        let Some(driver) = &mut self.driver else { return };
        let before = driver.stage();
        let asks = driver.handle(now, answer);
        let (stage, wake, next) = (driver.stage(), driver.next_wake(), driver.next().clone());
        for (to, message) in asks {
            let to = to.as_str().get(1..).and_then(|digits| digits.parse().ok());
            self.route(None, to, message);
        }
        if stage == Stage::Committed && before != stage {
            self.stats.changes += 1;
            self.set = next;
        }
        if answer.is_none()
            && let Some(wake) = wake
        {
            // The controller's clock runs true here; the agents' do not.
            let time = wake.0.min(self.now + 100 * MS).max(self.now + MS);
            self.at(time, Happening::Drive);
        }
    }

    pub(super) fn new_driver(&mut self, from: VoterSet, next: VoterSet) {
        #[expect(clippy::unwrap_used, reason = "a short name")]
        let me = NodeName::new("ctl").unwrap();
        if let Ok(driver) = SetChange::with_rules(self.rules, CLUSTER, me, MAX_T, from, next) {
            let idle = self.driver.as_ref().is_none_or(|driver| driver.next_wake().is_none());
            self.driver = Some(driver);
            if idle {
                self.drive(None);
            }
        }
    }

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
