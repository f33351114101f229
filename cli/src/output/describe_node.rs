//! Everything about one node.

use cluster_schemas::Assignment;
use cluster_schemas::api::NodeView;
use cluster_schemas::assignment::Order;
use cluster_schemas::node::AppObserved;
use jiff::Timestamp;

use super::age::heartbeat;
use super::describe_app::{time, unit};
use super::sections::Sections;
use super::{NONE, UNKNOWN, assignments, joined, nodes};

/// The description of `view`, beside it what is planned for the node, where there is a plan.
pub(crate) fn describe(view: &NodeView, plan: Option<&Assignment>, now: Timestamp) -> String {
    let mut out = Sections::default();
    let node = &view.node;
    let status = view.status.as_ref();
    let addresses: Vec<String> = node.addresses.iter().map(|(interface, all)| format!("{interface}: {}", all.join(", "))).collect();
    out.fields(&[
        ("Name", node.name.clone()),
        ("Status", nodes::status(view)),
        (
            "Heartbeat",
            view.heartbeat_age_ms.map_or_else(|| "never heard".to_owned(), |_| format!("{} ago", heartbeat(view.heartbeat_age_ms))),
        ),
        ("Quorum", status.map_or(UNKNOWN, |s| if s.quorum { "yes" } else { "no: nothing exclusive is held" }).to_owned()),
        ("Load", view.load_percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{}.{:02}", percent / 100, percent % 100))),
        ("Capacity", node.capacity.map_or_else(|| UNKNOWN.to_owned(), |has| has.to_string())),
        ("Labels", joined(&nodes::labels(view), "\n")),
        ("Addresses", joined(&addresses, "\n")),
        ("Boot", node.boot_id.clone()),
        ("Agent", node.agent_version.clone()),
        ("Registered", time(node.registered_at.as_deref(), now)),
        ("Assignment", standing(status.and_then(|s| s.assignment.as_ref()), plan.map(|p| &p.order))),
    ]);
    if let Some(problems) = status.map(|s| &s.problems).filter(|p| !p.is_empty()) {
        out.block("Problems", |out| problems.iter().for_each(|problem| out.lines(problem)));
    }
    out.block("Apps", |out| {
        let mut names: Vec<&str> =
            plan.iter().flat_map(|p| p.apps.keys()).chain(status.iter().flat_map(|s| s.apps.keys())).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            out.lines(NONE);
        }
        for name in names {
            let planned = plan.and_then(|p| p.apps.get(name));
            let observed = status.and_then(|s| s.apps.get(name));
            out.block(name, |out| {
                let mut fields = Vec::new();
                if let Some(planned) = planned {
                    fields.push(("Planned", assignments::role(planned)));
                    fields.push(("Reason", super::reason(&planned.reason)));
                    if !planned.held_back.is_empty() {
                        fields.push(("Update", planned.held_back.clone()));
                    }
                }
                match observed {
                    Some(observed) => fields.extend(seen(observed)),
                    None => fields.push(("Observed", "nothing yet".to_owned())),
                }
                out.fields(&fields);
            });
        }
    });
    out.finish()
}

/// How far the agent is with the plan.
fn standing(taken: Option<&Order>, planned: Option<&Order>) -> String {
    let order = |o: &Order| format!("term {} generation {}", o.term, o.generation);
    match (taken, planned) {
        (None, None) => NONE.to_owned(),
        (None, Some(planned)) => format!("{} is planned, none taken yet", order(planned)),
        (Some(taken), Some(planned)) if taken != planned => format!("{} taken, {} is planned", order(taken), order(planned)),
        (Some(taken), _) => order(taken),
    }
}

