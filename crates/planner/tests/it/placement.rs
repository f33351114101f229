//! `avoidLabels`, `prefer`, `withApps` and `spreadBy` against oracles that know the rules, not the planner: was any other node better?

use std::collections::{BTreeMap, BTreeSet};

use cluster_planner::NodeInput;
use cluster_schemas::app::{Placement, Preference};
use cluster_schemas::assignment::{ReasonCode, Role};
use cluster_schemas::{App, Mode};
use proptest::prelude::*;

use crate::builders::{away_from, labelled, mk_app, mk_node, on_nodes, selecting, with_apps};
use crate::cluster::Cluster;

const MODES: [Mode; 4] = [Mode::Singleton, Mode::Spread, Mode::Replicas, Mode::Ring];

type Labels = BTreeMap<String, String>;

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let one = |key: &'static str, values: &'static [&'static str]| {
        proptest::option::weighted(0.7, proptest::sample::select(values))
            .prop_map(move |value| value.map(|v| (key.to_owned(), v.to_owned())))
    };
    (one("rack", &["a", "b", "c"]), one("disk", &["ssd", "hdd"])).prop_map(|(rack, disk)| rack.into_iter().chain(disk).collect())
}

fn any_nodes() -> impl Strategy<Value = Vec<Labels>> {
    proptest::collection::vec(any_labels(), 1..8)
}

fn any_preferences() -> impl Strategy<Value = Vec<Preference>> {
    let one = (any_labels(), 1u8..=100).prop_map(|(labels, weight)| Preference { labels, weight });
    proptest::collection::vec(one, 0..4)
}

fn nodes(of: &[Labels]) -> Vec<NodeInput> {
    let node = |(at, labels): (usize, &Labels)| {
        let mut node = mk_node(&format!("n{}", at + 1));
        node.node.labels = labels.clone();
        node
    };
    of.iter().enumerate().map(node).collect()
}

fn has_all(cluster: &Cluster, node: &str, labels: &Labels) -> bool {
    labels.iter().all(|(key, value)| cluster.nodes[node].node.labels.get(key) == Some(value))
}

/// Nodes that an App's labels leave in: all that it selects, none that has any it avoids.
fn fitting(cluster: &Cluster, placement: &Placement) -> BTreeSet<String> {
    let avoided = |node: &str| placement.avoid_labels.iter().any(|(key, value)| cluster.nodes[node].node.labels.get(key) == Some(value));
    let fits = |node: &&String| has_all(cluster, node, &placement.node_selector) && !avoided(node);
    cluster.live().iter().filter(fits).cloned().collect()
}

fn score(cluster: &Cluster, app: &str, node: &str) -> u32 {
    let entries = &cluster.apps[app].spec.placement.prefer;
    entries.iter().filter(|p| has_all(cluster, node, &p.labels)).map(|p| u32::from(p.weight)).sum()
}

/// Live nodes where the App runs.
fn running(cluster: &Cluster, app: &str) -> BTreeSet<String> {
    let at = cluster.nodes_of(app, Role::Active).into_iter().chain(cluster.nodes_of(app, Role::Member));
    let live = cluster.live();
    at.filter(|n| live.iter().any(|l| l == n)).map(str::to_owned).collect()
}

/// Whether as many nodes of `eligible` run the App as its mode asks for, and no other.
fn assert_served(cluster: &Cluster, app: &str, eligible: &BTreeSet<String>) {
    let at = running(cluster, app);
    let wanted = match cluster.apps[app].spec.mode {
        Mode::Singleton => 1,
        Mode::Replicas => cluster.apps[app].spec.replicas.unwrap() as usize,
        Mode::Spread | Mode::Ring => usize::MAX,
    };
    assert!(at.is_subset(eligible), "{app} runs on {at:?}, eligible are {eligible:?}");
    assert_eq!(at.len(), wanted.min(eligible.len()), "{app} runs on {at:?} of {eligible:?}");
}

/// Sum of the squares of the counts per value: smallest where the counts differ least.
fn unevenness(cluster: &Cluster, key: &str, nodes: &BTreeSet<String>) -> usize {
    let mut counts: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    for node in nodes {
        *counts.entry(cluster.nodes[node].node.labels.get(key)).or_default() += 1;
    }
    counts.values().map(|c| c * c).sum()
}

