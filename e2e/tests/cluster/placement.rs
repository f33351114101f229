//! Where instances run and why not, and units that cannot run.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::assignment::Role;
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::ConditionStatus;

use crate::cluster::{Cluster, SOON, demo_app, ensure, explain, wrong};

fn nodes(numbers: &[u8]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId::from).collect()
}

/// Seven replicas on five nodes: five run, and conditions say so; with five asked for all is well.
pub fn more_replicas_than_nodes_run_as_far_as_they_fit(c: &Cluster) -> Result<()> {
    c.apply(&demo_app("many", "Replicas", 8100, "replicas: 7"))?;
    let placed = c.wait_condition("many", "Placed", |placed| placed.status == ConditionStatus::False)?;
    assert_eq!(placed.reason, "FewerNodesThanReplicas", "{placed:?}");
    assert!(placed.message.contains('7') && placed.message.contains('5'), "{}", placed.message);
    wait_until("five to run", SOON, || {
        let status = c.status("many")?;
        ensure(status.ready == "5/7" && !status.is_ready() && c.runs()?.of("many").len() == 5, || explain(&status))
    })?;
    c.apply(&demo_app("many", "Replicas", 8100, "replicas: 5"))?;
    c.wait_ready(&["many"], SOON)
}

/// No node fits: nothing runs, and the condition names the label or node that is missing. With the label changed it runs.
pub fn no_eligible_node_names_what_would_have_to_change(c: &Cluster) -> Result<()> {
    c.apply(&demo_app("lonely", "Singleton", 8100, "placement: { nodeSelector: { disk: tape } }"))?;
    c.apply(&demo_app("nowhere", "Spread", 8101, "placement: { nodes: [n9] }"))?;
    c.apply(&demo_app("noring", "Ring", 8102, "placement: { nodeSelector: { zone: z9 } }"))?;
    for (app, words) in [("lonely", "tape"), ("nowhere", "n9"), ("noring", "z9")] {
        let ready = c.wait_condition(app, "Ready", |ready| ready.reason == "NoEligibleNode")?;
        assert_eq!(ready.status, ConditionStatus::False);
        assert!(ready.message.contains(words), "{app}: {}", ready.message);
        assert_eq!(c.status(app)?.condition("Placed").map(|p| p.status), Some(ConditionStatus::False));
    }
    assert!(c.runs()?.0.is_empty());

    // What the message names is changed on a node: its label.
    let config = c.lab.read(4, "/etc/clusterctl/agent.yaml")?;
    c.lab.write(4, "/etc/clusterctl/agent.yaml", &config.replace("zone: z1", "zone: z1, disk: tape"), 0o644)?;
    c.systemctl(4, &["restart", "cluster-agent"])?;
    c.wait_ready(&["lonely"], SOON)?;
    assert_eq!(c.active("lonely")?.0, NodeId::from(4));
    // And back: it may not stay where it does not fit.
    c.lab.write(4, "/etc/clusterctl/agent.yaml", &config, 0o644)?;
    c.systemctl(4, &["restart", "cluster-agent"])?;
    c.wait_condition("lonely", "Ready", |ready| ready.reason == "NoEligibleNode")?;
    wait_until("nothing to run", SOON, || ensure(c.runs()?.0.is_empty(), || "something runs".to_owned()))
}

/// `nodeSelector`, `nodes` and `awayFromApps` are kept, the last one also after the other App moved.
pub fn labels_names_and_other_apps_decide_where_instances_run(c: &Cluster) -> Result<()> {
    c.apply(&demo_app("ssd", "Spread", 8100, "placement: { nodeSelector: { disk: ssd } }"))?;
    c.apply(&demo_app("named", "Spread", 8101, "placement: { nodes: [n2, n4] }"))?;
    c.apply(&demo_app("both", "Spread", 8102, "placement: { nodes: [n1, n2, n3, n4], nodeSelector: { zone: z1 } }"))?;
    c.apply(&demo_app("alone", "Singleton", 8103, "placement: { nodes: [n3] }"))?;
    c.apply(&demo_app("shy", "Spread", 8104, "placement: { awayFromApps: [alone] }"))?;
    c.wait_ready(&["ssd", "named", "both", "alone", "shy"], SOON)?;
    let runs = c.runs()?;
    assert_eq!(runs.nodes_of("ssd"), nodes(&[1, 3, 5]));
    assert_eq!(runs.nodes_of("named"), nodes(&[2, 4]));
    assert_eq!(runs.nodes_of("both"), nodes(&[1, 4]));
    assert_eq!(runs.nodes_of("alone"), nodes(&[3]));
    assert_eq!(runs.nodes_of("shy"), nodes(&[1, 2, 4, 5]));

    c.apply(&demo_app("alone", "Singleton", 8103, "placement: { nodes: [n5] }"))?;
    wait_until("both to move", SOON, || {
        let now = c.runs()?;
        let (alone, shy) = (now.nodes_of("alone"), now.nodes_of("shy"));
        ensure(alone == nodes(&[5]) && shy == nodes(&[1, 2, 3, 4]), || format!("alone on {alone:?}, shy on {shy:?}"))
    })?;
    c.wait_ready(&["alone", "shy"], SOON)?;
    let after = c.runs()?.of("shy");
    assert!(runs.of("shy").iter().filter(|(node, _)| node.number() != 5).all(|(node, run)| after.get(node) == Some(run)));
    Ok(())
}

