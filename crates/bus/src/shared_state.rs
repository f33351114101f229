//! Applications' shared state: raw values in the bucket [`Bucket::AppData`], under `APP.KEY`.
//!
//! A read from the stream's leader alone may be old: a leader that was deposed and does not know it yet answers, too. A consistent read is
//! confirmed by an append that holds only while the key's last message is the one that was read (rule C2): a deposed leader gets no
//! majority for it.
//!
//! A refusal proves nothing by itself either: for a moment after it thaws, such a leader hears every append beside the one that leads, and the
//! answer of either may come first (seen: a write that was refused and stored). So each write carries a name of its own, and after a refusal the
//! key is looked at.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::kv::Store;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::connection::{Bus, nothing_there};
use crate::kv::KV_OPERATION;
use crate::names::Bucket;
use crate::watch::{Source, Watch};

/// Longest key, in bytes.
pub const STATE_KEY_MAX: usize = 200;
/// Largest value, in bytes.
pub const STATE_VALUE_MAX: usize = 256 * 1024;
/// Shortest and longest time to live.
pub const STATE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600));
/// How long it is remembered that a key was deleted or expired, for watches that were away.
pub const DELETIONS_KEPT: Duration = Duration::from_secs(3600);

/// Longest wait for the acknowledgement of one append.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for one read or write with all its tries.
const LIMIT: Duration = Duration::from_secs(5);
/// First pause before a try that met another one under way; it grows by as much with each.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// Longest such pause.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(50);
/// First part of the keys that confirmations are written under. No App's name has a `$`.
const CONFIRMATIONS: &str = "$read";

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const TTL: &str = "Nats-TTL";
/// The name of one write.
const WRITE: &str = "Clusterctl-Write";

/// Why a read or write of shared state failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The key is none.
    #[error("{key:?} is no key: 1 to {STATE_KEY_MAX} of a-z, A-Z, 0-9, '-', '_', '=', '/' and '.', with no '.' first, last or twice")]
    Key {
        /// What was given.
        key: String,
    },
    /// The value does not fit.
    #[error("{key}: the value has {size} bytes, at most {STATE_VALUE_MAX} are allowed")]
    TooLarge {
        /// The key.
        key: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The key is not as the write expects it. Nothing was written (or another write took its place at once, when a leader was just deposed).
    #[error("{key}: it is not at the revision that was expected; nothing was written")]
    Conflict {
        /// The key.
        key: String,
    },
    /// No answer, or no stream leader. Nothing was written.
    #[error("{key}: the store cannot be reached now: {why}")]
    Unavailable {
        /// The key.
        key: String,
        /// What the client said.
        why: String,
    },
    /// A write was sent and not acknowledged: it may or may not have happened, or happen yet.
    #[error("{key}: the write was not acknowledged, it may or may not have happened: {why}")]
    Unknown {
        /// The key.
        key: String,
        /// What the client said.
        why: String,
    },
}

/// What a write wants of the key as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// That it has no value.
    Absent,
    /// That it has this revision.
    Revision(u64),
}

/// A key as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its value; none where it never had one, or has none any more.
    pub value: Option<Vec<u8>>,
    /// Revision of the value or of the deletion; 0 where nothing is known of the key.
    pub revision: u64,
}

/// Checks a key of an App.
///
/// # Errors
/// [`StateError::Key`].
pub fn check_state_key(key: &str) -> Result<(), StateError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_=/.".contains(&b);
    let dots = key.starts_with('.') || key.ends_with('.') || key.contains("..");
    if key.is_empty() || key.len() > STATE_KEY_MAX || dots || !key.bytes().all(good) {
        return Err(StateError::Key { key: key.chars().take(STATE_KEY_MAX).collect() });
    }
    Ok(())
}

/// The shared state of all Apps, as one node or controller reaches it.
#[derive(Debug)]
pub struct SharedState {
    bus: Bus,
    bucket: String,
    /// Key that this process's confirmations are written under.
    confirmations: String,
    store: OnceCell<Store>,
}

/// How one append went.
enum Appended {
    Done(u64),
    /// The expectation does not hold.
    Refused,
    /// Another append with an expectation about the same subject is under way; nothing was written (code 10164, seen on R3 of 2.15).
    Busy,
    NotSent(String),
    Unknown(String),
}

impl SharedState {
    /// Of the cluster of `bus`, for a process that is known as `who`, such as the node's name: one DNS label.
    #[must_use]
    pub fn new(bus: Bus, who: &str) -> Self {
        let bucket = bus.names().bucket(Bucket::AppData);
        Self { bus, bucket, confirmations: format!("{CONFIRMATIONS}.{who}"), store: OnceCell::new() }
    }

