//! NATS servers that restart, stay away, or stand still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_e2e::{NodeId, Result, wait_until};

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};
use crate::observe::{Run, Runs};
use crate::patterns::{PLATFORM, wait_all_well};

/// What must never be restarted: the pools' runs. Workers keep away from the database, so one of them moves when the database does.
fn pools(runs: &Runs) -> BTreeMap<(NodeId, String), Run> {
    let stays = |unit: &str| unit.contains("api");
    runs.0.iter().filter(|((_, unit), _)| stays(unit)).map(|(key, run)| (key.clone(), *run)).collect()
}

fn back_to_normal(c: &Cluster) -> Result<()> {
    c.lab.wait_nats(LATER)?;
    c.wait_nodes(LATER)?;
    wait_all_well(c, &PLATFORM, "cache", 8081, &c.lab.nodes().collect::<Vec<_>>())
}

/// Servers restarted one after the other, then all at the same time: one costs no lease, none stops a pool's process, and all Apps are
/// Ready afterwards.
pub fn nats_restarted_one_by_one_and_all_at_once_stops_no_pool(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;
    let (runs, active) = (c.runs()?, c.active("database")?);
    for server in c.lab.servers() {
        let began = Instant::now();
        c.systemctl(server, &["restart", "nats-server"])?;
        back_to_normal(c)?;
        let now = c.runs()?;
        assert_eq!(pools(&now), pools(&runs), "after {server} was restarted");
        // Rule N1: one server away costs no lease, so the ring's processes stay as well (rule R4).
        assert_eq!((c.active("database")?, now.of("cache")), (active, runs.of("cache")), "after {server} was restarted");
        eprintln!("  {server} restarted: all is well after {:.1} s, nothing moved", began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    for server in c.lab.servers() {
        c.systemctl(server, &["restart", "--no-block", "nats-server"])?;
    }
    back_to_normal(c)?;
    assert_eq!(pools(&c.runs()?), pools(&runs), "after all were restarted");
    let now = c.active("database")?;
    eprintln!("  all restarted: all is well after {:.1} s, database was {active:?}, is {now:?}", began.elapsed().as_secs_f64());
    Ok(())
}

/// No server for ten seconds, an agent restarted meanwhile: pools keep running, exclusive things are given up, and come back.
pub fn nats_away_for_ten_seconds_stops_no_pool(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;
    let runs = c.runs()?;
    let (active, epoch) = c.active("database")?;
    let away = Instant::now();
    for server in c.lab.servers() {
        c.systemctl(server, &["stop", "nats-server"])?;
    }
    // A node with pools only; its agent has nothing but its journal.
    let restarted = (1..=5).map(NodeId::from).find(|node| *node != active).unwrap();
    c.systemctl(restarted, &["restart", "cluster-agent"])?;
    c.wait_logged(restarted, "cluster-agent", "going on from the journal", SOON)?;
    wait_until("the database to be given up", SOON, || {
        let running = c.runs()?.nodes_of("database");
        ensure(running.is_empty() && c.holders(crate::patterns::DATABASE_VIP)?.is_empty(), || format!("it runs on {running:?}"))
    })?;
    eprintln!("  given up {:.1} s after the last server began to stop", away.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(10).saturating_sub(away.elapsed()));
    let now = c.runs()?;
    assert_eq!((pools(&now), now.of("workers")), (pools(&runs), runs.of("workers")), "with NATS away");

    let back = Instant::now();
    for server in c.lab.servers() {
        c.systemctl(server, &["start", "nats-server"])?;
    }
    wait_until("a fresh tenure, for one that was given up is dead", LATER, || {
        let now = c.active("database")?;
        ensure(now.1 > epoch, || format!("{now:?}"))
    })?;
    back_to_normal(c)?;
    assert_eq!(pools(&c.runs()?), pools(&runs), "with NATS back");
    eprintln!("  all is well {:.1} s after the servers were back", back.elapsed().as_secs_f64());
    Ok(())
}

/// A server that does not lead stands still, then dies: whose watch or connection was there follows new assignments all the same.
pub fn a_dead_watch_is_noticed(c: &Cluster) -> Result<()> {
    let app = |round: u16| demo_app("web", "Spread", 8100 + round, "");
    c.apply(&app(0))?;
    c.wait_ready(&["web"], SOON)?;
    c.lab.lead_everything(1)?;
    let mut round = 0;
    for server in [2_u8, 3] {
        for (what, signal) in [("stands still", "STOP"), ("is dead", "KILL")] {
            round += 1;
            let kill = |signal: &str| c.systemctl(server, &["kill", &format!("--signal={signal}"), "--kill-whom=main", "nats-server"]);
            kill(signal)?;
            let began = Instant::now();
            c.apply(&app(round))?;
            let followed = wait_until("all nodes to follow", LATER, || {
                for node in c.lab.nodes() {
                    c.demo(node.addr(), 8100 + round)?;
                }
                Ok::<_, cluster_e2e::LabError>(began.elapsed())
            });
            // One that was killed is not there for a moment.
            if signal == "STOP" {
                kill("CONT")?;
            }
            eprintln!("  n{server} {what}: all nodes followed after {:.1} s", followed?.as_secs_f64());
            c.lab.wait_nats(LATER)?;
            c.wait_ready(&["web"], LATER)?;
        }
    }
    Ok(())
}
