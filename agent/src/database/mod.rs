//! Databases of the Apps on this node: for each one a thread that owns everything of it ([`task`]), and what its worker sees and orders.
//!
//! # Parts
//! - [`task`]: the thread's loop; [`standby`]: what the active says, taken in; [`fetch`]: what was missed, asked for; [`promote`]: from
//!   the lease to the epoch (rule D5); [`active`]: captured, shipped, confirmed, and the end of a tenure (D9, D11); [`answer`]: what other nodes
//!   ask; [`stream`]: the log into the durable stream; [`job`]: snapshots and what is made anew from them; [`place`]: file and folder.
//!
//! # Guarantees
//! - Only the thread opens or closes the database or its side files: POSIX locks belong to the process, and closing drops them.
//! - The file is the application's from [`Stage::Ready`] or [`Stage::Active`] until the worker, its unit stopped, orders [`Order::Follow`].
//! - Nothing waits for NATS while the application writes; what is waited for is bounded.

mod active;
mod answer;
mod fetch;
mod job;
pub mod place;
mod promote;
mod spool;
mod standby;
mod stream;
mod task;
mod wall;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cluster_bus::{DatabaseLink, Names, NatsConfig};
use cluster_schemas::database::DatabaseObserved;
use tokio::sync::{OnceCell, watch};
use tracing::error;

use crate::place::Place;
use place::Owner;

/// What the worker orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Be a replica. From a tenure: its unit is stopped, so the rest is read, shipped and confirmed first.
    #[default]
    Follow,
    /// Have the best tail that can be had, and begin this epoch.
    Promote {
        /// Epoch of the tenure.
        epoch: u64,
        /// The unit runs: go on with an epoch begun by an earlier agent, or refuse; the file must not be touched as a replica.
        adopt: bool,
    },
}

/// What a database is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Replica or active.
    pub order: Order,
    /// The other nodes that have the App.
    pub peers: BTreeSet<String>,
    /// Standbys that a write is to be on before it counts as confirmed; 0: none.
    pub confirm: u32,
    /// Most transactions that a take-over may lose.
    pub max_lag: Option<u64>,
}

/// Where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Not open: just begun, or something is wrong with its place.
    #[default]
    Closed,
    /// A replica.
    Standby,
    /// On its way to be the active of this epoch.
    Promoting(u64),
    /// Beside the unit that runs it cannot become the active of this epoch: the unit has to stop first.
    Refused(u64),
    /// It cannot become the active of this epoch here.
    Failed(u64),
    /// Nobody has a history: the application may make its database, which begins this epoch.
    Ready(u64),
    /// The application's, in this epoch.
    Active(u64),
    /// The tenure of this epoch is over; its last transactions are not yet on the standbys.
    Retiring(u64),
}

impl Stage {
    /// The epoch in which the file is, or may be, the application's.
    #[must_use]
    pub const fn open(self) -> Option<u64> {
        match self {
            Self::Ready(epoch) | Self::Active(epoch) => Some(epoch),
            _ => None,
        }
    }

    /// Whether a tenure has not let go of it yet.
    #[must_use]
    pub const fn in_tenure(self) -> bool {
        !matches!(self, Self::Closed | Self::Standby)
    }
}

/// What the worker sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Where it is.
    pub stage: Stage,
    /// Whether this node could go on with it: its file is at a state of the log.
    pub fit: bool,
    /// For the node's status.
    pub observed: DatabaseObserved,
}

/// One database, as its worker has it. Its thread ends when all of these are gone, and leaves the file as it is.
#[derive(Debug, Clone)]
pub struct Database(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    wish: watch::Sender<Wish>,
    view: watch::Receiver<View>,
}

impl Database {
    /// Orders. The same again changes nothing.
    pub fn order(&self, wish: Wish) {
        self.0.wish.send_if_modified(|now| {
            let changed = *now != wish;
            if changed {
                *now = wish;
            }
            changed
        });
    }

    /// What was ordered last.
    #[must_use]
    pub fn wish(&self) -> Wish {
        self.0.wish.borrow().clone()
    }

