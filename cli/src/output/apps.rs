//! Apps as a table.

use cluster_schemas::api::AppView;
use cluster_schemas::app::unit_name;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::{AppStatus, Condition, ConditionStatus, Instance};
use jiff::Timestamp;

use super::age::age;
use super::table::Table;
use super::{NONE, UNKNOWN, joined, shortened};

/// Most nodes that a narrow table names.
const NODES_SHOWN_MAX: usize = 3;

/// The table of `apps`.
pub(crate) fn table(apps: &[AppView], wide: bool, prefix: &str, now: Timestamp) -> Table {
    let mut headers = vec!["NAME", "MODE", "READY", "STATUS", "ACTIVE", "VIP", "AGE"];
    if wide {
        headers.extend(["GENERATION", "UNIT", "CONDITIONS"]);
    }
    let mut table = Table::new(&headers);
    for app in apps {
        let status = app.status.as_ref();
        let active = active_nodes(status);
        let mut row = vec![
            format!("{prefix}{}", app.metadata.name),
            app.spec.mode.as_str().to_owned(),
            status.map_or_else(|| UNKNOWN.to_owned(), |s| s.ready.clone()),
            status_word(app).to_owned(),
            shortened(&active, if wide { usize::MAX } else { NODES_SHOWN_MAX }),
            app.spec.vip.as_ref().map_or_else(|| NONE.to_owned(), |vip| vip.ip().to_owned()),
            age(app.metadata.creation_timestamp.as_deref(), now),
        ];
        if wide {
            row.push(generation(app));
            row.push(unit_name(&app.metadata.name, app.spec.unit.as_ref()));
            let conditions: Vec<String> = status.map(|s| s.conditions.iter().map(condition).collect()).unwrap_or_default();
            row.push(joined(&conditions, ","));
        }
        table.row(row);
    }
    table
}

/// The nodes on which an App is active or a member, as planned. A member on a node that is not heard serves nobody; a Singleton that
/// is not heard may still be active there, and keeps others from it.
pub(crate) fn active_nodes(status: Option<&AppStatus>) -> Vec<&str> {
    let active = |i: &&Instance| i.role == Role::Active || i.role == Role::Member && i.state != InstanceState::Unknown;
    status.map(|s| s.instances.iter().filter(active).map(|i| i.node.as_str()).collect()).unwrap_or_default()
}

/// How an App is, in one word.
pub(crate) fn status_word(app: &AppView) -> &'static str {
    let Some(status) = &app.status else {
        return if app.metadata.deletion_timestamp.is_some() { "Terminating" } else { "Pending" };
    };
    let holds = |kind| status.condition(kind).is_some_and(|c| c.status == ConditionStatus::True);
    if app.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if holds("Conflict") {
        "Conflict"
    } else if status.observed_generation < app.metadata.generation {
        // What the status says is about an older spec.
        "Updating"
    } else {
        match status.condition("Ready").map(|c| c.status) {
            Some(ConditionStatus::True) if holds("Degraded") => "Degraded",
            Some(ConditionStatus::True) => "Ready",
            Some(ConditionStatus::False) => "NotReady",
            Some(ConditionStatus::Unknown) | None => "Unknown",
        }
    }
}

/// The generation, and the one that the status is about where that is another.
fn generation(app: &AppView) -> String {
    let wanted = app.metadata.generation;
    match app.status.as_ref().map(|s| s.observed_generation) {
        Some(seen) if seen != wanted => format!("{wanted} (seen {seen})"),
        _ => wanted.to_string(),
    }
}

