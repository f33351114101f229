//! The supervisor of one service: starts its process, waits for the end of it, starts it again as `Restart=` says, stops and reloads it. One
//! task for each service, which takes one order after the other.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster_agent::drivers::{ActiveState, UnitError, Verb};
use cluster_agent::guard::demote;
use cluster_fence::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::shared::{Shared, Unit};
use super::text::{Reload, Service};
use crate::helper::{BEFORE, Become};
use crate::kernel::{Group, MARK, stat};

/// Orders that may wait for a supervisor; then who gives more waits.
pub const ORDERS_WAITING: usize = 16;
/// How often a process that begins is looked at: whether it became its program.
const LOOK: Duration = Duration::from_millis(2);
/// How often it is looked whether all of a service is gone.
const LOOK_GONE: Duration = Duration::from_millis(10);
/// Longest time until a process is its program.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a command of `ExecReload=`.
const RELOAD_LIMIT: Duration = Duration::from_secs(90);
/// A log that is longer is moved to `.1` and begun anew.
const LOG_MAX: u64 = 8 * 1024 * 1024;
/// How often the length of a log is looked at.
const LOG_LOOK: Duration = Duration::from_secs(10);
/// Where programs of services look for others, as systemd has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What of our own environment services get.
const PASSED_ON: [&str; 4] = ["HOME", "USER", "LANG", "TZ"];

/// What a supervisor is told.
#[derive(Debug)]
pub struct Order {
    /// What to do.
    pub verb: Verb,
    /// Where the outcome goes; who asked may be gone.
    pub done: oneshot::Sender<Result<(), UnitError>>,
}

/// Supervises one service.
#[derive(Debug)]
struct Supervisor {
    shared: Arc<Shared>,
    unit: Arc<Unit>,
    orders: mpsc::Receiver<Order>,
    /// When it was started lately, by itself or not.
    starts: VecDeque<Instant>,
}

/// Where orders for the unit go; its supervisor is started where there is none.
pub fn of(shared: &Arc<Shared>, unit: &Arc<Unit>) -> mpsc::Sender<Order> {
    if let Some(orders) = unit.get().orders.filter(|orders| !orders.is_closed()) {
        return orders;
    }
    let (sender, orders) = mpsc::channel(ORDERS_WAITING);
    unit.set(|inner| inner.orders = Some(sender.clone()));
    let supervisor = Supervisor { shared: Arc::clone(shared), unit: Arc::clone(unit), orders, starts: VecDeque::new() };
    tokio::spawn(supervisor.run());
    sender
}

/// What comes next for a service that runs.
enum Next {
    Ended(std::io::Result<ExitStatus>),
    Order(Option<Order>),
    Again,
    Log,
}

impl Supervisor {
    async fn run(mut self) {
        let mut running: Option<(Child, Service)> = None;
        let mut again: Option<Instant> = None;
        let mut log_look = tokio::time::interval(LOG_LOOK);
        loop {
            let next = tokio::select! {
                ended = ended(&mut running) => Next::Ended(ended),
                order = self.orders.recv() => Next::Order(order),
                () = until(again) => Next::Again,
                _ = log_look.tick() => Next::Log,
            };
            match next {
                Next::Log => self.shorten_log(),
                Next::Ended(status) => {
                    let Some((_, service)) = running.take() else { continue };
                    again = self.ended(status, &service).await;
                }
                Next::Order(Some(order)) => {
                    again = None;
                    self.unit.set(|inner| inner.busy = true);
                    let outcome = self.obey(order.verb, &mut running).await;
                    self.unit.set(|inner| inner.busy = false);
                    // Who asked may have stopped waiting.
                    let _told = order.done.send(outcome);
                }
                // Nobody is left who could give any.
                Next::Order(None) => return,
                Next::Again => {
                    again = None;
                    let restarts = self.unit.get().restarts + 1;
                    self.unit.set(|inner| inner.restarts = restarts);
                    if let Err(error) = self.start(&mut running, false).await {
                        warn!(node = self.shared.node.name, unit = self.unit.name, "{}", cluster_telemetry::chain(&error));
                    }
                }
            }
        }
    }

