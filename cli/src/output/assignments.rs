//! Assignments as a table.

use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::{Assignment, Mode};

use super::table::Table;
use super::{joined, shortened};

/// Most Apps that a narrow table names.
const APPS_SHOWN_MAX: usize = 4;

/// The table of `assignments`.
pub(crate) fn table(assignments: &[Assignment], wide: bool, prefix: &str) -> Table {
    let mut table = Table::new(&["NODE", "TERM", "GENERATION", "APPS"]);
    for assignment in assignments {
        let apps = if wide {
            let roles: Vec<String> = assignment.apps.iter().map(|(name, app)| format!("{name}={}", role(app))).collect();
            joined(&roles, ",")
        } else {
            let names: Vec<&str> = assignment.apps.keys().map(String::as_str).collect();
            shortened(&names, APPS_SHOWN_MAX)
        };
        table.row(vec![
            format!("{prefix}{}", assignment.node),
            assignment.order.term.to_string(),
            assignment.order.generation.to_string(),
            apps,
        ]);
    }
    table
}

/// What a node is for an App, with what it holds: `Active/7`, `Standby`, `Member[86]`, `Member+vip/3`; `!` marks what it must let go.
pub(crate) fn role(app: &AppAssignment) -> String {
    let mut text = app.role.as_str().to_owned();
    if app.mode == Mode::Singleton && app.role == Role::Active {
        text.push_str(&format!("/{}", app.epoch));
    }
    if let Some(epoch) = app.releasing {
        text.push_str(&format!("!{epoch}"));
    }
    if let Some(ring) = &app.ring {
        text.push_str(&format!("[{}", ring.owned().len()));
        if !ring.release.is_empty() {
            text.push_str(&format!("!{}", ring.release.len()));
        }
        text.push(']');
    }
    if let Some(vip) = app.vip.as_ref().filter(|_| app.mode != Mode::Singleton) {
        if vip.hold {
            text.push_str(&format!("+vip/{}", vip.epoch));
        } else if let Some(epoch) = vip.releasing {
            text.push_str(&format!("+vip!{epoch}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn assignments() -> Vec<Assignment> {
        let app = |mode: &str, role: &str, more: serde_json::Value| {
            let mut value =
                json!({"uid": "u", "generation": 1, "mode": mode, "role": role, "run": {}, "reason": {"code": "Sticky", "message": ""}});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            value
        };
        let order = |generation: u64| json!({"incarnation": "i", "term": 4, "generation": generation});
        serde_json::from_value(json!([
            {"node": "n1", "order": order(17), "bootId": "b", "members": ["n1", "n2"], "apps": {
                "api": app("Spread", "Member", json!({"vip": {"address": "10.0.0.9/24", "interface": "eth0", "hold": true, "epoch": 3}})),
                "cache": app("Ring", "Member", json!({"ring": {"partitions": 256, "own": [{"epoch": 2, "partitions": "0-84"}], "release": "90,91"}})),
                "database": app("Singleton", "Active", json!({"epoch": 7})),
                "old": app("Singleton", "Standby", json!({"epoch": 9, "releasing": 8})),
                "workers": app("Replicas", "Absent", json!({})),
            }},
            {"node": "n2", "order": order(3), "bootId": "b", "members": ["n1", "n2"], "apps": {}},
        ]))
        .unwrap()
    }

    #[test]
    fn both_tables() {
        assert_eq!(
            table(&assignments(), false, "").render(false),
            "\
NODE   TERM   GENERATION   APPS
n1     4      17           api,cache,database,old,+1
n2     4      3            <none>
"
        );
        assert_eq!(
            table(&assignments(), true, "assignment/").render(false),
            "\
NODE            TERM   GENERATION   APPS
assignment/n1   4      17           api=Member+vip/3,cache=Member[85!2],database=Active/7,old=Standby!8,workers=Absent
assignment/n2   4      3            <none>
"
        );
    }
}
