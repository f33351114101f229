//! Conflicts over VIPs and units, deletion, and who is waited for.

use cluster_schemas::Mode;
use cluster_schemas::app::UnitSpec;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::{AppObserved, UnitObserved};
use cluster_schemas::status::ConditionStatus;

use crate::builders::{mk_app, with_vip};
use crate::cluster::Cluster;

fn created(mut app: cluster_schemas::App, day: u8) -> cluster_schemas::App {
    app.metadata.creation_timestamp = Some(format!("2026-11-{day:02}T00:00:00Z"));
    app
}

#[test]
fn the_older_app_has_the_vip_and_the_other_follows_when_it_is_gone() {
    let old = created(with_vip(mk_app("old", Mode::Singleton), "10.0.0.9/24"), 1);
    let new = created(with_vip(mk_app("new", Mode::Spread), "10.0.0.9/24"), 2);
    let mut cluster = Cluster::of(3, [old, new]);
    cluster.settle();
    assert!(cluster.status("old").is_ready());
    assert_eq!(cluster.roles("new"), "");
    let conflict = cluster.status("new").condition("Conflict").unwrap().clone();
    assert_eq!(conflict.status, ConditionStatus::True);
    assert_eq!(conflict.message, "VIP 10.0.0.9 belongs to App old, which is older: give one of them another address");
    cluster.delete("old").step();
    assert_eq!(cluster.roles("old"), "n1:Absent* n2:Absent n3:Absent");
    assert_eq!(cluster.roles("new"), "", "still terminating, still in the way");
    cluster.obey_all().step();
    assert_eq!(cluster.plan.gone, ["old"]);
    cluster.apps.remove("old");
    cluster.settle().assert_ready();
    let epoch = cluster.entry("n1", "new").unwrap().vip.as_ref().unwrap().epoch;
    assert!(epoch > 1, "the address had epoch 1 already");
}

#[test]
fn a_loser_that_runs_is_withdrawn_and_its_vip_is_waited_for() {
    let mut cluster = Cluster::of(
        3,
        [
            created(with_vip(mk_app("old", Mode::Singleton), "10.0.0.8/24"), 1),
            created(with_vip(mk_app("new", Mode::Singleton), "10.0.0.9/24"), 2),
        ],
    );
    cluster.settle().assert_ready();
    assert_eq!((cluster.nodes_of("new", Role::Active), cluster.nodes_of("old", Role::Active)), (vec!["n1"], vec!["n2"]));
    // The older App is changed to claim what the newer one holds.
    cluster.app("old").spec.vip.as_mut().unwrap().address = "10.0.0.9/24".to_owned();
    cluster.step();
    assert_eq!(cluster.roles("new"), "n1:Absent* n2:Absent n3:Absent");
    cluster.obey("n2").obey("n3").step();
    assert!(cluster.nodes_of("old", Role::Active).is_empty(), "n1 has not let go of 10.0.0.9");
    cluster.obey("n1").step();
    assert_eq!(cluster.nodes_of("old", Role::Active).len(), 1);
    cluster.obey_all().settle();
    assert!(cluster.status("old").is_ready());
}

#[test]
fn one_unit_serves_one_app_and_a_node_that_still_stops_it_is_not_used() {
    let unit = |mut app: cluster_schemas::App| {
        app.spec.exec = None;
        app.spec.unit = Some(UnitSpec { name: "nginx".to_owned(), content: None });
        app
    };
    let mut cluster = Cluster::of(2, [created(unit(mk_app("b", Mode::Spread)), 1), created(unit(mk_app("a", Mode::Spread)), 2)]);
    cluster.settle();
    assert_eq!(cluster.roles("a"), "");
    let message = cluster.status("a").condition("Conflict").unwrap().message.clone();
    assert_eq!(message, "unit nginx.service belongs to App b, which is older: one unit can serve one App only");
    // The winner takes another unit; nginx.service is free by the specs, but still runs on n2 until that node acts.
    cluster.app("b").spec.unit.as_mut().unwrap().name = "haproxy".to_owned();
    let running = |name: &str| Some(UnitObserved { name: name.to_owned(), ..UnitObserved::default() });
    cluster.observed("n1", "b").unit = running("haproxy.service");
    cluster.observed("n2", "b").unit = running("nginx.service");
    cluster.step();
    assert_eq!(cluster.roles("a"), "n1:Member");
    cluster.observed("n2", "b").unit = running("haproxy.service");
    cluster.step();
    assert_eq!(cluster.roles("a"), "n1:Member n2:Member");
}

