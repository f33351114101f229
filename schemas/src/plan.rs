//! The plan object: what an apply would do, as `POST /v1/plan` answers it and `apply --plan` carries it out.
//!
//! One thing is shown and done: `diff` and `apply --dry-run=server` print a [`Plan`], and an apply makes the same one before it writes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{FieldProblem, Outcome};
use crate::app::App;

/// Most Apps in one request.
pub const APPS_MAX: usize = 10_000;

/// What shall be: the Apps of some files, and how far the request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// The Apps as they shall be, at most [`APPS_MAX`], each name once.
    pub apps: Vec<App>,
    /// How far it goes.
    #[serde(default)]
    pub options: PlanOptions,
    /// The plan that an apply carries out: it is refused where the world is another by now. Not looked at by `POST /v1/plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// How far a request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanOptions {
    /// The set that the Apps belong to: a name like those of Apps. Apps keep theirs where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Delete the Apps of the set that are not among those of the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Most Apps that may be deleted: a number, or a part of the set such as `25%` (at least one App). 25 % when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete: Option<String>,
    /// With `prune`: no App at all is meant so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// Take Apps that belong to another set into this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
    /// What the files are a state of, such as a commit. Kept with the revisions that this makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
}

/// What a plan stands on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Basis {
    /// Revision of each App of the request and of its set; 0 for those that do not exist.
    pub revisions: BTreeMap<String, u64>,
    /// Sixteen hexadecimal digits over all of the plan: two plans with the same do the same.
    pub hash: String,
}

/// What an apply would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The Apps of the request and those that would be deleted, sorted by name.
    pub apps: Vec<AppPlan>,
    /// What becomes of it on the nodes.
    pub effects: Effects,
    /// Why an apply would refuse this, one sentence each; none as a rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// What is worth knowing and stops nothing, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What it stands on.
    pub basis: Basis,
}

impl Plan {
    /// Whether an apply would change anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.apps.iter().any(|app| app.change != Change::Unchanged)
    }
}

/// A plan with the request that it answers: what `diff --save` writes and `apply --plan` reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedPlan {
    /// Always `cluster/v1`.
    pub api_version: String,
    /// Always `Plan`.
    pub kind: String,
    /// What was asked.
    pub request: PlanRequest,
    /// The answer.
    pub plan: Plan,
}

/// What would become of one App.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppPlan {
    /// Its name.
    pub name: String,
    /// What would happen.
    pub change: Change,
    /// The fields that change, sorted by pointer; none for one that is created or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What would happen to an App.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It does not exist.
    Created,
    /// Fields change.
    Changed,
    /// It is so already.
    #[default]
    Unchanged,
    /// It goes.
    Deleted,
}

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// JSON pointer (RFC 6901) into the App, such as `/spec/replicas`.
    pub pointer: String,
    /// What it is, defaults filled in; absent where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it shall be, defaults filled in; absent where there shall be nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What becomes of a change on the nodes that are heard, once all of it is done and as long as nothing else happens: the planner's answer
/// for the Apps as they shall be, beside its answer for the Apps as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Effects {
    /// Why they are not known, or not to their end; empty where they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unknown: String,
    /// Units that are started, stopped, restarted or reloaded, sorted by App and node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitEffect>,
    /// VIPs that move, come or go, sorted by App.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<VipMove>,
    /// Partitions that move, come or go, sorted by App and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionMove>,
    /// What each Singleton that is concerned goes through, sorted by App.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<Interruption>,
}

impl Effects {
    /// Whether nothing becomes of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to one unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitEffect {
    /// The App.
    pub app: String,
    /// Where.
    pub node: String,
    /// Full name of the unit.
    pub unit: String,
    /// What happens.
    pub action: UnitAction,
}

/// What happens to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnitAction {
    /// It runs then, and does not now.
    Started,
    /// It runs now, and does not then.
    Stopped,
    /// It runs as something else then.
    Restarted,
    /// It is told of a new role or other partitions: reloaded, or restarted where it cannot reload.
    Reloaded,
}

/// A VIP that moves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VipMove {
    /// The App.
    pub app: String,
    /// Address with prefix length.
    pub address: String,
    /// Who holds it now; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who holds it then; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Partitions that move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionMove {
    /// The App.
    pub app: String,
    /// Who owns them now; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who owns them then; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How many.
    pub count: u32,
}

/// What a Singleton goes through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interruption {
    /// The App.
    pub app: String,
    /// Which kind.
    pub kind: InterruptionKind,
    /// The same in a sentence, with the nodes.
    pub message: String,
    /// How long the last switchover of this App took, from the grant until the instance was seen to serve, in milliseconds; absent where
    /// none is recorded, and for the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
}

/// How a Singleton is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InterruptionKind {
    /// It goes on.
    None,
    /// Its process is restarted where it is.
    Restart,
    /// Another node goes on, whose process runs already (`standby: Hot`).
    HotSwitchover,
    /// Another node goes on: the process is stopped here and started there.
    ColdSwitchover,
    /// It was active nowhere and begins.
    Begins,
    /// It is active nowhere any more.
    Ends,
}

