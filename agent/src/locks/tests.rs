//! The core of several nodes with a lease service that does what it promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, NodeName, Slot};
use proptest::prelude::*;

use super::core::{Core, Id, Input, LockError, Output};
use super::name::LockName;
use crate::lease::locking::{LockAsk, LockEvent};

const T: Span = Span::from_millis(350);
const LONG: Time = Time(3_600_000_000_000);

#[derive(Default)]
struct Lease {
    epoch: u64,
    /// Whether the holder's node lives.
    held: Option<(NodeName, bool)>,
    candidates: BTreeMap<NodeName, Vec<NodeName>>,
}

#[derive(Default)]
struct World {
    now: Time,
    nodes: BTreeMap<NodeName, Core>,
    leases: BTreeMap<Slot, Lease>,
    inbox: VecDeque<(NodeName, Input)>,
    /// What became of each claim.
    given: BTreeMap<Id, (u16, u64)>,
    refused: BTreeMap<Id, LockError>,
    lost: BTreeSet<Id>,
    order: Vec<Id>,
    /// Notes do not arrive.
    deaf: bool,
}

fn node(n: usize) -> NodeName {
    NodeName::new(&format!("n{n}")).expect("a name")
}

fn lock(holders: Option<u16>) -> LockName {
    LockName::new("jobs", "nightly", holders).expect("a name")
}

impl World {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|n| (node(n), Core::new(node(n)))).collect();
        Self { now: Time(1), nodes, ..Self::default() }
    }

    fn want(&mut self, n: usize, id: Id, until: Time) {
        self.input(n, Input::Want { id, name: lock(None), t: T, until, once: false });
    }

    fn input(&mut self, n: usize, input: Input) {
        self.inbox.push_back((node(n), input));
        let mut steps = 0;
        while let Some((to, input)) = self.inbox.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "it does not come to rest: {to} {input:?}, then {:?}", self.inbox.front());
            let Some(core) = self.nodes.get_mut(&to) else { continue };
            for output in core.handle(self.now, input) {
                self.output(&to, output);
            }
        }
        self.check();
    }

    fn output(&mut self, of: &NodeName, output: Output) {
        match output {
            Output::Lease(ask) => self.ask(of, ask),
            Output::Send(to, note) => {
                if !self.deaf {
                    self.inbox.push_back((to, Input::Note { from: of.clone(), note }));
                }
            }
            Output::Give { id, place, epoch, .. } => {
                self.given.insert(id, (place, epoch.0));
                self.order.push(id);
            }
            Output::Extend { .. } => {}
            Output::Lose(id) => {
                self.lost.insert(id);
            }
            Output::Refuse(id, why) => {
                self.refused.insert(id, why);
            }
        }
    }

    fn ask(&mut self, of: &NodeName, ask: LockAsk) {
        match ask {
            LockAsk::Listen(_) => {}
            LockAsk::Acquire { slot, .. } => self.acquire(of, slot),
            LockAsk::Wait { slot, order, .. } => {
                let lease = self.leases.entry(slot.clone()).or_default();
                lease.candidates.insert(of.clone(), order);
                if lease.held.is_none() {
                    self.grant(of.clone(), slot);
                }
            }
            LockAsk::Withdraw(slot) => {
                self.leases.entry(slot).or_default().candidates.remove(of);
            }
            LockAsk::Release { slot, epoch, successor, again } => {
                let lease = self.leases.entry(slot.clone()).or_default();
                assert_eq!((lease.held.as_ref().map(|(node, _)| node), lease.epoch), (Some(of), epoch.0), "only what is held is let go");
                lease.held = None;
                match (again, successor.filter(|to| lease.candidates.contains_key(to))) {
                    (Some(_), _) => self.acquire(of, slot),
                    (None, Some(to)) => self.grant(to, slot),
                    (None, None) => self.free(&slot),
                }
            }
            LockAsk::Stopped { slot, epoch } => {
                let lease = self.leases.entry(slot.clone()).or_default();
                if lease.held.as_ref().is_some_and(|(node, _)| node == of) && lease.epoch == epoch.0 {
                    lease.held = None;
                    self.free(&slot);
                }
            }
        }
    }

    /// P7: who ranks best by its own list asks first, and the node whose lease ran out comes last.
    fn free(&mut self, slot: &Slot) {
        let Some(lease) = self.leases.get(slot) else { return };
        let rank = |(node, order): (&NodeName, &Vec<NodeName>)| order.iter().position(|n| n == node).unwrap_or(order.len());
        let best = lease.candidates.iter().min_by_key(|entry| rank(*entry)).map(|(node, _)| node.clone());
        if let Some(best) = best {
            self.grant(best, slot.clone());
        }
    }

    fn acquire(&mut self, of: &NodeName, slot: Slot) {
        let lease = self.leases.entry(slot.clone()).or_default();
        match &lease.held {
            Some((by, _)) => {
                let failed = LockEvent::Failed { slot, by: Some(by.clone()), answered: true };
                self.inbox.push_back((of.clone(), Input::Lease(failed)));
            }
            None => self.grant(of.clone(), slot),
        }
    }

    fn grant(&mut self, to: NodeName, slot: Slot) {
        let lease = self.leases.entry(slot.clone()).or_default();
        lease.epoch += 1;
        lease.held = Some((to.clone(), true));
        let granted = LockEvent::Granted { slot, epoch: Epoch(lease.epoch), deadline: self.now + T };
        self.inbox.push_back((to, Input::Lease(granted)));
    }

    /// The node is gone with all its processes; its leases run out.
    fn crash(&mut self, n: usize) {
        let dead = node(n);
        self.nodes.remove(&dead);
        let mut free = Vec::new();
        for (slot, lease) in &mut self.leases {
            lease.candidates.remove(&dead);
            if lease.held.as_ref().is_some_and(|(node, _)| *node == dead) {
                lease.held = None;
                free.push(slot.clone());
            }
        }
        free.iter().for_each(|slot| self.free(slot));
        self.input(n, Input::Tick);
    }

    fn wait(&mut self, span: Span) {
        self.now = self.now + span;
        let nodes = self.nodes.len() + 3;
        (0..nodes).for_each(|n| self.input(n, Input::Tick));
    }

    fn slot(&self, slot: &str) -> &Lease {
        &self.leases[&slot.parse::<Slot>().expect("a slot")]
    }

    /// Each slot that a core believes to hold is held by it.
    fn check(&self) {
        for (name, core) in &self.nodes {
            for (slot, epoch) in core.held() {
                let lease = &self.leases[&slot];
                assert_eq!((lease.held.as_ref().map(|(n, _)| n), lease.epoch), (Some(name), epoch.0), "{slot}");
            }
        }
    }
}

