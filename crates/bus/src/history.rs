//! The streams of Apps' revisions and of writes: who wrote what when. Bounded by number, number per App or object, and age.
//!
//! Both are written after the store has taken a write. So what they have did happen, and a controller that dies between leaves its last
//! write out; the next revision of that App puts down what it found.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;
use cluster_schemas::history::{AuditRecord, REVISIONS_MAX, Revision};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::PAYLOAD_MAX;
use crate::connection::{Bus, nothing_there};

/// Revisions that are kept, of all Apps.
const REVISIONS_ALL_MAX: i64 = 200_000;
/// Writes that are kept.
const AUDIT_MAX: i64 = 100_000;
/// Writes of one object that are kept, and of those that were refused.
const AUDIT_PER_OBJECT_MAX: i64 = 1_000;
/// How long writes are kept.
const AUDIT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most records in one answer.
pub const AUDIT_PAGE_MAX: usize = 1_000;
/// Attempts to append a revision while others append some of the same App.
const ATTEMPTS: u32 = 5;
/// Longest wait for the next part of an answer.
const SILENCE: Duration = Duration::from_secs(2);
/// What is not App or object in the subject of a record that got no further than its path.
const NO_OBJECT: &str = "request";

/// Why history cannot be written or read now.
#[derive(Debug, thiserror::Error)]
#[error("history cannot be reached now: {0}")]
pub struct HistoryError(String);

fn failed(error: impl std::fmt::Display) -> HistoryError {
    HistoryError(error.to_string())
}

