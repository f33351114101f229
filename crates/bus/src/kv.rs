//! A bucket of one type: leader reads, compare-and-set, writes that hold only under a given leadership.

use std::marker::PhantomData;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::kv::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::PAYLOAD_MAX;
use crate::connection::{Bus, nothing_there};
use crate::names::LEADER_KEY;
use crate::watch::{Source, Watch};

/// Header that says what a KV message does; absent means put.
pub(crate) const KV_OPERATION: &str = "KV-Operation";
/// Longest wait for the acknowledgement of one write.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a read or write of a bucket failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Another write came between: the key's revision, or the leader record's, is not the expected one. Nothing was written.
    #[error("{key}: somebody else wrote in between")]
    Conflict {
        /// The key.
        key: String,
    },
    /// No answer, or no stream leader. A write may or may not have happened.
    #[error("{key}: the store cannot be reached now: {why}")]
    Unavailable {
        /// The key, or the bucket.
        key: String,
        /// What the client said.
        why: String,
    },
    /// The value does not fit.
    #[error("{key}: the value has {size} bytes, at most {PAYLOAD_MAX} are allowed")]
    TooLarge {
        /// The key.
        key: String,
        /// Encoded size in bytes.
        size: usize,
    },
    /// The value cannot be encoded, or what is stored cannot be decoded.
    #[error("{key}: the stored object cannot be read or written as JSON")]
    Encoding {
        /// The key.
        key: String,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// A stored value with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revised<T> {
    /// The value.
    pub value: T,
    /// The key's revision: the sequence of the message that stored it.
    pub revision: u64,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState<T> {
    /// It has a value.
    Present(Revised<T>),
    /// It had one and was deleted.
    Deleted,
    /// The bucket as it is now never had it.
    Never,
}

/// The record of controller leadership (rule C1), key [`LEADER_KEY`] of the assignments bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderRecord {
    /// Identity of the store (rule C3): a UUID made with the first record, kept by all that follow.
    pub incarnation: String,
    /// Number of this leadership.
    pub term: u64,
    /// Name of the leading controller.
    pub leader: String,
    /// Random per controller start.
    pub instance: String,
}

