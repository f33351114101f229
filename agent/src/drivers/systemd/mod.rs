//! Units of systemd, over D-Bus. Nothing is ever run through a shell.
//!
//! - A request is a job of systemd; its result is heard as a signal, subscribed to before any request. If the connection breaks
//!   meanwhile, or the signal does not come, the unit itself is looked at.
//! - systemd is reloaded only when it holds an older text of a unit of ours: a new file needs no reload.
//! - A text that people wrote can be read by systemd (`systemd-analyze verify`) before it takes the place of one that works.
//! - A stop counts only when no process is left in the unit's cgroup.

mod bus;
mod commands;
mod errors;
mod folders;
mod jobs;
mod log;
mod names;
mod state;
mod verify;
mod watches;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use zbus::OwnedObjectPath;

use self::bus::Session;
use self::folders::Folders;
use self::watches::Watches;
use super::Command;
use super::units::{ActiveState, Gate, Installed, InstalledUnit, LoadState, UnitError, UnitState, Units, Verb};

/// How long a call waits for the connection to systemd to stand again.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How often a job is looked after in case its signal was missed.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How long the signal of a job that is seen to have ended may still take.
const SIGNAL_WAIT: Duration = Duration::from_millis(200);
/// Pause between two looks at a unit whose end is awaited without a signal.
const POLL: Duration = Duration::from_millis(20);
/// The result of a job that ended unheard.
const LOST: &str = "lost";

/// The driver for units of a real node. Needs root.
#[derive(Debug)]
pub struct Systemd {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    watches: Arc<Watches>,
    folders: Folders,
    /// One reload of systemd at a time: who waits finds it done, as a rule.
    reloading: tokio::sync::Mutex<()>,
    /// Aborted when the driver is dropped.
    _keeper: JoinSet<()>,
}

impl Default for Systemd {
    fn default() -> Self {
        Self::new()
    }
}