    async fn store(&self, key: &str) -> Result<&Store, StateError> {
        let open = || self.bus.jetstream.get_key_value(self.bucket.clone());
        self.store.get_or_try_init(open).await.map_err(|error| StateError::Unavailable { key: key.to_owned(), why: error.to_string() })
    }

    /// Reads a key, linearizably: it was so at one moment between call and return.
    ///
    /// # Errors
    /// [`StateError::Key`], [`StateError::Unavailable`].
    pub async fn read(&self, app: &str, key: &str) -> Result<Found, StateError> {
        let (full, end) = (full(app, key)?, Instant::now() + LIMIT);
        Ok(self.confirmed(&full, key, end).await?.0)
    }

    /// What the key is, confirmed, and the name of the write that made it so.
    async fn confirmed(&self, full: &str, key: &str, end: Instant) -> Result<(Found, Option<String>), StateError> {
        let mut busy = 0;
        loop {
            let (found, write) = self.leader_get(full, key).await?;
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED, found.revision.to_string());
            headers.insert(EXPECTED_SUBJECT, self.subject(full));
            headers.insert(TTL, DELETIONS_KEPT.as_secs().to_string());
            let why = match self.append(&self.confirmations, headers, Vec::new()).await {
                Appended::Done(_) => return Ok((found, write)),
                Appended::Refused => "others write it all the time".to_owned(),
                Appended::Busy => {
                    busy += 1;
                    self.pause(busy).await;
                    "others read and write it all the time".to_owned()
                }
                Appended::NotSent(why) | Appended::Unknown(why) => return Err(StateError::Unavailable { key: key.to_owned(), why }),
            };
            if Instant::now() > end {
                return Err(StateError::Unavailable { key: key.to_owned(), why });
            }
        }
    }

    /// Writes a key, and returns its new revision. With `ttl` it goes by itself after that time; without, it stays.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn write(&self, app: &str, key: &str, value: Vec<u8>, expect: Expect, ttl: Option<Duration>) -> Result<u64, StateError> {
        if value.len() > STATE_VALUE_MAX {
            return Err(StateError::TooLarge { key: key.to_owned(), size: value.len() });
        }
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert(TTL, ttl.as_secs().clamp(STATE_TTL.0.as_secs(), STATE_TTL.1.as_secs()).to_string());
        }
        self.change(app, key, headers, value, expect).await
    }

    /// Deletes a key, and returns the revision of the deletion. One that has no value is deleted all the same.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn delete(&self, app: &str, key: &str, expect: Expect) -> Result<u64, StateError> {
        let mut headers = HeaderMap::new();
        headers.insert(KV_OPERATION, "DEL");
        headers.insert(TTL, DELETIONS_KEPT.as_secs().to_string());
        self.change(app, key, headers, Vec::new(), expect).await
    }

    async fn change(&self, app: &str, key: &str, headers: HeaderMap, value: Vec<u8>, expect: Expect) -> Result<u64, StateError> {
        let (full, end) = (full(app, key)?, Instant::now() + LIMIT);
        let own = self.bus.client.new_inbox();
        let mut headers = headers;
        headers.insert(WRITE, own.as_str());
        let mut expected = match expect {
            Expect::Any => None,
            Expect::Absent => Some(0),
            Expect::Revision(revision) => Some(revision),
        };
        let mut busy = 0;
        loop {
            let mut headers = headers.clone();
            if let Some(revision) = expected {
                headers.insert(EXPECTED, revision.to_string());
            }
            match self.append(&full, headers, value.clone()).await {
                Appended::Done(revision) => return Ok(revision),
                Appended::Refused => {
                    let looked = self.confirmed(&full, key, end).await;
                    let (found, write) = looked.map_err(|error| StateError::Unknown { key: key.to_owned(), why: error.to_string() })?;
                    // A deleted key has a marker, which is what a create stands on then.
                    let marked = expect == Expect::Absent && found.value.is_none();
                    match Some(found.revision) {
                        _ if write.as_deref() == Some(own.as_str()) => return Ok(found.revision),
                        now if (now == expected || marked) && Instant::now() < end => expected = now,
                        _ => return Err(StateError::Conflict { key: key.to_owned() }),
                    }
                }
                Appended::Busy if Instant::now() < end => {
                    busy += 1;
                    self.pause(busy).await;
                    if let Ok((found, Some(write))) = self.leader_get(&full, key).await
                        && write == own
                    {
                        return Ok(found.revision);
                    }
                }
                Appended::Busy => {
                    return Err(StateError::Unavailable { key: key.to_owned(), why: "others read and write it all the time".to_owned() });
                }
                Appended::NotSent(why) => return Err(StateError::Unavailable { key: key.to_owned(), why }),
                Appended::Unknown(why) => return Err(StateError::Unknown { key: key.to_owned(), why }),
            }
        }
    }

    /// What the stream's leader, or who takes itself for it, has. Not to be decided by: see [`SharedState::read`].
    ///
    /// # Errors
    /// [`StateError::Key`], [`StateError::Unavailable`].
    pub async fn glance(&self, app: &str, key: &str) -> Result<Found, StateError> {
        Ok(self.leader_get(&full(app, key)?, key).await?.0)
    }

    /// The same, with the name of the write that made it so.
    async fn leader_get(&self, full: &str, key: &str) -> Result<(Found, Option<String>), StateError> {
        let store = self.store(key).await?;
        match store.stream.raw_message_builder().last_by_subject(self.subject(full)).send().await {
            Ok(message) => {
                let gone = is_gone(&message.headers);
                let write = message.headers.get(WRITE).map(|name| name.as_str().to_owned());
                Ok((Found { value: (!gone).then(|| message.payload.to_vec()), revision: message.sequence }, write))
            }
            Err(error) if nothing_there(&error) => Ok(Default::default()),
            Err(error) => Err(StateError::Unavailable { key: key.to_owned(), why: error.to_string() }),
        }
    }

    async fn append(&self, key: &str, headers: HeaderMap, payload: Vec<u8>) -> Appended {
        if !self.bus.is_connected() {
            return Appended::NotSent("there is no connection to NATS".to_owned());
        }
        let sent = self.bus.jetstream.publish_with_headers(self.subject(key), headers, payload.into()).await;
        let acknowledged = match sent {
            Ok(acknowledged) => acknowledged,
            Err(error) => return Appended::NotSent(error.to_string()),
        };
        match tokio::time::timeout(ACK_TIMEOUT, acknowledged.into_future()).await {
            Ok(Ok(ack)) => Appended::Done(ack.sequence),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Appended::Refused,
            // Nobody was there to take it.
            Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => Appended::NotSent(error.to_string()),
            Ok(Err(error)) if code(&error) == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Appended::Busy,
            Ok(Err(error)) => Appended::Unknown(error.to_string()),
            Err(_) => Appended::Unknown(format!("no acknowledgement within {} s", ACK_TIMEOUT.as_secs())),
        }
    }

    /// Processes that meet each other try again after different pauses.
    async fn pause(&self, tries: u32) {
        let own = self.confirmations.bytes().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(b)));
        let spread = Duration::from_micros(u64::from(own.wrapping_mul(tries) % 2000));
        tokio::time::sleep((BUSY_PAUSE.saturating_mul(tries)).min(BUSY_PAUSE_MAX) + spread).await;
    }

    /// Follows all keys of an App; deleted ones are told as changes without a value.
    ///
    /// # Errors
    /// [`StateError::Unavailable`] while the bucket cannot be reached.
    pub async fn watch(&self, app: &str) -> Result<Watch<Option<Vec<u8>>>, StateError> {
        let store = self.store(app).await?.clone();
        Ok(Watch::start(Source {
            store,
            filter: format!("{app}.>"),
            client: self.bus.client.clone(),
            connected: self.bus.connected.subscribe(),
            checked: true,
            read: |_, gone, payload| Some(Ok((!gone).then(|| payload.to_vec()))),
        }))
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}

fn full(app: &str, key: &str) -> Result<String, StateError> {
    check_state_key(key)?;
    Ok(format!("{app}.{key}"))
}

/// Whether a message is no value, but says that there is none any more: deleted, or expired.
pub(crate) fn is_gone(headers: &HeaderMap) -> bool {
    headers.get("Nats-Marker-Reason").is_some() || headers.get(KV_OPERATION).is_some_and(|op| op.as_str() != "PUT")
}

fn code(error: &PublishError) -> Option<ErrorCode> {
    use std::error::Error as _;
    error.source()?.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_and_bounded() {
        for good in ["a", "jobs/7", "a.b-c_d=e", &"x".repeat(STATE_KEY_MAX)] {
            check_state_key(good).expect("a key");
        }
        for bad in ["", ".a", "a.", "a..b", "a b", "a*", ">", "ä", "$read.n1", "a\nb", &"x".repeat(STATE_KEY_MAX + 1)] {
            assert!(matches!(check_state_key(bad), Err(StateError::Key { .. })), "{bad}");
        }
    }
}