/// All sets of `count` of `nodes`.
fn choices(nodes: &BTreeSet<String>, count: usize) -> Vec<BTreeSet<String>> {
    let all: Vec<&String> = nodes.iter().collect();
    let masks = (0u32..1 << all.len()).filter(|mask| mask.count_ones() as usize == count);
    masks.map(|mask| all.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, n)| (*n).clone()).collect()).collect()
}

/// `chosen` beside `fixed`: no other choice of as many from `free` is more even, or as even and preferred more.
fn assert_even(cluster: &Cluster, app: &str, fixed: &BTreeSet<String>, chosen: &BTreeSet<String>, free: &BTreeSet<String>) {
    let key = cluster.apps[app].spec.placement.spread_by.as_deref();
    let rank = |choice: &BTreeSet<String>| {
        let both = fixed.union(choice).cloned().collect();
        let scores: u32 = choice.iter().map(|n| score(cluster, app, n)).sum();
        (key.map_or(0, |key| unevenness(cluster, key, &both)), std::cmp::Reverse(scores))
    };
    let best = choices(free, chosen.len()).into_iter().min_by_key(rank).unwrap();
    assert_eq!(rank(chosen), rank(&best), "{app} is on {chosen:?} beside {fixed:?}; {best:?} is better");
}

fn set_mode(app: &mut App, mode: Mode, replicas: u32) {
    app.spec.replicas = match mode {
        Mode::Replicas | Mode::Ring => Some(replicas),
        Mode::Singleton | Mode::Spread => None,
    };
}