/// What an apply did, App by App.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedAll {
    /// What became of each App of the request and of each that was to be deleted, sorted by name.
    pub results: Vec<AppResult>,
    /// What is worth knowing, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What became of one App.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppResult {
    /// Its name.
    pub name: String,
    /// What happened; absent where it failed or was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its deletion was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Version of the spec now; 0 where it failed or was deleted.
    #[serde(default)]
    pub generation: u64,
    /// Revision of the stored App; 0 where it failed or was deleted.
    #[serde(default)]
    pub resource_version: u64,
    /// Why it failed; empty where it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// An apply set: Apps that are applied and pruned together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetView {
    /// Name of the set.
    pub name: String,
    /// Its Apps, sorted.
    pub apps: Vec<String>,
    /// What its files were a state of when an App of it was written last, where that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
}

/// How many of `size` Apps may be deleted by `text`, as [`PlanOptions::max_delete`] has it; at least one of them by a part.
///
/// # Errors
/// What is wrong with the text.
pub fn max_delete(text: Option<&str>, size: usize) -> Result<usize, FieldProblem> {
    let text = text.unwrap_or("25%");
    let bad = || FieldProblem {
        pointer: "/options/maxDelete".to_owned(),
        message: format!("{text:?} is no limit of deletions"),
        hint: Some("write a number of Apps such as `3`, or a part of the set such as `25%`".to_owned()),
    };
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse::<usize>() {
            Ok(percent) if percent <= 100 => Ok((size.saturating_mul(percent) / 100).max(usize::from(percent > 0))),
            _ => Err(bad()),
        },
        None => text.parse().map_err(|_| bad()),
    }
}

/// The fields that differ between two Apps as users write them: labels, annotations and spec, and the set.
#[must_use]
pub fn field_changes(before: &App, after: &App) -> Vec<FieldChange> {
    let view = |app: &App| {
        serde_json::json!({
            "metadata": { "labels": app.metadata.labels, "annotations": app.metadata.annotations, "set": app.metadata.set },
            "spec": app.spec,
        })
    };
    let mut changes = Vec::new();
    compare(String::new(), Some(&view(before)), Some(&view(after)), &mut changes);
    changes
}

/// Lists of the same length are compared item by item, others as a whole: what moved in one cannot be told.
fn compare(pointer: String, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    let (before, after) = (before.filter(|v| !is_nothing(v)), after.filter(|v| !is_nothing(v)));
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                compare(crate::pointer::join(&pointer, key), old.get(key), new.get(key), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare(format!("{pointer}/{at}"), Some(old), Some(new), changes);
            }
        }
        (before, after) => changes.push(FieldChange { pointer, before: before.cloned(), after: after.cloned() }),
    }
}

/// What is left out when an App is written: it means the same as nothing.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Sixteen hexadecimal digits over everything that a plan says, and what it stands on.
#[must_use]
pub fn hash(plan: &Plan) -> String {
    let all = serde_json::json!([plan.apps, plan.effects, plan.refusals, plan.basis.revisions]);
    // Keys are sorted in `Value`, so the text is the same wherever it is made.
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(all.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(text: &str) -> App {
        crate::manifest::parse("test", text).expect("a valid manifest").remove(0).app
    }

    const ONE: &str =
        "apiVersion: cluster/v1\nkind: App\nmetadata: {name: api}\nspec: {mode: Replicas, replicas: 3, exec: {command: [/bin/a, -x]}}\n";

    #[test]
    fn defaults_and_order_make_no_difference() {
        let other = "kind: App\nspec: {exec: {command: [/bin/a, '-x'], environment: {}}, standby: Cold, placement: {}, replicas: 3, mode: Replicas}\n\
                     metadata: {labels: {}, name: api}\napiVersion: cluster/v1\n";
        assert_eq!(field_changes(&app(ONE), &app(other)), []);
    }

    #[test]
    fn each_field_that_changes_is_named_with_both_values() {
        let other = ONE.replace("replicas: 3", "replicas: 5").replace("-x]", "-y]").replace("{name: api}", "{name: api, labels: {a/b: c}}");
        let changes = field_changes(&app(ONE), &app(&other));
        let seen: Vec<String> = changes.iter().map(|c| format!("{} {:?} {:?}", c.pointer, c.before, c.after)).collect();
        assert_eq!(
            seen,
            [
                r#"/metadata/labels None Some(Object {"a/b": String("c")})"#,
                r#"/spec/exec/command/1 Some(String("-x")) Some(String("-y"))"#,
                "/spec/replicas Some(Number(3)) Some(Number(5))",
            ]
        );
    }

    #[test]
    fn lists_of_other_lengths_are_told_as_a_whole() {
        let other = ONE.replace("-x]", "-x, -y]");
        let changes = field_changes(&app(ONE), &app(&other));
        assert_eq!((changes.len(), changes[0].pointer.as_str()), (1, "/spec/exec/command"));
    }

    #[test]
    fn a_quarter_may_go_and_one_always() {
        let limit = |text, size| max_delete(text, size).ok();
        assert_eq!([limit(None, 0), limit(None, 3), limit(None, 8), limit(None, 11)], [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(
            [limit(Some("0"), 9), limit(Some("0%"), 9), limit(Some("100%"), 9), limit(Some("7"), 9)],
            [Some(0), Some(0), Some(9), Some(7)]
        );
        assert_eq!([limit(Some("101%"), 9), limit(Some("-1"), 9), limit(Some("x"), 9), limit(Some(""), 9)], [None; 4]);
    }
}
