//! The cluster put together, from the first look at its folder to the last thing that is removed from it.
//!
//! The main thread owns the NATS server and the nodes, and does one thing after the other: what a second terminal asks, the look after the
//! server, the end. The controller and the forwarding of VIPs have a runtime of two threads.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_bus::NatsConfig;
use cluster_controller::config::{Checked, Config};
use cluster_controller::run::serve;
use cluster_schemas::failover::parse_lease;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::args::{Up, Word};
use crate::control::{self, Answer, Asked, SOCKET};
use crate::folder::{self, Folder, FolderError, Kept};
use crate::nats::{self, NatsError, Server};
use crate::node::{Common, Node, NodeError, Power};
use crate::switch::Switch;
use crate::{forward, say};

/// Name of the cluster.
const NAME: &str = "dev";
/// Nodes where nobody says how many: manifests/platform.yaml, which the banner names, has three workers away from its database, and one
/// node may be without power.
const NODES: u8 = 5;
/// The port that clusterctl asks where it is told nothing.
const API_PORT: u16 = 7070;
/// How long services have to end when the cluster does; then they are killed.
const GRACE: Duration = Duration::from_secs(3);
/// How often the NATS server is looked after.
const LOOK: Duration = Duration::from_millis(500);
/// First byte after 127 of the nodes' addresses; the VIPs' is one more. A second cluster takes the next two, and so on.
const NET_FIRST: u8 = 77;
/// Most clusters on one machine at a time.
const NETS: u8 = 16;
/// By listening at this port of its last address, a cluster says that a net is its own.
const NET_PORT: u16 = 7071;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no NATS server.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A node does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The port of the API cannot be had.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Port {
        /// The port.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
    /// There are as many dev clusters on this machine as it has addresses for.
    #[error("no loopback addresses are free: {NETS} dev clusters run on this machine")]
    Nets,
    /// There is no such lease.
    #[error("{0} is no lease: a time from 200ms to 5s")]
    Lease(String),
    /// A kept cluster cannot have fewer nodes: the ones that are missing may be its voters.
    #[error("the kept cluster has {kept} nodes, it cannot have {asked}")]
    Fewer {
        /// How many it has.
        kept: u8,
        /// How many were asked for.
        asked: u8,
    },
    /// Something of the process cannot be had.
    #[error("cannot {action}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl DevError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Folder(error) => Some(error.hint().to_owned()),
            Self::Nats(error) => error.hint(),
            Self::Port { .. } => Some("give another --port, or leave it away for a free one".to_owned()),
            Self::Fewer { .. } => Some("leave --nodes away, or --keep, to begin anew".to_owned()),
            Self::Node(_) | Self::Nets | Self::Lease(_) | Self::Process { .. } => None,
        }
    }
}

fn process(action: &'static str) -> impl FnOnce(io::Error) -> DevError {
    move |source| DevError::Process { action, source }
}

/// Runs a cluster until it is told to end, or its terminal goes.
///
/// # Errors
/// [`DevError`].
pub fn run(up: &Up) -> Result<(), DevError> {
    let begun = Instant::now();
    let lease = parse_lease(&up.lease).ok_or_else(|| DevError::Lease(up.lease.clone()))?;
    // Before anything is started: what ends this process must not leave anything.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(process("start threads"))?;
    let (ends, ending) = watch::channel(false);
    runtime.block_on(async { hear_signals(&ends) }).map_err(process("wait for signals"))?;

    let programs = std::env::current_exe().map_err(process("find this program"))?.parent().map(Path::to_owned).unwrap_or_default();
    let path = up.dir.clone().unwrap_or_else(folder::default_path);
    let program = nats::find(up.nats_server.as_deref(), &std::env::var_os("PATH").unwrap_or_default(), &programs)?;
    let api = listener(up.port)?;
    let folder = Folder::take(&path, up.keep)?;
    let start = Start { up, lease, begun, programs, program, api, folder: &folder };
    let outcome = start.run(&runtime, ending);
    runtime.shutdown_background();
    let left = folder.leave(up.keep);
    outcome.and(left.map_err(DevError::from))
}

/// What a cluster begins with.
struct Start<'a> {
    up: &'a Up,
    lease: Duration,
    begun: Instant,
    programs: PathBuf,
    program: PathBuf,
    api: TcpListener,
    folder: &'a Folder,
}

