//! A tidy cluster for scenario tests: statuses follow assignments at once unless a test says otherwise.

use std::collections::BTreeMap;

use cluster_planner::{Handover, Input, Liveness, NodeInput, Plan, check, plan, status};
use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::node::{AppObserved, InstanceState, RingObserved, VipObserved};
use cluster_schemas::status::AppStatus;
use cluster_schemas::{App, Assignment, Mode, NodeStatus};

use crate::builders::{difference, mk_node};

pub(crate) const INCARNATION: &str = "store-1";

/// Apps, nodes and what was written, stepped by hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) term: u64,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) nodes: BTreeMap<String, NodeInput>,
    pub(crate) assignments: BTreeMap<String, Assignment>,
    pub(crate) floors: BTreeMap<String, u64>,
    pub(crate) handovers: BTreeMap<String, Handover>,
    pub(crate) plan: Plan,
    /// Statuses of lost nodes as they really are.
    unseen: BTreeMap<String, NodeStatus>,
}

impl Cluster {
    pub(crate) fn new(nodes: impl IntoIterator<Item = NodeInput>, apps: impl IntoIterator<Item = App>) -> Self {
        Self {
            term: 1,
            apps: apps.into_iter().map(|a| (a.metadata.name.clone(), a)).collect(),
            nodes: nodes.into_iter().map(|n| (n.node.name.clone(), n)).collect(),
            ..Self::default()
        }
    }

    /// `count` Live nodes n1, n2, …
    pub(crate) fn of(count: usize, apps: impl IntoIterator<Item = App>) -> Self {
        Self::new((1..=count).map(|n| mk_node(&format!("n{n}"))), apps)
    }

    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            incarnation: INCARNATION,
            term: self.term,
            apps: &self.apps,
            nodes: &self.nodes,
            assignments: &self.assignments,
            lease_ms: 350,
            epoch_floors: &self.floors,
            handovers: &self.handovers,
        }
    }

    /// Plans and writes; every plan passes the checker, and planning again changes nothing.
    pub(crate) fn step(&mut self) -> &mut Self {
        let plan_now = plan(&self.input());
        let violations = check::check(&self.input(), &plan_now);
        assert!(violations.is_empty(), "{violations:#?}\n{plan_now:#?}");
        self.assignments = plan_now.assignments.clone();
        let again = plan(&self.input());
        let difference = difference(&plan_now.assignments, &again.assignments);
        assert!(again.assignments == plan_now.assignments, "planning again changes something:\n{difference}");
        for (slot, epoch) in &plan_now.epochs {
            assert!(self.floors.get(slot).is_none_or(|floor| floor <= epoch), "{slot} falls to {epoch}");
        }
        self.floors.extend(plan_now.epochs.clone());
        self.plan = plan_now;
        self
    }

    /// The agent of `node` does at once all that its assignment says.
    pub(crate) fn obey(&mut self, node: &str) -> &mut Self {
        let Some(assignment) = self.assignments.get(node) else { return self };
        let input = self.nodes.get_mut(node).unwrap();
        let status = input.status.as_mut().unwrap();
        status.assignment = Some(assignment.order.clone());
        let before = std::mem::take(&mut status.apps);
        for (app, entry) in &assignment.apps {
            if entry.role != Role::Absent {
                let mut seen = obeyed(entry, before.get(app));
                seen.seen = assignment.order.generation;
                status.apps.insert(app.clone(), seen);
            }
        }
        self
    }

    pub(crate) fn obey_all(&mut self) -> &mut Self {
        for node in self.live() {
            self.obey(&node);
        }
        self
    }

    /// Plans and obeys until nothing changes any more.
    pub(crate) fn settle(&mut self) -> &mut Self {
        self.step();
        for _ in 0..20 {
            let before = self.assignments.clone();
            self.obey_all().step();
            if before == self.assignments {
                return self;
            }
        }
        panic!("does not settle: {:#?}", self.assignments);
    }

    pub(crate) fn live(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, n)| n.liveness == Liveness::Live).map(|(name, _)| name.clone()).collect()
    }

    /// Not heard any more. It gives up what it has, which nobody sees before it is heard again.
    pub(crate) fn lose(&mut self, node: &str) -> &mut Self {
        let seen = self.nodes[node].status.clone();
        self.give_up(node);
        let input = self.nodes.get_mut(node).unwrap();
        self.unseen.extend(std::mem::replace(&mut input.status, seen).map(|s| (node.to_owned(), s)));
        input.liveness = Liveness::Lost;
        self
    }

    /// Heard again in the same boot, with the status of before: the agent has not stored a new one yet.
    pub(crate) fn heal(&mut self, node: &str) -> &mut Self {
        self.nodes.get_mut(node).unwrap().liveness = Liveness::Live;
        self
    }

    /// The agent of a healed node stores its status.
    pub(crate) fn report(&mut self, node: &str) -> &mut Self {
        self.nodes.get_mut(node).unwrap().status = self.unseen.remove(node);
        self
    }

    /// Whatever exclusive `node` has by the assignment it took is given up.
    pub(crate) fn give_up(&mut self, node: &str) -> &mut Self {
        let epoch = |app: &str| {
            let groups = self.assignments[node].apps.get(app).and_then(|e| e.ring.as_ref()).map_or(&[][..], |r| &r.own);
            groups.iter().map(|g| g.epoch).max().unwrap_or(0)
        };
        for (app, seen) in self.nodes.get_mut(node).unwrap().status.iter_mut().flat_map(|s| s.apps.iter_mut()) {
            give_up(seen, epoch(app));
        }
        self
    }

    /// Heard again after a reboot.
    pub(crate) fn reboot(&mut self, node: &str) -> &mut Self {
        let input = self.nodes.get_mut(node).unwrap();
        input.liveness = Liveness::Live;
        input.node.boot_id += "+";
        let status = input.status.as_mut().unwrap();
        *status =
            cluster_schemas::NodeStatus { node: node.to_owned(), boot_id: input.node.boot_id.clone(), quorum: true, ..Default::default() };
        self
    }

    pub(crate) fn observed(&mut self, node: &str, app: &str) -> &mut AppObserved {
        self.nodes.get_mut(node).unwrap().status.as_mut().unwrap().apps.entry(app.to_owned()).or_default()
    }

    pub(crate) fn app(&mut self, name: &str) -> &mut App {
        self.apps.get_mut(name).unwrap()
    }

    pub(crate) fn delete(&mut self, name: &str) -> &mut Self {
        self.app(name).metadata.deletion_timestamp = Some("2026-11-23T00:00:00Z".to_owned());
        self
    }

    pub(crate) fn entry(&self, node: &str, app: &str) -> Option<&AppAssignment> {
        self.assignments.get(node).and_then(|a| a.apps.get(app))
    }

    /// Roles of `app` in short: `n1:Active(3) n2:Standby n3:Absent`; `*` where something is being released.
    pub(crate) fn roles(&self, app: &str) -> String {
        let one = |(node, assignment): (&String, &Assignment)| {
            let entry = assignment.apps.get(app)?;
            let epoch = if entry.role == Role::Active { format!("({})", entry.epoch) } else { String::new() };
            let releases = entry.releasing.is_some()
                || entry.vip.as_ref().is_some_and(|v| v.releasing.is_some())
                || entry.ring.as_ref().is_some_and(|r| !r.release.is_empty());
            Some(format!("{node}:{}{epoch}{}", entry.role.as_str(), if releases { "*" } else { "" }))
        };
        self.assignments.iter().filter_map(one).collect::<Vec<_>>().join(" ")
    }

    /// Nodes where `app` has this role.
    pub(crate) fn nodes_of(&self, app: &str, role: Role) -> Vec<&str> {
        self.assignments.iter().filter(|(_, a)| a.apps.get(app).is_some_and(|e| e.role == role)).map(|(n, _)| n.as_str()).collect()
    }

    pub(crate) fn status(&self, app: &str) -> AppStatus {
        let one = status::app_status(&self.apps[app], &self.plan, &self.nodes);
        let all = status::app_statuses(&self.apps, &self.plan, &self.nodes);
        assert_eq!(one, all[app]);
        one
    }

    pub(crate) fn assert_ready(&self) {
        for name in self.apps.keys() {
            let status = self.status(name);
            assert!(status.is_ready(), "{name}: {status:#?}");
        }
    }
}

