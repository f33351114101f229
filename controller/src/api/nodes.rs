//! Nodes: forget.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use cluster_bus::{REMOVAL_PREFIX, Removal};
use cluster_schemas::api::Removed;
use cluster_schemas::assignment::Role;
use schemars::JsonSchema;
use serde::Deserialize;
use tracing::info;

use super::input::Parameters;
use super::{Api, ApiError, audit};
use crate::world::{HEARTBEAT_TIMEOUT, World};

fn incomplete() -> ApiError {
    ApiError::unavailable("the caches are not complete yet")
}

/// Parameters of a removal.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// Although its agent is heard.
    #[serde(default)]
    force: bool,
}

/// `DELETE /v1/nodes/NAME`
pub async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<RemoveQuery>,
) -> Result<Json<Removed>, ApiError> {
    let before = api.world.read().nodes.as_ref().and_then(|nodes| nodes.get(&name).cloned());
    let removed = removal(&api.world.read(), &name, query.force, Instant::now())?;
    let order = Removal { at: format!("{:.0}", jiff::Timestamp::now()), force: query.force };
    api.stores()?.removals.put(&format!("{REMOVAL_PREFIX}{name}"), &order).await?;
    audit::replaced(format!("node/{name}"), before.as_ref(), None::<&cluster_schemas::Node>);
    info!(node = name, force = query.force, "removal asked for");
    Ok(Json(removed))
}

/// What the removal of a node would do, or why it must not be.
fn removal(world: &World, name: &str, force: bool, now: Instant) -> Result<Removed, ApiError> {
    let nodes = world.nodes.as_ref().ok_or_else(incomplete)?;
    let assignments = world.assignments.as_ref().ok_or_else(incomplete)?;
    // An assignment without a registration is what a lost bucket leaves of a node that does not come back.
    if !nodes.contains_key(name) && !assignments.contains_key(name) {
        return Err(ApiError::not_found(format!("there is no node {name:?}")));
    }
    let heard = world.heartbeats.get(name).map(|(at, _)| now.saturating_duration_since(*at));
    let alive = heard.is_some_and(|age| age < HEARTBEAT_TIMEOUT);
    if alive && !force {
        let age = heard.unwrap_or_default().as_secs_f32();
        return Err(ApiError::conflict(format!(
            "node {name:?} is alive (heard {age:.1} s ago): stop its agent there (systemctl disable --now cluster-agent) and ask again \
             after {} s; force removes it at once, although its Apps may go on there",
            HEARTBEAT_TIMEOUT.as_secs()
        )));
    }
    if !alive && !force && world.silence(name, now) < HEARTBEAT_TIMEOUT {
        return Err(ApiError::unavailable(format!(
            "this controller does not listen for long enough to tell whether node {name:?} is alive"
        )));
    }
    let assigned =
        assignments.get(name).into_iter().flat_map(|a| &a.value.apps).filter(|(_, e)| e.role != Role::Absent).map(|(app, _)| app);
    let observed = world.statuses.iter().flatten().filter(|(node, _)| *node == name).flat_map(|(_, s)| &s.value.apps);
    let observed = observed.filter(|(_, o)| o.role != Role::Absent).map(|(app, _)| app);
    let may_still_run: BTreeSet<String> = assigned.chain(observed).cloned().collect();
    Ok(Removed { node: name.to_owned(), alive, may_still_run: may_still_run.into_iter().collect() })
}
