//! Apps, nodes and assignments: lists in pages, single objects, and the way to their watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cluster_schemas::api::FieldProblem;
use cluster_schemas::{App, AppStatus, Metadata};
use serde::Serialize;

use super::query::{ListQuery, PAGE_MAX};
use super::{Api, ApiError, watch};
use crate::changes::{Behind, Kind, Point, PointError};
use crate::world::World;

/// Longest wait for this controller's cache to reach a revision that was asked for. Below the patience of clients with a read.
const AT_LEAST_WAIT: Duration = Duration::from_secs(2);

/// `GET /v1/apps`
pub async fn apps(state: State<Arc<Api>>, query: ListQuery) -> Result<Response, ApiError> {
    many(state.0, Kind::Apps, query).await
}

/// `GET /v1/apps/NAME`
pub async fn app(state: State<Arc<Api>>, Path(name): Path<String>, query: ListQuery) -> Result<Response, ApiError> {
    single(state.0, Kind::Apps, name, query).await
}

/// `GET /v1/nodes`
pub async fn nodes(state: State<Arc<Api>>, query: ListQuery) -> Result<Response, ApiError> {
    many(state.0, Kind::Nodes, query).await
}

/// `GET /v1/nodes/NAME`
pub async fn node(state: State<Arc<Api>>, Path(name): Path<String>, query: ListQuery) -> Result<Response, ApiError> {
    single(state.0, Kind::Nodes, name, query).await
}

/// `GET /v1/assignments`
pub async fn assignments(state: State<Arc<Api>>, query: ListQuery) -> Result<Response, ApiError> {
    many(state.0, Kind::Assignments, query).await
}

/// `GET /v1/assignments/NODE`
pub async fn assignment(state: State<Arc<Api>>, Path(node): Path<String>, query: ListQuery) -> Result<Response, ApiError> {
    single(state.0, Kind::Assignments, node, query).await
}

async fn many(api: Arc<Api>, kind: Kind, query: ListQuery) -> Result<Response, ApiError> {
    if kind == Kind::Assignments && !query.selector.is_empty() {
        let message = "assignments have no labels".to_owned();
        return Err(ApiError::bad_query(vec![FieldProblem { pointer: "?labelSelector".to_owned(), message, hint: None }]));
    }
    reach(&api, kind, &query).await?;
    if query.watch {
        return watch::begin(&api, kind, None, query);
    }
    let world = api.world.read();
    page(&world, kind, &query).map(json)
}

async fn single(api: Arc<Api>, kind: Kind, name: String, query: ListQuery) -> Result<Response, ApiError> {
    let wrong = [("?limit", query.limit.is_some()), ("?continue", query.after.is_some()), ("?labelSelector", !query.selector.is_empty())];
    let message = "this is one object, not a list".to_owned();
    let wrong: Vec<FieldProblem> = wrong
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(pointer, _)| FieldProblem { pointer: pointer.to_owned(), message: message.clone(), hint: None })
        .collect();
    if !wrong.is_empty() {
        return Err(ApiError::bad_query(wrong));
    }
    reach(&api, kind, &query).await?;
    if query.watch {
        return watch::begin(&api, kind, Some(name), query);
    }
    let world = api.world.read();
    complete(&world, kind)?;
    let object = render(&world, kind, &name, Instant::now()).ok_or_else(|| match kind {
        Kind::Apps => super::apps::no_app(&name),
        Kind::Nodes => ApiError::not_found(format!("there is no node {name:?}")),
        Kind::Assignments => ApiError::not_found(format!("there is no assignment for a node {name:?}")),
    })?;
    Ok(json(object))
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Waits until this controller's cache has everything up to where the request goes on from.
async fn reach(api: &Api, kind: Kind, query: &ListQuery) -> Result<(), ApiError> {
    let mut changes = api.world.changes();
    let wanted = [("?atLeast", &query.at_least), ("?resourceVersion", &query.since)];
    let end = tokio::time::Instant::now() + AT_LEAST_WAIT;
    loop {
        changes.mark_unchanged();
        let missing = {
            let world = api.world.read();
            complete(&world, kind)?;
            let mut missing = None;
            for (pointer, text) in wanted {
                let Some(text) = text else { continue };
                let point = point(&world, kind, pointer, text)?;
                if !world.changes.of(kind).point.reaches(&point) {
                    missing = Some((text, position(&world, kind)));
                }
            }
            missing
        };
        let Some((text, now)) = missing else { return Ok(()) };
        if tokio::time::timeout_at(end, changes.changed()).await.is_err() {
            return Err(ApiError::behind(format!(
                "this controller has not seen revision {text} within {} s, it is at {now}: ask another, or list anew",
                AT_LEAST_WAIT.as_secs()
            )));
        }
    }
}

/// Reads a revision that a user gave.
pub fn point(world: &World, kind: Kind, pointer: &str, text: &str) -> Result<Point, ApiError> {
    Point::read(text, kind, incarnation(world)).map_err(|error| match error {
        PointError::Malformed => ApiError::bad_query(vec![FieldProblem {
            pointer: pointer.to_owned(),
            message: format!("{text:?} is no revision of these"),
            hint: Some("give the resourceVersion of a list or an event, as it was".to_owned()),
        }]),
        PointError::OtherStore => ApiError::gone(format!("revision {text} is of another store than the present one: begin with a list")),
    })
}

