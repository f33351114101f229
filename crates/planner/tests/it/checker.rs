//! The checker against broken plans: each rule is broken on purpose and has to be named.

use std::collections::BTreeSet;

use cluster_planner::check::{Rule, check};
use cluster_planner::{Plan, plan};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, Role};
use cluster_schemas::{Assignment, Mode};

use crate::builders::{away_from, mk_app, on_nodes, with_apps, with_vip};
use crate::cluster::Cluster;

fn platform() -> Cluster {
    let mut workers = away_from(mk_app("workers", Mode::Replicas), &["db"]);
    workers.spec.replicas = Some(2);
    let mut cluster = Cluster::of(
        4,
        [
            with_vip(mk_app("db", Mode::Singleton), "10.0.0.100/24"),
            with_vip(mk_app("api", Mode::Spread), "10.0.0.101/24"),
            mk_app("ring", Mode::Ring),
            mk_app("free", Mode::Replicas),
            workers,
        ],
    );
    cluster.settle().assert_ready();
    cluster
}

fn rules(cluster: &Cluster, plan: &Plan) -> BTreeSet<Rule> {
    check(&cluster.input(), plan).into_iter().map(|v| v.rule).collect()
}

/// Breaks the plan for `cluster` and tells which rules the checker names.
fn broken(cluster: &Cluster, break_it: impl FnOnce(&mut Plan)) -> BTreeSet<Rule> {
    let mut made = plan(&cluster.input());
    assert_eq!(check(&cluster.input(), &made), []);
    break_it(&mut made);
    rules(cluster, &made)
}

/// The assignment of `node`, with a newer order so that the change itself is in order.
fn change<'p>(plan: &'p mut Plan, cluster: &Cluster, node: &str) -> &'p mut Assignment {
    let assignment = plan.assignments.get_mut(node).unwrap();
    let last = cluster.assignments.get(node).map_or(0, |a| a.order.generation);
    assignment.order.term = cluster.term;
    assignment.order.generation = last + 1;
    assignment
}

fn entry<'p>(plan: &'p mut Plan, cluster: &Cluster, node: &str, app: &str) -> &'p mut AppAssignment {
    change(plan, cluster, node).apps.get_mut(app).unwrap()
}

#[track_caller]
fn assert_names(found: &BTreeSet<Rule>, rule: Rule) {
    assert!(found.contains(&rule), "{found:?} does not name {rule:?}");
}

#[test]
fn nodes_and_orders() {
    let cluster = platform();
    let found = broken(&cluster, |p| drop(p.assignments.remove("n3")));
    assert_names(&found, Rule::Nodes);
    let found = broken(&cluster, |p| std::sync::Arc::make_mut(&mut change(p, &cluster, "n1").members).truncate(2));
    assert_eq!(found, [Rule::Nodes].into());
    let found = broken(&cluster, |p| change(p, &cluster, "n1").boot_id.push('x'));
    assert_names(&found, Rule::Nodes);
    let found = broken(&cluster, |p| p.assignments.get_mut("n1").unwrap().apps.get_mut("api").unwrap().peers.clear());
    assert_eq!(found, [Rule::Order].into(), "other content in the same order");
    let found = broken(&cluster, |p| change(p, &cluster, "n1").order.generation -= 2);
    assert_eq!(found, [Rule::Order].into());
    let found = broken(&cluster, |p| change(p, &cluster, "n1").order.term += 1);
    assert_eq!(found, [Rule::Order].into());
}

#[test]
fn two_holders() {
    let cluster = platform();
    let found = broken(&cluster, |p| {
        let twin = entry(p, &cluster, "n1", "db").clone();
        *entry(p, &cluster, "n2", "db") = AppAssignment { epoch: 2, ..twin };
        entry(p, &cluster, "n2", "db").vip.as_mut().unwrap().epoch = 2;
    });
    assert_eq!(found, [Rule::Exclusive].into());
    let found = broken(&cluster, |p| {
        let own = OwnedPartitions { epoch: 9, partitions: [0].into_iter().collect() };
        entry(p, &cluster, "n2", "ring").ring.as_mut().unwrap().own.push(own);
    });
    assert_names(&found, Rule::Exclusive);
    let found = broken(&cluster, |p| {
        let vip = entry(p, &cluster, "n3", "api").vip.as_mut().unwrap();
        (vip.hold, vip.epoch) = (true, 9);
    });
    assert_eq!(found, [Rule::Exclusive].into());
}

