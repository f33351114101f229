//! What this node knows of the shared state of an App, kept up to date while somebody here wants it: for fast reads, lists and watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_bus::{Change, Revised, SharedState};
use tokio::sync::{broadcast, watch};
use tracing::debug;

/// Most bytes of values that are kept for one App; what is beyond is known by its revision only.
pub const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Changes that may wait for a watcher; one that is further behind is dropped.
pub const CHANGES_WAITING: usize = 256;
/// An App that nobody asked for in so long is not followed any more.
const KEPT: Duration = Duration::from_secs(600);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Longest wait for the first listing.
const LIST_LIMIT: Duration = Duration::from_secs(2);
/// Wait before another try to follow.
const RETRY: Duration = Duration::from_millis(500);
/// Most Apps that are followed at a time.
const FOLLOWED_MAX: usize = 256;

/// A key as it became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key, without the App.
    pub key: String,
    /// Revision of the value, or of the deletion.
    pub revision: u64,
    /// The value; none where it is gone.
    pub value: Option<Arc<[u8]>>,
}

/// What is kept of a key.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Revision of the value, or of the deletion.
    pub revision: u64,
    /// Size of the value in bytes; none where it is gone.
    pub size: Option<usize>,
    /// The value, where there was room for it.
    pub value: Option<Arc<[u8]>>,
}

#[derive(Debug, Default)]
struct Cache {
    keys: BTreeMap<String, Kept>,
    bytes: usize,
}

impl Cache {
    /// Whether it is new.
    fn take(&mut self, item: &Item) -> bool {
        let before = self.keys.get(&item.key);
        if before.is_some_and(|before| before.revision >= item.revision) {
            return false;
        }
        self.bytes -= before.and_then(|before| before.value.as_ref()).map_or(0, |value| value.len());
        let size = item.value.as_ref().map(|value| value.len());
        let value = item.value.clone().filter(|value| self.bytes + value.len() <= CACHE_BYTES_MAX);
        self.bytes += value.as_ref().map_or(0, |value| value.len());
        self.keys.insert(item.key.clone(), Kept { revision: item.revision, size, value });
        true
    }
}

/// One App.
#[derive(Debug)]
pub struct Follower {
    cache: Mutex<Cache>,
    changes: broadcast::Sender<Arc<Item>>,
    listed: watch::Sender<bool>,
    used: Mutex<Instant>,
}

impl Follower {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Kept> {
        self.cache().keys.get(key).cloned()
    }

