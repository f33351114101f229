//! The typed buckets against a real NATS server on loopback.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster_bus::{Bucket, Bus, Change, KeyState, Kv, KvError, LEADER_KEY, LeaderRecord, Names, NatsConfig};
use cluster_schemas::{Assignment, Heartbeat, Node};

/// A NATS server of the test's own; it ends with it.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats-server-2.15.1/nats-server");
    assert!(path.exists(), "nats-server is missing: run `make setup` (looked for {})", path.display());
    path
}

fn start(port: u16, folder: &Path) -> Child {
    Command::new(program())
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a started server")
}

impl Server {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { child: start(port, folder.path()), port, folder }
    }

    fn restart(&mut self) {
        self.child.kill().expect("a killed server");
        self.child.wait().expect("an ended server");
        self.child = start(self.port, self.folder.path());
    }

    async fn bus(&self) -> Bus {
        let config = NatsConfig { servers: vec![format!("nats://127.0.0.1:{}", self.port)], replicas: 1 };
        let bus = Bus::connect(&config, Names::new("t"), "test").await.expect("a usable configuration");
        bus.create_buckets().await;
        bus
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn node(name: &str, boot: &str) -> Node {
    Node {
        name: name.to_owned(),
        labels: Default::default(),
        addresses: Default::default(),
        boot_id: boot.to_owned(),
        agent_version: "0".to_owned(),
        witness: false,
        capacity: None,
        registered_at: None,
    }
}

#[tokio::test]
async fn compare_and_set_refuses_the_second_writer() {
    let server = Server::new();
    let kv: Kv<Node> = server.bus().await.open(Bucket::Nodes).await;
    assert_eq!(kv.get("n1").await.expect("an answer"), None);
    let first = kv.create("n1", &node("n1", "a")).await.expect("a new key");
    assert!(matches!(kv.create("n1", &node("n1", "b")).await, Err(KvError::Conflict { .. })));
    let second = kv.update("n1", &node("n1", "b"), first).await.expect("the right revision");
    assert!(matches!(kv.update("n1", &node("n1", "c"), first).await, Err(KvError::Conflict { .. })));
    let read = kv.get("n1").await.expect("an answer").expect("a value");
    assert_eq!((read.value.boot_id.as_str(), read.revision), ("b", second));
    assert!(matches!(kv.delete("n1", first).await, Err(KvError::Conflict { .. })));
    kv.delete("n1", second).await.expect("the right revision");
    assert_eq!(kv.get("n1").await.expect("an answer"), None);
    kv.create("n1", &node("n1", "d")).await.expect("a deleted key can be created again");
}

/// A create whose answer was lost is tried again, and must not be taken for another's.
#[tokio::test]
async fn a_key_that_an_earlier_try_made_is_ours() {
    let server = Server::new();
    let kv: Kv<String> = server.bus().await.open(Bucket::Status).await;
    for (instance, ours) in [("one", true), ("one", true), ("two", false)] {
        assert_eq!(kv.create_once("founding.n1", &instance.to_owned()).await.expect("an answer"), ours, "{instance}");
    }
}

/// Rule C2: the stream itself refuses the late write of a deposed leader.
#[tokio::test]
async fn a_deposed_leaders_late_write_is_refused() {
    let server = Server::new();
    let bus = server.bus().await;
    let records: Kv<LeaderRecord> = bus.open(Bucket::Assignments).await;
    let assignments: Kv<Assignment> = bus.open(Bucket::Assignments).await;
    let record = |term| LeaderRecord { incarnation: "i".to_owned(), term, leader: "n1".to_owned(), instance: "x".to_owned() };
    let old = records.create(LEADER_KEY, &record(1)).await.expect("the first leader");
    let assignment = Assignment { node: "n1".to_owned(), ..Assignment::default() };
    assignments.put_as_leader("node.n1", &assignment, old).await.expect("it leads");
    assignments.put_as_leader("node.n1", &assignment, old).await.expect("its own writes do not depose it");
    let new = records.update(LEADER_KEY, &record(2), old).await.expect("the second leader");
    let late = assignments.put_as_leader("node.n1", &Assignment { boot_id: "late".to_owned(), ..assignment.clone() }, old).await;
    assert!(matches!(late, Err(KvError::Conflict { .. })), "{late:?}");
    assert!(matches!(assignments.delete_as_leader("node.n1", old).await, Err(KvError::Conflict { .. })));
    assert_eq!(assignments.get("node.n1").await.expect("an answer").expect("a value").value, assignment);
    assignments.put_as_leader("node.n1", &assignment, new).await.expect("the new leader writes");
    assignments.delete_as_leader("node.n1", new).await.expect("the new leader deletes");
    assert_eq!(assignments.state("node.n1").await.expect("an answer"), KeyState::Deleted);
    assert_eq!(assignments.state("node.n2").await.expect("an answer"), KeyState::Never);
}

#[tokio::test]
async fn a_watch_lists_then_follows_and_lists_again_when_asked() {
    let server = Server::new();
    let kv: Kv<Node> = server.bus().await.open(Bucket::Nodes).await;
    let mut watch = kv.watch("*");
    assert_eq!(watch.next().await, Some(Change::Listed(Default::default())), "an empty bucket is listed too");
    let revision = kv.create("n1", &node("n1", "a")).await.expect("a new key");
    let Some(Change::Put { key, entry }) = watch.next().await else { panic!("no change came") };
    assert_eq!((key.as_str(), entry.revision, entry.value.boot_id.as_str()), ("n1", revision, "a"));
    kv.delete("n1", revision).await.expect("the right revision");
    assert_eq!(watch.next().await, Some(Change::Deleted { key: "n1".to_owned() }));
    kv.create("n2", &node("n2", "b")).await.expect("a new key");
    assert!(matches!(watch.next().await, Some(Change::Put { .. })));
    watch.relist();
    let Some(Change::Listed(all)) = watch.next().await else { panic!("not listed again") };
    assert_eq!(all.keys().collect::<Vec<_>>(), ["n2"], "the deleted key is not listed");
}

#[tokio::test]
async fn a_value_that_cannot_be_read_does_not_end_the_watch() {
    let server = Server::new();
    let bus = server.bus().await;
    let wrong: Kv<String> = bus.open(Bucket::Nodes).await;
    let right: Kv<Node> = bus.open(Bucket::Nodes).await;
    wrong.put("n1", &"not a node".to_owned()).await.expect("a written key");
    right.put("n2", &node("n2", "b")).await.expect("a written key");
    let mut watch = right.watch("*");
    assert!(matches!(watch.next().await, Some(Change::Unreadable { key, .. }) if key == "n1"));
    let Some(Change::Listed(all)) = watch.next().await else { panic!("not listed") };
    assert_eq!(all.keys().collect::<Vec<_>>(), ["n2"]);
    assert!(matches!(right.get("n1").await, Err(KvError::Encoding { .. })));
}

#[tokio::test]
async fn a_watch_and_heartbeats_go_on_after_the_server_restarted() {
    let mut server = Server::new();
    let bus = server.bus().await;
    let kv: Kv<Node> = bus.open(Bucket::Nodes).await;
    let mut watch = kv.watch("*");
    assert!(matches!(watch.next().await, Some(Change::Listed(_))));
    let mut heartbeats = bus.heartbeats().await.expect("a subscription");
    server.restart();
    let seen = async {
        // Written by whoever is first back; the watch must show it, by its own recovery or by listing again.
        while kv.put("n1", &node("n1", "after")).await.is_err() {}
        loop {
            match watch.next().await.expect("a watch never ends") {
                Change::Listed(all) if all.contains_key("n1") => return,
                Change::Put { key, .. } if key == "n1" => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.expect("the watch shows what was written after the restart");
    let heartbeat = Heartbeat {
        node: "n1".to_owned(),
        boot_id: "b".to_owned(),
        instance: "i".to_owned(),
        sequence: 1,
        assignment: None,
        status_revision: 0,
        term: 0,
        load_percent: 0,
        not_ready: Vec::new(),
    };
    bus.publish_heartbeat(&heartbeat).await;
    let heard = tokio::time::timeout(Duration::from_secs(5), heartbeats.next()).await.expect("in time");
    assert_eq!(heard, Some(heartbeat));
}

/// Follows the watch until it says that `key` exists.
async fn until_it_has<T: serde::de::DeserializeOwned + Send + 'static>(watch: &mut cluster_bus::Watch<T>, key: &str) {
    let seen = async {
        loop {
            match watch.next().await.expect("a watch never ends") {
                Change::Listed(all) if all.contains_key(key) => return,
                Change::Put { key: put, .. } if put == key => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), seen).await.expect("the watch shows the key");
}

/// A consumer that lives and delivers nothing, as on a server that was cut off and whose copy of the stream caught up: nothing on the
/// connection tells, so only the stream's leader can.
#[tokio::test]
async fn a_checked_watch_notices_a_consumer_that_lives_and_is_behind() {
    let server = Server::new();
    let bus = server.bus().await;
    let kv: Kv<Node> = bus.open(Bucket::Nodes).await;
    let (mut checked, mut unchecked) = (kv.watch_checked("*"), kv.watch("*"));
    kv.create("n1", &node("n1", "a")).await.expect("a new key");
    until_it_has(&mut checked, "n1").await;
    until_it_has(&mut unchecked, "n1").await;

    // Both consumers are made deaf.
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("a connection");
    let stream = async_nats::jetstream::new(client).get_stream("KV_t-nodes").await.expect("the stream");
    let mut names = stream.consumer_names();
    let mut deaf = 0;
    while let Some(name) = futures_util::StreamExt::next(&mut names).await {
        let name = name.expect("a name");
        let mut consumer: async_nats::jetstream::consumer::Consumer<async_nats::jetstream::consumer::push::Config> =
            stream.get_consumer(&name).await.expect("the consumer");
        let mut config = consumer.info().await.expect("its state").config.clone();
        config.filter_subject = "$KV.t-nodes.nothing".to_owned();
        config.name = Some(name);
        stream.create_consumer(config).await.expect("a changed consumer");
        deaf += 1;
    }
    assert_eq!(deaf, 2);

    kv.create("n2", &node("n2", "b")).await.expect("a new key");
    until_it_has(&mut checked, "n2").await;
    // And this is what it would miss otherwise.
    assert!(tokio::time::timeout(Duration::from_millis(500), unchecked.next()).await.is_err(), "the unchecked one is not deaf");
    // One that is not behind is left alone: nothing comes for longer than two checks.
    assert!(tokio::time::timeout(Duration::from_secs(5), checked.next()).await.is_err(), "it lists again and again");
}