impl Start<'_> {
    /// From the first process to the last.
    fn run(self, runtime: &Runtime, ending: watch::Receiver<bool>) -> Result<(), DevError> {
        let Self { up, lease, begun, programs, program, api, folder } = self;
        log_to(&folder.path().join("log"))?;
        let kept = folder.kept()?;
        let nodes = up.nodes.or(kept.as_ref().map(|k| k.nodes)).unwrap_or(NODES);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.nodes > nodes) {
            return Err(DevError::Fewer { kept: kept.nodes, asked: nodes });
        }
        let kept = Kept { cluster_id: kept.map_or_else(Uuid::new_v4, |k| k.cluster_id), nodes };
        folder.keep(&kept)?;

        let token = Uuid::new_v4().simple().to_string();
        let server = Server::start(&program, &folder.path().join("nats"), &token)?;
        folder.record("nats", server.group())?;
        let (net, _mine) = net()?;
        let switch = Switch::new([127, net + 1]);
        let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        let common = Common {
            cluster_id: kept.cluster_id,
            cluster: NAME.to_owned(),
            folder: folder.path().to_owned(),
            programs,
            token,
            nats: NatsConfig { servers: vec![server.url()], replicas: 1 },
            voters: names.iter().take(if nodes < 3 { 1 } else { 3 }).cloned().collect(),
            switch: Arc::clone(&switch),
        };
        let nats = common.nats.clone();
        let nodes: Vec<Node> = (1..).zip(names).map(|(n, name)| Node::new(name, Ipv4Addr::new(127, net, 0, n), common.clone())).collect();
        let addresses: BTreeMap<String, Ipv4Addr> = nodes.iter().map(|node| (node.name.clone(), node.address)).collect();
        let port = api.local_addr().map_err(process("ask for the API's address"))?.port();
        say::out(&banner(&nodes, folder.path(), up.dir.is_some(), port, net));

        let mut cluster = Running { folder, server, nodes };
        let outcome = runtime.block_on(async {
            let socket = folder.path().join(SOCKET);
            // What was left by a cluster that was killed.
            let _gone = std::fs::remove_file(&socket);
            let control = tokio::net::UnixListener::bind(&socket).map_err(process("listen on the socket in its folder"))?;
            let listener = tokio::net::TcpListener::from_std(api).map_err(process("serve the API"))?;
            for node in &mut cluster.nodes {
                node.start()?;
            }
            let checked = controller(nats, port, lease, up.lease.clone());
            let controller = tokio::spawn(async move { Box::pin(serve(checked, listener, std::future::pending())).await });
            tokio::spawn(tell_when_ready(port, addresses.len(), begun));
            tokio::spawn(forward::run(switch, addresses));
            let (requests, asked) = mpsc::channel(control::WAITING);
            tokio::spawn(control::listen(control, requests));
            cluster.serve(asked, ending, controller).await
        });
        say::out(&format!("\nending: services have {} s", GRACE.as_secs()));
        cluster.end();
        outcome
    }
}

/// What ends the cluster.
fn hear_signals(ends: &watch::Sender<bool>) -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let (mut signals, ends) = (signal(kind)?, ends.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                ends.send_replace(true);
            }
        });
    }
    Ok(())
}

fn listener(port: Option<u16>) -> Result<TcpListener, DevError> {
    let bind = |port| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    let bound = match port {
        Some(port) => bind(port),
        None => bind(API_PORT).or_else(|_| bind(0)),
    };
    let listener = bound.map_err(|source| DevError::Port { port: port.unwrap_or(0), source })?;
    listener.set_nonblocking(true).map_err(process("serve the API"))?;
    Ok(listener)
}

/// Addresses that no other dev cluster of this machine uses, as long as the second value lives.
fn net() -> Result<(u8, TcpListener), DevError> {
    let claim = |n: u8| Some((n, TcpListener::bind((Ipv4Addr::new(127, n, 0, 254), NET_PORT)).ok()?));
    (0..NETS).find_map(|k| claim(NET_FIRST + 2 * k)).ok_or(DevError::Nets)
}

fn controller(nats: NatsConfig, port: u16, lease: Duration, lease_text: String) -> Checked {
    let config = Config {
        cluster: NAME.to_owned(),
        cluster_id: None,
        name: "controller".to_owned(),
        nats,
        listen: SocketAddr::from(([127, 0, 0, 1], port)),
        token_file: None,
        tokens_file: None,
        tls: None,
        changes_kept: cluster_controller::changes::CHANGES_KEPT,
        lease: lease_text,
        requests_per_second: cluster_controller::config::REQUESTS_PER_SECOND,
        voters: 3,
    };
    Checked { config, token: None, tokens: Vec::new(), tls: None, lease }
}

fn log_to(path: &Path) -> Result<(), DevError> {
    use tracing_subscriber::EnvFilter;
    let file = std::fs::File::options().create(true).append(true).open(path);
    let file = file.map_err(|source| FolderError::File { action: "write", path: path.to_owned(), source })?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    // Somebody who logs already goes on.
    let _started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::sync::Mutex::new(file))
        .with_ansi(false)
        .with_target(false)
        .with_thread_names(true)
        .try_init();
    Ok(())
}

