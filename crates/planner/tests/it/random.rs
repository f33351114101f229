//! Random schedules in the simulated world. The oracle is the truth on the nodes, not the planner's idea of it.

use std::collections::BTreeSet;

use cluster_schemas::app::Preference;
use cluster_schemas::assignment::Role;
use cluster_schemas::{App, Mode};
use proptest::prelude::*;

use crate::builders::{away_from, difference, mk_app, selecting, with_apps, with_vip};
use crate::sim::Sim;

const NODES: usize = 5;
const APPS: [&str; 7] = ["api", "cache", "database", "mate", "solo", "twin", "workers"];

fn apps() -> Vec<App> {
    let mut workers = away_from(mk_app("workers", Mode::Replicas), &["database"]);
    workers.spec.replicas = Some(2);
    let mut twin = mk_app("twin", Mode::Replicas);
    twin.spec.placement.prefer = vec![Preference { labels: [("zone".to_owned(), "b".to_owned())].into(), weight: 10 }];
    twin.spec.placement.spread_by = Some("zone".to_owned());
    vec![
        with_vip(mk_app("api", Mode::Spread), "10.0.0.101/24"),
        with_vip(mk_app("cache", Mode::Ring), "10.0.0.102/24"),
        with_vip(mk_app("database", Mode::Singleton), "10.0.0.100/24"),
        with_apps(mk_app("mate", Mode::Spread), &["database"]),
        away_from(selecting(mk_app("solo", Mode::Singleton), "zone", "a"), &["database"]),
        twin,
        workers,
    ]
}

/// One step of a schedule; numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Op {
    Tick,
    Plan,
    /// The leader dies in the middle of its writes.
    PlanHalf(u8),
    NewLeader,
    Take(usize),
    Adopt(usize, usize),
    Act(usize, usize),
    Publish(usize),
    Burst(usize),
    Everybody,
    Cut(usize),
    Heal(usize),
    Crash(usize),
    Boot(usize),
    GiveUp(usize),
    Break(usize, usize),
    Mend(usize, usize),
    Zone(usize),
    Vip(usize, u8),
    Scale(u8),
    Delete(usize),
    Create(usize),
    Mode(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0..NODES;
    let app = 0..APPS.len();
    prop_oneof![
        8 => Just(Op::Tick),
        10 => Just(Op::Plan),
        2 => any::<u8>().prop_map(Op::PlanHalf),
        1 => Just(Op::NewLeader),
        4 => node.clone().prop_map(Op::Take),
        4 => (node.clone(), app.clone()).prop_map(|(n, a)| Op::Adopt(n, a)),
        8 => (node.clone(), app.clone()).prop_map(|(n, a)| Op::Act(n, a)),
        4 => node.clone().prop_map(Op::Publish),
        8 => node.clone().prop_map(Op::Burst),
        4 => Just(Op::Everybody),
        2 => node.clone().prop_map(Op::Cut),
        2 => node.clone().prop_map(Op::Heal),
        1 => node.clone().prop_map(Op::Crash),
        2 => node.clone().prop_map(Op::Boot),
        1 => node.clone().prop_map(Op::GiveUp),
        1 => (node.clone(), app.clone()).prop_map(|(n, a)| Op::Break(n, a)),
        1 => (node.clone(), app.clone()).prop_map(|(n, a)| Op::Mend(n, a)),
        1 => node.prop_map(Op::Zone),
        1 => (app.clone(), 100u8..104).prop_map(|(a, v)| Op::Vip(a, v)),
        1 => (1u8..6).prop_map(Op::Scale),
        1 => app.clone().prop_map(Op::Delete),
        1 => app.clone().prop_map(Op::Create),
        1 => app.prop_map(Op::Mode),
    ]
}

