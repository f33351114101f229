//! `/v1/kv`: the shared state of an App.

pub mod follower;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse as _, Response};
use cluster_bus::{Expect, Found, STATE_TTL, StateError, check_state_key};
use cluster_schemas::grants::Right;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use super::caller::Caller;
use super::grants::authorize;
use super::{Local, LocalError, events};
use follower::{Follower, Item, Kept};

/// Most keys of one list.
const LIST_MAX: usize = 1000;
/// Header with the revision of what an answer is about.
static REVISION: HeaderName = HeaderName::from_static("x-clusterctl-revision");
/// Header that says whether an answer may be older than what others see.
static STALE: HeaderName = HeaderName::from_static("x-clusterctl-stale");

impl From<StateError> for LocalError {
    fn from(error: StateError) -> Self {
        let text = error.to_string();
        match error {
            StateError::Key { .. } => Self::bad_request(text),
            StateError::TooLarge { .. } => Self::too_large(text),
            StateError::Conflict { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "conflict", text),
            StateError::Unavailable { .. } => Self::unavailable(text),
            StateError::Unknown { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown-outcome", text),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReadKind {
    #[default]
    Consistent,
    Fast,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadQuery {
    #[serde(default)]
    read: ReadKind,
    #[serde(default)]
    stale: String,
    #[serde(default)]
    watch: bool,
}

fn query<T>(given: Result<Query<T>, QueryRejection>) -> Result<T, LocalError> {
    given.map(|Query(query)| query).map_err(|error| LocalError::bad_request(format!("the query cannot be read: {}", error.body_text())))
}

/// `GET /v1/kv/KEY[?read=fast][&stale=ok][&watch=true]`
pub(super) async fn get(
    State(local): State<Arc<Local>>,
    caller: Caller,
    Path(key): Path<String>,
    given: Result<Query<ReadQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    let asked = query(given)?;
    check_state_key(&key)?;
    authorize(&local, &caller, Right::StateRead).await?;
    let app = &caller.target;
    if asked.watch {
        return watch_keys(&local, app, key, true, &headers).await;
    }
    if asked.read == ReadKind::Consistent {
        return value(&key, local.state.read(app, &key).await?, false);
    }
    let (follower, stale) = followed(&local, app, asked.stale == "ok").await?;
    match follower.get(&key) {
        Some(Kept { size: Some(_), value: None, .. }) if stale => {
            Err(LocalError::unavailable(format!("{key}: the store cannot be reached, and the value is not among those kept here")))
        }
        Some(Kept { size: Some(_), value: None, .. }) => value(&key, local.state.glance(app, &key).await?, false),
        Some(kept) => value(&key, Found { value: kept.value.map(|value| value.to_vec()), revision: kept.revision }, stale),
        None => value(&key, Found::default(), stale),
    }
}

/// The App's follower, and whether what it knows may be old.
async fn followed(local: &Local, app: &str, stale_ok: bool) -> Result<(Arc<Follower>, bool), LocalError> {
    let follower = local.followers.of(&local.state, app).await;
    let follower = follower.ok_or_else(|| LocalError::unavailable("too many Apps are followed on this node; read consistently instead"))?;
    if !follower.is_listed() {
        return Err(LocalError::unavailable(format!("the shared state of App {app:?} is not known here yet: the store cannot be reached")));
    }
    let stale = !local.state.is_connected();
    if stale && !stale_ok {
        return Err(LocalError::unavailable("the store cannot be reached now; what was known last is answered with stale=ok"));
    }
    Ok((follower, stale))
}

fn value(key: &str, found: Found, stale: bool) -> Result<Response, LocalError> {
    let Some(value) = found.value else {
        let mut response = LocalError::not_found(format!("{key}: there is no such key")).into_response();
        mark(&mut response, found.revision, stale);
        return Ok(response);
    };
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response();
    mark(&mut response, found.revision, stale);
    Ok(response)
}

fn mark(response: &mut Response, revision: u64, stale: bool) {
    let headers = response.headers_mut();
    headers.insert(REVISION.clone(), HeaderValue::from(revision));
    headers.insert(STALE.clone(), HeaderValue::from_static(if stale { "true" } else { "false" }));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        headers.insert(header::ETAG, tag);
    }
}

/// What a write answers.
#[derive(Debug, Serialize)]
struct Written {
    key: String,
    revision: u64,
}

fn expectation(headers: &HeaderMap) -> Result<Expect, LocalError> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_owned());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Any),
        (None, Some(all)) if all == "*" => Ok(Expect::Absent),
        (Some(revision), None) => {
            let number = revision.trim_matches('"').parse().ok().filter(|revision| *revision > 0);
            number.map(Expect::Revision).ok_or_else(|| LocalError::bad_request("If-Match: give one revision, such as 17"))
        }
        _ => Err(LocalError::bad_request("give either If-Match: REVISION or If-None-Match: *")),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WriteQuery {
    ttl: Option<String>,
}

/// `PUT /v1/kv/KEY[?ttl=30s]`
pub(super) async fn put(
    State(local): State<Arc<Local>>,
    caller: Caller,
    Path(key): Path<String>,
    given: Result<Query<WriteQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, LocalError> {
    let (asked, expect) = (query(given)?, expectation(&headers)?);
    check_state_key(&key)?;
    let ttl = asked.ttl.as_deref().map(ttl).transpose()?;
    authorize(&local, &caller, Right::StateWrite).await?;
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => LocalError::too_large(format!("{key}: a value has at most {} bytes", super::BODY_MAX)),
        _ => LocalError::bad_request(format!("{key}: the body cannot be read: {}", error.body_text())),
    })?;
    let revision = local.state.write(&caller.target, &key, body.to_vec(), expect, ttl).await?;
    Ok(Json(Written { key, revision }).into_response())
}

