//! The worker's decisions, driven without any driver: a small world obeys each step, and the decision is asked again until it settles.

use cluster_schemas::PartitionSet;
use cluster_schemas::app::{ExecSpec, Mode, Standby, VipSpec};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, RingAssignment, Role, RunSpec, VipAssignment};
use cluster_schemas::node::InstanceState;
use proptest::prelude::*;

use super::decide::{Memory, Seen, SeenDatabase, Step, next};
use super::health::Fitness;
use super::observe::observed;
use super::target::{Desired, Target, Tenures, target};
use crate::database::{Order, Stage};
use crate::drivers::{ActiveState, LoadState, UnitState};
use crate::lease::view::{TenureState, TenureView};

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

pub(super) fn singleton(role: Role, epoch: u64) -> Desired {
    let entry = AppAssignment {
        uid: "u".to_owned(),
        generation: 1,
        mode: Mode::Singleton,
        role,
        epoch,
        run: exec().into(),
        vip: Some(vip(role == Role::Active, epoch)),
        ..AppAssignment::default()
    };
    let app = (role == Role::Active).then_some(TenureView { epoch, state: TenureState::Held });
    Desired { entry, generation: 1, tenures: Tenures { app, ..Tenures::default() }, node_address: None }
}

/// The same with the tenure in another state.
pub(super) fn in_state(desired: &Desired, state: TenureState) -> Desired {
    let turn = |t: Option<TenureView>| t.map(|t| TenureView { state, ..t });
    let tenures = Tenures { app: turn(desired.tenures.app), vip: turn(desired.tenures.vip), ..desired.tenures.clone() };
    Desired { tenures, ..desired.clone() }
}

fn ring(own: &[(u64, &str)]) -> Desired {
    let own = own.iter().map(|(epoch, set)| OwnedPartitions { epoch: *epoch, partitions: set.parse().expect("a set") }).collect();
    let entry = AppAssignment {
        uid: "u".to_owned(),
        generation: 1,
        mode: Mode::Ring,
        role: Role::Member,
        run: exec().into(),
        ring: Some(RingAssignment { partitions: 16, ..RingAssignment::default() }),
        ..AppAssignment::default()
    };
    Desired { entry, generation: 1, tenures: Tenures { ring: own, ..Tenures::default() }, node_address: None }
}

/// What a node is made of, as far as one App sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) memory: Memory,
    pub(super) running: Option<String>,
    pub(super) address: Option<VipSpec>,
    file: String,
    young: bool,
    backing_off: bool,
    fitness: Fitness,
    distrusted: bool,
    /// The database, and what was ordered last.
    pub(super) database: Option<(Stage, Order)>,
    pub(super) steps: Vec<Step>,
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
            failed_before: false,
            failure_counts: false,
            fitness: self.fitness.clone(),
            vip_taken: false,
            database: self.database.map(|(stage, order)| SeenDatabase { stage, order, other: false }),
            hooked: PartitionSet::new(),
            refused: PartitionSet::new(),
            distrusted: self.distrusted,
        }
    }

    /// One decision carried out as the worker does. False once settled.
    fn step(&mut self, desired: &Desired) -> bool {
        let target = target("a", "n1", desired);
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
                self.memory.stopped();
            }
            Step::Kill(_) => {
                self.running = None;
                self.memory.stopped();
            }
            Step::Uninstall(_) => {
                self.memory.unit.clear();
                self.memory.content.clear();
            }
            Step::Gate(unit, gate) => self.memory.gate = Some((unit, gate)),
            Step::Ungate(_) => self.memory.gate = None,
            Step::ReleaseVip(_) => {
                self.address = None;
                self.memory.vip = None;
            }
            Step::ProbeVip(vip) => self.memory.probed = Some(vip),
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
                self.memory.told_role.clone_from(&self.memory.role);
            }
            Step::Reload => {
                self.memory.confirmed.clone_from(&self.memory.partitions);
                self.memory.told_role.clone_from(&self.memory.role);
            }
            Step::Promote { epoch, adopt } => {
                let running = self.running.is_some();
                assert_eq!(adopt, running && !target.hot, "a process that may write is told of");
                // Beside a process it does not know the database is refused; without one it is promoted.
                let stage = if adopt { Stage::Refused(epoch) } else { Stage::Active(epoch) };
                self.database = Some((stage, Order::Promote { epoch, adopt }));
            }
            Step::Retire => self.database = Some((Stage::Standby, Order::Follow)),
        }
        true
    }

    pub(super) fn settle(&mut self, desired: &Desired) {
        for _ in 0..20 {
            if !self.step(desired) {
                return;
            }
        }
        panic!("does not settle: {:?}", self.steps);
    }

    pub(super) fn report(&self, desired: &Desired) -> cluster_schemas::node::AppObserved {
        let target = target("a", "n1", desired);
        observed(desired, &target, &self.memory, &self.seen(&target), "")
    }

    pub(super) fn order(&self, of: impl Fn(&Step) -> bool) -> usize {
        self.steps.iter().position(of).expect("the step was taken")
    }
}

