//! `placement.resources`, against an oracle that adds up what all ask for on each node.

use std::collections::BTreeMap;

use cluster_planner::{Liveness, NodeInput};
use cluster_schemas::App;
use cluster_schemas::Mode;
use cluster_schemas::assignment::Role;
use cluster_schemas::resources::{Amounts, Resources};
use proptest::prelude::*;

use crate::builders::{mk_app, mk_node};
use crate::cluster::Cluster;

const MODES: [Mode; 4] = [Mode::Singleton, Mode::Spread, Mode::Replicas, Mode::Ring];
const GI: u64 = 1 << 30;

fn asking(mut app: App, cpu: &str, memory: &str) -> App {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    app.spec.placement.resources = Some(Resources { cpu: given(cpu), memory: given(memory) });
    app
}

fn having(mut node: NodeInput, cpu_millis: u64, memory_bytes: u64) -> NodeInput {
    node.node.capacity = Some(Amounts { cpu_millis, memory_bytes });
    node
}

/// By node: the sum of what Apps with a place there ask for, in thousandths of a core and in Mi.
fn sums(cluster: &Cluster) -> BTreeMap<&str, (u64, u64)> {
    let ask = |app: &str| cluster.apps.get(app).map_or((0, 0), numbers);
    let all = cluster.assignments.iter().map(|(node, assignment)| {
        let places = assignment.apps.iter().filter(|(_, e)| e.role != Role::Absent).map(|(app, _)| ask(app));
        (node.as_str(), places.fold((0, 0), |sum, ask| (sum.0 + ask.0, sum.1 + ask.1)))
    });
    all.collect()
}

/// What the App asks for, in thousandths of a core and in Mi: the tests write both as whole numbers of these.
fn numbers(app: &App) -> (u64, u64) {
    let number = |text: Option<&String>| text.map_or(0, |t| t.trim_end_matches(|c: char| c.is_alphabetic()).parse::<u64>().unwrap());
    let asked = app.spec.placement.resources.as_ref();
    (number(asked.and_then(|r| r.cpu.as_ref())), number(asked.and_then(|r| r.memory.as_ref())))
}

fn assert_room_is_kept_and_used(cluster: &Cluster) {
    let sums = sums(cluster);
    for (node, (cpu, memory)) in &sums {
        match cluster.nodes[*node].node.capacity {
            Some(has) => {
                assert!(*cpu <= has.cpu_millis && memory * (1 << 20) <= has.memory_bytes, "{node}: {cpu}m and {memory}Mi of {has}")
            }
            None => assert_eq!((*cpu, *memory), (0, 0), "{node}"),
        }
    }
    for (name, app) in &cluster.apps {
        let ask = numbers(app);
        let places: Vec<&str> = cluster
            .assignments
            .iter()
            .filter(|(_, a)| a.apps.get(name).is_some_and(|e| e.role != Role::Absent))
            .map(|(n, _)| n.as_str())
            .collect();
        let live = |node: &str| cluster.nodes[node].liveness == Liveness::Live;
        let room: Vec<&str> = cluster
            .nodes
            .iter()
            .filter(|(node, input)| {
                let free = input
                    .node
                    .capacity
                    .map_or((0, 0), |has| (has.cpu_millis - sums[node.as_str()].0, (has.memory_bytes >> 20) - sums[node.as_str()].1));
                live(node) && !places.contains(&node.as_str()) && (ask == (0, 0) || ask.0 <= free.0 && ask.1 <= free.1)
            })
            .map(|(node, _)| node.as_str())
            .collect();
        let here = places.iter().filter(|n| live(n)).count();
        let wants_more = match app.spec.mode {
            Mode::Spread | Mode::Ring => true,
            Mode::Replicas => here < app.spec.replicas.unwrap() as usize,
            Mode::Singleton => here < 5,
        };
        assert!(!wants_more || room.is_empty(), "{name} could be on {room:?} beside {places:?}");
        let placed = cluster.status(name).condition("Placed").unwrap().message.clone();
        if here == 0 {
            let lacking = cluster.live().iter().filter(|n| placed.contains(&format!("; {n}: "))).count();
            assert_eq!(lacking, cluster.live().len().min(5), "{placed}");
        }
        if ask != (0, 0) {
            for node in places {
                let reason = &cluster.entry(node, name).unwrap().reason.message;
                assert!(
                    reason.contains("room for ") || reason.contains("no node can be active") || reason == "it runs here already",
                    "{reason}"
                );
            }
        }
    }
}

fn any_app(number: usize) -> impl Strategy<Value = App> {
    (0..4usize, 1u32..4, 0..6u64, 0..6u64).prop_map(move |(mode, replicas, cpu, memory)| {
        let app = mk_app(&format!("app{number}"), MODES[mode]);
        let text = |amount: u64, unit: &str| if amount == 0 { String::new() } else { format!("{}{unit}", amount * 256) };
        let mut app = asking(app, &text(cpu, "m"), &text(memory, "Mi"));
        app.spec.replicas = (MODES[mode] == Mode::Replicas).then_some(replicas);
        app
    })
}

