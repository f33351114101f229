//! `GET /v1/self`: who am I.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, Role};
use cluster_schemas::node::{AppObserved, InstanceState};
use cluster_schemas::{Mode, PartitionSet};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::caller::Caller;
use super::{Local, LocalError, events};

/// What an App is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Myself {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// This node's address, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Name of the App.
    pub app: String,
    /// Its mode.
    pub mode: Mode,
    /// Its role here.
    pub role: Role,
    /// Singleton: epoch of the tenure that is, or was last, held here; 0 before the first.
    pub epoch: u64,
    /// State of the instance.
    pub state: InstanceState,
    /// Whether it can serve.
    pub healthy: bool,
    /// The unit that runs it.
    pub unit: String,
    /// The other nodes that have a place for the App, sorted.
    pub peers: Vec<String>,
    /// Ring: the partitions that the process was told to own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionSet>,
    /// Ring: the same with their epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owned: Option<Vec<OwnedPartitions>>,
    /// Tells two answers apart: another content has another version.
    pub version: String,
}

fn myself(local: &Local, app: &str) -> Option<Myself> {
    let assignment = local.assignment.borrow();
    let entry = assignment.as_deref()?.apps.get(app)?;
    let status = local.status.borrow();
    Some(of(local, app, entry, status.apps.get(app)))
}

fn of(local: &Local, app: &str, entry: &AppAssignment, seen: Option<&AppObserved>) -> Myself {
    let nothing = AppObserved::default();
    let seen = seen.unwrap_or(&nothing);
    let confirmed = seen.ring.as_ref().map(|ring| ring.confirmed.clone());
    let owned = seen.ring.as_ref().map(|ring| {
        let kept =
            |group: &OwnedPartitions| OwnedPartitions { epoch: group.epoch, partitions: group.partitions.intersection(&ring.confirmed) };
        ring.leased.iter().map(kept).filter(|group| !group.partitions.is_empty()).collect()
    });
    let mut me = Myself {
        cluster: local.names.cluster().to_owned(),
        node: local.node.clone(),
        address: local.address.clone(),
        app: app.to_owned(),
        mode: entry.mode,
        role: seen.role,
        epoch: seen.epoch,
        state: seen.state,
        healthy: seen.healthy,
        unit: cluster_schemas::app::unit_name(app, entry.run.unit.as_ref()),
        peers: entry.peers.clone(),
        partitions: confirmed,
        owned,
        version: String::new(),
    };
    me.version = version(&me);
    me
}

/// Of the content alone, so that it stands over a restart of the agent.
pub(super) fn version(content: &impl Serialize) -> String {
    format!("{:016x}", xxh3_64(&serde_json::to_vec(content).unwrap_or_default()))
}

/// `GET /v1/self[?watch=true]`
pub(super) async fn get(
    State(local): State<Arc<Local>>,
    caller: Caller,
    Query(query): Query<events::WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    if !caller.is_at_home() {
        return Err(LocalError::forbidden(format!("{} is not App {:?}", caller.name(), caller.target)));
    }
    let app = caller.target;
    let Some(me) = myself(&local, &app) else {
        return Err(LocalError::not_found(format!("App {app:?} has nothing to do on node {}", local.node)));
    };
    if !query.watch {
        return Ok(Json(me).into_response());
    }
    let last = events::last_id(&headers);
    let state = (Arc::clone(&local), app, last, local.status.clone(), local.assignment.clone());
    Ok(events::answer(futures_util::stream::unfold(state, |(local, app, last, mut status, mut assignment)| async move {
        loop {
            let now = {
                status.borrow_and_update();
                assignment.borrow_and_update();
                myself(&local, &app)
            };
            match now {
                Some(me) if me.version != last => {
                    let event = events::event("self", Some(&me.version), &me);
                    return Some((event, (local, app, me.version, status, assignment)));
                }
                // Nothing of it is here any more; who is still connected will be stopped.
                None if last != "gone" => {
                    let event = events::event("gone", Some("gone"), &serde_json::json!({ "app": app }));
                    return Some((event, (local, app, "gone".to_owned(), status, assignment)));
                }
                _ => {}
            }
            tokio::select! {
                changed = status.changed() => changed.ok()?,
                changed = assignment.changed() => changed.ok()?,
            }
        }
    })))
}
