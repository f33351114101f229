//! Databases: what the nodes that have one say, asked at this moment, and what people want done. A controller only passes it on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use cluster_schemas::App;
use cluster_schemas::assignment::Role;
use cluster_schemas::database::{
    DatabaseAnswer, DatabaseAsk, DatabaseDivergence, DatabaseJob, DatabaseNode, DatabaseStatus, DatabaseSyncRequest, DatabaseSynced,
    DatabaseVerified, DatabaseWork, SYNC_MAX_MS,
};
use futures_util::future::join_all;

use super::apps::{apps_of, no_app};
use super::input::Input;
use super::{Api, ApiError};

/// Longest wait for one node to say how it is.
const STATUS_WAIT: Duration = Duration::from_secs(1);
/// An agent's answer may take so much longer than what it waits for.
const MORE: Duration = Duration::from_secs(2);
/// Longest check of one database.
const VERIFY_WAIT: Duration = Duration::from_secs(600);

fn app_of(api: &Api, name: &str) -> Result<App, ApiError> {
    let world = api.world.read();
    let app = apps_of(&world)?.get(name).ok_or_else(|| no_app(name))?;
    match app.spec.database {
        Some(_) => Ok(app.clone()),
        None => Err(ApiError::bad_request(format!("App {name:?} has no database"))),
    }
}

/// The nodes that have the App.
fn nodes_of(api: &Api, name: &str) -> Result<BTreeSet<String>, ApiError> {
    let world = api.world.read();
    let assignments = world.assignments.as_ref().ok_or_else(|| ApiError::unavailable("the caches are not complete yet"))?;
    let has =
        |apps: &std::collections::BTreeMap<String, cluster_schemas::AppAssignment>| apps.get(name).is_some_and(|e| e.role != Role::Absent);
    Ok(assignments.iter().filter(|(_, assignment)| has(&assignment.value.apps)).map(|(node, _)| node.clone()).collect())
}

async fn all(api: &Api, name: &str) -> Result<Vec<DatabaseNode>, ApiError> {
    let nodes = nodes_of(api, name)?;
    let ask = async |node: &String| match api.bus.ask_database(name, node, &DatabaseAsk::Status, STATUS_WAIT).await {
        Some(DatabaseAnswer::Node(answer)) => answer,
        _ => DatabaseNode { node: node.clone(), role: "Unknown".to_owned(), ..DatabaseNode::default() },
    };
    Ok(join_all(nodes.iter().map(ask)).await)
}

/// What an active says of a file that is not the one it had: only an operator can say that it counts.
const NOT_THE_FILE: [&str; 2] = ["DatabaseReplaced", "DatabaseDeleted"];

/// The node on which it is active; where `promoting`, one whose promotion is held back, or whose file is not the one it had.
async fn leading(api: &Api, name: &str, promoting: bool) -> Result<String, ApiError> {
    let roles: &[&str] = if promoting { &["Promoting"] } else { &["Active", "Waiting"] };
    let nodes = all(api, name).await?;
    let waits = |node: &DatabaseNode| promoting && NOT_THE_FILE.contains(&node.observed.reason.as_str());
    let of_role = |node: &DatabaseNode| roles.contains(&node.role.as_str());
    let found = nodes.iter().filter(|node| of_role(node) || waits(node)).max_by_key(|node| (of_role(node), node.observed.epoch));
    let what = if promoting { "no promotion is held back, and no file was replaced," } else { "no node is active" };
    found.map(|node| node.node.clone()).ok_or_else(|| ApiError::conflict(format!("{what} for App {name:?}")))
}

fn refused<T>(answer: Option<DatabaseAnswer>, node: &str) -> Result<T, ApiError> {
    match answer {
        Some(DatabaseAnswer::Refused(why)) => Err(ApiError::conflict(format!("{node}: {why}"))),
        Some(_) => Err(ApiError::unavailable(format!("{node} answers something else"))),
        None => Err(ApiError::unavailable(format!("{node} does not answer"))),
    }
}