    /// What is seen of it; follows changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.0.view.clone()
    }
}

/// Which database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The App.
    pub app: String,
    /// Its uid.
    pub uid: String,
    /// The file.
    pub path: PathBuf,
}

/// All databases of this agent.
#[derive(Debug, Clone)]
pub struct Databases(Option<Arc<Shared>>);

struct Shared {
    nats: NatsConfig,
    names: Names,
    node: String,
    state_dir: PathBuf,
    runtime: tokio::runtime::Handle,
    /// Told of each thread's runtime.
    thread: Arc<dyn Fn(tokio::runtime::Handle) + Send + Sync>,
    /// Databases lie below a folder of ours, not where people have their disks.
    makes_folders: bool,
    link: OnceCell<DatabaseLink>,
    /// Those that are open: a second thread on one file would take the first one's locks away.
    open: Mutex<BTreeMap<PathBuf, watch::Receiver<()>>>,
}

impl Databases {
    /// Of node `node`, with logs below `state_dir`. To be called on the agent's runtime, which carries the messages.
    #[must_use]
    pub fn new(nats: NatsConfig, names: Names, node: &str, state_dir: PathBuf, place: &Place) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let (link, open) = (OnceCell::new(), Mutex::default());
        let (thread, makes_folders) = (Arc::clone(&place.thread), place.data.is_some());
        Self(Some(Arc::new(Shared { nats, names, node: node.to_owned(), state_dir, runtime, thread, makes_folders, link, open })))
    }

    /// None at all: for tests of what needs none.
    #[cfg(test)]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Opens a database, once: it ends with what is returned. Its thread waits until an earlier one on the same file is through.
    #[must_use]
    pub fn open(&self, name: &Name, owner: Owner) -> Option<Database> {
        let shared = self.0.as_ref()?;
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, over| over.has_changed().is_ok());
        let before = open.get(&name.path).cloned();
        let (wish, wishes) = watch::channel(Wish::default());
        let (seen, view) = watch::channel(View::default());
        let (alive, over) = watch::channel(());
        let ends = Arc::new(Ends { wish, view });
        open.insert(name.path.clone(), over);
        let (shared, name) = (Arc::clone(shared), name.clone());
        let app = name.app.clone();
        let started = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return error!(app = name.app, "the database has no runtime: {error}"),
            };
            (shared.thread)(runtime.handle().clone());
            runtime.block_on(async move {
                if let Some(mut before) = before {
                    while before.changed().await.is_ok() {}
                }
                shared.drive(name, owner, wishes, seen).await;
            });
            drop(alive);
        });
        match started {
            Ok(_) => Some(Database(ends)),
            Err(error) => {
                error!(app, "the database has no thread: {error}");
                None
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

impl Shared {
    async fn drive(&self, name: Name, owner: Owner, wish: watch::Receiver<Wish>, view: watch::Sender<View>) {
        let connect = || async {
            let (nats, names, node) = (self.nats.clone(), self.names.clone(), self.node.clone());
            // On the agent's runtime: this one stands still while a disk works.
            let connecting = self.runtime.spawn(async move { DatabaseLink::connect(&nats, names, &node).await });
            connecting.await.map_err(|error| error.to_string())?.map_err(|error| cluster_telemetry::chain(&error))
        };
        let link = match self.link.get_or_try_init(connect).await {
            Ok(link) => link.clone(),
            Err(error) => return error!(app = name.app, "the database is not replicated: {error}"),
        };
        let outgoing = {
            let _on_the_agents = self.runtime.enter();
            link.outgoing()
        };
        if let Some(parent) = name.path.parent().filter(|_| self.makes_folders)
            && let Err(error) = std::fs::create_dir_all(parent)
        {
            error!(app = name.app, folder = %parent.display(), "cannot be made: {error}");
        }
        let folder = place::state_folder(&self.state_dir, &name.app, &name.uid);
        task::Task::new(task::Setup { name, owner, folder, link, outgoing, runtime: self.runtime.clone() }, wish, view).run().await;
    }
}