/// A condition in short: `Replicated=False(NotImplemented)`.
pub(crate) fn condition(condition: &Condition) -> String {
    let reason = if condition.reason.is_empty() { String::new() } else { format!("({})", condition.reason) };
    format!("{}={}{reason}", condition.kind, condition.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(name: &str, mode: &str, more: &serde_json::Value, status: serde_json::Value) -> AppView {
        let mut value = json!({
            "apiVersion": "cluster/v1", "kind": "App",
            "metadata": {"name": name, "generation": 2, "creationTimestamp": "2026-11-23T11:00:00Z"},
            "spec": {"mode": mode, "exec": {"command": ["/bin/true"]}},
        });
        if !status.is_null() {
            value["status"] = status;
        }
        for (pointer, part) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn instance(node: &str, role: &str) -> serde_json::Value {
        json!({"node": node, "role": role, "state": "Running", "healthy": true, "reason": {"code": "Sticky", "message": ""}})
    }

    fn conditions(all: &[(&str, &str, &str)]) -> serde_json::Value {
        all.iter().map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason, "message": ""})).collect()
    }

    fn status(ready: &str, instances: &[serde_json::Value], all: &[(&str, &str, &str)]) -> serde_json::Value {
        json!({"observedGeneration": 2, "ready": ready, "conditions": conditions(all), "instances": instances})
    }

    fn platform() -> Vec<AppView> {
        let five: Vec<_> = (1..=5).map(|n| instance(&format!("n{n}"), "Member")).collect();
        vec![
            app("api", "Spread", &json!({}), status("5/5", &five, &[("Ready", "True", "AllRunning")])),
            app(
                "database",
                "Singleton",
                &json!({"/spec/vip": {"address": "10.0.0.100/24", "interface": "eth0"}, "/spec/database": {"path": "/data/app.db"}}),
                status(
                    "1/1",
                    &[instance("n1", "Standby"), instance("n2", "Active")],
                    &[("Ready", "True", "Active"), ("Replicated", "False", "NotImplemented")],
                ),
            ),
            app("fresh", "Replicas", &json!({}), serde_json::Value::Null),
        ]
    }

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_narrow_table() {
        assert_eq!(
            table(&platform(), false, "", now()).render(false),
            "\
NAME       MODE        READY       STATUS    ACTIVE        VIP          AGE
api        Spread      5/5         Ready     n1,n2,n3,+2   <none>       60m
database   Singleton   1/1         Ready     n2            10.0.0.100   60m
fresh      Replicas    <unknown>   Pending   <none>        <none>       60m
"
        );
    }

    #[test]
    fn the_wide_table() {
        assert_eq!(
            table(&platform(), true, "app/", now()).render(false),
            "\
NAME           MODE        READY       STATUS    ACTIVE           VIP          AGE   GENERATION   UNIT                          CONDITIONS
app/api        Spread      5/5         Ready     n1,n2,n3,n4,n5   <none>       60m   2            clusterctl-api.service        Ready=True(AllRunning)
app/database   Singleton   1/1         Ready     n2               10.0.0.100   60m   2            clusterctl-database.service   Ready=True(Active),Replicated=False(NotImplemented)
app/fresh      Replicas    <unknown>   Pending   <none>           <none>       60m   2            clusterctl-fresh.service      <none>
"
        );
    }

    #[test]
    fn a_member_that_is_not_heard_is_not_active_and_a_singleton_may_be() {
        let lost = |node: &str, role: &str| {
            let mut instance = instance(node, role);
            instance["state"] = "Unknown".into();
            instance
        };
        let nodes = |instances: &[serde_json::Value]| {
            let app = app("x", "Spread", &json!({}), status("", instances, &[]));
            active_nodes(app.status.as_ref()).join(",")
        };
        assert_eq!(nodes(&[lost("n1", "Member"), instance("n2", "Member")]), "n2");
        assert_eq!(nodes(&[lost("n1", "Active"), lost("n2", "Standby")]), "n1");
    }

    #[test]
    fn one_word_for_each_situation() {
        let word = |more: serde_json::Value, conditions: &[(&str, &str, &str)]| {
            status_word(&app("x", "Spread", &more, status("", &[], conditions)))
        };
        let ready = ("Ready", "True", "");
        assert_eq!(word(json!({}), &[ready]), "Ready");
        assert_eq!(word(json!({}), &[ready, ("Degraded", "True", "NoStandby")]), "Degraded");
        assert_eq!(word(json!({}), &[ready, ("Degraded", "False", "")]), "Ready");
        assert_eq!(word(json!({}), &[("Ready", "False", "")]), "NotReady");
        assert_eq!(word(json!({}), &[("Ready", "Unknown", "")]), "Unknown");
        assert_eq!(word(json!({}), &[]), "Unknown");
        assert_eq!(word(json!({}), &[ready, ("Conflict", "True", "")]), "Conflict");
        assert_eq!(word(json!({"/metadata/generation": 3}), &[ready]), "Updating");
        assert_eq!(word(json!({"/metadata/deletionTimestamp": "2026-11-23T12:00:00Z"}), &[ready]), "Terminating");
    }
}