#[test]
fn who_comes_first_is_served_first_over_all_nodes() {
    let mut world = World::new(3);
    for (n, id) in [(0, 1), (1, 2), (2, 3), (0, 4), (1, 5), (0, 6)] {
        world.want(n, id, LONG);
    }
    assert_eq!(world.order, [1]);
    for (n, id) in [(0, 1), (1, 2), (2, 3), (0, 4), (1, 5), (0, 6)] {
        world.input(n, Input::Gone(id));
    }
    assert_eq!(world.order, [1, 2, 3, 4, 5, 6]);
    let tokens: Vec<u64> = world.order.iter().map(|id| world.given[id].1).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "the token rises: {tokens:?}");
    assert!(world.slot("lock/jobs/nightly").held.is_none());
    assert!(world.slot("lock/jobs/nightly").candidates.is_empty());
}

#[test]
fn the_order_outlives_the_holders_node() {
    let mut world = World::new(4);
    for (n, id) in [(0, 1), (3, 2), (1, 3), (2, 4)] {
        world.want(n, id, LONG);
    }
    world.crash(0);
    assert_eq!(world.order, [1, 2]);
    // And so does that of a waiter that dies: it is passed over.
    world.crash(1);
    world.wait(Span::from_millis(4_000));
    world.input(3, Input::Gone(2));
    assert_eq!(world.order, [1, 2, 4]);
}

#[test]
fn a_waiter_that_is_killed_loses_its_place_only() {
    let mut world = World::new(2);
    for (n, id) in [(0, 1), (1, 2), (1, 3), (0, 4)] {
        world.want(n, id, LONG);
    }
    world.input(1, Input::Gone(2));
    world.input(0, Input::Gone(1));
    assert_eq!(world.order, [1, 3]);
    world.input(0, Input::Gone(4));
    world.input(1, Input::Gone(3));
    assert!(world.slot("lock/jobs/nightly").held.is_none());
}

#[test]
fn who_does_not_wait_is_refused_at_once_and_who_waits_in_time() {
    let mut world = World::new(2);
    world.want(0, 1, LONG);
    let once = |id| Input::Want { id, name: lock(None), t: T, until: LONG, once: true };
    world.input(1, once(2));
    world.input(0, once(3));
    assert_eq!(world.refused.remove(&2), Some(LockError::Held { by: Some("n0".to_owned()) }));
    assert_eq!(world.refused.remove(&3), Some(LockError::Held { by: None }), "on this very node");
    let until = world.now + Span::from_millis(100);
    world.want(1, 4, until);
    world.wait(Span::from_millis(99));
    assert!(world.refused.is_empty());
    world.wait(Span::from_millis(1));
    assert!(matches!(world.refused[&4], LockError::Held { .. }));
    assert!(world.slot("lock/jobs/nightly").candidates.is_empty());
    world.input(0, Input::Gone(1));
    world.input(1, once(5));
    assert_eq!(world.order, [1, 5]);
}

