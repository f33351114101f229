//! The stream of events: what happened, in words. Bounded by age, number, and number per object; nothing is decided by it.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream;
use cluster_schemas::event::Event;
use futures_util::StreamExt;

use crate::connection::Bus;
use crate::watch::consumer_config;

/// Most events that are kept.
const EVENTS_MAX: i64 = 10_000;
/// Most of them about one object.
const EVENTS_PER_OBJECT_MAX: i64 = 100;
/// How long they are kept.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The server says this often that the reader's consumer lives.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(2);

/// Events from the oldest that is kept, then as they come.
pub struct EventReader {
    messages: push::Messages,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").finish_non_exhaustive()
    }
}

impl EventReader {
    /// The next one, with its place in the stream; what cannot be read is left out.
    ///
    /// # Errors
    /// What ended the reading; begin with [`Bus::read_events`] again.
    pub async fn next(&mut self) -> Result<(u64, Event), String> {
        loop {
            let message = match self.messages.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the subscription ended".to_owned()),
            };
            let sequence = message.info().map_err(|error| error.to_string())?.stream_sequence;
            if let Ok(event) = serde_json::from_slice(&message.payload) {
                return Ok((sequence, event));
            }
        }
    }
}

impl Bus {
    /// Makes the stream of events where it is not there.
    ///
    /// # Errors
    /// Why it cannot be had now.
    pub async fn create_events(&self) -> Result<(), String> {
        let config = stream::Config {
            subjects: vec![self.names().events()],
            max_messages: EVENTS_MAX,
            max_messages_per_subject: EVENTS_PER_OBJECT_MAX,
            max_age: AGE_MAX,
            num_replicas: self.replicas,
            name: self.names().events_stream(),
            ..stream::Config::default()
        };
        self.create_missing(config).await.map_err(|error| error.to_string())
    }

    /// Stores an event.
    ///
    /// # Errors
    /// Why the store did not take it; it may be stored all the same.
    pub async fn publish_event(&self, event: &Event) -> Result<(), String> {
        let payload = serde_json::to_vec(event).map_err(|error| error.to_string())?;
        let subject = self.names().events_of(&event.object);
        let acknowledged = self.jetstream.publish(subject, payload.into()).await.map_err(|error| error.to_string())?;
        acknowledged.await.map(drop).map_err(|error| error.to_string())
    }

    /// Reads all events. The consumer lives in memory and is not acknowledged: it writes nothing.
    ///
    /// # Errors
    /// Why they cannot be read now.
    pub async fn read_events(&self) -> Result<EventReader, String> {
        let stream = self.jetstream.get_stream(self.names().events_stream()).await.map_err(|error| error.to_string())?;
        let config = consumer_config(&self.client, "clusterctl events", DeliverPolicy::All, String::new());
        let config = push::Config { idle_heartbeat: IDLE_HEARTBEAT, ..config };
        let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
        Ok(EventReader { messages: consumer.messages().await.map_err(|error| error.to_string())? })
    }
}