/// A bucket of values of type `T`, stored as JSON.
#[derive(Debug, Clone)]
pub struct Kv<T> {
    store: Store,
    bus: Bus,
    bucket: String,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Kv<T> {
    pub(crate) const fn new(store: Store, bus: Bus, bucket: String) -> Self {
        Self { store, bus, bucket, value: PhantomData }
    }

    /// Reads a key from the stream's leader; `None` where it does not exist (any more).
    ///
    /// # Errors
    /// [`KvError::Unavailable`], [`KvError::Encoding`].
    pub async fn get(&self, key: &str) -> Result<Option<Revised<T>>, KvError> {
        self.state(key).await.map(|state| match state {
            KeyState::Present(entry) => Some(entry),
            KeyState::Deleted | KeyState::Never => None,
        })
    }

    /// Reads a key from the stream's leader, and tells a deleted one from one that never was.
    ///
    /// # Errors
    /// [`KvError::Unavailable`], [`KvError::Encoding`].
    pub async fn state(&self, key: &str) -> Result<KeyState<T>, KvError> {
        // async-nats' own `get` is a direct get, which a follower may answer with old data (rule C4).
        let unavailable = |why: String| KvError::Unavailable { key: key.to_owned(), why };
        match self.store.stream.raw_message_builder().last_by_subject(self.subject(key)).send().await {
            Ok(message) if message.headers.get(KV_OPERATION).is_some_and(|op| op.as_str() != "PUT") => Ok(KeyState::Deleted),
            Ok(message) => {
                let value = decode(key, &message.payload)?;
                Ok(KeyState::Present(Revised { value, revision: message.sequence }))
            }
            Err(error) if nothing_there(&error) => Ok(KeyState::Never),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// Creates a key that must not exist.
    ///
    /// # Errors
    /// [`KvError::Conflict`] where it exists; the others as they say.
    pub async fn create(&self, key: &str, value: &T) -> Result<u64, KvError> {
        match self.write(key, value, Some((0, None))).await {
            // A deleted key leaves a marker; the create stands on the marker's revision.
            Err(KvError::Conflict { key: conflict }) => match self.marker(key).await? {
                Some(revision) => self.write(key, value, Some((revision, None))).await,
                None => Err(KvError::Conflict { key: conflict }),
            },
            other => other,
        }
    }

    /// Creates a key with a value that nobody else writes, such as an instance. Whether it is ours: an earlier try of ours may have made
    /// it, its answer lost.
    ///
    /// # Errors
    /// As they say, without [`KvError::Conflict`].
    pub async fn create_once(&self, key: &str, value: &T) -> Result<bool, KvError>
    where
        T: PartialEq,
    {
        match self.create(key, value).await {
            Ok(_) => Ok(true),
            Err(KvError::Conflict { .. }) => Ok(self.get(key).await?.is_some_and(|found| found.value == *value)),
            Err(error) => Err(error),
        }
    }

    /// Replaces a key whose revision must be `revision`.
    ///
    /// # Errors
    /// [`KvError::Conflict`] where it is another; the others as they say.
    pub async fn update(&self, key: &str, value: &T, revision: u64) -> Result<u64, KvError> {
        self.write(key, value, Some((revision, None))).await
    }

    /// Writes a key that only this caller writes.
    ///
    /// # Errors
    /// As they say.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, KvError> {
        self.write(key, value, None).await
    }

    /// Writes a key on the condition that the leader record of this bucket still has revision `leader` (rule C2): the stream itself
    /// refuses a deposed leader.
    ///
    /// One at a time: while one such write is on its way through a replicated stream, a second that names the same subject is refused with
    /// code 10164 (seen on R3 of 2.15), which comes back as [`KvError::Unavailable`], since it says nothing of who leads.
    ///
    /// # Errors
    /// [`KvError::Conflict`] where another leads; the others as they say.
    pub async fn put_as_leader(&self, key: &str, value: &T, leader: u64) -> Result<u64, KvError> {
        self.write(key, value, Some((leader, Some(self.subject(LEADER_KEY))))).await
    }

    /// Deletes a key whose revision must be `revision`.
    ///
    /// # Errors
    /// [`KvError::Conflict`] where it is another; the others as they say.
    pub async fn delete(&self, key: &str, revision: u64) -> Result<(), KvError> {
        let mut headers = HeaderMap::new();
        headers.insert(KV_OPERATION, "DEL");
        headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
        self.publish(key, headers, Vec::new()).await.map(|_| ())
    }

    /// Deletes a key on the condition that the leader record of this bucket still has revision `leader` (rule C2). One at a time, as
    /// with [`Kv::put_as_leader`].
    ///
    /// # Errors
    /// [`KvError::Conflict`] where another leads; the others as they say.
    pub async fn delete_as_leader(&self, key: &str, leader: u64) -> Result<(), KvError> {
        let mut headers = HeaderMap::new();
        headers.insert(KV_OPERATION, "DEL");
        headers.insert("Nats-Expected-Last-Subject-Sequence", leader.to_string());
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", self.subject(LEADER_KEY));
        self.publish(key, headers, Vec::new()).await.map(|_| ())
    }

    /// Watches all keys that match `filter`, such as `node.*` or `>`. For readers that hear from elsewhere when they miss something, and
    /// ask for a listing then ([`Watch::relist`]); the others use [`Kv::watch_checked`].
    #[must_use]
    pub fn watch(&self, filter: &str) -> Watch<T>
    where
        T: Send + 'static,
    {
        self.start_watch(filter, false)
    }

    /// As [`Kv::watch`], and compared with the stream's leader every two seconds: one read of the last matching value each.
    #[must_use]
    pub fn watch_checked(&self, filter: &str) -> Watch<T>
    where
        T: Send + 'static,
    {
        self.start_watch(filter, true)
    }

    fn start_watch(&self, filter: &str, checked: bool) -> Watch<T>
    where
        T: Send + 'static,
    {
        let (store, client, connected) = (self.store.clone(), self.bus.client.clone(), self.bus.connected.subscribe());
        let read = |key: &str, gone: bool, payload: &[u8]| (!gone).then(|| decode(key, payload));
        Watch::start(Source { store, filter: filter.to_owned(), client, connected, checked, read })
    }

    /// Revision of the marker that a deletion left, if that is the key's last message.
    async fn marker(&self, key: &str) -> Result<Option<u64>, KvError> {
        match self.store.stream.raw_message_builder().last_by_subject(self.subject(key)).send().await {
            Ok(message) => {
                let deleted = message.headers.get(KV_OPERATION).is_some_and(|op| op.as_str() != "PUT");
                Ok(deleted.then_some(message.sequence))
            }
            Err(error) => Err(KvError::Unavailable { key: key.to_owned(), why: error.to_string() }),
        }
    }

    async fn write(&self, key: &str, value: &T, expect: Option<(u64, Option<String>)>) -> Result<u64, KvError> {
        let payload = serde_json::to_vec(value).map_err(|source| KvError::Encoding { key: key.to_owned(), source })?;
        if payload.len() > PAYLOAD_MAX {
            return Err(KvError::TooLarge { key: key.to_owned(), size: payload.len() });
        }
        let mut headers = HeaderMap::new();
        if let Some((revision, subject)) = expect {
            headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
            if let Some(subject) = subject {
                headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", subject);
            }
        }
        self.publish(key, headers, payload).await
    }

    async fn publish(&self, key: &str, headers: HeaderMap, payload: Vec<u8>) -> Result<u64, KvError> {
        let unavailable = |why: String| KvError::Unavailable { key: key.to_owned(), why };
        let ack = async { self.bus.jetstream.publish_with_headers(self.subject(key), headers, payload.into()).await?.await };
        match tokio::time::timeout(ACK_TIMEOUT, ack).await {
            Ok(Ok(ack)) => Ok(ack.sequence),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Err(KvError::Conflict { key: key.to_owned() }),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable(format!("no acknowledgement within {} s", ACK_TIMEOUT.as_secs()))),
        }
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}

/// Decodes a stored value.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, payload: &[u8]) -> Result<T, KvError> {
    serde_json::from_slice(payload).map_err(|source| KvError::Encoding { key: key.to_owned(), source })
}
