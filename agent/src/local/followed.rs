//! What of the store is followed here only while somebody asks for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_bus::{Bucket, Bus, Change, Revised, Watch};
use cluster_schemas::Node;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What nobody asked for in so long is not followed any more.
const KEPT: Duration = Duration::from_secs(600);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Followed once somebody asked.
#[derive(Debug)]
pub struct Followed<K>(Mutex<Option<(watch::Sender<K>, Instant)>>);

impl<K> Default for Followed<K> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K: Default + Send + Sync + 'static> Followed<K> {
    /// What is known of it. Where it is not followed yet, `begin` starts the tasks that do; they are ended when nobody asks any more.
    pub fn follow(self: &Arc<Self>, begin: impl FnOnce(&watch::Sender<K>) -> Vec<JoinHandle<()>>) -> watch::Receiver<K> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, used)) = held.as_mut() {
            *used = Instant::now();
            return known.subscribe();
        }
        let known = watch::Sender::new(K::default());
        *held = Some((known.clone(), Instant::now()));
        let tasks = begin(&known);
        let (followed, receiver) = (Arc::clone(self), known.subscribe());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let mut held = followed.0.lock().unwrap_or_else(PoisonError::into_inner);
                if known.receiver_count() == 0 && held.as_ref().is_none_or(|(_, used)| used.elapsed() > KEPT) {
                    *held = None;
                    tasks.iter().for_each(JoinHandle::abort);
                    return;
                }
            }
        });
        receiver
    }
}

/// Follows a bucket and applies each change; a listing is applied as what was before, all gone, and the new.
pub async fn each<T: Send + 'static>(mut watch: Watch<T>, mut apply: impl FnMut(Vec<(String, Option<T>)>, bool)) {
    while let Some(change) = watch.next().await {
        match change {
            Change::Listed(all) => apply(all.into_iter().map(|(key, Revised { value, .. })| (key, Some(value))).collect(), true),
            Change::Put { key, entry } => apply(vec![(key, Some(entry.value))], false),
            Change::Deleted { key } => apply(vec![(key, None)], false),
            Change::Unreadable { .. } => {}
        }
    }
}

/// Follows the registered nodes: each with its first address, where it has one.
pub async fn each_node(bus: &Bus, mut apply: impl FnMut(Vec<(String, Option<Option<String>>)>, bool)) {
    let watch = bus.open::<Node>(Bucket::Nodes).await.watch_checked("*");
    let first = |node: Node| {
        let address = node.addresses.into_values().flatten().next()?;
        Some(address.split('/').next().unwrap_or_default().to_owned())
    };
    each(watch, |changes, all| apply(changes.into_iter().map(|(name, node)| (name, node.map(first))).collect(), all)).await;
}
