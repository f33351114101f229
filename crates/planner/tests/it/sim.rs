//! A small world that obeys assignments slowly and badly: what is true on the nodes, as opposed to what is planned or reported.
//!
//! Agents take assignments, workers adopt entries, act on them one step at a time and publish, each whenever the schedule says so.
//! Nodes are cut off, crash and reboot; a cut-off node fences itself after [`FENCE`] ticks and is declared lost after [`LOST`].
//! Writes of a plan may stop half way, and leaders change. The truth is asserted after every step: nothing exclusive is ever in two
//! places, and epochs rise.

use std::collections::BTreeMap;

use cluster_planner::{Input, Liveness, NodeInput, Plan, check, plan, status};
use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::node::{AppObserved, InstanceState, RingObserved, VipObserved};
use cluster_schemas::{App, Assignment, Mode, NodeStatus, PartitionSet};

use crate::builders::{difference, mk_node};

const INCARNATION: &str = "sim";
/// Ticks without a majority after which a node gives up everything exclusive.
const FENCE: u32 = 3;
/// Ticks without a heartbeat after which the controller declares a node lost.
const LOST: u32 = 6;

/// One App on one node, as it truly is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    entry: AppAssignment,
    /// The entry was written for this boot.
    own_boot: bool,
    seen: u64,
    uid: String,
    pub(crate) running: bool,
    pub(crate) holds: Option<u64>,
    last_epoch: u64,
    gave_up: u64,
    pub(crate) vip: Option<(String, u64)>,
    vip_gave_up: u64,
    pub(crate) held: BTreeMap<u16, u64>,
    ring_gave_up: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct SimNode {
    pub(crate) up: bool,
    pub(crate) connected: bool,
    boots: u32,
    pub(crate) labels: BTreeMap<String, String>,
    /// Ticks without a majority.
    alone: u32,
    /// Ticks since the controller heard it.
    unheard: u32,
    pub(crate) taken: Option<Assignment>,
    pub(crate) workers: BTreeMap<String, Worker>,
    /// Apps that fail when started here.
    pub(crate) broken: Vec<String>,
    /// Status in the store.
    published: Option<NodeStatus>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sim {
    pub(crate) nodes: BTreeMap<String, SimNode>,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) assignments: BTreeMap<String, Assignment>,
    floors: BTreeMap<String, u64>,
    term: u64,
    /// Highest epoch ever held of each exclusive thing, and by whom.
    history: BTreeMap<String, (u64, String)>,
    pub(crate) gone: Vec<String>,
}

impl Sim {
    pub(crate) fn new(count: usize, apps: impl IntoIterator<Item = App>) -> Self {
        let node = SimNode {
            up: true,
            connected: true,
            boots: 1,
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            alone: 0,
            unheard: 0,
            taken: None,
            workers: BTreeMap::new(),
            broken: Vec::new(),
            published: None,
        };
        Self {
            nodes: (1..=count).map(|n| (format!("n{n}"), node.clone())).collect(),
            apps: apps.into_iter().map(|a| (a.metadata.name.clone(), a)).collect(),
            term: 1,
            ..Self::default()
        }
    }

    fn node(&mut self, name: &str) -> &mut SimNode {
        self.nodes.get_mut(name).unwrap()
    }

    fn boot_id(name: &str, node: &SimNode) -> String {
        format!("{name}-{}", node.boots)
    }

    // The controller.

    fn view(&self) -> BTreeMap<String, NodeInput> {
        let one = |(name, node): (&String, &SimNode)| {
            let mut input = mk_node(name);
            input.node.boot_id = Self::boot_id(name, node);
            input.node.labels = node.labels.clone();
            input.liveness = if node.unheard >= LOST { Liveness::Lost } else { Liveness::Live };
            input.status = node.published.clone().filter(|s| s.boot_id == input.node.boot_id);
            (name.clone(), input)
        };
        self.nodes.iter().map(one).collect()
    }

