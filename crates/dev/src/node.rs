//! A node: an agent with a runtime of one thread, a guard, services. It can lose power, stand still, and come back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_agent::config::{Config, SocketConfig};
use cluster_agent::place::Place;
use cluster_agent::run;
use cluster_bus::NatsConfig;
use cluster_fence::{TABLE, Table};
use cluster_lease::time::Span;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tracing::{error, info};
use uuid::Uuid;

use crate::freeze::{Freeze, Still};
use crate::guard;
use crate::processes::Processes;
use crate::processes::shared::{self, Shared};
use crate::switch::{Port, Switch};

/// A guard that did not run for longer is not there. Longer than on a real node: without a real-time priority a busy laptop keeps it waiting,
/// and it cannot die alone.
const GUARD_STALE: Span = Span::from_millis(250);
/// How often it is looked whether all services have ended.
const LOOK_GONE: Duration = Duration::from_millis(10);
/// Longest wait for the guard's first round after a thaw.
const THAW_LIMIT: Duration = Duration::from_millis(500);

/// What all nodes of a cluster have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Identity of the cluster.
    pub cluster_id: Uuid,
    /// Name of the cluster.
    pub cluster: String,
    /// Folder of the cluster.
    pub folder: PathBuf,
    /// Folder of clusterctl's own programs.
    pub programs: PathBuf,
    /// Tells processes of this start of the cluster.
    pub token: String,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// The first voters.
    pub voters: Vec<String>,
    /// The network.
    pub switch: Arc<Switch>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It has no power.
    Off,
    /// It stands still.
    Paused,
}

/// What runs of a node that has power.
#[derive(Debug)]
struct Life {
    services: Arc<Shared>,
    freeze: Arc<Freeze>,
    guard: guard::Running,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    common: Common,
    life: Option<Life>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A folder or file cannot be made.
    #[error("cannot make {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The fence table cannot be used.
    #[error("the fence table of node {node} cannot be used")]
    Table {
        /// The node.
        node: String,
        /// Why.
        source: cluster_fence::MapError,
    },
    /// A thread cannot be had.
    #[error("cannot start a thread for node {node}")]
    Thread {
        /// The node.
        node: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Folder of everything of a node.
#[must_use]
pub fn folder(cluster: &Path, node: &str) -> PathBuf {
    cluster.join("nodes").join(node)
}

impl Node {
    /// A node without power.
    #[must_use]
    pub const fn new(name: String, address: Ipv4Addr, common: Common) -> Self {
        Self { name, address, common, life: None }
    }

    /// What it does.
    #[must_use]
    pub fn power(&self) -> Power {
        match &self.life {
            None => Power::Off,
            Some(life) if life.freeze.get() == Still::No => Power::On,
            Some(_) => Power::Paused,
        }
    }

    /// Boots it. What is below its `run` folder is gone, as after a boot.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn start(&mut self) -> Result<(), NodeError> {
        let home = folder(&self.common.folder, &self.name);
        let (state, run, logs, data) = (home.join("state"), home.join("run"), home.join("log"), home.join("data"));
        match fs::remove_dir_all(&run) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(NodeError::File { path: run, source }),
            _ => {}
        }
        for path in [&state, &run, &logs, &data] {
            fs::create_dir_all(path).map_err(|source| NodeError::File { path: path.clone(), source })?;
        }
        let boot = Uuid::new_v4();
        let table = Table::open(&run.join(TABLE), boot.as_u128());
        let table = table.map_err(|source| NodeError::Table { node: self.name.clone(), source })?;
        let services = Shared::new(shared::Node {
            name: self.name.clone(),
            address: IpAddr::V4(self.address),
            programs: self.common.programs.clone(),
            logs,
            records: self.common.folder.join("running"),
            token: self.common.token.clone(),
            table: Arc::new(table),
        });
        let freeze = Arc::new(Freeze::default());
        let thread_error = |source| NodeError::Thread { node: self.name.clone(), source };
        let guard = guard::start(Arc::clone(&services), Arc::clone(&self.common.switch), Arc::clone(&freeze)).map_err(thread_error)?;
        let (threads, owners) = (Arc::clone(&freeze), Arc::clone(&services));
        let place = Place {
            boot_id: boot.to_string(),
            groups: String::new(),
            interface: |_| Some(1),
            addresses: Some(BTreeMap::from([("lo".to_owned(), vec![format!("{}/8", self.address)])])),
            data: Some(data),
            guard_stale: GUARD_STALE,
            unit_of: Arc::new(move |pid| owners.unit_of(pid)),
            thread: Arc::new(move |runtime| threads.add(runtime)),
        };
        let config = self.config(state, run);
        let (stop, stopped) = watch::channel(false);
        let port = Port { switch: Arc::clone(&self.common.switch), node: self.name.clone() };
        let units = Processes::new(Arc::clone(&services));
        let body = move || live(config, units, port, place, stopped);
        let thread = std::thread::Builder::new().name(self.name.clone()).spawn(body);
        let thread = match thread {
            Ok(thread) => thread,
            Err(source) => {
                guard.stop();
                return Err(thread_error(source));
            }
        };
        self.life = Some(Life { services, freeze, guard, stop, thread });
        Ok(())
    }

