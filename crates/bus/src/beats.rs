//! Core NATS: heartbeats of the agents and beats of the leading controller. Needs no stream, and pauses for no election.

use std::collections::BTreeMap;

use cluster_schemas::Heartbeat;
use cluster_schemas::node::{VoterList, VoterMember};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::connection::Bus;

/// What the leading controller says each second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// Identity of the store that it leads in.
    pub incarnation: String,
    /// Number of the leadership.
    pub term: u64,
    /// Name of the controller.
    pub leader: String,
    /// Random per controller start.
    pub instance: String,
    /// (term, generation) of the newest assignment of each node: an agent that holds an older one lists anew (rule C4).
    #[serde(default)]
    pub assignments: BTreeMap<String, (u64, u64)>,
    /// Who should vote (rule B5.5); empty while the leader cannot say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<VoterMember>,
}

/// An operator vouches that voters are dead: those that are left go on by themselves (`clusterctl voters force`). Said over core NATS, for
/// with the voters the stores' majority may be gone too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceOrder {
    /// The set to install: those that are left, under a number that no change in progress can have.
    pub next: VoterList,
}

/// A stream of messages of one type; what cannot be read is logged and left out.
#[derive(Debug)]
pub struct Beats<T> {
    subscriber: async_nats::Subscriber,
    what: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Beats<T> {
    /// The next message. `None` only when the connection was closed for good.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            let message = self.subscriber.next().await?;
            match serde_json::from_slice(&message.payload) {
                Ok(value) => return Some(value),
                Err(error) => warn!(subject = message.subject.as_str(), "unreadable message left out: {error}"),
            }
        }
    }
}

impl Bus {
    /// Sends a heartbeat. A heartbeat that cannot be sent now is not sent later: it would lie.
    pub async fn publish_heartbeat(&self, heartbeat: &Heartbeat) {
        self.publish(self.names().heartbeat(&heartbeat.node), heartbeat).await;
    }

    /// Sends a beat; as with heartbeats, now or never.
    pub async fn publish_beat(&self, beat: &Beat) {
        self.publish(self.names().beat(), beat).await;
    }

    /// Hears the heartbeats of all nodes, one's own included.
    ///
    /// # Errors
    /// Only after the connection was closed for good.
    pub async fn heartbeats(&self) -> Result<Beats<Heartbeat>, async_nats::SubscribeError> {
        self.subscribe(self.names().heartbeats()).await
    }

    /// Hears the beats of the leading controller.
    ///
    /// # Errors
    /// Only after the connection was closed for good.
    pub async fn beats(&self) -> Result<Beats<Beat>, async_nats::SubscribeError> {
        self.subscribe(self.names().beat()).await
    }

    /// Sends an order to go on with the voters that are left; as with heartbeats, now or never.
    pub async fn publish_force(&self, order: &ForceOrder) {
        self.publish(self.names().force_voters(), order).await;
    }

    /// Hears orders to go on with the voters that are left.
    ///
    /// # Errors
    /// Only after the connection was closed for good.
    pub async fn forces(&self) -> Result<Beats<ForceOrder>, async_nats::SubscribeError> {
        self.subscribe(self.names().force_voters()).await
    }

    async fn subscribe<T>(&self, subject: String) -> Result<Beats<T>, async_nats::SubscribeError> {
        let subscriber = self.client.subscribe(subject).await?;
        Ok(Beats { subscriber, what: std::marker::PhantomData })
    }

    pub(crate) async fn publish<T: Serialize>(&self, subject: String, value: &T) {
        if !self.is_connected() {
            return;
        }
        match serde_json::to_vec(value) {
            Ok(payload) => {
                if let Err(error) = self.client.publish(subject, payload.into()).await {
                    debug!("message not sent: {error}");
                }
            }
            Err(error) => warn!(subject, "message not sent, it cannot be encoded: {error}"),
        }
    }
}