    /// Plans and checks; tells the plan and whether it changes anything.
    pub(crate) fn plan(&mut self, write: impl Fn(usize) -> bool) -> (Plan, bool) {
        let (nodes, handovers) = (self.view(), BTreeMap::new());
        let input = |assignments| Input {
            incarnation: INCARNATION,
            term: self.term,
            apps: &self.apps,
            nodes: &nodes,
            assignments,
            lease_ms: 350,
            epoch_floors: &self.floors,
            handovers: &handovers,
        };
        let made = plan(&input(&self.assignments));
        let violations = check::check(&input(&self.assignments), &made);
        assert!(violations.is_empty(), "{violations:#?}");
        let again = plan(&input(&made.assignments));
        let difference = difference(&made.assignments, &again.assignments);
        assert!(again.assignments == made.assignments, "planning again changes something:\n{difference}");
        let changed: Vec<Assignment> = made.changed(&input(&self.assignments)).cloned().collect();
        let any = !changed.is_empty();
        for (at, assignment) in changed.into_iter().enumerate() {
            if write(at) {
                self.assignments.insert(assignment.node.clone(), assignment);
            }
        }
        for app in &made.gone {
            for (name, node) in &self.nodes {
                assert!(!node.workers.contains_key(app), "{app} is gone, and still on {name}");
            }
            self.apps.remove(app);
            self.gone.push(app.clone());
        }
        self.floors.extend(made.epochs.clone());
        (made, any)
    }

    /// Another leader: it has heard nobody yet, so nobody is lost for it.
    pub(crate) fn new_leader(&mut self) {
        self.term += 1;
        for node in self.nodes.values_mut() {
            node.unheard = 0;
        }
    }

    pub(crate) fn statuses(&self, plan: &Plan) -> BTreeMap<String, cluster_schemas::AppStatus> {
        status::app_statuses(&self.apps, plan, &self.view())
    }

    // Time.

    pub(crate) fn tick(&mut self) {
        let heard = self.nodes.values().filter(|n| n.up && n.connected).count();
        for node in self.nodes.values_mut() {
            let members = node.taken.as_ref().map_or(0, |a| a.members.len());
            if node.up && node.connected && heard * 2 > members {
                node.alone = 0;
            } else {
                node.alone += 1;
            }
            node.unheard = if node.up && node.connected { 0 } else { node.unheard + 1 };
            if node.up && node.alone >= FENCE {
                node.give_up();
            }
        }
        self.assert_truth();
    }

    // Faults.

    pub(crate) fn crash(&mut self, name: &str) {
        let node = self.node(name);
        node.up = false;
        node.taken = None;
        node.workers.clear();
    }

    pub(crate) fn boot(&mut self, name: &str) {
        let node = self.node(name);
        if !node.up {
            node.up = true;
            node.boots += 1;
            node.alone = 0;
            if node.connected {
                node.unheard = 0;
            }
        }
    }

    pub(crate) fn heal(&mut self, name: &str) {
        let node = self.node(name);
        node.connected = true;
        if node.up {
            node.unheard = 0;
        }
    }

    pub(crate) fn give_up(&mut self, name: &str) {
        self.node(name).give_up();
    }

    // Agents.

    pub(crate) fn take(&mut self, name: &str) {
        let assignment = self.assignments.get(name).cloned();
        let node = self.node(name);
        if let Some(new) = assignment.filter(|_| node.up && node.connected)
            && node.taken.as_ref().is_none_or(|old| new.order.newer_than(&old.order) == Some(true))
        {
            node.taken = Some(new);
        }
    }

    /// The worker of `app` learns what the agent took.
    pub(crate) fn adopt(&mut self, name: &str, app: &str) {
        let node = self.node(name);
        let boot = Self::boot_id(name, node);
        let Some(taken) = node.taken.as_ref().filter(|_| node.up) else { return };
        let entry = taken.apps.get(app);
        if entry.is_none_or(|e| e.role == Role::Absent) && !node.workers.contains_key(app) {
            return;
        }
        let (own_boot, seen) = (taken.boot_id == boot, taken.order.generation);
        let entry = entry.cloned().unwrap_or_default();
        let worker = node.workers.entry(app.to_owned()).or_default();
        if worker.seen < seen {
            if entry.role != Role::Absent {
                worker.uid = entry.uid.clone();
            }
            worker.entry = entry;
            worker.own_boot = own_boot;
            worker.seen = seen;
        }
    }

