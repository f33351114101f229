//! Plans: what an apply would do, and the apply that does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use cluster_bus::KvError;
use cluster_schemas::App;
use cluster_schemas::api::{FieldProblem, List};
use cluster_schemas::manifest;
use cluster_schemas::placement::PlacementView;
use cluster_schemas::plan::{APPS_MAX, AppPlan, AppResult, AppliedAll, Basis, Change, Plan, PlanOptions, PlanRequest, SetView};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tracing::info;

use super::apps::{self, KvOrApi};
use super::input::Input;
use super::{Api, ApiError, audit};
use crate::planning::{self, PlanError};

/// Largest body of these two requests, in bytes: [`APPS_MAX`] Apps of a few kilobytes each.
pub(super) const BODY_MAX: usize = 32 * 1024 * 1024;
/// Writes to the store that are under way at once.
const WRITES: usize = 16;
/// Attempts of a write that stands on no revision, when other writes come between.
const ATTEMPTS: u32 = 5;
/// Longest wait until this controller's caches have what it wrote, so that the next request finds it.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The request before its Apps are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    apps: Vec<Value>,
    #[serde(default)]
    options: PlanOptions,
    #[serde(default)]
    basis: Option<Basis>,
}

/// Reads the body by the rules of manifests, with every problem of every App.
fn read(Raw { apps, options, basis }: Raw) -> Result<PlanRequest, ApiError> {
    if apps.len() > APPS_MAX {
        return Err(ApiError::bad_request(format!("{} Apps in one request, at most {APPS_MAX} are taken", apps.len())));
    }
    let (mut read, mut problems) = (Vec::with_capacity(apps.len()), Vec::new());
    for (at, value) in apps.iter().enumerate() {
        match manifest::from_json(value) {
            Ok(app) => read.push(app),
            Err(found) => problems.extend(found.into_iter().map(|p| FieldProblem { pointer: format!("/apps/{at}{}", p.pointer), ..p })),
        }
    }
    if problems.is_empty() { Ok(PlanRequest { apps: read, options, basis }) } else { Err(ApiError::invalid("the request", problems)) }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::NotListed => Self::unavailable(error.to_string()),
            PlanError::Invalid(problems) => Self::invalid("the request", problems),
            PlanError::Conflict { detail, errors } => Self::conflict_at(detail, errors),
        }
    }
}

fn make(api: &Api, request: &PlanRequest) -> Result<Plan, PlanError> {
    planning::plan(&api.world.read(), request, api.lease_ms, Instant::now())
}

/// `POST /v1/plan`
pub(super) async fn plan(State(api): State<Arc<Api>>, Input(raw): Input<Raw>) -> Result<Json<Plan>, ApiError> {
    let request = read(raw)?;
    Ok(Json(blocking(move || make(&api, &request)).await??))
}

/// Planning for a thousand Apps takes long enough to keep others waiting.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::unavailable("planning was interrupted"))
}

/// `POST /v1/apply`: all is looked at first, and nothing is written where anything is wrong; then each App is written by itself.
pub(super) async fn apply(State(api): State<Arc<Api>>, Input(raw): Input<Raw>) -> Result<Json<AppliedAll>, ApiError> {
    let mut request = read(raw)?;
    let basis = request.basis.take();
    // Effects take time, and only a plan that was shown before has any to compare.
    let (plan, request) = {
        let (api, effects) = (Arc::clone(&api), basis.is_some());
        blocking(move || {
            let world = api.world.read();
            let plan = if effects {
                planning::plan(&world, &request, api.lease_ms, Instant::now())
            } else {
                planning::plan_without_effects(&world, &request)
            };
            plan.map(|plan| (plan, request))
        })
        .await??
    };
    if let Some(why) = basis.as_ref().and_then(|basis| planning::other_than(basis, &plan)) {
        return Err(ApiError::conflict(format!("the world is not the one that the plan was made for, nothing was written: {why}")));
    }
    if !plan.refusals.is_empty() {
        return Err(ApiError::conflict(format!("nothing was written: {}", plan.refusals.join("; "))));
    }
    let PlanRequest { apps, options, .. } = request;
    let mut apps: BTreeMap<String, App> = apps.into_iter().map(|app| (app.metadata.name.clone(), app)).collect();
    let (api, options) = (&api, &options);
    let steps = plan.apps.into_iter().map(|step| {
        let wanted = apps.remove(&step.name);
        let expected = basis.as_ref().map(|basis| basis.revisions.get(&step.name).copied().unwrap_or(0));
        async move { one(api, step, wanted, options, expected).await }
    });
    // Boxed: a stream of borrowing futures has no type that the compiler finds to be Send otherwise.
    let steps: Vec<futures_util::future::BoxFuture<'_, (AppResult, bool)>> = steps.map(|step| Box::pin(step) as _).collect();
    let done: Vec<(AppResult, bool)> = futures_util::stream::iter(steps).buffer_unordered(WRITES).collect().await;
    if let Some((result, _)) = done.iter().find(|(_, again)| *again && basis.is_none()) {
        // What shall be can be said twice: the client goes on with another controller.
        return Err(ApiError::unavailable(format!("App {:?}: {}", result.name, result.error)));
    }
    let mut results: Vec<AppResult> = done.into_iter().map(|(result, _)| result).collect();
    results.sort_by(|a, b| a.name.cmp(&b.name));
    let failed = results.iter().filter(|r| !r.error.is_empty()).count();
    info!(apps = results.len(), failed, set = options.set, "applied");
    catch_up(api, &results).await;
    Ok(Json(AppliedAll { results, warnings: plan.warnings }))
}

