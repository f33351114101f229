//! Spread and Replicas, their VIPs, and Apps kept apart.

use cluster_schemas::Mode;
use cluster_schemas::assignment::{ReasonCode, Role};
use cluster_schemas::node::InstanceState;

use crate::builders::{away_from, labelled, mk_app, mk_node, selecting, with_vip};
use crate::cluster::Cluster;

fn replicas(count: u32) -> cluster_schemas::App {
    let mut app = mk_app("w", Mode::Replicas);
    app.spec.replicas = Some(count);
    app
}

fn fail(cluster: &mut Cluster, node: &str, app: &str) {
    let seen = cluster.observed(node, app);
    (seen.state, seen.healthy) = (InstanceState::Failed, false);
}

#[test]
fn spread_follows_eligibility_and_keeps_lost_members() {
    let nodes = ["n1", "n2", "n3"].map(|n| labelled(mk_node(n), "role", "edge")).into_iter().chain([mk_node("n4")]);
    let mut cluster = Cluster::new(nodes, [selecting(mk_app("api", Mode::Spread), "role", "edge")]);
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("api"), "n1:Member n2:Member n3:Member");
    cluster.lose("n3").settle().assert_ready();
    assert_eq!(cluster.status("api").ready, "2/2", "lost nodes do not count");
    assert_eq!(cluster.roles("api"), "n1:Member n2:Member n3:Member");
    // An entry leaves through Absent and a confirmation; that of a lost node waits for its return.
    for node in ["n2", "n3"] {
        cluster.nodes.get_mut(node).unwrap().node.labels.clear();
    }
    cluster.step();
    assert_eq!(cluster.roles("api"), "n1:Member n2:Absent n3:Absent");
    cluster.obey_all().settle();
    assert_eq!(cluster.roles("api"), "n1:Member n3:Absent");
    cluster.heal("n3").report("n3").settle().assert_ready();
    assert_eq!(cluster.roles("api"), "n1:Member");
}

#[test]
fn replicas_go_where_fewest_instances_are_and_stay_there() {
    let mut cluster = Cluster::of(5, [replicas(3), mk_app("x", Mode::Replicas)]);
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Member n3:Member");
    assert_eq!(cluster.roles("x"), "n1:Member n4:Member n5:Member");
    let reason = &cluster.entry("n4", "x").unwrap().reason;
    assert_eq!(reason.message, "chosen: fewest instances (0) of 5 eligible nodes");
}

#[test]
fn more_replicas_than_nodes_places_as_many_as_fit_and_says_so() {
    let mut cluster = Cluster::of(3, [replicas(5)]);
    cluster.settle();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Member n3:Member");
    let status = cluster.status("w");
    assert_eq!(status.ready, "3/5");
    assert!(!status.is_ready());
    let placed = status.condition("Placed").unwrap();
    assert_eq!(placed.reason, "FewerNodesThanReplicas");
    assert!(placed.message.starts_with("3 of 5 replicas fit"), "{}", placed.message);
}

/// S1, both ways of a return.
#[test]
fn a_lost_member_is_replaced_and_is_surplus_only_once_the_replacement_serves() {
    let mut cluster = Cluster::of(4, [replicas(3)]);
    cluster.settle();
    cluster.lose("n2").step();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Member n3:Member n4:Member", "n2 stays a member until n4 serves");
    // It returns first, still running: it stays, and the replacement goes again.
    let mut early = cluster.clone();
    early.heal("n2").report("n2").step();
    assert_eq!(early.roles("w"), "n1:Member n2:Member n3:Member n4:Absent");
    early.obey_all().settle().assert_ready();
    // The replacement serves first: n2 is surplus and will be told so.
    cluster.obey("n4").step();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Absent n3:Member n4:Member");
    assert_eq!(cluster.entry("n2", "w").unwrap().reason.code, ReasonCode::Surplus);
    cluster.heal("n2").report("n2").settle().assert_ready();
    assert_eq!(cluster.roles("w"), "n1:Member n3:Member n4:Member");
}

#[test]
fn surplus_goes_from_the_unhealthy_then_the_loaded_then_the_last() {
    let mut cluster = Cluster::of(4, [replicas(4), selecting(mk_app("x", Mode::Spread), "busy", "yes")]);
    cluster.nodes.insert("n2".to_owned(), labelled(mk_node("n2"), "busy", "yes"));
    cluster.settle().assert_ready();
    let scaled = |count: u32, failed: &[&str]| {
        let mut cluster = cluster.clone();
        cluster.app("w").spec.replicas = Some(count);
        for node in failed {
            fail(&mut cluster, node, "w");
        }
        cluster.step().roles("w")
    };
    assert_eq!(scaled(3, &["n3"]), "n1:Member n2:Member n3:Absent n4:Member");
    assert_eq!(scaled(3, &[]), "n1:Member n2:Absent n3:Member n4:Member");
    assert_eq!(scaled(2, &[]), "n1:Member n2:Absent n3:Member n4:Absent");
    assert_eq!(scaled(1, &["n1"]), "n1:Absent n2:Absent n3:Member n4:Absent");
}

