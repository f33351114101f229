//! Instances that run and cannot serve.

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::assignment::Role;
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::Instance;

use crate::cluster::{Cluster, LATER, SOON, ensure, explain, wrong};

/// While this file is on a node, the instance there answers 503.
const SICK: &str = "/run/sick";
const UNIT: &str = "clusterctl-checked.service";

const APP: &str = "\
apiVersion: cluster/v1
kind: App
metadata: { name: checked }
spec:
  exec: { command: [/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:8110\", --sick-file, /run/sick] }
  vip: { address: 10.0.0.110/24, interface: eth0 }
  health:
    http: { port: 8110, path: /healthz, host: \"${node.address}\", status: 200 }
    interval: 200ms
    timeout: 2s
    failureThreshold: 2
    startGrace: 2s
    restarts: { attempts: 1, window: 10m }
  placement: { nodes: [n3, n4] }
";

fn instance(c: &Cluster, node: NodeId) -> Result<Instance> {
    let status = c.status("checked")?;
    let found = status.instances.iter().find(|i| i.node == node.to_string()).cloned();
    found.ok_or_else(|| wrong(explain(&status)))
}

/// The unit's process on `node`; 0 where it does not run.
fn process(c: &Cluster, node: NodeId) -> Result<u32> {
    let shown = c.lab.exec(node, ["systemctl", "show", "--property=MainPID", "--value", UNIT])?.ok()?;
    shown.trim().parse().map_err(|error| wrong(format!("MainPID of {UNIT}: {error}: {shown}")))
}

/// A check that fails on the active node: restarted there once, as the budget says, then the other takes over and the first stands back. When
/// the other is no better, they go on trying, and the App is Ready again as soon as one of them serves.
pub fn an_unhealthy_active_is_restarted_and_then_fails_over(c: &Cluster) -> Result<()> {
    c.apply(APP)?;
    c.wait_ready(&["checked"], SOON)?;
    let (first, epoch) = c.active("checked")?;
    let other = NodeId::from(if first.number() == 3 { 4 } else { 3 });
    let began = process(c, first)?;
    assert!(began > 0 && instance(c, first)?.healthy);

    c.lab.write(first, SICK, "", 0o644)?;
    wait_until("a restart where it is", SOON, || {
        let lines = c.journal(first, "cluster-agent")?;
        let restarted = lines.iter().any(|line| line.contains("restarting the unit where it is: unhealthy: GET"));
        ensure(restarted, || format!("the agent's last line is {:?}", lines.last()))
    })?;
    wait_until("a fail-over", SOON, || {
        let (now, newer) = c.active("checked")?;
        ensure(now == other && newer > epoch, || format!("active on {now} with epoch {newer}"))
    })?;
    c.wait_ready(&["checked"], SOON)?;
    let restarts = c.journal(first, "cluster-agent")?.iter().filter(|line| line.contains("restarting the unit where it is")).count();
    assert_eq!(restarts, 1, "the budget is one");
    let left = instance(c, first)?;
    assert_eq!((left.role, left.state, left.healthy), (Role::Standby, InstanceState::Failed, false), "{left:?}");
    assert_eq!((process(c, first)?, instance(c, other)?.healthy), (0, true));

    // Nobody is fit: it is tried here and there, and never on both.
    c.lab.write(other, SICK, "", 0o644)?;
    let why = c.wait_condition("checked", "Ready", |ready| ready.message.contains("answered 503"))?;
    assert!(why.message.contains("unhealthy"), "{}", why.message);
    wait_until("both to have been tried in vain", LATER, || {
        let epoch_now = c.active("checked").map_or(0, |(_, epoch)| epoch);
        ensure(epoch_now > epoch + 1, || format!("epoch {epoch_now}"))
    })?;
    for node in [first, other] {
        c.lab.exec(node, ["rm", SICK])?.ok()?;
    }
    c.wait_ready(&["checked"], LATER)
}