    /// All keys that begin so and come after one, at most `limit`; and whether there are more.
    #[must_use]
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> (Vec<(String, Kept)>, bool) {
        let cache = self.cache();
        let from = if after > prefix { after } else { prefix };
        let present = cache.keys.range(from.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let mut found = present.filter(|(key, kept)| kept.size.is_some() && key.as_str() != after).take(limit + 1);
        let items: Vec<(String, Kept)> = found.by_ref().take(limit).map(|(key, kept)| (key.clone(), kept.clone())).collect();
        let more = found.next().is_some();
        (items, more)
    }

    /// What is newer than `revision`, by rising revision, and all that comes.
    #[must_use]
    pub fn since(&self, prefix: &str, revision: u64) -> (Vec<(String, Kept)>, broadcast::Receiver<Arc<Item>>) {
        let cache = self.cache();
        let newer = |(key, kept): &(&String, &Kept)| key.starts_with(prefix) && kept.revision > revision;
        // Who begins has nothing that could be gone.
        let told = |(_, kept): &(&String, &Kept)| revision > 0 || kept.size.is_some();
        let mut items: Vec<(String, Kept)> =
            cache.keys.iter().filter(newer).filter(told).map(|(key, kept)| (key.clone(), kept.clone())).collect();
        items.sort_by_key(|(_, kept)| kept.revision);
        (items, self.changes.subscribe())
    }

    fn tell(&self, item: Item) {
        let mut cache = self.cache();
        if cache.take(&item) {
            // Under the lock, so that a watcher that begins hears each change once. Nobody listening is well.
            let _listeners = self.changes.send(Arc::new(item));
        }
    }

    fn listing(&self, app: &str, all: BTreeMap<String, Revised<Option<Vec<u8>>>>) {
        let mut items: Vec<Item> = all.into_iter().map(|(key, entry)| item(app, &key, entry)).collect();
        items.sort_by_key(|item| item.revision);
        // Also the memory of its deletion expired meanwhile, so it is as gone as can be.
        let known = |key: &String| items.iter().any(|item| item.key == *key);
        let lost: Vec<(String, u64)> =
            self.cache().keys.iter().filter(|(key, _)| !known(key)).map(|(key, kept)| (key.clone(), kept.revision)).collect();
        for (key, revision) in lost {
            let mut cache = self.cache();
            if let Some(before) = cache.keys.remove(&key) {
                cache.bytes -= before.value.map_or(0, |value| value.len());
                if before.size.is_some() {
                    let _listeners = self.changes.send(Arc::new(Item { key, revision, value: None }));
                }
            }
        }
        for item in items {
            self.tell(item);
        }
        self.listed.send_replace(true);
    }
}

fn item(app: &str, key: &str, entry: Revised<Option<Vec<u8>>>) -> Item {
    let key = key.strip_prefix(app).and_then(|key| key.strip_prefix('.')).unwrap_or(key).to_owned();
    Item { key, revision: entry.revision, value: entry.value.map(Arc::from) }
}

async fn follow(state: Arc<SharedState>, app: String, follower: Arc<Follower>) {
    loop {
        let mut watch = match state.watch(&app).await {
            Ok(watch) => watch,
            Err(error) => {
                debug!(app, "shared state cannot be followed yet: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while let Some(change) = watch.next().await {
            match change {
                Change::Listed(all) => follower.listing(&app, all),
                Change::Put { key, entry } => follower.tell(item(&app, &key, entry)),
                // All are told as changes with or without a value.
                Change::Deleted { .. } | Change::Unreadable { .. } => {}
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The Apps that are followed.
#[derive(Debug, Default)]
pub struct Followers {
    apps: Mutex<BTreeMap<String, Arc<Follower>>>,
}

impl Followers {
    /// The App's follower, begun where there is none; none where too many Apps are followed. Waits for its first listing, for a while.
    pub async fn of(self: &Arc<Self>, state: &Arc<SharedState>, app: &str) -> Option<Arc<Follower>> {
        let follower = self.find_or_begin(state, app)?;
        *follower.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let mut listed = follower.listed.subscribe();
        // Who asks finds out whether it was.
        let _waited = tokio::time::timeout(LIST_LIMIT, listed.wait_for(|listed| *listed)).await;
        Some(follower)
    }

    fn find_or_begin(self: &Arc<Self>, state: &Arc<SharedState>, app: &str) -> Option<Arc<Follower>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = apps.get(app) {
            return Some(Arc::clone(follower));
        }
        if apps.len() >= FOLLOWED_MAX {
            return None;
        }
        let follower = Arc::new(Follower {
            cache: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_WAITING),
            listed: watch::Sender::new(false),
            used: Mutex::new(Instant::now()),
        });
        apps.insert(app.to_owned(), Arc::clone(&follower));
        let task = tokio::spawn(follow(Arc::clone(state), app.to_owned(), Arc::clone(&follower)));
        tokio::spawn(end_unused(Arc::clone(self), app.to_owned(), Arc::clone(&follower), task));
        Some(follower)
    }
}

async fn end_unused(followers: Arc<Followers>, app: String, follower: Arc<Follower>, task: tokio::task::JoinHandle<()>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let mut apps = followers.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let used = *follower.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.elapsed() > KEPT && follower.changes.receiver_count() == 0 {
            apps.remove(&app);
            task.abort();
            return;
        }
    }
}

/// Whether the first listing came.
impl Follower {
    /// Whether it knows the App's keys, as of some time.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        Follower {
            cache: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_WAITING),
            listed: watch::Sender::new(false),
            used: Mutex::new(Instant::now()),
        }
    }

    fn put(key: &str, revision: u64, value: &[u8]) -> Item {
        Item { key: key.to_owned(), revision, value: Some(Arc::from(value)) }
    }

    #[test]
    fn a_watch_is_told_what_is_new_since_with_what_is_gone() {
        let follower = follower();
        follower.tell(put("a", 5, b"1"));
        follower.tell(put("b", 2, b"1"));
        follower.tell(Item { key: "c".to_owned(), revision: 7, value: None });
        let keys = |revision| -> Vec<String> { follower.since("", revision).0.into_iter().map(|(key, _)| key).collect() };
        assert_eq!(keys(0), ["b", "a"], "who begins is not told of what is gone");
        assert_eq!(keys(2), ["a", "c"]);
        assert_eq!(keys(7), Vec::<String>::new());
        // What is older than what is known changes nothing.
        let (_, mut live) = follower.since("", 7);
        follower.tell(put("a", 4, b"old"));
        follower.tell(put("a", 9, b"new"));
        assert_eq!(live.try_recv().unwrap().revision, 9);
        // A listing without a key: it went while nothing was heard.
        let all = BTreeMap::from([("x.a".to_owned(), Revised { value: Some(b"new".to_vec()), revision: 9 })]);
        follower.listing("x", all);
        let gone = live.try_recv().unwrap();
        assert_eq!((gone.key.as_str(), &gone.value), ("b", &None));
        assert!(live.try_recv().is_err() && follower.is_listed());
    }

    #[test]
    fn lists_are_cut_and_go_on() {
        let follower = follower();
        for n in 0..5 {
            follower.tell(put(&format!("job/{n}"), n + 1, b"x"));
        }
        follower.tell(put("k", 9, b"x"));
        follower.tell(Item { key: "job/3".to_owned(), revision: 10, value: None });
        let keys = |after: &str, limit| {
            let (items, more) = follower.list("job/", after, limit);
            (items.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), more)
        };
        assert_eq!(keys("", 3), (vec!["job/0".to_owned(), "job/1".to_owned(), "job/2".to_owned()], true));
        assert_eq!(keys("job/2", 3), (vec!["job/4".to_owned()], false));
    }

    #[test]
    fn memory_is_bounded_and_what_has_no_room_is_known_by_its_revision() {
        let follower = follower();
        let large = vec![b'x'; CACHE_BYTES_MAX - 10];
        follower.tell(put("large", 1, &large));
        follower.tell(put("more", 2, b"01234567890123456789"));
        let more = follower.get("more").unwrap();
        assert_eq!((more.revision, more.size, more.value), (2, Some(20), None));
        follower.tell(Item { key: "large".to_owned(), revision: 3, value: None });
        follower.tell(put("more", 4, b"now"));
        assert!(follower.get("more").unwrap().value.is_some(), "room is found again");
        assert_eq!(follower.cache().bytes, 3);
    }
}
