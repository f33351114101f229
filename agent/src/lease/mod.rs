//! Leases on this node: the thread that hosts voter and holder ([`host`], [`holding`]), its files ([`store`]), and what others see of it ([`view`]).

mod beat;
mod hints;
mod holding;
mod host;
mod keeping;
pub mod locking;
mod memory;
mod returning;
pub mod store;
pub mod view;
pub mod voting;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_bus::{Bucket, Bus, Kv, LeaseLink, Names, NatsConfig};
use cluster_fence::{Table, clock};
use cluster_lease::holder::{Holder, HolderConfig};
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::time::Span;
use cluster_lease::types::{ClusterId, Instance, Node, NodeName, SetNo, Slot, VoterId};
use cluster_lease::voter::{Journal, Voter, VoterAction};
use cluster_schemas::node::VoterList;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::files::{Durability, read_limited, write_atomic};
use crate::place::Place;
use host::{Host, State};
pub use returning::tell_of_sets;
use store::{StoreError, VoterStore};
use view::{Command, LeaseView, TenureState, TenureView, list_of, set_of};

/// T where an App does not say otherwise.
pub const DEFAULT_T: Span = Span::from_millis(350);
/// Commands that may wait for the host.
const COMMANDS_WAITING: usize = 256;
/// Wait before the store is asked again whether this node voted before.
const FOUNDING_RETRY: Duration = Duration::from_millis(500);
/// First and longest pause before a voter's files that cannot be used are tried again; it doubles in between.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Name of the file under the state folder with the last known voter set.
const VOTERS: &str = "voters.json";
/// Largest file of voters that is read, in bytes.
const VOTERS_MAX_BYTES: usize = 64 * 1024;

/// What the host needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// This node in this boot.
    pub node: Node,
    /// Random per agent start.
    pub instance: Instance,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// Names in NATS.
    pub names: Names,
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// Where the records are.
    pub runtime_dir: PathBuf,
    /// The cluster's first voters, as `init` listed them.
    pub first_voters: Vec<String>,
    /// Where this agent runs.
    pub place: Place,
}

/// Why leases cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The voter's storage cannot be used.
    #[error("the voter's storage cannot be used")]
    Store(#[source] StoreError),
    /// The thread cannot be started.
    #[error("cannot start the lease thread")]
    Thread(#[source] std::io::Error),
}

/// What the rest of the agent has of leases.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<LeaseView>>,
}

impl LeaseHandle {
    /// Asks the host for something. What it does is seen in the view.
    pub async fn ask(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            error!("the lease host is gone, nothing exclusive can be held");
        }
    }

    /// The newest view; follows changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<LeaseView>> {
        self.view.clone()
    }
}

/// The first voter set of a cluster (protocols B6), the same on every node: `init` lists the nodes, and the id of each one's first memory
/// follows from the cluster's id and its name. A memory that was lost gets a random id, and so counts for nothing until a set names it.
#[must_use]
pub fn first_set(cluster: ClusterId, voters: &[String]) -> Option<VoterSet> {
    let member = |name: &String| Some(Member { id: first_id(cluster, name), node: NodeName::new(name).ok()? });
    VoterSet::new(SetNo(1), voters.iter().map(member).collect::<Option<Vec<_>>>()?).ok()
}

fn first_id(cluster: ClusterId, node: &str) -> VoterId {
    let bytes = cluster.0.to_be_bytes();
    VoterId(fnv(bytes.iter().copied().chain(node.bytes())))
}

/// FNV-1a, 128 bits.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u128 {
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// This machine's voter: as its journal says; where there is none, founded, or new.
async fn journal(options: &Options, store: &VoterStore) -> Result<Journal, StoreError> {
    if let Some(journal) = store.journal()? {
        return Ok(journal);
    }
    let me = options.node.name.as_str();
    let founder = options.first_voters.iter().any(|v| v == me);
    let journal = match first_set(options.cluster, &options.first_voters).filter(|_| founder) {
        Some(set) if first_time(options).await => {
            info!(voters = options.first_voters.join(","), "this node is a voter of the cluster's first set");
            Journal::new(first_id(options.cluster, me), Some(set))
        }
        _ => Journal::new(VoterId(uuid::Uuid::new_v4().as_u128()), None),
    };
    store.write_journal(&journal)?;
    Ok(journal)
}

/// Whether this node founds its voter for the first time in the life of the cluster. Nobody elects itself from an empty store: a node that
/// lost its disk finds the mark, and must be given back its vote by a change of the set.
async fn first_time(options: &Options) -> bool {
    let key = format!("founding.{}", options.node.name);
    loop {
        let tried = async {
            let bus = Bus::connect(&options.nats, options.names.clone(), &format!("founding {}", options.node.name))
                .await
                .map_err(|e| cluster_telemetry::chain(&e))?;
            bus.create_buckets().await;
            let kv: Kv<String> = bus.try_open(Bucket::Status).await.map_err(|e| cluster_telemetry::chain(&e))?;
            // A try whose answer was lost may have made it: it is this instance's then.
            kv.create_once(&key, &format!("{:032x}", options.instance.0)).await.map_err(|e| cluster_telemetry::chain(&e))
        };
        match tried.await {
            Ok(first) => {
                if !first {
                    warn!(
                        "this node voted in the cluster before and lost its memory: its vote does not count until the voters are changed"
                    );
                }
                return first;
            }
            Err(why) => {
                debug!("cannot ask whether this node voted before, trying again: {why}");
                tokio::time::sleep(FOUNDING_RETRY).await;
            }
        }
    }
}