#[test]
fn activation_puts_role_then_address_then_unit() {
    let mut world = World::default();
    let desired = singleton(Role::Active, 3);
    world.settle(&desired);
    let gate = world.order(|s| matches!(s, Step::Gate(_, gate) if gate.slot == "app/a" && !gate.hot));
    let role = world.order(|s| matches!(s, Step::WriteRole(r) if r.role == Role::Active && r.epoch == 3));
    assert!(gate < role, "F6: the gate stands before anything is started");
    let vip = world.order(|s| matches!(s, Step::HoldVip(_)));
    let start = world.order(|s| *s == Step::Start);
    assert!(role < vip && vip < start, "{:?}", world.steps);
    let report = world.report(&desired);
    assert!(report.healthy && report.holds && report.state == InstanceState::Running && report.epoch == 3);
}

/// The link is asked before the first activation, and not on a take-over.
#[test]
fn an_address_that_nobody_is_known_to_have_had_is_asked_for_once() {
    let mut world = World::default();
    let mut desired = singleton(Role::Active, 3);
    desired.entry.vip = Some(VipAssignment { probe: true, ..vip(true, 3) });
    world.settle(&desired);
    let asked = world.order(|s| matches!(s, Step::ProbeVip(_)));
    assert!(asked < world.order(|s| matches!(s, Step::HoldVip(_))), "{:?}", world.steps);
    // Somebody deletes it: it was ours.
    world.steps.clear();
    world.address = None;
    world.settle(&desired);
    assert!(world.address.is_some() && !world.steps.iter().any(|s| matches!(s, Step::ProbeVip(_))), "{:?}", world.steps);

    let mut other = World::default();
    other.settle(&singleton(Role::Active, 4));
    assert!(other.address.is_some() && !other.steps.iter().any(|s| matches!(s, Step::ProbeVip(_))), "{:?}", other.steps);
}

#[test]
fn what_still_runs_by_an_earlier_spec_is_not_healthy() {
    let mut world = World::default();
    let desired = ring(&[(1, "0-3")]);
    world.settle(&desired);
    let target = target("a", "n1", &desired);
    let report = |outdated, trouble| observed(&desired, &target, &world.memory, &Seen { outdated, ..world.seen(&target) }, trouble);
    let state = |outdated, trouble| (report(outdated, trouble).state, report(outdated, trouble).healthy);
    assert_eq!(state(false, ""), (InstanceState::Running, true));
    assert_eq!(state(true, ""), (InstanceState::Starting, false));
    assert_eq!(state(true, "its text cannot be made"), (InstanceState::Failed, false));
}

/// Otherwise the planner would move it away again, to a node that is silent but not known to be lost yet.
#[test]
fn a_unit_that_failed_before_the_tenure_is_about_to_start() {
    let desired = singleton(Role::Active, 4);
    let (world, target) = (World::default(), target("a", "n1", &desired));
    let report = |failed_before, trouble| {
        let unit = UnitState { active_state: ActiveState::Failed, ..world.unit(&target.unit) };
        observed(&desired, &target, &world.memory, &Seen { failed_before, unit, ..world.seen(&target) }, trouble).state
    };
    assert_eq!(report(true, ""), InstanceState::Starting);
    assert_eq!(report(true, "cannot start it"), InstanceState::Failed);
    assert_eq!(report(false, ""), InstanceState::Failed);
}

