//! What the checks of an App's instance mean for the App on this node: restarts in place up to a budget, and then standing back.

use std::sync::Arc;
use std::time::Duration;

use cluster_schemas::health::HealthSpec;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::Worker;
use super::decide::{Memory, Seen};
use super::target::{Desired, Target};
use crate::clock;
use crate::drivers::{Units, Vips};
use crate::health::probe::Probe;
use crate::health::state::{Settings, Verdict};
use crate::health::{Checker, Finding, Subject};
use crate::lease::view::{TenureState, TenureView};

/// How fit the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitness {
    /// It passes its checks, or has none.
    pub passes: bool,
    /// It is unhealthy and may be restarted where it is.
    pub restart: bool,
    /// It is unhealthy, and its restarts are used up.
    pub spent: bool,
    /// What is wrong, in a sentence; empty when nothing is.
    pub why: String,
}

impl Default for Fitness {
    fn default() -> Self {
        Self { passes: true, restart: false, spent: false, why: String::new() }
    }
}

/// What the manager has to know of it for leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The instance runs, and passes its checks.
    pub fit: bool,
    /// Epoch of slot `app/NAME` to be given up because the instance is unhealthy here; 0: none.
    pub leave_app: u64,
    /// The same of slot `vip/ADDRESS`.
    pub leave_vip: u64,
    /// Its database is not in a state to go on from here: whoever has it comes first.
    pub no_database: bool,
}

/// From the first finding that a run is unhealthy until it is healthy again. What is taken up later, though it is known to be unhealthy, is kept:
/// nobody else could.
#[derive(Debug)]
struct Spell {
    run: String,
    /// Epoch held when the restarts were used up.
    app: Option<u64>,
    /// Epoch held when it began.
    vip: u64,
}

/// The checks of one App.
#[derive(Debug, Default)]
pub(super) struct Health {
    checker: Option<Checker>,
    findings: Option<watch::Receiver<Finding>>,
    spell: Option<Spell>,
    /// A restart is allowed again then.
    again: Option<Instant>,
}

impl Health {
    /// When a restart is allowed again, if that is waited for.
    pub(super) const fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Waits for the next finding.
    pub(super) async fn changed(&mut self) {
        let ended = match &mut self.findings {
            Some(findings) => findings.changed().await.is_err(),
            None => true,
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }

    /// What is known of that run.
    fn finding(&mut self, run: &str) -> Finding {
        let newest = self.findings.as_mut().map(|f| f.borrow_and_update().clone()).unwrap_or_default();
        if newest.run == run { newest } else { Finding::default() }
    }

    /// Which tenures are given up for it.
    fn standing(&mut self, fit: bool, fitness: &Fitness, run: &str, desired: &Desired) -> Standing {
        if fitness.passes || !(fitness.restart || fitness.spent) {
            if self.spell.as_ref().is_some_and(|s| s.run != run || fitness.passes) {
                self.spell = None;
            }
            return Standing { fit, ..Standing::default() };
        }
        let held = |t: Option<TenureView>| t.filter(|t| t.state == TenureState::Held).map_or(0, |t| t.epoch);
        if self.spell.as_ref().is_none_or(|s| s.run != run) {
            self.spell = Some(Spell { run: run.to_owned(), app: None, vip: held(desired.tenures.vip) });
        }
        let Some(spell) = &mut self.spell else { return Standing::default() };
        if fitness.spent {
            spell.app.get_or_insert(held(desired.tenures.app));
        }
        Standing { fit, leave_app: spell.app.unwrap_or(0), leave_vip: spell.vip, no_database: false }
    }
}

impl<U: Units, V: Vips> Worker<U, V> {
    /// Tells the checker what runs, and asks what it found.
    pub(super) fn check_health(&mut self, desired: &Desired, target: &Target, seen: &Seen) -> Fitness {
        self.health.again = None;
        let Some(spec) = &desired.entry.run.health else {
            self.health = Health::default();
            return Fitness::default();
        };
        let run = seen.unit.invocation_id.as_str();
        // What still runs by an earlier spec, or is about to be stopped, is not asked.
        let asked = target.run.may_stay() && seen.unit.is_running() && !seen.outdated;
        let subject = asked.then(|| self.subject(spec, desired, seen)).flatten();
        if self.health.checker.is_none() && subject.is_some() {
            let checker = Checker::start(&self.parts.app);
            self.health.findings = Some(checker.findings());
            self.health.checker = Some(checker);
        }
        if let Some(checker) = &self.health.checker {
            checker.tell(subject);
        }
        if !asked {
            return Fitness { passes: false, ..Fitness::default() };
        }
        let finding = self.health.finding(run);
        let was = if finding.run.is_empty() && self.memory.healthy_run == run { Verdict::Healthy } else { finding.verdict };
        let known = if was == Verdict::Healthy { run } else { "" };
        if self.memory.healthy_run != known {
            known.clone_into(&mut self.memory.healthy_run);
            self.save();
        }
        let now = clock::since_boot();
        let fitness = judge(spec, &self.memory, was, &finding.why, now);
        if fitness.spent {
            let again = self.memory.restarts.again(now, &spec.restarts).map(|at| Instant::now() + at.saturating_sub(now));
            self.health.again = again;
            // It counts against this node as a unit that failed does.
            self.failed = Some((Instant::now(), desired.entry.generation));
        }
        fitness
    }