/// What an agent reports that did at once what `entry` says.
pub(crate) fn obeyed(entry: &AppAssignment, before: Option<&AppObserved>) -> AppObserved {
    let active = entry.role == Role::Active;
    let runs = active || entry.role == Role::Member;
    let failed = before.is_some_and(|b| b.state == InstanceState::Failed);
    let state = match (runs, failed) {
        (true, false) => InstanceState::Running,
        (_, true) => InstanceState::Failed,
        (false, false) => InstanceState::Pending,
    };
    AppObserved {
        uid: entry.uid.clone(),
        generation: entry.generation,
        role: entry.role,
        state,
        healthy: state == InstanceState::Running,
        holds: active,
        epoch: if active { entry.epoch } else { before.map_or(0, |b| b.epoch) },
        gave_up: before.map_or(0, |b| b.gave_up),
        vip: entry.vip.as_ref().map(|v| VipObserved {
            address: v.address.clone(),
            present: v.hold,
            epoch: if v.hold { v.epoch } else { 0 },
            gave_up: before.and_then(|b| b.vip.as_ref()).map_or(0, |b| b.gave_up),
            ..VipObserved::default()
        }),
        ring: (entry.mode == Mode::Ring).then(|| {
            let held = entry.ring.as_ref().map(|r| r.owned()).unwrap_or_default();
            let gave_up = before.and_then(|b| b.ring.as_ref()).map_or(0, |b| b.gave_up);
            RingObserved { confirmed: held.clone(), held, gave_up, ..RingObserved::default() }
        }),
        ..AppObserved::default()
    }
}

/// The node gives up everything exclusive of one App.
pub(crate) fn give_up(seen: &mut AppObserved, ring_epoch: u64) {
    if seen.holds {
        seen.holds = false;
        seen.gave_up = seen.epoch;
        seen.state = InstanceState::Pending;
        seen.healthy = false;
    }
    if let Some(vip) = seen.vip.as_mut().filter(|v| v.present) {
        vip.present = false;
        vip.gave_up = vip.epoch;
    }
    if let Some(ring) = &mut seen.ring {
        ring.held = Default::default();
        ring.confirmed = Default::default();
        ring.gave_up = ring.gave_up.max(ring_epoch);
    }
}
