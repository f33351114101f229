//! Who writes what: every request that is no look is recorded with who sent it and what it changed, whatever the route.
//!
//! The record is stored after the write, and the answer waits for it, [`WAIT`] at most: where the store is slow or away the write stands, the
//! record goes to the log, and it is counted ([`Audit::missed`]). A client that goes away in between stops neither.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cluster_bus::AUDIT_PAGE_MAX;
use cluster_schemas::App;
use cluster_schemas::api::{FieldProblem, List};
use cluster_schemas::history::{Actor, Audit, AuditOutcome, AuditRecord, REVISIONS_MAX, Revision, RevisionChange};
use cluster_schemas::name::check_name;
use cluster_schemas::plan::FieldChange;
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::input::Parameters;
use super::{Api, ApiError};

/// Longest time that an answer waits for the records of its writes.
const WAIT: Duration = Duration::from_secs(1);
/// Records of one request that are on their way to the store at once.
const TOGETHER: usize = 64;
/// Records in an answer where no number is asked for.
const PAGE: usize = 100;

/// Records that could not be stored.
#[derive(Debug, Default)]
pub struct Missed(AtomicU64);

impl Missed {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a request was refused, on its way from the handler to the record.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) String);

/// One thing that a request wrote, or did not.
#[derive(Debug)]
struct Noted {
    object: String,
    /// Why not.
    refused: Option<String>,
    changes: Vec<FieldChange>,
}

#[derive(Debug)]
struct Asked {
    who: Actor,
    /// None until the handler says something, though it be that there was nothing to write.
    noted: Mutex<Option<Vec<Noted>>>,
}

tokio::task_local! {
    /// The request whose handler runs.
    static ASKED: Arc<Asked>;
}

fn note(noted: Option<Noted>) {
    // Outside of a request there is nobody to tell of.
    let _outside = ASKED.try_with(|asked| {
        asked.noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().extend(noted);
    });
}

/// The handler wrote `object`.
pub(super) fn wrote(object: String, changes: Vec<FieldChange>) {
    note(Some(Noted { object, refused: None, changes }));
}

/// The handler wrote `object`, which was `before` as a whole and is `after` now.
pub(super) fn replaced(object: String, before: Option<&impl Serialize>, after: Option<&impl Serialize>) {
    wrote(object, vec![whole(before, after)]);
}

/// One part of the request was refused.
pub(super) fn refused(object: String, why: String) {
    note(Some(Noted { object, refused: Some(why), changes: Vec::new() }));
}

/// All was so already: no record.
pub(super) fn wrote_nothing() {
    note(None);
}

fn whole(before: Option<&impl Serialize>, after: Option<&impl Serialize>) -> FieldChange {
    let value = |v: Option<serde_json::Result<serde_json::Value>>| v.and_then(Result::ok);
    FieldChange { pointer: String::new(), before: value(before.map(serde_json::to_value)), after: value(after.map(serde_json::to_value)) }
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// An App was written or goes: its revision, and what the record says. `after` has its new revision.
pub(super) async fn app_written(api: &Api, before: Option<&App>, after: Option<&App>) {
    let Some(shown) = after.or(before) else { return };
    let object = format!("app/{}", shown.metadata.name);
    let change = match (before, after) {
        (_, None) => RevisionChange::Deleted,
        (None, Some(_)) => RevisionChange::Created,
        (Some(_), Some(after)) if after.is_deleted() => RevisionChange::Deleted,
        (Some(_), Some(_)) => RevisionChange::Changed,
    };
    match (change, before, after) {
        (RevisionChange::Changed, Some(before), Some(after)) => {
            let mut changes = cluster_schemas::plan::field_changes(before, after);
            let (old, new) = (&before.metadata.source_revision, &after.metadata.source_revision);
            if old != new {
                let value = |v: &Option<String>| v.clone().map(serde_json::Value::from);
                changes.push(FieldChange { pointer: "/metadata/sourceRevision".to_owned(), before: value(old), after: value(new) });
            }
            wrote(object, changes);
        }
        (RevisionChange::Deleted, before, _) => replaced(object, before, None::<&App>),
        (_, _, after) => replaced(object, None::<&App>, after),
    }
    let who = ASKED.try_with(|asked| asked.who.clone()).unwrap_or_default();
    let mut revision = Revision::of(shown, change, who, now());
    if after.is_none() {
        // What is gone at once has no revision of its own: it came after the last.
        revision.resource_version += 1;
    }
    let found = before.map(|before| Revision::of(before, RevisionChange::Found, Actor::default(), revision.at.clone()));
    let end = tokio::time::Instant::now() + WAIT;
    let Err(why) = kept(end, Box::pin(api.bus.append_revision(&revision, found.as_ref()))).await else { return };
    api.missed.count();
    warn!(app = revision.app, who = revision.who.shown(), "the revision of a write may not be kept: {why}");
}

/// Makes the answer to a request that may write, and stores what became of it. `line` is its method and path.
pub(super) async fn recorded(api: Arc<Api>, who: Actor, line: String, answer: impl Future<Output = Response> + Send + 'static) -> Response {
    let path = line.split_once(' ').map_or(line.as_str(), |(_, path)| path).to_owned();
    let asked = Arc::new(Asked { who, noted: Mutex::new(None) });
    // Not the task of the connection: what was begun is written and recorded although the client goes away.
    let work = async move {
        let response = ASKED.scope(Arc::clone(&asked), answer).await;
        let noted = asked.noted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let status = response.status();
        let outcome = match status.as_u16() {
            200..400 => AuditOutcome::Done,
            // Full, away or of unknown outcome: the store may have it all the same.
            500.. => AuditOutcome::Unknown,
            _ => AuditOutcome::Refused,
        };
        let detail = response.extensions().get::<Refusal>().map(|refusal| refusal.0.clone()).unwrap_or_default();
        let base = AuditRecord {
            at: now(),
            who: asked.who.clone(),
            controller: api.name.clone(),
            request: line,
            object: path,
            outcome,
            status: status.as_u16(),
            detail,
            ..AuditRecord::default()
        };
        let mut records: Vec<AuditRecord> = noted
            .iter()
            .flatten()
            .map(|Noted { object, refused, changes }| AuditRecord {
                object: object.clone(),
                outcome: if refused.is_some() { AuditOutcome::Refused } else { AuditOutcome::Done },
                detail: refused.clone().unwrap_or_default(),
                changes: changes.clone(),
                ..base.clone()
            })
            .collect();
        // A handler that says nothing is recorded by its path, so that a new route is not forgotten.
        if noted.is_none() || (records.is_empty() && outcome != AuditOutcome::Done) {
            records.push(base);
        }
        store(&api, records).await;
        response
    };
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(_) => ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request broke off; its outcome is unknown")
            .into_response(),
    }
}

