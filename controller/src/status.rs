//! Statuses of Apps: computed by the planner without a clock; here the times of transitions are put in.

use std::collections::BTreeMap;

use cluster_bus::Revised;
use cluster_planner::{NodeInput, Plan};
use cluster_schemas::status::Condition;
use cluster_schemas::{App, AppStatus};

/// The statuses of all Apps. A condition keeps its time as long as its status stays what it was.
pub fn compute(
    apps: &BTreeMap<String, App>,
    plan: &Plan,
    nodes: &BTreeMap<String, NodeInput>,
    known: &BTreeMap<String, Revised<AppStatus>>,
) -> BTreeMap<String, AppStatus> {
    let now = jiff::Timestamp::now();
    apps.iter()
        .filter(|(name, _)| !plan.gone.contains(name))
        .map(|(name, app)| {
            let mut status = cluster_planner::status::app_status(app, plan, nodes);
            let before = known.get(name).map(|k| &k.value).filter(|k| k.uid == status.uid);
            for condition in &mut status.conditions {
                condition.last_transition_time = Some(transition(condition, before, now));
            }
            (name.clone(), status)
        })
        .collect()
}

fn transition(condition: &Condition, before: Option<&AppStatus>, now: jiff::Timestamp) -> String {
    before
        .and_then(|b| b.condition(&condition.kind))
        .filter(|b| b.status == condition.status)
        .and_then(|b| b.last_transition_time.clone())
        .unwrap_or_else(|| format!("{now:.0}"))
}
