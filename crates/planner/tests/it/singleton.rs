//! Singletons: who is active, and how it moves. Every step is checked and replanned without a difference (`Cluster::step`).

use cluster_schemas::Mode;
use cluster_schemas::assignment::{ReasonCode, Role};
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::ConditionStatus;

use crate::builders::{away_from, labelled, mk_app, mk_node, on_nodes, selecting, with_vip};
use crate::cluster::Cluster;

fn database() -> Cluster {
    let mut cluster = Cluster::of(3, [with_vip(mk_app("db", Mode::Singleton), "10.0.0.100/24")]);
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("db"), "n1:Active(1) n2:Standby n3:Standby");
    cluster
}

#[test]
fn nobody_is_active_before_a_node_hears_a_majority() {
    let mut cluster = Cluster::of(3, [mk_app("db", Mode::Singleton)]);
    for node in cluster.nodes.values_mut() {
        node.status = None;
    }
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Standby n3:Standby");
    cluster.nodes.insert("n2".to_owned(), mk_node("n2"));
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(1) n3:Standby");
}

#[test]
fn a_lost_node_is_taken_over_from_at_once_and_returns_without_a_second_fail_over() {
    let mut cluster = database();
    cluster.lose("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
    let reason = &cluster.entry("n2", "db").unwrap().reason;
    assert_eq!((reason.code, reason.message.as_str()), (ReasonCode::TakeOver, "takes over from n1, which is lost"));
    cluster.obey("n2").obey("n3").settle().assert_ready();
    // Heard again, with the status it stored when it was active: that is a claim, and n2 is not touched by it.
    cluster.heal("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Standby* n2:Active(2) n3:Standby");
    cluster.report("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
    cluster.obey_all().settle().assert_ready();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
}

#[test]
fn a_reboot_voids_what_was_held_though_the_node_was_never_lost() {
    let mut cluster = database();
    cluster.reboot("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
    assert!(cluster.entry("n2", "db").unwrap().reason.message.contains("n1, which rebooted"));
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn a_tenure_given_up_is_followed_by_a_fresh_one_on_the_same_node() {
    let mut cluster = database();
    cluster.give_up("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Active(2) n2:Standby n3:Standby");
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn a_node_without_a_majority_hands_over_once_it_has_let_go() {
    let mut cluster = database();
    cluster.nodes.get_mut("n1").unwrap().status.as_mut().unwrap().quorum = false;
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Standby* n2:Standby n3:Standby");
    let status = cluster.status("db");
    let ready = status.condition("Ready").unwrap();
    assert_eq!((ready.reason.as_str(), status.ready.as_str()), ("NoActiveInstance", "0/1"));
    assert_eq!(ready.message, "nobody is active until n1 confirmed to have let go");
    // It gave up by itself: no need to hear that it saw the assignment.
    cluster.give_up("n1").step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
}

#[test]
fn a_hand_over_is_release_confirmation_activation() {
    let mut cluster = database();
    cluster.app("db").spec.placement.nodes = vec!["n2".to_owned(), "n3".to_owned()];
    cluster.app("db").metadata.generation = 2;
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Standby");
    // Others may be ahead; what counts is n1.
    cluster.obey("n2").obey("n3").step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Standby");
    // It saw the assignment, and has not let go yet.
    let order = cluster.assignments["n1"].order.clone();
    cluster.observed("n1", "db").seen = order.generation;
    cluster.nodes.get_mut("n1").unwrap().status.as_mut().unwrap().assignment = Some(order);
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Standby");
    // The unit is gone, the VIP not yet.
    cluster.observed("n1", "db").holds = false;
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Standby");
    cluster.obey("n1").step();
    assert_eq!(cluster.roles("db"), "n2:Active(2) n3:Standby");
    let vip = cluster.entry("n2", "db").unwrap().vip.clone().unwrap();
    assert_eq!((vip.hold, vip.epoch), (true, 2));
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn a_release_is_not_confirmed_by_a_status_of_before() {
    let mut cluster = Cluster::of(3, [mk_app("db", Mode::Singleton)]);
    cluster.settle().assert_ready();
    // A worker that is behind: it says that it holds nothing, but acts on an older assignment and may yet start.
    let seen = cluster.observed("n1", "db");
    (seen.holds, seen.healthy) = (false, false);
    cluster.app("db").spec.placement.nodes = vec!["n2".to_owned()];
    cluster.step().step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Absent");
    // The agent took the assignment, its worker did not yet.
    cluster.nodes.get_mut("n1").unwrap().status.as_mut().unwrap().assignment = Some(cluster.assignments["n1"].order.clone());
    cluster.step().step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Standby n3:Absent");
    cluster.obey("n1").step();
    assert_eq!(cluster.nodes_of("db", Role::Active), ["n2"]);
}

#[test]
fn a_failed_instance_moves_to_who_has_not_failed_and_comes_to_rest_when_all_have() {
    let mut cluster = database();
    let mut been = Vec::new();
    for _ in 0..10 {
        // It fails wherever it is started.
        let Some(active) = cluster.nodes_of("db", Role::Active).first().map(|n| (*n).to_owned()) else { panic!("no active") };
        let seen = cluster.observed(&active, "db");
        (seen.state, seen.healthy, seen.message) = (InstanceState::Failed, false, "exit code 1\nlast line of the log".to_owned());
        been.push(active);
        cluster.settle();
    }
    been.dedup();
    assert_eq!(been, ["n1", "n2", "n3"], "each node is tried once");
    let status = cluster.status("db");
    assert_eq!(status.condition("Ready").unwrap().reason, "Failed");
    assert_eq!(status.condition("Degraded").unwrap().status, ConditionStatus::True);
    assert_eq!(status.instances.iter().filter(|i| i.state == InstanceState::Failed).count(), 3);
    // Mended where it stood by: it goes there.
    cluster.observed("n2", "db").state = InstanceState::Pending;
    cluster.settle().assert_ready();
    assert_eq!(cluster.nodes_of("db", Role::Active), ["n2"]);
}

#[test]
fn a_node_just_released_is_not_chosen_again_before_others() {
    let mut cluster = database();
    cluster.observed("n1", "db").state = InstanceState::Failed;
    cluster.step();
    // An agent that forgets the failure as it stops the instance.
    cluster.observed("n1", "db").state = InstanceState::Stopping;
    cluster.step().obey_all();
    cluster.observed("n1", "db").state = InstanceState::Pending;
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Standby n2:Active(2) n3:Standby");
}

#[test]
fn a_changed_vip_is_let_go_before_the_new_one_is_held() {
    let mut cluster = database();
    cluster.app("db").spec.vip.as_mut().unwrap().address = "10.0.0.200/24".to_owned();
    cluster.step();
    let vip = cluster.entry("n1", "db").unwrap().vip.clone().unwrap();
    assert_eq!((vip.address.as_str(), vip.hold, vip.releasing), ("10.0.0.100/24", false, Some(1)));
    cluster.obey_all().settle().assert_ready();
    let active = cluster.nodes_of("db", Role::Active)[0];
    assert_eq!(cluster.entry(active, "db").unwrap().vip.as_ref().unwrap().address, "10.0.0.200/24");
}

#[test]
fn what_runs_is_adopted_when_the_store_lost_the_assignments() {
    let mut cluster = database();
    cluster.lose("n1").step().obey("n2").obey("n3").settle();
    assert_eq!(cluster.nodes_of("db", Role::Active), ["n2"]);
    cluster.assignments.clear();
    cluster.floors.clear();
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent n2:Active(2) n3:Standby");
    // New orders are newer than what the agents took.
    let (new, taken) = (&cluster.assignments["n2"].order, cluster.nodes["n2"].status.as_ref().unwrap().assignment.as_ref().unwrap());
    assert!(new.generation > taken.generation);
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn epochs_rise_above_every_source() {
    let mut cluster = Cluster::of(3, [mk_app("db", Mode::Singleton)]);
    cluster.floors.insert("app/db".to_owned(), 41);
    cluster.observed("n3", "db").gave_up = 57;
    cluster.observed("n3", "db").uid = "uid-db".to_owned();
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Active(58) n2:Standby n3:Standby");
    assert_eq!(cluster.plan.epochs["app/db"], 58);
}

#[test]
fn standbys_are_capped_and_stay_who_they_are() {
    let mut cluster = Cluster::of(9, [mk_app("db", Mode::Singleton)]);
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("db"), "n1:Active(1) n2:Standby n3:Standby n4:Standby n5:Standby");
    cluster.lose("n3").step();
    assert_eq!(cluster.roles("db"), "n1:Active(1) n2:Standby n3:Absent n4:Standby n5:Standby n6:Standby");
    cluster.obey_all().settle();
    cluster.lose("n1").step();
    assert_eq!(cluster.nodes_of("db", Role::Active), ["n2"], "a standby takes over, not a node without an entry");
    cluster.obey_all().settle();
    for node in ["n1", "n3"] {
        cluster.heal(node).report(node).settle();
    }
    cluster.assert_ready();
    assert_eq!(cluster.roles("db"), "n2:Active(2) n4:Standby n5:Standby n6:Standby n7:Standby");
}

#[test]
fn actives_go_where_fewest_are() {
    let mut cluster = Cluster::of(3, ["a", "b", "c", "d"].map(|n| mk_app(n, Mode::Singleton)));
    cluster.settle().assert_ready();
    let active = ["a", "b", "c", "d"].map(|app| cluster.nodes_of(app, Role::Active)[0]);
    assert_eq!(active, ["n1", "n2", "n3", "n1"]);
    let reason = &cluster.entry("n2", "b").unwrap().reason;
    assert_eq!(reason.message, "chosen: fewest active Singletons (0) of 3 candidates");
}

#[test]
fn reasons_name_who_is_left_out_and_why() {
    let app = selecting(mk_app("db", Mode::Singleton), "zone", "z1");
    let nodes = ["n1", "n2", "n3"].map(|n| labelled(mk_node(n), "zone", "z1")).into_iter().chain([mk_node("n4"), mk_node("n5")]);
    let mut cluster = Cluster::new(nodes, [app]);
    cluster.settle().assert_ready();
    let message = &cluster.entry("n1", "db").unwrap().reason.message;
    assert_eq!(message, "chosen: fewest active Singletons (0) of 3 candidates; n4 and n5 are not eligible: label zone=z1 missing");
}

#[test]
fn no_eligible_node_says_what_would_have_to_change() {
    let nodes = [mk_node("n1"), labelled(mk_node("n2"), "zone", "z1"), mk_node("n3")];
    let app = on_nodes(selecting(selecting(mk_app("db", Mode::Singleton), "zone", "z1"), "disk", "ssd"), &["n1", "n2", "n9"]);
    let mut cluster = Cluster::new(nodes, [app]);
    cluster.settle();
    let status = cluster.status("db");
    let placed = status.condition("Placed").unwrap();
    assert_eq!((placed.status, placed.reason.as_str()), (ConditionStatus::False, "NoEligibleNode"));
    assert_eq!(
        placed.message,
        "of 3 nodes: placement.nodes leaves out 1, nodeSelector disk=ssd leaves out 3, nodeSelector zone=z1 leaves out 2; \
         placement.nodes names n9, not registered; the smallest change: label n2 with disk=ssd"
    );
    assert_eq!(status.condition("Ready").unwrap().reason, "NoEligibleNode");
}

#[test]
fn singletons_keep_apart_whoever_asked() {
    for asks in ["a", "b"] {
        let apps = ["a", "b"].map(|name| {
            let app = mk_app(name, Mode::Singleton);
            if name == asks { away_from(app, &[if name == "a" { "b" } else { "a" }]) } else { app }
        });
        let mut cluster = Cluster::of(2, apps);
        cluster.settle().assert_ready();
        assert_ne!(cluster.nodes_of("a", Role::Active), cluster.nodes_of("b", Role::Active));
        // One node is left: the one planned first has it, the other says what is in its way.
        cluster.lose("n2").settle();
        let (first, second) = if asks == "a" { ("b", "a") } else { ("a", "b") };
        assert!(cluster.status(first).is_ready());
        let placed = cluster.status(second).condition("Placed").unwrap().message.clone();
        assert!(placed.contains(&format!("keeping away from App {first} leaves out 1")), "{placed}");
    }
}

#[test]
fn a_lone_node_is_ready_and_degraded() {
    let mut cluster = Cluster::of(1, [mk_app("db", Mode::Singleton)]);
    cluster.settle().assert_ready();
    let status = cluster.status("db");
    assert_eq!(status.condition("Degraded").unwrap().reason, "NoStandby");
}
