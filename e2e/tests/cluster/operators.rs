//! What operators do to a cluster that runs: nodes set apart, Singletons moved.

use std::net::Ipv4Addr;

use cluster_bus::{Bucket, Change};
use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::api::Failovers;
use cluster_schemas::node::Cordon;
use cluster_schemas::takeover::Cause;
use serde_json::Value;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure, explain, wrong};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 120);

fn singleton(standby: &str) -> String {
    demo_app("db", "Singleton", 8100, &format!("standby: {standby}, vip: {{ address: {VIP}/24, interface: eth0 }}"))
}

pub fn takeovers(c: &Cluster, app: &str) -> Result<Failovers> {
    let text = c.ctl(&["failovers", app, "-o", "json"])?.ok()?;
    let all: Value = serde_json::from_str(&text).map_err(|error| wrong(format!("{error}: {text}")))?;
    serde_json::from_value(all["items"][0].clone()).map_err(|error| wrong(format!("{error}: {text}")))
}

/// Orders to move something that are still in the store.
fn orders_left(c: &Cluster) -> Result<Vec<String>> {
    c.with_bus(async |bus| match bus.open::<Value>(Bucket::Assignments).await.watch("switchover.*").next().await {
        Some(Change::Listed(all)) => all.into_keys().collect(),
        _ => Vec::new(),
    })
}

/// A node that can take over: not the active one, nor the `spare`.
fn standby(c: &Cluster, active: NodeId, spare: NodeId) -> Result<NodeId> {
    let status = c.status("db")?;
    let all: Vec<NodeId> = status.instances.iter().filter_map(|i| i.node.parse().ok()).collect();
    all.into_iter().find(|n| *n != active && *n != spare).ok_or_else(|| wrong(explain(&status)))
}

/// A hot and a cold Singleton move to the node that an operator names, with the next epoch, and stay there; what cannot be is refused
/// with its reason. Each move is told with its times.
pub fn a_switchover_hands_over_to_the_named_node_and_stays(c: &Cluster) -> Result<()> {
    for mode in ["Hot", "Cold"] {
        c.apply(&singleton(mode))?;
        c.wait_ready(&["db"], SOON)?;
        wait_until("four standbys", SOON, || {
            let status = c.status("db")?;
            ensure(status.condition("Degraded").is_some_and(|d| d.status.as_str() == "False") && status.instances.len() == 5, || {
                explain(&status)
            })
        })?;
        let (from, epoch) = c.active("db")?;
        let cordoned = standby(c, from, from)?;
        let to = standby(c, from, cordoned)?;

        c.ctl(&["node", "cordon", &cordoned.to_string()])?.ok()?;
        let refused = c.ctl(&["switchover", "db", "--to", &cordoned.to_string()])?;
        ensure(refused.code != 0 && refused.stderr.contains("it is cordoned"), || format!("{refused:?}"))?;
        let here = c.ctl(&["switchover", "db", "--to", &from.to_string()])?;
        ensure(here.code != 0 && here.stderr.contains("already"), || format!("{here:?}"))?;
        assert_eq!(c.active("db")?, (from, epoch));

        let told = c.ctl(&["switchover", "db", "--to", &to.to_string()])?.ok()?;
        eprintln!("  {mode}: {}", told.trim_end().replace('\n', "; "));
        assert!(told.contains(&format!("{from} (epoch {epoch}) -> {to} (epoch ")), "{told}");
        wait_until("the status to tell it", SOON, || {
            let (now, next) = c.active("db")?;
            ensure(now == to && next > epoch, || format!("{now} is active with epoch {next}"))
        })?;
        assert_eq!(c.holders(VIP)?, [to]);
        assert_eq!(c.demo(VIP, 8100)?["node"], to.to_string());
        let known = takeovers(c, "db")?.takeovers;
        let last = known.first().ok_or_else(|| wrong("no take-over is told"))?;
        assert_eq!((last.node.as_str(), last.cause), (to.to_string().as_str(), Cause::HandOver), "{last:?}");
        assert_eq!(last.from.as_ref().map(|f| (f.node.as_str(), f.epoch)), Some((from.to_string().as_str(), epoch)), "{last:?}");
        assert!(last.vip_us.is_some() && last.unit_us.is_some() && last.healthy_us.is_some(), "{last:?}");
        let shown = c.ctl(&["get", "failovers", "db"])?.ok()?;
        assert!(shown.contains("hand-over") && shown.contains("healthy ") && shown.contains("|"), "{shown}");

        c.ctl(&["node", "uncordon", &cordoned.to_string()])?.ok()?;
        wait_until("the order to be gone", SOON, || {
            let left = orders_left(c)?;
            ensure(left.is_empty(), || format!("{left:?}"))
        })?;
        assert_eq!(c.active("db")?.0, to);
        c.delete(&["db"])?;
    }
    let missing = c.ctl(&["switchover", "db"])?;
    ensure(missing.code == 1 && missing.stderr.contains("app/db does not exist"), || format!("{missing:?}"))
}

