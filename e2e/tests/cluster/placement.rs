//! Where instances run and why not, and units that cannot run.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::assignment::Role;
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::ConditionStatus;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure, explain, wrong};

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

/// The other fields of `placement`, each seen in where instances run and in the sentence that `describe` gives as the reason.
pub fn every_placement_field_is_kept_and_seen_in_the_reason(c: &Cluster) -> Result<()> {
    let memory = c.nodes()?.values().filter_map(|n| n.node.capacity).map(|a| a.memory_bytes).min().unwrap_or(0);
    let most = format!("resources: {{ memory: {}Mi }}", memory / 10 * 6 / 1024 / 1024);
    c.apply(&demo_app("avoids", "Replicas", 8100, "replicas: 2, placement: { avoidLabels: { disk: ssd } }"))?;
    c.apply(&demo_app("prefers", "Singleton", 8101, "placement: { prefer: [{ weight: 10, labels: { zone: z2 } }] }"))?;
    c.apply(&demo_app("spreads", "Replicas", 8102, "replicas: 3, placement: { spreadBy: zone }"))?;
    c.wait_ready(&["avoids", "prefers", "spreads"], LATER)?;
    c.apply(&demo_app("beside", "Spread", 8103, "placement: { withApps: [avoids] }"))?;
    c.apply(&demo_app("shy", "Spread", 8104, "placement: { awayFromApps: [prefers] }"))?;
    c.apply(&demo_app("heavy", "Spread", 8105, &format!("placement: {{ {most} }}")))?;
    c.wait_ready(&["beside", "shy", "heavy"], LATER)?;
    let (runs, active) = (c.runs()?, c.active("prefers")?.0);
    assert_eq!(runs.nodes_of("avoids"), nodes(&[2, 4]));
    assert!(nodes(&[2, 5]).contains(&active), "{active}");
    let zones: BTreeSet<String> = runs.nodes_of("spreads").iter().map(|node| node.zone()).collect();
    assert_eq!(zones.len(), 3, "{zones:?}");
    assert_eq!(runs.nodes_of("beside"), nodes(&[2, 4]));
    let all = nodes(&[1, 2, 3, 4, 5]);
    assert_eq!(runs.nodes_of("shy"), all.iter().copied().filter(|node| *node != active).collect::<Vec<_>>());
    for (app, reason) in [
        ("avoids", "label disk=ssd avoided"),
        ("prefers", "prefer weight 10"),
        ("spreads", "spread by zone (here z3)"),
        ("beside", "beside App avoids"),
        ("shy", "4 nodes may run it"),
        ("heavy", "room for memory"),
    ] {
        let described = c.ctl(&["describe", "app", app])?.ok()?;
        assert!(described.contains(reason), "{app} does not say {reason:?}: {described}");
    }

    // No room beside it: the condition says what each node has.
    c.apply(&demo_app("heavier", "Replicas", 8106, &format!("replicas: 1, placement: {{ {most} }}")))?;
    let ready = c.wait_condition("heavier", "Ready", |ready| ready.reason == "NoEligibleNode")?;
    assert!(ready.message.contains("memory") && ready.message.contains("reserved"), "{}", ready.message);
    let wide = c.ctl(&["get", "apps", "-o", "wide"])?.ok()?;
    let row = wide.lines().find(|line| line.starts_with("heavier")).unwrap_or_default();
    assert!(row.contains("Placed=False(NoEligibleNode)"), "{wide}");
    c.delete(&["heavy"])?;
    c.wait_ready(&["heavier"], LATER)
}

/// `update`: bad content takes down one instance and stops there; the others say why they keep theirs, and good content reaches all.
pub fn bad_content_stops_at_the_first_instance(c: &Cluster) -> Result<()> {
    let app = |command: &str| {
        format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: rolling }}\nspec: {{ mode: Replicas, replicas: 3, \
             update: {{ maxUnavailable: 1 }}, exec: {{ command: [{command}] }} }}\n"
        )
    };
    c.apply(&app("/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:8100\""))?;
    c.wait_ready(&["rolling"], LATER)?;
    let before = c.runs()?.of("rolling");
    // Never active, not for a moment: what runs for a while before it fails counts as taken up until then.
    c.apply(&app("/usr/lib/clusterctl/no-such-program"))?;
    let stopped = c.wait_condition("rolling", "Progressing", |p| p.reason == "Failed")?;
    assert!(stopped.message.contains("keep the content of before"), "{}", stopped.message);
    let after = c.runs()?.of("rolling");
    assert_eq!(before.iter().filter(|(node, run)| after.get(node) == Some(run)).count(), 2, "{before:?} {after:?}");
    let described = c.ctl(&["describe", "app", "rolling"])?.ok()?;
    assert!(described.contains("keeps the content of generation 1"), "{described}");
    c.apply(&app("/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:8101\""))?;
    c.wait_ready(&["rolling"], LATER)?;
    let done = c.wait_condition("rolling", "Progressing", |p| p.reason == "Complete")?;
    assert!(done.message.contains("3 of 3"), "{}", done.message);
    Ok(())
}
