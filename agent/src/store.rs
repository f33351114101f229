//! What the agent stores: its registration, its status, who is active. Each by one task that writes the newest and tries again for ever;
//! nothing on the node waits for it.
//!
//! A bucket that was lost is written anew. A registration that somebody deleted is not: this node was removed from the cluster, and
//! comes back only when its agent is started again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_bus::{Bucket, Bus, KeyState, Kv, KvError};
use cluster_schemas::node::ActiveRecord;
use cluster_schemas::{Node, NodeStatus};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

use crate::drivers::Vips;
use crate::identity;

/// Wait before a write is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the registration is compared with what is so.
const REGISTRATION_CHECK: Duration = Duration::from_secs(10);

/// What the other tasks know of the registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Membership {
    /// Rises when a bucket was found lost: all that was stored is stored again.
    pub lost: u64,
    /// Somebody removed this node from the cluster.
    pub removed: bool,
}

/// Stores the newest status whenever it changes; its revision goes into heartbeats.
pub async fn store_status(
    bus: Bus,
    mut status: watch::Receiver<NodeStatus>,
    revision: Arc<AtomicU64>,
    mut membership: watch::Receiver<Membership>,
) {
    let kv: Kv<NodeStatus> = bus.open(Bucket::Status).await;
    loop {
        let removed = membership.borrow_and_update().removed;
        let newest = status.borrow_and_update().clone();
        // The default has no node: the manager has not said anything yet.
        if !newest.node.is_empty() && !removed {
            match kv.put(&format!("node.{}", newest.node), &newest).await {
                Ok(written) => revision.store(written, Ordering::Relaxed),
                Err(error) => {
                    debug!("status not stored yet: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() {
                return;
            },
            changed = membership.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Records each acquisition (KV `active.APP`), off the path of any fail-over.
pub async fn record_actives(
    bus: Bus,
    mut actives: watch::Receiver<BTreeMap<String, ActiveRecord>>,
    mut membership: watch::Receiver<Membership>,
) {
    let kv: Kv<ActiveRecord> = bus.open(Bucket::Status).await;
    let mut recorded: BTreeMap<String, ActiveRecord> = BTreeMap::new();
    let mut lost = 0;
    loop {
        let now = membership.borrow_and_update().lost;
        if std::mem::replace(&mut lost, now) != now {
            recorded.clear();
        }
        let newest = actives.borrow_and_update().clone();
        recorded.retain(|app, _| newest.contains_key(app));
        let mut failed = false;
        for (app, record) in newest {
            if recorded.get(&app) == Some(&record) {
                continue;
            }
            match write_active(&kv, &app, &record).await {
                Ok(()) => {
                    recorded.insert(app, record);
                }
                Err(error) => {
                    debug!(app, "acquisition not recorded yet: {error}");
                    failed = true;
                }
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        } else {
            tokio::select! {
                changed = actives.changed() => if changed.is_err() {
                    return;
                },
                changed = membership.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}

/// Writes unless a later tenure of the same App is recorded already: a slow write must not hide a later one.
async fn write_active(kv: &Kv<ActiveRecord>, app: &str, record: &ActiveRecord) -> Result<(), KvError> {
    let key = format!("active.{app}");
    match kv.get(&key).await? {
        Some(present) if present.value.uid == record.uid && present.value.epoch > record.epoch => Ok(()),
        Some(present) => {
            let next = record.clone().after(&present.value);
            if next == present.value {
                return Ok(());
            }
            kv.update(&key, &next, present.revision).await.map(|_| ())
        }
        None => kv.create(&key, &record.clone().first()).await.map(|_| ()),
    }
}

/// Keeps the node's registration equal to what is so: labels from the configuration, addresses from the kernel. Looks every ten seconds,
/// and whenever `look` is told.
/// `node.addresses` stay as they are where there are any.
pub async fn register<V: Vips>(bus: Bus, vips: Arc<V>, node: Node, membership: watch::Sender<Membership>, look: Arc<Notify>) {
    let kv: Kv<Node> = bus.open(Bucket::Nodes).await;
    let statuses: Kv<NodeStatus> = bus.open(Bucket::Status).await;
    let mut registered = false;
    loop {
        let ours: Vec<IpAddr> = vips.ours().await.map(|held| held.iter().map(|v| v.address).collect()).unwrap_or_default();
        let mut now = node.clone();
        if now.addresses.is_empty() {
            now.addresses = identity::addresses(&ours);
        }
        match write_registration(&kv, now, registered).await {
            Ok(Registration::Removed) => {
                error!(node = node.name, "this node was removed from the cluster; it joins again when its agent is started again");
                membership.send_modify(|m| m.removed = true);
                return;
            }
            Ok(done) => {
                let lost = registered && (done == Registration::Made || status_is_lost(&statuses, &node.name).await);
                registered = true;
                if lost {
                    warn!(node = node.name, "the store was lost, everything is stored in it again");
                    membership.send_modify(|m| m.lost += 1);
                }
            }
            Err(error) => {
                debug!("not registered yet: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REGISTRATION_CHECK) => {}
            () = look.notified() => {}
        }
    }
}

async fn status_is_lost(kv: &Kv<NodeStatus>, node: &str) -> bool {
    matches!(kv.state(&format!("node.{node}")).await, Ok(KeyState::Never))
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    /// It stands.
    Stands,
    /// The store did not have it.
    Made,
    /// It was deleted since this agent made it.
    Removed,
}

/// Writes what differs. `before`: this agent registered already, so that a deleted registration means that the node was removed.
async fn write_registration(kv: &Kv<Node>, mut node: Node, before: bool) -> Result<Registration, KvError> {
    match kv.state(&node.name).await? {
        KeyState::Present(present) => {
            node.registered_at.clone_from(&present.value.registered_at);
            if present.value != node {
                kv.update(&node.name, &node, present.revision).await?;
                info!(node = node.name, boot_id = node.boot_id, "registration updated");
            }
            Ok(Registration::Stands)
        }
        KeyState::Deleted if before => Ok(Registration::Removed),
        KeyState::Deleted | KeyState::Never => {
            node.registered_at = Some(format!("{:.0}", jiff::Timestamp::now()));
            kv.create(&node.name, &node).await?;
            info!(node = node.name, "registered");
            Ok(Registration::Made)
        }
    }
}
