//! The socket, from the side of who connects. No NATS is there.

use std::path::PathBuf;
use std::sync::Mutex;

use cluster_bus::NatsConfig;
use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::node::{AppObserved, InstanceState};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::*;

/// A socket of its own, whose clients are taken for processes of a unit that the test names.
struct World {
    path: PathBuf,
    unit: Arc<Mutex<Option<String>>>,
    status: watch::Sender<NodeStatus>,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    local: Arc<Local>,
    _folder: tempfile::TempDir,
}

fn member() -> AppAssignment {
    AppAssignment { role: Role::Member, peers: vec!["n2".to_owned()], ..AppAssignment::default() }
}

impl World {
    async fn new() -> Self {
        let nowhere = NatsConfig { servers: vec!["nats://127.0.0.1:1".to_owned()], replicas: 1 };
        let bus = Bus::connect(&nowhere, Names::new("t"), "test").await.unwrap();
        let (status, assignment) = (watch::Sender::new(NodeStatus::default()), watch::Sender::new(None));
        let local = Arc::new(Local {
            node: "n1".to_owned(),
            address: None,
            names: Names::new("t"),
            state: Arc::new(SharedState::new(bus.clone(), "n1")),
            followers: Arc::default(),
            rings: Arc::default(),
            services: Arc::default(),
            grants: grants::Grants::default(),
            bus,
            status: status.subscribe(),
            assignment: assignment.subscribe(),
            uid: 0,
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        let unit = Arc::new(Mutex::new(Some("clusterctl-api.service".to_owned())));
        let unit_of: UnitOf = {
            let unit = Arc::clone(&unit);
            Arc::new(move |_| unit.lock().unwrap().clone())
        };
        let listener = socket::listen(&path, &SocketConfig::default()).unwrap();
        tokio::spawn(socket::serve(listener, router(Arc::clone(&local), None), unit_of));
        let world = Self { path, unit, status, assignment, local, _folder: folder };
        world.assign(["api", "other"]);
        world
    }

    fn assign<const N: usize>(&self, apps: [&str; N]) {
        let apps = apps.into_iter().map(|app| (app.to_owned(), member())).collect();
        self.assignment.send_replace(Some(Arc::new(Assignment { apps, ..Assignment::default() })));
    }

    fn see(&self, state: InstanceState) {
        let seen = AppObserved { role: Role::Member, state, ..AppObserved::default() };
        self.status.send_replace(NodeStatus { apps: [("api".to_owned(), seen)].into(), ..NodeStatus::default() });
    }

    fn be(&self, unit: Option<&str>) {
        *self.unit.lock().unwrap() = unit.map(ToOwned::to_owned);
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
    }
}

#[tokio::test]
async fn an_app_learns_who_it_is_and_nothing_of_others() {
    let world = World::new().await;
    let (status, me) = world.get("/v1/self").await;
    assert_eq!((status, me["app"].as_str(), me["node"].as_str(), me["peers"][0].as_str()), (200, Some("api"), Some("n1"), Some("n2")));
    let (status, refused) = world.get("/v1/self?app=other").await;
    assert_eq!((status, refused["type"].as_str()), (403, Some("forbidden")));
    // Its hooks are it as well.
    world.be(Some("clusterctl-other.onOwn.7.service"));
    assert_eq!(world.get("/v1/self").await.1["app"], "other");
    // Root asks for whom it likes, and has to say for whom.
    world.be(Some("ssh.service"));
    assert_eq!(world.get("/v1/self?app=other").await.1["app"], "other");
    assert_eq!(world.get("/v1/self").await.0, 400);
    assert_eq!(world.get("/v1/self?app=not_a_name").await.0, 400);
    assert_eq!(world.get("/v1/self?app=elsewhere").await.0, 404);
}

#[tokio::test]
async fn a_process_of_no_app_is_refused() {
    let world = World::new().await;
    for unit in [None, Some("ssh.service".to_owned())] {
        let peer = peer::Peer { pid: 7, uid: 1000, unit };
        for asked in [None, Some("api".to_owned())] {
            let refused = caller::caller(&world.local, &peer, asked).unwrap_err();
            assert_eq!(refused.problem().status, 403, "{refused:?}");
        }
    }
    let own = peer::Peer { pid: 7, uid: 1000, unit: Some("clusterctl-api.service".to_owned()) };
    assert_eq!(caller::caller(&world.local, &own, None).unwrap().target, "api");
}

#[tokio::test]
async fn a_watch_says_what_is_new_and_is_taken_up_again() {
    let world = World::new().await;
    world.see(InstanceState::Starting);
    let watch = |last: String| {
        let path = world.path.clone();
        async move {
            let mut stream = UnixStream::connect(path).await.unwrap();
            let request = format!("GET /v1/self?watch=true HTTP/1.1\r\nhost: x\r\nlast-event-id: {last}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            BufReader::new(stream)
        }
    };
    let next = async |stream: &mut BufReader<UnixStream>| {
        let (mut id, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the watch ended");
            if let Some(rest) = line.strip_prefix("id: ") {
                rest.trim().clone_into(&mut id);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let body: serde_json::Value = serde_json::from_str(data).unwrap();
                let state = body["state"].as_str().unwrap_or("none").to_owned();
                // The id stands before or after.
                if id.is_empty() {
                    line.clear();
                    stream.read_line(&mut line).await.unwrap();
                    line.trim().trim_start_matches("id: ").clone_into(&mut id);
                }
                return (id, state);
            }
        }
    };
    let mut first = watch(String::new()).await;
    let (id, state) = next(&mut first).await;
    assert_eq!(state, "Starting");
    // Who knows that already is told of the next one only.
    let mut second = watch(id).await;
    world.see(InstanceState::Running);
    assert_eq!(next(&mut first).await.1, "Running");
    assert_eq!(next(&mut second).await.1, "Running");
    world.assign(["other"]);
    assert_eq!(next(&mut first).await, ("gone".to_owned(), "none".to_owned()));
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let world = World::new().await;
    for request in ["no such thing\r\n\r\n", "GET /v1/self HTTP/1.1\r\nbad header\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        assert!(world.raw(request).await.starts_with("HTTP/1.1 400"), "{request:?}");
    }
    let long = format!("GET /v1/self HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let mut stream = UnixStream::connect(&world.path).await.unwrap();
    // It may close before it has read all.
    let _written = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.get("/v2").await.0, 404);
    let post = world.raw("POST /v1/self HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    // And it goes on.
    assert_eq!(world.get("/v1/self").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_end_a_head_is_closed() {
    let world = World::new().await;
    let begun = tokio::time::Instant::now();
    let mut stream = UnixStream::connect(&world.path).await.unwrap();
    stream.write_all(b"GET /v1/self HT").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(begun.elapsed() >= socket::HEAD_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_thousand_clients_are_served_and_too_many_are_told_so() {
    let world = World::new().await;
    let mut streams = Vec::new();
    for _ in 0..socket::CONNECTIONS_OF_UNIT_MAX {
        let stream = UnixStream::connect(&world.path).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(b"GET /v1/self HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    for stream in &mut streams {
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    let mut refused = String::new();
    UnixStream::connect(&world.path).await.unwrap().read_to_string(&mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too many"), "{refused}");
    // Others find room.
    world.be(Some("clusterctl-other.service"));
    assert_eq!(world.get("/v1/self").await.0, 200);
    // And so do they when some have gone.
    world.be(Some("clusterctl-api.service"));
    streams.truncate(10);
    let again = async {
        while !world.raw("GET /v1/self HTTP/1.1\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
}

#[tokio::test]
async fn the_socket_has_its_mode_and_replaces_an_old_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    assert_eq!(std::fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o660);
    let open = SocketConfig { mode: crate::config::FileMode(0o666), group: Some("0".to_owned()) };
    let _listener = socket::listen(&world.path, &open).unwrap();
    assert_eq!(std::fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o666);
    let nobody = SocketConfig { group: Some("no-such-group".to_owned()), ..open };
    assert!(socket::listen(&world.path, &nobody).unwrap_err().to_string().contains("no-such-group"));
    let file = world.path.with_file_name("file");
    std::fs::write(&file, "x").unwrap();
    assert!(socket::listen(&file, &SocketConfig::default()).is_err(), "a file of somebody's is not removed");
}
