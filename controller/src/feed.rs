//! The tasks that fill the [`World`](crate::world::World): one per bucket part, one for heartbeats, one for beats.

mod records;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_bus::{Bucket, Bus, Change, CordonOrder, HandoverOrder, Revised};
use cluster_schemas::api::NodeState;
use cluster_schemas::watch::WatchKind;
use cluster_schemas::{AppStatus, Assignment, Node, NodeStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use crate::changes::{Part, difference};
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
    feed(&mut tasks, bus, world, (Bucket::Nodes, "*"), Some(Part::Nodes), |w| &mut w.nodes, |entry: Revised<Node>| entry.value);
    let (nodes, apps) = ((Bucket::Status, "node.*"), (Bucket::Status, "app.*"));
    feed(&mut tasks, bus, world, nodes, Some(Part::NodeStatuses), |w| &mut w.statuses, |entry: Revised<NodeStatus>| entry);
    feed(&mut tasks, bus, world, apps, Some(Part::AppStatuses), |w| &mut w.app_statuses, |entry: Revised<AppStatus>| entry);
    feed(&mut tasks, bus, world, (Bucket::Status, "active.*"), None, |w| &mut w.actives, |entry: Revised<ActiveRecord>| entry.value);
    let nodes = (Bucket::Assignments, "node.*");
    feed(&mut tasks, bus, world, nodes, Some(Part::Assignments), |w| &mut w.assignments, |entry: Revised<Assignment>| entry);
    feed(
        &mut tasks,
        bus,
        world,
        (Bucket::Nodes, CORDONS),
        Some(Part::Cordons),
        |w| &mut w.cordons,
        |entry: Revised<CordonOrder>| entry.value,
    );
    feed(&mut tasks, bus, world, (Bucket::Assignments, HANDOVERS), None, |w| &mut w.handovers, |entry: Revised<HandoverOrder>| entry.value);
    tasks.spawn(tell_states(world.clone()));
    tasks.spawn(hear_heartbeats(bus.clone(), world.clone()));
    tasks.spawn(hear_beats(bus.clone(), world.clone()));
    tasks
}

/// Keeps one map of the world equal to the keys of `from`, a bucket and a filter. The map's keys are the last word of the bucket's keys.
/// Watches are told of what is a part of something they can watch.
fn feed<S, T>(
    tasks: &mut JoinSet<()>,
    bus: &Bus,
    world: &SharedWorld,
    from: (Bucket, &'static str),
    seen_as: Option<Part>,
    part: fn(&mut World) -> &mut Option<BTreeMap<String, T>>,
    convert: fn(Revised<S>) -> T,
) where
    S: Serialize + DeserializeOwned + Send + 'static,
    T: PartialEq + Send + 'static,
{
    let (bus, world) = (bus.clone(), world.clone());
    tasks.spawn(async move {
        let kv = bus.open::<S>(from.0).await;
        let mut watch = kv.watch_checked(from.1);
        while let Some(change) = watch.next().await {
            let revision = watch.revision();
            match change {
                Change::Listed(all) => {
                    let all: BTreeMap<String, T> = all.into_iter().map(|(k, e)| (name_of(&k), convert(e))).collect();
                    world.change(|w| {
                        let before = part(w).take();
                        let changes = difference(before.as_ref(), &all);
                        *part(w) = Some(all);
                        let new = before.is_none() || !changes.is_empty();
                        if let Some(seen_as) = seen_as {
                            w.tell_listed(seen_as, before.is_none(), changes, revision);
                        }
                        new
                    });
                }
                Change::Put { key, entry } => world.change(|w| {
                    let (name, value) = (name_of(&key), convert(entry));
                    let before = part(w).get_or_insert_default().insert(name.clone(), value);
                    let what = if before.is_none() { WatchKind::Added } else { WatchKind::Modified };
                    if let Some(seen_as) = seen_as {
                        w.tell(seen_as, &name, what, revision);
                    }
                    true
                }),
                Change::Deleted { key } => world.change(|w| {
                    let name = name_of(&key);
                    let was = part(w).get_or_insert_default().remove(&name).is_some();
                    if let Some(seen_as) = seen_as.filter(|_| was) {
                        w.tell(seen_as, &name, WatchKind::Deleted, revision);
                    }
                    was
                }),
                Change::Unreadable { key, why } => {
                    warn!(key, "stored object cannot be read, it is left as it was: {why}");
                }
            }
        }
    });
}

/// Tells watches of nodes that were heard or fell silent: nothing in a bucket says so.
async fn tell_states(world: SharedWorld) {
    /// How often it is looked.
    const LOOK: Duration = Duration::from_millis(500);
    let mut known = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        let states: BTreeMap<String, NodeState> = {
            let world = world.read();
            world.nodes.iter().flatten().map(|(name, node)| (name.clone(), world.node_state(node, now))).collect()
        };
        let turned: Vec<&String> = states.iter().filter(|(name, state)| known.get(*name) != Some(*state)).map(|(name, _)| name).collect();
        if !turned.is_empty() {
            world.change(|w| {
                for node in turned {
                    w.tell_turned(node);
                }
                true
            });
        }
        known = states;
    }
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

/// Makes the streams of revisions and writes, and again where they are lost.
pub async fn keep_history(bus: Bus) {
    /// How often it is looked whether they are there, and after a failure.
    const LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1));
    let mut complained = false;
    loop {
        match bus.create_history().await {
            Ok(()) => complained = false,
            Err(why) if !std::mem::replace(&mut complained, true) => warn!("writes are not recorded: {why}"),
            Err(_) => {}
        }
        tokio::time::sleep(if complained { LOOK.1 } else { LOOK.0 }).await;
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