impl Systemd {
    /// Begins to connect to the system bus, and keeps at it. To be called within a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        let (sender, sessions) = watch::channel(None);
        let watches = Arc::new(Watches::default());
        let mut keeper = JoinSet::new();
        keeper.spawn(bus::keep(sender, Arc::clone(&watches)));
        Self { sessions, watches, folders: Folders::default(), reloading: tokio::sync::Mutex::default(), _keeper: keeper }
    }

    async fn session(&self, action: &str) -> Result<Arc<Session>, UnitError> {
        let mut sessions = self.sessions.clone();
        let waited = tokio::time::timeout(CONNECTION_WAIT, sessions.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(session)) => session.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
        .ok_or_else(|| UnitError::Bus { action: action.to_owned(), source: "there is no connection to the system bus".into() })
    }

    async fn look(&self, unit: &str) -> Result<UnitState, UnitError> {
        let action = format!("look at unit {unit}");
        let session = self.session(&action).await?;
        let lost = |error| errors::lost(&action, error);
        let (mut state, id) = state::read(&session.connection, unit, &names::object_path(unit)).await.map_err(lost)?;
        self.watches.is_called(unit, &id);
        state.populated = match state.active_state {
            // Gone for systemd, but processes may be left.
            ActiveState::Inactive | ActiveState::Failed if !state.control_group.is_empty() => {
                !processes(&session, unit).await.map_err(lost)?.is_empty()
            }
            _ => !state.control_group.is_empty(),
        };
        Ok(state)
    }

    /// Has systemd read its configuration again, if it still holds an older text of the unit, or none of the file at `path`.
    async fn load(&self, unit: &str, path: &Path) -> Result<UnitState, UnitError> {
        let is_loaded = |state: &UnitState| !state.need_daemon_reload && state.fragment_path.as_deref() == Some(path);
        let state = self.look(unit).await?;
        if is_loaded(&state) {
            return Ok(state);
        }
        self.reload_configuration(unit, |state| !is_loaded(state)).await
    }

    async fn reload_configuration(&self, unit: &str, is_needed: impl Fn(&UnitState) -> bool) -> Result<UnitState, UnitError> {
        let _one_at_a_time = self.reloading.lock().await;
        let state = self.look(unit).await?;
        if !is_needed(&state) {
            return Ok(state);
        }
        let session = self.session("reload the configuration of systemd").await?;
        tracing::debug!(unit, "systemd reads its configuration again");
        session.manager.reload().await.map_err(|error| errors::lost("reload the configuration of systemd", error))?;
        self.look(unit).await
    }

    /// Does blocking work on files off the runtime's threads.
    async fn with_folders<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folders) -> Result<T, UnitError> + Send + 'static,
    ) -> Result<T, UnitError> {
        let folders = self.folders.clone();
        match tokio::task::spawn_blocking(move || work(&folders)).await {
            Ok(result) => result,
            Err(error) => Err(UnitError::Io { action: "work in", path: self.folders.path(""), source: std::io::Error::other(error) }),
        }
    }

    /// Queues a job and waits for its result.
    async fn job(&self, unit: &str, verb: Verb, time: Duration) -> Result<(), UnitError> {
        let deadline = Instant::now() + time;
        let late = || UnitError::JobTimeout { unit: unit.to_owned(), verb, timeout: time };
        let session = match timeout_at(deadline, self.session(&format!("{verb} of unit {unit}"))).await {
            Ok(session) => session?,
            Err(_elapsed) => return Err(late()),
        };
        let job = queue(&session, unit, verb).await.map_err(|error| errors::of_verb(unit, verb, error))?;
        let result = session.jobs.result_of(job.as_str());
        let heard = match timeout_at(deadline, self.result_or_seen(unit, result)).await {
            Ok(heard) => heard,
            Err(_elapsed) => return Err(late()),
        };
        self.judge(unit, verb, heard).await
    }

    /// The result of a job; if its signal is lost, the state in which the unit is found once it has no job any more.
    async fn result_or_seen(&self, unit: &str, mut result: oneshot::Receiver<String>) -> Heard {
        loop {
            tokio::select! {
                heard = &mut result => match heard {
                    Ok(result) => return Heard::Result(result),
                    Err(_) => break,
                },
                () = sleep(LOOK_AFTER) => {
                    if self.look(unit).await.is_ok_and(|state| !state.job_pending) {
                        match tokio::time::timeout(SIGNAL_WAIT, &mut result).await {
                            Ok(Ok(result)) => return Heard::Result(result),
                            Ok(Err(_)) | Err(_) => break,
                        }
                    }
                }
            }
        }
        tracing::warn!(unit, "the end of a job was not heard, looking at the unit instead");
        loop {
            if let Ok(state) = self.look(unit).await
                && !state.job_pending
            {
                return Heard::State(Box::new(state));
            }
            sleep(POLL).await;
        }
    }

    async fn judge(&self, unit: &str, verb: Verb, heard: Heard) -> Result<(), UnitError> {
        let (job, seen) = match heard {
            Heard::Result(job) if job == "done" || job == "skipped" => return Ok(()),
            Heard::Result(job) => (job, None),
            Heard::State(state) => {
                let is_so = match verb {
                    // One that ran to its end (`Type=oneshot`) succeeded too.
                    Verb::Start | Verb::Restart | Verb::Run => {
                        state.is_running() || (state.active_state == ActiveState::Inactive && state.result == "success")
                    }
                    Verb::Stop => matches!(state.active_state, ActiveState::Inactive | ActiveState::Failed),
                    // Nothing shows whether it read its files again.
                    Verb::Reload => false,
                };
                if is_so {
                    return Ok(());
                }
                (LOST.to_owned(), Some(*state))
            }
        };
        let state = match seen {
            Some(state) => state,
            // The failure is the news; its details are a help where they can be had.
            None => self.look(unit).await.unwrap_or_default(),
        };
        if verb == Verb::Reload && (job == "invalid" || !state.is_running()) {
            let message = format!("the unit is {}", state.active_state.as_str());
            return Err(UnitError::Refused { unit: unit.to_owned(), verb, message, retryable: true });
        }
        Err(UnitError::JobFailed { unit: unit.to_owned(), verb, job, result: state.result })
    }

    /// Start or restart, also of a unit that used up its start limit.
    async fn up(&self, unit: &str, verb: Verb, time: Duration) -> Result<(), UnitError> {
        names::check(unit)?;
        // A failure is forgotten first, and with it the count of starts: once over its limit, a unit that failed would be refused with
        // the words of its last failure, which say nothing of a limit.
        let action = format!("{verb} of unit {unit}");
        let session = self.session(&action).await?;
        let active_state = state::active(&session.connection, &names::object_path(unit)).await;
        match active_state.map_err(|error| errors::lost(&action, error))? {
            ActiveState::Failed => self.forget_failure(unit).await?,
            // systemd would let the start wait for the unit's own pause between restarts (`RestartSec=`), however long that is.
            ActiveState::Activating if verb == Verb::Start && self.look(unit).await?.waits_for_restart() => {
                self.job(unit, Verb::Stop, time).await?;
            }
            _ => {}
        }
        match self.job(unit, verb, time).await {
            Err(UnitError::JobFailed { result, .. }) if result == "start-limit-hit" => {
                self.forget_failure(unit).await?;
                self.job(unit, Verb::Start, time).await
            }
            other => other,
        }
    }

    async fn forget_failure(&self, unit: &str) -> Result<(), UnitError> {
        let action = format!("reset the failure of unit {unit}");
        match self.session(&action).await?.manager.reset_failed_unit(unit.to_owned()).await {
            Err(error) if !errors::is_no_such_unit(&error) => Err(errors::lost(&action, error)),
            _ => Ok(()),
        }
    }
}

