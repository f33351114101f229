//! What driver, supervisors and guard share of a node's services. Each lock is held for a few instructions, never while something is waited for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_agent::drivers::{ActiveState, Gate, LoadState, UnitState};
use cluster_fence::Table;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};

use super::supervisor::Order;
use super::text::Service;
use crate::kernel::{self, Group};

/// Most ancestors that are looked at for whose a process is.
const ANCESTORS_MAX: usize = 64;

/// Where a node's services run.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Folder of clusterctl's own programs.
    pub programs: PathBuf,
    /// Folder of the services' logs.
    pub logs: PathBuf,
    /// Folder of the records of what runs, for who comes after a sudden end.
    pub records: PathBuf,
    /// Tells processes of this start of the cluster.
    pub token: String,
    /// The node's fence table, for gates.
    pub table: Arc<Table>,
}

/// A service.
#[derive(Debug)]
pub struct Unit {
    /// Full name.
    pub name: String,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

/// What is known of a service.
#[derive(Debug, Clone, Default)]
pub struct Inner {
    /// Its text; none where it is not installed.
    pub text: Option<String>,
    /// What the text says.
    pub service: Option<Service>,
    /// Who has to be asked before it starts, and its role file.
    pub gate: Option<(Gate, PathBuf)>,
    /// What it does.
    pub active: ActiveState,
    /// The same in finer words.
    pub sub: &'static str,
    /// How its last run went.
    pub result: &'static str,
    /// Exit status or signal of its last run.
    pub exit_status: i32,
    /// Restarts since it was started.
    pub restarts: u32,
    /// Identity of this run.
    pub invocation: String,
    /// When it last became active, µs of the clock of [`cluster_agent::clock`].
    pub entered_us: u64,
    /// Process id of the main process, 0 without.
    pub main: u32,
    /// What it started; none once all of it was seen gone.
    pub group: Option<Group>,
    /// An order is being carried out.
    pub busy: bool,
    /// Who takes orders.
    pub orders: Option<mpsc::Sender<Order>>,
}

/// All services of a node.
#[derive(Debug)]
pub struct Shared {
    /// Where they run.
    pub node: Node,
    units: Mutex<BTreeMap<String, Arc<Unit>>>,
    /// Hooks that run, by the name of their unit.
    commands: Mutex<BTreeMap<String, Group>>,
    closed: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one; what is there is whole in any case.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unit {
    /// A copy of what is known.
    #[must_use]
    pub fn get(&self) -> Inner {
        locked(&self.inner).clone()
    }

    /// Changes what is known, and tells who watches.
    pub fn set<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let out = change(&mut locked(&self.inner));
        self.changes.send_modify(|n| *n += 1);
        out
    }

    /// Rises with every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What of it runs; none where nothing does.
    #[must_use]
    pub fn group(&self) -> Option<Group> {
        locked(&self.inner).group.clone()
    }

    /// Whether anything of it runs; looks at all processes only where its session is gone.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        self.group().is_some_and(|group| group.has_session() || !group.members().is_empty())
    }

    /// As the service manager says it.
    #[must_use]
    pub fn state(&self) -> UnitState {
        let inner = self.get();
        let populated = inner.main != 0 || inner.group.as_ref().is_some_and(|group| !group.members().is_empty());
        UnitState {
            unit: self.name.clone(),
            load_state: if inner.service.is_some() { LoadState::Loaded } else { LoadState::NotFound },
            active_state: inner.active,
            sub_state: if inner.sub.is_empty() { "dead" } else { inner.sub }.to_owned(),
            result: inner.result.to_owned(),
            exit_status: inner.exit_status,
            main_pid: inner.main,
            restarts: inner.restarts,
            invocation_id: inner.invocation,
            active_enter_us: inner.entered_us,
            control_group: control_group(&self.name),
            can_reload: inner.service.is_some_and(|s| s.reload.is_some()),
            job_pending: inner.busy,
            populated,
            ..UnitState::default()
        }
    }
}

/// What stands for a unit where a real node has its cgroup.
#[must_use]
pub fn control_group(unit: &str) -> String {
    format!("/system.slice/{unit}")
}

impl Shared {
    /// Of a node that runs nothing yet.
    #[must_use]
    pub fn new(node: Node) -> Arc<Self> {
        Arc::new(Self { node, units: Mutex::default(), commands: Mutex::default(), closed: AtomicBool::new(false) })
    }

    /// The unit; made where there is none.
    #[must_use]
    pub fn unit(&self, name: &str) -> Arc<Unit> {
        let new = || Arc::new(Unit { name: name.to_owned(), inner: Mutex::default(), changes: watch::Sender::new(0) });
        Arc::clone(locked(&self.units).entry(name.to_owned()).or_insert_with(new))
    }

    /// The unit, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Unit>> {
        locked(&self.units).get(name).cloned()
    }

    /// All units.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Unit>> {
        locked(&self.units).values().cloned().collect()
    }

    /// The unit that a text of the fence table stands for.
    #[must_use]
    pub fn of_control_group(&self, text: &[u8]) -> Option<Arc<Unit>> {
        let text = std::str::from_utf8(text).ok()?;
        self.find(text.rsplit('/').next()?)
    }

    /// From now on nothing starts any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether nothing may start any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Hooks that run, by the name of their unit.
    pub fn commands(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        locked(&self.commands)
    }

    fn groups(&self) -> Vec<Group> {
        let commands: Vec<Group> = self.commands().values().cloned().collect();
        self.all().iter().filter_map(|unit| unit.group()).chain(commands).collect()
    }

    /// Sends a signal to everything that runs.
    pub fn signal_all(&self, signal: Signal) {
        for group in self.groups() {
            group.signal(signal);
        }
    }

    /// Whether anything runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.groups().iter().any(|group| !group.members().is_empty())
    }

    /// The unit that a process belongs to: by the mark in its environment, else as a descendant of one that has it.
    #[must_use]
    pub fn unit_of(&self, pid: i32) -> Option<String> {
        let ours = format!("{}/{}/", self.node.token, self.node.name);
        let mut at = pid;
        for _ in 0..ANCESTORS_MAX {
            if let Some(mark) = kernel::mark(at) {
                return mark.strip_prefix(&ours).map(ToOwned::to_owned);
            }
            at = kernel::stat(at).map(|stat| stat.parent).filter(|parent| *parent > 1)?;
        }
        None
    }

    /// File of the log of a unit.
    #[must_use]
    pub fn log(&self, unit: &str) -> PathBuf {
        self.node.logs.join(format!("{}.log", unit.trim_end_matches(".service")))
    }

    /// Writes down what runs of a unit, or that nothing does.
    ///
    /// # Errors
    /// The system's.
    pub fn record(&self, unit: &str, group: Option<&Group>) -> io::Result<()> {
        let path = self.node.records.join(format!("{}.{unit}", self.node.name));
        match group {
            Some(group) => fs::write(path, serde_json::to_vec(group)?),
            None => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}