    /// The worker of `app` does one thing; false if there was nothing to do.
    pub(crate) fn act(&mut self, name: &str, app: &str) -> bool {
        let node = self.node(name);
        let alone = node.alone >= FENCE;
        let Some(worker) = node.workers.get_mut(app).filter(|_| node.up) else { return false };
        let did = worker.act(alone);
        if worker.is_done() {
            node.workers.remove(app);
        }
        self.assert_truth();
        did
    }

    pub(crate) fn publish(&mut self, name: &str) {
        let node = self.node(name);
        if node.up && node.connected {
            let status = NodeStatus {
                node: name.to_owned(),
                boot_id: Self::boot_id(name, node),
                instance: String::new(),
                assignment: node.taken.as_ref().map(|a| a.order.clone()),
                quorum: node.alone < FENCE && node.taken.is_some(),
                apps: node.workers.iter().map(|(app, w)| (app.clone(), w.observed(node.broken.contains(app)))).collect(),
                ..NodeStatus::default()
            };
            node.published = Some(status);
        }
    }

    /// All that an agent can do at once.
    pub(crate) fn burst(&mut self, name: &str) {
        self.take(name);
        let node = &self.nodes[name];
        let taken = node.taken.iter().flat_map(|a| a.apps.keys());
        let apps: Vec<String> = taken.chain(node.workers.keys()).cloned().collect();
        for app in apps {
            self.adopt(name, &app);
            while self.act(name, &app) {}
        }
        self.publish(name);
    }

    // The truth.

    fn holdings(&self) -> Vec<(String, u64, &str)> {
        let mut all = Vec::new();
        for (name, node) in self.nodes.iter().filter(|(_, n)| n.up) {
            for (app, worker) in &node.workers {
                all.extend(worker.holds.map(|epoch| (format!("app/{app}"), epoch, name.as_str())));
                all.extend(worker.vip.iter().map(|(address, epoch)| (format!("vip/{address}"), *epoch, name.as_str())));
                all.extend(worker.held.iter().map(|(p, epoch)| (format!("ring/{app}/{p}"), *epoch, name.as_str())));
            }
        }
        all
    }

    fn assert_truth(&mut self) {
        let holdings: Vec<(String, u64, String)> = self.holdings().into_iter().map(|(t, e, n)| (t, e, n.to_owned())).collect();
        let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
        for (thing, epoch, node) in &holdings {
            if let Some(other) = holders.insert(thing, node) {
                panic!("{thing} is on {other} and on {node}");
            }
            let (highest, by) = self.history.entry(thing.clone()).or_insert((0, String::new()));
            assert!(*epoch > *highest || *epoch == *highest && by == node, "{thing}: {node} has epoch {epoch} after {highest} of {by}");
            (*highest, *by) = (*epoch, node.clone());
        }
    }
}

impl SimNode {
    /// Everything exclusive goes, and the tenures of all that was taken are dead.
    fn give_up(&mut self) {
        for (app, entry) in self.taken.iter().flat_map(|a| &a.apps).filter(|(_, e)| e.role != Role::Absent) {
            let worker = self.workers.entry(app.clone()).or_default();
            if worker.uid.is_empty() {
                worker.uid = entry.uid.clone();
            }
            worker.give_up(entry);
        }
        for worker in self.workers.values_mut() {
            let entry = worker.entry.clone();
            worker.give_up(&entry);
        }
    }
}

