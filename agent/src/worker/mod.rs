//! The worker of one App: the only owner of its unit, VIP, role file and partition file on this node.
//!
//! Flow: look, report, decide one step, do it, look again; when nothing is to be done, wait for a change of what is desired, of the unit
//! or of an address, or for the time to refresh the VIP. All decisions are in [`decide`] and [`target`], which are pure.
//!
//! Guarantees: a step is begun only on the newest desired state; a start is dropped as soon as it is not wanted any more; what is reported
//! was seen after the desired state it names ([`AppObserved::seen`]) was taken.
//!
//! Assumptions: steps are idempotent, so an agent that is killed between two of them goes on where it was.

mod address;
mod content;
mod database;
#[cfg(test)]
mod database_tests;
pub mod decide;
pub mod health;
mod hooks;
mod jobs;
#[cfg(test)]
mod life;
mod look;
mod memory;
pub mod observe;
pub mod owning;
mod past;
pub mod target;
#[cfg(test)]
mod tests;
mod waits;
mod warnings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_schemas::app::Mode;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::AppObserved;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock;
use crate::database::{Databases, Order};
use crate::drivers::unit_change::needs_restart;
use crate::drivers::{ActiveState, Gate, UnitError, Units, Vips, unit_text};
use crate::fences::Armed;
use crate::worker::decide::{Memory, Seen, Step};
use crate::worker::health::{Health, Standing};
use crate::worker::hooks::Hooks;
use crate::worker::look::Known;
use crate::worker::past::Past;
use crate::worker::target::{Desired, Target, Wish, target};
use crate::worker::waits::{next_conflict, sleep_until, with_log};
use crate::worker::warnings::Warnings;

/// Longest start, restart or reload; a unit's own time-outs are shorter as a rule.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest stop before it is complained about and tried again.
const STOP_TIMEOUT: Duration = Duration::from_secs(100);
/// Without any sign of change, everything is looked at this often.
const RESYNC: Duration = Duration::from_secs(15);
/// First and longest pause after a failed step; it doubles in between.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A failed attempt counts against this node for so long, or until the App's spec changes: a standby that reports it is passed over.
const FAILURE_COUNTS: Duration = Duration::from_secs(300);
/// A process that was just started may not handle signals yet, and a reload, which is one, would end it: it is given so long.
const YOUNG: Duration = Duration::from_millis(500);
/// A unit whose tenure is lost is asked to stop, and killed after this long; the guard ends an exclusive one before.
const FENCE_GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed attempt to end a lost tenure.
const FENCE_RETRY: Duration = Duration::from_millis(200);
/// Lines of the unit's log that go with the report of a failure.
const LOG_LINES: u32 = 10;

/// What a worker tells the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The App.
    pub app: String,
    /// What is seen; none when nothing is left of the App.
    pub observed: Option<AppObserved>,
    /// Generation of the desired state that this stands on.
    pub generation: u64,
    /// [`Tenures::version`](target::Tenures) that the worker acted on.
    pub tenures: u64,
    /// What leases have to know of its health.
    pub standing: Standing,
    /// The unit's cgroup below the root of the hierarchy; empty while it has none.
    pub cgroup: String,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts<U, V> {
    /// The App.
    pub app: String,
    /// This node.
    pub node: String,
    /// Folder of the App's files.
    pub folder: PathBuf,
    /// Service manager.
    pub units: Arc<U>,
    /// Addresses.
    pub vips: Arc<V>,
    /// Whether a slot is held at this moment.
    pub armed: Armed,
    /// Databases.
    pub databases: Databases,
    /// Where reports go; bounded.
    pub reports: mpsc::Sender<Report>,
}