#[test]
fn a_lost_lock_is_told_and_not_let_go_before_its_process_or_its_time() {
    let mut world = World::new(2);
    let slot: Slot = "lock/jobs/nightly".parse().expect("a slot");
    world.want(0, 1, LONG);
    world.want(0, 2, LONG);
    world.input(0, Input::Lease(LockEvent::Lost { slot: slot.clone(), epoch: Epoch(1) }));
    assert!(world.lost.contains(&1));
    assert_eq!(world.order, [1], "its process may not have heard of it yet");
    assert!(world.slot("lock/jobs/nightly").held.is_some());
    world.wait(T);
    assert_eq!(world.order, [1, 2]);
    // The other way: the process goes first.
    world.input(0, Input::Lease(LockEvent::Lost { slot, epoch: Epoch(2) }));
    world.want(1, 3, LONG);
    world.input(0, Input::Gone(2));
    assert_eq!(world.order, [1, 2, 3]);
    world.input(0, Input::Gone(1));
}

#[test]
fn a_semaphore_has_as_many_holders_as_it_says() {
    let mut world = World::new(3);
    for id in 1..=7_u64 {
        let n = usize::try_from(id % 3).expect("small");
        world.input(n, Input::Want { id, name: lock(Some(3)), t: T, until: LONG, once: false });
    }
    assert_eq!(world.order.len(), 3);
    let places: BTreeSet<u16> = world.given.values().map(|(place, _)| *place).collect();
    assert_eq!(places.len(), 3, "each at another place");
    world.input(1, Input::Want { id: 9, name: lock(Some(4)), t: T, until: LONG, once: false });
    assert_eq!(world.refused[&9], LockError::Holders(3));
    for _ in 0..7 {
        let id = *world.order.iter().find(|id| world.given.contains_key(id)).expect("a holder");
        world.given.remove(&id);
        world.input(usize::try_from(id % 3).expect("small"), Input::Gone(id));
    }
    assert_eq!(world.order.len(), 7, "everybody had it: {:?}", world.order);
    assert!(world.leases.values().all(|lease| lease.held.is_none() && lease.candidates.is_empty()));
}

#[test]
fn claims_are_bounded() {
    let mut world = World::new(1);
    for id in 0..=super::CLAIMS_PER_LOCK_MAX as u64 {
        world.want(0, id, LONG);
    }
    assert_eq!(world.refused.len(), 1);
    assert_eq!(world.refused[&(super::CLAIMS_PER_LOCK_MAX as u64)], LockError::TooMany("of this name"));
}

#[derive(Debug, Clone)]
enum Step {
    Want(usize, bool, u64),
    Gone(usize),
    Lose(usize),
    Wait(u64),
    Crash(usize),
    Deaf(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_usize, any::<bool>(), 1..9_000_u64).prop_map(|(n, once, wait)| Step::Want(n, once, wait)),
        6 => (0..40_usize).prop_map(Step::Gone),
        1 => (0..4_usize).prop_map(Step::Lose),
        2 => (1..2_000_u64).prop_map(Step::Wait),
        1 => (0..8_usize).prop_map(Step::Crash),
        1 => any::<bool>().prop_map(Step::Deaf),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever processes and nodes do: nobody is given what another has, nothing stays held that nobody wants, and nobody is forgotten.
    #[test]
    fn locks_go_round(steps in steps(), holders in prop_oneof![Just(None), Just(Some(1)), Just(Some(3))]) {
        let mut world = World::new(4);
        let mut of: BTreeMap<Id, usize> = BTreeMap::new();
        for (id, step) in (1..).zip(steps) {
            match step {
                Step::Want(n, once, wait) if world.nodes.contains_key(&node(n)) => {
                    of.insert(id, n);
                    let until = world.now + Span::from_millis(wait);
                    world.input(n, Input::Want { id, name: lock(holders), t: T, until, once });
                }
                Step::Gone(nth) => {
                    let Some((id, n)) = of.iter().nth(nth % of.len().max(1)).map(|(id, n)| (*id, *n)) else { continue };
                    of.remove(&id);
                    world.input(n, Input::Gone(id));
                }
                Step::Lose(n) => {
                    let held = world.nodes.get(&node(n)).map(Core::held).unwrap_or_default();
                    if let Some((slot, epoch)) = held.into_iter().next() {
                        world.input(n, Input::Lease(LockEvent::Lost { slot, epoch }));
                    }
                }
                Step::Wait(millis) => world.wait(Span::from_millis(millis)),
                Step::Crash(n) => {
                    of.retain(|_, of| *of != n);
                    world.crash(n);
                }
                Step::Deaf(deaf) => world.deaf = deaf,
                Step::Want(..) => {}
            }
        }
        world.deaf = false;
        // In the end everybody who waits long enough is served or refused.
        for _ in 0..of.len() + 4 {
            world.wait(Span::from_millis(4_000));
            for (id, n) in of.clone() {
                if world.given.contains_key(&id) || world.refused.contains_key(&id) {
                    of.remove(&id);
                    world.input(n, Input::Gone(id));
                }
            }
        }
        prop_assert!(of.is_empty(), "nobody told {of:?} anything");
        prop_assert!(world.leases.values().all(|lease| lease.held.is_none() && lease.candidates.is_empty()));
    }
}
