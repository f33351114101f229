//! Nodes and their assignments, read only.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use cluster_schemas::Assignment;
use cluster_schemas::api::{List, NodeView};

use super::{Api, ApiError};

fn incomplete() -> ApiError {
    ApiError::unavailable("the caches are not complete yet")
}

/// `GET /v1/nodes`
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<List<NodeView>>, ApiError> {
    let world = api.world.read();
    let nodes = world.nodes.as_ref().ok_or_else(incomplete)?;
    let now = Instant::now();
    Ok(Json(List { items: nodes.values().map(|node| world.node_view(node, now)).collect() }))
}

/// `GET /v1/nodes/NAME`
pub async fn one(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<NodeView>, ApiError> {
    let world = api.world.read();
    let nodes = world.nodes.as_ref().ok_or_else(incomplete)?;
    let node = nodes.get(&name).ok_or_else(|| ApiError::not_found(format!("there is no node {name:?}")))?;
    Ok(Json(world.node_view(node, Instant::now())))
}

/// `GET /v1/assignments`
pub async fn assignments(State(api): State<Arc<Api>>) -> Result<Json<List<Assignment>>, ApiError> {
    let world = api.world.read();
    let assignments = world.assignments.as_ref().ok_or_else(incomplete)?;
    Ok(Json(List { items: assignments.values().cloned().collect() }))
}

/// `GET /v1/assignments/NODE`
pub async fn assignment(State(api): State<Arc<Api>>, Path(node): Path<String>) -> Result<Json<Assignment>, ApiError> {
    let world = api.world.read();
    let assignments = world.assignments.as_ref().ok_or_else(incomplete)?;
    let found = assignments.get(&node).ok_or_else(|| ApiError::not_found(format!("there is no assignment for a node {node:?}")))?;
    Ok(Json(found.clone()))
}
