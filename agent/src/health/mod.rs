//! Whether what runs can serve: checks ([`probe`]) at times and with thresholds that [`state`] decides, and restarts that [`budget`] counts.
//!
//! A [`Checker`] is a task for one App. It is told what runs, and says what it found of exactly that run; what was found of an earlier run
//! says nothing of a later one. It begins when the unit is active and ends with it: what does not run is not asked.

pub mod budget;
pub mod probe;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use probe::Probe;
use state::{Settings, State, Verdict};

/// What is to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Identity of the unit's run.
    pub run: String,
    /// How long it has been running.
    pub age: Duration,
    /// An earlier agent found it healthy.
    pub was_healthy: bool,
    /// When and how often.
    pub settings: Settings,
    /// What is asked.
    pub probe: Arc<Probe>,
}

impl Subject {
    /// Whether what was found so far holds for `other`, too. The age only rises.
    fn same_run(&self, other: &Self) -> bool {
        self.run == other.run && self.settings == other.settings && self.probe.same_question(&other.probe)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Of which run.
    pub run: String,
    /// By the thresholds.
    pub verdict: Verdict,
    /// Why the last failed check failed; empty once it passes.
    pub why: String,
}

/// The task that checks one App.
#[derive(Debug)]
pub struct Checker {
    subject: watch::Sender<Option<Subject>>,
    findings: watch::Receiver<Finding>,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    /// Starts a task that checks nothing yet, for App `app`.
    #[must_use]
    pub fn start(app: &str) -> Self {
        let (subject, subjects) = watch::channel(None);
        let (found, findings) = watch::channel(Finding::default());
        let task = tokio::spawn(check(app.to_owned(), subjects, found));
        Self { subject, findings, task }
    }

    /// Says what runs; none: nothing that could be asked.
    pub fn tell(&self, subject: Option<Subject>) {
        self.subject.send_if_modified(|now| {
            let changed = match (&*now, &subject) {
                (Some(now), Some(subject)) => !now.same_run(subject) || now.probe != subject.probe,
                (now, subject) => now.is_some() != subject.is_some(),
            };
            if changed {
                *now = subject;
            }
            changed
        });
    }

    /// The newest finding; follows changes.
    #[must_use]
    pub fn findings(&self) -> watch::Receiver<Finding> {
        self.findings.clone()
    }
}

async fn check(app: String, mut subjects: watch::Receiver<Option<Subject>>, found: watch::Sender<Finding>) {
    loop {
        let subject = subjects.borrow_and_update().clone();
        let Some(subject) = subject else {
            if subjects.changed().await.is_err() {
                return;
            }
            continue;
        };
        let begun = Instant::now();
        let mut state = State::new(subject.settings, subject.age, subject.was_healthy);
        found.send_replace(Finding { run: subject.run.clone(), verdict: state.verdict(), why: String::new() });
        let mut probe = Arc::clone(&subject.probe);
        loop {
            let answer = async {
                tokio::time::sleep_until(begun + state.next()).await;
                state.begin(begun.elapsed());
                probe.ask(subject.settings.timeout).await
            };
            tokio::select! {
                biased;
                changed = subjects.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    match &*subjects.borrow_and_update() {
                        Some(newer) if newer.same_run(&subject) => probe = Arc::clone(&newer.probe),
                        _ => break,
                    }
                }
                answer = answer => {
                    let why = answer.err().unwrap_or_default();
                    let before = state.verdict();
                    let verdict = state.answered(begun.elapsed(), why.is_empty());
                    tell(&app, before, verdict, &why);
                    found.send_if_modified(|now| {
                        let newest = Finding { run: subject.run.clone(), verdict, why };
                        let changed = *now != newest;
                        *now = newest;
                        changed
                    });
                }
            }
        }
        // What comes next is looked at from the begin.
        subjects.mark_changed();
    }
}

fn tell(app: &str, before: Verdict, now: Verdict, why: &str) {
    match (before == now, now) {
        (false, Verdict::Healthy) => info!(app, "healthy"),
        (false, Verdict::Unhealthy) => warn!(app, "unhealthy: {why}"),
        _ if !why.is_empty() => debug!(app, "a check failed: {why}"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn subject(run: &str, port: u16) -> Subject {
        let settings = Settings {
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(5),
            successes: 1,
            failures: 2,
            start_grace: Duration::from_millis(1),
        };
        let probe = Arc::new(Probe::Tcp { to: ([127, 0, 0, 1], port).into() });
        Subject { run: run.to_owned(), age: Duration::from_secs(60), was_healthy: false, settings, probe }
    }

    async fn until(findings: &mut watch::Receiver<Finding>, run: &str, verdict: Verdict) {
        findings.wait_for(|f| f.run == run && f.verdict == verdict).await.expect("the task lives");
    }

    #[tokio::test]
    async fn what_is_found_is_of_the_run_that_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let checker = Checker::start("a");
        let mut findings = checker.findings();
        checker.tell(Some(subject("first", port)));
        until(&mut findings, "first", Verdict::Healthy).await;
        drop(listener);
        until(&mut findings, "first", Verdict::Unhealthy).await;
        assert!(findings.borrow().why.contains("refused"), "{:?}", findings.borrow().why);
        checker.tell(Some(subject("second", port)));
        until(&mut findings, "second", Verdict::Unknown).await;
        until(&mut findings, "second", Verdict::Unhealthy).await;
    }
}
