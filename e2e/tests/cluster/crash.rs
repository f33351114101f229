//! The power of the busiest node goes off, and comes back.

use std::time::{Duration, Instant};

use cluster_e2e::{Result, wait_until};

use crate::cluster::{Cluster, LATER, SOON, ensure};
use crate::patterns::{DATABASE_VIP, PLATFORM, all_but, healthy_members, wait_all_well};

/// The node that is active, leads NATS and leads the controllers loses its power: the VIP answers from another, the ring is complete with
/// living owners, three workers run. It boots and rejoins; nothing moves a second time.
pub fn a_crashed_node_is_replaced_and_rejoins_without_a_second_fail_over(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;
    let (node, epoch) = c.active("database")?;
    ensure(c.lab.servers().contains(&node), || format!("the database is on {node}, which runs no NATS server"))?;
    c.lab.lead_everything(node)?;
    // A controller that has just started does not know yet who leads.
    wait_until("all to know who leads", SOON, || {
        let leaders = (c.lab.nats_leader()?, c.leader()?.0);
        ensure(leaders == (Some(node), node.to_string()), || format!("{leaders:?}"))
    })?;
    let survivors = all_but(node);
    let before = c.runs()?;

    let from = Instant::now();
    c.lab.crash(node)?;
    let answered = wait_until("the VIP to answer from another node", LATER, || {
        let answer = c.demo(DATABASE_VIP, 8080)?;
        ensure(answer["node"] != node.to_string() && answer["epoch"].as_u64() > Some(epoch), || answer.to_string())?;
        Ok::<_, cluster_e2e::LabError>(from.elapsed())
    })?;
    wait_until("three workers", LATER, || {
        let (workers, active) = (healthy_members(c, "workers")?, c.active("database")?.0);
        let fine = workers.len() == 3 && !workers.contains(&node) && !workers.contains(&active);
        ensure(fine, || format!("workers on {workers:?}, the database on {active}"))
    })?;
    wait_all_well(c, &PLATFORM, "cache", 8081, &survivors)?;
    let whole = from.elapsed();
    let next = c.active("database")?;
    assert_eq!(c.holders(DATABASE_VIP)?, [next.0]);
    // What was nowhere near is as it was.
    let now = c.runs()?;
    for ((n, unit), run) in before.0.iter().filter(|((n, unit), _)| *n != node && unit.contains("api")) {
        assert_eq!(now.0.get(&(*n, unit.clone())), Some(run), "{unit} of {n}");
    }
    let instances = c.status("api")?.instances;
    assert_eq!(instances.iter().filter(|i| i.healthy).count(), 4);

    let booted = Instant::now();
    c.lab.boot(node)?;
    c.wait_nodes(LATER)?;
    c.lab.wait_nats(LATER)?;
    wait_until("the node to take part again", LATER, || {
        let (api, cache) = (healthy_members(c, "api")?, healthy_members(c, "cache")?);
        ensure(api.len() == 5 && cache.len() == 5, || format!("api on {api:?}, cache on {cache:?}"))
    })?;
    wait_all_well(c, &PLATFORM, "cache", 8081, &c.lab.nodes().collect::<Vec<_>>())?;
    let back = booted.elapsed();
    // No second fail-over, for five seconds.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(c.active("database")?, next, "a second fail-over");
    assert_eq!(c.holders(DATABASE_VIP)?, [next.0]);
    eprintln!("  {node} crashed: the VIP answered after {answered:.1?}, all was well after {whole:.1?}, with it {back:.1?} after the boot");
    Ok(())
}
