//! Nodes as a table.

use cluster_schemas::api::NodeView;
use cluster_schemas::app::ip;
use cluster_schemas::assignment::Role;
use jiff::Timestamp;

use super::age::{age, heartbeat};
use super::table::Table;
use super::{NONE, UNKNOWN, joined};

/// Characters of a boot id that a table shows: enough to see that it changed.
const BOOT_CHARS: usize = 8;

/// The table of `nodes`.
pub(crate) fn table(nodes: &[NodeView], wide: bool, prefix: &str, now: Timestamp) -> Table {
    let mut headers = vec!["NAME", "STATUS", "ADDRESS", "HEARTBEAT", "APPS", "AGE", "VERSION"];
    if wide {
        headers.extend(["LABELS", "BOOT"]);
    }
    let mut table = Table::new(&headers);
    for view in nodes {
        let node = &view.node;
        let mut row = vec![
            format!("{prefix}{}", node.name),
            status(view),
            first_address(view).map_or_else(|| NONE.to_owned(), str::to_owned),
            heartbeat(view.heartbeat_age_ms),
            app_count(view).map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()),
            age(node.registered_at.as_deref(), now),
            node.agent_version.clone(),
        ];
        if wide {
            row.push(joined(&labels(view), ","));
            row.push(node.boot_id.chars().take(BOOT_CHARS).collect());
        }
        table.row(row);
    }
    table
}

/// `Ready`, and what sets the node apart: `Ready,Cordoned`, `Ready,Witness`.
pub(crate) fn status(view: &NodeView) -> String {
    let witness = if view.node.witness { "Witness" } else { "" };
    let words = [view.state.as_str(), view.cordon.as_str(), witness];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",")
}

/// The first registered address, without its prefix length.
pub(crate) fn first_address(view: &NodeView) -> Option<&str> {
    view.node.addresses.values().flatten().next().map(|first| ip(first))
}

/// Labels as `key=value`.
pub(crate) fn labels(view: &NodeView) -> Vec<String> {
    view.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// How many Apps have an instance here; `None` before the agent said so.
fn app_count(view: &NodeView) -> Option<usize> {
    view.status.as_ref().map(|status| status.apps.values().filter(|app| app.role != Role::Absent).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes() -> Vec<NodeView> {
        serde_json::from_value(json!([
            {
                "node": {"name": "n1", "labels": {"disk": "ssd", "zone": "a"}, "addresses": {"eth0": ["10.0.0.1/24", "fd00::1/64"]},
                         "bootId": "2f1c9d3e-0000-4000-8000-000000000001", "agentVersion": "0.1.0", "registeredAt": "2026-11-20T12:00:00Z"},
                "state": "Ready", "heartbeatAgeMs": 412,
                "status": {"node": "n1", "bootId": "b", "instance": "i", "assignment": null, "quorum": true, "apps": {
                    "api": {"uid": "u", "generation": 1, "seen": 1, "role": "Member", "state": "Running", "healthy": true},
                    "gone": {"uid": "u", "generation": 1, "seen": 1, "role": "Absent", "state": "Stopped", "healthy": false},
                }},
            },
            {"node": {"name": "n2", "bootId": "x", "agentVersion": "0.1.0"}, "state": "NotReady"},
        ]))
        .unwrap()
    }

    #[test]
    fn both_tables() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        assert_eq!(
            table(&nodes(), false, "", now).render(false),
            "\
NAME   STATUS     ADDRESS    HEARTBEAT   APPS        AGE         VERSION
n1     Ready      10.0.0.1   0.4s        1           3d          0.1.0
n2     NotReady   <none>     never       <unknown>   <unknown>   0.1.0
"
        );
        assert_eq!(
            table(&nodes(), true, "node/", now).render(false),
            "\
NAME      STATUS     ADDRESS    HEARTBEAT   APPS        AGE         VERSION   LABELS            BOOT
node/n1   Ready      10.0.0.1   0.4s        1           3d          0.1.0     disk=ssd,zone=a   2f1c9d3e
node/n2   NotReady   <none>     never       <unknown>   <unknown>   0.1.0     <none>            x
"
        );
    }
}
