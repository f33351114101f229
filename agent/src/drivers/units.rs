//! What the agent asks of a service manager: the trait [`Units`] and what it reports.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What the guard has to say before a unit starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gate {
    /// The slot that must be held for it.
    pub slot: String,
    /// A hot unit starts anyway, but as a standby: its role file is put right first. Another one does not start without its slot.
    pub hot: bool,
}

/// A service manager, as the agent sees it. Units are named in full (`nginx.service`, `worker@1.service`).
///
/// No call queues without bound: each one waits for its own answer, and all of them may run at once from many tasks.
pub trait Units: Send + Sync + 'static {
    /// Writes the unit's file (atomically, into the runtime folder, gone after a boot) and has it loaded. `content` begins with the
    /// mark that [`unit_text::owned`](super::unit_text::owned) puts there. The manager's configuration is reloaded only if it holds an
    /// older text of this unit. What runs is not touched: a changed text takes effect with the next start.
    ///
    /// # Errors
    /// [`UnitError::NotOurs`] if a unit of that name exists that was not written here: it is never edited or shadowed.
    fn install(&self, unit: &str, content: &str) -> impl Future<Output = Result<Installed, UnitError>> + Send;

    /// Has the manager read a text as it would read it from the unit's file, without loading it: what it would ignore or refuse is said
    /// before [`Units::install`] puts it in the place of one that works. For texts that people wrote; takes some 20 to 100 ms. Where the
    /// manager has no means to do so, every text passes.
    ///
    /// # Errors
    /// [`UnitError::BadSetting`] with the manager's complaints; [`UnitError::BadName`], [`UnitError::BadContent`], [`UnitError::Io`].
    fn verify(&self, _unit: &str, _content: &str) -> impl Future<Output = Result<(), UnitError>> + Send {
        std::future::ready(Ok(()))
    }

    /// F6: has systemd ask the guard whenever it starts the unit, whoever wants it started. `None` takes that back. A drop-in in the runtime
    /// folder does it; the unit's own file is not touched. Where the unit is in memory, systemd reads its configuration again, once.
    ///
    /// # Errors
    /// [`UnitError`].
    fn gate(&self, _unit: &str, _gate: Option<&Gate>, _role_file: &Path) -> impl Future<Output = Result<(), UnitError>> + Send {
        async { Ok(()) }
    }

    /// Removes the unit's file if it was written here, and only then; already gone is success. Stop the unit first.
    ///
    /// # Errors
    /// [`UnitError::Io`] or [`UnitError::Bus`].
    fn uninstall(&self, unit: &str) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// All unit files written here, sorted by name: what an agent that restarts may have left.
    ///
    /// # Errors
    /// [`UnitError::Io`].
    fn ours(&self) -> impl Future<Output = Result<Vec<InstalledUnit>, UnitError>> + Send;

    /// What the manager says of the unit now. A unit that does not exist is no error: see [`UnitState::load_state`].
    ///
    /// # Errors
    /// [`UnitError::BadName`] or [`UnitError::Bus`].
    fn observe(&self, unit: &str) -> impl Future<Output = Result<UnitState, UnitError>> + Send;

    /// Starts the unit and waits until the start is through (for `Type=exec` the program executes; for `Type=notify` it is ready).
    /// Already running is success, and so is a unit that does not start because a condition of its own is not met: whether it runs,
    /// [`Units::observe`] says. A unit that used up its start limit may start again, and one that waits for its next automatic restart
    /// starts at once: the agent paces its own attempts.
    ///
    /// # Errors
    /// [`UnitError::NotFound`], [`UnitError::Masked`], [`UnitError::BadSetting`], [`UnitError::JobFailed`];
    /// [`UnitError::JobTimeout`] after `timeout`: the start goes on, and [`Units::stop`] ends it.
    fn start(&self, unit: &str, timeout: Duration) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Stops the unit and waits until **no process of it is left**. Not running, or not existing, is success.
    ///
    /// # Errors
    /// [`UnitError::JobTimeout`] or [`UnitError::ProcessesLeft`] after `timeout`: something of it may still execute.
    fn stop(&self, unit: &str, timeout: Duration) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Kills every process of the unit (SIGKILL) and does not wait: a stop that is under way ends by it. Not running is success.
    ///
    /// # Errors
    /// [`UnitError::BadName`] or [`UnitError::Bus`].
    fn kill(&self, unit: &str) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Stops and starts the unit with its newest text, and waits for the result.
    ///
    /// # Errors
    /// As [`Units::start`].
    fn restart(&self, unit: &str, timeout: Duration) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Has the running unit read its files again, and waits for the result.
    ///
    /// # Errors
    /// [`UnitError::Refused`] if the unit has no reload or does not run; [`UnitError::JobFailed`] if its reload failed.
    fn reload(&self, unit: &str, timeout: Duration) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Runs a command to its end, in a unit of its own. One of that name that still runs is ended first. However this ends, nothing of it
    /// is left.
    ///
    /// # Errors
    /// [`UnitError::JobFailed`] if it ended with another status than 0, could not be executed, or took longer than its time-out; what
    /// it said is in [`Units::log_tail`]. [`UnitError::JobTimeout`], [`UnitError::ProcessesLeft`] if it cannot be ended.
    fn run(&self, command: &super::Command) -> impl Future<Output = Result<(), UnitError>> + Send {
        let unit = command.unit.clone();
        async { Err(UnitError::NotFound { unit }) }
    }

    /// Ends every command whose unit's name begins so, at once.
    ///
    /// # Errors
    /// As [`Units::stop`].
    fn end_commands(&self, _prefix: &str) -> impl Future<Output = Result<(), UnitError>> + Send {
        std::future::ready(Ok(()))
    }

    /// A counter that rises whenever something about the unit may have changed: at least once per change, coalesced (one number
    /// per unit, so nothing queues), and for every unit after the connection to the manager was lost, since anything may have
    /// happened meanwhile. The unit is watched as long as a receiver of it lives.
    fn changes(&self, unit: &str) -> watch::Receiver<u64>;

    /// The last lines that the unit, or the manager about it, logged in this boot; oldest first. Bounded in lines, length and
    /// time; empty if there are none or they cannot be read.
    fn log_tail(&self, unit: &str, lines: u32) -> impl Future<Output = Vec<String>> + Send;
}