/// Carries out one step, and tells whether it failed in a way that another controller may be spared. `expected` is the revision that the
/// plan stands on, 0 for none.
async fn one(api: &Api, step: AppPlan, wanted: Option<App>, options: &PlanOptions, expected: Option<u64>) -> (AppResult, bool) {
    let name = step.name;
    let done = match wanted {
        None => apps::remove(api, &name, false, expected)
            .await
            .map(|_| AppResult { deleted: step.change == Change::Deleted, ..AppResult::default() }),
        Some(wanted) => Box::pin(write(api, wanted, options, expected)).await.map(|applied| AppResult {
            outcome: Some(applied.outcome),
            generation: applied.app.metadata.generation,
            resource_version: applied.app.metadata.resource_version,
            ..AppResult::default()
        }),
    };
    match done {
        Ok(result) => (AppResult { name, ..result }, false),
        Err(error) => {
            let again = error.is_unavailable();
            audit::refused(format!("app/{name}"), error.detail().to_owned());
            (AppResult { name, error: error.into_detail(), ..AppResult::default() }, again)
        }
    }
}

async fn write(
    api: &Api,
    mut wanted: App,
    options: &PlanOptions,
    expected: Option<u64>,
) -> Result<cluster_schemas::api::Applied, ApiError> {
    let name = wanted.metadata.name.clone();
    if let Some(revision) = expected.filter(|revision| *revision != 0) {
        wanted.metadata.resource_version = revision;
    }
    for attempt in 1.. {
        let present = api.store()?.get(&name).await?;
        if expected == Some(0) && present.is_some() {
            return Err(ApiError::conflict(format!("App {name:?} was made by somebody else since")));
        }
        match apps::write(api, present, wanted.clone(), options).await {
            Err(KvOrApi::Kv(KvError::Conflict { .. }))
                if wanted.metadata.resource_version == 0 && expected.is_none() && attempt < ATTEMPTS => {}
            Err(KvOrApi::Kv(error)) => return Err(error.into()),
            Err(KvOrApi::Api(error)) => return Err(error),
            Ok(applied) => return Ok(applied),
        }
    }
    Err(ApiError::conflict(format!("App {name:?} is written by others all the time, try again")))
}

/// Waits until the caches have what was written.
async fn catch_up(api: &Api, results: &[AppResult]) {
    let mut changes = api.world.changes();
    let there = || {
        let world = api.world.read();
        let Some(apps) = &world.apps else { return true };
        results.iter().filter(|r| r.error.is_empty()).all(|r| match apps.get(&r.name) {
            Some(app) if r.deleted => app.is_deleted(),
            Some(app) => app.metadata.resource_version >= r.resource_version,
            None => r.deleted,
        })
    };
    let caught_up = async {
        while !there() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    // Late is no failure: what was written is written.
    let _late = tokio::time::timeout(CATCH_UP, caught_up).await;
}

/// `GET /v1/sets`
pub(super) async fn sets(State(api): State<Arc<Api>>) -> Result<Json<List<SetView>>, ApiError> {
    let world = api.world.read();
    Ok(Json(List::of(planning::sets(apps::apps_of(&world)?))))
}

/// `GET /v1/apps/NAME/placement`
pub(super) async fn placement(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<PlacementView>, ApiError> {
    let (found, at) = {
        let world = api.world.read();
        (apps::apps_of(&world)?.contains_key(&name), Instant::now())
    };
    if !found {
        return Err(apps::no_app(&name));
    }
    let (shared, app) = (Arc::clone(&api), name.clone());
    let view = blocking(move || planning::placement(&shared.world.read(), &app, shared.lease_ms, at)).await?;
    let view = view.map_err(ApiError::unavailable)?;
    let nothing = || ApiError::conflict(format!("App {name:?} is not placed: it is being deleted, or another App has its VIP or unit"));
    view.map(Json).ok_or_else(nothing)
}
