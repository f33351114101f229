//! What the agent stores: its registration, its status, who is active. Each by one task that writes the newest and tries again for ever;
//! nothing on the node waits for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_bus::{Bucket, Bus, Kv, KvError};
use cluster_schemas::node::ActiveRecord;
use cluster_schemas::{Node, NodeStatus};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::drivers::Vips;
use crate::identity;

/// Wait before a write is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the registration is compared with what is so.
const REGISTRATION_CHECK: Duration = Duration::from_secs(10);

/// Stores the newest status whenever it changes; its revision goes into heartbeats.
pub async fn store_status(bus: Bus, mut status: watch::Receiver<NodeStatus>, revision: Arc<AtomicU64>) {
    let kv: Kv<NodeStatus> = bus.open(Bucket::Status).await;
    loop {
        let newest = status.borrow_and_update().clone();
        // The default has no node: the manager has not said anything yet.
        if !newest.node.is_empty() {
            match kv.put(&format!("node.{}", newest.node), &newest).await {
                Ok(written) => revision.store(written, Ordering::Relaxed),
                Err(error) => {
                    debug!("status not stored yet: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Records each acquisition (KV `active.APP`), off the path of any fail-over.
pub async fn record_actives(bus: Bus, mut actives: watch::Receiver<BTreeMap<String, ActiveRecord>>) {
    let kv: Kv<ActiveRecord> = bus.open(Bucket::Status).await;
    let mut recorded: BTreeMap<String, ActiveRecord> = BTreeMap::new();
    loop {
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
        } else if actives.changed().await.is_err() {
            return;
        }
    }
}

/// Writes unless a later tenure of the same App is recorded already: a slow write must not hide a later one.
async fn write_active(kv: &Kv<ActiveRecord>, app: &str, record: &ActiveRecord) -> Result<(), KvError> {
    let key = format!("active.{app}");
    match kv.get(&key).await? {
        Some(present) if present.value == *record || (present.value.uid == record.uid && present.value.epoch > record.epoch) => Ok(()),
        Some(present) => kv.update(&key, record, present.revision).await.map(|_| ()),
        None => kv.create(&key, record).await.map(|_| ()),
    }
}

/// Keeps the node's registration equal to what is so: labels from the configuration, addresses from the kernel.
pub async fn register<V: Vips>(bus: Bus, vips: Arc<V>, node: Node) {
    let kv: Kv<Node> = bus.open(Bucket::Nodes).await;
    let mut registered: Option<Node> = None;
    loop {
        let ours: Vec<IpAddr> = vips.ours().await.map(|held| held.iter().map(|v| v.address).collect()).unwrap_or_default();
        let mut now = node.clone();
        now.addresses = identity::addresses(&ours);
        let unchanged = registered.as_ref().is_some_and(|r| same(r, &now));
        if !unchanged {
            match write_registration(&kv, now).await {
                Ok(written) => registered = Some(written),
                Err(error) => {
                    debug!("not registered yet: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::time::sleep(REGISTRATION_CHECK).await;
    }
}

fn same(a: &Node, b: &Node) -> bool {
    Node { registered_at: None, ..a.clone() } == Node { registered_at: None, ..b.clone() }
}

async fn write_registration(kv: &Kv<Node>, mut node: Node) -> Result<Node, KvError> {
    match kv.get(&node.name).await? {
        Some(present) => {
            node.registered_at.clone_from(&present.value.registered_at);
            if present.value != node {
                kv.update(&node.name, &node, present.revision).await?;
                info!(node = node.name, boot_id = node.boot_id, "registration updated");
            }
        }
        None => {
            node.registered_at = Some(format!("{:.0}", jiff::Timestamp::now()));
            kv.create(&node.name, &node).await?;
            info!(node = node.name, "registered");
        }
    }
    Ok(node)
}