/// The worker.
#[derive(Debug)]
pub struct Worker<U, V> {
    parts: Parts<U, V>,
    desired: watch::Receiver<Desired>,
    memory: Memory,
    trouble: String,
    /// Whether the last look failed.
    looked_in_vain: bool,
    /// Role and epoch that `trouble` is about.
    tenure: (Role, u64),
    /// Why the VIP could not be put there, in a word for the App's condition; empty when nothing is wrong with it.
    vip_trouble: &'static str,
    failures: u32,
    retry_at: Option<Instant>,
    /// The kind of step that failed last, if the last one did.
    failed_step: Option<std::mem::Discriminant<Step>>,
    /// Until then the process may not know its signals yet.
    young_until: Option<Instant>,
    saw_failed: bool,
    /// Whether the unit ran when last seen.
    runs: bool,
    /// The last look at the unit.
    known: Known,
    /// When the App last failed here, and with which version of its spec.
    failed: Option<(Instant, u64)>,
    past: Past,
    reported: Option<(AppObserved, u64, Standing)>,
    refreshed: Instant,
    warnings: Warnings,
    health: Health,
    hooks: Hooks,
    database: database::Lead,
}

impl<U: Units, V: Vips> Worker<U, V> {
    /// Takes up what an earlier agent of this boot left.
    #[must_use]
    pub fn new(parts: Parts<U, V>, desired: watch::Receiver<Desired>) -> Self {
        let memory = memory::load(&parts.folder);
        Self {
            parts,
            desired,
            memory,
            trouble: String::new(),
            looked_in_vain: false,
            tenure: (Role::Absent, 0),
            vip_trouble: "",
            failures: 0,
            retry_at: None,
            failed_step: None,
            young_until: None,
            saw_failed: false,
            runs: false,
            known: Known::default(),
            failed: None,
            past: Past::default(),
            reported: None,
            refreshed: Instant::now(),
            warnings: Warnings::default(),
            health: Health::default(),
            hooks: Hooks::default(),
            database: database::Lead::default(),
        }
    }

