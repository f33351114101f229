//! Nodes that are cut off or stand still: exclusive things are in one place at most, pools keep running.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_e2e::{Link, NodeId, Result, wait_until};
use serde_json::Value;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};
use crate::http;
use crate::observe::Watch;
use crate::patterns::{all_but, wait_all_well};

/// VIP of the Singleton.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 150);
/// How long the fault lasts at least.
const LASTS: Duration = Duration::from_secs(15);
/// A lease ends two seconds after its last renewal; the rest is for a loaded machine.
const GIVES_UP: Duration = Duration::from_secs(10);

/// A Singleton with a VIP on one of two nodes, a ring, two pools.
fn apps(first: u8, second: u8) -> String {
    let nodes = if first == second { format!("n{first}") } else { format!("n{first}, n{second}") };
    let placement = format!("placement: {{ nodes: [{nodes}] }}, vip: {{ address: {VIP}/24, interface: eth0 }}");
    [
        demo_app("main", "Singleton", 8100, &placement),
        demo_app("part", "Ring", 8101, "ring: { partitions: 64 }"),
        demo_app("all", "Spread", 8102, ""),
        demo_app("some", "Replicas", 8103, "replicas: 4"),
    ]
    .concat()
}

const NAMES: [&str; 4] = ["main", "part", "all", "some"];

/// What the demo program on a node says to that node itself.
fn demo_inside(c: &Cluster, node: NodeId, port: u16) -> Result<Value> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let reply = c.lab.as_node(node, || http::request(addr, "GET", "/", &[], "", Duration::from_secs(1)))?;
    reply.map(|reply| reply.json()).map_err(|error| crate::cluster::wrong(format!("{addr} inside {node}: {error}")))
}

/// Link down: the node sees its carrier lost.
pub fn a_cut_node_gives_up_exclusive_things_and_keeps_its_pools(c: &Cluster) -> Result<()> {
    cut_off(c, 4, 5, Link::Cut)
}

/// Nothing arrives and nothing gets out, but the node sees a carrier; and it leads NATS and the controllers.
pub fn a_silent_node_with_the_leaders_gives_up_too(c: &Cluster) -> Result<()> {
    c.lab.lead_everything(1)?;
    cut_off(c, 1, 2, Link::Dropped)
}

fn cut_off(c: &Cluster, node: u8, other: u8, link: Link) -> Result<()> {
    let node = NodeId::from(node);
    // First one alone may have it, so that it is there.
    c.apply(&apps(node.number(), node.number()))?;
    c.wait_ready(&NAMES, SOON)?;
    c.apply(&apps(node.number(), other))?;
    c.wait_ready(&NAMES, SOON)?;
    let (active, epoch) = c.active("main")?;
    assert_eq!(active, node);
    let before = c.runs()?;
    let watch = Watch::start(&c.lab, "clusterctl-main.service", VIP);

    let from = Instant::now();
    match link {
        Link::Cut => c.lab.cut(node)?,
        _ => c.lab.drop_link(node)?,
    }
    wait_until(&format!("{node} to give up"), GIVES_UP, || {
        let runs = c.runs_on(node)?.contains_key("clusterctl-main.service");
        let has = c.vips_on(node)?.contains(&VIP);
        let role = c.app_file(node, "main", "role.json")?;
        let owns = demo_inside(c, node, 8101)?["partitions"].clone();
        ensure(!runs && !has && role["role"] == "Standby" && owns == "", || format!("runs {runs}, VIP {has}, {role}, owns {owns}"))
    })?;
    let gave_up = from.elapsed();
    // The others: Ready means the Singleton elsewhere, the ring complete among the rest, four healthy replicas.
    let next = wait_until("another to be active", LATER, || {
        let (now, newer) = c.active("main")?;
        ensure(now != node && newer > epoch, || format!("{now} with epoch {newer}"))?;
        Ok::<_, cluster_e2e::LabError>((now, newer))
    })?;
    wait_all_well(c, &NAMES, "part", 8101, &all_but(node))?;
    // Until the new holder has reported, the status names the epoch that was planned; what it holds may be another.
    let heard = c.active("main")?;
    assert_eq!(heard.0, next.0, "a second fail-over");
    let next = heard;
    let whole = from.elapsed();
    std::thread::sleep(LASTS.saturating_sub(from.elapsed()));
    let there: Vec<_> = c.runs_on(node)?.into_iter().collect();
    let kept = |unit: &str| before.0.get(&(node, unit.to_owned()));
    // Rule R4: with its partitions the ring's process ended, and began again without any.
    for (unit, run) in there.iter().filter(|(unit, _)| unit != "clusterctl-part.service") {
        assert_eq!(kept(unit), Some(run), "{unit} was restarted on the node that is cut off");
    }
    let pools = before.0.keys().filter(|(n, unit)| *n == node && !unit.contains("main")).count();
    assert_eq!(there.len(), pools, "{there:?}");

    let healed = Instant::now();
    c.lab.heal(node)?;
    c.wait_nodes(LATER)?;
    wait_until("all to be as planned", LATER, || {
        let some = c.runs()?.nodes_of("some");
        ensure(some.len() == 4, || format!("some runs on {some:?}"))
    })?;
    wait_all_well(c, &NAMES, "part", 8101, &c.lab.nodes().collect::<Vec<_>>())?;
    let back = healed.elapsed();
    // No second fail-over: five seconds are more than a heartbeat and a reconcile.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(c.active("main")?, next, "a second fail-over");
    let after = c.runs()?;
    let unit = "clusterctl-all.service";
    assert_eq!(after.0.get(&(node, unit.to_owned())), kept(unit), "{unit} was restarted");
    assert_eq!(after.nodes_of("some").len(), 4);
    let seen = watch.stop();
    eprintln!("  {node} gave up after {gave_up:.1?}, all was well among the others after {whole:.1?}, with it {back:.1?} after the heal");
    eprintln!("  {} samples: {}", seen.samples, seen.story(from));
    assert!(seen.overlaps.is_empty(), "two at once: {} samples, first {:?}", seen.overlaps.len(), seen.overlaps.first());
    assert!(seen.gone_from(node, from) < seen.taken_over_from(node, from), "it was taken over before it was given up");
    Ok(())
}

