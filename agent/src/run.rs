//! The agent put together.
//!
//! # Tasks
//! | task | owns | in | out |
//! |---|---|---|---|
//! | manager | the node's assignment and status | inputs, reports, a tick | desired states, status, actives (all `watch`) |
//! | one worker per App | unit, VIP and files of the App | desired state, unit and address changes | reports (bounded `mpsc`) |
//! | listeners | – | NATS | inputs (bounded `mpsc`) |
//! | heart | the heartbeat's sequence | the newest order | NATS |
//! | store tasks | – | the newest status, actives, registration | NATS |
//!
//! An agent that ends leaves everything running; the next one takes it up from the journal and the runtime folder.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use cluster_bus::{Bucket, Bus, Change, ConnectError, Names, SharedState, Watch};
use cluster_fence::{TABLE, Table};
use cluster_lease::types::{BootId, ClusterId, Instance, NodeName};
use cluster_schemas::assignment::Order;
use cluster_schemas::{Assignment, Heartbeat, Node, NodeStatus};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use crate::config::{Config, ConfigError};
use crate::database::Databases;
use crate::drivers::{Units, Vips};
use crate::fences::Fences;
use crate::journal::{Journal, JournalError, Owner};
use crate::lease::view::Command;
use crate::local::{self, Local};
use crate::locks::Locks;
use crate::manager::{Identity, Input, Manager, Outputs, Parts};
use crate::place::Place;
use crate::{config, identity, lease, store};

/// How often the node says that it lives.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How often what a disk refused is tried again.
const TEND_INTERVAL: Duration = Duration::from_secs(5);
/// Messages from NATS that may wait for the manager.
const INPUTS_WAITING: usize = 4096;
/// Longest wait for the long renewals of a planned restart.
const RESTART_WAIT: Duration = Duration::from_millis(200);
/// Wait before subscribing again after the client gave a subscription up.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(250);

