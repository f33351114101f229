//! `/v1/ring`: who owns which partition, and where a key lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use cluster_bus::{Bucket, Bus};
use cluster_schemas::assignment::{OwnedPartitions, RingAssignment};
use cluster_schemas::partition::partition_of;
use cluster_schemas::{Assignment, PartitionSet};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::caller::{Caller, Who};
use super::followed::{self, Followed};
use super::{Local, LocalError, events};

/// Longest wait for the first listing.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// What a node owns of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    partitions: u16,
    version: u64,
    own: Vec<OwnedPartitions>,
}

/// All rings, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// By node, then App; none before the first listing.
    parts: Option<BTreeMap<String, BTreeMap<String, Part>>>,
    addresses: BTreeMap<String, String>,
}

/// The rings that are followed, once somebody asked.
pub type Rings = Followed<Known>;

async fn assignments(bus: Bus, known: watch::Sender<Known>) {
    let watch = bus.open::<Assignment>(Bucket::Assignments).await.watch_checked("node.*");
    let part = |ring: &RingAssignment| Part { partitions: ring.partitions, version: ring.version, own: ring.own.clone() };
    followed::each(watch, |changes, all| {
        known.send_if_modified(|known| {
            let before = known.parts.clone();
            let parts = known.parts.get_or_insert_default();
            if all {
                parts.clear();
            }
            for (key, assignment) in changes {
                let node = key.trim_start_matches("node.").to_owned();
                let rings = assignment.into_iter().flat_map(|a| a.apps).filter_map(|(app, entry)| Some((app, part(entry.ring.as_ref()?))));
                let rings: BTreeMap<String, Part> = rings.collect();
                if rings.is_empty() { drop(parts.remove(&node)) } else { drop(parts.insert(node, rings)) }
            }
            known.parts != before
        });
    })
    .await;
}

async fn addresses(bus: Bus, known: watch::Sender<Known>) {
    followed::each_node(&bus, |changes, all| {
        known.send_if_modified(|known| {
            let before = known.addresses.clone();
            if all {
                known.addresses.clear();
            }
            for (name, node) in changes {
                match node.flatten() {
                    Some(address) => drop(known.addresses.insert(name, address)),
                    None => drop(known.addresses.remove(&name)),
                }
            }
            known.addresses != before
        });
    })
    .await;
}

/// The table of a ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    app: String,
    partitions: u16,
    /// Rises whenever an owner changes.
    version: u64,
    owners: Vec<Owner>,
    unowned: PartitionSet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    partitions: PartitionSet,
    /// By epoch: a caller with an older one is refused by the owner.
    owned: Vec<OwnedPartitions>,
}

fn table(known: &Known, app: &str) -> Option<Table> {
    let parts: Vec<(&String, &Part)> = known.parts.as_ref()?.iter().filter_map(|(node, apps)| Some((node, apps.get(app)?))).collect();
    let partitions = parts.iter().map(|(_, part)| part.partitions).max()?;
    let version = parts.iter().map(|(_, part)| part.version).max().unwrap_or(0);
    let owners: Vec<Owner> = parts
        .into_iter()
        .filter(|(_, part)| !part.own.is_empty())
        .map(|(node, part)| Owner {
            node: node.clone(),
            address: known.addresses.get(node).cloned(),
            partitions: part.own.iter().flat_map(|group| group.partitions.iter()).collect(),
            owned: part.own.clone(),
        })
        .collect();
    let owned = owners.iter().fold(PartitionSet::new(), |all, owner| all.union(&owner.partitions));
    Some(Table { app: app.to_owned(), partitions, version, owners, unowned: PartitionSet::all(partitions).difference(&owned) })
}

/// Where rings are routed is no secret: every App of the node may ask for every ring.
async fn follow(local: &Local, app: &str) -> Result<(watch::Receiver<Known>, Table), LocalError> {
    let bus = &local.bus;
    let mut known = local
        .rings
        .follow(|known| vec![tokio::spawn(assignments(bus.clone(), known.clone())), tokio::spawn(addresses(bus.clone(), known.clone()))]);
    let listed = known.wait_for(|known| known.parts.is_some());
    if tokio::time::timeout(LIST_LIMIT, listed).await.is_err() {
        return Err(LocalError::unavailable("the owners are not known here yet: the store cannot be reached"));
    }
    let found = table(&known.borrow(), app);
    let table = found.ok_or_else(|| LocalError::not_found(format!("there is no ring {app:?}")))?;
    Ok((known, table))
}

