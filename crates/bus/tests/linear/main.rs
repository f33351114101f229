//! Reads and writes of shared state are linearizable while the servers that lead it are killed and paused: histories of many clients, held
//! to it by a checker of their own. `SOAK_ROUNDS=10` makes it ten of each.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod history;
mod servers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use cluster_bus::{Bus, Expect, Names, NatsConfig, SharedState, StateError};
use history::{Did, Operation, is_linearizable};
use servers::Servers;

/// Keys of one round: few operations each, so that the search is short.
const KEYS: u64 = 6;
/// Clients.
const CLIENTS: usize = 5;
/// Longest wait for the cluster to serve again.
const LIMIT: Duration = Duration::from_secs(90);

struct Recorder {
    begun: Instant,
    values: AtomicU64,
    operations: Mutex<Vec<(u64, Operation)>>,
    reads: AtomicU64,
    writes: AtomicU64,
    stop: AtomicBool,
}

impl Recorder {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a short test")
    }

    fn note(&self, key: u64, begun: u64, ended: Option<u64>, did: Did) {
        self.operations.lock().expect("no panic").push((key, Operation { begun, ended, did }));
    }
}

async fn client(state: SharedState, round: u64, recorder: Arc<Recorder>, seed: u64) {
    let mut turn = seed;
    while !recorder.stop.load(Ordering::Relaxed) {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (turn >> 33) % KEYS;
        let name = format!("r{round}.k{key}");
        let begun = recorder.now();
        let read = state.read("app", &name).await;
        let ended = Some(recorder.now());
        let Ok(found) = read else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let value = found.value.map(|v| String::from_utf8(v).expect("text").parse::<u64>().expect("a number"));
        recorder.note(key, begun, ended, Did::Read(value));
        recorder.reads.fetch_add(1, Ordering::Relaxed);
        if (turn >> 40).is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis(15)).await;
            continue;
        }
        let new = recorder.values.fetch_add(1, Ordering::Relaxed);
        let (expect, did) = match value {
            Some(from) if (turn >> 44).is_multiple_of(2) => (
                Expect::Revision(found.revision),
                (Did::Swapped { from, to: new, done: true }, Did::Swapped { from, to: new, done: false }),
            ),
            _ => (Expect::Any, (Did::Wrote(new), Did::Wrote(new))),
        };
        let begun = recorder.now();
        let wrote = state.write("app", &name, new.to_string().into_bytes(), expect, None).await;
        let ended = Some(recorder.now());
        match wrote {
            Ok(_) => {
                recorder.note(key, begun, ended, did.0);
                recorder.writes.fetch_add(1, Ordering::Relaxed);
            }
            Err(StateError::Conflict { .. }) => recorder.note(key, begun, ended, did.1),
            Err(StateError::Unknown { .. }) => recorder.note(key, begun, None, did.0),
            Err(StateError::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// The server that leads the bucket's stream.
async fn leader(jetstream: &jetstream::Context) -> usize {
    let begun = Instant::now();
    loop {
        if let Ok(mut stream) = jetstream.get_stream("KV_t-app-data").await
            && let Ok(info) = stream.info().await
            && let Some(name) = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone())
        {
            return name.trim_start_matches('s').parse().expect("a number");
        }
        assert!(begun.elapsed() < LIMIT, "the stream has no leader");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_served(state: &SharedState) {
    let begun = Instant::now();
    while state.write("app", "served", b"x".to_vec(), Expect::Any, None).await.is_err() {
        assert!(begun.elapsed() < LIMIT, "no write is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_through_kills_and_pauses_of_leaders_are_linearizable() {
    let rounds: u64 = std::env::var("SOAK_ROUNDS").map_or(1, |text| text.parse().expect("a number"));
    let mut servers = Servers::new();
    let bus = async |first: usize| {
        let config = NatsConfig { servers: servers.urls(first), replicas: 3 };
        Bus::connect(&config, Names::new("t"), "test").await.expect("a usable configuration")
    };
    let own = bus(0).await;
    tokio::time::timeout(LIMIT, own.create_buckets()).await.expect("buckets in time");
    let mut states = Vec::new();
    for n in 0..CLIENTS {
        states.push(bus(n % 3).await);
    }
    let watcher = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(servers.urls(0)).await.expect("a connection");
    let jetstream = jetstream::new(watcher);
    let served = SharedState::new(own, "own");
    until_served(&served).await;
    for round in 0..2 * rounds {
        let recorder = Arc::new(Recorder {
            begun: Instant::now(),
            values: AtomicU64::new(1),
            operations: Mutex::default(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut clients = tokio::task::JoinSet::new();
        for (n, bus) in states.iter().enumerate() {
            let (state, seed) = (SharedState::new(bus.clone(), &format!("n{n}")), round * 100 + n as u64);
            clients.spawn(client(state, round, Arc::clone(&recorder), seed));
        }
        let some = async |count: u64| {
            let from = recorder.writes.load(Ordering::Relaxed);
            let begun = Instant::now();
            while recorder.writes.load(Ordering::Relaxed) < from + count {
                assert!(begun.elapsed() < LIMIT, "no writes go on");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        some(60).await;
        let leads = leader(&jetstream).await;
        if round % 2 == 0 {
            servers.kill(leads);
            some(60).await;
            servers.start(leads);
        } else {
            // It goes on as a leader that does not know that it was deposed.
            servers.signal(leads, "-STOP");
            some(60).await;
            servers.signal(leads, "-CONT");
            some(60).await;
        }
        recorder.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.expect("no panic");
        }
        let operations = std::mem::take(&mut *recorder.operations.lock().expect("no panic"));
        for key in 0..KEYS {
            let of_key: Vec<Operation> = operations.iter().filter(|(k, _)| *k == key).map(|(_, o)| *o).collect();
            assert!(of_key.len() > 5, "key {key} of round {round}: only {} operations", of_key.len());
            assert!(is_linearizable(&of_key), "round {round}, key {key}: {of_key:#?}");
        }
        until_served(&served).await;
    }
}