/// Waits for the store, [`WAIT`] at most, which ends at `end`.
async fn kept(end: tokio::time::Instant, stored: impl Future<Output = Result<(), cluster_bus::HistoryError>>) -> Result<(), String> {
    let late = |_| format!("no answer within {} s", WAIT.as_secs());
    tokio::time::timeout_at(end, stored).await.map_err(late)?.map_err(|error| error.to_string())
}

async fn store(api: &Api, records: Vec<AuditRecord>) {
    let end = tokio::time::Instant::now() + WAIT;
    let each = |record: AuditRecord| async move {
        let Err(why) = kept(end, api.bus.append_audit(&record)).await else { return };
        api.missed.count();
        let record = serde_json::to_string(&record).unwrap_or_default();
        warn!(record, "the record of a write may not be kept: {why}");
    };
    // Boxed: a stream of borrowing futures has no type that the compiler finds to be Send otherwise.
    let all: Vec<futures_util::future::BoxFuture<'_, ()>> = records.into_iter().map(|record| Box::pin(each(record)) as _).collect();
    futures_util::stream::iter(all).buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
}

/// Parameters of history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Only what was done to this object, such as `app/database`.
    #[serde(rename = "for")]
    object: Option<String>,
    /// At most so many, 1 to 1000; 100 where absent.
    limit: Option<usize>,
}

/// Parameters of the revisions of all Apps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionsQuery {
    /// At most so many, 1 to 1000; 100 where absent.
    limit: Option<usize>,
}

fn wrong(pointer: &str, message: &str) -> ApiError {
    ApiError::bad_query(vec![FieldProblem { pointer: pointer.to_owned(), message: message.to_owned(), hint: None }])
}

fn page(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(PAGE);
    let good = (1..=AUDIT_PAGE_MAX).contains(&limit);
    good.then_some(limit).ok_or_else(|| wrong("?limit", &format!("no number from 1 to {AUDIT_PAGE_MAX}")))
}

impl HistoryQuery {
    fn read(self) -> Result<(Option<String>, usize), ApiError> {
        let Self { object, limit } = self;
        // It becomes part of a subject.
        let good =
            |object: &String| object.split_once('/').is_some_and(|(kind, name)| check_name(kind).is_ok() && check_name(name).is_ok());
        if object.as_ref().is_some_and(|object| !good(object)) {
            return Err(wrong("?for", "no object such as app/database"));
        }
        Ok((object, page(limit)?))
    }
}

impl From<cluster_bus::HistoryError> for ApiError {
    fn from(error: cluster_bus::HistoryError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// `GET /v1/audit[?for=KIND/NAME&limit=N]`
pub(super) async fn list(State(api): State<Arc<Api>>, Parameters(query): Parameters<HistoryQuery>) -> Result<Json<Audit>, ApiError> {
    let (object, limit) = query.read()?;
    let items = api.bus.audit(object.as_deref(), limit).await?;
    Ok(Json(Audit { items, missed: api.missed.0.load(Ordering::Relaxed) }))
}

/// `GET /v1/revisions[?limit=N]`
pub(super) async fn revisions(
    State(api): State<Arc<Api>>,
    Parameters(RevisionsQuery { limit }): Parameters<RevisionsQuery>,
) -> Result<Json<List<Revision>>, ApiError> {
    Ok(Json(List::of(api.bus.revisions(None, page(limit)?).await?)))
}

/// `GET /v1/apps/NAME/revisions`: of an App that was deleted, too.
pub(super) async fn revisions_of(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<List<Revision>>, ApiError> {
    // The name becomes part of a subject.
    check_name(&name).map_err(|_| super::apps::no_app(&name))?;
    let found = api.bus.revisions(Some(&name), REVISIONS_MAX).await?;
    if found.is_empty() && !super::apps::apps_of(&api.world.read())?.contains_key(&name) {
        return Err(super::apps::no_app(&name));
    }
    Ok(Json(List::of(found)))
}