/// Why a watch cannot go on.
pub fn behind(behind: Behind) -> ApiError {
    match behind {
        Behind::Forgotten => ApiError::gone("what happened since is not kept any more: begin with a list"),
        Behind::Ahead => ApiError::behind("this controller has not seen that revision yet"),
    }
}

fn incarnation(world: &World) -> Option<&str> {
    world.mark.as_ref().map(|mark| mark.incarnation.as_str())
}

/// Where the cache stands, as users get it.
pub fn position(world: &World, kind: Kind) -> String {
    position_of(world, kind, &world.changes.of(kind).point)
}

/// A point as users get it.
pub fn position_of(world: &World, kind: Kind, point: &Point) -> String {
    point.text(kind, incarnation(world))
}

/// Whether all parts of a kind were listed.
pub fn complete(world: &World, kind: Kind) -> Result<(), ApiError> {
    let is = match kind {
        Kind::Apps => world.apps.is_some() && world.app_statuses.is_some(),
        Kind::Nodes => world.nodes.is_some() && world.statuses.is_some() && world.cordons.is_some(),
        Kind::Assignments => world.assignments.is_some(),
    };
    is.then_some(()).ok_or_else(|| ApiError::unavailable("the caches are not complete yet"))
}

/// Names of all objects after `after`, sorted.
pub fn names<'a>(world: &'a World, kind: Kind, after: &str) -> Box<dyn Iterator<Item = &'a String> + 'a> {
    fn of<'a, T>(map: Option<&'a BTreeMap<String, T>>, after: &str) -> Box<dyn Iterator<Item = &'a String> + 'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        match map {
            Some(map) => Box::new(map.range::<str, _>((Excluded(after), Unbounded)).map(|(name, _)| name)),
            None => Box::new(std::iter::empty()),
        }
    }
    match kind {
        Kind::Apps => of(world.apps.as_ref(), after),
        Kind::Nodes => of(world.nodes.as_ref(), after),
        Kind::Assignments => of(world.assignments.as_ref(), after),
    }
}

/// Labels of an object; none where it does not exist.
pub fn labels<'a>(world: &'a World, kind: Kind, name: &str) -> Option<&'a BTreeMap<String, String>> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    match kind {
        Kind::Apps => world.apps.as_ref()?.get(name).map(|app| &app.metadata.labels),
        Kind::Nodes => world.nodes.as_ref()?.get(name).map(|node| &node.labels),
        Kind::Assignments => world.assignments.as_ref()?.get(name).map(|_| &NO_LABELS),
    }
}

/// [`AppView`](cluster_schemas::api::AppView) without a copy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppViewRef<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a Metadata,
    spec: &'a cluster_schemas::AppSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a AppStatus>,
}

fn view<'a>(world: &'a World, app: &'a App) -> AppViewRef<'a> {
    let status = world.app_statuses.as_ref().and_then(|s| s.get(&app.metadata.name)).map(|s| &s.value);
    let status = status.filter(|status| status.uid == app.metadata.uid);
    AppViewRef { api_version: &app.api_version, kind: &app.kind, metadata: &app.metadata, spec: &app.spec, status }
}

/// An object as JSON; none where it does not exist.
pub fn render(world: &World, kind: Kind, name: &str, now: Instant) -> Option<String> {
    let text = match kind {
        Kind::Apps => serde_json::to_string(&view(world, world.apps.as_ref()?.get(name)?)),
        Kind::Nodes => serde_json::to_string(&world.node_view(world.nodes.as_ref()?.get(name)?, now)),
        Kind::Assignments => serde_json::to_string(&world.assignments.as_ref()?.get(name)?.value),
    };
    // Maps with text keys only: these types are always JSON.
    text.ok()
}

/// One page of a list: a [`List`](cluster_schemas::api::List), written without building it.
fn page(world: &World, kind: Kind, query: &ListQuery) -> Result<String, ApiError> {
    complete(world, kind)?;
    let now = Instant::now();
    let (stood, after) = query.after.clone().unwrap_or_else(|| (position(world, kind), String::new()));
    // What it gives back must be what a list gave.
    point(world, kind, "?continue", &stood)?;
    let limit = query.limit.unwrap_or(PAGE_MAX);
    let mut selected = names(world, kind, &after)
        .filter(|name| query.selector.is_empty() || labels(world, kind, name).is_some_and(|labels| query.selector.matches(labels)));
    let (mut body, mut last) = ("{\"items\":[".to_owned(), None);
    for name in selected.by_ref().take(limit) {
        if last.is_some() {
            body.push(',');
        }
        body.push_str(&render(world, kind, name, now).unwrap_or_default());
        last = Some(name);
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    body.push_str(&format!("],\"resourceVersion\":{}", quoted(&stood)));
    if let (Some(last), Some(_)) = (last, selected.next()) {
        body.push_str(&format!(",\"continue\":{}", quoted(&ListQuery::next(&stood, last))));
    }
    body.push('}');
    Ok(body)
}