fn run(sim: &mut Sim, op: Op, uids: &mut u32) {
    let name = |n: usize| format!("n{}", n + 1);
    match op {
        Op::Tick => sim.tick(),
        Op::Plan => drop(sim.plan(|_| true)),
        Op::PlanHalf(mask) => {
            sim.plan(|at| mask >> (at % 8) & 1 == 1);
            sim.new_leader();
        }
        Op::NewLeader => sim.new_leader(),
        Op::Take(n) => sim.take(&name(n)),
        Op::Adopt(n, a) => sim.adopt(&name(n), APPS[a]),
        Op::Act(n, a) => drop(sim.act(&name(n), APPS[a])),
        Op::Publish(n) => sim.publish(&name(n)),
        Op::Burst(n) => sim.burst(&name(n)),
        Op::Everybody => (0..NODES).for_each(|n| sim.burst(&name(n))),
        Op::Cut(n) => sim.nodes.get_mut(&name(n)).unwrap().connected = false,
        Op::Heal(n) => sim.heal(&name(n)),
        Op::Crash(n) => sim.crash(&name(n)),
        Op::Boot(n) => sim.boot(&name(n)),
        Op::GiveUp(n) => sim.give_up(&name(n)),
        Op::Break(n, a) => sim.nodes.get_mut(&name(n)).unwrap().broken.push(APPS[a].to_owned()),
        Op::Mend(n, a) => sim.nodes.get_mut(&name(n)).unwrap().broken.retain(|b| b != APPS[a]),
        Op::Zone(n) => {
            let zone = sim.nodes.get_mut(&name(n)).unwrap().labels.get_mut("zone").unwrap();
            *zone = if zone == "a" { "b".to_owned() } else { "a".to_owned() };
        }
        Op::Vip(a, last) => edit(sim, a, |app| {
            if let Some(vip) = &mut app.spec.vip {
                vip.address = format!("10.0.0.{last}/24");
            }
        }),
        Op::Scale(n) => edit(sim, 6, |app| app.spec.replicas = Some(u32::from(n))),
        Op::Delete(a) => {
            if let Some(app) = sim.apps.get_mut(APPS[a]) {
                app.metadata.deletion_timestamp = Some("2026-11-23T00:00:00Z".to_owned());
            }
        }
        Op::Create(a) => {
            if !sim.apps.contains_key(APPS[a]) {
                *uids += 1;
                let mut app = apps().swap_remove(a);
                app.metadata.uid += &uids.to_string();
                app.metadata.creation_timestamp = Some(format!("2026-11-02T00:00:{:02}Z", *uids % 60));
                sim.apps.insert(APPS[a].to_owned(), app);
            }
        }
        Op::Mode(a) => edit(sim, a, |app| match app.spec.mode {
            Mode::Spread => app.spec.mode = Mode::Singleton,
            Mode::Singleton => app.spec.mode = Mode::Spread,
            Mode::Replicas | Mode::Ring => {}
        }),
    }
}

fn edit(sim: &mut Sim, app: usize, change: impl FnOnce(&mut App)) {
    if let Some(app) = sim.apps.get_mut(APPS[app]).filter(|a| !a.is_deleted()) {
        change(app);
        app.metadata.generation += 1;
    }
}

/// Everything works again, and everybody does at once what they are told. Tells after how many rounds nothing changes any more.
fn calm(sim: &mut Sim) -> usize {
    let names: Vec<String> = sim.nodes.keys().cloned().collect();
    for name in &names {
        sim.heal(name);
        sim.boot(name);
        sim.nodes.get_mut(name).unwrap().broken.clear();
    }
    let mut quiet = 0;
    for round in 0..60 {
        sim.tick();
        let (_, changed) = sim.plan(|_| true);
        for name in &names {
            sim.burst(name);
        }
        quiet = if changed { 0 } else { quiet + 1 };
        if quiet == 3 {
            return round;
        }
    }
    let before = sim.assignments.clone();
    sim.plan(|_| true);
    panic!("no rest in 60 rounds:\n{}", difference(&before, &sim.assignments));
}