/// A unit that is installed nowhere: every instance Failed with the reason, Ready=False, and no end of moving about.
pub fn a_unit_that_does_not_exist_is_reported(c: &Cluster) -> Result<()> {
    c.apply("apiVersion: cluster/v1\nkind: App\nmetadata: { name: ghost }\nspec: { mode: Singleton, unit: { name: nosuch } }\n")?;
    c.apply("apiVersion: cluster/v1\nkind: App\nmetadata: { name: ghosts }\nspec: { mode: Spread, unit: { name: nosuch2 } }\n")?;
    for app in ["ghost", "ghosts"] {
        let ready = c.wait_condition(app, "Ready", |ready| ready.reason == "Failed")?;
        assert!(ready.message.contains("does not exist"), "{}", ready.message);
    }
    let described = c.ctl(&["describe", "app", "ghost", "ghosts"])?.ok()?;
    assert!(described.contains("unit nosuch.service does not exist on this node"), "{described}");
    comes_to_rest(c, "ghost")
}

/// A unit that fails at its start, and one that fails later: Failed with systemd's result and the last lines of its log.
pub fn a_unit_that_fails_is_reported_with_result_and_log(c: &Cluster) -> Result<()> {
    let failing = |name: &str, mode: &str, script: &str| {
        let spec = format!("mode: {mode}, exec: {{ command: [/bin/sh, -c, \"{script}\"] }}, placement: {{ nodes: [n2, n3] }}");
        format!("apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
    };
    c.apply(&failing("broken", "Singleton", "echo the disk is upside down; exit 7"))?;
    c.apply(&failing("breaks", "Spread", "sleep 0.3; echo ran out of luck; exit 9"))?;
    for (app, said) in [("broken", "the disk is upside down"), ("breaks", "ran out of luck")] {
        wait_until(&format!("{app} to be Failed"), SOON, || {
            let status = c.status(app)?;
            let failed = status.instances.iter().filter(|i| i.state == InstanceState::Failed);
            let told = failed.clone().any(|i| i.message.contains(said) && i.message.contains("exit-code"));
            ensure(told && !status.is_ready(), || format!("{}; {:?}", explain(&status), failed.map(|i| &i.message).collect::<Vec<_>>()))
        })?;
        let described = c.ctl(&["describe", "app", app])?.ok()?;
        assert!(described.contains(said) && described.contains("Failed") && described.contains("exit-code"), "{described}");
    }
    comes_to_rest(c, "broken")?;

    // What is repaired runs at once, without waiting for the end of a back-off of the old spec.
    c.apply(&demo_app("broken", "Singleton", 8100, ""))?;
    c.wait_ready(&["broken"], SOON)
}

/// A Singleton that failed everywhere stays where it is: it does not move for five seconds, however often it is tried again.
fn comes_to_rest(c: &Cluster, app: &str) -> Result<()> {
    let tried = wait_until(&format!("{app} to have failed everywhere"), Duration::from_secs(60), || {
        let status = c.status(app)?;
        let failed: BTreeSet<_> = status.instances.iter().filter(|i| i.state == InstanceState::Failed).map(|i| &i.node).collect();
        let epoch = status.instances.iter().find(|i| i.role == Role::Active).and_then(|i| i.epoch);
        let tried = failed.len() == status.instances.len();
        epoch.filter(|_| tried).ok_or_else(|| wrong(explain(&status)))
    })?;
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(c.active(app)?.1, tried, "{app} moves about");
    Ok(())
}
