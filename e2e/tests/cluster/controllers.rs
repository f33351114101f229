//! The leading controller ends: another leads, and nothing that runs notices.

use std::time::Duration;

use cluster_bus::{Bucket, KvError, LEADER_KEY, LeaderRecord};
use cluster_e2e::{LabError, NodeId, Result, wait_until};
use cluster_schemas::Assignment;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};
use crate::observe::Probe;
use crate::patterns::{DATABASE_VIP, PLATFORM};

/// Waits for a leader of a higher term.
fn wait_term_above(c: &Cluster, term: u64) -> Result<(String, u64)> {
    wait_until(&format!("a leader after term {term}"), LATER, || {
        let leader = c.leader()?;
        if leader.1 > term { Ok(leader) } else { Err(LabError::Invalid(format!("{} leads with term {}", leader.0, leader.1))) }
    })
}

/// Killed, then stopped, then all stopped: same PIDs, the VIP answers all the time, and a new App is placed by who leads next.
pub fn a_killed_leading_controller_stops_nothing(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;
    let (runs, active) = (c.runs()?, c.active("database")?);
    let probe = Probe::start(&c.lab, DATABASE_VIP, 8080);

    let (leader, term) = c.leader()?;
    let node: NodeId = leader.parse()?;
    c.systemctl(node, &["kill", "--signal=KILL", "--kill-whom=main", "cluster-controller"])?;
    // Any controller takes it; who leads next places it.
    c.apply(&demo_app("late", "Replicas", 8100, "replicas: 2"))?;
    let (leader, term) = wait_term_above(c, term)?;
    c.wait_ready(&["late"], LATER)?;

    let node: NodeId = leader.parse()?;
    c.systemctl(node, &["stop", "cluster-controller"])?;
    let (next, _) = wait_term_above(c, term)?;
    assert_ne!(next, leader);
    c.apply(&demo_app("later", "Spread", 8101, ""))?;
    c.wait_ready(&["later"], LATER)?;
    c.systemctl(node, &["start", "cluster-controller"])?;

    // With all controllers away nothing new is placed, and nothing else happens, for longer than any time-out.
    for server in c.lab.servers() {
        c.systemctl(server, &["stop", "cluster-controller"])?;
    }
    assert_eq!(c.ctl(&["get", "apps"])?.code, 3);
    std::thread::sleep(Duration::from_secs(8));
    let now = c.runs()?;
    assert!(runs.0.iter().all(|(key, run)| now.0.get(key) == Some(run)), "{runs:?}\n{now:?}");
    for server in c.lab.servers() {
        c.systemctl(server, &["start", "cluster-controller"])?;
    }
    wait_until("a controller to answer", LATER, || c.leader())?;
    c.wait_nodes(LATER)?;
    c.wait_ready(&PLATFORM, LATER)?;
    let now = c.runs()?;
    assert!(runs.0.iter().all(|(key, run)| now.0.get(key) == Some(run)), "{runs:?}\n{now:?}");
    assert_eq!(c.active("database")?, active);
    let answers = probe.stop()?;
    assert!(answers.bad.is_empty() && answers.good.len() > 100, "{} answers, none: {:?}", answers.good.len(), answers.bad);
    Ok(())
}

/// Rule C2 on three servers: what stands on the record of an earlier leadership is refused by the stream itself.
pub fn a_deposed_leaders_late_write_is_refused(c: &Cluster) -> Result<()> {
    c.apply(&demo_app("web", "Spread", 8100, ""))?;
    c.wait_ready(&["web"], SOON)?;
    let record = || c.with_bus(async |bus| bus.open::<LeaderRecord>(Bucket::Assignments).await.get(LEADER_KEY).await.unwrap().unwrap());
    let old = record()?;
    let node: NodeId = old.value.leader.parse()?;
    c.systemctl(node, &["stop", "cluster-controller"])?;
    let (leader, term) = wait_term_above(c, old.value.term)?;
    c.systemctl(node, &["start", "cluster-controller"])?;
    let new = record()?;
    assert!(new.revision > old.revision && new.value.term == term && new.value.leader == leader, "{leader} leads by {new:?}");
    assert_eq!(new.value.incarnation, old.value.incarnation, "the store is the same");
    c.wait_ready(&["web"], SOON)?;
    let runs = c.runs()?;

    // The deposed one would have the node drop everything.
    let key = "node.n5";
    let (before, late, after) = c.with_bus(async |bus| {
        let kv = bus.open::<Assignment>(Bucket::Assignments).await;
        let before = kv.get(key).await.unwrap().unwrap();
        let mut late = before.value.clone();
        late.order.generation += 1;
        late.apps.clear();
        let written = kv.put_as_leader(key, &late, old.revision).await;
        (before, written, kv.get(key).await.unwrap().unwrap())
    })?;
    assert!(matches!(late, Err(KvError::Conflict { .. })), "{late:?}");
    assert_eq!(after, before);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(c.runs()?, runs);

    // And who leads can still write.
    c.apply(&demo_app("more", "Spread", 8101, ""))?;
    c.wait_ready(&["more"], SOON)?;
    let order = c.assignments()?["n5"].order.clone();
    ensure(order.term == term, || format!("written with term {}, not {term}", order.term))
}