#[test]
fn a_planned_hand_over_stops_the_unit_before_the_address_goes() {
    let mut world = World::default();
    let active = singleton(Role::Active, 3);
    world.settle(&active);
    world.steps.clear();
    let desired = in_state(&active, TenureState::Releasing);
    assert!(world.report(&desired).holds, "held until it is seen to be gone");
    world.settle(&desired);
    assert!(world.order(|s| matches!(s, Step::Stop(_))) < world.order(|s| matches!(s, Step::ReleaseVip(_))));
    let report = world.report(&desired);
    assert!(!report.holds && report.state == InstanceState::Stopped);
    assert_eq!(world.memory.role.as_ref().map(|r| (r.role, r.epoch)), Some((Role::Standby, 0)));
}

#[test]
fn a_lost_tenure_takes_the_address_first() {
    let mut world = World::default();
    let desired = singleton(Role::Active, 3);
    world.settle(&desired);
    world.steps.clear();
    let lost = in_state(&desired, TenureState::Lost);
    world.settle(&lost);
    assert!(world.order(|s| matches!(s, Step::ReleaseVip(_))) < world.order(|s| matches!(s, Step::Stop(_))));
    assert!(!world.report(&lost).holds);
    world.settle(&singleton(Role::Active, 4));
    assert!(world.running.is_some() && world.address.is_some());
}

/// Leases decide: a node that the assignment names as active, but that has not the lease, runs nothing; one that has it goes on whatever
/// its rank.
#[test]
fn the_lease_decides_not_the_rank() {
    let mut world = World::default();
    let named = Desired { tenures: Tenures::default(), ..singleton(Role::Active, 3) };
    world.settle(&named);
    assert_eq!((world.running.clone(), world.address.clone()), (None, None));
    let tenures = singleton(Role::Active, 3).tenures;
    let ranked_lower = Desired { tenures, ..singleton(Role::Standby, 3) };
    world.settle(&ranked_lower);
    assert!(world.running.is_some() && world.address.is_some());
    assert_eq!(world.report(&ranked_lower).role, Role::Active);
}

fn hot(role: Role, epoch: u64) -> Desired {
    let mut desired = singleton(role, epoch);
    desired.entry.run = RunSpec { standby: Standby::Hot, ..exec() }.into();
    desired
}

/// The process stays: only role and address move. It is told that it is the active one, and that it is not any more, before the address goes.
#[test]
fn a_hot_standby_runs_and_only_role_and_address_move() {
    let mut world = World::default();
    let standby = hot(Role::Standby, 0);
    world.settle(&standby);
    let report = world.report(&standby);
    assert!(world.running.is_some() && world.address.is_none() && !report.holds && report.healthy, "{report:?}");
    assert_eq!((report.role, report.state), (Role::Standby, InstanceState::Running));
    world.steps.clear();

    let active = hot(Role::Active, 3);
    world.settle(&active);
    assert!(world.address.is_some() && world.report(&active).holds);
    let told = |world: &World| world.memory.told_role.as_ref().map(|r| (r.role, r.epoch));
    assert_eq!(told(&world), Some((Role::Active, 3)));
    assert!(!world.steps.iter().any(|s| matches!(s, Step::Start | Step::Restart | Step::Stop(_))), "{:?}", world.steps);
    world.steps.clear();

    let giving_up = in_state(&active, TenureState::Releasing);
    assert!(world.step(&giving_up), "the file is written");
    assert!(world.report(&giving_up).holds, "until the process was told");
    world.settle(&giving_up);
    assert!(world.order(|s| *s == Step::Reload) < world.order(|s| matches!(s, Step::ReleaseVip(_))));
    assert!(!world.report(&giving_up).holds && world.running.is_some());
    assert_eq!(told(&world), Some((Role::Standby, 0)));
}

fn sick(restart: bool) -> Fitness {
    Fitness { passes: false, restart, spent: !restart, why: "unhealthy: answered 503".to_owned() }
}