/// A cordoned node keeps what it has, also over a restart of its agent, and gets nothing new; drained, it has nothing, and a Singleton
/// there is handed over.
pub fn a_cordoned_node_gets_nothing_new_and_a_drained_one_has_nothing(c: &Cluster) -> Result<()> {
    c.apply(&singleton("Cold"))?;
    c.apply(&demo_app("early", "Spread", 8101, ""))?;
    c.wait_ready(&["db", "early"], SOON)?;
    let (active, epoch) = c.active("db")?;
    let name = active.to_string();
    c.ctl(&["node", "cordon", &name])?.ok()?;
    c.systemctl(active, &["restart", "cluster-agent"])?;
    c.apply(&demo_app("late", "Spread", 8102, ""))?;
    c.wait_ready(&["late"], SOON)?;
    assert_eq!(c.runs()?.nodes_of("late").len(), 4);
    assert!(!c.runs()?.nodes_of("late").contains(&active));
    assert_eq!(c.active("db")?, (active, epoch), "a cordon moves nothing");
    assert!(c.runs()?.nodes_of("early").contains(&active));
    assert_eq!(c.nodes()?[&name].cordon, Cordon::Cordoned);
    let table = c.ctl(&["get", "nodes"])?.ok()?;
    assert!(table.contains("Ready,Cordoned"), "{table}");

    c.ctl(&["node", "drain", &name, "--timeout", "40s"])?.ok()?;
    wait_until("the others to have it all", SOON, || {
        c.wait_ready(&["db", "early", "late"], SOON)?;
        let (now, next) = c.active("db")?;
        ensure(now != active && next > epoch, || format!("{now} is active with epoch {next}"))
    })?;
    assert!(c.runs_on(active)?.is_empty(), "{:?}", c.runs_on(active)?);
    assert_eq!(c.holders(VIP)?, [c.active("db")?.0]);
    let last = takeovers(c, "db")?.takeovers.into_iter().next().ok_or_else(|| wrong("no take-over is told"))?;
    assert_eq!(last.cause, Cause::HandOver, "{last:?}");

    c.ctl(&["node", "uncordon", &name])?.ok()?;
    wait_until("the pools to be there again", SOON, || {
        let runs = c.runs()?;
        ensure(runs.nodes_of("late").len() == 5 && runs.nodes_of("early").len() == 5, || format!("{:?}", runs.nodes_of("late")))
    })?;
    assert_ne!(c.active("db")?.0, active, "nothing goes back by itself");
    Ok(())
}

fn voters(c: &Cluster) -> Result<Vec<String>> {
    Ok(c.ctl(&["get", "voters", "-o", "name"])?.ok()?.lines().map(ToOwned::to_owned).collect())
}

/// A voter is replaced by an operator's word. Then a majority of the voters dies: nobody can be active, until an operator vouches for their
/// death; the one that is left goes on with higher epochs, and others join it. The dead come back with all they remember.
pub fn a_voter_is_replaced_and_a_dead_majority_is_forced(c: &Cluster) -> Result<()> {
    wait_until("three voters", LATER, || ensure(voters(c)?.len() == 3, || format!("{:?}", voters(c))))?;
    // Of the nodes with NATS servers, two stay.
    let old = voters(c)?;
    let new = c.lab.nodes().map(|n| n.to_string()).rfind(|n| !old.contains(n)).ok_or_else(|| wrong("all nodes vote"))?;
    c.ctl(&["voters", "replace", &old[1], &new])?.ok()?;
    let now = voters(c)?;
    assert!(now.contains(&new) && !now.contains(&old[1]) && now.len() == 3, "{old:?} became {now:?}");

    c.apply(&demo_app("db", "Singleton", 8100, &format!("placement: {{ nodes: [{}] }}", now[0])))?;
    c.wait_ready(&["db"], SOON)?;
    let (active, epoch) = c.active("db")?;
    let early = c.ctl(&["voters", "force", "--dead", &now[1], "--yes"])?;
    ensure(early.code == 1 && early.stderr.contains("a majority"), || format!("{early:?}"))?;
    let dead: Vec<NodeId> = now[1..].iter().map(|n| n.parse()).collect::<Result<_>>()?;
    for node in &dead {
        c.lab.crash(*node)?;
    }
    let names = now[1..].join(",");
    wait_until("the dead to be missed", SOON, || c.ctl(&["voters", "force", "--dead", &names])?.ok())?;
    assert_eq!(voters(c)?, now, "without --yes nothing is done");
    let runs = c.runs_on(active)?;
    assert!(runs.is_empty(), "it runs without a majority: {runs:?}");
    c.ctl(&["voters", "force", "--dead", &names, "--yes"])?.ok()?;
    wait_until("a tenure with a higher epoch", SOON, || {
        c.wait_ready(&["db"], SOON)?;
        let (node, next) = c.active("db")?;
        ensure(node == active && next > epoch + (1 << 31), || format!("{node} is active with epoch {next} after {epoch}"))
    })?;
    // They come back with the votes they had, and are a majority of their set: each asks before it answers, and leaves that.
    let (_, epoch) = c.active("db")?;
    for node in &dead {
        c.lab.boot(*node)?;
    }
    c.wait_nodes(LATER)?;
    c.lab.wait_nats(LATER)?;
    wait_until("three voters again", LATER, || ensure(voters(c)?.len() == 3, || format!("{:?}", voters(c))))?;
    for node in dead {
        let log = c.lab.exec(node, ["journalctl", "--boot", "--unit=cluster-agent", "--output=cat"])?.ok()?;
        ensure(log.contains("leaves its own"), || format!("{node} heard of no later set: {log}"))?;
    }
    assert_eq!(c.active("db")?, (active, epoch), "nobody else was ever active");
    Ok(())
}