/// How the end of a job became known.
enum Heard {
    /// By its signal.
    Result(String),
    /// By the state that the unit is in without it.
    State(Box<UnitState>),
}

async fn queue(session: &Session, unit: &str, verb: Verb) -> zbus::Result<OwnedObjectPath> {
    let (manager, unit, mode) = (&session.manager, unit.to_owned(), "replace".to_owned());
    match verb {
        // A command is begun together with its unit; what is asked for here is its start.
        Verb::Start | Verb::Run => manager.start_unit(unit, mode).await,
        Verb::Stop => manager.stop_unit(unit, mode).await,
        Verb::Restart => manager.restart_unit(unit, mode).await,
        Verb::Reload => manager.reload_unit(unit, mode).await,
    }
}

/// The processes in the unit's cgroup.
async fn processes(session: &Session, unit: &str) -> zbus::Result<Vec<u32>> {
    match session.manager.get_unit_processes(unit.to_owned()).await {
        Ok(processes) => Ok(processes.into_iter().map(|(_cgroup, pid, _command)| pid).collect()),
        Err(error) if errors::is_no_such_unit(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Units for Systemd {
    async fn install(&self, unit: &str, content: &str) -> Result<Installed, UnitError> {
        names::check(unit)?;
        let path = self.folders.path(unit);
        // What the folders do not show: a unit of a template, or one of a folder we do not know of.
        let before = self.look(unit).await?;
        if let Some(other) = before.fragment_path.filter(|found| *found != path && found.exists()) {
            return Err(match before.load_state {
                LoadState::Masked => UnitError::Masked { unit: unit.to_owned() },
                _ => UnitError::NotOurs { unit: unit.to_owned(), path: other },
            });
        }
        let (name, text) = (unit.to_owned(), content.to_owned());
        let installed = self.with_folders(move |folders| folders.write(&name, &text)).await?;
        let state = self.load(unit, &path).await?;
        match state.load_state {
            LoadState::Loaded => Ok(installed),
            LoadState::Masked => Err(UnitError::Masked { unit: unit.to_owned() }),
            LoadState::NotFound => Err(UnitError::NotFound { unit: unit.to_owned() }),
            LoadState::BadSetting | LoadState::Error => Err(UnitError::BadSetting { unit: unit.to_owned(), message: state.load_error }),
        }
    }

    async fn verify(&self, unit: &str, content: &str) -> Result<(), UnitError> {
        names::check(unit)?;
        folders::check_content(unit, content)?;
        verify::verify(unit, content).await
    }

    async fn gate(&self, unit: &str, gate: Option<&Gate>, role_file: &Path) -> Result<(), UnitError> {
        names::check(unit)?;
        let (name, gate, role_file) = (unit.to_owned(), gate.cloned(), role_file.to_owned());
        self.with_folders(move |folders| folders.gate(&name, gate.as_ref(), &role_file)).await?;
        if self.look(unit).await?.need_daemon_reload {
            self.reload_configuration(unit, |state| state.need_daemon_reload).await?;
        }
        Ok(())
    }

    async fn uninstall(&self, unit: &str) -> Result<(), UnitError> {
        names::check(unit)?;
        let (name, path) = (unit.to_owned(), self.folders.path(unit));
        self.with_folders(move |folders| folders.remove(&name)).await?;
        if path.exists() {
            return Ok(());
        }
        // A failed unit stays in memory, and so would its text.
        self.forget_failure(unit).await?;
        let is_left = |state: &UnitState| state.fragment_path.as_deref() == Some(path.as_path());
        if is_left(&self.look(unit).await?) {
            self.reload_configuration(unit, is_left).await?;
        }
        Ok(())
    }

    async fn ours(&self) -> Result<Vec<InstalledUnit>, UnitError> {
        self.with_folders(Folders::ours).await
    }

    async fn observe(&self, unit: &str) -> Result<UnitState, UnitError> {
        names::check(unit)?;
        self.look(unit).await
    }

    async fn start(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        self.up(unit, Verb::Start, timeout).await
    }

    async fn kill(&self, unit: &str) -> Result<(), UnitError> {
        const SIGKILL: i32 = 9;
        names::check(unit)?;
        let action = format!("kill {unit}");
        let session = self.session(&action).await?;
        match session.manager.kill_unit(unit.to_owned(), "all".to_owned(), SIGKILL).await {
            Ok(()) => Ok(()),
            // Nothing of it runs, or there is no such unit: as it should be.
            Err(zbus_systemd::zbus::Error::MethodError(..)) => Ok(()),
            Err(error) => Err(errors::lost(&action, error)),
        }
    }

    async fn stop(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        names::check(unit)?;
        let deadline = Instant::now() + timeout;
        match self.job(unit, Verb::Stop, timeout).await {
            // No unit, or one without a file that does not run: nothing to stop.
            Err(UnitError::NotFound { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        loop {
            let state = self.look(unit).await?;
            if state.is_gone() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let down = matches!(state.active_state, ActiveState::Inactive | ActiveState::Failed);
                if !(down && state.populated) {
                    return Err(UnitError::JobTimeout { unit: unit.to_owned(), verb: Verb::Stop, timeout });
                }
                let session = self.session("list processes").await?;
                let pids = processes(&session, unit).await.map_err(|error| errors::lost("list processes", error))?;
                return Err(UnitError::ProcessesLeft { unit: unit.to_owned(), pids });
            }
            sleep(POLL).await;
        }
    }

    async fn restart(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        self.up(unit, Verb::Restart, timeout).await
    }

    async fn reload(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        names::check(unit)?;
        self.job(unit, Verb::Reload, timeout).await
    }

    async fn run(&self, command: &Command) -> Result<(), UnitError> {
        self.run_command(command).await
    }

    async fn end_commands(&self, prefix: &str) -> Result<(), UnitError> {
        self.end_commands_of(prefix).await
    }

    fn changes(&self, unit: &str) -> watch::Receiver<u64> {
        self.watches.receiver(unit)
    }

    async fn log_tail(&self, unit: &str, lines: u32) -> Vec<String> {
        if names::check(unit).is_err() {
            return Vec::new();
        }
        log::tail(unit, lines).await
    }
}
