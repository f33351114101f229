//! The driver of services on a laptop: processes of ours in sessions of their own, supervised with systemd's words.
//!
//! | systemd | here |
//! |---|---|
//! | a cgroup | a session, and a mark in the environment for who leaves it |
//! | unit files | texts in memory, from the agent |
//! | the journal | a file for each service |
//! | `ExecCondition=` by the guard | the fence table is asked before each start |
//!
//! It forgets all with the process that it is in; nothing that it started outlives that ([`crate::helper`]).

pub mod shared;
mod supervisor;
pub mod text;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_agent::drivers::unit_text::owner;
use cluster_agent::drivers::{Command, Gate, Installed, InstalledUnit, UnitError, UnitState, Units, Verb};
use nix::sys::signal::Signal;
use tokio::sync::{oneshot, watch};

use crate::helper::Become;
use crate::kernel::{Group, MARK, stat};
use shared::Shared;
use supervisor::Order;
use text::{Here, Service, parse};

/// Most bytes from the end of a log that are looked at for its last lines.
const TAIL_MAX: u64 = 16 * 1024;
/// Longest line of a log that is shown, in characters.
const LINE_MAX: usize = 400;
/// How often it is looked whether what was killed is gone.
const LOOK_GONE: Duration = Duration::from_millis(10);

/// The driver of one node.
#[derive(Debug)]
pub struct Processes {
    shared: Arc<Shared>,
}

impl Processes {
    /// The driver of the services in `shared`. To be used in a runtime of one thread only, whose end ends them.
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn here(&self) -> Here<'_> {
        Here { address: self.shared.node.address, programs: &self.shared.node.programs }
    }

    fn service(&self, unit: &str, content: &str) -> Result<Service, UnitError> {
        parse(content, self.here()).map_err(|message| UnitError::BadSetting { unit: unit.to_owned(), message })
    }

    async fn order(&self, name: &str, verb: Verb, timeout: Duration) -> Result<(), UnitError> {
        let unit = self.shared.unit(name);
        let (done, outcome) = oneshot::channel();
        let lost = || UnitError::JobFailed { unit: name.to_owned(), verb, job: "lost".to_owned(), result: String::new() };
        let asked = async {
            supervisor::of(&self.shared, &unit).send(Order { verb, done }).await.map_err(|_| lost())?;
            outcome.await.map_err(|_| lost())?
        };
        let late = |_| UnitError::JobTimeout { unit: name.to_owned(), verb, timeout };
        tokio::time::timeout(timeout, asked).await.map_err(late)?
    }

    /// Without a text there is only what systemd has on real nodes.
    fn known(&self, unit: &str, verb: Verb) -> Result<(), UnitError> {
        if self.shared.find(unit).is_some_and(|u| u.get().service.is_some()) {
            return Ok(());
        }
        Err(UnitError::Refused {
            unit: unit.to_owned(),
            verb,
            message: "clusterctl dev has no systemd, so installed units do not run on its nodes: give the App an exec with the program's \
                      command, or the unit a content"
                .to_owned(),
            retryable: false,
        })
    }

    async fn end(group: &Group) {
        while !group.members().is_empty() {
            group.signal(Signal::SIGKILL);
            tokio::time::sleep(LOOK_GONE).await;
        }
    }
}

impl Units for Processes {
    async fn install(&self, unit: &str, content: &str) -> Result<Installed, UnitError> {
        let service = self.service(unit, content)?;
        Ok(self.shared.unit(unit).set(|inner| {
            let installed = match &inner.text {
                None => Installed::New,
                Some(text) if text == content => Installed::Unchanged,
                Some(_) => Installed::Changed,
            };
            inner.text = Some(content.to_owned());
            inner.service = Some(service);
            installed
        }))
    }

    async fn verify(&self, unit: &str, content: &str) -> Result<(), UnitError> {
        self.service(unit, content).map(drop)
    }

    async fn gate(&self, unit: &str, gate: Option<&Gate>, role_file: &Path) -> Result<(), UnitError> {
        self.shared.unit(unit).set(|inner| inner.gate = gate.map(|gate| (gate.clone(), role_file.to_owned())));
        Ok(())
    }

