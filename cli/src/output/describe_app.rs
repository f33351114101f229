//! Everything about one App.

use cluster_schemas::api::{AppView, NodeView};
use cluster_schemas::app::unit_name;
use cluster_schemas::manifest;
use cluster_schemas::node::{AppObserved, UnitObserved};
use cluster_schemas::status::{AppStatus, Instance};
use jiff::Timestamp;

use super::age::age;
use super::apps::status_word;
use super::sections::Sections;
use super::table::Table;
use super::{NONE, UNKNOWN, joined};

/// The description of `app`. `nodes` adds what the agents see of its units; it may be empty.
pub(crate) fn describe(app: &AppView, nodes: &[NodeView], now: Timestamp) -> String {
    let mut out = Sections::default();
    let meta = &app.metadata;
    let status = app.status.as_ref();
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
        joined(&all, "\n")
    };
    let mut fields = vec![
        ("Name", meta.name.clone()),
        ("Labels", pairs(&meta.labels)),
        ("Annotations", pairs(&meta.annotations)),
        ("Mode", app.spec.mode.as_str().to_owned()),
        ("Status", status_word(app).to_owned()),
        ("Ready", status.map_or_else(|| UNKNOWN.to_owned(), |s| s.ready.clone())),
        ("Generation", generations(meta.generation, status)),
        ("Created", time(meta.creation_timestamp.as_deref(), now)),
    ];
    if meta.deletion_timestamp.is_some() {
        fields.push(("Deletion", time(meta.deletion_timestamp.as_deref(), now)));
    }
    fields.push(("Unit", unit_name(&meta.name, app.spec.unit.as_ref())));
    if let Some(vip) = &app.spec.vip {
        fields.push(("VIP", format!("{} on {}", vip.address, vip.interface)));
    }
    if let Some(version) = status.and_then(|s| s.ring_version) {
        fields.push(("Ring version", version.to_string()));
    }
    out.fields(&fields);
    out.block("Spec", |out| match serde_json::to_value(&app.spec) {
        Ok(spec) => out.lines(&manifest::to_yaml_value(&spec)),
        Err(error) => out.lines(&format!("cannot be shown: {error}")),
    });
    out.block("Conditions", |out| match status.filter(|s| !s.conditions.is_empty()) {
        Some(status) => out.lines(&conditions(status, now)),
        None => out.lines(NONE),
    });
    out.block("Instances", |out| match status.filter(|s| !s.instances.is_empty()) {
        Some(status) => status.instances.iter().for_each(|i| instance(out, i, observed(nodes, &i.node, &meta.name))),
        None => out.lines(NONE),
    });
    out.finish()
}

fn generations(wanted: u64, status: Option<&AppStatus>) -> String {
    match status {
        Some(status) if status.observed_generation == wanted => wanted.to_string(),
        Some(status) => format!("{wanted} (the status is about {})", status.observed_generation),
        None => format!("{wanted} (no status yet)"),
    }
}

/// A point in time and how long ago it is.
pub(super) fn time(at: Option<&str>, now: Timestamp) -> String {
    at.map_or_else(|| UNKNOWN.to_owned(), |text| format!("{text} ({} ago)", age(at, now)))
}

