//! A plan, for people: the fields first, then what becomes of them on the nodes.

use cluster_schemas::plan::{AppPlan, Change, Effects, FieldChange, Plan, UnitAction};
use serde_json::Value;

use super::printable;

/// The whole plan; nothing at all where it changes nothing.
pub(crate) fn text(plan: &Plan) -> String {
    if !plan.changes() {
        return String::new();
    }
    let mut lines = Vec::new();
    let count = |change: Change| plan.apps.iter().filter(|app| app.change == change).count();
    for app in plan.apps.iter().filter(|app| app.change != Change::Unchanged) {
        lines.push(format!("app/{} {}", app.name, word(app)));
        lines.extend(app.fields.iter().map(field));
    }
    effects(&plan.effects, &mut lines);
    lines.push(format!(
        "{} created, {} changed, {} deleted, {} unchanged",
        count(Change::Created),
        count(Change::Changed),
        count(Change::Deleted),
        count(Change::Unchanged)
    ));
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

const fn word(app: &AppPlan) -> &'static str {
    match app.change {
        Change::Created => "created",
        Change::Changed => "changed",
        Change::Unchanged => "unchanged",
        Change::Deleted => "deleted",
    }
}

/// `  spec.replicas: 3 -> 5`
fn field(change: &FieldChange) -> String {
    format!("  {}: {} -> {}", path(&change.pointer), value(change.before.as_ref()), value(change.after.as_ref()))
}

/// The pointer as people write it: `spec.exec.command[1]`; keys with dots or slashes in brackets.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else if part.contains(['.', '/']) {
            path.push_str(&format!("[{part:?}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

fn value(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) if !text.is_empty() && !text.contains(char::is_control) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn effects(effects: &Effects, lines: &mut Vec<String>) {
    if !effects.unknown.is_empty() {
        lines.push(format!("on the nodes: not known: {}", effects.unknown));
    }
    if *effects == (Effects { unknown: effects.unknown.clone(), ..Effects::default() }) {
        return;
    }
    lines.push("on the nodes:".to_owned());
    for unit in &effects.units {
        let action = match unit.action {
            UnitAction::Started => "starts",
            UnitAction::Stopped => "stops",
            UnitAction::Restarted => "restarts",
            UnitAction::Reloaded => "reloads",
        };
        lines.push(format!("  {}: {} {action} {}", unit.node, unit.app, unit.unit));
    }
    let side = |node: &Option<String>| node.clone().unwrap_or_else(|| "nobody".to_owned());
    for vip in &effects.vips {
        lines.push(format!("  VIP {} of {}: {} -> {}", vip.address, vip.app, side(&vip.from), side(&vip.to)));
    }
    for moved in &effects.partitions {
        let plural = if moved.count == 1 { "" } else { "s" };
        lines.push(format!("  {} partition{plural} of {}: {} -> {}", moved.count, moved.app, side(&moved.from), side(&moved.to)));
    }
    for interruption in &effects.interruptions {
        let last = interruption.last_ms.map(|ms| format!(" (the last switchover took {ms} ms from the grant)")).unwrap_or_default();
        lines.push(format!("  {} {}{last}", interruption.app, interruption.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::plan::{Interruption, InterruptionKind, PartitionMove, UnitEffect, VipMove};
    use serde_json::json;

    #[test]
    fn people_read_fields_first_and_effects_then() {
        let field = |pointer: &str, before: Value, after: Value| FieldChange {
            pointer: pointer.to_owned(),
            before: Some(before),
            after: Some(after),
        };
        let app = |name: &str, change, fields| AppPlan { name: name.to_owned(), change, fields };
        let some = |node: &str| Some(node.to_owned());
        let plan = Plan {
            apps: vec![
                app(
                    "api",
                    Change::Changed,
                    vec![
                        field("/spec/exec/command/1", json!("-x"), json!("-y")),
                        FieldChange { pointer: "/metadata/labels/a.b~1c".to_owned(), before: None, after: Some(json!("")) },
                        field("/spec/replicas", json!(3), json!(5)),
                    ],
                ),
                app("db", Change::Deleted, Vec::new()),
                app("web", Change::Unchanged, Vec::new()),
            ],
            effects: Effects {
                units: vec![UnitEffect {
                    app: "api".into(),
                    node: "n4".into(),
                    unit: "clusterctl-api.service".into(),
                    action: UnitAction::Started,
                }],
                vips: vec![VipMove { app: "db".into(), address: "10.0.0.9/24".into(), from: some("n1"), to: None }],
                partitions: vec![PartitionMove { app: "ring".into(), from: some("n1"), to: some("n2"), count: 1 }],
                interruptions: vec![Interruption {
                    app: "db".into(),
                    kind: InterruptionKind::Ends,
                    message: "ends on n1".into(),
                    last_ms: Some(41),
                }],
                ..Effects::default()
            },
            ..Plan::default()
        };
        assert_eq!(
            text(&plan),
            "app/api changed\n  spec.exec.command[1]: -x -> -y\n  metadata.labels[\"a.b/c\"]: - -> \"\"\n  spec.replicas: 3 -> 5\napp/db deleted\n\
             on the nodes:\n  n4: api starts clusterctl-api.service\n  VIP 10.0.0.9/24 of db: n1 -> nobody\n  1 partition of ring: n1 -> n2\n  \
             db ends on n1 (the last switchover took 41 ms from the grant)\n0 created, 1 changed, 1 deleted, 1 unchanged\n"
        );
        assert_eq!(text(&Plan { apps: vec![app("web", Change::Unchanged, Vec::new())], ..Plan::default() }), "");
    }
}
