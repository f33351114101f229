//! The worker's decisions, driven without any driver: a small world obeys each step, and the decision is asked again until it settles.

use cluster_schemas::app::{ExecSpec, Mode, VipSpec};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, RingAssignment, Role, RunSpec, VipAssignment};
use cluster_schemas::node::InstanceState;
use proptest::prelude::*;

use super::decide::{Memory, Seen, Step, next};
use super::observe::observed;
use super::target::{Desired, Target, give_up, target};
use crate::drivers::{ActiveState, LoadState, UnitState};
use crate::quorum::Quorum;

const TEXT: &str = "unit text 1";

fn exec() -> RunSpec {
    let exec = ExecSpec {
        command: vec!["/usr/lib/clusterctl/demo".to_owned()],
        environment: Default::default(),
        user: None,
        group: None,
        working_directory: None,
        limits: Default::default(),
    };
    RunSpec { exec: Some(exec), ..RunSpec::default() }
}

fn vip(hold: bool, epoch: u64) -> VipAssignment {
    VipAssignment { address: "10.0.0.100/24".to_owned(), interface: "eth0".to_owned(), hold, epoch, ..VipAssignment::default() }
}

fn singleton(role: Role, epoch: u64) -> Desired {
    let entry = AppAssignment {
        uid: "u".to_owned(),
        generation: 1,
        mode: Mode::Singleton,
        role,
        epoch,
        run: exec(),
        vip: Some(vip(role == Role::Active, epoch)),
        ..AppAssignment::default()
    };
    Desired { entry, generation: 1, same_boot: true, quorum: Quorum::Yes, node_address: None }
}

fn ring(own: &[(u64, &str)]) -> Desired {
    let own = own.iter().map(|(epoch, set)| OwnedPartitions { epoch: *epoch, partitions: set.parse().expect("a set") }).collect();
    let entry = AppAssignment {
        uid: "u".to_owned(),
        generation: 1,
        mode: Mode::Ring,
        role: Role::Member,
        run: exec(),
        ring: Some(RingAssignment { partitions: 16, own, ..RingAssignment::default() }),
        ..AppAssignment::default()
    };
    Desired { entry, generation: 1, same_boot: true, quorum: Quorum::Yes, node_address: None }
}

/// What a node is made of, as far as one App sees it.
#[derive(Debug, Clone, Default)]
struct World {
    memory: Memory,
    running: Option<String>,
    address: Option<VipSpec>,
    file: String,
    young: bool,
    backing_off: bool,
    steps: Vec<Step>,
}

impl World {
    fn unit(&self, name: &str) -> UnitState {
        let running = self.running.as_deref() == Some(name);
        UnitState {
            unit: name.to_owned(),
            load_state: LoadState::Loaded,
            active_state: if running { ActiveState::Active } else { ActiveState::Inactive },
            main_pid: u32::from(running),
            can_reload: true,
            populated: running,
            ..UnitState::default()
        }
    }

    fn seen(&self, target: &Target) -> Seen {
        let other = !self.memory.unit.is_empty() && self.memory.unit != target.unit;
        Seen {
            old_unit: other.then(|| self.unit(&self.memory.unit)),
            unit: self.unit(&target.unit),
            outdated: false,
            vip_present: target.vip.as_ref().is_some_and(|(v, ..)| self.address.as_ref() == Some(v)),
            backing_off: self.backing_off,
            young: self.young,
            failure_counts: false,
        }
    }

    /// One decision carried out as the worker does. False once settled.
    fn step(&mut self, desired: &Desired) -> bool {
        self.memory.gave_up = give_up(desired, self.memory.gave_up);
        let target = target("a", "n1", desired, self.memory.gave_up, self.memory.partitions.as_ref());
        let content = desired.entry.run.exec.is_some().then_some(TEXT);
        let step = next(&target, content, &self.memory, &self.seen(&target));
        self.steps.push(step.clone());
        match step {
            Step::Settled => return false,
            Step::Forget => {
                self.memory = Memory::default();
                return false;
            }
            Step::Stop(unit) => {
                assert_eq!(self.running.as_ref(), Some(&unit), "only what runs is stopped");
                self.running = None;
                self.memory.started_with.clear();
                self.memory.confirmed = None;
            }
            Step::Uninstall(_) => {
                self.memory.unit.clear();
                self.memory.content.clear();
            }
            Step::ReleaseVip(_) => {
                self.address = None;
                self.memory.vip = None;
            }
            Step::HoldVip(vip) => {
                self.memory.vip = Some(vip.clone());
                self.address = Some(vip);
            }
            Step::WriteRole(role) => self.memory.role = Some(role),
            Step::WritePartitions(file) => self.memory.partitions = Some(file),
            Step::Install(text) => {
                self.memory.unit = target.unit;
                self.memory.content.clone_from(&text);
                self.file = text;
            }
            Step::Start | Step::Restart => {
                self.running = Some(target.unit.clone());
                self.memory.unit = target.unit;
                self.memory.started_with.clone_from(&self.memory.content);
                self.memory.confirmed.clone_from(&self.memory.partitions);
            }
            Step::Reload => self.memory.confirmed.clone_from(&self.memory.partitions),
        }
        true
    }