/// The agent of a clusterctl node.
#[derive(Debug, Parser)]
#[command(name = "cluster-agent", version)]
pub struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/clusterctl/agent.yaml")]
    pub config: PathBuf,

    /// Let this machine be the node that the configuration names, whatever it was before, and end. The agent that is started next stops
    /// all that runs here by the old name.
    #[arg(long)]
    pub accept_rename: bool,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    /// A file or folder of the agent's cannot be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent runs here.
    #[error("another agent runs on this machine: it holds {lock}")]
    Second {
        /// The lock file.
        lock: PathBuf,
    },
    /// The journal cannot be used.
    #[error("the journal cannot be used")]
    Journal(#[source] JournalError),
    /// NATS cannot be set up.
    #[error("the connection to NATS cannot be set up")]
    Nats(#[source] ConnectError),
    /// A driver cannot be set up.
    #[error("the {0} driver cannot be set up")]
    Driver(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Signals cannot be awaited.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Reads the configuration and makes sure that no other agent runs here. The lock lasts as long as the returned guard.
///
/// # Errors
/// What kept the agent from running.
pub fn prepare(path: &Path) -> Result<(Config, Flock<OwnedFd>), RunError> {
    let config = config::load(path).map_err(RunError::Config)?;
    std::fs::create_dir_all(&config.runtime_dir).map_err(|source| RunError::File {
        action: "make",
        path: config.runtime_dir.clone(),
        source,
    })?;
    let lock = config.runtime_dir.join("agent.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&lock).map_err(|source| RunError::File {
        action: "open",
        path: lock.clone(),
        source,
    })?;
    let guard = Flock::lock(OwnedFd::from(file), FlockArg::LockExclusiveNonblock).map_err(|_| RunError::Second { lock })?;
    Ok((config, guard))
}

fn owner(config: &Config) -> Owner {
    let cluster_id = config.cluster_id.map(|id| id.to_string()).unwrap_or_default();
    Owner { cluster: config.cluster.clone(), cluster_id, node: config.node.clone() }
}

/// Gives the journal to the node that the configuration names. The caller holds the lock of [`prepare`]: no agent runs.
///
/// # Errors
/// What is wrong with the journal.
pub fn accept_rename(config: &Config) -> Result<(), RunError> {
    let journal = Journal::open(&config.state_dir.join("journal.db")).map_err(RunError::Journal)?;
    match journal.rename(&owner(config)).map_err(RunError::Journal)? {
        Some(before) => {
            warn!("this machine was the node {before} and is {} now; start the agent, and it stops what ran here", owner(config))
        }
        None => info!("this machine is {}; there is nothing to accept", owner(config)),
    }
    Ok(())
}

/// Runs the agent of this machine with these drivers until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from running.
pub async fn run<U: Units, V: Vips>(config: Config, units: U, vips: V) -> Result<(), RunError> {
    let place =
        Place::machine().map_err(|source| RunError::File { action: "read", path: "/proc/sys/kernel/random/boot_id".into(), source })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Box::pin(serve(config, units, vips, place, stop)).await
}

/// Runs an agent with these drivers, at this place, until `stop`. What it starts runs in the runtime of the caller, and in the thread of
/// leases, which ends with that runtime.
///
/// # Errors
/// What kept it from running.
pub async fn serve<U: Units, V: Vips>(
    config: Config,
    units: U,
    vips: V,
    place: Place,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (units, vips) = (Arc::new(units), Arc::new(vips));
    let (boot_id, boot) = (place.boot_id.clone(), place.boot());
    // Leases first: their connections are made while the rest is opened (rule P6).
    let table = Arc::new(Table::open(&config.runtime_dir.join(TABLE), boot).map_err(|e| RunError::Driver("fence", Box::new(e)))?);
    table.agent_is(std::process::id());
    let me = NodeName::new(&config.node).map_err(|e| RunError::Driver("lease", Box::new(e)))?;
    let options = lease::Options {
        cluster: ClusterId(config.cluster_uuid()),
        node: cluster_lease::types::Node { boot: BootId(boot), name: me.clone() },
        instance: Instance(u64::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap_or(&[1; 8]))),
        nats: config.nats.clone(),
        names: Names::new(&config.cluster),
        state_dir: config.state_dir.clone(),
        runtime_dir: config.runtime_dir.clone(),
        first_voters: config.voters.clone(),
        place: place.clone(),
    };
    let (go, going) = tokio::sync::oneshot::channel();
    let leases = lease::start(options, Arc::clone(&table), going).map_err(|e| RunError::Driver("lease", Box::new(e)))?;
    let (journal, no_disk) = Journal::open_or_memory(&config.state_dir.join("journal.db")).map_err(RunError::Journal)?;
    journal.claim(&owner(&config)).map_err(RunError::Journal)?;
    // A host that is gone is told of by its thread.
    let _told = go.send(());
    let names = Names::new(&config.cluster);
    let bus = Bus::connect(&config.nats, names, &format!("agent {}", config.node)).await.map_err(RunError::Nats)?;
    let instance = uuid::Uuid::new_v4().to_string();
    let address = config.address.map(|a| a.to_string()).or_else(|| identity::first_address(&identity::addresses(&[])));
    let data = place.data.clone();
    let id = Identity { node: config.node.clone(), boot_id: boot_id.clone(), instance: instance.clone(), address, data };
    info!(node = config.node, cluster = config.cluster, boot_id, instance, "started");

    let outputs = Outputs::default();
    let revision = Arc::new(AtomicU64::new(0));
    let node = Node {
        capacity: identity::capacity(),
        name: config.node.clone(),
        labels: config.labels.clone(),
        addresses: place.addresses.clone().unwrap_or_default(),
        boot_id: boot_id.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        witness: config.witness,
        registered_at: None,
    };
    let (member, mut membership) = watch::channel(store::Membership::default());
    let look = Arc::new(Notify::new());
    tokio::spawn(store::store_status(bus.clone(), outputs.status.subscribe(), Arc::clone(&revision), membership.clone()));
    tokio::spawn(store::record_actives(bus.clone(), outputs.actives.subscribe(), membership.clone()));
    tokio::spawn(lease::tell_of_sets(bus.clone(), leases.clone(), leases.view()));
    tokio::spawn(announce_after_reconnects(bus.connections(), Arc::clone(&vips)));
    tokio::spawn(store::register(bus.clone(), Arc::clone(&vips), node, member, Arc::clone(&look)));
    let (inputs, mut incoming) = mpsc::channel(INPUTS_WAITING);
    let (relist, relists) = mpsc::channel(1);
    tokio::spawn(hear_heartbeats(bus.clone(), inputs.clone()));
    tokio::spawn(hear_beats(bus.clone(), inputs.clone()));
    tokio::spawn(hear_forces(bus.clone(), inputs.clone()));
    tokio::spawn(watch_assignment(bus.clone(), config.node.clone(), inputs, relists, look));
    let local = Local {
        node: config.node.clone(),
        address: id.address.clone(),
        names: Names::new(&config.cluster),
        state: Arc::new(SharedState::new(bus.clone(), &config.node)),
        followers: Arc::default(),
        rings: Arc::default(),
        services: Arc::default(),
        grants: local::grants::Grants::default(),
        bus: bus.clone(),
        status: outputs.status.subscribe(),
        assignment: outputs.assignment.subscribe(),
        uid: nix::unistd::getuid().as_raw(),
    };
    let socket = config.runtime_dir.join(local::SOCKET);
    let locks = Locks::start(&me, leases.clone(), bus.clone());
    tokio::spawn(local::serve(Arc::new(local), locks, socket, config.local_socket.clone(), Arc::clone(&place.unit_of)));
    let pulse = watch::Sender::new(Pulse::default());
    tokio::spawn(beat(bus, id.clone(), pulse.subscribe(), outputs.status.subscribe(), revision));

    let mut views = leases.view();
    let fences = Fences::new(table, &place);
    let databases = Databases::new(config.nats.clone(), Names::new(&config.cluster), &config.node, config.state_dir.clone(), &place);
    let parts = Parts { identity: id, runtime_dir: config.runtime_dir, units, vips, journal, fences, leases: leases.clone(), databases };
    let mut manager = Manager::new(parts, outputs);
    if let Some(error) = no_disk {
        manager.not_durable(&error);
    }
    manager.begin().await;
    // Without a manager that listens there is nobody to tell.
    let _told = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut stop = std::pin::pin!(stop);
    let mut tend = tokio::time::interval(TEND_INTERVAL);
    tend.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tend.tick() => manager.tend().await,
            input = incoming.recv() => match input {
                Some(input) => if manager.take_input(input).await {
                    // A full queue asks for the same already.
                    let _asked = relist.try_send(());
                },
                None => break,
            },
            report = manager.next_report() => if let Some(report) = report { manager.reported(report).await },
            Ok(()) = views.changed() => {
                let view = Arc::clone(&views.borrow_and_update());
                manager.leased(view).await;
            }
            Ok(()) = membership.changed() => {
                let removed = membership.borrow_and_update().removed;
                manager.set_removed(removed).await;
            }
            () = &mut stop => break,
        }
        pulse.send_if_modified(|p| {
            let now = Pulse { order: manager.order(), term: manager.highest_term() };
            let changed = *p != now;
            *p = now;
            changed
        });
    }
    // Rule P6: the leases are made long enough for the next agent to take them up.
    let (done, renewed) = tokio::sync::oneshot::channel();
    leases.ask(Command::Restarting(done)).await;
    // A host that is gone answers nothing; the guard keeps the deadlines then.
    let _renewed = tokio::time::timeout(RESTART_WAIT, renewed).await;
    info!("ending; everything that runs is left running");
    Ok(())
}

