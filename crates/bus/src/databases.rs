//! Core NATS for databases (rule N5): records as they are committed, what replicas confirm, and questions between the nodes that have one App.
//!
//! A connection of its own: a transaction of hundreds of megabytes must not delay heartbeats, and what waits here is bounded much lower than
//! elsewhere, since each message may have half a megabyte. What does not fit is dropped, by design: a replica that misses a record asks
//! for what it lacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_schemas::database::{DatabaseAnswer, DatabaseAsk};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::config::NatsConfig;
use crate::connection::{Bus, CONNECT_TIMEOUT, ConnectError, PING_INTERVAL, RECONNECT_DELAY, servers};
use crate::names::Names;

/// Messages that may wait in one subscription before the newest are dropped: with the largest records 64 MiB.
const SUBSCRIPTION_CAPACITY: usize = 128;
/// Messages that may wait to be sent.
const SEND_CAPACITY: usize = 64;
/// Records that may wait to be sent live...
const OUTGOING_MESSAGES: usize = 4096;
/// ...and their bytes.
const OUTGOING_BYTES: usize = 32 << 20;
/// Longest wait for room in the connection before what is live is dropped.
const SEND_WAIT: Duration = Duration::from_millis(500);

/// The connection.
#[derive(Debug, Clone)]
pub struct DatabaseLink {
    client: async_nats::Client,
    names: Names,
    node: String,
    replicas: usize,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct DatabaseMessage {
    /// The node that sent it, as the subject says; empty in answers.
    pub from: String,
    /// What was sent.
    pub payload: Bytes,
    /// Where an answer goes, if one is awaited.
    pub reply: Option<String>,
    /// Nobody listens there (rule N4): an answer to a question that nobody received.
    pub nobody: bool,
}

/// Messages of one kind.
#[derive(Debug)]
pub struct DatabaseMessages {
    subscriber: async_nats::Subscriber,
    /// Place of the sender's name in the subject, if it is there.
    from: Option<usize>,
}

impl DatabaseMessages {
    /// The next one. `None` once the connection gave the subscription up.
    pub async fn next(&mut self) -> Option<DatabaseMessage> {
        self.subscriber.next().await.map(|message| self.read(message))
    }

    /// The next one of those that are here already.
    pub fn try_next(&mut self) -> Option<DatabaseMessage> {
        use futures_util::FutureExt as _;
        self.subscriber.next().now_or_never().flatten().map(|message| self.read(message))
    }

