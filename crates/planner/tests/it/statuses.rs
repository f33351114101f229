//! Statuses: what users are told.

use cluster_schemas::app::DatabaseSpec;
use cluster_schemas::assignment::Role;
use cluster_schemas::database::DatabaseObserved;
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::ConditionStatus;
use cluster_schemas::{AppStatus, Mode};

use crate::builders::{mk_app, with_vip};
use crate::cluster::Cluster;

fn condition(status: &AppStatus, kind: &str) -> (ConditionStatus, String, String) {
    let found = status.condition(kind).unwrap();
    assert!(found.last_transition_time.is_none(), "the planner has no clock");
    (found.status, found.reason.clone(), found.message.clone())
}

#[test]
fn a_ready_singleton() {
    let mut app = with_vip(mk_app("db", Mode::Singleton), "10.0.0.100/24");
    app.spec.database = Some(DatabaseSpec { path: "/data/app.db".to_owned(), max_lag: None, confirm: None });
    let mut cluster = Cluster::of(3, [app]);
    cluster.settle();
    let status = cluster.status("db");
    assert_eq!((status.ready.as_str(), status.observed_generation, status.uid.as_str()), ("1/1", 1, "uid-db"));
    let kinds: Vec<&str> = status.conditions.iter().map(|c| c.kind.as_str()).collect();
    assert_eq!(kinds, ["Degraded", "Placed", "Ready", "Replicated"], "sorted");
    assert_eq!(condition(&status, "Ready"), (ConditionStatus::True, "Ready".to_owned(), "active on n1".to_owned()));
    assert_eq!(condition(&status, "Degraded"), (ConditionStatus::False, "Standbys".to_owned(), "n2 and n3 stand by".to_owned()));
    let (replicated, reason, _) = condition(&status, "Replicated");
    assert_eq!((replicated, reason.as_str()), (ConditionStatus::False, "NoActiveInstance"), "and Ready does not count it");
    let active = &status.instances[0];
    assert_eq!((active.node.as_str(), active.role, active.epoch), ("n1", Role::Active, Some(1)));
    assert_eq!((active.vip.as_deref(), active.state, active.healthy), (Some("10.0.0.100/24"), InstanceState::Running, true));
    let standby = &status.instances[1];
    assert_eq!((standby.role, standby.epoch, standby.vip.as_deref(), standby.healthy), (Role::Standby, None, None, false));
}

#[test]
fn a_database_is_replicated_while_its_active_leads_and_every_live_standby_follows() {
    let mut app = mk_app("db", Mode::Singleton);
    app.spec.database = Some(DatabaseSpec { path: "/data/app.db".to_owned(), max_lag: None, confirm: None });
    let mut cluster = Cluster::of(3, [app]);
    cluster.settle();
    let well = |epoch, transaction| Some(DatabaseObserved { epoch, transaction, follows: true, ..DatabaseObserved::default() });
    for (node, transaction) in [("n1", 40), ("n2", 40), ("n3", 38)] {
        cluster.observed(node, "db").database = well(1, transaction);
    }
    let replicated = |cluster: &Cluster| condition(&cluster.status("db"), "Replicated");
    let message = "n2, n3 follow n1 in epoch 1, at about transaction 40".to_owned();
    assert_eq!(replicated(&cluster), (ConditionStatus::True, "Replicated".to_owned(), message));

    let mut behind = cluster.clone();
    let waits = DatabaseObserved { reason: "NeedsSnapshot".to_owned(), message: "it waits".to_owned(), ..DatabaseObserved::default() };
    behind.observed("n3", "db").database = Some(waits);
    let message = "1 of 2 standbys follow n1: n3: it waits".to_owned();
    assert_eq!(replicated(&behind), (ConditionStatus::False, "NeedsSnapshot".to_owned(), message));
    // Of an epoch that is over: it has not heard of the present one.
    behind.observed("n3", "db").database = well(0, 40);
    assert_eq!(replicated(&behind).1, "ReplicationBehind");

    let mut rollback = cluster.clone();
    let not = DatabaseObserved { reason: "RollbackJournal".to_owned(), message: "say WAL".to_owned(), ..DatabaseObserved::default() };
    rollback.observed("n1", "db").database = Some(not);
    assert_eq!(replicated(&rollback), (ConditionStatus::False, "RollbackJournal".to_owned(), "n1: say WAL".to_owned()));

    cluster.lose("n2").lose("n3").step();
    assert_eq!(replicated(&cluster).1, "NoStandby");
}

#[test]
fn a_singleton_is_ready_only_with_its_newest_epoch_and_its_vip() {
    let mut cluster = Cluster::of(3, [with_vip(mk_app("db", Mode::Singleton), "10.0.0.100/24")]);
    cluster.settle();
    let mut no_vip = cluster.clone();
    let seen = no_vip.observed("n1", "db");
    (seen.vip.as_mut().unwrap().present, seen.message) = (false, "interface eth0 does not exist".to_owned());
    let status = no_vip.status("db");
    let (_, reason, message) = condition(&status, "Ready");
    assert_eq!((reason.as_str(), message.as_str()), ("VipNotSeen", "the VIP is not present on n1: interface eth0 does not exist"));
    assert_eq!(status.ready, "0/1");
    let mut older = cluster.clone();
    older.observed("n1", "db").epoch = 0;
    assert_eq!(condition(&older.status("db"), "Ready").1, "NotHealthy");
    // A lost node's instance is unknown, whatever it said last.
    cluster.lose("n2").lose("n3").step();
    let status = cluster.status("db");
    assert_eq!((status.instances[2].state, status.instances[2].healthy), (InstanceState::Unknown, false));
    assert_eq!(condition(&status, "Degraded").1, "NoStandby");
    assert!(status.is_ready(), "degraded, and ready all the same");
}