/// A network that carries NATS again may have forgotten where the addresses are.
async fn announce_after_reconnects<V: Vips>(mut connections: watch::Receiver<u64>, vips: Arc<V>) {
    while connections.changed().await.is_ok() {
        let held = vips.announce_held();
        if held > 0 {
            info!(addresses = held, "connected to NATS, announcing the addresses again");
        }
    }
}

/// What the heart needs of the manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Pulse {
    order: Option<Order>,
    term: u64,
}

async fn beat(bus: Bus, id: Identity, pulse: watch::Receiver<Pulse>, status: watch::Receiver<NodeStatus>, revision: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sequence = 0;
    loop {
        ticks.tick().await;
        sequence += 1;
        let now = pulse.borrow().clone();
        let not_ready = status.borrow().apps.iter().filter(|(_, o)| !o.healthy).map(|(app, _)| app.clone()).collect();
        let heartbeat = Heartbeat {
            node: id.node.clone(),
            boot_id: id.boot_id.clone(),
            instance: id.instance.clone(),
            sequence,
            assignment: now.order,
            status_revision: revision.load(Ordering::Relaxed),
            term: now.term,
            load_percent: identity::load_percent(),
            not_ready,
        };
        bus.publish_heartbeat(&heartbeat).await;
    }
}

async fn hear_heartbeats(bus: Bus, inputs: mpsc::Sender<Input>) {
    loop {
        if let Ok(mut heartbeats) = bus.heartbeats().await {
            while let Some(heartbeat) = heartbeats.next().await {
                if inputs.send(Input::Heartbeat(heartbeat)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn hear_beats(bus: Bus, inputs: mpsc::Sender<Input>) {
    loop {
        if let Ok(mut beats) = bus.beats().await {
            while let Some(beat) = beats.next().await {
                if inputs.send(Input::Beat(beat)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn hear_forces(bus: Bus, inputs: mpsc::Sender<Input>) {
    loop {
        if let Ok(mut forces) = bus.forces().await {
            while let Some(order) = forces.next().await {
                if inputs.send(Input::Force(order)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn watch_assignment(bus: Bus, node: String, inputs: mpsc::Sender<Input>, mut relists: mpsc::Receiver<()>, look: Arc<Notify>) {
    let kv = bus.open::<Assignment>(Bucket::Assignments).await;
    let key = format!("node.{node}");
    let mut watch: Watch<Assignment> = kv.watch(&key);
    loop {
        tokio::select! {
            change = watch.next() => match change {
                Some(change) => {
                    if matches!(change, Change::Deleted { .. }) {
                        // As when this node is removed: its registration tells.
                        look.notify_one();
                    }
                    if inputs.send(Input::Assignment(change)).await.is_err() {
                        return;
                    }
                },
                None => {
                    warn!("the watch of the assignment ended, beginning anew");
                    tokio::time::sleep(SUBSCRIBE_RETRY).await;
                    watch = kv.watch(&key);
                }
            },
            asked = relists.recv() => {
                if asked.is_none() {
                    return;
                }
                watch.relist();
                // A new consumer needs the whole of JetStream; the one key that matters needs its stream's leader only.
                if let Ok(Some(entry)) = kv.get(&key).await
                    && inputs.send(Input::Assignment(Change::Put { key: key.clone(), entry })).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