proptest! {
    /// Every mode runs where the labels allow it, and everywhere it could; also after all nodes have other labels.
    #[test]
    fn avoided_labels_are_avoided(
        first in any_nodes(), relabel in any_nodes(), select in any_labels(), avoid in any_labels(), selects in any::<bool>(), mode in 0..4usize,
    ) {
        let mut app = mk_app("app", MODES[mode]);
        app.spec.placement.avoid_labels = avoid;
        if selects {
            app.spec.placement.node_selector = select;
        }
        let mut cluster = Cluster::new(nodes(&first), [app]);
        for change in [first, relabel] {
            for (node, labels) in cluster.nodes.values_mut().zip(change) {
                node.node.labels = labels;
            }
            cluster.settle();
            let placement = cluster.apps["app"].spec.placement.clone();
            let eligible = fitting(&cluster, &placement);
            assert_served(&cluster, "app", &eligible);
            let standbys: BTreeSet<String> = cluster.nodes_of("app", Role::Standby).into_iter().map(str::to_owned).collect();
            assert!(standbys.is_subset(&eligible), "{standbys:?}");
            let none = eligible.is_empty();
            assert_eq!(cluster.status("app").condition("Placed").is_some_and(|c| c.reason == "NoEligibleNode"), none);
        }
    }

    /// No free node was preferred more than one that was chosen, nor as much with fewer instances; and nothing moves when that changes.
    #[test]
    fn what_is_preferred_is_chosen(
        first in any_nodes(), relabel in any_nodes(), prefer in any_preferences(), later in any_preferences(),
        loaded in 0..7usize, mode in 0..4usize, replicas in 1u32..5,
    ) {
        prop_assume!(MODES[mode] != Mode::Spread);
        let load = on_nodes(mk_app("a-load", Mode::Spread), &[&format!("n{}", loaded + 1)]);
        let mut app = mk_app("app", MODES[mode]);
        set_mode(&mut app, MODES[mode], replicas);
        app.spec.placement.prefer = prefer;
        let mut cluster = Cluster::new(nodes(&first), [load, app]);
        cluster.settle();
        let at = running(&cluster, "app");
        let beside_load = |node: &str| MODES[mode] != Mode::Singleton && node == format!("n{}", loaded + 1);
        let rank = |cluster: &Cluster, node: &str| (score(cluster, "app", node), !beside_load(node));
        for chosen in &at {
            let better = cluster.live().into_iter().find(|n| !at.contains(n) && rank(&cluster, n) > rank(&cluster, chosen));
            assert_eq!(better, None, "is better than {chosen}");
            let reason = &cluster.entry(chosen, "app").unwrap().reason.message;
            let said = format!("prefer weight {}", score(&cluster, "app", chosen));
            assert_eq!(reason.contains(&said), !cluster.apps["app"].spec.placement.prefer.is_empty(), "{reason}");
        }
        cluster.app("app").spec.placement.prefer = later;
        for (node, labels) in cluster.nodes.values_mut().zip(relabel) {
            node.node.labels = labels;
        }
        cluster.settle();
        assert_eq!(running(&cluster, "app"), at, "something moved");
        // A new one goes to the best of the nodes that are left.
        if MODES[mode] != Mode::Singleton {
            cluster.app("app").spec.replicas = Some(replicas + 1);
            cluster.settle();
            let new: BTreeSet<String> = running(&cluster, "app").difference(&at).cloned().collect();
            let free: BTreeSet<String> = cluster.live().into_iter().filter(|n| !at.contains(n)).collect();
            assert_eq!(new.len(), 1.min(free.len()));
            assert_even(&cluster, "app", &at, &new, &free);
        }
    }

    /// No other choice of nodes is more even, or as even and preferred more: at first, for those added, and for those that stay when
    /// there are fewer.
    #[test]
    fn instances_are_spread_as_evenly_as_the_nodes_allow(
        first in any_nodes(), prefer in any_preferences(), avoid in any_labels(), counts in proptest::collection::vec(1u32..7, 1..4),
        ring in any::<bool>(),
    ) {
        let mode = if ring { Mode::Ring } else { Mode::Replicas };
        let mut app = mk_app("app", mode);
        app.spec.placement = Placement { prefer, avoid_labels: avoid, spread_by: Some("rack".to_owned()), ..Placement::default() };
        let mut cluster = Cluster::new(nodes(&first), [app]);
        let mut before = BTreeSet::new();
        for count in counts {
            cluster.app("app").spec.replicas = Some(count);
            cluster.settle();
            let placement = cluster.apps["app"].spec.placement.clone();
            let eligible = fitting(&cluster, &placement);
            assert_served_by(&cluster, count as usize, &eligible);
            let at = running(&cluster, "app");
            if at.len() >= before.len() {
                assert!(before.is_subset(&at), "something moved from {before:?} to {at:?}");
                let new = at.difference(&before).cloned().collect();
                let free = eligible.difference(&before).cloned().collect();
                assert_even(&cluster, "app", &before, &new, &free);
            } else {
                assert!(at.is_subset(&before), "something moved from {before:?} to {at:?}");
                let even = choices(&before, at.len()).iter().map(|c| unevenness(&cluster, "rack", c)).min();
                assert_eq!(Some(unevenness(&cluster, "rack", &at)), even, "{at:?} of {before:?}");
            }
            before = at;
        }
    }

    /// The same for a Singleton's standbys, which are spread together with the active instance.
    #[test]
    fn standbys_are_spread_and_preferred(first in any_nodes(), prefer in any_preferences()) {
        let mut app = mk_app("app", Mode::Singleton);
        app.spec.placement = Placement { prefer, spread_by: Some("rack".to_owned()), ..Placement::default() };
        let mut cluster = Cluster::new(nodes(&first), [app]);
        cluster.settle().assert_ready();
        let active = running(&cluster, "app");
        let standbys: BTreeSet<String> = cluster.nodes_of("app", Role::Standby).into_iter().map(str::to_owned).collect();
        assert_eq!(standbys.len(), 4.min(first.len() - 1));
        let free = cluster.live().into_iter().filter(|n| !active.contains(n)).collect();
        assert_even(&cluster, "app", &active, &standbys, &free);
        for node in standbys {
            assert!(cluster.entry(&node, "app").unwrap().reason.message.contains("; spread by rack (here "));
        }
    }

    /// Whatever asks for what, also in circles: nothing runs without what it has to run beside, and everything runs where it can.
    /// The same after nodes are lost and return.
    #[test]
    fn an_app_runs_beside_those_it_asks_for(
        first in any_nodes(),
        asked in proptest::collection::vec(proptest::collection::btree_set(0..5usize, 0..3), 4),
        modes in proptest::collection::vec(0..4usize, 4), avoid in proptest::collection::vec(any_labels(), 4), lost in any::<u8>(),
    ) {
        // The last one does not exist.
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "none"];
        let app = |n: usize| {
            let others: Vec<&str> = asked[n].iter().filter(|o| **o != n).map(|o| NAMES[*o]).collect();
            let mut app = with_apps(mk_app(NAMES[n], MODES[modes[n]]), &others);
            app.spec.placement.avoid_labels = if n.is_multiple_of(2) { avoid[n].clone() } else { Labels::new() };
            app
        };
        let mut reaches = [[false; 5]; 5];
        for (from, others) in asked.iter().enumerate() {
            others.iter().for_each(|to| reaches[from][*to] = true);
        }
        for (via, from, to) in (0..125).map(|n| (n / 25, n / 5 % 5, n % 5)) {
            reaches[from][to] |= reaches[from][via] && reaches[via][to];
        }
        let mut cluster = Cluster::new(nodes(&first), (0..4).map(app));
        for round in 0..3 {
            let names: Vec<String> = cluster.nodes.keys().cloned().collect();
            for (_, node) in names.iter().enumerate().filter(|(at, _)| lost >> at & 1 == 1) {
                match round {
                    1 => drop(cluster.lose(node)),
                    2 => drop(cluster.heal(node).report(node)),
                    _ => {}
                }
            }
            cluster.settle();
            for (n, name) in NAMES.iter().enumerate().take(4) {
                let placement = cluster.apps[*name].spec.placement.clone();
                let mut eligible = fitting(&cluster, &placement);
                for other in asked[n].iter().filter(|o| **o != n && !(**o > n && reaches[**o][n])) {
                    let there = running(&cluster, NAMES[*other]);
                    eligible.retain(|node| there.contains(node));
                }
                assert_served(&cluster, name, &eligible);
            }
        }
    }
}