/// What [`Units::install`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// There was no such file.
    New,
    /// There was one with another text: a running unit needs a restart to follow.
    Changed,
    /// It was there with this text.
    Unchanged,
}

/// A unit file that was written here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledUnit {
    /// Full name of the unit.
    pub unit: String,
    /// The App it was written for.
    pub app: String,
}

/// Most names in [`UnitState::started_by`].
pub const STARTED_BY_MAX: usize = 8;

/// What a service manager says of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// The name that was asked for.
    pub unit: String,
    /// Whether its configuration could be read.
    pub load_state: LoadState,
    /// Why it could not; empty when it could.
    pub load_error: String,
    /// What it does.
    pub active_state: ActiveState,
    /// The same in the words of its type: running, dead, auto-restart, …
    pub sub_state: String,
    /// How its last run went: success, exit-code, signal, timeout, start-limit-hit, …; empty if unknown.
    pub result: String,
    /// Exit status or signal of its last main process.
    pub exit_status: i32,
    /// Process id of its main process; 0 when none.
    pub main_pid: u32,
    /// How often the manager restarted it by itself since it was started.
    pub restarts: u32,
    /// Identity of this run, 32 hex digits; empty if it never ran.
    pub invocation_id: String,
    /// When it last became active, µs of the monotonic clock; 0 if it never did.
    pub active_enter_us: u64,
    /// The manager holds an older text of it than the disk.
    pub need_daemon_reload: bool,
    /// File it was loaded from.
    pub fragment_path: Option<PathBuf>,
    /// Whether it is started at boot, in systemd's word: enabled, disabled, static, transient, …; empty if there is no file.
    pub unit_file_state: String,
    /// Units that start this one when they start or are triggered, whatever the cluster wants: targets, services, sockets, timers, paths;
    /// sorted, at most [`STARTED_BY_MAX`].
    pub started_by: Vec<String>,
    /// Its cgroup, below the root of the hierarchy; empty when it has none.
    pub control_group: String,
    /// Whether it can be reloaded.
    pub can_reload: bool,
    /// A job (start, stop, …) of it is queued or under way.
    pub job_pending: bool,
    /// Processes are left in its cgroup.
    pub populated: bool,
}

impl UnitState {
    /// Nothing of the unit executes, nothing is about to start it, and no process is left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.active_state, ActiveState::Inactive | ActiveState::Failed)
            && !self.populated
            && !self.job_pending
            && self.main_pid == 0
    }

    /// The unit is up and serves, as far as the service manager can tell.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.active_state, ActiveState::Active | ActiveState::Reloading)
    }

    /// Nothing of the unit runs, but the manager will start it by itself after the unit's own pause.
    #[must_use]
    pub fn waits_for_restart(&self) -> bool {
        self.active_state == ActiveState::Activating && self.sub_state.starts_with("auto-restart")
    }

    /// What else than the cluster may start the unit, in words for a person; none if nothing does. For the units of exclusive Apps, which
    /// only the agent may start: whatever starts one elsewhere is stopped, and would better not be there.
    #[must_use]
    pub fn started_by_others(&self) -> Option<String> {
        let unit = &self.unit;
        if self.starts_at_boot() {
            let state = &self.unit_file_state;
            return Some(format!(
                "unit {unit} is {state} on this node, so a boot starts it whatever the cluster wants: systemctl disable {unit}"
            ));
        }
        (!self.started_by.is_empty())
            .then(|| format!("unit {unit} is started by {} whatever the cluster wants", self.started_by.join(", ")))
    }

    /// The unit is started at boot, whatever the cluster wants.
    #[must_use]
    pub fn starts_at_boot(&self) -> bool {
        matches!(self.unit_file_state.as_str(), "enabled" | "enabled-runtime" | "linked" | "linked-runtime")
    }
}