    async fn uninstall(&self, unit: &str) -> Result<(), UnitError> {
        if let Some(unit) = self.shared.find(unit) {
            unit.set(|inner| (inner.text, inner.service) = (None, None));
        }
        Ok(())
    }

    async fn ours(&self) -> Result<Vec<InstalledUnit>, UnitError> {
        let ours = self.shared.all().into_iter().filter_map(|unit| {
            let app = owner(unit.get().text.as_deref()?)?.to_owned();
            Some(InstalledUnit { unit: unit.name.clone(), app })
        });
        Ok(ours.collect())
    }

    async fn observe(&self, unit: &str) -> Result<UnitState, UnitError> {
        Ok(self.shared.find(unit).map_or_else(|| UnitState { unit: unit.to_owned(), ..UnitState::default() }, |u| u.state()))
    }

    async fn start(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        self.known(unit, Verb::Start)?;
        self.order(unit, Verb::Start, timeout).await
    }

    async fn stop(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        if self.shared.find(unit).is_none() {
            return Ok(());
        }
        self.order(unit, Verb::Stop, timeout).await
    }

    async fn kill(&self, unit: &str) -> Result<(), UnitError> {
        if let Some(group) = self.shared.find(unit).and_then(|u| u.group()) {
            group.signal(Signal::SIGKILL);
        }
        Ok(())
    }

    async fn restart(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        self.known(unit, Verb::Restart)?;
        self.order(unit, Verb::Restart, timeout).await
    }

    async fn reload(&self, unit: &str, timeout: Duration) -> Result<(), UnitError> {
        self.known(unit, Verb::Reload)?;
        self.order(unit, Verb::Reload, timeout).await
    }

    async fn run(&self, command: &Command) -> Result<(), UnitError> {
        let failed = |result: &str| UnitError::JobFailed {
            unit: command.unit.clone(),
            verb: Verb::Run,
            job: "failed".to_owned(),
            result: result.to_owned(),
        };
        let earlier = self.shared.commands().remove(&command.unit);
        if let Some(group) = earlier {
            Self::end(&group).await;
        }
        if self.shared.is_closed() {
            return Err(failed("canceled"));
        }
        let io = |source| UnitError::Io { action: "run a command, log in", path: self.shared.log(&command.unit), source };
        let out = std::fs::OpenOptions::new().create(true).append(true).open(self.shared.log(&command.unit)).map_err(io)?;
        let mark = format!("{}/{}/{}", self.shared.node.token, self.shared.node.name, command.unit);
        let mut words = command.arguments.clone();
        text::adapt(&mut words, self.here());
        let mut process = supervisor::base(&Become { command: words, ..Become::default() });
        process.envs(&command.environment).env(MARK, &mark).stdout(out.try_clone().map_err(io)?).stderr(out);
        let mut child = process.spawn().map_err(|_| failed("resources"))?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        let group = Group { leader, started: stat(leader).map_or(0, |s| s.started), mark };
        // Where it cannot be written, a sudden end may leave something of it.
        let _written = self.shared.record(&command.unit, Some(&group));
        self.shared.commands().insert(command.unit.clone(), group.clone());
        let outcome = match tokio::time::timeout(command.timeout, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(_)) => Err(failed("exit-code")),
            Ok(Err(_)) => Err(failed("resources")),
            Err(_) => Err(failed("timeout")),
        };
        Self::end(&group).await;
        self.shared.commands().remove(&command.unit);
        // A record of what is gone ends nothing.
        let _removed = self.shared.record(&command.unit, None);
        outcome
    }

    async fn end_commands(&self, prefix: &str) -> Result<(), UnitError> {
        let running: Vec<Group> =
            self.shared.commands().iter().filter(|(unit, _)| unit.starts_with(prefix)).map(|(_, group)| group.clone()).collect();
        for group in running {
            Self::end(&group).await;
        }
        Ok(())
    }

    fn changes(&self, unit: &str) -> watch::Receiver<u64> {
        self.shared.unit(unit).changes()
    }

    async fn log_tail(&self, unit: &str, lines: u32) -> Vec<String> {
        let wanted = usize::try_from(lines).unwrap_or(0);
        let all = tail(&self.shared.log(unit)).unwrap_or_default();
        let mut last: Vec<String> = all.lines().rev().take(wanted).map(|line| line.chars().take(LINE_MAX).collect()).collect();
        last.reverse();
        last
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