/// The truth on the nodes is what the Apps ask for.
fn assert_served(sim: &mut Sim) {
    let (plan, _) = sim.plan(|_| true);
    let statuses = sim.statuses(&plan);
    for (name, app) in &sim.apps {
        assert!(!app.is_deleted(), "{name} is still terminating: {:?}", plan.terminating);
        let here = |n: &&String| sim.nodes[*n].workers.get(name).is_some_and(|w| w.running);
        let running: Vec<&String> = sim.nodes.keys().filter(here).collect();
        if plan.notes[name].conflict.is_some() {
            assert!(running.is_empty(), "{name} lost a conflict and runs on {running:?}");
            assert!(!statuses[name].is_ready());
            continue;
        }
        let selector = &app.spec.placement.node_selector;
        let fits: Vec<&String> =
            sim.nodes.iter().filter(|(_, n)| selector.iter().all(|(k, v)| n.labels.get(k) == Some(v))).map(|(n, _)| n).collect();
        let beside = |of: &str| sim.nodes.iter().any(|(n, node)| running.contains(&n) && node.workers.get(of).is_some_and(|w| w.running));
        for other in &app.spec.placement.away_from_apps {
            let spread = sim.apps.get(other).is_some_and(|o| o.spec.mode == Mode::Spread);
            assert!(!beside(other), "{name} and {other} run on one node (spread: {spread})");
        }
        // Other Apps may leave no room; otherwise all that was asked for is there.
        let crowded =
            !app.spec.placement.away_from_apps.is_empty() || sim.apps.values().any(|o| o.spec.placement.away_from_apps.contains(name));
        let (least, most) = match app.spec.mode {
            Mode::Singleton => (1, 1),
            Mode::Spread | Mode::Ring => (NODES, NODES),
            Mode::Replicas => {
                let n = app.spec.replicas.unwrap() as usize;
                (n.min(NODES - 1), n)
            }
        };
        let mut least = least.min(fits.len());
        let mut most = most;
        let beside = &app.spec.placement.with_apps;
        if !beside.is_empty() {
            let runs = |node: &crate::sim::SimNode, of: &String| node.workers.get(of).is_some_and(|w| w.running);
            let there = sim.nodes.values().filter(|n| beside.iter().all(|of| runs(n, of))).count();
            assert!(running.iter().all(|n| beside.iter().all(|of| runs(&sim.nodes[*n], of))), "{name} is alone: {running:?}");
            (least, most) = (least.min(there), most.min(there));
        }
        assert!(running.len() <= most && (running.len() >= least || crowded), "{name} runs on {running:?}");
        if running.len() == most && most > 0 {
            assert!(statuses[name].is_ready(), "{name}: {:#?}", statuses[name]);
        }
        if app.spec.mode == Mode::Ring {
            let counts: Vec<usize> = sim.nodes.values().map(|n| n.workers.get(name).map_or(0, |w| w.held.len())).collect();
            let parts: BTreeSet<u16> =
                sim.nodes.values().filter_map(|n| n.workers.get(name)).flat_map(|w| w.held.keys().copied()).collect();
            assert_eq!(parts.len(), usize::from(app.partitions()));
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{name}: {counts:?}");
        }
        if let Some(vip) = app.spec.vip.as_ref().filter(|_| !running.is_empty()) {
            let at: Vec<&String> = sim
                .nodes
                .iter()
                .filter(|(_, n)| n.workers.get(name).is_some_and(|w| w.vip.as_ref().is_some_and(|v| v.0 == vip.ip())))
                .map(|(n, _)| n)
                .collect();
            assert_eq!(at.len(), 1, "{name}: VIP {} on {at:?}", vip.ip());
        }
    }
    // Nothing runs that nobody asked for.
    for (name, node) in &sim.nodes {
        for (app, worker) in &node.workers {
            let entry = sim.assignments[name].apps.get(app);
            assert!(entry.is_some_and(|e| e.role != Role::Absent), "{app} is left on {name}: {worker:?}");
        }
    }
}

/// 100 schedules take some seconds; `PROPTEST_CASES` asks for more. A seed means nothing once the operations change, so that none is
/// kept: what was found has a scenario of its own.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    ProptestConfig { cases, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens: nothing exclusive in two places, epochs rise (both asserted in the world itself), every plan passes the
    /// checker and stands when planned again; and when the trouble ends, the world comes to rest with everything served.
    #[test]
    fn any_schedule_is_safe_and_ends_well(ops in proptest::collection::vec(op(), 0..150), settled in any::<bool>()) {
        let mut sim = Sim::new(NODES, apps());
        let mut uids = 0;
        if settled {
            calm(&mut sim);
        }
        for op in ops {
            run(&mut sim, op, &mut uids);
        }
        calm(&mut sim);
        assert_served(&mut sim);
    }
}