impl Worker {
    fn give_up(&mut self, entry: &AppAssignment) {
        if entry.role == Role::Active {
            self.gave_up = self.gave_up.max(entry.epoch);
        }
        self.gave_up = self.gave_up.max(self.holds.take().unwrap_or(0));
        if let Some(vip) = entry.vip.as_ref().filter(|v| v.hold) {
            self.vip_gave_up = self.vip_gave_up.max(vip.epoch);
        }
        self.vip_gave_up = self.vip_gave_up.max(self.vip.take().map_or(0, |(_, epoch)| epoch));
        let planned = entry.ring.iter().flat_map(|r| r.own.iter().map(|g| g.epoch));
        let held = self.held.values().copied();
        self.ring_gave_up = planned.chain(held).max().unwrap_or(0).max(self.ring_gave_up);
        self.held.clear();
        if entry.mode == Mode::Singleton {
            self.running = false;
        }
    }

    /// One step: let go before taking up.
    fn act(&mut self, alone: bool) -> bool {
        let entry = &self.entry;
        let may = self.own_boot && !alone;
        let active = (may && entry.role == Role::Active && entry.epoch > self.gave_up).then_some(entry.epoch);
        let vip = entry.vip.as_ref().filter(|v| may && v.hold && v.epoch > self.vip_gave_up);
        let vip = vip.filter(|_| entry.mode != Mode::Singleton || active.is_some());
        let vip = vip.map(|v| (v.spec().ip().to_owned(), v.epoch));
        let own: BTreeMap<u16, u64> = entry
            .ring
            .iter()
            .filter(|_| may && entry.role == Role::Member)
            .flat_map(|r| &r.own)
            .filter(|g| g.epoch > self.ring_gave_up)
            .flat_map(|g| g.partitions.iter().map(|p| (p, g.epoch)))
            .collect();
        let run = entry.role == Role::Member || active.is_some();
        if self.vip.is_some() && self.vip.as_ref().map(|v| &v.0) != vip.as_ref().map(|v| &v.0) {
            self.vip = None;
        } else if self.holds.is_some() && active.is_none() {
            self.holds = None;
            self.running = false;
        } else if let Some(p) = self.held.keys().find(|p| !own.contains_key(p)).copied() {
            self.held.remove(&p);
        } else if self.running && !run {
            self.running = false;
        } else if self.holds != active {
            self.holds = active;
            self.last_epoch = active.unwrap_or(self.last_epoch);
        } else if self.running != run {
            self.running = run;
        } else if self.vip != vip {
            self.vip = vip;
        } else if self.held != own {
            self.held = own;
        } else {
            return false;
        }
        true
    }

    fn is_done(&self) -> bool {
        self.entry.role == Role::Absent
            && self.seen > 0
            && !self.running
            && self.holds.is_none()
            && self.vip.is_none()
            && self.held.is_empty()
    }

    fn observed(&self, broken: bool) -> AppObserved {
        let state = match (self.running, broken) {
            (true, true) => InstanceState::Failed,
            (true, false) => InstanceState::Running,
            // A standby whose last tenure failed says so until it is mended.
            (false, true) if self.last_epoch > 0 => InstanceState::Failed,
            _ => InstanceState::Pending,
        };
        let vip = self.entry.vip.as_ref();
        let vip_missing = vip.is_some_and(|v| v.hold) && self.vip.is_none();
        let held: PartitionSet = self.held.keys().copied().collect();
        AppObserved {
            uid: self.uid.clone(),
            generation: self.entry.generation,
            seen: self.seen,
            role: self.entry.role,
            state,
            healthy: state == InstanceState::Running && !vip_missing,
            holds: self.holds.is_some(),
            epoch: self.holds.unwrap_or(self.last_epoch),
            gave_up: self.gave_up,
            vip: (vip.is_some() || self.vip.is_some()).then(|| VipObserved {
                address: self.vip.as_ref().map_or_else(|| vip.map(|v| v.address.clone()).unwrap_or_default(), |v| format!("{}/24", v.0)),
                present: self.vip.is_some(),
                epoch: self.vip.as_ref().map_or(0, |v| v.1),
                gave_up: self.vip_gave_up,
                ..VipObserved::default()
            }),
            ring: (self.entry.mode == Mode::Ring || !held.is_empty()).then(|| RingObserved {
                confirmed: held.clone(),
                held,
                gave_up: self.ring_gave_up,
                ..RingObserved::default()
            }),
            ..AppObserved::default()
        }
    }
}