/// The mistake that matters most: the next one is told before the last one confirmed.
#[test]
fn a_hand_over_without_confirmation() {
    let mut cluster = platform();
    cluster.app("db").spec.placement.nodes = vec!["n2".to_owned()];
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Absent n4:Absent");
    let found = broken(&cluster, |p| {
        let waiting = entry(p, &cluster, "n2", "db");
        (waiting.role, waiting.epoch) = (Role::Active, 2);
        let vip = waiting.vip.as_mut().unwrap();
        (vip.hold, vip.epoch) = (true, 2);
    });
    assert_names(&found, Rule::Exclusive);
    // The mark is what remembers it.
    let found = broken(&cluster, |p| {
        let released = entry(p, &cluster, "n1", "db");
        (released.releasing, released.vip) = (None, None);
    });
    assert_eq!(found, [Rule::Release].into());
    let found = broken(&cluster, |p| drop(change(p, &cluster, "n1").apps.remove("db")));
    assert_eq!(found, [Rule::Dropped, Rule::Release].into());
}

#[test]
fn epochs_and_holders() {
    let mut cluster = platform();
    cluster.lose("n1");
    let again = |epoch: u64| {
        broken(&cluster, |p| {
            let active = entry(p, &cluster, "n2", "db");
            active.epoch = epoch;
            active.vip.as_mut().unwrap().epoch = epoch;
        })
    };
    assert_eq!(again(2), [].into());
    assert_eq!(again(1), [Rule::Epoch].into());
    assert_eq!(again(1 << 53), [Rule::Epoch].into());
    let found = broken(&cluster, |p| {
        let active = entry(p, &cluster, "n2", "db").clone();
        *entry(p, &cluster, "n1", "db") = AppAssignment { peers: Vec::new(), ..active };
        entry(p, &cluster, "n2", "db").role = Role::Standby;
        entry(p, &cluster, "n2", "db").vip.as_mut().unwrap().hold = false;
    });
    assert_eq!(found, [Rule::Holder].into(), "given to a lost node");
    cluster.nodes.get_mut("n2").unwrap().status.as_mut().unwrap().quorum = false;
    let found = broken(&cluster, |p| {
        let active = entry(p, &cluster, "n3", "db").clone();
        *entry(p, &cluster, "n2", "db") = AppAssignment { peers: Vec::new(), ..active };
        entry(p, &cluster, "n3", "db").role = Role::Standby;
        entry(p, &cluster, "n3", "db").vip.as_mut().unwrap().hold = false;
    });
    assert_names(&found, Rule::Holder);
    // A tenure that the node gave up, kept as if nothing had happened.
    let mut cluster = platform();
    let kept = cluster.assignments["n1"].apps["db"].clone();
    cluster.give_up("n1");
    let found = broken(&cluster, |p| *entry(p, &cluster, "n1", "db") = kept);
    assert_eq!(found, [Rule::Epoch].into());
}

#[test]
fn shapes() {
    let cluster = platform();
    let found = broken(&cluster, |p| entry(p, &cluster, "n1", "db").vip.as_mut().unwrap().hold = false);
    assert_names(&found, Rule::Holder);
    let found = broken(&cluster, |p| entry(p, &cluster, "n2", "db").role = Role::Member);
    assert_names(&found, Rule::Holder);
}