    async fn obey(&mut self, verb: Verb, running: &mut Option<(Child, Service)>) -> Result<(), UnitError> {
        match verb {
            Verb::Start if running.is_some() => Ok(()),
            Verb::Start => {
                self.starts.clear();
                self.unit.set(|inner| inner.restarts = 0);
                self.start(running, true).await
            }
            Verb::Restart => {
                self.stop(running).await;
                self.starts.clear();
                self.unit.set(|inner| inner.restarts = 0);
                self.start(running, true).await
            }
            Verb::Stop | Verb::Run => {
                self.stop(running).await;
                Ok(())
            }
            Verb::Reload => self.reload(running.as_ref()).await,
        }
    }

    /// Starts the process. `asked`: by an order, so that a failure is the order's, too.
    async fn start(&mut self, running: &mut Option<(Child, Service)>, asked: bool) -> Result<(), UnitError> {
        let name = self.unit.name.clone();
        let inner = self.unit.get();
        let Some(service) = inner.service else { return Err(UnitError::NotFound { unit: name }) };
        if self.shared.is_closed() || !self.may_start(inner.gate.as_ref()) {
            self.unit.set(|inner| (inner.active, inner.sub, inner.result) = (ActiveState::Inactive, "dead", "exec-condition"));
            return Ok(());
        }
        // What an earlier run left goes first.
        self.clear_group().await;
        let now = Instant::now();
        self.starts.retain(|at| now.duration_since(*at) < service.start_limit.1);
        if !asked && self.starts.len() >= service.start_limit.0 {
            self.failed("start-limit-hit", 0);
            self.say("started too often in a short time, it is left failed");
            return Ok(());
        }
        self.starts.push_back(now);
        self.unit.set(|inner| (inner.active, inner.sub) = (ActiveState::Activating, "start"));
        let mut child = match self.spawn(&service) {
            Ok(child) => child,
            Err(error) => {
                self.say(&format!("cannot be started: {error}"));
                self.failed("resources", 0);
                return Err(self.job_failed(Verb::Start, "resources"));
            }
        };
        let became = tokio::time::timeout(BEGIN_LIMIT, becomes(&mut child)).await;
        match became {
            Ok(Ok(())) => {
                let main = child.id().unwrap_or(0);
                let entered = u64::try_from(cluster_agent::clock::since_boot().as_micros()).unwrap_or(u64::MAX);
                self.unit.set(|inner| {
                    (inner.active, inner.sub, inner.result) = (ActiveState::Active, "running", "success");
                    (inner.main, inner.entered_us, inner.exit_status) = (main, entered, 0);
                });
                *running = Some((child, service));
                Ok(())
            }
            Ok(Err(status)) => {
                self.clear_group().await;
                let code = status.code().unwrap_or(0);
                let result = if status.signal().is_some() { "signal" } else { "exit-code" };
                self.failed(result, code);
                Err(self.job_failed(Verb::Start, &format!("{result} ({code})")))
            }
            Err(_) => {
                self.clear_group().await;
                let _reaped = child.wait().await;
                self.failed("timeout", 0);
                Err(self.job_failed(Verb::Start, "timeout"))
            }
        }
    }

    /// F6: what stands behind a lease starts with it, or as a standby.
    fn may_start(&self, gate: Option<&(cluster_agent::drivers::Gate, std::path::PathBuf)>) -> bool {
        let Some((gate, role_file)) = gate else { return true };
        if self.shared.node.table.holds(&gate.slot, clock::now()) {
            return true;
        }
        gate.hot
            && demote(role_file).inspect_err(|error| warn!(unit = self.unit.name, "the role file cannot be put right: {error}")).is_ok()
    }