    fn read(&self, message: async_nats::Message) -> DatabaseMessage {
        let from = self.from.and_then(|place| message.subject.split('.').nth(place)).unwrap_or_default().to_owned();
        DatabaseMessage {
            from,
            nobody: message.status == Some(async_nats::StatusCode::NO_RESPONDERS),
            payload: message.payload,
            reply: message.reply.map(|reply| reply.to_string()),
        }
    }
}

/// Sends without waiting, in the order given; what does not fit is dropped and counted.
#[derive(Debug, Clone)]
pub struct Outgoing {
    queue: mpsc::Sender<(String, Bytes)>,
    waiting: Arc<AtomicUsize>,
}

impl Outgoing {
    /// Sends soon. False: there was no room, the message is dropped.
    pub fn send(&self, subject: String, payload: Bytes) -> bool {
        let bytes = payload.len();
        if self.waiting.load(Ordering::Relaxed).saturating_add(bytes) > OUTGOING_BYTES {
            return false;
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let sent = self.queue.try_send((subject, payload)).is_ok();
        if !sent {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

impl DatabaseLink {
    /// Connects in the background and goes on trying for ever.
    ///
    /// # Errors
    /// Only where the configuration cannot be used.
    pub async fn connect(config: &NatsConfig, names: Names, node: &str) -> Result<Self, ConnectError> {
        let servers = servers(config)?;
        let client = async_nats::ConnectOptions::new()
            .name(format!("databases {node}"))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ignore_discovered_servers()
            .retain_servers_order()
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .reconnect_delay_callback(|attempt| if attempt <= 1 { Duration::ZERO } else { RECONNECT_DELAY })
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .client_capacity(SEND_CAPACITY)
            .event_callback(|event| async move {
                match event {
                    async_nats::Event::Connected => info!(connection = "databases", "connected to NATS"),
                    async_nats::Event::Disconnected => warn!(connection = "databases", "disconnected from NATS"),
                    // A replica that cannot follow asks for what it missed.
                    async_nats::Event::SlowConsumer(_) => debug!(connection = "databases", "messages dropped"),
                    other => warn!(connection = "databases", "NATS: {other}"),
                }
            })
            .connect(servers)
            .await
            .map_err(|source| ConnectError::Client { servers: config.servers.join(", "), source })?;
        Ok(Self { client, names, node: node.to_owned(), replicas: config.replicas.max(1) })
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The names of this cluster.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Replicas of what is durable.
    pub(crate) const fn replicas(&self) -> usize {
        self.replicas
    }

    /// The connection, for what is durable.
    pub(crate) const fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// A queue for what is said to all; its task runs on the present runtime and ends with the last sender.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let (queue, mut waiting) = mpsc::channel::<(String, Bytes)>(OUTGOING_MESSAGES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let (link, counted) = (self.clone(), Arc::clone(&bytes));
        tokio::spawn(async move {
            while let Some((subject, payload)) = waiting.recv().await {
                counted.fetch_sub(payload.len(), Ordering::Relaxed);
                link.say(subject, payload).await;
            }
        });
        Outgoing { queue, waiting: bytes }
    }

    /// Sends now or never.
    async fn say(&self, subject: String, payload: Bytes) {
        if !self.is_connected() {
            return;
        }
        match tokio::time::timeout(SEND_WAIT, self.client.publish(subject, payload)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("message not sent: {error}"),
            Err(_) => debug!("message not sent: the connection has no room"),
        }
    }

    /// What the active of `app` says.
    ///
    /// # Errors
    /// Only after the connection was closed for good.
    pub async fn hear_live(&self, app: &str) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        self.hear(self.names.database_live(app, "*"), Some(3)).await
    }

    /// What replicas of `app` confirm.
    ///
    /// # Errors
    /// As [`Self::hear_live`].
    pub async fn hear_confirms(&self, app: &str) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        self.hear(self.names.database_confirm(app, "*"), Some(3)).await
    }

    /// What other nodes ask this one about `app`.
    ///
    /// # Errors
    /// As [`Self::hear_live`].
    pub async fn hear_asks(&self, app: &str) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        self.hear(self.names.database_ask(app, "*", &self.node), Some(3)).await
    }

    /// What people ask this node about `app`.
    ///
    /// # Errors
    /// As [`Self::hear_live`].
    pub async fn hear_controls(&self, app: &str) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        self.hear(self.names.database_control(app, &self.node), None).await
    }

    async fn hear(&self, subject: String, from: Option<usize>) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        Ok(DatabaseMessages { subscriber: self.client.subscribe(subject).await?, from })
    }

    /// Asks node `to` something about `app`, and gives where its answers come in, one message after the other.
    ///
    /// # Errors
    /// As [`Self::hear_live`].
    pub async fn ask(&self, app: &str, to: &str, question: Bytes) -> Result<DatabaseMessages, async_nats::SubscribeError> {
        let inbox = self.client.new_inbox();
        let answers = self.hear(inbox.clone(), None).await?;
        // What cannot be sent is a lost message (rule N4): whoever asks asks again.
        let sent = self.client.publish_with_reply(self.names.database_ask(app, &self.node, to), inbox, question);
        if !matches!(tokio::time::timeout(SEND_WAIT, sent).await, Ok(Ok(()))) {
            debug!(app, to, "question not sent");
        }
        Ok(answers)
    }

    /// Sends answers, in order.
    pub async fn answer(&self, to: String, payloads: Vec<Bytes>) {
        for payload in payloads {
            if let Err(error) = self.client.publish(to.clone(), payload).await {
                return debug!("answer not sent: {error}");
            }
        }
    }
}

impl Bus {
    /// Asks the agent of `node` about the database of `app`. `None`: no answer in time, which says nothing about whether it heard.
    pub async fn ask_database(&self, app: &str, node: &str, ask: &DatabaseAsk, wait: Duration) -> Option<DatabaseAnswer> {
        let subject = self.names().database_control(app, node);
        let payload = serde_json::to_vec(ask).ok()?;
        let request = async_nats::Request::new().payload(payload.into()).timeout(Some(wait));
        let message = self.client.send_request(subject, request).await.ok()?;
        match serde_json::from_slice(&message.payload) {
            Ok(answer) => Some(answer),
            Err(error) => {
                warn!(app, node, "an answer that cannot be read: {error}");
                None
            }
        }
    }
}
