//! Shared state against a real NATS server on loopback.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster_bus::{Bus, Change, Expect, Found, Names, NatsConfig, SharedState, StateError};

/// A NATS server of the test's own; it ends with it.
struct Server {
    child: Child,
    _folder: tempfile::TempDir,
    bus: Bus,
}

impl Server {
    async fn new() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats-server-2.15.1/nats-server");
        assert!(program.exists(), "nats-server is missing: run `make setup`");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(program);
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]).arg(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a started server");
        let config = NatsConfig { servers: vec![format!("nats://127.0.0.1:{port}")], replicas: 1 };
        let bus = Bus::connect(&config, Names::new("t"), "test").await.expect("a usable configuration");
        bus.create_buckets().await;
        Self { child, _folder: folder, bus }
    }

    fn state(&self, who: &str) -> SharedState {
        SharedState::new(self.bus.clone(), who)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const ANY: Expect = Expect::Any;

async fn put(state: &SharedState, key: &str, value: &str, expect: Expect) -> Result<u64, StateError> {
    state.write("api", key, value.as_bytes().to_vec(), expect, None).await
}

#[tokio::test]
async fn writes_hold_only_as_expected_and_reads_see_them() {
    let server = Server::new().await;
    let (one, two) = (server.state("n1"), server.state("n2"));
    assert_eq!(one.read("api", "k").await.expect("an answer"), Found::default());
    let first = put(&one, "k", "a", Expect::Absent).await.expect("a new key");
    assert!(matches!(put(&two, "k", "b", Expect::Absent).await, Err(StateError::Conflict { .. })));
    let second = put(&two, "k", "b", Expect::Revision(first)).await.expect("the right revision");
    assert!(matches!(put(&one, "k", "c", Expect::Revision(first)).await, Err(StateError::Conflict { .. })));
    assert_eq!(one.read("api", "k").await.expect("an answer"), Found { value: Some(b"b".to_vec()), revision: second });
    // What another App has under the same name is another thing.
    assert_eq!(one.read("other", "k").await.expect("an answer"), Found::default());
    assert!(matches!(one.delete("api", "k", Expect::Revision(first)).await, Err(StateError::Conflict { .. })));
    let gone = one.delete("api", "k", Expect::Revision(second)).await.expect("the right revision");
    assert_eq!(two.read("api", "k").await.expect("an answer"), Found { value: None, revision: gone });
    let again = put(&two, "k", "d", Expect::Absent).await.expect("a deleted key can be created again");
    assert!(again > gone);
    put(&two, "k", "e", ANY).await.expect("a put");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_is_sent() {
    let server = Server::new().await;
    let state = server.state("n1");
    assert!(matches!(put(&state, "a b", "x", ANY).await, Err(StateError::Key { .. })));
    assert!(matches!(state.read("api", "other.>").await, Err(StateError::Key { .. })));
    let large = vec![b'x'; cluster_bus::STATE_VALUE_MAX + 1];
    assert!(matches!(state.write("api", "k", large, ANY, None).await, Err(StateError::TooLarge { .. })));
    let largest = vec![b'x'; cluster_bus::STATE_VALUE_MAX];
    state.write("api", "k", largest, ANY, None).await.expect("the largest value");
}

#[tokio::test]
async fn a_key_with_a_time_to_live_goes_by_itself_and_watches_are_told() {
    let server = Server::new().await;
    let state = server.state("n1");
    let mut watch = state.watch("api").await.expect("the bucket");
    assert_eq!(watch.next().await, Some(Change::Listed(Default::default())));
    let ttl = Some(Duration::from_secs(1));
    let revision = state.write("api", "brief", b"x".to_vec(), ANY, ttl).await.expect("a put");
    put(&state, "stays", "y", ANY).await.expect("a put");
    state.write("other", "brief", b"x".to_vec(), ANY, None).await.expect("a put");
    let mut told = Vec::new();
    while told.len() < 3 {
        let next = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a change in time");
        let Some(Change::Put { key, entry }) = next else { panic!("{next:?}") };
        told.push((key, entry.value, entry.revision));
    }
    assert_eq!(told[0], ("api.brief".to_owned(), Some(b"x".to_vec()), revision));
    assert_eq!(told[1].1.as_deref(), Some(b"y".as_slice()));
    assert_eq!((told[2].0.as_str(), &told[2].1), ("api.brief", &None), "an expired key is told as one that is gone");
    assert_eq!(state.read("api", "brief").await.expect("an answer").value, None);
    put(&state, "brief", "again", Expect::Absent).await.expect("an expired key can be created again");
    // A put without a time to live takes an earlier one away.
    state.write("api", "kept", b"x".to_vec(), ANY, ttl).await.expect("a put");
    put(&state, "kept", "y", ANY).await.expect("a put");
    let marker = state.write("api", "marker", b"x".to_vec(), ANY, ttl).await.expect("a put");
    let gone = async {
        while state.glance("api", "marker").await.expect("an answer").revision == marker {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it expires");
    assert_eq!(state.read("api", "kept").await.expect("an answer").value.as_deref(), Some(b"y".as_slice()));
}

/// Many at once on one key: nobody's count is lost, and no read is older than one that ended before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_set_counts_right_from_many_sides() {
    const EACH: u64 = 15;
    let server = Server::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for who in ["n1", "n2", "n3", "n4"] {
        let state = server.state(who);
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let found = state.read("api", "n").await.expect("an answer");
                let count: u64 = found.value.map_or(0, |v| String::from_utf8(v).expect("text").parse().expect("a number"));
                let expect = if found.revision == 0 { Expect::Absent } else { Expect::Revision(found.revision) };
                match put(&state, "n", &(count + 1).to_string(), expect).await {
                    Ok(_) => done += 1,
                    Err(StateError::Conflict { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    let found = server.state("n5").read("api", "n").await.expect("an answer");
    assert_eq!(found.value, Some((4 * EACH).to_string().into_bytes()));
}