    /// Starts the process and writes down that it runs. In the thread of the node: its end ends the process.
    fn spawn(&self, service: &Service) -> std::io::Result<Child> {
        let log = self.shared.log(&self.unit.name);
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let invocation = uuid::Uuid::new_v4().simple().to_string();
        let mark = format!("{}/{}/{}", self.shared.node.token, self.shared.node.name, self.unit.name);
        let first = Become { folder: service.folder.clone(), limits: service.limits.clone(), command: service.command.clone() };
        let mut command = base(&first);
        command.envs(&service.environment).env("INVOCATION_ID", &invocation).env(MARK, &mark);
        command.stdout(out.try_clone()?).stderr(out);
        if !service.not_kept.is_empty() {
            self.say(&format!("not kept by clusterctl dev: {}", service.not_kept.join(", ")));
        }
        let child = command.spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        let group = Group { leader, started: stat(leader).map_or(0, |s| s.started), mark };
        if let Err(error) = self.shared.record(&self.unit.name, Some(&group)) {
            warn!(unit = self.unit.name, "what runs cannot be written down, so a sudden end may leave it running: {error}");
        }
        self.unit.set(|inner| (inner.group, inner.invocation) = (Some(group), invocation));
        Ok(child)
    }

    /// The main process ended by itself. When it is to be started again.
    async fn ended(&mut self, status: std::io::Result<ExitStatus>, service: &Service) -> Option<Instant> {
        self.clear_group().await;
        let status = status.unwrap_or_default();
        let clean = status.code() == Some(0) || status.signal().is_some_and(is_clean);
        let result = match (clean, status.signal()) {
            (true, _) => "success",
            (false, Some(_)) => "signal",
            (false, None) => "exit-code",
        };
        let number = status.code().or_else(|| status.signal()).unwrap_or(0);
        self.say(&format!("ended: {status}"));
        let again = service.restart.follows(clean, status.signal().is_some()) && !self.shared.is_closed();
        self.unit.set(|inner| {
            (inner.main, inner.result, inner.exit_status) = (0, result, number);
            (inner.active, inner.sub) = match (again, clean) {
                (true, _) => (ActiveState::Activating, "auto-restart"),
                (false, true) => (ActiveState::Inactive, "dead"),
                (false, false) => (ActiveState::Failed, "failed"),
            };
        });
        again.then(|| Instant::now() + service.restart_after)
    }

    /// Asks it to end, kills what does not in time, and waits until nothing of it is left.
    async fn stop(&mut self, running: &mut Option<(Child, Service)>) {
        let taken = running.take();
        if let (Some((mut child, service)), Some(group)) = (taken, self.unit.group()) {
            self.unit.set(|inner| (inner.active, inner.sub) = (ActiveState::Deactivating, "stop-sigterm"));
            if service.stop_main_only {
                // One that is gone is what is wanted.
                let _gone = kill(Pid::from_raw(group.leader), service.stop_signal);
            } else {
                group.signal(service.stop_signal);
            }
            // A process that was stopped by hand hears nothing before it goes on.
            group.signal(Signal::SIGCONT);
            let asked = Instant::now();
            let ended = tokio::time::timeout(service.stop_timeout, child.wait()).await;
            let left = service.stop_timeout.saturating_sub(asked.elapsed());
            let gone = tokio::time::timeout(if service.stop_main_only { Duration::ZERO } else { left }, is_gone(&group));
            if ended.is_err() || gone.await.is_err() {
                if ended.is_err() {
                    self.say("did not end in time, it is killed");
                }
                group.signal(Signal::SIGKILL);
                let _reaped = child.wait().await;
            }
        }
        self.clear_group().await;
        self.unit.set(|inner| {
            inner.main = 0;
            if inner.active != ActiveState::Failed {
                (inner.active, inner.sub, inner.result) = (ActiveState::Inactive, "dead", "success");
            }
        });
    }