/// `named`: the folder was given, so commands have to name it.
fn banner(nodes: &[Node], folder: &Path, named: bool, port: u16, net: u8) -> String {
    let list: Vec<String> = nodes.iter().map(|node| format!("{} {}", node.name, node.address)).collect();
    format!(
        "A cluster of {count} nodes on this machine: {nodes}.\n\
         Logs and data are in {folder}. Ctrl-C ends it and all it started.\n\n  \
         export CLUSTERCTL_SERVERS=http://127.0.0.1:{port}\n  \
         clusterctl apply -f manifests/platform.yaml\n\n\
         To play with faults: clusterctl dev kill n1 | pause n1 | heal n1 | status{place}\n\n\
         Not as on real nodes:\n\
         - One process and one NATS server: when this machine is busy, all nodes are. Leases are longer (--lease).\n\
         - No systemd: services are processes of yours. MemoryMax, CPUQuota and the like are not kept, user and group are not changed, and Apps\n  \
           that name an installed unit do not run. Logs are files: nodes/NODE/log/clusterctl-APP.log.\n\
         - Each node has one loopback address. 0.0.0.0 in the command or environment of an exec is that address.\n\
         - A VIP a.b.C.D is 127.{vips}.C.D here, and TCP connections to it go to the node that has it.\n",
        count = nodes.len(),
        nodes = list.join(", "),
        folder = folder.display(),
        place = if named { format!(" (each with --dir {})", folder.display()) } else { String::new() },
        vips = net + 1,
    )
}

/// Says once that every node is Ready.
async fn tell_when_ready(port: u16, nodes: usize, begun: Instant) {
    loop {
        if ready(port).await.is_ok_and(|count| count == nodes) {
            say::out(&format!("{nodes} nodes are Ready after {:.1} s.", begun.elapsed().as_secs_f64()));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many nodes are Ready, by the API.
async fn ready(port: u16) -> io::Result<usize> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const ANSWER_MAX: u64 = 4 << 20;
    let mut stream = tokio::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    stream.write_all(b"GET /v1/nodes HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let list: cluster_schemas::api::List<cluster_schemas::api::NodeView> = serde_json::from_str(body)?;
    Ok(list.items.iter().filter(|node| node.state == cluster_schemas::api::NodeState::Ready).count())
}

/// What runs.
struct Running<'a> {
    folder: &'a Folder,
    server: Server,
    nodes: Vec<Node>,
}

type Controller = tokio::task::JoinHandle<Result<(), cluster_controller::run::RunError>>;

impl Running<'_> {
    async fn serve(
        &mut self,
        mut asked: mpsc::Receiver<Asked>,
        mut ending: watch::Receiver<bool>,
        mut controller: Controller,
    ) -> Result<(), DevError> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = ending.wait_for(|end| *end) => return Ok(()),
                Some((request, answer)) = asked.recv() => {
                    let said = self.obey(request.word, &request.node);
                    // Who asked may be gone.
                    let _told = answer.send(said);
                }
                ended = &mut controller => {
                    let why = match ended {
                        Ok(Err(error)) => cluster_telemetry::chain(&error),
                        Ok(Ok(())) => "it was told to".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    return Err(DevError::Process { action: "go on without the controller", source: io::Error::other(why) });
                }
                _ = look.tick() => match self.server.keep() {
                    Ok(false) => {}
                    Ok(true) => {
                        warn!("the NATS server had ended, it runs again");
                        if let Err(error) = self.folder.record("nats", self.server.group()) {
                            error!("{}", cluster_telemetry::chain(&error));
                        }
                    }
                    Err(error) => error!("{}", cluster_telemetry::chain(&error)),
                },
            }
        }
    }

    fn obey(&mut self, word: Word, name: &str) -> Answer {
        if word == Word::Status {
            let line = |node: &Node| {
                let does = match node.power() {
                    Power::On => "runs",
                    Power::Off => "has no power",
                    Power::Paused => "stands still",
                };
                format!("{:<4} {:<15} {does}", node.name, node.address)
            };
            return Answer { done: true, text: self.nodes.iter().map(line).collect::<Vec<_>>().join("\n") };
        }
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else {
            let all: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            return Answer { done: false, text: format!("there is no node {name:?}; there are {}", all.join(", ")) };
        };
        let (done, text) = match (word, node.power()) {
            (Word::Kill, Power::Off) => (true, format!("{name} has no power already")),
            (Word::Kill, _) => {
                node.kill();
                (true, format!("{name} has no power any more; clusterctl dev heal {name} boots it"))
            }
            (Word::Pause, Power::Off) => (false, format!("{name} has no power: it cannot stand still")),
            (Word::Pause, _) => {
                node.pause();
                (true, format!("{name} stands still; clusterctl dev heal {name} lets it go on"))
            }
            (Word::Heal, Power::On) => (true, format!("{name} runs already")),
            (Word::Heal, Power::Paused) => {
                node.resume();
                (true, format!("{name} goes on"))
            }
            (Word::Heal, Power::Off) => match node.start() {
                Ok(()) => (true, format!("{name} boots")),
                Err(error) => (false, cluster_telemetry::chain(&error)),
            },
            (Word::Status, _) => (false, String::new()),
        };
        info!("{text}");
        Answer { done, text }
    }

    fn end(mut self) {
        // All at once: each has the whole time.
        std::thread::scope(|threads| {
            for node in &mut self.nodes {
                threads.spawn(move || node.shut_down(GRACE));
            }
        });
        self.server.stop();
    }
}
