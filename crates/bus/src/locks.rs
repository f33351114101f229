//! Core NATS: what the agents of nodes whose processes want one lock tell each other of their order. Nothing is decided by it, so that any of it may be lost.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::connection::Bus;

/// What is told of a lock's slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum LockNote {
    /// To the holder's node: these claims wait on the sender's node, the first one first; none any more if empty.
    Waiting {
        /// The slot.
        slot: String,
        /// Numbers of the claims, unique on that node.
        claims: Vec<u64>,
    },
    /// From the holder's node to all that wait: the whole queue.
    Queue {
        /// The slot.
        slot: String,
        /// Node and number of each claim, the first one first.
        queue: Vec<(String, u64)>,
    },
}

/// Notes to one node. What cannot be read is left out.
#[derive(Debug)]
pub struct LockNotes {
    subscriber: async_nats::Subscriber,
}

impl LockNotes {
    /// The next one with its sender, as the subject says (rule N5). `None` only when the connection was closed for good.
    pub async fn next(&mut self) -> Option<(String, LockNote)> {
        loop {
            let message = self.subscriber.next().await?;
            let from = message.subject.split('.').nth(2).unwrap_or_default();
            match serde_json::from_slice(&message.payload) {
                Ok(note) => return Some((from.to_owned(), note)),
                Err(error) => debug!(from, "an unreadable note about a lock is left out: {error}"),
            }
        }
    }
}

impl Bus {
    /// Tells a node something of a lock; now or never.
    pub async fn publish_lock_note(&self, from: &str, to: &str, note: &LockNote) {
        self.publish(self.names().lock(from, to), note).await;
    }

    /// Hears what others tell this node of locks.
    ///
    /// # Errors
    /// Only after the connection was closed for good.
    pub async fn lock_notes(&self, me: &str) -> Result<LockNotes, async_nats::SubscribeError> {
        Ok(LockNotes { subscriber: self.client.subscribe(self.names().lock("*", me)).await? })
    }
}