/// A machine that stands still for ten seconds and goes on: for a moment it does not know; then one is active, and pools never stopped.
pub fn a_paused_node_converges_after_it_goes_on(c: &Cluster) -> Result<()> {
    let node = NodeId::from(4);
    c.apply(&apps(4, 4))?;
    c.wait_ready(&NAMES, SOON)?;
    c.apply(&apps(4, 5))?;
    c.wait_ready(&NAMES, SOON)?;
    let (active, epoch) = c.active("main")?;
    assert_eq!(active, node);
    let before = c.runs()?;
    let watch = Watch::start(&c.lab, "clusterctl-main.service", VIP);
    let from = Instant::now();
    c.lab.pause(node)?;
    let next = wait_until("another to be active", LATER, || {
        let (now, newer) = c.active("main")?;
        ensure(now != node && newer > epoch, || format!("{now} with epoch {newer}"))?;
        Ok::<_, cluster_e2e::LabError>((now, newer))
    })?;
    c.wait_ready(&NAMES, LATER)?;
    std::thread::sleep(Duration::from_secs(10).saturating_sub(from.elapsed()));
    // By now it has reported: before, the status names the epoch that was planned.
    let heard = c.active("main")?;
    assert_eq!(heard.0, next.0, "a second fail-over");
    let next = heard;

    let resumed = Instant::now();
    c.lab.resume(node)?;
    c.wait_nodes(LATER)?;
    wait_until("one to have it", LATER, || {
        let (runs, has) = (c.runs()?.nodes_of("main"), c.holders(VIP)?);
        ensure(runs == [next.0] && has == [next.0], || format!("unit on {runs:?}, VIP on {has:?}"))
    })?;
    wait_until("the surplus to be gone", LATER, || {
        let some = c.runs()?.nodes_of("some");
        ensure(some.len() == 4, || format!("some runs on {some:?}"))
    })?;
    wait_all_well(c, &NAMES, "part", 8101, &c.lab.nodes().collect::<Vec<_>>())?;
    assert_eq!(c.active("main")?, next, "a second fail-over");
    let after = c.runs()?;
    let key = (node, "clusterctl-all.service".to_owned());
    assert_eq!(after.0.get(&key), before.0.get(&key), "a pool was restarted");
    let seen = watch.stop();
    eprintln!("  seen: {}", seen.story(from));
    let overlap = seen.overlaps.iter().map(|(at, _)| *at).filter(|at| *at >= resumed).fold(None, |span, at| {
        let (first, _) = span.unwrap_or((at, at));
        Some((first, at))
    });
    // Time cannot protect against this one; the epoch does. It is told, not judged.
    match overlap {
        Some((first, last)) => eprintln!("  two at once for {:.2?}, beginning {:.2?} after it went on", last - first, first - resumed),
        None => eprintln!("  never two at once"),
    }
    Ok(())
}
