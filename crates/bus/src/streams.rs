//! The durable stream of one database: its active appends, each append on condition that the stream ends where it thinks (rules D6, N6).
//!
//! Nothing here waits for ever, and nothing is tried again here: what an append without an answer means only the stream itself tells.

use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode, message::PublishMessage};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::PAYLOAD_MAX;
use crate::connection::nothing_there;
use crate::databases::DatabaseLink;

/// Longest wait for the answer to an append, a read, or anything else. An append may wait for three disks behind others.
const ANSWER: Duration = Duration::from_secs(5);
/// Appends that may wait to be sent; whoever appends has no more than this on their way.
pub const APPENDS_MAX: usize = 8;
/// Messages of one question while the stream is read from a place on: with the largest ones 16 MiB.
const READ_TOGETHER: usize = 32;
/// Longest silence while the stream is read from a place on.
const SILENCE: Duration = Duration::from_secs(10);

/// The stream cannot be reached now, or refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: {why}")]
pub struct StreamError {
    /// Its name.
    pub stream: String,
    /// What the client said.
    pub why: String,
}

/// What is in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Sequence of the oldest message; that of the next one where there is none.
    pub first: u64,
    /// Sequence of the newest message ever.
    pub last: u64,
    /// Messages in it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An append to be sent.
#[derive(Debug, Clone)]
pub struct Append {
    /// Names it in its answer.
    pub number: u64,
    /// Sequence that the stream has to end with.
    pub expected: u64,
    /// The message.
    pub payload: Bytes,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, with this sequence.
    Sequence(u64),
    /// The stream does not end there.
    Refused,
    /// Nobody knows.
    Unsure(String),
}

/// The stream of one database.
#[derive(Debug, Clone)]
pub struct DatabaseStream {
    jetstream: Context,
    name: String,
    subjects: String,
    subject: String,
    replicas: usize,
}

impl DatabaseLink {
    /// The stream of the database of `app`. Nothing is asked yet.
    #[must_use]
    pub fn stream(&self, app: &str) -> DatabaseStream {
        let mut jetstream = jetstream::new(self.client().clone());
        jetstream.set_timeout(ANSWER);
        let names = self.names();
        let (subjects, subject) = (names.database_log(app, "*"), names.database_log(app, self.node()));
        DatabaseStream { jetstream, name: names.database_stream(app), subjects, subject, replicas: self.replicas() }
    }
}

impl DatabaseStream {
    fn failed(&self, why: &impl ToString) -> StreamError {
        StreamError { stream: self.name.clone(), why: why.to_string() }
    }

    /// Makes it where it is not there, and says what is in it, as its leader knows.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn open(&self) -> Result<StreamState, StreamError> {
        let config = Config {
            name: self.name.clone(),
            subjects: vec![self.subjects.clone()],
            num_replicas: self.replicas,
            storage: StorageType::File,
            max_message_size: i32::try_from(PAYLOAD_MAX + 1024).unwrap_or(i32::MAX),
            // Reads that decide ask the leader (rule C4).
            allow_direct: false,
            ..Config::default()
        };
        match self.get().await {
            Ok(stream) => Ok(state(&stream)),
            // One of two that make it at the same moment finds that of the other.
            Err(None) => self.jetstream.get_or_create_stream(config).await.map(|s| state(&s)).map_err(|e| self.failed(&e)),
            Err(Some(why)) => Err(self.failed(&why)),
        }
    }

    /// What is in it, as its leader knows; `None`: there is no such stream.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn state(&self) -> Result<Option<StreamState>, StreamError> {
        match self.get().await {
            Ok(stream) => Ok(Some(state(&stream))),
            Err(None) => Ok(None),
            Err(Some(why)) => Err(self.failed(&why)),
        }
    }

    /// The error: none, there is no such stream.
    async fn get(&self) -> Result<Stream, Option<String>> {
        use async_nats::jetstream::context::GetStreamErrorKind;
        self.jetstream.get_stream(&self.name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => None,
            _ => Some(error.to_string()),
        })
    }

    /// The message with this sequence, by a leader get; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be reached, or is not there.
    pub async fn read(&self, sequence: u64) -> Result<Option<Bytes>, StreamError> {
        let stream = self.jetstream.get_stream_no_info(&self.name).await.map_err(|error| self.failed(&error))?;
        match stream.raw_message_builder().sequence(sequence).send().await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if nothing_there(&error) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// All messages from sequence `from` to `last`, in order, each to `each`, until that says no. What was deleted between is not told: who
    /// reads notices by what is missing.
    ///
    /// # Errors
    /// It cannot be reached, or does not go on.
    pub async fn read_all<F>(&self, from: u64, last: u64, mut each: F) -> Result<(), StreamError>
    where
        F: FnMut(u64, Bytes) -> bool,
    {
        use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
        if from > last {
            return Ok(());
        }
        let stream = self.jetstream.get_stream_no_info(&self.name).await.map_err(|error| self.failed(&error))?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: SILENCE * 3,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| self.failed(&error))?;
        loop {
            let batch = consumer.fetch().max_messages(READ_TOGETHER).expires(SILENCE).messages().await;
            let mut batch = batch.map_err(|error| self.failed(&error))?;
            let mut count = 0;
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| self.failed(&error))?;
                let (sequence, pending) = message.info().map(|info| (info.stream_sequence, info.pending)).map_err(|e| self.failed(&e))?;
                count += 1;
                if sequence > last || !each(sequence, message.payload.clone()) || sequence == last || pending == 0 {
                    return Ok(());
                }
            }
            if count == 0 {
                return Err(self.failed(&"it does not go on"));
            }
        }
    }

    /// Removes what is before sequence `first`; all of it where there is nothing from there on.
    ///
    /// # Errors
    /// It cannot be reached. What is removed then nobody knows.
    pub async fn purge_before(&self, first: u64) -> Result<(), StreamError> {
        let stream = self.jetstream.get_stream_no_info(&self.name).await.map_err(|error| self.failed(&error))?;
        stream.purge().sequence(first).await.map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// Where appends go in and what became of them comes out. Sent one after the other in the order given, so that those that follow one that was
    /// refused are refused too. To be called on the runtime that carries the connection.
    #[must_use]
    pub fn appends(&self) -> (mpsc::Sender<Append>, mpsc::Receiver<(u64, Appended)>) {
        let (appends, mut waiting) = mpsc::channel::<Append>(APPENDS_MAX);
        let (told, answers) = mpsc::channel(APPENDS_MAX);
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(append) = waiting.recv().await {
                let message =
                    PublishMessage::build().payload(append.payload).expected_last_sequence(append.expected).expected_stream(&this.name);
                let sent = this.jetstream.send_publish(this.subject.clone(), message).await;
                let told = told.clone();
                tokio::spawn(async move {
                    let acknowledged = match sent {
                        Ok(sent) => sent.await,
                        Err(error) => Err(error),
                    };
                    let outcome = match acknowledged {
                        Ok(ack) => Appended::Sequence(ack.sequence),
                        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Appended::Refused,
                        Err(error) => Appended::Unsure(error.to_string()),
                    };
                    // Nobody waits for it any more: the tenure is over.
                    let _over = told.send((append.number, outcome)).await;
                });
            }
        });
        (appends, answers)
    }
}

fn state(stream: &Stream) -> StreamState {
    let state = &stream.cached_info().state;
    let first = if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
    StreamState { first, last: state.last_sequence, messages: state.messages, bytes: state.bytes }
}