    /// Works until the manager lets go of it.
    ///
    /// After a report that nothing is left nothing is touched any more until the App is wanted again, so the manager may end the
    /// worker there without leaving anything half done.
    pub async fn run(mut self) {
        let mut vip_changes = self.parts.vips.changes();
        let mut conflicts = self.parts.vips.conflicts();
        let mut unit_of_changes = String::new();
        let mut unit_changes = None;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.note_new_tenure(&desired);
            let mut target = target(&self.parts.app, &self.parts.node, &desired);
            if target.unit != unit_of_changes {
                unit_of_changes.clone_from(&target.unit);
                unit_changes = Some(self.parts.units.changes(&target.unit));
            }
            // Marked before looking, so that a change during the look is seen as one.
            vip_changes.mark_unchanged();
            if unit_changes.as_mut().is_none_or(look::take) {
                self.known.forget();
            }
            let step = match self.look(&target).await {
                Ok(mut seen) => {
                    if std::mem::take(&mut self.looked_in_vain) {
                        self.forget_trouble();
                    }
                    let text = self.unit_content(&desired);
                    seen.outdated = match &text {
                        Ok(text) => text.as_ref().is_some_and(|text| needs_restart(&self.memory.started_with, text)),
                        Err(_) => true,
                    };
                    seen.fitness = self.check_health(&desired, &target, &seen);
                    self.note_failed_unit(&target, &seen, desired.entry.generation).await;
                    let exclusive = matches!(desired.entry.mode, Mode::Singleton | Mode::Ring);
                    self.warnings.seen(clock::since_boot(), exclusive, &seen.unit);
                    let content = match &text {
                        Ok(content) => content.as_deref(),
                        Err(trouble) => {
                            self.trouble.clone_from(trouble);
                            None
                        }
                    };
                    self.tend_database(&desired, &mut seen);
                    self.tend_hooks(&desired, &mut target, &mut seen).await;
                    self.report(&desired, &target, &seen).await;
                    // Without a text there is nothing to run, but what runs can still be withdrawn.
                    if text.is_err() && target.run == Wish::Yes {
                        Step::Settled
                    } else {
                        let step = decide::next(&target, content, &self.memory, &seen);
                        if step == Step::Restart {
                            self.note_restart(&seen.fitness);
                        }
                        step
                    }
                }
                Err(error) => {
                    self.looked_in_vain = true;
                    self.failed("look at its unit and address", &error).await;
                    Step::Settled
                }
            };
            match self.paced(step, &target) {
                Step::Settled => {
                    let unit_changed = async {
                        let alive = match &mut unit_changes {
                            Some(changes) => changes.changed().await.is_ok(),
                            None => false,
                        };
                        // A driver that ended tells nothing any more; the other branches go on.
                        if !alive {
                            std::future::pending::<()>().await;
                        }
                    };
                    let refresh_at = self.next_refresh(&target);
                    let (retry_at, young_until, restart_at) = (self.retry_at, self.young_until, self.health.again());
                    let hooks_at = self.hooks.next_at();
                    tokio::select! {
                        changed = self.desired.changed() => if changed.is_err() { return },
                        () = sleep_until(young_until) => {}
                        () = unit_changed => self.known.forget(),
                        () = self.health.changed() => {}
                        () = sleep_until(restart_at) => {}
                        Some(ended) = self.hooks.next() => self.hook_ended(ended).await,
                        () = sleep_until(hooks_at) => {}
                        () = self.database.changed() => {}
                        Ok(()) = vip_changes.changed() => {}
                        conflict = next_conflict(&mut conflicts) => {
                            let vip = target.vip.as_ref().map(|(vip, ..)| vip);
                            self.warnings.claimed(clock::since_boot(), vip, &conflict);
                        }
                        () = sleep_until(refresh_at) => self.refresh_vip(&target).await,
                        () = sleep_until(retry_at) => self.retry_at = None,
                        () = tokio::time::sleep(RESYNC) => {}
                    }
                }
                Step::Forget => {
                    let forgotten = self.forget(desired.generation).await;
                    let retry_at = self.retry_at;
                    loop {
                        tokio::select! {
                            changed = self.desired.changed() => if changed.is_err() { return },
                            () = sleep_until(retry_at), if !forgotten => break self.retry_at = None,
                        }
                        if !forgotten || self.desired.borrow().entry.role != Role::Absent {
                            break;
                        }
                    }
                }
                step => {
                    let (kind, failures) = (std::mem::discriminant(&step), self.failures);
                    if !step.leaves_the_unit() {
                        self.known.forget();
                    }
                    if !self.perform(step, &target, &desired).await {
                        return;
                    }
                    self.failed_step = (self.failures > failures).then_some(kind);
                }
            }
        }
    }

    /// A step that just failed waits for its pause; one that ends a lost tenure is only slowed down.
    fn paced(&mut self, step: Step, target: &Target) -> Step {
        if self.retry_at.is_none() || self.failed_step != Some(std::mem::discriminant(&step)) {
            return step;
        }
        if target.run == Wish::Fence {
            self.retry_at = self.retry_at.map(|at| at.min(Instant::now() + FENCE_RETRY));
        }
        Step::Settled
    }

    /// What went wrong in an earlier tenure is no failure of this one, which was not tried yet; failed attempts to run it still count.
    fn note_new_tenure(&mut self, desired: &Desired) {
        let tenure = (desired.entry.role, desired.tenures.app.map_or(0, |t| t.epoch));
        if std::mem::replace(&mut self.tenure, tenure) != tenure && self.failed.is_none() {
            self.forget_trouble();
        }
    }

    fn forget_trouble(&mut self) {
        self.trouble.clear();
        self.vip_trouble = "";
        self.failures = 0;
        self.retry_at = None;
    }

    /// A unit that failed by itself is a failure like one of ours: it waits before it is started again.
    async fn note_failed_unit(&mut self, target: &Target, seen: &Seen, generation: u64) {
        let failed = seen.unit.active_state == ActiveState::Failed && !seen.failed_before;
        if failed && target.run == Wish::Yes {
            self.failed = Some((Instant::now(), generation));
        }
        if self.failed.is_some_and(|(at, of)| at.elapsed() > FAILURE_COUNTS || of != generation) {
            self.failed = None;
        }
        if failed && !self.saw_failed && target.run == Wish::Yes && self.retry_at.is_none() {
            let what = format!("result {}, exit status {}", seen.unit.result, seen.unit.exit_status);
            self.failed(&format!("keep unit {} running", target.unit), &what).await;
        }
        self.saw_failed = failed;
        let wants_vip = target.run.may_stay() && target.vip.as_ref().is_some_and(|(_, wish, _)| wish.may_stay());
        if seen.unit.is_running() && self.retry_at.is_none() && (!wants_vip || seen.vip_present) {
            self.forget_trouble();
            // What is not known to be healthy may have come up only to fail again.
            self.failed = self.failed.filter(|_| !seen.fitness.passes);
        }
    }

    async fn report(&mut self, desired: &Desired, target: &Target, seen: &Seen) {
        let mut observed = observe::observed(desired, target, &self.memory, seen, &self.trouble);
        self.report_database(&mut observed);
        if observed.message.is_empty() {
            observed.message = self.warnings.text(clock::since_boot());
        }
        if !self.hooks.text().is_empty() {
            observed.message = [self.hooks.text(), &observed.message].join("\n").trim_end().to_owned();
        }
        let wants_vip = target.vip.as_ref().is_some_and(|(_, wish, _)| wish.may_stay());
        if let Some(vip) = observed.vip.as_mut().filter(|vip| wants_vip && !vip.present) {
            self.vip_trouble.clone_into(&mut vip.trouble);
        }
        let (tenures, standing) = (desired.tenures.version, self.standing(desired, target, seen));
        if self.reported.as_ref() != Some(&(observed.clone(), tenures, standing)) {
            self.reported = Some((observed.clone(), tenures, standing));
            let cgroup = seen.unit.control_group.clone();
            let report =
                Report { app: self.parts.app.clone(), observed: Some(observed), generation: desired.generation, tenures, standing, cgroup };
            // The manager is gone only when the agent ends.
            let _told = self.parts.reports.send(report).await;
        }
    }

    /// Does one step. False when the manager is gone.
    async fn perform(&mut self, step: Step, target: &Target, desired: &Desired) -> bool {
        let app = self.parts.app.clone();
        let epoch = desired.entry.epoch;
        match step {
            Step::Stop(unit) => {
                info!(app, epoch, unit, "stopping the unit");
                let stopped = self.stop(&unit, target).await;
                if stopped.is_ok() {
                    self.memory.stopped();
                    self.save();
                }
                self.outcome(&format!("stop unit {unit}"), stopped, target).await;
            }
            Step::Kill(unit) => {
                warn!(app, unit, "killing the unit");
                let killed = match self.parts.units.kill(&unit).await {
                    Ok(()) => self.stop(&unit, target).await,
                    error => error,
                };
                if killed.is_ok() {
                    self.memory.stopped();
                    self.save();
                }
                self.outcome(&format!("kill unit {unit}"), killed, target).await;
            }
            Step::Uninstall(unit) => {
                let removed = self.parts.units.uninstall(&unit).await;
                if removed.is_ok() {
                    self.memory.unit.clear();
                    self.memory.content.clear();
                    self.save();
                }
                self.outcome(&format!("remove unit {unit}"), removed, target).await;
            }
            Step::Install(text) => {
                // What people wrote is read by systemd before it takes the place of what works; texts of ours are known to be good.
                if desired.entry.run.exec.is_none()
                    && let Err(error) = self.parts.units.verify(&target.unit, &text).await
                {
                    self.outcome(&format!("write unit {}", target.unit), Err(error), target).await;
                    return true;
                }
                self.memory.unit.clone_from(&target.unit);
                self.memory.content.clear();
                self.save();
                let installed = self.parts.units.install(&target.unit, &text).await;
                if let Ok(what) = &installed {
                    info!(app, unit = target.unit, ?what, "unit written");
                    self.memory.content = text;
                    self.save();
                }
                self.outcome(&format!("write unit {}", target.unit), installed.map(|_| ()), target).await;
            }
            Step::Gate(unit, gate) => {
                // Remembered first, so that an agent killed in between leaves nothing behind.
                self.memory.gate = Some((unit.clone(), Gate::default()));
                self.save();
                let role_file = self.parts.folder.join(unit_text::ROLE_FILE);
                let gated = self.parts.units.gate(&unit, Some(&gate), &role_file).await;
                if gated.is_ok() {
                    self.memory.gate = Some((unit.clone(), gate));
                    self.save();
                }
                self.outcome(&format!("put unit {unit} behind its lease"), gated, target).await;
            }
            Step::Ungate(unit) => {
                let freed = self.parts.units.gate(&unit, None, &self.parts.folder).await;
                if freed.is_ok() {
                    self.memory.gate = None;
                    self.save();
                }
                self.outcome(&format!("take unit {unit} from behind its lease"), freed, target).await;
            }
            Step::ReleaseVip(vip) => {
                info!(app, epoch, vip = vip.address, interface = vip.interface, "removing the address");
                match self.parts.vips.release(&vip).await {
                    Ok(()) => {
                        self.memory.vip = None;
                        self.save();
                    }
                    Err(error) => self.failed(&format!("remove address {}", vip.address), &cluster_telemetry::chain(&error)).await,
                }
            }
            Step::ProbeVip(vip) => return self.probe_vip(vip).await,
            Step::HoldVip(vip) => {
                self.memory.vip = Some(vip);
                self.save();
                self.refresh_vip(target).await;
            }
            Step::WriteRole(role) => {
                let written = memory::write_role(&self.parts.folder, &role);
                if written.is_ok() {
                    info!(app, role = role.role.as_str(), epoch = role.epoch, "role written");
                    self.memory.role = Some(role);
                    self.save();
                }
                self.file_outcome("write the role file", written).await;
            }
            Step::WritePartitions(file) => {
                let written = memory::write_partitions(&self.parts.folder, &file);
                if written.is_ok() {
                    info!(app, version = file.version, partitions = file.owned().len(), "partitions written");
                    // What the process was told before stays in `confirmed` until it is told anew.
                    self.memory.partitions = Some(file);
                    self.save();
                }
                self.file_outcome("write the partition file", written).await;
            }
            Step::Promote { epoch, adopt } => self.order_database(desired, Order::Promote { epoch, adopt }),
            Step::Retire => self.order_database(desired, Order::Follow),
            Step::Start | Step::Restart | Step::Reload => return self.start(&step, target, desired).await,
            Step::Forget | Step::Settled => {}
        }
        true
    }

    async fn outcome(&mut self, what: &str, result: Result<(), UnitError>, target: &Target) {
        let Err(error) = result else { return };
        let mut text = cluster_telemetry::chain(&error);
        if target.run == Wish::Yes {
            self.failed = Some((Instant::now(), self.desired.borrow().entry.generation));
        }
        if matches!(error, UnitError::JobFailed { .. } | UnitError::JobTimeout { .. }) {
            text = with_log(text, self.parts.units.log_tail(&target.unit, LOG_LINES).await);
        }
        self.failed_plain(what, &text);
    }

    async fn file_outcome(&mut self, what: &str, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.failed(what, &error.to_string()).await;
        }
    }

    async fn failed(&mut self, what: &str, why: &str) {
        let log = if what.starts_with("keep unit") {
            let unit = self.memory.unit.clone();
            self.parts.units.log_tail(&unit, LOG_LINES).await
        } else {
            Vec::new()
        };
        self.failed_plain(what, &with_log(why.to_owned(), log));
    }

    fn failed_plain(&mut self, what: &str, why: &str) {
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(5)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + pause);
        let text = format!("cannot {what}: {why}");
        if self.trouble != text {
            warn!(app = self.parts.app, retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "{text}");
            self.trouble = text;
        }
    }

    /// False when it has to be tried again.
    async fn forget(&mut self, generation: u64) -> bool {
        if let Err(error) = memory::remove(&self.parts.folder) {
            self.failed("remove the App's folder", &error.to_string()).await;
            return false;
        }
        info!(app = self.parts.app, "nothing of the App is left here");
        self.memory = Memory::default();
        self.hooks = Hooks::default();
        self.database.close();
        self.reported = None;
        let tenures = self.desired.borrow().tenures.version;
        let report = Report {
            app: self.parts.app.clone(),
            observed: None,
            generation,
            tenures,
            standing: Standing::default(),
            cgroup: String::new(),
        };
        let _told = self.parts.reports.send(report).await;
        true
    }

    fn save(&mut self) {
        if let Err(error) = memory::save(&self.parts.folder, &self.memory) {
            // What is remembered only spares work and finds leftovers; the tenures given up are also in memory of this process.
            self.failed_plain("remember what was done", &error.to_string());
        }
    }
}