proptest! {
    /// Whatever comes, goes, is lost and returns: no node is asked for more than it has, nothing waits while a node has room, and who
    /// waits says what each node lacks.
    #[test]
    fn no_node_is_asked_for_more_than_it_has(
        capacities in proptest::collection::vec(proptest::option::weighted(0.9, (0u64..9, 0u64..9)), 1..7),
        apps in (any_app(0), any_app(1), any_app(2), any_app(3), any_app(4)),
        steps in proptest::collection::vec((0..4u8, 0..7usize), 0..6),
    ) {
        let nodes = capacities.iter().enumerate().map(|(n, has)| {
            let node = mk_node(&format!("n{}", n + 1));
            has.map_or_else(|| node.clone(), |(cpu, memory)| having(node.clone(), cpu * 256, memory << 28))
        });
        let mut waiting = vec![apps.0, apps.1, apps.2, apps.3, apps.4];
        let first = waiting.split_off(2);
        let mut cluster = Cluster::new(nodes, first);
        cluster.settle();
        assert_room_is_kept_and_used(&cluster);
        for (what, which) in steps {
            let node = format!("n{}", which % capacities.len() + 1);
            let live = cluster.live().contains(&node);
            match what {
                0 if live => drop(cluster.lose(&node)),
                0 | 1 if !live => drop(cluster.heal(&node).report(&node)),
                1 | 2 => {
                    let app = waiting.pop();
                    cluster.apps.extend(app.map(|app| (app.metadata.name.clone(), app)));
                }
                _ => {
                    let name = cluster.apps.keys().nth(which).cloned();
                    if let Some(name) = name {
                        cluster.delete(&name).settle();
                        if cluster.plan.gone.contains(&name) {
                            waiting.extend(cluster.apps.remove(&name).map(|mut app| {
                                app.metadata.deletion_timestamp = None;
                                app
                            }));
                        } else {
                            // A lost node still has it.
                            cluster.app(&name).metadata.deletion_timestamp = None;
                        }
                    }
                }
            }
            cluster.settle();
            assert_room_is_kept_and_used(&cluster);
        }
    }
}

#[test]
fn what_is_lacking_is_said_with_numbers() {
    let nodes = [having(mk_node("n1"), 4000, 4 * GI), having(mk_node("n2"), 4000, 4 * GI), mk_node("n3")];
    let db = asking(mk_app("db", Mode::Singleton), "", "3276Mi");
    let mut cluster = Cluster::new(nodes, [db, asking(mk_app("api", Mode::Spread), "500m", "256Mi")]);
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("db"), "n1:Active(1) n2:Standby");
    assert_eq!(cluster.roles("api"), "n1:Member n2:Member");
    let reason = |cluster: &Cluster, node: &str, app: &str| cluster.entry(node, app).unwrap().reason.message.clone();
    let expected = "chosen: room for memory 3.2Gi, fewest active Singletons (0) of 2 candidates; n3: capacity not known";
    assert_eq!(reason(&cluster, "n1", "db"), expected);
    assert_eq!(reason(&cluster, "n2", "db"), "stands by for n1; room for memory 3.2Gi");
    assert_eq!(reason(&cluster, "n1", "api"), "runs on every eligible node; room for cpu 500m, memory 256Mi");
    let placed = |cluster: &Cluster, app: &str| cluster.status(app).condition("Placed").unwrap().message.clone();
    assert_eq!(placed(&cluster, "api"), "2 nodes may run it; n3: capacity not known");
    // The standby's room is set apart, so nothing else takes it.
    let more = asking(mk_app("more", Mode::Replicas), "", "1Gi");
    cluster.apps.insert("more".to_owned(), more);
    cluster.settle();
    let expected = "of 3 nodes: capacity not known: 1, too little memory left: 2; the smallest change: have less memory reserved on n1, or ask \
                    for less; n1: memory 3.4Gi of 4Gi reserved, 1Gi asked; n2: memory 3.4Gi of 4Gi reserved, 1Gi asked; n3: capacity not known";
    assert_eq!(placed(&cluster, "more"), expected);
    assert_eq!(cluster.status("more").condition("Placed").unwrap().reason, "NoEligibleNode");
    cluster.lose("n1").settle();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2)", "the fail-over finds its room");
}

#[test]
fn what_runs_stays_when_more_is_asked_than_there_is() {
    let nodes = [having(mk_node("n1"), 1000, GI), having(mk_node("n2"), 1000, GI)];
    let mut app = asking(mk_app("app", Mode::Replicas), "500m", "");
    app.spec.replicas = Some(2);
    let mut cluster = Cluster::new(nodes, [app]);
    cluster.settle().assert_ready();
    cluster.app("app").spec.placement.resources.as_mut().unwrap().cpu = Some("3".to_owned());
    cluster.app("app").metadata.generation += 1;
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("app"), "n1:Member n2:Member");
    // But nothing new comes there, and it does not come back where it was.
    cluster.apps.insert("b".to_owned(), asking(mk_app("b", Mode::Spread), "1m", ""));
    cluster.reboot("n2").lose("n1").settle().heal("n1").report("n1").settle();
    assert_eq!(cluster.roles("b"), "");
    assert_eq!(cluster.roles("app"), "n1:Member n2:Member");
}