fn ttl(text: &str) -> Result<Duration, LocalError> {
    let unit = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)].into_iter().find_map(|(unit, of)| Some((text.strip_suffix(unit)?, of)));
    let number =
        |(digits, of): (&str, u64)| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()?.checked_mul(of))?;
    let time = unit.and_then(number).map(Duration::from_secs).filter(|time| (STATE_TTL.0..=STATE_TTL.1).contains(time));
    time.ok_or_else(|| LocalError::bad_request(format!("ttl={text}: give a time such as 30s, 90m, 12h or 7d, one second to a year")))
}

/// `DELETE /v1/kv/KEY`
pub(super) async fn delete(
    State(local): State<Arc<Local>>,
    caller: Caller,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    let expect = match expectation(&headers)? {
        Expect::Absent => {
            return Err(LocalError::bad_request("a key that is not there cannot be deleted: If-None-Match has no meaning here"));
        }
        expect => expect,
    };
    check_state_key(&key)?;
    authorize(&local, &caller, Right::StateWrite).await?;
    let revision = local.state.delete(&caller.target, &key, expect).await?;
    Ok(Json(Written { key, revision }).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<usize>,
    #[serde(default)]
    stale: String,
    #[serde(default)]
    watch: bool,
}

#[derive(Debug, Serialize)]
struct Listed {
    key: String,
    revision: u64,
    size: usize,
}

/// `GET /v1/kv[?prefix=P][&after=KEY][&limit=N][&watch=true]`
pub(super) async fn list(
    State(local): State<Arc<Local>>,
    caller: Caller,
    given: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    let asked = query(given)?;
    authorize(&local, &caller, Right::StateRead).await?;
    if asked.watch {
        return watch_keys(&local, &caller.target, asked.prefix, false, &headers).await;
    }
    let (follower, stale) = followed(&local, &caller.target, asked.stale == "ok").await?;
    let limit = asked.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let (found, more) = follower.list(&asked.prefix, &asked.after, limit);
    let items: Vec<Listed> =
        found.into_iter().map(|(key, kept)| Listed { key, revision: kept.revision, size: kept.size.unwrap_or(0) }).collect();
    let mut response = Json(serde_json::json!({ "items": items, "more": more })).into_response();
    response.headers_mut().insert(STALE.clone(), HeaderValue::from_static(if stale { "true" } else { "false" }));
    Ok(response)
}

/// What a watch tells of a key.
#[derive(Debug, Serialize)]
struct Told<'a> {
    key: &'a str,
    revision: u64,
    /// As text, where it is UTF-8 and was kept here; who wants others reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
}

fn told(key: &str, revision: u64, present: bool, value: Option<&[u8]>) -> Event {
    let name = if present { "put" } else { "delete" };
    let value = value.and_then(|value| std::str::from_utf8(value).ok());
    events::event(name, Some(&revision.to_string()), &Told { key, revision, value })
}

fn told_item(item: &Item) -> Event {
    told(&item.key, item.revision, item.value.is_some(), item.value.as_deref())
}

async fn watch_keys(local: &Arc<Local>, app: &str, prefix: String, exact: bool, headers: &HeaderMap) -> Result<Response, LocalError> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or("0");
    let last: u64 = last.trim().parse().map_err(|_| LocalError::bad_request("Last-Event-ID: it is a revision here, such as 17"))?;
    let (follower, _) = followed(local, app, true).await?;
    let (first, changes) = follower.since(&prefix, last);
    let begin: std::collections::VecDeque<(String, Kept)> = first.into();
    let watcher = Watcher { begin, synced: false, changes, follower, prefix, exact, over: false };
    Ok(events::answer(futures_util::stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((event, watcher))
    })))
}

struct Watcher {
    /// What was known when it began.
    begin: std::collections::VecDeque<(String, Kept)>,
    synced: bool,
    changes: tokio::sync::broadcast::Receiver<Arc<Item>>,
    /// Held, so that the App is followed as long as this lives.
    follower: Arc<Follower>,
    prefix: String,
    exact: bool,
    over: bool,
}

impl Watcher {
    fn wants(&self, key: &str) -> bool {
        if self.exact { key == self.prefix } else { key.starts_with(&self.prefix) }
    }

    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        while let Some((key, kept)) = self.begin.pop_front() {
            if !self.wants(&key) {
                continue;
            }
            // A value that there was no room for here is told without it.
            return Some(told(&key, kept.revision, kept.size.is_some(), kept.value.as_deref()));
        }
        if !std::mem::replace(&mut self.synced, true) {
            return Some(events::event("synced", None, &serde_json::json!({})));
        }
        loop {
            match self.changes.recv().await {
                Ok(item) if self.wants(&item.key) => return Some(told_item(&item)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    self.over = true;
                    let reason = format!("this watch was too slow, {missed} changes are lost to it; connect again with Last-Event-ID");
                    return Some(events::event("dropped", None, &serde_json::json!({ "reason": reason })));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("prefix", &self.prefix).field("listed", &self.follower.is_listed()).finish()
    }
}
