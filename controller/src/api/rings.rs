//! Rings: the table of owners, and where a key lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use cluster_schemas::api::{Located, RingOwner, RingTable};
use cluster_schemas::partition::{PartitionSet, partition_of};
use cluster_schemas::{App, Mode, Node};
use schemars::JsonSchema;
use serde::Deserialize;

use super::apps::{apps_of, no_app};
use super::input::Parameters;
use super::{Api, ApiError};
use crate::world::World;

/// `GET /v1/rings/APP`
pub async fn table(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<RingTable>, ApiError> {
    let world = api.world.read();
    Ok(Json(table_of(&world, ring(&world, &name)?)))
}

/// Parameters of a look-up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocateQuery {
    /// The key, as UTF-8.
    key: String,
}

/// `GET /v1/rings/APP/locate?key=KEY`
pub async fn locate(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<LocateQuery>,
) -> Result<Json<Located>, ApiError> {
    let world = api.world.read();
    let app = ring(&world, &name)?;
    let table = table_of(&world, app);
    let partition = partition_of(query.key.as_bytes(), table.partitions);
    let owner = table.owners.iter().find(|o| o.partitions.contains(partition));
    let epoch = owner
        .and_then(|o| world.assignments.as_ref()?.get(&o.node)?.value.apps.get(&name)?.ring.as_ref())
        .and_then(|r| r.epoch_of(partition));
    Ok(Json(Located {
        app: name,
        key: query.key,
        partition,
        version: table.version,
        node: owner.map(|o| o.node.clone()),
        address: owner.and_then(|o| o.address.clone()),
        epoch,
    }))
}

fn ring<'a>(world: &'a World, name: &str) -> Result<&'a App, ApiError> {
    let app = apps_of(world)?.get(name).ok_or_else(|| no_app(name))?;
    if app.spec.mode != Mode::Ring {
        return Err(ApiError::bad_request(format!("App {name:?} has mode {}, only a Ring has partitions", app.spec.mode.as_str())));
    }
    Ok(app)
}

fn table_of(world: &World, app: &App) -> RingTable {
    let name = &app.metadata.name;
    let partitions = app.partitions();
    let mut owners = Vec::new();
    let mut version = 0;
    let mut owned = PartitionSet::new();
    for (node, assignment) in world.assignments.iter().flatten() {
        let Some(ring) = assignment.value.apps.get(name).filter(|a| a.uid == app.metadata.uid).and_then(|a| a.ring.as_ref()) else {
            continue;
        };
        version = version.max(ring.version);
        let planned = ring.owned();
        if planned.is_empty() {
            continue;
        }
        let confirmed = world
            .statuses
            .as_ref()
            .and_then(|s| s.get(node)?.value.apps.get(name)?.ring.as_ref().map(|r| r.confirmed.intersection(&planned)))
            .unwrap_or_default();
        owned = owned.union(&planned);
        let address = world.nodes.as_ref().and_then(|n| first_address(n, node));
        owners.push(RingOwner { node: node.clone(), address, partitions: planned, confirmed });
    }
    RingTable { app: name.clone(), partitions, version, owners, unowned: PartitionSet::all(partitions).difference(&owned) }
}

fn first_address(nodes: &BTreeMap<String, Node>, node: &str) -> Option<String> {
    let address = nodes.get(node)?.addresses.values().flatten().next()?;
    Some(address.split('/').next().unwrap_or(address).to_owned())
}
