//! Objects as a controller answers them. Their ages are 100 days, so that they read the same all day long.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn long_ago() -> String {
    (Timestamp::now() - SignedDuration::from_hours(100 * 24 + 1)).to_string()
}

pub(crate) fn instance(node: &str, role: &str, state: &str) -> Value {
    json!({"node": node, "role": role, "state": state, "healthy": state == "Running", "reason": {"code": "Sticky", "message": "it is there already"}})
}

pub(crate) fn app(name: &str, mode: &str, status: Value) -> Value {
    let mut app = json!({
        "apiVersion": "cluster/v1", "kind": "App",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": 7, "creationTimestamp": long_ago()},
        "spec": {"mode": mode, "exec": {"command": ["/usr/lib/clusterctl/demo"]}, "standby": "Cold"},
    });
    if !status.is_null() {
        app["status"] = status;
    }
    app
}

pub(crate) fn status(ready: &str, instances: &[Value], conditions: &[(&str, &str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason, message)| json!({"type": kind, "status": status, "reason": reason, "message": message}))
        .collect();
    json!({"observedGeneration": 1, "ready": ready, "conditions": conditions, "instances": instances})
}

pub(crate) fn database() -> Value {
    let mut active = instance("n2", "Active", "Running");
    active["epoch"] = json!(7);
    active["vip"] = json!("10.0.0.100/24");
    let mut app = app(
        "database",
        "Singleton",
        status(
            "1/1",
            &[instance("n1", "Standby", "Pending"), active],
            &[("Ready", "True", "Active", "n2 is active"), ("Replicated", "False", "NotImplemented", "databases are not replicated yet")],
        ),
    );
    app["spec"]["vip"] = json!({"address": "10.0.0.100/24", "interface": "eth0"});
    app
}

pub(crate) fn cache() -> Value {
    let members = [instance("n1", "Member", "Running"), instance("n2", "Member", "Running")];
    app("cache", "Ring", status("256/256", &members, &[("Ready", "True", "AllConfirmed", "")]))
}

pub(crate) fn node(name: &str, state: &str) -> Value {
    json!({
        "node": {"name": name, "labels": {"zone": "a"}, "addresses": {"eth0": ["10.0.0.2/24"]}, "bootId": "2f1c9d3e-1", "agentVersion": "0.1.0",
                 "registeredAt": long_ago()},
        "state": state, "heartbeatAgeMs": 400, "loadPercent": 35,
        "status": {"node": name, "bootId": "2f1c9d3e-1", "instance": "i", "quorum": true,
                   "assignment": {"incarnation": "i", "term": 4, "generation": 17},
                   "apps": {"database": {"uid": "uid-database", "generation": 1, "seen": 17, "role": "Active", "state": "Running", "healthy": true,
                                         "holds": true, "epoch": 7,
                                         "unit": {"name": "clusterctl-database.service", "activeState": "active", "subState": "running",
                                                  "result": "success", "mainPid": 4242}}}},
    })
}

pub(crate) fn assignment(node: &str) -> Value {
    json!({
        "node": node, "order": {"incarnation": "i", "term": 4, "generation": 17}, "bootId": "2f1c9d3e-1", "members": ["n1", "n2"],
        "apps": {"database": {"uid": "uid-database", "generation": 1, "mode": "Singleton", "role": "Active", "epoch": 7, "run": {},
                              "peers": ["n1"], "reason": {"code": "Chosen", "message": "first of the eligible nodes"}}},
    })
}

pub(crate) fn list(items: &[Value]) -> Value {
    json!({ "items": items })
}

/// A manifest of small Apps with these names.
pub(crate) fn manifest(names: &[&str]) -> String {
    let document = |name: &&str| {
        format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata:\n  name: {name}\nspec:\n  mode: Spread\n  exec:\n    command: [/usr/lib/clusterctl/demo]\n"
        )
    };
    names.iter().map(document).collect::<Vec<_>>().join("---\n")
}