    fn settle(&mut self, desired: &Desired) {
        for _ in 0..20 {
            if !self.step(desired) {
                return;
            }
        }
        panic!("does not settle: {:?}", self.steps);
    }

    fn report(&self, desired: &Desired) -> cluster_schemas::node::AppObserved {
        let target = target("a", "n1", desired, self.memory.gave_up, self.memory.partitions.as_ref());
        observed(desired, &target, &self.memory, &self.seen(&target), "")
    }

    fn order(&self, of: impl Fn(&Step) -> bool) -> usize {
        self.steps.iter().position(of).expect("the step was taken")
    }
}

#[test]
fn activation_puts_role_then_address_then_unit() {
    let mut world = World::default();
    let desired = singleton(Role::Active, 3);
    world.settle(&desired);
    let role = world.order(|s| matches!(s, Step::WriteRole(r) if r.role == Role::Active && r.epoch == 3));
    let vip = world.order(|s| matches!(s, Step::HoldVip(_)));
    let start = world.order(|s| *s == Step::Start);
    assert!(role < vip && vip < start, "{:?}", world.steps);
    let report = world.report(&desired);
    assert!(report.healthy && report.holds && report.state == InstanceState::Running && report.epoch == 3);
}

#[test]
fn what_still_runs_by_an_earlier_spec_is_not_healthy() {
    let mut world = World::default();
    let desired = ring(&[(1, "0-3")]);
    world.settle(&desired);
    let target = target("a", "n1", &desired, world.memory.gave_up, world.memory.partitions.as_ref());
    let report = |outdated, trouble| observed(&desired, &target, &world.memory, &Seen { outdated, ..world.seen(&target) }, trouble);
    let state = |outdated, trouble| (report(outdated, trouble).state, report(outdated, trouble).healthy);
    assert_eq!(state(false, ""), (InstanceState::Running, true));
    assert_eq!(state(true, ""), (InstanceState::Starting, false));
    assert_eq!(state(true, "its text cannot be made"), (InstanceState::Failed, false));
}

#[test]
fn a_planned_hand_over_stops_the_unit_before_the_address_goes() {
    let mut world = World::default();
    world.settle(&singleton(Role::Active, 3));
    world.steps.clear();
    let desired = singleton(Role::Standby, 3);
    assert!(world.report(&desired).holds, "held until it is seen to be gone");
    world.settle(&desired);
    assert!(world.order(|s| matches!(s, Step::Stop(_))) < world.order(|s| matches!(s, Step::ReleaseVip(_))));
    let report = world.report(&desired);
    assert!(!report.holds && report.state == InstanceState::Stopped);
    assert_eq!(world.memory.role.as_ref().map(|r| (r.role, r.epoch)), Some((Role::Standby, 0)));
}

#[test]
fn a_lost_majority_takes_the_address_first_and_kills_the_tenure_for_ever() {
    let mut world = World::default();
    let desired = singleton(Role::Active, 3);
    world.settle(&desired);
    world.steps.clear();
    let lost = Desired { quorum: Quorum::No, ..desired.clone() };
    world.settle(&lost);
    assert!(world.order(|s| matches!(s, Step::ReleaseVip(_))) < world.order(|s| matches!(s, Step::Stop(_))));
    // The majority is back, the assignment is the old one: this tenure stays dead.
    world.settle(&desired);
    assert_eq!((world.running.clone(), world.address.clone(), world.report(&desired).gave_up), (None, None, 3));
    // Only a new epoch begins it again.
    world.settle(&singleton(Role::Active, 4));
    assert!(world.running.is_some() && world.address.is_some());
}

#[test]
fn an_agent_that_restarts_keeps_what_runs_and_begins_nothing_before_it_hears_a_majority() {
    let mut world = World::default();
    let desired = singleton(Role::Active, 3);
    let unknown = Desired { quorum: Quorum::Unknown, ..desired.clone() };
    world.settle(&unknown);
    assert_eq!((world.running.clone(), world.address.clone()), (None, None));
    world.settle(&desired);
    world.steps.clear();
    world.settle(&unknown);
    assert_eq!(world.steps, [Step::Settled]);
}

#[test]
fn nothing_exclusive_of_an_earlier_boot_is_taken_up() {
    let mut world = World::default();
    let desired = Desired { same_boot: false, ..singleton(Role::Active, 3) };
    world.settle(&desired);
    assert_eq!((world.running.clone(), world.address.clone()), (None, None));
    let pool = Desired { same_boot: false, ..ring(&[(1, "0-3")]) };
    let mut world = World::default();
    world.settle(&pool);
    assert!(world.running.is_some(), "the member itself runs");
    assert!(world.report(&pool).ring.expect("a ring").held.is_empty(), "its partitions are void");
}