/// Whether a unit's configuration could be read; systemd's LoadState.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadState {
    /// Read and good.
    Loaded,
    /// There is no such unit.
    #[default]
    NotFound,
    /// Made unstartable on purpose (a link to `/dev/null`).
    Masked,
    /// A setting of it cannot be used.
    BadSetting,
    /// It could not be read.
    Error,
}

/// What a unit does; systemd's ActiveState.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActiveState {
    /// Up.
    Active,
    /// Up, reading its configuration again.
    Reloading,
    /// Not up.
    #[default]
    Inactive,
    /// Not up after a failure.
    Failed,
    /// On its way up, or waiting for an automatic restart.
    Activating,
    /// On its way down.
    Deactivating,
    /// Being maintained.
    Maintenance,
}

impl ActiveState {
    /// systemd's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Maintenance => "maintenance",
        }
    }
}

/// What was asked of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`Units::start`].
    Start,
    /// [`Units::stop`].
    Stop,
    /// [`Units::restart`].
    Restart,
    /// [`Units::reload`].
    Reload,
    /// [`Units::run`].
    Run,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Run => "run",
        })
    }
}

/// Why something could not be done with a unit.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The name is not one of a service.
    #[error("unit name {unit:?}: {reason}")]
    BadName {
        /// The name.
        unit: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The text given for the unit cannot be written as a unit file.
    #[error("unit {unit}: {reason}")]
    BadContent {
        /// The unit.
        unit: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such unit.
    #[error("unit {unit} does not exist on this node")]
    NotFound {
        /// The unit.
        unit: String,
    },
    /// The unit is masked.
    #[error("unit {unit} is masked on this node")]
    Masked {
        /// The unit.
        unit: String,
    },
    /// The unit's configuration cannot be used.
    #[error("unit {unit} cannot be loaded: {message}")]
    BadSetting {
        /// The unit.
        unit: String,
        /// The manager's words.
        message: String,
    },
    /// A unit of this name was not written by clusterctl, so it is not touched.
    #[error("unit {unit} exists at {} and was not written by clusterctl", path.display())]
    NotOurs {
        /// The unit.
        unit: String,
        /// Its file.
        path: PathBuf,
    },
    /// The manager tried and failed.
    #[error("{verb} of unit {unit} failed: job {job}, result {result}")]
    JobFailed {
        /// The unit.
        unit: String,
        /// What was asked.
        verb: Verb,
        /// Result of the job: failed, canceled, timeout, dependency, …; `lost` if it was not heard.
        job: String,
        /// Result of the unit: exit-code, signal, timeout, start-limit-hit, …
        result: String,
    },
    /// No result in time.
    #[error("{verb} of unit {unit} took longer than {timeout:?}")]
    JobTimeout {
        /// The unit.
        unit: String,
        /// What was asked.
        verb: Verb,
        /// The time it was given.
        timeout: Duration,
    },
    /// The unit is stopped, but processes of it live on.
    #[error("unit {unit} is stopped but {} processes of it are left", pids.len())]
    ProcessesLeft {
        /// The unit.
        unit: String,
        /// Their process ids.
        pids: Vec<u32>,
    },
    /// The manager does not do this with this unit.
    #[error("{verb} of unit {unit} refused: {message}")]
    Refused {
        /// The unit.
        unit: String,
        /// What was asked.
        verb: Verb,
        /// The manager's words.
        message: String,
        /// Whether it may be granted later without a change of the unit.
        retryable: bool,
    },
    /// The manager does not answer.
    #[error("{action}: the service manager does not answer")]
    Bus {
        /// What was tried.
        action: String,
        /// The connection's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl UnitError {
    /// Trying again is useless until somebody changes the App or the node. Everything else is worth another try, after a pause.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::BadName { .. }
            | Self::BadContent { .. }
            | Self::NotFound { .. }
            | Self::Masked { .. }
            | Self::BadSetting { .. }
            | Self::NotOurs { .. } => true,
            Self::Refused { retryable, .. } => !*retryable,
            Self::JobFailed { .. } | Self::JobTimeout { .. } | Self::ProcessesLeft { .. } | Self::Bus { .. } | Self::Io { .. } => false,
        }
    }
}
