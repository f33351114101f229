//! How long plans take in a large cluster, and how many partitions move. One JSON object per line and measurement:
//! `{"name", "value", "unit", "stat", "parameters"}`.
//!
//! `cargo run --release -p cluster-planner --example plan-bench [NODES]` (1000 when absent; counts of Apps follow the nodes).
#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark prints its numbers")]

use std::collections::BTreeMap;
use std::time::Instant;

use cluster_planner::{Cordon, Handover, Input, Liveness, NodeInput, Plan, check, plan, plan_leased, status};
use cluster_schemas::app::{ExecSpec, RingSpec};
use cluster_schemas::assignment::Role;
use cluster_schemas::node::{AppObserved, InstanceState, RingObserved};
use cluster_schemas::{App, AppAssignment, AppSpec, Assignment, Metadata, Mode, Node, NodeStatus};

/// Measurements of each kind; the median of them is printed.
const RUNS: usize = 5;
const PARTITIONS: u16 = 256;
const RING_MEMBERS: u32 = 10;

fn app(name: &str, mode: Mode) -> App {
    let exec = ExecSpec {
        command: ["/usr/lib/clusterctl/demo", "--name", name].map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        user: None,
        group: None,
        working_directory: None,
        limits: BTreeMap::from([("MemoryMax".to_owned(), "512M".to_owned())]),
    };
    let replicas = match mode {
        Mode::Replicas => Some(3),
        Mode::Ring => Some(RING_MEMBERS),
        Mode::Singleton | Mode::Spread => None,
    };
    let spec = AppSpec {
        mode,
        exec: Some(exec),
        replicas,
        ring: (mode == Mode::Ring).then_some(RingSpec { partitions: PARTITIONS }),
        ..AppSpec::default()
    };
    let metadata = Metadata { name: name.to_owned(), uid: format!("uid-{name}"), generation: 1, ..Metadata::default() };
    App { api_version: cluster_schemas::API_VERSION.to_owned(), kind: "App".to_owned(), metadata, spec }
}

fn node(number: usize) -> NodeInput {
    let name = format!("n{number:04}");
    let boot_id = format!("boot-{name}");
    let status = NodeStatus { node: name.clone(), boot_id: boot_id.clone(), quorum: true, ..NodeStatus::default() };
    let node = Node {
        name,
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", number % 3))]),
        addresses: BTreeMap::new(),
        boot_id,
        agent_version: "0.1.0".to_owned(),
        capacity: None,
        witness: false,
        registered_at: None,
    };
    NodeInput { node, liveness: Liveness::Live, status: Some(status), cordon: Cordon::None }
}

struct Cluster {
    apps: BTreeMap<String, App>,
    nodes: BTreeMap<String, NodeInput>,
    assignments: BTreeMap<String, Assignment>,
    floors: BTreeMap<String, u64>,
    handovers: BTreeMap<String, Handover>,
}

impl Cluster {
    fn input(&self) -> Input<'_> {
        Input {
            incarnation: "bench",
            term: 1,
            apps: &self.apps,
            nodes: &self.nodes,
            assignments: &self.assignments,
            lease_ms: 350,
            epoch_floors: &self.floors,
            handovers: &self.handovers,
        }
    }

    /// Every agent does what it is told, then plans follow until nothing changes.
    fn settle(&mut self) {
        loop {
            let made = plan(&self.input());
            let changed = made.changed(&self.input()).next().is_some();
            self.assignments = made.assignments;
            for (name, input) in self.nodes.iter_mut().filter(|(_, n)| n.liveness == Liveness::Live) {
                let (Some(assignment), Some(status)) = (self.assignments.get(name), input.status.as_mut()) else { continue };
                status.assignment = Some(assignment.order.clone());
                let present = assignment.apps.iter().filter(|(_, e)| e.role != Role::Absent);
                status.apps = present.map(|(app, e)| (app.clone(), observed(e, assignment.order.generation))).collect();
            }
            if !changed {
                return;
            }
        }
    }

    fn owners(&self, assignments: &BTreeMap<String, Assignment>) -> BTreeMap<(String, u16), String> {
        let rings = self.apps.iter().filter(|(_, a)| a.spec.mode == Mode::Ring).map(|(name, _)| name);
        let mut owners = BTreeMap::new();
        for ring in rings {
            for (node, assignment) in assignments {
                let owned = assignment.apps.get(ring).and_then(|e| e.ring.as_ref()).map(|r| r.owned()).unwrap_or_default();
                owners.extend(owned.iter().map(|p| ((ring.clone(), p), node.clone())));
            }
        }
        owners
    }
}

