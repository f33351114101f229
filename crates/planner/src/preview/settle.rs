//! A world that comes to rest: plan, have every node do it at once, plan again, until nothing changes.

use std::collections::BTreeMap;

use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::node::{AppObserved, InstanceState, RingObserved, VipObserved};
use cluster_schemas::{App, Assignment, Mode, NodeStatus, PartitionSet};

use crate::input::{Input, Liveness, NodeInput};
use crate::leases;

/// Plans until it is given up. A move takes three (release, confirmation, new owner), and few wait for one another.
pub const ROUNDS_MAX: usize = 16;

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The last plan, by node.
    pub assignments: BTreeMap<String, Assignment>,
    /// Whether planning again changes nothing.
    pub steady: bool,
}

/// Lets the world of `input` come to rest.
#[must_use]
pub fn settle(input: &Input<'_>) -> Settled {
    let mut apps: BTreeMap<String, App> = input.apps.clone();
    for app in apps.values_mut() {
        app.spec.update = None;
    }
    let mut assignments = leases::adopt(input);
    let mut nodes = input.nodes.clone();
    let mut floors = input.epoch_floors.clone();
    for round in 0..ROUNDS_MAX {
        let plan = crate::plan(&Input { apps: &apps, nodes: &nodes, assignments: &assignments, epoch_floors: &floors, ..*input });
        let same = plan.assignments == assignments && plan.gone.is_empty();
        for (slot, epoch) in plan.epochs {
            let floor = floors.entry(slot).or_default();
            *floor = epoch.max(*floor);
        }
        for app in &plan.gone {
            apps.remove(app);
        }
        assignments = plan.assignments;
        // The first plan is made on what the agents said; that nothing changes says something once they did as they were told.
        if same && round > 0 {
            return Settled { assignments, steady: true };
        }
        for (name, node) in nodes.iter_mut().filter(|(_, n)| n.liveness == Liveness::Live) {
            if let Some(assignment) = assignments.get(name) {
                obey(node, assignment);
            }
        }
    }
    Settled { assignments, steady: false }
}

/// The node does all of its assignment, and says so.
fn obey(node: &mut NodeInput, assignment: &Assignment) {
    let before = node.status.take().unwrap_or_else(|| NodeStatus {
        node: node.node.name.clone(),
        boot_id: node.node.boot_id.clone(),
        quorum: true,
        ..NodeStatus::default()
    });
    let quorum = before.quorum;
    let places = assignment.apps.iter().filter(|(_, entry)| entry.role != Role::Absent);
    let apps =
        places.map(|(app, entry)| (app.clone(), observed(entry, before.apps.get(app), assignment.order.generation, quorum))).collect();
    node.status = Some(NodeStatus { assignment: Some(assignment.order.clone()), apps, ..before });
}

fn observed(entry: &AppAssignment, before: Option<&AppObserved>, seen: u64, quorum: bool) -> AppObserved {
    let before = before.filter(|b| b.uid == entry.uid);
    let gave_up = before.map_or(0, |b| b.gave_up);
    let holds = quorum && entry.role == Role::Active && entry.epoch > gave_up;
    // What failed goes on failing until it is another.
    let fails = before.is_some_and(|b| b.generation == entry.generation && b.state == InstanceState::Failed);
    let runs = entry.role == Role::Member || holds;
    let state = match (runs, fails) {
        (_, true) => InstanceState::Failed,
        (true, false) => InstanceState::Running,
        (false, false) => InstanceState::Pending,
    };
    AppObserved {
        uid: entry.uid.clone(),
        generation: entry.generation,
        seen,
        role: entry.role,
        state,
        healthy: runs && !fails,
        holds,
        epoch: if holds { entry.epoch } else { before.map_or(0, |b| b.epoch) },
        gave_up,
        vip: vip(entry, before, holds, quorum),
        ring: (entry.mode == Mode::Ring).then(|| ring(entry, before, quorum)),
        database: before.and_then(|b| b.database.clone()),
        unit: before.and_then(|b| b.unit.clone()),
        ..AppObserved::default()
    }
}

fn vip(entry: &AppAssignment, before: Option<&AppObserved>, holds: bool, quorum: bool) -> Option<VipObserved> {
    let wanted = entry.vip.as_ref()?;
    let before = before.and_then(|b| b.vip.as_ref()).filter(|v| v.address == wanted.address);
    let gave_up = before.map_or(0, |v| v.gave_up);
    let present = quorum && wanted.hold && wanted.epoch > gave_up && (entry.mode != Mode::Singleton || holds);
    Some(VipObserved {
        address: wanted.address.clone(),
        present,
        epoch: if present { wanted.epoch } else { 0 },
        gave_up,
        ..VipObserved::default()
    })
}

fn ring(entry: &AppAssignment, before: Option<&AppObserved>, quorum: bool) -> RingObserved {
    let before = before.and_then(|b| b.ring.as_ref());
    let gave_up = before.map_or(0, |r| r.gave_up);
    let groups = entry.ring.iter().flat_map(|r| &r.own).filter(|g| quorum && g.epoch > gave_up);
    let held: PartitionSet = groups.flat_map(|g| g.partitions.iter()).collect();
    RingObserved { confirmed: held.clone(), held, gave_up, ..RingObserved::default() }
}
