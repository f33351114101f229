//! A watch that never ends: it lists, follows, and lists again whenever it may have missed something.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::kv::{KvError, Revised};
use crate::shared_state::is_gone;

/// Changes that may wait for the reader; then the watch itself waits, and NATS buffers.
const CHANGES_WAITING: usize = 256;
/// Wait before listing again after an error.
const RELIST_DELAY: Duration = Duration::from_millis(250);
/// Longest a listing may take before it begins anew.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// One line of complaint in the log for this many failures.
const COMPLAIN_EVERY: u32 = 20;
/// The server says this often that a watch lives; one that says nothing for twice as long is begun anew. async-nats' own KV watch
/// takes 10 s to notice that the server with its consumer died.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(1);
/// A checked watch asks the stream's leader this often for the newest revision. One that has not delivered at the next answer what the
/// leader had at the last one is begun anew.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The server forgets a consumer that nobody listens to after this long.
const CONSUMER_KEPT: Duration = Duration::from_secs(10);

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
    changes: mpsc::Receiver<(Change<T>, u64)>,
    revision: u64,
    relist: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Send + 'static> Watch<T> {
    pub(crate) fn start(source: Source<T>) -> Self {
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        let (relist, relists) = mpsc::channel(1);
        let task = tokio::spawn(follow(source, sender, relists));
        Self { changes, revision: 0, relist, task }
    }

    /// The next change. `None` only when the runtime shuts down.
    pub async fn next(&mut self) -> Option<Change<T>> {
        let (change, revision) = self.changes.recv().await?;
        // What cannot be read may come before its listing does.
        if !matches!(change, Change::Unreadable { .. }) {
            self.revision = revision;
        }
        Some(change)
    }

    /// The newest revision under the filter that the changes so far have told of, deletions among them; 0 where nothing matched yet. With
    /// the last change taken over, a cache stands at this revision. It falls only where the bucket was made anew.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Lists anew: for a reader that knows from elsewhere that it misses something (rule C4).
    pub fn relist(&self) {
        // A full queue means that it is asked for already.
        let _asked = self.relist.try_send(());
    }
}

/// What a message says of its key, with whether it says that the key is gone; none where that is what shall be told as a deletion.
pub(crate) type Read<T> = fn(&str, bool, &[u8]) -> Option<Result<T, KvError>>;

/// What a watch reads from.
pub(crate) struct Source<T> {
    pub(crate) store: Store,
    pub(crate) filter: String,
    pub(crate) client: async_nats::Client,
    /// Rises whenever the connection is made anew: what was delivered meanwhile is lost.
    pub(crate) connected: watch::Receiver<u64>,
    /// Whether to compare with the stream's leader from time to time.
    ///
    /// A consumer lives on one server. One that was cut off with that server's copy of the stream goes on saying that it lives, and is
    /// not told of what the copy catches up with later (seen on 2.15.1) until the next write under its filter.
    pub(crate) checked: bool,
    pub(crate) read: Read<T>,
}