    /// Kills what is left, until nothing is.
    async fn clear_group(&self) {
        if let Some(group) = self.unit.group() {
            while !group.members().is_empty() {
                group.signal(Signal::SIGKILL);
                tokio::time::sleep(LOOK_GONE).await;
            }
            self.unit.set(|inner| inner.group = None);
            // A record of what is gone ends nothing.
            let _kept = self.shared.record(&self.unit.name, None);
        }
    }

    async fn reload(&self, running: Option<&(Child, Service)>) -> Result<(), UnitError> {
        let refused = |message: &str| UnitError::Refused {
            unit: self.unit.name.clone(),
            verb: Verb::Reload,
            message: message.to_owned(),
            retryable: true,
        };
        let Some((child, _)) = running else { return Err(refused("it does not run")) };
        // The newest text says how, as with systemd.
        let how = self.unit.get().service.and_then(|s| s.reload).ok_or_else(|| refused("it has no ExecReload="))?;
        let main = child.id().unwrap_or(0);
        let done = match how {
            Reload::Signal(signal) => i32::try_from(main).is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), signal).is_ok()),
            Reload::Command(words) => {
                let pid = main.to_string();
                let words = words.iter().map(|w| w.replace("$MAINPID", &pid).replace("${MAINPID}", &pid)).collect();
                let mut command = base(&Become { command: words, ..Become::default() });
                command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
                let ran = tokio::time::timeout(RELOAD_LIMIT, command.status()).await;
                matches!(ran, Ok(Ok(status)) if status.success())
            }
        };
        if done { Ok(()) } else { Err(self.job_failed(Verb::Reload, "exit-code")) }
    }

    fn failed(&self, result: &'static str, status: i32) {
        self.unit.set(|inner| {
            (inner.active, inner.sub, inner.result) = (ActiveState::Failed, "failed", result);
            (inner.main, inner.exit_status) = (0, status);
        });
    }

    fn job_failed(&self, verb: Verb, result: &str) -> UnitError {
        UnitError::JobFailed { unit: self.unit.name.clone(), verb, job: "failed".to_owned(), result: result.to_owned() }
    }

    /// A line of ours in the service's log.
    fn say(&self, text: &str) {
        if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(self.shared.log(&self.unit.name)) {
            // A log that cannot be written stops nothing.
            let _written = writeln!(log, "clusterctl-dev: {text}");
        }
    }

    fn shorten_log(&self) {
        let path = self.shared.log(&self.unit.name);
        if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_MAX)
            && let Err(error) = begin_anew(&path)
        {
            warn!(path = %path.display(), "the log cannot be shortened: {error}");
        }
    }
}

/// The process goes on writing at the end of the same file.
fn begin_anew(path: &Path) -> std::io::Result<()> {
    fs::copy(path, path.with_extension("log.1"))?;
    File::options().write(true).open(path)?.set_len(0)
}

/// A command that begins as `first` says, with nothing of our environment that it need not have.
pub(super) fn base(first: &Become) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(first.arguments(std::process::id())).env_clear().env("PATH", PATH).stdin(Stdio::null());
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// Until the process executes its program; its exit status where it ended before.
async fn becomes(child: &mut Child) -> Result<(), ExitStatus> {
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            // A program that ended so soon began; what comes before it has codes of its own.
            return if status.code().is_some_and(|code| BEFORE.iter().any(|before| i32::from(*before) == code)) {
                Err(status)
            } else {
                Ok(())
            };
        }
        let exe = child.id().and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
        if exe.is_some_and(|exe| exe != own) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn is_gone(group: &Group) {
    while !group.members().is_empty() {
        tokio::time::sleep(LOOK_GONE).await;
    }
}

async fn ended(running: &mut Option<(Child, Service)>) -> std::io::Result<ExitStatus> {
    match running {
        Some((child, _)) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The signals by which a service may end cleanly (systemd.service(5)).
fn is_clean(signal: i32) -> bool {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE].iter().any(|clean| *clean as i32 == signal)
}