    fn subject(&self, spec: &HealthSpec, desired: &Desired, seen: &Seen) -> Option<Subject> {
        let run = &desired.entry.run;
        let folder = self.parts.folder.to_string_lossy();
        let values = self.values(desired, &folder);
        let age = clock::since_boot().saturating_sub(Duration::from_micros(seen.unit.active_enter_us));
        let invocation = seen.unit.invocation_id.clone();
        Some(Subject {
            was_healthy: !invocation.is_empty() && self.memory.healthy_run == invocation,
            run: invocation,
            age,
            settings: Settings::of(spec)?,
            probe: Arc::new(Probe::of(&self.parts.app, spec, run.exec.as_ref(), &values, &seen.unit.sub_state)),
        })
    }

    /// What leases have to know.
    pub(super) fn standing(&mut self, desired: &Desired, target: &Target, seen: &Seen) -> Standing {
        let fit = target.run.may_stay() && seen.unit.is_running() && !seen.outdated && seen.fitness.passes;
        let (no_database, leave) = self.database.standing();
        let standing = self.health.standing(fit, &seen.fitness, &seen.unit.invocation_id, desired);
        Standing { no_database, leave_app: if leave > 0 { leave } else { standing.leave_app }, ..standing }
    }

    /// An unhealthy instance is about to be restarted: counted first, so that an agent killed in between does not restart it more often.
    pub(super) fn note_restart(&mut self, seen: &Fitness) {
        if seen.restart {
            warn!(app = self.parts.app, "restarting the unit where it is: {}", seen.why);
            self.memory.restarts.note(clock::since_boot());
            self.save();
        }
    }
}

fn judge(spec: &HealthSpec, memory: &Memory, verdict: Verdict, why: &str, now: Duration) -> Fitness {
    match verdict {
        Verdict::Healthy => Fitness::default(),
        Verdict::Unknown => Fitness { passes: false, ..Fitness::default() },
        Verdict::Unhealthy => {
            let restart = memory.restarts.may(now, &spec.restarts);
            let made = memory.restarts.within(now, &spec.restarts);
            let why = match restart {
                true => format!("unhealthy: {why}"),
                false => format!("unhealthy after {made} restart{} in {}: {why}", if made == 1 { "" } else { "s" }, spec.restarts.window),
            };
            Fitness { passes: false, restart, spent: !restart, why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::assignment::AppAssignment;

    fn desired(app: u64, vip: u64) -> Desired {
        let held = |epoch: u64| (epoch > 0).then_some(TenureView { epoch, state: TenureState::Held });
        let tenures = super::super::target::Tenures { app: held(app), vip: held(vip), ..Default::default() };
        Desired { entry: AppAssignment::default(), generation: 1, tenures, node_address: None }
    }

    fn left(health: &mut Health, fitness: &Fitness, run: &str, desired: &Desired) -> (u64, u64) {
        let standing = health.standing(fitness.passes, fitness, run, desired);
        (standing.leave_app, standing.leave_vip)
    }

    const fn sick(restart: bool) -> Fitness {
        Fitness { passes: false, restart, spent: !restart, why: String::new() }
    }

    #[test]
    fn the_role_goes_when_restarts_are_used_up_and_the_address_at_once() {
        let mut health = Health::default();
        assert_eq!(left(&mut health, &Fitness::default(), "r1", &desired(3, 4)), (0, 0));
        assert_eq!(left(&mut health, &sick(true), "r1", &desired(3, 4)), (0, 4));
        assert_eq!(left(&mut health, &sick(false), "r2", &desired(3, 4)), (3, 4));
    }

    /// Else two nodes that are both unhealthy would hand it to and fro without end.
    #[test]
    fn what_is_taken_up_while_it_is_known_to_be_unhealthy_is_kept() {
        let mut health = Health::default();
        assert_eq!(left(&mut health, &sick(false), "r1", &desired(0, 0)), (0, 0));
        assert_eq!(left(&mut health, &sick(false), "r1", &desired(7, 8)), (0, 0));
        // It served in between, so it may be better elsewhere.
        assert_eq!(left(&mut health, &Fitness::default(), "r1", &desired(7, 8)), (0, 0));
        assert_eq!(left(&mut health, &sick(false), "r1", &desired(7, 8)), (7, 8));
    }

    #[test]
    fn restarts_are_allowed_up_to_the_budget() {
        let spec = HealthSpec::default();
        let mut memory = Memory::default();
        let now = Duration::from_secs(1000);
        let fitness = |memory: &Memory, verdict| judge(&spec, memory, verdict, "x", now);
        assert_eq!(fitness(&memory, Verdict::Healthy), Fitness::default());
        let unknown = fitness(&memory, Verdict::Unknown);
        assert!(!unknown.passes && !unknown.restart && !unknown.spent && unknown.why.is_empty());
        for _ in 0..2 {
            assert!(fitness(&memory, Verdict::Unhealthy).restart);
            memory.restarts.note(now);
        }
        let spent = fitness(&memory, Verdict::Unhealthy);
        assert!(spent.spent && !spent.restart);
        assert_eq!(spent.why, "unhealthy after 2 restarts in 10m: x");
    }
}