#[test]
fn a_fail_over_onto_a_workers_node_moves_the_worker_new_one_first() {
    let mut cluster = Cluster::of(4, [mk_app("db", Mode::Singleton), away_from(replicas(2), &["db"])]);
    cluster.settle().assert_ready();
    assert_eq!((cluster.roles("w").as_str(), cluster.nodes_of("db", Role::Active)), ("n2:Member n3:Member", vec!["n1"]));
    cluster.lose("n1").step();
    assert_eq!(cluster.nodes_of("db", Role::Active), ["n2"], "the fail-over waits for nobody");
    assert_eq!(cluster.roles("w"), "n2:Member n3:Member n4:Member");
    cluster.obey("n4").step();
    assert_eq!(cluster.roles("w"), "n2:Absent n3:Member n4:Member");
    let reason = &cluster.entry("n2", "w").unwrap().reason;
    assert_eq!(reason.message, "App db runs here, and the two are kept apart by awayFromApps");
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn a_worker_with_nowhere_to_go_leaves_all_the_same() {
    let mut cluster = Cluster::of(2, [mk_app("db", Mode::Singleton), away_from(replicas(1), &["db"])]);
    cluster.settle().assert_ready();
    assert_eq!((cluster.roles("w").as_str(), cluster.nodes_of("db", Role::Active)), ("n2:Member", vec!["n1"]));
    cluster.lose("n1").settle();
    assert_eq!(cluster.roles("w"), "");
    let placed = cluster.status("w").condition("Placed").unwrap().clone();
    assert_eq!(placed.reason, "NoEligibleNode");
    assert!(
        placed.message.ends_with("the smallest change: move App db away from n2, or drop the awayFromApps between the two"),
        "{placed:?}"
    );
}

#[test]
fn a_pools_vip_is_held_by_one_healthy_member_and_moves_by_release() {
    let mut cluster = Cluster::of(3, [with_vip(mk_app("api", Mode::Spread), "10.0.0.7/24")]);
    cluster.step();
    let holders = |c: &Cluster| {
        let holds = |n: &&str| c.entry(n, "api").unwrap().vip.as_ref().is_some_and(|v| v.hold);
        c.nodes_of("api", Role::Member).into_iter().filter(holds).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(holders(&cluster).is_empty(), "nobody is healthy yet");
    cluster.obey_all().settle().assert_ready();
    assert_eq!(holders(&cluster), ["n1"]);
    // Freshly given, not there yet: that is no reason to move it.
    let seen = cluster.observed("n1", "api");
    (seen.healthy, seen.vip.as_mut().unwrap().present) = (false, false);
    cluster.step();
    assert_eq!(holders(&cluster), ["n1"]);
    assert_eq!(cluster.status("api").condition("Ready").unwrap().reason, "NotHealthy");
    cluster.obey("n1");
    fail(&mut cluster, "n1", "api");
    cluster.step();
    assert!(holders(&cluster).is_empty());
    assert_eq!(cluster.roles("api"), "n1:Member* n2:Member n3:Member");
    assert_eq!(cluster.plan.notes["api"].waits.as_deref(), Some("nobody holds VIP 10.0.0.7 until n1 confirmed to have let go"));
    cluster.obey_all().step();
    assert_eq!(holders(&cluster), ["n2"]);
    let epochs: Vec<u64> = ["n1", "n2", "n3"].map(|n| cluster.entry(n, "api").unwrap().vip.as_ref().unwrap().epoch).to_vec();
    assert_eq!(epochs, [2, 2, 2]);
    // Lost: at once.
    cluster.obey_all().settle().lose("n2").step();
    assert_eq!(holders(&cluster), ["n3"], "n1 has failed");
}

#[test]
fn what_runs_stays_where_it_is_when_the_store_lost_the_assignments() {
    let mut cluster = Cluster::of(6, [mk_app("a", Mode::Replicas), replicas(3), with_vip(mk_app("s", Mode::Spread), "10.0.0.7/24")]);
    cluster.settle().assert_ready();
    let before = cluster.roles("w");
    assert_eq!(before, "n4:Member n5:Member n6:Member");
    cluster.assignments.clear();
    cluster.step();
    assert_eq!(cluster.roles("w"), before);
    cluster.settle().assert_ready();
}

#[test]
fn a_node_told_to_stop_is_chosen_again_only_when_it_has() {
    let mut cluster = Cluster::of(2, [replicas(2)]);
    cluster.settle();
    cluster.app("w").spec.replicas = Some(1);
    cluster.step();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Absent");
    cluster.app("w").spec.replicas = Some(2);
    cluster.step();
    assert_eq!(cluster.roles("w"), "n1:Member n2:Absent");
    let placed = cluster.status("w").condition("Placed").unwrap().message.clone();
    assert!(placed.contains("still letting go of what ran there: 1"), "{placed}");
    cluster.obey_all().settle().assert_ready();
}