fn seen(app: &AppObserved) -> Vec<(&'static str, String)> {
    let healthy = if app.healthy { "healthy" } else { "not healthy" };
    let mut fields = vec![("Observed", format!("{}, {:?}, {healthy}", app.role.as_str(), app.state))];
    if app.epoch != 0 {
        fields.push(("Epoch", format!("{}{}", app.epoch, if app.holds { "" } else { " (not held)" })));
    }
    if let Some(ring) = &app.ring {
        fields.push(("Held", super::partitions(&ring.held)));
        fields.push(("Confirmed", super::partitions(&ring.confirmed)));
    }
    if let Some(vip) = &app.vip {
        fields.push(("VIP", format!("{} {}", vip.address, if vip.present { "present" } else { "not here" })));
    }
    if let Some(observed) = &app.unit {
        fields.push(("Unit", unit(observed)));
    }
    if !app.message.is_empty() {
        fields.push(("Message", app.message.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plan_and_observation_stand_side_by_side() {
        let view: NodeView = serde_json::from_value(json!({
            "node": {"name": "n1", "labels": {"zone": "a", "disk": "ssd"}, "addresses": {"eth0": ["10.0.0.1/24", "fd00::1/64"], "eth1": ["192.168.0.1/24"]},
                     "bootId": "2f1c9d3e-0000", "agentVersion": "0.1.0", "capacity": {"cpuMillis": 4000, "memoryBytes": 8_589_934_592_u64}, "registeredAt": "2026-11-20T12:00:00Z"},
            "state": "NoQuorum", "heartbeatAgeMs": 1200, "loadPercent": 205,
            "status": {"node": "n1", "bootId": "2f1c9d3e-0000", "instance": "i", "quorum": false,
                "assignment": {"incarnation": "i", "term": 4, "generation": 16},
                "problems": ["assignment of term 3 refused: term 4 was seen"],
                "apps": {
                    "cache": {"uid": "u", "generation": 1, "seen": 16, "role": "Member", "state": "Running", "healthy": true,
                              "ring": {"held": "0-84", "confirmed": "0-80"},
                              "unit": {"name": "clusterctl-cache.service", "activeState": "active", "subState": "running", "result": "success", "mainPid": 812, "restarts": 1}},
                    "database": {"uid": "u", "generation": 1, "seen": 16, "role": "Standby", "state": "Stopped", "healthy": false, "epoch": 7, "gaveUp": 7,
                                 "vip": {"address": "10.0.0.100/24", "present": false, "epoch": 7}, "message": "gave up: fewer than a majority heard\nlog line"},
                }},
        }))
        .unwrap();
        let plan: Assignment = serde_json::from_value(json!({
            "node": "n1", "order": {"incarnation": "i", "term": 4, "generation": 17}, "bootId": "b", "members": ["n1"], "apps": {
                "api": {"uid": "u", "generation": 1, "mode": "Spread", "role": "Member", "run": {}, "reason": {"code": "EveryEligibleNode", "message": "runs everywhere"},
                        "heldBack": "keeps the content of generation 1 while at most 1 instance may be down by a change"},
                "cache": {"uid": "u", "generation": 1, "mode": "Ring", "role": "Member", "run": {}, "ring": {"partitions": 256, "own": [{"epoch": 1, "partitions": "0-84"}]}, "reason": {"code": "Sticky", "message": ""}},
            },
        }))
        .unwrap();
        assert_eq!(
            describe(&view, Some(&plan), "2026-11-23T12:00:00Z".parse().unwrap()),
            "\
Name:        n1
Status:      NoQuorum
Heartbeat:   1.2s ago
Quorum:      no: nothing exclusive is held
Load:        2.05
Capacity:    cpu 4, memory 8Gi
Labels:      disk=ssd
             zone=a
Addresses:   eth0: 10.0.0.1/24, fd00::1/64
             eth1: 192.168.0.1/24
Boot:        2f1c9d3e-0000
Agent:       0.1.0
Registered:  2026-11-20T12:00:00Z (3d ago)
Assignment:  term 4 generation 16 taken, term 4 generation 17 is planned
Problems:
  assignment of term 3 refused: term 4 was seen
Apps:
  api:
    Planned:   Member
    Reason:    runs everywhere (EveryEligibleNode)
    Update:    keeps the content of generation 1 while at most 1 instance may be down by a change
    Observed:  nothing yet
  cache:
    Planned:    Member[85]
    Reason:     Sticky
    Observed:   Member, Running, healthy
    Held:       85 (0-84)
    Confirmed:  81 (0-80)
    Unit:       clusterctl-cache.service: active (running), pid 812, restarted once
  database:
    Observed:  Standby, Stopped, not healthy
    Epoch:     7 (not held)
    VIP:       10.0.0.100/24 not here
    Message:   gave up: fewer than a majority heard
               log line
"
        );
    }

    #[test]
    fn a_node_that_was_never_heard() {
        let view: NodeView =
            serde_json::from_value(json!({"node": {"name": "n9", "bootId": "b", "agentVersion": "0.1.0"}, "state": "NotReady"})).unwrap();
        let text = describe(&view, None, "2026-11-23T12:00:00Z".parse().unwrap());
        assert!(
            text.contains("Heartbeat:   never heard\n") && text.contains("Assignment:  <none>\n") && text.ends_with("Apps:\n  <none>\n"),
            "{text}"
        );
    }
}
