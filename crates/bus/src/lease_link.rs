//! The lease connections (rules N1, N3): two, to different servers; every message goes out on both and comes in on both. They carry
//! nothing else, so a slow consumer of data cannot close them.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::apart;
use crate::config::NatsConfig;
use crate::connection::{ConnectError, servers};
use crate::names::Names;

/// A dead server is found after two of these without an answer. The other connection goes on meanwhile.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one server to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Wait between attempts to connect; the first is made at once, for a restarted agent has little time (rule P6).
const RECONNECT_DELAY: Duration = Duration::from_millis(50);
/// Messages that may wait in the subscription; the oldest are worth least, and a lost one costs nothing but time.
const WAITING: usize = 4096;
/// Wait before subscribing again after the client gave a subscription up.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(50);
/// Copies of a message that come within this time of the first are left out: each message travels up to four ways (rule N3).
const COPIES: Duration = Duration::from_millis(100);
/// Messages remembered for that at most; then the oldest are forgotten early, and a copy is handled twice, which is harmless.
const REMEMBERED: usize = 8192;

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The node that the subject names as the sender.
    pub from: String,
    /// The encoded message.
    pub payload: Vec<u8>,
}

/// Both connections of one node.
#[derive(Debug)]
pub struct LeaseLink {
    clients: [async_nats::Client; 2],
    names: Names,
    me: String,
    arrived: mpsc::Receiver<Arrived>,
    seen: Seen,
    /// Rises with every connection made.
    made: watch::Sender<u64>,
}

/// The messages that came lately, by hash.
#[derive(Debug, Default)]
struct Seen {
    hashes: HashSet<u64>,
    order: VecDeque<(Instant, u64)>,
}

impl Seen {
    /// Whether this is the first copy.
    fn first(&mut self, message: &Arrived, now: Instant) -> bool {
        while let Some((at, hash)) = self.order.front().copied()
            && (now.duration_since(at) > COPIES || self.order.len() >= REMEMBERED)
        {
            self.order.pop_front();
            self.hashes.remove(&hash);
        }
        let hash = xxh3_64_with_seed(&message.payload, xxh3_64(message.from.as_bytes()));
        let first = self.hashes.insert(hash);
        if first {
            self.order.push_back((now, hash));
        }
        first
    }
}

/// The order in which each of the two connections tries the servers (rule N3). Two agents need two paths without a common server: each
/// connection begins at another server, and both move on in opposite directions, so that with three servers any two agents share a
/// server or use the other two. `servers` begins with the one that this node prefers.
#[must_use]
pub fn server_orders<S: Clone>(servers: &[S]) -> [Vec<S>; 2] {
    let forward = servers.to_vec();
    let mut backward: Vec<S> = servers.iter().rev().cloned().collect();
    if backward.is_empty() {
        backward.clone_from(&forward);
    }
    [forward, backward]
}

impl LeaseLink {
    /// Connects in the background and goes on trying for ever. To be called in the runtime that will use it.
    ///
    /// # Errors
    /// Only where the configuration cannot be used.
    pub async fn connect(config: &NatsConfig, names: Names, me: &str) -> Result<Self, ConnectError> {
        let (sender, arrived) = mpsc::channel(WAITING);
        let made = watch::Sender::new(0);
        let [forward, backward] = server_orders(&servers(config)?);
        let clients = [
            connect(forward.clone(), &format!("lease A {me}"), made.clone()).await?,
            connect(backward, &format!("lease B {me}"), made.clone()).await?,
        ];
        for client in &clients {
            tokio::spawn(receive(client.clone(), names.lease_to(me), sender.clone()));
        }
        tokio::spawn(apart::keep_apart(clients.clone(), forward, made.subscribe()));
        Ok(Self { clients, names, me: me.to_owned(), arrived, seen: Seen::default(), made })
    }

    /// Sends on both connections. On one that is not connected nothing waits: a lease message that comes late is worth nothing.
    pub async fn send(&self, to: &str, payload: Vec<u8>) {
        let subject = self.names.lease(&self.me, to);
        let payload = bytes_of(payload);
        for client in &self.clients {
            if client.connection_state() == async_nats::connection::State::Connected {
                // A connection that was lost in between loses the message, as any may be lost (rule N4).
                let _lost = client.publish(subject.clone(), payload.clone()).await;
            }
        }
    }

    /// The next message, from either connection; of copies only the first. `None` only when the runtime shuts down.
    pub async fn next(&mut self) -> Option<Arrived> {
        loop {
            let message = self.arrived.recv().await?;
            if self.seen.first(&message, Instant::now()) {
                return Some(message);
            }
        }
    }