fn conditions(status: &AppStatus, now: Timestamp) -> String {
    let mut table = Table::new(&["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in &status.conditions {
        table.row(vec![
            condition.kind.clone(),
            condition.status.as_str().to_owned(),
            age(condition.last_transition_time.as_deref(), now),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    table.render(false)
}

fn observed<'a>(nodes: &'a [NodeView], node: &str, app: &str) -> Option<&'a AppObserved> {
    nodes.iter().find(|view| view.node.name == node)?.status.as_ref()?.apps.get(app)
}

fn instance(out: &mut Sections, instance: &Instance, observed: Option<&AppObserved>) {
    out.block(&instance.node, |out| {
        let mut fields = vec![
            ("Role", instance.role.as_str().to_owned()),
            ("State", format!("{:?}{}", instance.state, if instance.healthy { ", healthy" } else { ", not healthy" })),
        ];
        if let Some(epoch) = instance.epoch {
            fields.push(("Epoch", epoch.to_string()));
        }
        if let Some(partitions) = &instance.partitions {
            fields.push(("Partitions", super::partitions(partitions)));
        }
        if let Some(vip) = &instance.vip {
            fields.push(("VIP", vip.clone()));
        }
        if let Some(seen) = observed.and_then(|o| o.unit.as_ref()) {
            fields.push(("Unit", unit(seen)));
        }
        fields.push(("Reason", super::reason(&instance.reason)));
        if !instance.message.is_empty() {
            fields.push(("Message", instance.message.clone()));
        }
        out.fields(&fields);
    });
}

/// What systemd says, in a line.
pub(super) fn unit(unit: &UnitObserved) -> String {
    let mut text = format!("{}: {} ({})", unit.name, unit.active_state, unit.sub_state);
    if !unit.result.is_empty() && unit.result != "success" {
        text.push_str(&format!(", result {}", unit.result));
    }
    if unit.main_pid != 0 {
        text.push_str(&format!(", pid {}", unit.main_pid));
    }
    match unit.restarts {
        0 => {}
        1 => text.push_str(", restarted once"),
        times => text.push_str(&format!(", restarted {times} times")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_singleton_with_a_failed_instance() {
        let app: AppView = serde_json::from_value(json!({
            "apiVersion": "cluster/v1", "kind": "App",
            "metadata": {"name": "database", "labels": {"tier": "data"}, "generation": 3, "creationTimestamp": "2026-11-23T11:00:00Z"},
            "spec": {"exec": {"command": ["/usr/lib/clusterctl/demo", "--db", "${database.path}"]}, "vip": {"address": "10.0.0.100/24", "interface": "eth0"}},
            "status": {
                "observedGeneration": 2, "ready": "0/1",
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "InstanceFailed", "message": "n2 failed", "lastTransitionTime": "2026-11-23T11:59:30Z"},
                    {"type": "Replicated", "status": "False", "reason": "NotImplemented", "message": "databases are not replicated yet"},
                ],
                "instances": [
                    {"node": "n1", "role": "Standby", "state": "Pending", "healthy": false, "reason": {"code": "Standby", "message": "ready to take over"}},
                    {"node": "n2", "role": "Active", "state": "Failed", "healthy": false, "epoch": 7, "vip": "10.0.0.100/24",
                     "reason": {"code": "Sticky", "message": "it is there already"},
                     "message": "the unit failed with exit-code\ndemo: cannot listen\ndemo: ended"},
                ],
            },
        }))
        .unwrap();
        let nodes: Vec<NodeView> = serde_json::from_value(json!([{
            "node": {"name": "n2", "bootId": "b", "agentVersion": "0.1.0"}, "state": "Ready",
            "status": {"node": "n2", "bootId": "b", "instance": "i", "assignment": null, "quorum": true, "apps": {"database": {
                "uid": "u", "generation": 2, "seen": 5, "role": "Active", "state": "Failed", "healthy": false,
                "unit": {"name": "clusterctl-database.service", "activeState": "failed", "subState": "failed", "result": "exit-code", "restarts": 5}}}},
        }]))
        .unwrap();
        let text = describe(&app, &nodes, "2026-11-23T12:00:00Z".parse().unwrap());
        let (head, rest) = text.split_once("Spec:\n").unwrap();
        assert_eq!(
            head,
            "\
Name:         database
Labels:       tier=data
Annotations:  <none>
Mode:         Singleton
Status:       Updating
Ready:        0/1
Generation:   3 (the status is about 2)
Created:      2026-11-23T11:00:00Z (60m ago)
Unit:         clusterctl-database.service
VIP:          10.0.0.100/24 on eth0
"
        );
        let (spec, rest) = rest.split_once("Conditions:\n").unwrap();
        assert!(spec.lines().all(|line| line.starts_with("  ")) && spec.contains("${database.path}"), "{spec}");
        assert_eq!(
            rest,
            "  TYPE         STATUS   SINCE       REASON           MESSAGE
  Ready        False    30s         InstanceFailed   n2 failed
  Replicated   False    <unknown>   NotImplemented   databases are not replicated yet
Instances:
  n1:
    Role:    Standby
    State:   Pending, not healthy
    Reason:  ready to take over (Standby)
  n2:
    Role:     Active
    State:    Failed, not healthy
    Epoch:    7
    VIP:      10.0.0.100/24
    Unit:     clusterctl-database.service: failed (failed), result exit-code, restarted 5 times
    Reason:   it is there already (Sticky)
    Message:  the unit failed with exit-code
              demo: cannot listen
              demo: ended
"
        );
    }

    #[test]
    fn an_app_that_no_one_looked_at_yet() {
        let app: AppView = serde_json::from_value(json!({
            "apiVersion": "cluster/v1", "kind": "App", "metadata": {"name": "x", "generation": 1}, "spec": {"mode": "Spread", "unit": {"name": "nginx"}},
        }))
        .unwrap();
        let text = describe(&app, &[], "2026-11-23T12:00:00Z".parse().unwrap());
        assert!(text.contains("Generation:   1 (no status yet)\n") && text.contains("Unit:         nginx.service\n"), "{text}");
        assert!(text.ends_with("Conditions:\n  <none>\nInstances:\n  <none>\n"), "{text}");
    }
}
