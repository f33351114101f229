//! A watch that never ends: it lists, follows, and lists again whenever it may have missed something.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::kv::{Revised, decode};

/// Changes that may wait for the reader; then the watch itself waits, and NATS buffers.
const CHANGES_WAITING: usize = 256;
/// Wait before listing again after an error.
const RELIST_DELAY: Duration = Duration::from_millis(250);
/// Longest a listing may take before it begins anew.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait between two lines of complaint in the log.
const COMPLAIN_EVERY: u32 = 20;

/// What a [`Watch`] delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// All that matches now; it replaces whatever the reader had. The first change is always one of these.
    Listed(BTreeMap<String, Revised<T>>),
    /// A key has a new value.
    Put {
        /// The key.
        key: String,
        /// Its value and revision.
        entry: Revised<T>,
    },
    /// A key is gone.
    Deleted {
        /// The key.
        key: String,
    },
    /// A key has a value that this version cannot read; it is left out of listings too.
    Unreadable {
        /// The key.
        key: String,
        /// Why, for the log.
        why: String,
    },
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch<T> {
    changes: mpsc::Receiver<Change<T>>,
    relist: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: DeserializeOwned + Send + 'static> Watch<T> {
    pub(crate) fn start(store: Store, filter: String) -> Self {
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        let (relist, relists) = mpsc::channel(1);
        let task = tokio::spawn(follow(store, filter, sender, relists));
        Self { changes, relist, task }
    }

    /// The next change. `None` only when the runtime shuts down.
    pub async fn next(&mut self) -> Option<Change<T>> {
        self.changes.recv().await
    }

    /// Lists anew: for a reader that knows from elsewhere that it misses something (rule C4).
    pub fn relist(&self) {
        // A full queue means that it is asked for already.
        let _asked = self.relist.try_send(());
    }
}

async fn follow<T: DeserializeOwned>(store: Store, filter: String, sender: mpsc::Sender<Change<T>>, mut relists: mpsc::Receiver<()>) {
    let mut failures = 0_u32;
    loop {
        match list_and_follow(&store, &filter, &sender, &mut relists).await {
            Ended::ReaderGone => return,
            Ended::Relist => failures = 0,
            Ended::Trouble(why) => {
                failures += 1;
                if failures % COMPLAIN_EVERY == 1 {
                    warn!(bucket = store.name, filter, failures, "watch interrupted, listing again: {why}");
                }
                tokio::time::sleep(RELIST_DELAY).await;
            }
        }
    }
}

enum Ended {
    ReaderGone,
    Relist,
    Trouble(String),
}

async fn list_and_follow<T: DeserializeOwned>(
    store: &Store,
    filter: &str,
    sender: &mpsc::Sender<Change<T>>,
    relists: &mut mpsc::Receiver<()>,
) -> Ended {
    let mut watch = match tokio::time::timeout(LIST_TIMEOUT, store.watch_with_history(filter)).await {
        Ok(Ok(watch)) => watch,
        Ok(Err(error)) => return Ended::Trouble(error.to_string()),
        Err(_) => return Ended::Trouble("no answer to the request for a consumer".to_owned()),
    };
    let mut listed = BTreeMap::new();
    let listing = async {
        // A bucket without a matching key delivers nothing at all, and only the consumer knows that nothing is pending.
        if pending(store, filter).await? == 0 {
            return Ok(());
        }
        loop {
            let entry = match watch.next().await {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the watch ended".to_owned()),
            };
            let last = entry.delta == 0;
            match change_of::<T>(&entry) {
                Change::Put { key, entry } => {
                    listed.insert(key, entry);
                }
                Change::Deleted { key } => {
                    listed.remove(&key);
                }
                unreadable => {
                    listed.remove(&entry.key);
                    let _gone = sender.send(unreadable).await;
                }
            }
            if last {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(LIST_TIMEOUT, listing).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Ended::Trouble(why),
        Err(_) => return Ended::Trouble("the listing did not come to its end".to_owned()),
    }
    debug!(bucket = store.name, filter, keys = listed.len(), "listed");
    if sender.send(Change::Listed(listed)).await.is_err() {
        return Ended::ReaderGone;
    }
    loop {
        tokio::select! {
            asked = relists.recv() => return if asked.is_some() { Ended::Relist } else { Ended::ReaderGone },
            next = watch.next() => match next {
                Some(Ok(entry)) => {
                    if sender.send(change_of(&entry)).await.is_err() {
                        return Ended::ReaderGone;
                    }
                }
                Some(Err(error)) => return Ended::Trouble(error.to_string()),
                None => return Ended::Trouble("the watch ended".to_owned()),
            },
        }
    }
}

/// How many keys match now. Asked after the consumer was made, so that a key it misses is delivered by the consumer.
async fn pending(store: &Store, filter: &str) -> Result<usize, String> {
    let subject = format!("{}{filter}", store.prefix);
    let mut info = store.stream.info_with_subjects(subject).await.map_err(|e| e.to_string())?;
    let mut count = 0;
    while let Some(next) = info.next().await {
        next.map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(count)
}

fn change_of<T: DeserializeOwned>(entry: &async_nats::jetstream::kv::Entry) -> Change<T> {
    let key = entry.key.clone();
    match entry.operation {
        Operation::Delete | Operation::Purge => Change::Deleted { key },
        Operation::Put => match decode(&key, &entry.value) {
            Ok(value) => Change::Put { key, entry: Revised { value, revision: entry.revision } },
            Err(error) => Change::Unreadable { why: format!("{error}: {}", source_of(&error)), key },
        },
    }
}

fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