#[test]
fn deletion_waits_for_a_lost_node_and_names_it() {
    let mut cluster = Cluster::of(3, [mk_app("db", Mode::Singleton), mk_app("api", Mode::Spread)]);
    cluster.settle();
    cluster.lose("n3").settle();
    cluster.delete("api").delete("db").step().obey_all().settle();
    assert_eq!(cluster.roles("api"), "n3:Absent");
    assert_eq!(cluster.plan.terminating["api"], ["n3"]);
    let status = cluster.status("api");
    let terminating = status.condition("Terminating").unwrap();
    assert_eq!(terminating.message, "waits until nothing is left on n3; not heard: n3 (bring it back, or remove the node)");
    assert!(!status.is_ready());
    // Removed by an operator: nobody waits for it.
    let mut removed = cluster.clone();
    removed.nodes.remove("n3");
    removed.step();
    assert_eq!(removed.plan.gone, ["api", "db"]);
    assert!(!removed.assignments.contains_key("n3"));
    // Or it returns.
    cluster.heal("n3").report("n3").step().obey_all().step();
    assert_eq!(cluster.plan.gone, ["api", "db"]);
}

#[test]
fn an_app_made_anew_waits_for_what_is_left_of_the_old_one() {
    let mut cluster = Cluster::of(2, [mk_app("db", Mode::Singleton)]);
    cluster.settle().assert_ready();
    cluster.app("db").metadata.uid = "uid-second".to_owned();
    cluster.step();
    assert_eq!(cluster.roles("db"), "n1:Absent* n2:Absent");
    cluster.obey_all().settle().assert_ready();
    assert_eq!(cluster.roles("db"), "n1:Active(2) n2:Standby");
}

#[test]
fn a_mode_changes_through_absent() {
    let mut cluster = Cluster::of(3, [mk_app("x", Mode::Singleton)]);
    cluster.settle().assert_ready();
    cluster.app("x").spec.mode = Mode::Ring;
    cluster.step();
    assert_eq!(cluster.roles("x"), "n1:Absent* n2:Absent n3:Absent");
    cluster.obey("n2").obey("n3").step();
    assert_eq!(cluster.roles("x"), "n1:Absent* n2:Member n3:Member");
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn leftovers_of_unknown_apps_are_taken_off() {
    let mut cluster = Cluster::of(2, []);
    cluster.settle();
    let seen = cluster.observed("n1", "ghost");
    *seen = AppObserved { uid: "uid-ghost".to_owned(), holds: true, epoch: 4, ..AppObserved::default() };
    seen.unit = Some(UnitObserved { name: "ghost.service".to_owned(), ..UnitObserved::default() });
    cluster.step();
    let entry = cluster.entry("n1", "ghost").unwrap();
    assert_eq!((entry.role, entry.releasing), (Role::Absent, Some(4)));
    assert_eq!(entry.run.unit.as_ref().unwrap().name, "ghost.service");
    cluster.obey_all().settle();
    assert_eq!(cluster.roles("ghost"), "");
}

#[test]
fn orders_change_with_content_only() {
    let mut cluster = Cluster::of(2, [mk_app("api", Mode::Spread)]);
    cluster.settle();
    let before = cluster.assignments.clone();
    cluster.term = 9;
    cluster.step();
    assert_eq!(cluster.assignments, before, "a new leader with nothing to change writes nothing");
    cluster.app("api").metadata.generation = 2;
    cluster.step();
    let (old, new) = (&before["n1"].order, &cluster.assignments["n1"].order);
    assert_eq!((new.term, new.generation), (9, old.generation + 1));
}

#[test]
fn an_empty_cluster_and_a_node_without_apps_are_planned_too() {
    let mut cluster = Cluster::of(0, [mk_app("db", Mode::Singleton)]);
    cluster.step();
    assert_eq!(cluster.status("db").condition("Placed").unwrap().message, "no node is registered");
    let mut cluster = Cluster::of(2, []);
    cluster.step();
    assert_eq!(cluster.assignments["n1"].members.as_slice(), ["n1", "n2"]);
    assert!(cluster.assignments["n1"].apps.is_empty());
}
