//! `onQuorumLoss: Keep`: what goes on where no majority is reached, and what does not.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::status::ConditionStatus;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure, wrong};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 111);
/// Longer than several leases: who had to stop has stopped by then.
const LONG: Duration = Duration::from_secs(2);

fn app(name: &str, port: u16, nodes: &str, more: &str) -> String {
    demo_app(name, "Singleton", port, &format!("placement: {{ nodes: [{nodes}] }}{more}"))
}

const KEEP: &str = ", failover: { onQuorumLoss: Keep }";

/// Process and start of the App's unit on `node`.
fn process(c: &Cluster, node: NodeId, app: &str) -> Result<crate::observe::Run> {
    let unit = format!("clusterctl-{app}.service");
    c.runs_on(node)?.remove(&unit).ok_or_else(|| wrong(format!("{unit} does not run on {node}")))
}

/// The active node is cut off. With `Keep` it goes on beyond its lease, though another takes over; with `Stop`, on the same node, it stops. Healed,
/// the one with the lease stays; and where nobody else took over, the same process goes on with a higher epoch.
pub fn what_keeps_goes_on_without_a_majority_until_the_lease_decides(c: &Cluster) -> Result<()> {
    let (node, other) = (NodeId::from(4), NodeId::from(5));
    let vip = format!("{KEEP}, vip: {{ address: {VIP}/24, interface: eth0 }}");
    c.apply(&app("kept", 8111, "n4", &vip))?;
    c.apply(&app("alone", 8112, "n4", KEEP))?;
    c.apply(&app("stops", 8113, "n4", ""))?;
    c.wait_ready(&["kept", "alone", "stops"], SOON)?;
    c.apply(&app("kept", 8111, "n4, n5", &vip))?;
    c.wait_ready(&["kept"], SOON)?;
    let exclusive = c.wait_condition("kept", "Exclusive", |exclusive| exclusive.status == ConditionStatus::False)?;
    assert!(exclusive.message.contains("several nodes may be active"), "{}", exclusive.message);
    assert!(c.status("stops")?.condition("Exclusive").is_none());
    let (kept, alone) = (process(c, node, "kept")?, process(c, node, "alone")?);
    let (epoch, epoch_alone) = (c.active("kept")?.1, c.active("alone")?.1);
    assert_eq!(c.active("kept")?.0, node);

    // Not unplugged: an interface without a carrier has no address.
    c.lab.drop_link(node)?;
    let cut = Instant::now();
    wait_until("what stops to have stopped", SOON, || ensure(process(c, node, "stops").is_err(), || "it runs".to_owned()))?;
    wait_until("another to take over", SOON, || {
        let (now, newer) = c.active("kept")?;
        ensure(now == other && newer > epoch && c.vips_on(other)?.contains(&VIP), || format!("active on {now} with epoch {newer}"))
    })?;
    std::thread::sleep(LONG.saturating_sub(cut.elapsed()));
    assert_eq!((process(c, node, "kept")?, process(c, node, "alone")?), (kept, alone), "they go on");
    assert!(c.vips_on(node)?.contains(&VIP), "with the address");
    let newer = (process(c, other, "kept")?, c.active("kept")?);

    c.lab.heal(node)?;
    wait_until("the lease to decide", LATER, || {
        let runs = process(c, node, "kept").is_ok();
        let has = c.vips_on(node)?.contains(&VIP);
        ensure(!runs && !has, || format!("on {node}: runs {runs}, VIP {has}"))
    })?;
    c.wait_nodes(LATER)?;
    c.wait_ready(&["kept", "alone", "stops"], LATER)?;
    assert_eq!((process(c, other, "kept")?, c.active("kept")?), newer, "the other stays");
    assert_eq!(process(c, node, "alone")?, alone, "nobody else wanted it: the same process");
    wait_until("a newer epoch", SOON, || {
        let (now, epoch) = c.active("alone")?;
        ensure(now == node && epoch > epoch_alone, || format!("active on {now} with epoch {epoch}"))
    })
}