impl Bus {
    /// Makes the streams of history where they are not there.
    ///
    /// # Errors
    /// Why they cannot be had now.
    pub async fn create_history(&self) -> Result<(), HistoryError> {
        let names = self.names();
        let revisions = Config {
            name: names.revisions_stream(),
            subjects: vec![names.revisions("*")],
            max_messages: REVISIONS_ALL_MAX,
            max_messages_per_subject: i64::try_from(REVISIONS_MAX).unwrap_or(i64::MAX),
            num_replicas: self.replicas,
            ..Config::default()
        };
        let audit = Config {
            name: names.audit_stream(),
            subjects: vec![names.audits()],
            max_messages: AUDIT_MAX,
            max_messages_per_subject: AUDIT_PER_OBJECT_MAX,
            max_age: AUDIT_AGE,
            num_replicas: self.replicas,
            ..Config::default()
        };
        for config in [revisions, audit] {
            self.create_missing(config).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Appends what an App is after a write, numbered; `before` is what it was, appended first where no record has it. Of two that come in the
    /// wrong order, the former stands as the other found it.
    ///
    /// # Errors
    /// The store did not take it, or its answer was lost.
    pub async fn append_revision(&self, revision: &Revision, before: Option<&Revision>) -> Result<(), HistoryError> {
        let subject = self.names().revisions(&revision.app);
        let stream = self.jetstream.get_stream_no_info(self.names().revisions_stream()).await.map_err(failed)?;
        for _ in 0..ATTEMPTS {
            // Decides what is appended, so the leader answers (rule C4).
            let (last, mut expected) = match stream.raw_message_builder().last_by_subject(subject.clone()).send().await {
                Ok(message) => (Some(serde_json::from_slice::<Revision>(&message.payload).map_err(failed)?), message.sequence),
                Err(error) if nothing_there(&error) => (None, 0),
                Err(error) => return Err(failed(error)),
            };
            let same = |known: &Revision, new: &Revision| known.uid == new.uid && known.resource_version >= new.resource_version;
            if last.as_ref().is_some_and(|last| same(last, revision)) {
                return Ok(());
            }
            let found = before.filter(|before| !last.as_ref().is_some_and(|last| same(last, before)));
            let next = last.map_or(0, |last| last.revision) + 1;
            let mut again = false;
            for (revision, new) in (next..).zip(found.into_iter().chain([revision])) {
                let payload = serde_json::to_vec(&Revision { revision, ..new.clone() }).map_err(failed)?;
                let message = PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(expected);
                let sent = self.jetstream.send_publish(subject.clone(), message).await.map_err(failed)?;
                match sent.await {
                    Ok(ack) => expected = ack.sequence,
                    // Another came between, or our own answer was lost: looked at again.
                    Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                        again = true;
                        break;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
            if !again {
                return Ok(());
            }
        }
        Err(failed("others append all the time"))
    }

    /// Revisions of one App, or the latest `most` of all; the latest last.
    ///
    /// # Errors
    /// They cannot be read now.
    pub async fn revisions(&self, app: Option<&str>, most: usize) -> Result<Vec<Revision>, HistoryError> {
        let filter = app.map(|app| self.names().revisions(app));
        Ok(self.latest(self.names().revisions_stream(), filter, most).await?.into_iter().map(|(_, r)| r).collect())
    }

    /// Appends a write.
    ///
    /// # Errors
    /// The store did not take it, or its answer was lost.
    pub async fn append_audit(&self, record: &AuditRecord) -> Result<(), HistoryError> {
        let refused = record.outcome == cluster_schemas::history::AuditOutcome::Refused;
        // A path is no subject; an object's name was checked before it was stored.
        let object = if refused || record.object.starts_with('/') { NO_OBJECT } else { &record.object };
        let mut payload = serde_json::to_vec(record).map_err(failed)?;
        if payload.len() > PAYLOAD_MAX {
            let detail = "before and after are too long to be kept".to_owned();
            payload = serde_json::to_vec(&AuditRecord { changes: Vec::new(), detail, ..record.clone() }).map_err(failed)?;
        }
        let subject = self.names().audit(refused, object);
        self.jetstream.publish(subject, payload.into()).await.map_err(failed)?.await.map(drop).map_err(failed)
    }

    /// The latest writes, of one object or all, at most [`AUDIT_PAGE_MAX`]; the latest last. Refused ones are among all only.
    ///
    /// # Errors
    /// They cannot be read now.
    pub async fn audit(&self, object: Option<&str>, most: usize) -> Result<Vec<AuditRecord>, HistoryError> {
        let filter = object.map(|object| self.names().audit(false, object));
        let found = self.latest(self.names().audit_stream(), filter, most.min(AUDIT_PAGE_MAX)).await?;
        Ok(found.into_iter().map(|(sequence, record)| AuditRecord { sequence, ..record }).collect())
    }

    /// The last `most` messages of a stream with this subject, of all where none is given. The consumer lives in memory.
    async fn latest<T: DeserializeOwned>(
        &self,
        stream: String,
        subject: Option<String>,
        most: usize,
    ) -> Result<Vec<(u64, T)>, HistoryError> {
        let stream = self.jetstream.get_stream(stream).await.map_err(failed)?;
        let state = &stream.cached_info().state;
        let (first, last) = (state.first_sequence, state.last_sequence);
        let mut window = u64::try_from(most).unwrap_or(u64::MAX);
        loop {
            // Of one subject there are few. Between those of all some are gone: then it is read from farther back.
            let start = if subject.is_none() { last.saturating_add(1).saturating_sub(window).max(first).max(1) } else { first.max(1) };
            let config = pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start },
                filter_subject: subject.clone().unwrap_or_default(),
                ack_policy: AckPolicy::None,
                inactive_threshold: SILENCE * 3,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            };
            let mut found = std::collections::VecDeque::new();
            if last > 0 {
                let consumer = stream.create_consumer(config).await.map_err(failed)?;
                let mut pending = consumer.cached_info().num_pending;
                while pending > 0 {
                    let batch = consumer.fetch().max_messages(AUDIT_PAGE_MAX).expires(SILENCE).messages().await;
                    let (mut batch, before) = (batch.map_err(failed)?, pending);
                    while let Some(message) = batch.next().await {
                        let message = message.map_err(failed)?;
                        let info = message.info().map_err(failed)?;
                        pending = info.pending;
                        if let Ok(value) = serde_json::from_slice(&message.payload) {
                            found.push_back((info.stream_sequence, value));
                            if found.len() > most {
                                found.pop_front();
                            }
                        }
                    }
                    if pending == before {
                        return Err(failed("it does not go on"));
                    }
                }
            }
            if found.len() >= most || start <= first.max(1) {
                return Ok(found.into());
            }
            window = window.saturating_mul(8);
        }
    }
}