proptest! {
    /// Two Apps of which either keeps away from the other never run on one node, and none waits while a node is free of those; who
    /// waits for such a node says so.
    #[test]
    fn apps_kept_apart_are_never_together(
        first in any_nodes(), relabel in any_nodes(), asked in proptest::collection::vec(proptest::collection::btree_set(0..4usize, 0..3), 4),
        modes in proptest::collection::vec(0..4usize, 4), avoid in any_labels(),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let app = |n: usize| {
            let others: Vec<&str> = asked[n].iter().filter(|o| **o != n).map(|o| NAMES[*o]).collect();
            let mut app = away_from(mk_app(NAMES[n], MODES[modes[n]]), &others);
            app.spec.placement.avoid_labels = if n == 0 { avoid.clone() } else { Labels::new() };
            app
        };
        let mut cluster = Cluster::new(nodes(&first), (0..4).map(app));
        for change in [first, relabel] {
            for (node, labels) in cluster.nodes.values_mut().zip(change) {
                node.node.labels = labels;
            }
            cluster.settle();
            for n in 0..4 {
                let at = running(&cluster, NAMES[n]);
                let mut free = fitting(&cluster, &cluster.apps[NAMES[n]].spec.placement.clone());
                for other in (0..4).filter(|o| *o != n && (asked[n].contains(o) || asked[*o].contains(&n))) {
                    let there = running(&cluster, NAMES[other]);
                    assert!(at.is_disjoint(&there), "{} and {} are both on {at:?} and {there:?}", NAMES[n], NAMES[other]);
                    free.retain(|node| !there.contains(node));
                }
                let wanted = match MODES[modes[n]] {
                    Mode::Singleton => 1.min(free.len()),
                    Mode::Replicas => 3.min(free.len()),
                    Mode::Spread | Mode::Ring => free.len(),
                };
                assert_eq!(at.len(), wanted, "{} is on {at:?} of {free:?}", NAMES[n]);
                let placed = cluster.status(NAMES[n]).condition("Placed").unwrap().message.clone();
                let kept_off = at.is_empty() && !fitting(&cluster, &cluster.apps[NAMES[n]].spec.placement.clone()).is_empty();
                assert!(!kept_off || placed.contains("keeping away from App "), "{placed}");
            }
        }
    }
}

fn assert_served_by(cluster: &Cluster, count: usize, eligible: &BTreeSet<String>) {
    let at = running(cluster, "app");
    assert!(at.is_subset(eligible), "{at:?} of {eligible:?}");
    assert_eq!(at.len(), count.min(eligible.len()));
}

