//! Where things are at home: failback to a preferred node, and nodes that only vote.

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::takeover::Cause;

use crate::cluster::{Cluster, SOON, demo_app, ensure};
use crate::operators::takeovers;

/// Of two Singletons that prefer the same node and had to leave it, the one that says so goes back by a hand-over once the node stands by;
/// the other stays where it is.
pub fn failback_is_off_unless_an_app_asks_for_it(c: &Cluster) -> Result<()> {
    let (home, away) = (NodeId::from(2), NodeId::from(3));
    let placement = "placement: { nodes: [n2, n3], prefer: [{ weight: 10, labels: { zone: z2 } }] }";
    c.apply(&demo_app("returns", "Singleton", 8100, &format!("failover: {{ failback: Preferred }}, {placement}")))?;
    c.apply(&demo_app("remains", "Singleton", 8101, placement))?;
    c.wait_ready(&["remains", "returns"], SOON)?;
    assert_eq!((c.active("returns")?.0, c.active("remains")?.0), (home, home));

    c.ctl(&["node", "drain", "n2", "--timeout", "40s"])?.ok()?;
    let both_at = |node: NodeId| {
        let (returns, remains) = (c.active("returns")?.0, c.active("remains")?.0);
        ensure(returns == node && remains == node, || format!("{returns} and {remains}"))
    };
    wait_until("both to be active on the other node", SOON, || both_at(away))?;
    let epoch = c.active("returns")?.1;

    c.ctl(&["node", "uncordon", "n2"])?.ok()?;
    wait_until("the one to be back", SOON, || {
        let (node, next) = c.active("returns")?;
        ensure(node == home && next > epoch, || format!("{node} is active with epoch {next} after {epoch}"))
    })?;
    c.wait_ready(&["remains", "returns"], SOON)?;
    assert_eq!(c.active("remains")?.0, away, "failback is off unless asked for");
    let known = takeovers(c, "returns")?.takeovers;
    assert_eq!(known.first().map(|last| last.cause), Some(Cause::HandOver), "{known:?}");
    Ok(())
}

/// A node that becomes a witness is emptied and gets nothing, and is a node like any other once it is none any more.
pub fn a_witness_is_given_nothing(c: &Cluster) -> Result<()> {
    let witness = NodeId::from(5);
    let members = |expected: usize| {
        wait_until("the pool to follow", SOON, || {
            let nodes = c.runs()?.nodes_of("all");
            ensure(nodes.len() == expected && nodes.contains(&witness) == (expected == 5), || format!("{nodes:?}"))
        })?;
        c.wait_ready(&["all"], SOON)
    };
    c.apply(&demo_app("all", "Spread", 8100, ""))?;
    members(5)?;
    c.lab.exec(witness, ["sed", "-i", "$ a witness: true", "/etc/clusterctl/agent.yaml"])?.ok()?;
    c.systemctl(witness, &["restart", "cluster-agent"])?;
    members(4)?;
    let table = c.ctl(&["get", "nodes"])?.ok()?;
    assert!(table.lines().any(|line| line.starts_with("n5 ") && line.contains("Witness")), "{table}");
    c.apply(&demo_app("new", "Singleton", 8101, "placement: { nodes: [n5] }"))?;
    let refused = c.wait_condition("new", "Ready", |ready| ready.message.contains("witness"))?;
    assert_eq!(refused.status.as_str(), "False");
    c.lab.exec(witness, ["sed", "-i", "/^witness:/d", "/etc/clusterctl/agent.yaml"])?.ok()?;
    c.systemctl(witness, &["restart", "cluster-agent"])?;
    members(5)?;
    c.wait_ready(&["new"], SOON)
}