/// Starts the host in a thread of its own. It connects at once, since a restarted agent has little time (rule P6), and does nothing else before `go`
/// says that this machine may be this node; where `go` is dropped, it ends.
///
/// # Errors
/// [`LeaseError`].
pub fn start(options: Options, table: Arc<Table>, go: oneshot::Receiver<()>) -> Result<LeaseHandle, LeaseError> {
    let (commands, command_receiver) = mpsc::channel(COMMANDS_WAITING);
    // What an earlier agent of this boot holds is held until the host finds otherwise: nothing of it may be stopped meanwhile.
    let held = table
        .armed(clock::now())
        .into_iter()
        .filter_map(|(name, epoch, _)| Some((name.parse().ok()?, TenureView { epoch: epoch.0, state: TenureState::Held })));
    let held: BTreeMap<Slot, TenureView> = held.collect();
    let (view, view_receiver) = watch::channel(Arc::new(LeaseView { tenures: held.clone(), ..LeaseView::default() }));
    std::thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return error!("the lease host has no runtime: {error}"),
            };
            (options.place.thread)(runtime.handle().clone());
            runtime.block_on(host_leases(options, table, go, command_receiver, view, held));
        })
        .map_err(LeaseError::Thread)?;
    Ok(LeaseHandle { commands, view: view_receiver })
}

async fn host_leases(
    options: Options,
    table: Arc<Table>,
    go: oneshot::Receiver<()>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<Arc<LeaseView>>,
    held: BTreeMap<Slot, TenureView>,
) {
    real_time();
    let link = loop {
        match LeaseLink::connect(&options.nats, options.names.clone(), options.node.name.as_str()).await {
            Ok(link) => break link,
            Err(error) => {
                error!("{}", cluster_telemetry::chain(&error));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    if go.await.is_err() {
        return;
    }
    let mut pause = STORE_RETRY.0;
    let (store, voter, start) = loop {
        match first_voter(&options).await {
            Ok(made) => break made,
            Err(error) => {
                let why = cluster_telemetry::chain(&error);
                error!(retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "leases cannot be hosted: {why}");
                // The guard ends what an earlier agent held; nothing of it goes on without a host.
                let lost = held.iter().map(|(slot, t)| (slot.clone(), TenureView { state: TenureState::Lost, ..*t })).collect();
                view.send_replace(Arc::new(LeaseView { tenures: lost, trouble: why, ..LeaseView::default() }));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(STORE_RETRY.1);
    };
    let holder_config = HolderConfig::new(options.cluster, options.node.clone(), options.instance);
    let voters_file = options.state_dir.join(VOTERS);
    let remembered = read_voters(&voters_file).or_else(|| first_set(options.cluster, &options.first_voters));
    let host = Host {
        cluster: options.cluster,
        node: options.node.clone(),
        link,
        table,
        store,
        voter,
        holder: None,
        make_holder: Box::new(move |set| Holder::new(holder_config.clone(), set)),
        commands,
        view,
        folders: (options.state_dir.clone(), options.runtime_dir.clone()),
        remember_voters: Box::new(move |set| write_voters(&voters_file, set)),
        state: State::new(options.instance.0, held),
        guard_stale: options.place.guard_stale,
    };
    host.run(start, remembered).await;
}

/// This machine's voter and its files, and what the voter has to do first.
async fn first_voter(options: &Options) -> Result<(VoterStore, Voter, Vec<VoterAction>), LeaseError> {
    let mut store = VoterStore::open(&options.state_dir, &options.runtime_dir).map_err(LeaseError::Store)?;
    let journal = journal(options, &store).await.map_err(LeaseError::Store)?;
    let (voter, start) = memory::start(options.cluster, &options.node, &mut store, journal).map_err(LeaseError::Store)?;
    Ok((store, voter, start))
}

fn read_voters(path: &std::path::Path) -> Option<VoterSet> {
    let bytes = read_limited(path, VOTERS_MAX_BYTES).ok()??;
    set_of(&serde_json::from_slice::<VoterList>(&bytes).ok()?)
}

fn write_voters(path: &std::path::Path, set: &VoterSet) {
    let Ok(text) = serde_json::to_vec_pretty(&list_of(set)) else { return };
    if let Err(error) = write_atomic(path, &text, 0o600, Durability::Process) {
        warn!(path = %path.display(), "the voters are not remembered for a restart: {error}");
    }
}

/// The thread runs before ordinary work: a renewal that waits for a processor is a lease lost.
fn real_time() {
    use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, thread_native_id};
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(40_u8.try_into().unwrap_or_default());
    if let Err(error) = thread_priority::set_thread_priority_and_policy(thread_native_id(), priority, policy) {
        warn!("no real-time priority, renewals may be late on a busy machine: {error:?}");
    }
}