#[test]
fn an_unhealthy_instance_is_restarted_where_it_is_while_its_budget_lasts() {
    let mut world = World::default();
    let active = singleton(Role::Active, 3);
    world.settle(&active);
    world.steps.clear();
    world.fitness = sick(true);
    assert!(world.step(&active), "{:?}", world.steps);
    assert_eq!(world.steps, [Step::Restart]);
    let report = world.report(&active);
    assert_eq!((report.state, report.healthy, report.holds), (InstanceState::Running, false, true), "with role and address");
    assert_eq!(report.message, "unhealthy: answered 503");
    world.fitness = sick(false);
    world.settle(&active);
    assert_eq!(world.steps, [Step::Restart, Step::Settled], "no more than the budget");
    assert_eq!((world.report(&active).state, world.report(&active).healthy), (InstanceState::Failed, false));
}

/// Rule F5: a fence ends it once, and it comes back as a standby.
#[test]
fn a_hot_process_whose_tenure_is_lost_is_stopped_and_comes_back_as_a_standby() {
    let mut world = World::default();
    let active = hot(Role::Active, 3);
    world.settle(&active);
    let lost = in_state(&active, TenureState::Lost);
    world.settle(&lost);
    assert_eq!((world.running.clone(), world.address.clone(), world.report(&lost).holds), (None, None, false));
    let standby = hot(Role::Standby, 3);
    world.settle(&standby);
    assert!(world.running.is_some() && world.address.is_none());
    assert_eq!(world.memory.told_role.as_ref().map(|r| r.role), Some(Role::Standby));
}

#[test]
fn a_pools_instance_needs_no_tenure() {
    let mut world = World::default();
    let mut desired = singleton(Role::Member, 0);
    desired.entry.mode = Mode::Spread;
    desired.entry.vip = Some(vip(true, 5));
    desired.tenures.vip = Some(TenureView { epoch: 5, state: TenureState::Held });
    world.settle(&desired);
    assert!(world.order(|s| *s == Step::Start) < world.order(|s| matches!(s, Step::HoldVip(_))), "a pool's address waits for the unit");
    let lost = in_state(&desired, TenureState::Lost);
    world.settle(&lost);
    assert!(world.running.is_some() && world.address.is_none());
    assert!(!world.report(&lost).vip.expect("a vip").present);
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
    let lost = ring(&[]);
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
    let absent = Desired { entry: AppAssignment::default(), ..in_state(&singleton(Role::Active, 3), TenureState::Releasing) };
    world.settle(&absent);
    assert_eq!(world.steps.last(), Some(&Step::Forget));
    assert_eq!((world.running, world.address, world.memory), (None, None, Memory::default()));
}

/// Rule R2.
#[test]
fn r2_a_process_that_is_not_trusted_to_have_let_go_is_killed_before_anything_else() {
    let mut world = World::default();
    world.settle(&ring(&[(1, "0-7")]));
    world.steps.clear();
    world.distrusted = true;
    assert!(world.step(&ring(&[(1, "0-3")])));
    assert_eq!(world.steps, [Step::Kill("clusterctl-a.service".to_owned())]);
    assert_eq!((world.running.clone(), world.memory.confirmed.clone()), (None, None));
    world.distrusted = false;
    world.settle(&ring(&[(1, "0-3")]));
    assert!(world.running.is_some(), "it starts again with the rest");
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let state = prop_oneof![Just(TenureState::Held), Just(TenureState::Releasing), Just(TenureState::Lost)];
    let entry = prop_oneof![
        (1_u64..4).prop_map(|e| singleton(Role::Active, e)),
        (1_u64..4).prop_map(|e| Desired { tenures: singleton(Role::Active, e).tenures, ..singleton(Role::Standby, e) }),
        (1_u64..4).prop_map(|e| singleton(Role::Standby, e)),
        Just(Desired { entry: AppAssignment::default(), ..singleton(Role::Standby, 0) }),
    ];
    (entry, state).prop_map(|(d, state)| in_state(&d, state))
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
            let living = desired.tenures.app.is_some_and(|t| t.state == TenureState::Held);
            prop_assert_eq!((settled.running.is_some(), settled.address.is_some()), (living, living));
        }
    }
}