fn observed(entry: &AppAssignment, seen: u64) -> AppObserved {
    let runs = matches!(entry.role, Role::Active | Role::Member);
    let held = entry.ring.as_ref().map(|r| r.owned()).unwrap_or_default();
    AppObserved {
        uid: entry.uid.clone(),
        generation: entry.generation,
        seen,
        role: entry.role,
        state: if runs { InstanceState::Running } else { InstanceState::Pending },
        healthy: runs,
        holds: entry.role == Role::Active,
        epoch: entry.epoch,
        ring: entry.ring.as_ref().map(|_| RingObserved { confirmed: held.clone(), held, ..RingObserved::default() }),
        ..AppObserved::default()
    }
}

fn median(mut millis: Vec<f64>) -> f64 {
    millis.sort_by(f64::total_cmp);
    millis[millis.len() / 2]
}

/// Milliseconds this thread was on a processor so far; 0 where the kernel does not tell.
fn on_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

/// Medians: by the clock, and on a processor (what it takes on a machine with nothing else to do).
fn time<T>(mut run: impl FnMut() -> T) -> (f64, f64) {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (start, start_cpu) = (Instant::now(), on_cpu());
        let made = run();
        wall.push(start.elapsed().as_secs_f64() * 1000.0);
        cpu.push(on_cpu() - start_cpu);
        drop(made);
    }
    (median(wall), median(cpu))
}

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    let counts = [(Mode::Singleton, count * 2), (Mode::Replicas, count * 79 / 10), (Mode::Spread, count / 20), (Mode::Ring, count / 20)];
    let mut apps = BTreeMap::new();
    for (mode, many) in counts {
        for number in 0..many {
            let name = format!("{}-{number:05}", mode.as_str().to_lowercase());
            apps.insert(name.clone(), app(&name, mode));
        }
    }
    let parameters = format!(
        r#"{{"nodes":{count},"singletons":{},"replicas":{},"spread":{},"rings":{},"partitions":{PARTITIONS},"ring_members":{RING_MEMBERS}}}"#,
        counts[0].1, counts[1].1, counts[2].1, counts[3].1
    );
    let print = |name: &str, value: f64, unit: &str, stat: &str| {
        println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}","stat":"{stat}","parameters":{parameters}}}"#);
    };
    let print_time = |name: &str, (wall, cpu): (f64, f64)| {
        print(name, wall, "ms", "median");
        print(&format!("{}_cpu_ms", name.trim_end_matches("_ms")), cpu, "ms", "median");
    };
    let nodes: BTreeMap<String, NodeInput> = (0..count).map(|n| (format!("n{n:04}"), node(n))).collect();
    let mut cluster = Cluster { apps, nodes, assignments: BTreeMap::new(), floors: BTreeMap::new(), handovers: BTreeMap::new() };

    print_time("plan_full_ms", time(|| plan(&cluster.input())));
    let first = plan(&cluster.input());
    print_time("check_full_ms", time(|| check::check(&cluster.input(), &first)));
    print("violations_full", check::check(&cluster.input(), &first).len() as f64, "violations", "single");
    print("entries", first.assignments.values().map(|a| a.apps.len()).sum::<usize>() as f64, "entries", "single");
    cluster.settle();
    print_time("plan_unchanged_ms", time(|| plan(&cluster.input())));
    let steady = plan(&cluster.input());
    print_time("statuses_ms", time(|| status::app_statuses(&cluster.apps, &steady, &cluster.nodes)));

    // The node with most partitions is lost: what it had moves, and nothing else.
    let before = cluster.owners(&cluster.assignments);
    let mut load: BTreeMap<&String, usize> = BTreeMap::new();
    for node in before.values() {
        *load.entry(node).or_default() += 1;
    }
    let Some((lost, had)) = load.into_iter().max_by_key(|(_, had)| *had).map(|(node, had)| (node.clone(), had)) else { return };
    if let Some(input) = cluster.nodes.get_mut(&lost) {
        input.liveness = Liveness::Lost;
    }
    print_time("plan_node_lost_ms", time(|| plan(&cluster.input())));
    print_time("plan_leased_node_lost_ms", time(|| plan_leased(&cluster.input())));
    let made: Plan = plan(&cluster.input());
    print_time("check_node_lost_ms", time(|| check::check(&cluster.input(), &made)));
    print("violations_node_lost", check::check(&cluster.input(), &made).len() as f64, "violations", "single");
    print("assignments_changed_node_lost", made.changed(&cluster.input()).count() as f64, "assignments", "single");
    cluster.settle();
    let after = cluster.owners(&cluster.assignments);
    let moved = before.iter().filter(|(partition, node)| after.get(*partition) != Some(*node)).count();
    print("ring_moved", moved as f64, "partitions", "single");
    // Each ring that lost a member gets a new one where it is capped: what was lost moves, and nothing has to move besides.
    print("ring_moved_lower_bound", had as f64, "partitions", "single");
}
