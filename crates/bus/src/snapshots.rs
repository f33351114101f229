//! Snapshots of one database in an object store of its own: each an object with its checksum, in chunks of at most 512 KiB.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::context::{Context, ObjectStoreErrorKind};
use async_nats::jetstream::object_store::{Config, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::PAYLOAD_MAX;
use crate::databases::DatabaseLink;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// The store cannot be reached, or what is in it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object store {store}: {why}")]
pub struct SnapshotError {
    /// Its name.
    pub store: String,
    /// What the client said.
    pub why: String,
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Name of the object.
    pub name: String,
    /// What was said about it when it was put there.
    pub metadata: BTreeMap<String, String>,
    /// Its bytes.
    pub bytes: u64,
}

/// The object store of one database.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    jetstream: Context,
    bucket: String,
    replicas: usize,
}

impl DatabaseLink {
    /// The snapshots of the database of `app`. Nothing is asked yet.
    #[must_use]
    pub fn snapshots(&self, app: &str) -> SnapshotStore {
        let mut jetstream = jetstream::new(self.client().clone());
        jetstream.set_timeout(ANSWER);
        SnapshotStore { jetstream, bucket: self.names().database_stream(app), replicas: self.replicas() }
    }
}

impl SnapshotStore {
    fn failed(&self, why: &impl ToString) -> SnapshotError {
        SnapshotError { store: self.bucket.clone(), why: why.to_string() }
    }

    async fn existing(&self) -> Result<Option<ObjectStore>, SnapshotError> {
        match self.jetstream.get_object_store(&self.bucket).await {
            Ok(store) => Ok(Some(store)),
            Err(error) if error.kind() == ObjectStoreErrorKind::GetStore => {
                // Not there, or not to be had: only the list of streams tells.
                let name = format!("OBJ_{}", self.bucket);
                let mut names = self.jetstream.stream_names();
                while let Some(known) = names.next().await {
                    if known.map_err(|error| self.failed(&error))? == name {
                        return Err(self.failed(&error));
                    }
                }
                Ok(None)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Puts a snapshot there, and makes the store where it is not there. It is there as a whole or not at all.
    ///
    /// # Errors
    /// The store cannot be reached, or `from` ends in an error.
    pub async fn put(
        &self,
        name: &str,
        metadata: BTreeMap<String, String>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), SnapshotError> {
        let store = match self.existing().await? {
            Some(store) => store,
            None => {
                let config =
                    Config { bucket: self.bucket.clone(), num_replicas: self.replicas, storage: StorageType::File, ..Config::default() };
                self.jetstream.create_object_store(config).await.map_err(|error| self.failed(&error))?
            }
        };
        let metadata = ObjectMetadata {
            name: name.to_owned(),
            chunk_size: Some(PAYLOAD_MAX),
            metadata: metadata.into_iter().collect(),
            ..ObjectMetadata::default()
        };
        store.put(metadata, from).await.map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// All that are there, by name; none where there is no store.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn list(&self) -> Result<Vec<StoredSnapshot>, SnapshotError> {
        let Some(store) = self.existing().await? else { return Ok(Vec::new()) };
        let mut list = store.list().await.map_err(|error| self.failed(&error))?;
        let mut all = Vec::new();
        while let Some(object) = list.next().await {
            let object = object.map_err(|error| self.failed(&error))?;
            let metadata = object.metadata.into_iter().collect();
            all.push(StoredSnapshot { name: object.name, metadata, bytes: object.size as u64 });
        }
        all.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(all)
    }

    /// Reads a snapshot into `to`. Its checksum is compared at the end: after an error what was written is of no use.
    ///
    /// # Errors
    /// It is not there, is damaged, cannot be reached, or `to` takes no more.
    pub async fn get(&self, name: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), SnapshotError> {
        let store = self.existing().await?.ok_or_else(|| self.failed(&"there is none"))?;
        let mut object = store.get(name).await.map_err(|error| self.failed(&error))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = tokio::time::timeout(ANSWER, object.read(&mut buffer)).await.map_err(|_| self.failed(&"it does not go on"))?;
            let count = read.map_err(|error| self.failed(&error))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            to.write_all(bytes).await.map_err(|error| self.failed(&error))?;
        }
        to.flush().await.map_err(|error| self.failed(&error))
    }

    /// Removes one.
    ///
    /// # Errors
    /// The store cannot be reached, or it is not there.
    pub async fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        let Some(store) = self.existing().await? else { return Ok(()) };
        store.delete(name).await.map_err(|error| self.failed(&error))
    }
}
