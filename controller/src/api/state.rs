//! Applications' shared state, for people and scripts anywhere; processes of Apps use the local API of their node.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cluster_bus::{Change, Expect, STATE_TTL, StateError};
use cluster_schemas::plan::FieldChange;
use cluster_schemas::state::{StateEntry, StateList, StatePut, StateWritten};
use schemars::JsonSchema;
use serde::Deserialize;

use super::apps::{apps_of, no_app};
use super::input::{Input, Parameters};
use super::{Api, ApiError, audit};

/// Most keys of one list.
const LIST_MAX: usize = 1000;
/// Longest wait for a list.
const LIST_WAIT: Duration = Duration::from_secs(5);

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        let text = error.to_string();
        match error {
            StateError::Key { .. } => Self::bad_request(text),
            StateError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text),
            StateError::Conflict { .. } => Self::conflict(text),
            StateError::Unavailable { .. } => Self::unavailable(text),
            // No status that clients take for "try again": the write may have happened.
            StateError::Unknown { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unknown-outcome", text),
        }
    }
}

fn known(api: &Api, name: &str) -> Result<(), ApiError> {
    let world = api.world.read();
    if apps_of(&world)?.contains_key(name) { Ok(()) } else { Err(no_app(name)) }
}

/// For the record of writes: revisions of the key as far as they are known, no values.
fn key_change(key: &str, before: Option<u64>, after: Option<u64>) -> FieldChange {
    let pointer = cluster_schemas::pointer::join("/kv", key);
    FieldChange { pointer, before: before.map(Into::into), after: after.map(Into::into) }
}

/// Parameters of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only keys that begin so.
    #[serde(default)]
    prefix: String,
    /// Only keys after this one.
    #[serde(default)]
    after: String,
    /// At most so many, 1000 where absent; more are cut to that.
    limit: Option<usize>,
}

/// `GET /v1/apps/NAME/kv`
pub async fn list(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<StateList>, ApiError> {
    let ListQuery { prefix, after, limit } = query;
    known(&api, &name)?;
    let mut watch = api.state.watch(&name).await?;
    let listed = async {
        loop {
            match watch.next().await {
                Some(Change::Listed(all)) => return Some(all),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let all = tokio::time::timeout(LIST_WAIT, listed).await.ok().flatten();
    let all = all.ok_or_else(|| ApiError::unavailable("the store cannot be listed now"))?;
    let limit = limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let mut items: Vec<StateEntry> = all
        .into_iter()
        .filter_map(|(key, entry)| {
            let key = key.strip_prefix(&name)?.strip_prefix('.')?.to_owned();
            let size = u64::try_from(entry.value?.len()).unwrap_or(u64::MAX);
            (key.starts_with(&prefix) && key > after).then_some(StateEntry { key, revision: entry.revision, size, value: None })
        })
        .take(limit + 1)
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    Ok(Json(StateList { items, more }))
}

/// `GET /v1/apps/NAME/kv/KEY`
pub async fn get(State(api): State<Arc<Api>>, Path((name, key)): Path<(String, String)>) -> Result<Json<StateEntry>, ApiError> {
    known(&api, &name)?;
    let found = api.state.read(&name, &key).await?;
    let value = found.value.ok_or_else(|| ApiError::not_found(format!("App {name:?} has no key {key:?}")))?;
    let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
    let value = String::from_utf8(value).map_err(|_| {
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "not-text", format!("{key}: the value is no text; read it by the local API of a node"))
    })?;
    Ok(Json(StateEntry { key, revision: found.revision, size, value: Some(value) }))
}

/// `PUT /v1/apps/NAME/kv/KEY`
pub async fn put(
    State(api): State<Arc<Api>>,
    Path((name, key)): Path<(String, String)>,
    Input(body): Input<StatePut>,
) -> Result<Json<StateWritten>, ApiError> {
    known(&api, &name)?;
    let expect = match (body.create, body.revision) {
        (false, None) => Expect::Any,
        (true, None) => Expect::Absent,
        (false, Some(revision)) if revision > 0 => Expect::Revision(revision),
        _ => return Err(ApiError::bad_request("give either `create` or a `revision` above 0")),
    };
    let ttl = body.ttl_seconds.map(Duration::from_secs);
    if ttl.is_some_and(|ttl| !(STATE_TTL.0..=STATE_TTL.1).contains(&ttl)) {
        return Err(ApiError::bad_request(format!("ttlSeconds: from {} to {}", STATE_TTL.0.as_secs(), STATE_TTL.1.as_secs())));
    }
    let revision = api.state.write(&name, &key, body.value.into_bytes(), expect, ttl).await?;
    audit::wrote(format!("app/{name}"), vec![key_change(&key, body.revision, Some(revision))]);
    Ok(Json(StateWritten { key, revision }))
}

/// Parameters of a deletion.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteQuery {
    /// Only if the key still has this revision.
    revision: Option<u64>,
}

/// `DELETE /v1/apps/NAME/kv/KEY`
pub async fn delete(
    State(api): State<Arc<Api>>,
    Path((name, key)): Path<(String, String)>,
    Parameters(query): Parameters<DeleteQuery>,
) -> Result<Json<StateWritten>, ApiError> {
    known(&api, &name)?;
    let revision = api.state.delete(&name, &key, query.revision.map_or(Expect::Any, Expect::Revision)).await?;
    audit::wrote(format!("app/{name}"), vec![key_change(&key, query.revision, None)]);
    Ok(Json(StateWritten { key, revision }))
}
