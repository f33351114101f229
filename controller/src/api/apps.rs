//! Apps: write, delete. Writes go to the store by compare-and-set; any controller takes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cluster_bus::{KvError, Revised};
use cluster_schemas::App;
use cluster_schemas::api::{Applied, Deleted, FieldProblem, Outcome};
use cluster_schemas::manifest;
use cluster_schemas::name::check_name;
use cluster_schemas::plan::PlanOptions;
use schemars::JsonSchema;
use serde::Deserialize;
use tracing::info;

use super::input::{Input, Parameters};
use super::{Api, ApiError, audit};
use crate::world::World;
use crate::{planning, recovery};

/// Attempts of a write that stands on no revision of the user's, when other writes come between.
const ATTEMPTS: u32 = 5;

/// The caches' Apps.
pub(super) fn apps_of(world: &World) -> Result<&BTreeMap<String, App>, ApiError> {
    world.apps.as_ref().ok_or_else(|| ApiError::unavailable("the caches are not complete yet"))
}

pub(super) fn no_app(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no App {name:?}"))
}

/// Parameters of a write.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PutQuery {
    /// Write it only if there is no App of this name.
    #[serde(default)]
    only_new: bool,
}

/// `PUT /v1/apps/NAME`
pub async fn put(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<PutQuery>,
    Input(value): Input<serde_json::Value>,
) -> Result<(StatusCode, Json<Applied>), ApiError> {
    let wanted = manifest::from_json(&value).map_err(|problems| ApiError::invalid(&format!("App {name:?}"), problems))?;
    if wanted.metadata.name != name {
        return Err(ApiError::bad_request(format!("the path names {name:?}, metadata.name is {:?}", wanted.metadata.name)));
    }
    let store = api.store()?;
    for attempt in 1.. {
        let present = store.get(&name).await?;
        // Who lost a race for the name comes here again, and finds the other's.
        if query.only_new && present.as_ref().is_some_and(|present| !present.value.is_deleted()) {
            return Err(ApiError::conflict(format!("App {name:?} exists")));
        }
        let claimed = claimed_by_others(&api.world.read(), &wanted);
        if !claimed.is_empty() {
            return Err(ApiError::invalid(&format!("App {name:?}"), claimed));
        }
        match write(&api, present, wanted.clone(), &PlanOptions::default()).await {
            Err(KvOrApi::Kv(KvError::Conflict { .. })) if wanted.metadata.resource_version == 0 && attempt < ATTEMPTS => {}
            Err(KvOrApi::Kv(error)) => return Err(error.into()),
            Err(KvOrApi::Api(error)) => return Err(error),
            Ok(applied) => {
                info!(app = name, generation = applied.app.metadata.generation, outcome = ?applied.outcome, "App written");
                let status = if applied.outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
                return Ok((status, Json(applied)));
            }
        }
    }
    Err(ApiError::conflict(format!("App {name:?} is written by others all the time, try again")))
}

/// Why one write did not happen.
pub(super) enum KvOrApi {
    Kv(KvError),
    Api(ApiError),
}

/// Makes the stored App `present` be as `wanted` says, if it still is `present`. Who else has its VIP or unit was looked at before.
pub(super) async fn write(api: &Api, present: Option<Revised<App>>, mut wanted: App, options: &PlanOptions) -> Result<Applied, KvOrApi> {
    let name = wanted.metadata.name.clone();
    let expected = wanted.metadata.resource_version;
    let stale = |now: &str| {
        KvOrApi::Api(ApiError::conflict(format!(
            "App {name:?} has {now}, not revision {expected} that this write stands on: read it again and merge your change"
        )))
    };
    let store = api.store().map_err(KvOrApi::Api)?;
    let Some(Revised { value: mut old, revision }) = present else {
        if expected != 0 {
            return Err(stale("no revision, it does not exist"));
        }
        let runs = recovery::identity_that_runs(&api.world.read(), &name, Instant::now());
        (wanted.metadata.uid, wanted.metadata.generation) = runs.unwrap_or_else(|| (uuid::Uuid::new_v4().to_string(), 1));
        wanted.metadata.resource_version = 0;
        wanted.metadata.creation_timestamp = Some(format!("{:.0}", jiff::Timestamp::now()));
        wanted.metadata.deletion_timestamp = None;
        wanted.metadata.set.clone_from(&options.set);
        wanted.metadata.source_revision.clone_from(&options.source_revision);
        let revision = store.create(&name, &wanted).await.map_err(KvOrApi::Kv)?;
        wanted.metadata.resource_version = revision;
        audit::app_written(api, None, Some(&wanted)).await;
        return Ok(Applied { outcome: Outcome::Created, app: wanted });
    };
    if expected != 0 && expected != revision {
        return Err(stale(&format!("revision {revision}")));
    }
    if old.is_deleted() {
        return Err(KvOrApi::Api(ApiError::conflict(format!("App {name:?} is being deleted, apply it again when it is gone"))));
    }
    let problems = manifest::validate_update(&old, &wanted);
    if !problems.is_empty() {
        return Err(KvOrApi::Api(ApiError::invalid(&format!("App {name:?}"), problems)));
    }
    if let Some(other) = planning::owned_by_another(&old, options) {
        return Err(KvOrApi::Api(ApiError::conflict(format!("App {name:?} belongs to the set {other:?}"))));
    }
    let mut new = planning::next_version(&old, wanted, options);
    if new == old {
        new.metadata.resource_version = revision;
        audit::wrote_nothing();
        return Ok(Applied { outcome: Outcome::Unchanged, app: new });
    }
    new.metadata.resource_version = store.update(&name, &new, revision).await.map_err(KvOrApi::Kv)?;
    old.metadata.resource_version = revision;
    audit::app_written(api, Some(&old), Some(&new)).await;
    Ok(Applied { outcome: Outcome::Configured, app: new })
}