#[test]
fn reasons_name_the_rules_that_decided() {
    let node = |name: &str, rack: &str, disk: &str| labelled(labelled(mk_node(name), "rack", rack), "disk", disk);
    let at = [node("n1", "a", "hdd"), node("n2", "a", "ssd"), node("n3", "b", "ssd"), node("n4", "b", "old"), mk_node("n5")];
    let mut app = with_apps(mk_app("app", Mode::Replicas), &["db"]);
    app.spec.replicas = Some(2);
    app.spec.placement.avoid_labels = labels(&[("disk", "old")]);
    app.spec.placement.prefer = vec![Preference { labels: labels(&[("disk", "ssd")]), weight: 50 }];
    app.spec.placement.spread_by = Some("rack".to_owned());
    let mut cluster = Cluster::new(at, [app, mk_app("db", Mode::Spread)]);
    cluster.settle().assert_ready();
    assert_eq!(running(&cluster, "app"), ["n2", "n3"].map(str::to_owned).into());
    let expected = "chosen: beside App db, spread by rack (here a), prefer weight 50, fewest instances (1) of 4 eligible nodes; \
                    n4 is not eligible: label disk=old avoided";
    assert_eq!(cluster.entry("n2", "app").unwrap().reason.message, expected);
    // What it runs beside goes; then a label.
    cluster.app("db").spec.placement.nodes = vec!["n3".to_owned()];
    cluster.step();
    let reason = &cluster.entry("n2", "app").unwrap().reason;
    assert_eq!((reason.code, reason.message.as_str()), (ReasonCode::NotEligible, "App db does not run here, and withApps asks for it"));
    cluster.settle();
    cluster.nodes.get_mut("n3").unwrap().node.labels = labels(&[("disk", "old")]);
    cluster.step();
    let reason = &cluster.entry("n3", "app").unwrap().reason;
    assert_eq!(reason.message, "not eligible any more: label disk=old avoided");
    cluster.settle();
    let placed = cluster.status("app").condition("Placed").unwrap().message.clone();
    let expected = "of 5 nodes: avoidLabels disk=old leaves out 2, running beside App db leaves out 4; \
                    the smallest change: have App db run on n1, or drop it from withApps";
    assert_eq!(placed, expected);
}

#[test]
fn a_fail_over_goes_where_it_is_preferred_and_takes_along_what_runs_beside() {
    let nodes = [mk_node("n1"), mk_node("n2"), labelled(mk_node("n3"), "disk", "ssd")];
    let mut db = mk_app("db", Mode::Singleton);
    db.spec.placement.prefer = vec![Preference { labels: labels(&[("disk", "ssd")]), weight: 7 }];
    let mut cluster =
        Cluster::new(nodes, [db, with_apps(mk_app("a", Mode::Singleton), &["db"]), with_apps(mk_app("b", Mode::Spread), &["db"])]);
    cluster.settle().assert_ready();
    for app in ["a", "b", "db"] {
        assert_eq!(running(&cluster, app), ["n3".to_owned()].into(), "{app}");
    }
    cluster.lose("n3").step();
    for app in ["a", "b", "db"] {
        assert_eq!(running(&cluster, app), ["n1".to_owned()].into(), "{app} follows in the same plan");
    }
    let reason = &cluster.entry("n1", "a").unwrap().reason;
    assert_eq!(reason.message, "takes over from n3, which is lost; beside App db");
    // Back, it is not moved to.
    cluster.settle().heal("n3").report("n3").settle().assert_ready();
    assert_eq!(running(&cluster, "db"), ["n1".to_owned()].into());
}

#[test]
fn a_pair_that_asks_for_each_other_is_led_by_the_first_and_what_cannot_be_says_so() {
    let first = with_apps(mk_app("a", Mode::Singleton), &["b"]);
    let second = with_apps(mk_app("b", Mode::Singleton), &["a"]);
    let mut cluster = Cluster::of(3, [first, selecting(second, "never", "set"), with_apps(mk_app("c", Mode::Spread), &["none"])]);
    cluster.settle();
    assert!(cluster.status("a").is_ready(), "who leads waits for nobody");
    let placed = cluster.status("c").condition("Placed").unwrap().message.clone();
    assert!(placed.contains("running beside App none leaves out 3; withApps names none, no such App"), "{placed}");
    for node in cluster.nodes.values_mut() {
        node.node.labels = labels(&[("never", "set")]);
    }
    cluster.settle();
    assert_eq!(running(&cluster, "a"), running(&cluster, "b"));
    // Both kept apart and together: nothing can be done, and it is said.
    let apps = [mk_app("x", Mode::Spread), with_apps(away_from(mk_app("y", Mode::Spread), &["x"]), &["x"])];
    let mut cluster = Cluster::of(2, apps);
    cluster.settle();
    assert_eq!(cluster.roles("y"), "");
}
