//! What operators do to a cluster that runs: set nodes apart, move Singletons.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use cluster_bus::{CORDON_PREFIX, CordonOrder, HANDOVER_PREFIX, HandoverOrder, Revised};
use cluster_schemas::api::{CordonRequest, Cordoned, Failovers, List, Switchover, SwitchoverRequest};
use cluster_schemas::name::check_name;
use cluster_schemas::node::{ActiveRecord, Cordon};
use cluster_schemas::plan::FieldChange;
use tracing::info;

use super::input::Input;
use super::{Api, ApiError, audit};
use crate::handover::{Refusal, judge};

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

const fn standing(drain: bool) -> Cordon {
    if drain { Cordon::Draining } else { Cordon::Cordoned }
}

fn known_node(api: &Api, name: &str) -> Result<(), ApiError> {
    let world = api.world.read();
    let nodes = world.nodes.as_ref().ok_or_else(|| ApiError::unavailable("the caches are not complete yet"))?;
    nodes.contains_key(name).then_some(()).ok_or_else(|| ApiError::not_found(format!("there is no node {name:?}")))
}

/// `PUT /v1/nodes/NAME/cordon`
pub async fn cordon(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Input(request): Input<CordonRequest>,
) -> Result<Json<Cordoned>, ApiError> {
    known_node(&api, &name)?;
    let key = format!("{CORDON_PREFIX}{name}");
    let cordons = &api.stores()?.cordons;
    let order = CordonOrder { at: now(), drain: request.drain };
    let present = cordons.get(&key).await?;
    let before = present.as_ref().map_or(Cordon::None, |present| standing(present.value.drain));
    match present {
        Some(present) if present.value.drain == request.drain => {
            audit::wrote_nothing();
            return Ok(Json(Cordoned { cordon: standing(request.drain), changed: false }));
        }
        Some(present) => cordons.update(&key, &order, present.revision).await?,
        None => cordons.create(&key, &order).await?,
    };
    audit::replaced(format!("node/{name}"), Some(&before), Some(&standing(request.drain)));
    info!(node = name, drain = request.drain, "set apart");
    Ok(Json(Cordoned { cordon: standing(request.drain), changed: true }))
}

/// `DELETE /v1/nodes/NAME/cordon`
pub async fn uncordon(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<Cordoned>, ApiError> {
    known_node(&api, &name)?;
    let key = format!("{CORDON_PREFIX}{name}");
    let cordons = &api.stores()?.cordons;
    let Some(present) = cordons.get(&key).await? else {
        audit::wrote_nothing();
        return Ok(Json(Cordoned { cordon: Cordon::None, changed: false }));
    };
    cordons.delete(&key, present.revision).await?;
    audit::replaced(format!("node/{name}"), Some(&standing(present.value.drain)), Some(&Cordon::None));
    info!(node = name, "not set apart any more");
    Ok(Json(Cordoned { cordon: Cordon::None, changed: true }))
}

/// `POST /v1/apps/NAME/switchover`
pub async fn switch_over(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Input(request): Input<SwitchoverRequest>,
) -> Result<Json<Switchover>, ApiError> {
    // The name becomes part of a key.
    check_name(&name).map_err(|_| super::apps::no_app(&name))?;
    let judged = judge(&api.world.read(), &name, request.epoch, request.to.as_deref(), Instant::now());
    let judged = judged.map_err(|refusal| match refusal {
        Refusal::NoApp(_) | Refusal::NoNode(_) => ApiError::not_found(refusal.to_string()),
        Refusal::Cannot(why) => ApiError::conflict(why),
    })?;
    let handovers = &api.stores()?.handovers;
    let key = format!("{HANDOVER_PREFIX}{name}");
    let order = HandoverOrder { uid: judged.uid, epoch: request.epoch, to: judged.to.clone(), at: now() };
    match handovers.get(&key).await? {
        // Asked again by a client whose first answer was lost.
        Some(Revised { value, .. }) if HandoverOrder { at: order.at.clone(), ..value.clone() } == order => {}
        Some(present) => drop(handovers.update(&key, &order, present.revision).await?),
        None => drop(handovers.create(&key, &order).await?),
    }
    let pointer = "/status/active".to_owned();
    let (before, after) = (Some(judged.from.clone().into()), judged.to.clone().map(serde_json::Value::from));
    audit::wrote(format!("app/{name}"), vec![FieldChange { pointer, before, after }]);
    info!(app = name, from = judged.from, epoch = request.epoch, to = judged.to, "switchover asked for");
    Ok(Json(Switchover { app: name, from: judged.from, epoch: request.epoch, to: judged.to }))
}

fn takeovers(app: &str, record: &ActiveRecord) -> Failovers {
    Failovers { app: app.to_owned(), takeovers: record.takeover.iter().chain(&record.history).cloned().collect() }
}

/// `GET /v1/failovers`
pub async fn failovers(State(api): State<Arc<Api>>) -> Result<Json<List<Failovers>>, ApiError> {
    let world = api.world.read();
    let actives = world.actives.as_ref().ok_or_else(|| ApiError::unavailable("the caches are not complete yet"))?;
    Ok(Json(List::of(actives.iter().map(|(app, record)| takeovers(app, record)).collect())))
}

/// `GET /v1/failovers/APP`
pub async fn failovers_of(State(api): State<Arc<Api>>, Path(app): Path<String>) -> Result<Json<Failovers>, ApiError> {
    let world = api.world.read();
    let uid = &super::apps::apps_of(&world)?.get(&app).ok_or_else(|| super::apps::no_app(&app))?.metadata.uid;
    let record = world.actives.as_ref().and_then(|actives| actives.get(&app)).filter(|record| record.uid == *uid);
    Ok(Json(record.map_or_else(|| Failovers { app: app.clone(), takeovers: Vec::new() }, |record| takeovers(&app, record))))
}