/// `GET /v1/apps/NAME/database`
pub async fn status(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<DatabaseStatus>, ApiError> {
    let spec = app_of(&api, &name)?.spec.database.unwrap_or_default();
    let nodes = all(&api, &name).await?;
    Ok(Json(DatabaseStatus { app: name, path: spec.path, confirm: spec.confirm, max_lag: spec.max_lag, nodes }))
}

/// `POST /v1/apps/NAME/database/sync`
pub async fn sync(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Input(request): Input<DatabaseSyncRequest>,
) -> Result<Json<DatabaseSynced>, ApiError> {
    app_of(&api, &name)?;
    let node = leading(&api, &name, false).await?;
    let timeout_ms = request.timeout_ms.min(SYNC_MAX_MS);
    let wait = Duration::from_millis(timeout_ms) + MORE;
    match api.bus.ask_database(&name, &node, &DatabaseAsk::Sync { timeout_ms }, wait).await {
        Some(DatabaseAnswer::Synced(synced)) => Ok(Json(synced)),
        other => refused(other, &node),
    }
}

/// `POST /v1/apps/NAME/database/accept-loss`
pub async fn accept_loss(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<DatabaseNode>, ApiError> {
    app_of(&api, &name)?;
    let node = leading(&api, &name, true).await?;
    match api.bus.ask_database(&name, &node, &DatabaseAsk::AcceptLoss, STATUS_WAIT).await {
        Some(DatabaseAnswer::Node(answer)) => Ok(Json(answer)),
        other => refused(other, &node),
    }
}

fn known(api: &Api, name: &str, node: &str) -> Result<(), ApiError> {
    // The name becomes part of a subject.
    let has = nodes_of(api, name)?.contains(node);
    has.then_some(()).ok_or_else(|| ApiError::not_found(format!("node {node:?} does not have App {name:?}")))
}

/// `GET /v1/apps/NAME/database/divergences/NODE/FILE`
pub async fn divergence(
    State(api): State<Arc<Api>>,
    Path((name, node, file)): Path<(String, String, String)>,
) -> Result<Json<DatabaseDivergence>, ApiError> {
    app_of(&api, &name)?;
    known(&api, &name, &node)?;
    match api.bus.ask_database(&name, &node, &DatabaseAsk::Divergence { name: file }, STATUS_WAIT * 10).await {
        Some(DatabaseAnswer::Divergence(divergence)) => Ok(Json(divergence)),
        other => refused(other, &node),
    }
}

/// `POST /v1/apps/NAME/database/verify/NODE`
pub async fn verify(State(api): State<Arc<Api>>, Path((name, node)): Path<(String, String)>) -> Result<Json<DatabaseVerified>, ApiError> {
    app_of(&api, &name)?;
    known(&api, &name, &node)?;
    match api.bus.ask_database(&name, &node, &DatabaseAsk::Verify, VERIFY_WAIT).await {
        Some(DatabaseAnswer::Verified(verified)) => Ok(Json(verified)),
        other => refused(other, &node),
    }
}

/// `POST /v1/apps/NAME/database/work/NODE`
pub async fn begin(
    State(api): State<Arc<Api>>,
    Path((name, node)): Path<(String, String)>,
    Input(job): Input<DatabaseJob>,
) -> Result<Json<DatabaseWork>, ApiError> {
    ask_work(&api, &name, &node, &DatabaseAsk::Begin(job), VERIFY_WAIT).await
}

/// `GET /v1/apps/NAME/database/work/NODE`
pub async fn work(State(api): State<Arc<Api>>, Path((name, node)): Path<(String, String)>) -> Result<Json<DatabaseWork>, ApiError> {
    ask_work(&api, &name, &node, &DatabaseAsk::Work, STATUS_WAIT * 10).await
}

/// A snapshot is made before it is known to have begun.
async fn ask_work(api: &Api, name: &str, node: &str, ask: &DatabaseAsk, wait: Duration) -> Result<Json<DatabaseWork>, ApiError> {
    app_of(api, name)?;
    known(api, name, node)?;
    match api.bus.ask_database(name, node, ask, wait).await {
        Some(DatabaseAnswer::Work(work)) => Ok(Json(work)),
        other => refused(other, node),
    }
}