    fn config(&self, state_dir: PathBuf, runtime_dir: PathBuf) -> Config {
        Config {
            cluster: self.common.cluster.clone(),
            cluster_id: Some(self.common.cluster_id),
            node: self.name.clone(),
            voters: self.common.voters.clone(),
            witness: false,
            labels: BTreeMap::new(),
            address: Some(IpAddr::V4(self.address)),
            nats: self.common.nats.clone(),
            local_socket: SocketConfig::default(),
            watchdog: None,
            state_dir,
            runtime_dir,
        }
    }

    /// Takes its power: services, agent and guard end at once, none of them hears of it.
    pub fn kill(&mut self) {
        let Some(life) = self.life.take() else { return };
        info!(node = self.name, "power off");
        self.common.switch.release_all(&self.name);
        life.services.close();
        life.services.signal_all(Signal::SIGKILL);
        life.freeze.set(Still::No);
        life.end(&self.name);
        self.common.switch.release_all(&self.name);
    }

    /// Asks its services to end, kills what has not after `grace`, and ends the node.
    pub fn shut_down(&mut self, grace: Duration) {
        if let Some(life) = &self.life {
            life.services.close();
            life.services.signal_all(Signal::SIGTERM);
            life.services.signal_all(Signal::SIGCONT);
            let begun = Instant::now();
            while life.services.runs() && begun.elapsed() < grace {
                std::thread::sleep(LOOK_GONE);
            }
        }
        self.kill();
    }

    /// Makes it stand still, services first.
    pub fn pause(&mut self) {
        if let Some(life) = &self.life {
            info!(node = self.name, "stands still");
            life.services.signal_all(Signal::SIGSTOP);
            life.freeze.set(Still::All);
            // What was started in the meantime.
            life.services.signal_all(Signal::SIGSTOP);
        }
    }

    /// Lets a node that stands still go on. Its guard looks first, as it would with a priority that it has on a real node.
    pub fn resume(&mut self) {
        if let Some(life) = &self.life {
            let (before, begun) = (life.guard.rounds(), Instant::now());
            life.freeze.set(Still::Agent);
            // The second round kills what the first fenced and found alive.
            while life.guard.rounds() < before + 2 && begun.elapsed() < THAW_LIMIT {
                std::thread::sleep(Duration::from_millis(1));
            }
            life.services.signal_all(Signal::SIGCONT);
            life.freeze.set(Still::No);
            info!(node = self.name, "goes on");
        }
    }
}

impl Life {
    fn end(self, node: &str) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            error!(node, "the agent's thread panicked");
        }
        self.guard.stop();
        // What was being started while the power went.
        while self.services.runs() {
            self.services.signal_all(Signal::SIGKILL);
            std::thread::sleep(LOOK_GONE);
        }
        for unit in self.services.all() {
            // A record of what is gone ends nothing.
            let _kept = self.services.record(&unit.name, None);
        }
    }
}

/// The life of a node's agent, in its thread: services that it starts end with the thread at the latest.
fn live(config: Config, units: Processes, port: Port, place: Place, mut stopped: watch::Receiver<bool>) {
    let node = config.node.clone();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error!(node, "the agent has no runtime: {error}"),
    };
    (place.thread)(runtime.handle().clone());
    let mut power_off = stopped.clone();
    runtime.block_on(async {
        tokio::select! {
            ended = Box::pin(run::serve(config, units, port, place, std::future::pending())) => {
                if let Err(error) = ended {
                    error!(node, "the agent ended: {}", cluster_telemetry::chain(&error));
                }
                // As a node whose agent ended: what runs goes on until it is fenced.
                let _stopped = stopped.wait_for(|stop| *stop).await;
            }
            _ = power_off.wait_for(|stop| *stop) => {}
        }
    });
    // Tasks that wait for a disk are not waited for.
    runtime.shutdown_background();
}