#[test]
fn a_pools_instance_needs_no_majority() {
    let mut world = World::default();
    let mut desired = singleton(Role::Member, 0);
    desired.entry.mode = Mode::Spread;
    desired.entry.vip = Some(vip(true, 5));
    world.settle(&desired);
    assert!(world.order(|s| *s == Step::Start) < world.order(|s| matches!(s, Step::HoldVip(_))), "a pool's address waits for the unit");
    desired.quorum = Quorum::No;
    world.settle(&desired);
    assert!(world.running.is_some() && world.address.is_none());
    assert_eq!(world.report(&desired).vip.expect("a vip").gave_up, 5);
}

#[test]
fn a_partition_is_held_until_the_process_was_told_that_it_is_gone() {
    let mut world = World::default();
    let before = ring(&[(1, "0-7")]);
    world.settle(&before);
    assert_eq!(world.report(&before).ring.expect("a ring").confirmed.to_string(), "0-7");
    let after = ring(&[(1, "0-3"), (2, "8")]);
    assert!(world.step(&after), "the file is written");
    let report = world.report(&after).ring.expect("a ring");
    assert_eq!((report.held.to_string(), report.confirmed.to_string()), ("0-8".to_owned(), "0-3".to_owned()));
    world.settle(&after);
    let report = world.report(&after).ring.expect("a ring");
    assert_eq!((report.held.to_string(), report.confirmed.to_string()), ("0-3,8".to_owned(), "0-3,8".to_owned()));
    assert_eq!(world.steps.last(), Some(&Step::Settled));
}

/// A reload is a signal, and one that comes before the process handles it ends the process.
#[test]
fn a_process_that_was_just_started_is_not_reloaded_yet() {
    let mut world = World::default();
    world.settle(&ring(&[(1, "0-7")]));
    let after = ring(&[(1, "0-3")]);
    world.young = true;
    world.settle(&after);
    assert!(!world.steps.contains(&Step::Reload), "{:?}", world.steps);
    assert_eq!(world.report(&after).ring.expect("a ring").held.to_string(), "0-7", "nothing is released meanwhile");
    world.young = false;
    world.settle(&after);
    assert_eq!(world.report(&after).ring.expect("a ring").held.to_string(), "0-3");
}

/// Others wait for what is let go of, and only so long: a failed refresh of the VIP must not hold it up.
#[test]
fn a_partition_is_let_go_of_whatever_else_failed_a_moment_ago() {
    let mut world = World::default();
    let before = ring(&[(1, "0-7")]);
    world.settle(&before);
    world.backing_off = true;
    let lost = Desired { quorum: Quorum::No, ..before.clone() };
    world.settle(&lost);
    assert!(world.report(&lost).ring.expect("a ring").held.is_empty());
    // What is gained can wait.
    world.settle(&ring(&[(2, "0-7")]));
    assert_eq!(world.report(&before).ring.expect("a ring").confirmed.to_string(), "");
}

#[test]
fn deletion_leaves_nothing() {
    let mut world = World::default();
    world.settle(&singleton(Role::Active, 3));
    let absent = Desired { entry: AppAssignment::default(), ..singleton(Role::Active, 3) };
    world.settle(&absent);
    assert_eq!(world.steps.last(), Some(&Step::Forget));
    assert_eq!((world.running, world.address, world.memory), (None, None, Memory::default()));
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let quorum = prop_oneof![Just(Quorum::Yes), Just(Quorum::No), Just(Quorum::Unknown)];
    let entry = prop_oneof![
        (1_u64..4).prop_map(|e| singleton(Role::Active, e)),
        (1_u64..4).prop_map(|e| singleton(Role::Standby, e)),
        Just(Desired { entry: AppAssignment::default(), ..singleton(Role::Standby, 0) }),
    ];
    (entry, quorum, any::<bool>()).prop_map(|(d, quorum, same_boot)| Desired { quorum, same_boot, ..d })
}

proptest! {
    /// Whatever is desired in whatever order, with the agent killed and started again between any two steps: it settles, nothing runs or is
    /// held without a living tenure, and what is reported as not held is not there.
    #[test]
    fn every_history_settles_and_holds_only_with_a_tenure(history in proptest::collection::vec((any_desired(), 0_usize..12), 1..12)) {
        let mut world = World::default();
        for (desired, steps) in history {
            // The worker's memory stands in a file, so an agent killed here goes on from the same world.
            for _ in 0..steps {
                if !world.step(&desired) {
                    break;
                }
            }
            let report = world.report(&desired);
            if !report.holds {
                prop_assert!(world.running.is_none() && world.address.is_none());
            }
            let mut settled = world.clone();
            settled.settle(&desired);
            let living = desired.entry.role == Role::Active
                && desired.same_boot
                && desired.quorum != Quorum::No
                && desired.entry.epoch > settled.memory.gave_up.app;
            if !living {
                prop_assert!(settled.running.is_none() && settled.address.is_none());
            } else if desired.quorum == Quorum::Yes {
                prop_assert!(settled.running.is_some() && settled.address.is_some());
            }
        }
    }
}
