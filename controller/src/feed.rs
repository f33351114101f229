//! The tasks that fill the [`World`](crate::world::World): one per bucket part, one for heartbeats, one for beats.

mod records;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_bus::{Bucket, Bus, Change, CordonOrder, HandoverOrder, Revised};
use cluster_schemas::{AppStatus, Assignment, Node, NodeStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use crate::world::{ActiveRecord, SharedWorld, World};

/// Keys of cordons, which begin with [`CORDON_PREFIX`](cluster_bus::CORDON_PREFIX).
const CORDONS: &str = "cordon.*";
/// Keys of switchovers, which begin with [`HANDOVER_PREFIX`](cluster_bus::HANDOVER_PREFIX).
const HANDOVERS: &str = "switchover.*";
/// Wait before subscribing again after the client gave a subscription up.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(250);

/// Starts all feeding tasks. They run until the set is dropped.
#[must_use]
pub fn start(bus: &Bus, world: &SharedWorld) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(records::feed_apps(bus.clone(), world.clone()));
    tasks.spawn(records::feed_records(bus.clone(), world.clone()));
    tasks.spawn(records::feed_removals(bus.clone(), world.clone()));
    feed(&mut tasks, bus, world, Bucket::Nodes, "*", |w| &mut w.nodes, |_, entry: Revised<Node>| entry.value);
    feed(&mut tasks, bus, world, Bucket::Status, "node.*", |w| &mut w.statuses, |_, entry: Revised<NodeStatus>| entry);
    feed(&mut tasks, bus, world, Bucket::Status, "app.*", |w| &mut w.app_statuses, |_, entry: Revised<AppStatus>| entry);
    feed(&mut tasks, bus, world, Bucket::Status, "active.*", |w| &mut w.actives, |_, entry: Revised<ActiveRecord>| entry.value);
    feed(&mut tasks, bus, world, Bucket::Assignments, "node.*", |w| &mut w.assignments, |_, entry: Revised<Assignment>| entry);
    feed(&mut tasks, bus, world, Bucket::Nodes, CORDONS, |w| &mut w.cordons, |_, entry: Revised<CordonOrder>| entry.value);
    feed(&mut tasks, bus, world, Bucket::Assignments, HANDOVERS, |w| &mut w.handovers, |_, entry: Revised<HandoverOrder>| entry.value);
    tasks.spawn(hear_heartbeats(bus.clone(), world.clone()));
    tasks.spawn(hear_beats(bus.clone(), world.clone()));
    tasks
}

/// Keeps one map of the world equal to the keys under `filter`. The map's keys are the last word of the bucket's keys.
fn feed<S, T>(
    tasks: &mut JoinSet<()>,
    bus: &Bus,
    world: &SharedWorld,
    bucket: Bucket,
    filter: &'static str,
    part: fn(&mut World) -> &mut Option<BTreeMap<String, T>>,
    convert: fn(&str, Revised<S>) -> T,
) where
    S: Serialize + DeserializeOwned + Send + 'static,
    T: PartialEq + Send + 'static,
{
    let (bus, world) = (bus.clone(), world.clone());
    tasks.spawn(async move {
        let kv = bus.open::<S>(bucket).await;
        let mut watch = kv.watch_checked(filter);
        while let Some(change) = watch.next().await {
            match change {
                Change::Listed(all) => {
                    let all: BTreeMap<String, T> = all.into_iter().map(|(k, e)| (name_of(&k), convert(&k, e))).collect();
                    world.change(|w| {
                        let map = part(w);
                        let new = map.as_ref() != Some(&all);
                        *map = Some(all);
                        new
                    });
                }
                Change::Put { key, entry } => world.change(|w| {
                    part(w).get_or_insert_default().insert(name_of(&key), convert(&key, entry));
                    true
                }),
                Change::Deleted { key } => world.change(|w| part(w).get_or_insert_default().remove(&name_of(&key)).is_some()),
                Change::Unreadable { key, why } => {
                    warn!(key, "stored object cannot be read, it is left as it was: {why}");
                }
            }
        }
    });
}

fn name_of(key: &str) -> String {
    key.rsplit_once('.').map_or(key, |(_, name)| name).to_owned()
}

async fn hear_heartbeats(bus: Bus, world: SharedWorld) {
    loop {
        if let Ok(mut heartbeats) = bus.heartbeats().await {
            while let Some(heartbeat) = heartbeats.next().await {
                let now = Instant::now();
                world.change(|w| {
                    let before = w.heartbeats.insert(heartbeat.node.clone(), (now, heartbeat.clone()));
                    before.is_none_or(|(_, b)| b.boot_id != heartbeat.boot_id || b.not_ready != heartbeat.not_ready)
                });
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn hear_beats(bus: Bus, world: SharedWorld) {
    loop {
        if let Ok(mut beats) = bus.beats().await {
            while let Some(beat) = beats.next().await {
                let now = Instant::now();
                world.change(|w| {
                    // A deposed leader may go on beating for a moment; the higher term counts.
                    let known = w.leader.as_ref().map_or(0, |(_, b)| b.term);
                    if beat.term >= known || w.leader.as_ref().is_some_and(|(_, b)| b.incarnation != beat.incarnation) {
                        w.leader = Some((now, beat));
                    }
                    false
                });
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

/// Restarts the count of silence while this controller itself hears nothing, for it cannot tell who is silent then.
pub async fn guard_listening(bus: Bus, world: SharedWorld) {
    /// How often the connection is looked at.
    const LOOK: Duration = Duration::from_millis(200);
    loop {
        if !bus.is_connected() {
            let now = Instant::now();
            world.change(|w| {
                w.listening_since = now;
                false
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes buckets again that were deleted while this runs, so that users can apply their Apps anew; what the nodes hold stays as it is
/// until an operator signed the new store (rule C3).
pub async fn keep_buckets(bus: Bus) {
    /// How often it is looked whether they are there.
    const LOOK: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(LOOK).await;
        if bus.is_connected() {
            bus.create_buckets().await;
        }
    }
}