fn check(app: &str) -> Result<(), LocalError> {
    cluster_schemas::name::check_name(app).map_err(|error| LocalError::bad_request(format!("{app}: {error}")))
}

/// `GET /v1/ring/APP[?watch=true]`
pub(super) async fn get(
    State(local): State<Arc<Local>>,
    _caller: Caller,
    Path(app): Path<String>,
    Query(asked): Query<events::WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    check(&app)?;
    let (known, now) = follow(&local, &app).await?;
    if !asked.watch {
        return Ok(Json(now).into_response());
    }
    Ok(events::views(known, "ring", &headers, move |known| table(known, &app).map(|now| (now.version.to_string(), now))))
}

#[derive(Debug, Deserialize)]
pub(super) struct OwnerQuery {
    key: String,
    #[serde(default)]
    mine: bool,
}

/// `GET /v1/ring/APP/owner?key=KEY[&mine=true]`
pub(super) async fn owner(
    State(local): State<Arc<Local>>,
    caller: Caller,
    Path(app): Path<String>,
    asked: Result<Query<OwnerQuery>, QueryRejection>,
) -> Result<Response, LocalError> {
    let Query(OwnerQuery { key, mine }) = asked.map_err(|_| LocalError::bad_request("name the key: /v1/ring/APP/owner?key=KEY"))?;
    check(&app)?;
    if mine {
        return is_mine(&local, &caller, &app, &key);
    }
    let (_, table) = follow(&local, &app).await?;
    let partition = partition_of(key.as_bytes(), table.partitions);
    let owner = table.owners.iter().find(|owner| owner.partitions.contains(partition));
    let epoch = owner.and_then(|owner| owner.owned.iter().find(|group| group.partitions.contains(partition))).map(|group| group.epoch);
    Ok(Json(serde_json::json!({
        "app": app, "key": key, "partition": partition, "version": table.version,
        "node": owner.map(|o| &o.node), "address": owner.and_then(|o| o.address.as_ref()), "epoch": epoch,
    }))
    .into_response())
}

/// What this node itself knows: no store is asked.
fn is_mine(local: &Local, caller: &Caller, app: &str, key: &str) -> Result<Response, LocalError> {
    if matches!(&caller.who, Who::App(own) if own != app) {
        return Err(LocalError::forbidden(format!("{} is no member of ring {app:?}", caller.name())));
    }
    let partitions = local.assignment.borrow().as_ref().and_then(|a| a.apps.get(app)?.ring.as_ref().map(|ring| ring.partitions));
    let partitions = partitions.ok_or_else(|| LocalError::not_found(format!("ring {app:?} has no member on node {}", local.node)))?;
    let partition = partition_of(key.as_bytes(), partitions);
    let status = local.status.borrow();
    let seen = status.apps.get(app).and_then(|seen| seen.ring.as_ref());
    let leased =
        |ring: &cluster_schemas::node::RingObserved| ring.leased.iter().find(|g| g.partitions.contains(partition)).map(|g| g.epoch);
    let epoch = seen.filter(|ring| ring.confirmed.contains(partition)).and_then(leased);
    Ok(Json(serde_json::json!({ "app": app, "key": key, "partition": partition, "mine": epoch.is_some(), "epoch": epoch })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_put_together_from_what_each_node_owns() {
        let part = |version, own: &[(u16, u64)]| Part { partitions: 4, version, own: OwnedPartitions::grouped(own.iter().copied()) };
        let of = |part| BTreeMap::from([("cache".to_owned(), part)]);
        let parts = [("n1", of(part(7, &[(0, 3), (2, 5)]))), ("n2", of(part(9, &[(1, 4)]))), ("n3", of(part(1, &[])))];
        let known = Known {
            parts: Some(parts.into_iter().map(|(node, part)| (node.to_owned(), part)).collect()),
            addresses: [("n1".to_owned(), "10.0.0.1".to_owned())].into(),
        };
        let table = table(&known, "cache").unwrap();
        assert_eq!((table.partitions, table.version, table.unowned.to_string()), (4, 9, "3".to_owned()));
        let owners: Vec<(&str, Option<&str>, String)> =
            table.owners.iter().map(|o| (o.node.as_str(), o.address.as_deref(), o.partitions.to_string())).collect();
        assert_eq!(owners, [("n1", Some("10.0.0.1"), "0,2".to_owned()), ("n2", None, "1".to_owned())]);
        assert!(super::table(&known, "other").is_none() && super::table(&Known::default(), "cache").is_none());
    }
}