#[test]
fn what_runs_by_an_earlier_spec_does_not_count() {
    let mut cluster = Cluster::of(2, [mk_app("api", Mode::Spread)]);
    cluster.settle();
    cluster.app("api").metadata.generation = 2;
    cluster.step();
    let status = cluster.status("api");
    assert_eq!((status.ready.as_str(), status.observed_generation, status.is_ready()), ("0/2", 2, false));
    assert!(status.instances.iter().all(|i| !i.healthy));
    cluster.settle();
    assert_eq!(cluster.status("api").ready, "2/2");
}

#[test]
fn failures_are_passed_on_with_their_log() {
    let mut cluster = Cluster::of(2, [mk_app("api", Mode::Spread)]);
    cluster.settle();
    let seen = cluster.observed("n2", "api");
    (seen.state, seen.healthy) = (InstanceState::Failed, false);
    seen.message = "unit clusterctl-api.service failed: exit-code\nbind: address already in use".to_owned();
    cluster.step();
    let status = cluster.status("api");
    assert_eq!(status.ready, "1/2");
    let expected = "1 of 2 are healthy: n2: unit clusterctl-api.service failed: exit-code";
    assert_eq!(condition(&status, "Ready"), (ConditionStatus::False, "Failed".to_owned(), expected.to_owned()));
    assert!(status.instances[1].message.ends_with("already in use"), "in full with the instance");
}

#[test]
fn a_ring_counts_confirmed_partitions() {
    let mut cluster = Cluster::of(2, [with_vip(mk_app("ring", Mode::Ring), "10.0.0.7/24")]);
    cluster.settle().assert_ready();
    let status = cluster.status("ring");
    assert_eq!((status.ready.as_str(), status.ring_version), ("16/16", Some(1)));
    assert_eq!(status.instances[1].partitions.as_ref().unwrap().to_string(), "8-15");
    cluster.observed("n2", "ring").ring.as_mut().unwrap().confirmed.remove(9);
    let status = cluster.status("ring");
    assert_eq!(status.ready, "15/16");
    assert_eq!(condition(&status, "Ready").2, "15 of 16 partitions are confirmed by their owners");
    cluster.obey("n2");
    cluster.observed("n1", "ring").vip.as_mut().unwrap().present = false;
    assert_eq!(condition(&cluster.status("ring"), "Ready").1, "VipNotSeen");
}

#[test]
fn an_app_that_nobody_took_up_yet_is_not_ready() {
    let apps = [Mode::Singleton, Mode::Spread, Mode::Replicas, Mode::Ring].map(|m| mk_app(&m.as_str().to_lowercase(), m));
    let mut cluster = Cluster::of(3, apps);
    cluster.step();
    let ready = |app: &str| cluster.status(app).ready;
    assert_eq!(["singleton", "spread", "replicas", "ring"].map(ready), ["0/1", "0/3", "0/3", "0/16"]);
    assert_eq!(
        condition(&cluster.status("spread"), "Ready").2,
        "0 of 3 are healthy: n1 is not started yet; n2 is not started yet; n3 is not started yet"
    );
    cluster.lose("n1").lose("n2").lose("n3").step();
    for app in ["singleton", "spread", "replicas", "ring"] {
        assert!(!cluster.status(app).is_ready(), "{app} with every node lost");
        assert_eq!(condition(&cluster.status(app), "Placed").1, "NoEligibleNode");
    }
}

/// `onQuorumLoss: Keep` gives up exclusivity and says so; what must stay exclusive cannot have it.
#[test]
fn who_goes_on_without_a_majority_is_not_exclusive() {
    use cluster_schemas::failover::{FailoverSpec, QuorumLoss};
    let keeps = |name, mode| {
        let mut app = mk_app(name, mode);
        app.spec.failover = Some(FailoverSpec { on_quorum_loss: QuorumLoss::Keep, ..FailoverSpec::default() });
        app
    };
    let mut with_database = keeps("db", Mode::Singleton);
    with_database.spec.database = Some(DatabaseSpec { path: "/data/app.db".to_owned(), max_lag: None, confirm: None });
    let mut cluster =
        Cluster::of(3, [keeps("keeps", Mode::Singleton), with_database, keeps("ring", Mode::Ring), mk_app("stops", Mode::Singleton)]);
    cluster.settle();
    let not_exclusive = |app: &str| cluster.status(app).condition("Exclusive").map(|c| (c.status, c.reason.clone()));
    assert_eq!(not_exclusive("keeps"), Some((ConditionStatus::False, "KeepsOnQuorumLoss".to_owned())));
    assert_eq!(["db", "ring", "stops"].map(not_exclusive), [None, None, None]);
}