async fn follow<T>(mut source: Source<T>, sender: mpsc::Sender<(Change<T>, u64)>, mut relists: mpsc::Receiver<()>) {
    let mut failures = 0_u32;
    loop {
        match list_and_follow(&mut source, &sender, &mut relists).await {
            Ended::ReaderGone => return,
            Ended::Relist => failures = 0,
            Ended::Trouble(why) => {
                failures += 1;
                if failures % COMPLAIN_EVERY == 1 {
                    warn!(bucket = source.store.name, filter = source.filter, failures, "watch interrupted, listing again: {why}");
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

async fn list_and_follow<T>(source: &mut Source<T>, sender: &mpsc::Sender<(Change<T>, u64)>, relists: &mut mpsc::Receiver<()>) -> Ended {
    source.connected.mark_unchanged();
    let mut listed = BTreeMap::new();
    let mut expected = 1;
    let mut newest = 0;
    let listing = async {
        let mut messages = consume(source).await?;
        // A bucket without a matching key delivers nothing at all, and only the stream knows that nothing is there. Asked after the
        // consumer was made, so that a key that comes in between is delivered.
        if matching(&source.store, &source.filter).await? == 0 {
            return Ok(messages);
        }
        loop {
            let delivered = next_delivery(&mut messages, &source.store, source.read, &mut expected).await?;
            newest = newest.max(delivered.sequence);
            match delivered.change {
                Change::Put { key, entry } => {
                    listed.insert(key, entry);
                }
                Change::Deleted { key } => {
                    listed.remove(&key);
                }
                unreadable => {
                    let _gone = sender.send((unreadable, newest)).await;
                }
            }
            if delivered.pending == 0 {
                return Ok(messages);
            }
        }
    };
    let mut messages = match tokio::time::timeout(LIST_TIMEOUT, listing).await {
        Ok(Ok(messages)) => messages,
        Ok(Err(why)) => return Ended::Trouble(why),
        Err(_) => return Ended::Trouble("the listing did not come to its end".to_owned()),
    };
    debug!(bucket = source.store.name, filter = source.filter, keys = listed.len(), "listed");
    if sender.send((Change::Listed(listed), newest)).await.is_err() {
        return Ended::ReaderGone;
    }
    let subject = format!("{}{}", source.store.prefix, source.filter);
    let check = || Box::pin(check(source.store.clone(), subject.clone()));
    let (mut checking, mut due) = (check(), None);
    loop {
        tokio::select! {
            found = &mut checking, if source.checked => {
                // No answer says nothing: a store without a leader has nothing new either.
                if let Ok(found) = found {
                    if due > Some(newest) {
                        return Ended::Trouble(format!("revision {newest} was delivered last, the leader had {} before", due.unwrap_or(0)));
                    }
                    due = found;
                }
                checking = check();
            }
            asked = relists.recv() => return if asked.is_some() { Ended::Relist } else { Ended::ReaderGone },
            again = source.connected.changed() => {
                return if again.is_ok() { Ended::Relist } else { Ended::Trouble("the connection was given up".to_owned()) };
            }
            next = next_delivery(&mut messages, &source.store, source.read, &mut expected) => match next {
                Ok(delivered) => {
                    newest = newest.max(delivered.sequence);
                    if sender.send((delivered.change, newest)).await.is_err() {
                        return Ended::ReaderGone;
                    }
                }
                Err(why) => return Ended::Trouble(why),
            },
        }
    }
}

/// A consumer of the last value of each matching key, and of all that follow. In memory and without acknowledgements: it writes nothing.
async fn consume<T>(source: &Source<T>) -> Result<push::Messages, String> {
    let filter = format!("{}{}", source.store.prefix, source.filter);
    let config = consumer_config(&source.client, "clusterctl watch", DeliverPolicy::LastPerSubject, filter);
    let consumer = source.store.stream.create_consumer(config).await.map_err(|e| e.to_string())?;
    consumer.messages().await.map_err(|e| e.to_string())
}

struct Delivered<T> {
    change: Change<T>,
    pending: u64,
    sequence: u64,
}

/// After a while: the revision of the last write under `subject`, as the stream's leader knows it.
async fn check(store: Store, subject: String) -> Result<Option<u64>, LastRawMessageError> {
    tokio::time::sleep(CHECK_INTERVAL).await;
    match store.stream.raw_message_builder().last_by_subject(subject).send().await {
        Ok(message) => Ok(Some(message.sequence)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The next value. `expected` counts what the consumer sends: a gap means that something was lost on the way.
async fn next_delivery<T>(messages: &mut push::Messages, store: &Store, read: Read<T>, expected: &mut u64) -> Result<Delivered<T>, String> {
    let message = match messages.next().await {
        Some(Ok(message)) => message,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("the subscription ended".to_owned()),
    };
    let info = message.info().map_err(|e| e.to_string())?;
    if info.consumer_sequence != *expected {
        return Err(format!("delivery {} came where {expected} was due", info.consumer_sequence));
    }
    *expected += 1;
    let key = message.subject.strip_prefix(store.prefix.as_str()).unwrap_or(message.subject.as_str()).to_owned();
    let deleted = message.headers.as_ref().is_some_and(is_gone);
    let change = match read(&key, deleted, &message.payload) {
        None => Change::Deleted { key },
        Some(Ok(value)) => Change::Put { key, entry: Revised { value, revision: info.stream_sequence } },
        Some(Err(error)) => Change::Unreadable { why: format!("{error}: {}", source_of(&error)), key },
    };
    Ok(Delivered { change, pending: info.pending, sequence: info.stream_sequence })
}

/// How many keys match now.
async fn matching(store: &Store, filter: &str) -> Result<usize, String> {
    let subject = format!("{}{filter}", store.prefix);
    let mut info = store.stream.info_with_subjects(subject).await.map_err(|e| e.to_string())?;
    let mut count = 0;
    while let Some(next) = info.next().await {
        next.map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(count)
}

fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// A consumer that only reads, that says when it is quiet, and that the servers forget soon after its client is gone. An empty filter is none.
pub(crate) fn consumer_config(client: &async_nats::Client, what: &str, from: DeliverPolicy, filter_subject: String) -> push::Config {
    push::Config {
        deliver_subject: client.new_inbox(),
        description: Some(what.to_owned()),
        deliver_policy: from,
        ack_policy: AckPolicy::None,
        filter_subject,
        flow_control: true,
        idle_heartbeat: IDLE_HEARTBEAT,
        num_replicas: 1,
        memory_storage: true,
        inactive_threshold: CONSUMER_KEPT,
        ..push::Config::default()
    }
}