    /// A message that is here already.
    pub fn try_next(&mut self) -> Option<Arrived> {
        loop {
            let message = self.arrived.try_recv().ok()?;
            if self.seen.first(&message, Instant::now()) {
                return Some(message);
            }
        }
    }

    /// A counter that rises whenever one of the connections stands, at first and again: what was said before was lost.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }

    /// Whether both connections stand, each on a server of its own.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.connected() == self.clients.len() && !apart::together(&self.clients)
    }

    /// How many of the two connections stand.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.clients.iter().filter(|c| c.connection_state() == async_nats::connection::State::Connected).count()
    }
}

fn bytes_of(payload: Vec<u8>) -> bytes::Bytes {
    bytes::Bytes::from(payload)
}

async fn connect(servers: Vec<async_nats::ServerAddr>, who: &str, made: watch::Sender<u64>) -> Result<async_nats::Client, ConnectError> {
    let list = servers.iter().map(async_nats::ServerAddr::as_url_str).collect::<Vec<_>>().join(", ");
    let name = who.to_owned();
    async_nats::ConnectOptions::new()
        .name(who)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ignore_discovered_servers()
        .retain_servers_order()
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .reconnect_delay_callback(|attempt| if attempt <= 1 { Duration::ZERO } else { RECONNECT_DELAY })
        .subscription_capacity(WAITING)
        .event_callback(move |event| {
            let name = name.clone();
            if event == async_nats::Event::Connected {
                made.send_modify(|n| *n += 1);
            }
            async move {
                match event {
                    async_nats::Event::Connected => info!(connection = name, "connected to NATS"),
                    async_nats::Event::Disconnected => warn!(connection = name, "disconnected from NATS"),
                    other => warn!(connection = name, "NATS: {other}"),
                }
            }
        })
        .connect(servers)
        .await
        .map_err(|source| ConnectError::Client { servers: list, source })
}

async fn receive(client: async_nats::Client, subject: String, sender: mpsc::Sender<Arrived>) {
    loop {
        if let Ok(mut subscriber) = client.subscribe(subject.clone()).await {
            while let Some(message) = subscriber.next().await {
                // CLUSTER.lease.FROM.TO
                let Some(from) = message.subject.split('.').nth(2) else { continue };
                let arrived = Arrived { from: from.to_owned(), payload: message.payload.to_vec() };
                if sender.send(arrived).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N3: with three servers, any two agents have two paths without a common server: a shared server, or the two others.
    #[test]
    fn n3_three_servers_give_two_disjoint_paths() {
        let all = ["s1", "s2", "s3"];
        let rotated = |by: usize| -> Vec<String> { (0..3).map(|i| all[(i + by) % 3].to_owned()).collect() };
        for a in 0..3 {
            for b in 0..3 {
                let pair = |by| server_orders(&rotated(by)).map(|order| order[0].clone());
                let (mine, theirs) = (pair(a), pair(b));
                assert_ne!(mine[0], mine[1], "the two connections begin at different servers");
                // Paths: through one shared server, or from one of mine to one of theirs. Two of them must not meet.
                let paths: Vec<Vec<&String>> =
                    mine.iter().flat_map(|m| theirs.iter().map(move |t| if m == t { vec![m] } else { vec![m, t] })).collect();
                let disjoint = paths.iter().any(|p| paths.iter().any(|q| p.iter().all(|s| !q.contains(s))));
                assert!(disjoint, "{mine:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn n3_copies_are_left_out_for_a_while() {
        let message = |from: &str, payload: &[u8]| Arrived { from: from.to_owned(), payload: payload.to_vec() };
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.first(&message("n1", b"a"), start));
        assert!(!seen.first(&message("n1", b"a"), start + COPIES));
        assert!(seen.first(&message("n2", b"a"), start), "another sender");
        assert!(seen.first(&message("n1", b"b"), start));
        assert!(seen.first(&message("n1", b"a"), start + COPIES * 2), "said again later");
        for i in 0..20_000_u32 {
            seen.first(&message("n1", &i.to_be_bytes()), start + COPIES * 2);
        }
        assert!(seen.order.len() <= REMEMBERED && seen.hashes.len() == seen.order.len());
    }

    #[test]
    fn n3_one_server_is_used_twice() {
        assert_eq!(server_orders(&["s1".to_owned()]), [vec!["s1".to_owned()], vec!["s1".to_owned()]]);
    }
}