#[test]
fn eligibility() {
    let mut cluster = platform();
    cluster.apps.insert("fixed".to_owned(), on_nodes(mk_app("fixed", Mode::Spread), &["n1"]));
    let found = broken(&cluster, |p| {
        let misplaced = p.assignments["n1"].apps["fixed"].clone();
        change(p, &cluster, "n2").apps.insert("fixed".to_owned(), misplaced);
    });
    assert_eq!(found, [Rule::Eligible].into());
    let found = broken(&cluster, |p| p.assignments.get_mut("n1").unwrap().apps.get_mut("fixed").unwrap().generation = 7);
    assert_eq!(found, [Rule::Eligible].into(), "not as the spec is");
    // Beside an App that it has to be kept apart from.
    let cluster = platform();
    let found = broken(&cluster, |p| {
        let worker = p.assignments["n2"].apps["workers"].clone();
        assert_eq!(worker.role, Role::Member);
        change(p, &cluster, "n1").apps.insert("workers".to_owned(), worker);
    });
    assert_names(&found, Rule::Eligible);
    // On a node with a label that it avoids, and without an App that it has to run beside.
    let mut cluster = platform();
    cluster.apps.insert("shy".to_owned(), mk_app("shy", Mode::Spread));
    cluster.step();
    cluster.app("shy").spec.placement.avoid_labels.insert("disk".to_owned(), "hdd".to_owned());
    let mut unlabelled = cluster.clone();
    unlabelled.step();
    cluster.nodes.get_mut("n2").unwrap().node.labels.insert("disk".to_owned(), "hdd".to_owned());
    let found = broken(&cluster, |p| *entry(p, &cluster, "n2", "shy") = unlabelled.assignments["n2"].apps["shy"].clone());
    assert_eq!(found, [Rule::Eligible].into());
    let mut cluster = platform();
    cluster.apps.insert("mate".to_owned(), with_apps(mk_app("mate", Mode::Spread), &["db"]));
    let found = broken(&cluster, |p| {
        let mate = p.assignments["n1"].apps["mate"].clone();
        change(p, &cluster, "n3").apps.insert("mate".to_owned(), mate);
    });
    assert_eq!(found, [Rule::Eligible].into());
    // An App that is being deleted.
    let mut cluster = platform();
    let kept = cluster.assignments["n4"].apps["api"].clone();
    cluster.delete("api");
    let found = broken(&cluster, |p| *entry(p, &cluster, "n4", "api") = kept);
    assert_names(&found, Rule::Eligible);
    let found = broken(&cluster, |p| p.gone.push("api".to_owned()));
    assert_eq!(found, [Rule::Gone].into());
    let found = broken(&cluster, |p| drop(p.terminating.get_mut("api").map(Vec::pop)));
    assert_eq!(found, [Rule::Gone].into());
}

#[test]
fn conflicts() {
    let mut cluster = platform();
    let mut late = with_vip(mk_app("late", Mode::Spread), "10.0.0.101/24");
    late.metadata.creation_timestamp = Some("2026-11-20T00:00:00Z".to_owned());
    cluster.apps.insert("late".to_owned(), late);
    let found = broken(&cluster, |p| {
        let mut twin = p.assignments["n4"].apps["api"].clone();
        twin.uid = "uid-late".to_owned();
        change(p, &cluster, "n4").apps.insert("late".to_owned(), twin);
    });
    assert_eq!(found, [Rule::Eligible].into());
}

/// S1: the old one goes before the new one serves; and places left empty.
#[test]
fn replicas() {
    let mut cluster = platform();
    let members: Vec<String> = cluster.nodes_of("free", Role::Member).into_iter().map(str::to_owned).collect();
    let found = broken(&cluster, |p| {
        let gone = entry(p, &cluster, &members[0], "free");
        gone.role = Role::Absent;
    });
    assert_eq!(found, [Rule::Replicas].into());
    cluster.app("free").spec.placement.nodes =
        ["n1", "n2", "n3", "n4"].map(str::to_owned).into_iter().filter(|n| *n != members[0]).collect();
    let found = broken(&cluster, |p| {
        let leaving = entry(p, &cluster, &members[0], "free");
        assert_eq!(leaving.role, Role::Member, "it waits for its replacement");
        leaving.role = Role::Absent;
    });
    assert_eq!(found, [Rule::Replicas].into());
}

#[test]
fn rings() {
    let cluster = platform();
    let found = broken(&cluster, |p| {
        let ring = entry(p, &cluster, "n1", "ring").ring.as_mut().unwrap();
        ring.own.clear();
    });
    assert_names(&found, Rule::Ring);
    assert_names(&found, Rule::Release);
    // All on one node: complete, but not even.
    let mut cluster = cluster;
    cluster.assignments.clear();
    for node in cluster.nodes.values_mut() {
        node.status.as_mut().unwrap().apps.clear();
    }
    let found = broken(&cluster, |p| {
        let epoch = p.assignments["n1"].apps["ring"].epoch;
        for node in ["n1", "n2", "n3", "n4"] {
            let ring = p.assignments.get_mut(node).unwrap().apps.get_mut("ring").unwrap().ring.as_mut().unwrap();
            let all = OwnedPartitions { epoch, partitions: cluster_schemas::PartitionSet::all(16) };
            ring.own = if node == "n1" { vec![all] } else { Vec::new() };
        }
    });
    assert_eq!(found, [Rule::Ring].into());
    let found =
        broken(&cluster, |p| p.assignments.get_mut("n2").unwrap().apps.get_mut("ring").unwrap().ring.as_mut().unwrap().version += 1);
    assert_eq!(found, [Rule::Ring].into());
}