/// VIPs and units that another App has already. Two writes at the same moment can slip past this; the planner then gives the thing to
/// the older App and says so on the other.
fn claimed_by_others(world: &World, wanted: &App) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let others = world.apps.iter().flatten().filter(|(name, other)| **name != wanted.metadata.name && !other.is_deleted());
    for (name, other) in others {
        if let (Some(mine), Some(theirs)) = (&wanted.spec.vip, &other.spec.vip)
            && mine.ip() == theirs.ip()
        {
            problems.push(FieldProblem {
                pointer: "/spec/vip/address".to_owned(),
                message: format!("{} is the VIP of App {name:?} already", theirs.address),
                hint: Some("give this App an address of its own, or delete the other".to_owned()),
            });
        }
        if wanted.unit_name() == other.unit_name() {
            problems.push(FieldProblem {
                pointer: "/spec/unit/name".to_owned(),
                message: format!("{} is run by App {name:?} already", other.unit_name()),
                hint: Some("one unit belongs to one App; a template (name@instance.service) gives each its own".to_owned()),
            });
        }
    }
    problems
}

/// Parameters of a deletion.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteQuery {
    /// Do not wait for nodes that cannot be reached.
    #[serde(default)]
    force: bool,
}

/// `DELETE /v1/apps/NAME`
pub async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<DeleteQuery>,
) -> Result<Json<Deleted>, ApiError> {
    // A name becomes part of a subject, where `*` and `>` mean others.
    check_name(&name).map_err(|_| no_app(&name))?;
    remove(&api, &name, query.force, None).await.map(Json)
}

/// Asks for the deletion of an App; with `expected`, of that revision only.
pub(super) async fn remove(api: &Api, name: &str, force: bool, expected: Option<u64>) -> Result<Deleted, ApiError> {
    let store = api.store()?;
    for _ in 0..ATTEMPTS {
        let Some(Revised { mut value, revision }) = store.get(name).await? else { return Err(no_app(name)) };
        if expected.is_some_and(|expected| expected != revision) {
            return Err(ApiError::conflict(format!("App {name:?} was changed since")));
        }
        value.metadata.resource_version = revision;
        let before = value.clone();
        let written = if force {
            store.delete(name, revision).await.map(|()| (true, None))
        } else if value.is_deleted() {
            Ok((false, Some(revision)))
        } else {
            value.metadata.deletion_timestamp = Some(format!("{:.0}", jiff::Timestamp::now()));
            store.update(name, &value, revision).await.map(|revision| (false, Some(revision)))
        };
        match written {
            Ok((gone, now)) => {
                match now {
                    Some(now) if now == revision => audit::wrote_nothing(),
                    Some(now) => {
                        value.metadata.resource_version = now;
                        audit::app_written(api, Some(&before), Some(&value)).await;
                    }
                    None => audit::app_written(api, Some(&before), None).await,
                }
                info!(app = name, force, "deletion asked for");
                let may_still_run = if gone { may_still_run(&api.world.read(), name) } else { Vec::new() };
                return Ok(Deleted { gone, may_still_run });
            }
            Err(KvError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::conflict(format!("App {name:?} is written by others all the time, try again")))
}

/// Nodes whose assignment or status has something of the App.
fn may_still_run(world: &World, app: &str) -> Vec<String> {
    let assigned = world.assignments.iter().flatten().filter(|(_, a)| a.value.apps.contains_key(app)).map(|(n, _)| n);
    let observed = world.statuses.iter().flatten().filter(|(_, s)| s.value.apps.contains_key(app)).map(|(n, _)| n);
    assigned.chain(observed).cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
