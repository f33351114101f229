//! One connection to NATS and the JetStream context on it.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::PAYLOAD_MAX;
use crate::config::NatsConfig;
use crate::kv::{Kv, KvError};
use crate::names::{Bucket, Names};
use crate::shared_state::DELETIONS_KEPT;

/// A dead server is found after two of these without an answer.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for one server to accept a connection: two ways there and back over a slow network, and one frozen server in the list
/// still leaves time before a node counts as lost.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Wait between attempts to connect; the first is made at once.
pub(crate) const RECONNECT_DELAY: Duration = Duration::from_millis(100);
/// Longest wait for an answer of JetStream. A stream without a leader answers nothing for 4 to 8 s (design section 2).
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait between attempts to create or open a bucket.
const BUCKET_RETRY: Duration = Duration::from_millis(250);
/// Messages that may wait in one subscription before the newest are dropped.
const SUBSCRIPTION_CAPACITY: usize = 4096;
/// Messages that may wait to be sent; more wait in their callers.
const SEND_CAPACITY: usize = 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A server's URL cannot be read.
    #[error("nats.servers: {url:?} is not a NATS URL such as nats://10.0.0.11:4222")]
    Url {
        /// As configured.
        url: String,
    },
    /// No server is configured.
    #[error("nats.servers is empty: name at least one, such as nats://10.0.0.11:4222")]
    NoServer,
    /// The client refused the options.
    #[error("cannot set up the connection to {servers}")]
    Client {
        /// As configured.
        servers: String,
        /// What the client said.
        source: async_nats::ConnectError,
    },
}

/// A connection of one part of the system, with the names of its cluster.
#[derive(Debug, Clone)]
pub struct Bus {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    /// Rises with every connection made.
    pub(crate) connected: watch::Sender<u64>,
    names: Names,
    pub(crate) replicas: usize,
}

/// The servers of a configuration.
pub(crate) fn servers(config: &NatsConfig) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
    if config.servers.is_empty() {
        return Err(ConnectError::NoServer);
    }
    config.servers.iter().map(|url| url.parse().map_err(|_| ConnectError::Url { url: url.clone() })).collect()
}

/// Does a leader get say that there is no such message? async-nats tells it in two ways.
pub(crate) fn nothing_there(error: &RawMessageError) -> bool {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(ref e) => e.error_code() == jetstream::ErrorCode::NO_MESSAGE_FOUND,
        _ => false,
    }
}

impl Bus {
    /// Makes a stream where it is not there. One that is there stays as it is.
    pub(crate) async fn create_missing(&self, config: jetstream::stream::Config) -> Result<(), jetstream::context::CreateStreamError> {
        if self.jetstream.get_stream(&config.name).await.is_ok() {
            return Ok(());
        }
        self.jetstream.create_stream(config).await.map(drop)
    }

    /// Connects in the background and goes on trying for ever; what is published meanwhile waits, up to a bound.
    ///
    /// `who` names the connection on the server, such as `agent n1`.
    ///
    /// # Errors
    /// Only where the configuration cannot be used.
    pub async fn connect(config: &NatsConfig, names: Names, who: &str) -> Result<Self, ConnectError> {
        let servers = servers(config)?;
        let who_logged = who.to_owned();
        let connected = watch::Sender::new(0_u64);
        let connections = connected.clone();
        let client = async_nats::ConnectOptions::new()
            .name(who)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ignore_discovered_servers()
            .retain_servers_order()
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(JETSTREAM_TIMEOUT))
            .reconnect_delay_callback(|attempt| if attempt <= 1 { Duration::ZERO } else { RECONNECT_DELAY })
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .client_capacity(SEND_CAPACITY)
            .event_callback(move |event| {
                let who = who_logged.clone();
                if event == async_nats::Event::Connected {
                    connections.send_modify(|n| *n += 1);
                }
                async move {
                    match event {
                        async_nats::Event::Connected => info!(connection = who, "connected to NATS"),
                        async_nats::Event::Disconnected => warn!(connection = who, "disconnected from NATS"),
                        other => warn!(connection = who, "NATS: {other}"),
                    }
                }
            })
            .connect(servers)
            .await
            .map_err(|source| ConnectError::Client { servers: config.servers.join(", "), source })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(JETSTREAM_TIMEOUT);
        Ok(Self { client, jetstream, connected, names, replicas: config.replicas.max(1) })
    }

    /// The names of this cluster.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// A counter that rises whenever the connection stands, at first and again.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connected.subscribe()
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Creates every bucket that is not there, with the configured replicas, and waits until it can be had (protocols B6).
    pub async fn create_buckets(&self) {
        for bucket in Bucket::ALL {
            let name = self.names.bucket(bucket);
            let mut failures = 0_u32;
            loop {
                if self.jetstream.get_key_value(&name).await.is_ok() {
                    break;
                }
                let config = kv::Config {
                    bucket: name.clone(),
                    num_replicas: self.replicas,
                    history: 1,
                    // Only what applications store goes by itself, and is remembered as gone for a while.
                    limit_markers: (bucket == Bucket::AppData).then_some(DELETIONS_KEPT),
                    max_value_size: i32::try_from(PAYLOAD_MAX).unwrap_or(i32::MAX),
                    ..kv::Config::default()
                };
                match self.jetstream.create_key_value(config).await {
                    Ok(_) => {
                        info!(bucket = name, replicas = self.replicas, "bucket created");
                        break;
                    }
                    Err(error) => {
                        failures += 1;
                        if failures.is_multiple_of(20) {
                            warn!(bucket = name, replicas = self.replicas, "cannot create the bucket yet: {error}");
                        }
                    }
                }
                tokio::time::sleep(BUCKET_RETRY).await;
            }
        }
    }

    /// Opens a bucket, waiting until it exists and can be reached.
    pub async fn open<T: Serialize + DeserializeOwned>(&self, bucket: Bucket) -> Kv<T> {
        let mut failures = 0_u32;
        loop {
            match self.try_open(bucket).await {
                Ok(kv) => return kv,
                Err(error) => {
                    failures += 1;
                    if failures.is_multiple_of(20) {
                        warn!(bucket = self.names.bucket(bucket), "cannot open the bucket yet: {error}");
                    }
                    tokio::time::sleep(BUCKET_RETRY).await;
                }
            }
        }
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// [`KvError::Unavailable`] where it does not exist or cannot be reached now.
    pub async fn try_open<T: Serialize + DeserializeOwned>(&self, bucket: Bucket) -> Result<Kv<T>, KvError> {
        let name = self.names.bucket(bucket);
        let store = self
            .jetstream
            .get_key_value(&name)
            .await
            .map_err(|error| KvError::Unavailable { key: name.clone(), why: error.to_string() })?;
        Ok(Kv::new(store, self.clone(), name))
    }
}
