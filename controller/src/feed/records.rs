//! Feeding tasks whose buckets have records of several kinds.

use std::collections::{BTreeMap, BTreeSet};

use cluster_bus::{
    Bucket, Bus, Change, LEADER_KEY, LeaderRecord, MARK_KEY, RECOVERY_KEY, REMOVAL_PREFIX, RecoveryRecord, Removal, Revised, StoreMark,
    VOTERS_KEY, VotersOrder,
};
use cluster_schemas::App;
use cluster_schemas::watch::WatchKind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use crate::changes::{Part, difference};
use crate::world::{SharedWorld, World};

/// Apps and the mark of their bucket, by one watch: an empty listing and the mark of a bucket that is gone must never be seen together.
pub(super) async fn feed_apps(bus: Bus, world: SharedWorld) {
    let kv = bus.open::<Value>(Bucket::Apps).await;
    let mut watch = kv.watch_checked(">");
    while let Some(change) = watch.next().await {
        let revision = watch.revision();
        match change {
            Change::Listed(all) => {
                let mut apps = BTreeMap::new();
                let mut mark = None;
                let mut unreadable = BTreeSet::new();
                for (key, entry) in all {
                    if key == MARK_KEY {
                        mark = read::<StoreMark>(&key, entry).map(|mark| mark.value);
                    } else if let Some(app) = read_app(&key, entry) {
                        apps.insert(key, app);
                    } else {
                        unreadable.insert(key);
                    }
                }
                world.change(|w| {
                    let changes = difference(w.apps.as_ref(), &apps);
                    let first = w.apps.is_none();
                    let new = first || !changes.is_empty() || w.mark != mark || w.unreadable_apps != unreadable;
                    (w.apps, w.mark, w.unreadable_apps) = (Some(apps), mark, unreadable);
                    w.tell_listed(Part::Apps, first, changes, revision);
                    new
                });
            }
            Change::Put { key, entry } if key == MARK_KEY => {
                if let Some(mark) = read::<StoreMark>(&key, entry) {
                    set(&world, |w| &mut w.mark, Some(mark.value));
                }
            }
            Change::Put { key, entry } => {
                let app = read_app(&key, entry);
                world.change(|w| {
                    match app {
                        Some(app) => {
                            w.unreadable_apps.remove(&key);
                            let before = w.apps.get_or_insert_default().insert(key.clone(), app);
                            let what = if before.is_none() { WatchKind::Added } else { WatchKind::Modified };
                            w.tell(Part::Apps, &key, what, revision);
                        }
                        None => {
                            w.unreadable_apps.insert(key);
                        }
                    }
                    true
                });
            }
            Change::Deleted { key } if key == MARK_KEY => set(&world, |w| &mut w.mark, None),
            Change::Deleted { key } => world.change(|w| {
                let unreadable = w.unreadable_apps.remove(&key);
                let was = w.apps.get_or_insert_default().remove(&key).is_some();
                if was {
                    w.tell(Part::Apps, &key, WatchKind::Deleted, revision);
                }
                was || unreadable
            }),
            Change::Unreadable { key, why } => unreadable(&key, &why),
        }
    }
}

/// The leader record and what an operator signed.
pub(super) async fn feed_records(bus: Bus, world: SharedWorld) {
    let kv = bus.open::<Value>(Bucket::Assignments).await;
    let mut watch = kv.watch_checked("*");
    while let Some(change) = watch.next().await {
        match change {
            Change::Listed(mut all) => {
                let record = all.remove(LEADER_KEY).and_then(|entry| read::<LeaderRecord>(LEADER_KEY, entry));
                let recovery = all.remove(RECOVERY_KEY).and_then(|entry| read::<RecoveryRecord>(RECOVERY_KEY, entry)).map(|r| r.value);
                let order = all.remove(VOTERS_KEY).and_then(|entry| read::<VotersOrder>(VOTERS_KEY, entry)).map(|r| r.value);
                world.change(|w| {
                    (w.record, w.recovery, w.voters_order, w.records_listed) = (record, recovery, order, true);
                    true
                });
            }
            Change::Put { key, entry } if key == LEADER_KEY => {
                let record = read::<LeaderRecord>(&key, entry);
                set(&world, |w| &mut w.record, record);
            }
            Change::Put { key, entry } if key == RECOVERY_KEY => {
                let recovery = read::<RecoveryRecord>(&key, entry).map(|r| r.value);
                set(&world, |w| &mut w.recovery, recovery);
            }
            Change::Put { key, entry } if key == VOTERS_KEY => {
                let order = read::<VotersOrder>(&key, entry).map(|r| r.value);
                set(&world, |w| &mut w.voters_order, order);
            }
            Change::Deleted { key } if key == VOTERS_KEY => set(&world, |w| &mut w.voters_order, None),
            Change::Deleted { key } if key == LEADER_KEY => set(&world, |w| &mut w.record, None),
            Change::Deleted { key } if key == RECOVERY_KEY => set(&world, |w| &mut w.recovery, None),
            Change::Put { .. } | Change::Deleted { .. } => {}
            Change::Unreadable { key, why } => unreadable(&key, &why),
        }
    }
}

/// Nodes that are to be forgotten.
pub(super) async fn feed_removals(bus: Bus, world: SharedWorld) {
    let kv = bus.open::<Removal>(Bucket::Nodes).await;
    let mut watch = kv.watch_checked(&format!("{REMOVAL_PREFIX}*"));
    let name = |key: &str| key.strip_prefix(REMOVAL_PREFIX).unwrap_or(key).to_owned();
    while let Some(change) = watch.next().await {
        match change {
            Change::Listed(all) => {
                let all: BTreeMap<String, Removal> = all.into_iter().map(|(key, entry)| (name(&key), entry.value)).collect();
                world.change(|w| {
                    (w.removals, w.removals_listed) = (all, true);
                    true
                });
            }
            Change::Put { key, entry } => world.change(|w| {
                w.removals.insert(name(&key), entry.value);
                true
            }),
            Change::Deleted { key } => world.change(|w| w.removals.remove(&name(&key)).is_some()),
            Change::Unreadable { key, why } => unreadable(&key, &why),
        }
    }
}

fn set<T: PartialEq>(world: &SharedWorld, part: fn(&mut World) -> &mut Option<T>, value: Option<T>) {
    world.change(|w| {
        let part = part(w);
        let new = *part != value;
        *part = value;
        new
    });
}

fn read_app(key: &str, entry: Revised<Value>) -> Option<App> {
    let mut app = read::<App>(key, entry)?;
    app.value.metadata.resource_version = app.revision;
    Some(app.value)
}

fn read<T: DeserializeOwned>(key: &str, entry: Revised<Value>) -> Option<Revised<T>> {
    match serde_json::from_value(entry.value) {
        Ok(value) => Some(Revised { value, revision: entry.revision }),
        Err(error) => {
            unreadable(key, &error.to_string());
            None
        }
    }
}

fn unreadable(key: &str, why: &str) {
    warn!(key, "stored object cannot be read, it is left as it was: {why}");
}
