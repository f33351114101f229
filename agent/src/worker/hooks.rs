//! Hooks of a Ring's partitions as the worker runs them: beside everything else, a few at a time.
//!
//! - What `onOwn` ended well for is told to the process together, not one by one: a reload for each would never end.
//! - A failed `onOwn` gives the partition back. After that the node takes no partitions for a while, longer after each failure, so that
//!   what fails everywhere does not go round.
//! - A failed `onRelease` distrusts the process: the unit is killed, and only then the partition is released (rule R2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_schemas::assignment::OwnedPartitions;
use cluster_schemas::hooks::HookSpec;
use cluster_schemas::partition::PartitionSet;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::decide::Seen;
use super::owning::{self, Owned};
use super::target::{Desired, Target};
use super::{LOG_LINES, Worker, with_log};
use crate::drivers::hook_text::{self, About};
use crate::drivers::{UnitError, Units, Vips, unit_text};

/// Hooks of one App that run at the same time.
const AT_ONCE: usize = 4;
/// How long partitions whose `onOwn` ended well wait for others, so that one reload tells of many.
const GATHER: Duration = Duration::from_millis(300);
/// First and longest time for which the node takes no partitions after an `onOwn` failed; it doubles in between.
const REFUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A failure this long ago does not make the next pause longer.
const FORGIVEN: Duration = Duration::from_secs(900);

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Own,
    Release,
}

impl Hook {
    const fn name(self) -> &'static str {
        match self {
            Self::Own => "onOwn",
            Self::Release => "onRelease",
        }
    }
}

/// How a run of a hook ended; the error in words.
pub(super) type Ended = (Hook, Owned, Result<(), String>);

/// Hooks at work, and what came of those that ended.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    running: JoinSet<Ended>,
    /// By partition: which hook, with which epoch. As many as run.
    under_way: BTreeMap<u16, (Hook, u64)>,
    /// `onOwn` ended well, and the process is not told yet.
    gained: BTreeMap<u16, u64>,
    /// When the process is told at the latest.
    gathered_at: Option<Instant>,
    /// `onRelease` failed.
    failed_release: BTreeSet<Owned>,
    refused: PartitionSet,
    refused_until: Option<Instant>,
    failures: u32,
    failed_at: Option<Instant>,
    trouble: String,
    /// What an earlier agent left running was ended.
    swept: bool,
}

impl Hooks {
    /// The end of the next one; pends while none runs.
    pub(super) async fn next(&mut self) -> Option<Result<Ended, tokio::task::JoinError>> {
        if self.running.is_empty() { std::future::pending().await } else { self.running.join_next().await }
    }

    /// When something is to be done without any event.
    pub(super) fn next_at(&self) -> Option<Instant> {
        [self.gathered_at, self.refused_until].into_iter().flatten().min()
    }

    /// What there is to say of hooks; empty if nothing.
    pub(super) fn text(&self) -> &str {
        &self.trouble
    }
}

impl<U: Units, V: Vips> Worker<U, V> {
    /// Takes in what hooks did, and has them do what is to be done. Afterwards the target's partition file names what they ended well for.
    pub(super) async fn tend_hooks(&mut self, desired: &Desired, target: &mut Target, seen: &mut Seen) {
        while let Some(ended) = self.hooks.running.try_join_next() {
            self.hook_ended(ended).await;
        }
        let Some(spec) = owning::hooks(desired) else {
            // What was owned by hooks that are not there any more needs none.
            if self.memory.owned.take().is_some() {
                self.hooks = Hooks::default();
                self.save();
            }
            return;
        };
        if !self.hooks.swept {
            let prefix = hook_text::prefix(&self.parts.app);
            if let Err(error) = self.parts.units.end_commands(&prefix).await {
                self.failed("end hooks of an earlier agent", &cluster_telemetry::chain(&error)).await;
                owning::only_owned(target, &self.memory);
                return;
            }
            self.hooks.swept = true;
        }
        if self.memory.owned.is_none() {
            // Hooks that come later find partitions that the process owns already.
            self.memory.owned = Some(self.memory.partitions.as_ref().map(|f| f.own.clone()).unwrap_or_default());
            self.save();
        }
        let now = Instant::now();
        if self.hooks.refused_until.is_some_and(|until| now >= until) {
            self.hooks.refused_until = None;
            self.hooks.refused = PartitionSet::new();
            self.hooks.trouble.clear();
        }
        let gone = seen.unit.is_gone();
        if gone && !self.hooks.failed_release.is_empty() {
            let released = std::mem::take(&mut self.hooks.failed_release);
            self.disown(&released);
        }
        let member = target.partitions.is_some();
        let mut todo = owning::todo(desired, &self.memory, gone, member);
        self.disown(&todo.forget.iter().copied().collect());
        todo.own.retain(|(p, epoch)| self.hooks.gained.get(p) != Some(epoch) && !self.hooks.refused.contains(*p));
        todo.release.retain(|owned| !self.hooks.failed_release.contains(owned));
        self.end_overtaken(desired).await;
        // Others wait for what is released.
        self.begin(Hook::Release, spec.on_release.as_ref(), &todo.release, desired).await;
        self.begin(Hook::Own, spec.on_own.as_ref(), &todo.own, desired).await;
        self.tell_of_gained(todo.own.iter().all(|(p, _)| self.hooks.gained.contains_key(p)));
        owning::only_owned(target, &self.memory);
        seen.hooked = self.hooks.under_way.keys().chain(self.hooks.gained.keys()).copied().collect();
        seen.refused.clone_from(&self.hooks.refused);
        seen.distrusted = !self.hooks.failed_release.is_empty();
    }

    /// Tells the process of what was gained: when nothing more is on its way, or it waited long enough.
    fn tell_of_gained(&mut self, nothing_left: bool) {
        let hooks = &mut self.hooks;
        let idle = nothing_left && !hooks.under_way.values().any(|(hook, _)| *hook == Hook::Own);
        if hooks.gained.is_empty() || !(idle || hooks.gathered_at.is_some_and(|at| Instant::now() >= at)) {
            return;
        }
        let mut owned = owning::epochs(self.memory.owned.as_deref().unwrap_or_default());
        owned.append(&mut hooks.gained);
        hooks.gathered_at = None;
        self.memory.owned = Some(OwnedPartitions::grouped(owned));
        self.save();
    }

    fn disown(&mut self, gone: &BTreeSet<Owned>) {
        if gone.is_empty() {
            return;
        }
        let owned = owning::epochs(self.memory.owned.as_deref().unwrap_or_default());
        self.memory.owned = Some(OwnedPartitions::grouped(owned.into_iter().filter(|owned| !gone.contains(owned))));
        self.save();
    }

    /// Ends hooks whose tenure is over: another node may own the partition by now.
    async fn end_overtaken(&mut self, desired: &Desired) {
        let (held, releasing) = (owning::epochs(&desired.tenures.ring), owning::epochs(&desired.tenures.releasing));
        let lives = |p: &u16, epoch: &u64| [&held, &releasing].into_iter().any(|tenures| tenures.get(p) == Some(epoch));
        self.hooks.gained.retain(|p, epoch| lives(p, epoch));
        let over: Vec<(u16, Hook)> =
            self.hooks.under_way.iter().filter(|(p, (_, epoch))| !lives(p, epoch)).map(|(p, (hook, _))| (*p, *hook)).collect();
        for (partition, hook) in over {
            let unit = hook_text::unit(&self.parts.app, hook.name(), partition);
            if let Err(error) = self.parts.units.kill(&unit).await {
                warn!(app = self.parts.app, unit, "{}", cluster_telemetry::chain(&error));
            }
        }
    }

    /// Begins as many of these as may run at once.
    async fn begin(&mut self, hook: Hook, spec: Option<&HookSpec>, all: &[Owned], desired: &Desired) {
        for (partition, epoch) in all.iter().copied() {
            let Some(spec) = spec else {
                // Nobody has to be asked.
                self.hook_ended(Ok((hook, (partition, epoch), Ok(())))).await;
                continue;
            };
            if self.hooks.under_way.len() >= AT_ONCE {
                return;
            }
            if self.hooks.under_way.contains_key(&partition) {
                continue;
            }
            let folder = self.parts.folder.to_string_lossy();
            let run = &desired.entry.run;
            let values = unit_text::Values {
                node: &self.parts.node,
                node_address: desired.node_address.as_deref(),
                database_path: run.database.as_ref().map(|d| d.path.as_str()),
                app_runtime_dir: &folder,
            };
            let about = About { app: &self.parts.app, hook: hook.name(), partition, epoch };
            let command = match hook_text::command(about, spec, run.exec.as_ref(), &values) {
                Ok(command) => command,
                Err(error) => {
                    let why = cluster_telemetry::chain(&error);
                    self.hook_ended(Ok((hook, (partition, epoch), Err(why)))).await;
                    continue;
                }
            };
            self.hooks.under_way.insert(partition, (hook, epoch));
            let units = Arc::clone(&self.parts.units);
            self.hooks.running.spawn(async move {
                let result = match units.run(&command).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        let failed = matches!(error, UnitError::JobFailed { .. });
                        let log = if failed { units.log_tail(&command.unit, LOG_LINES).await } else { Vec::new() };
                        Err(with_log(cluster_telemetry::chain(&error), log))
                    }
                };
                (hook, (partition, epoch), result)
            });
        }
    }

    /// Takes in how a hook ended.
    pub(super) async fn hook_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let (hook, (partition, epoch), result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Only a bug ends a task so; what was under way is not known to have ended well, and is asked for again.
                warn!(app = self.parts.app, "a hook's task ended: {error}");
                if self.hooks.running.is_empty() {
                    self.hooks.under_way.clear();
                }
                return;
            }
        };
        self.hooks.under_way.remove(&partition);
        let app = self.parts.app.as_str();
        match (hook, result) {
            (Hook::Own, Ok(())) => {
                info!(app, epoch, partition, "partition taken, onOwn is through");
                self.hooks.gained.insert(partition, epoch);
                self.hooks.gathered_at.get_or_insert_with(|| Instant::now() + GATHER);
            }
            (Hook::Own, Err(why)) => {
                let now = Instant::now();
                if self.hooks.failed_at.is_some_and(|at| now.duration_since(at) > FORGIVEN) {
                    self.hooks.failures = 0;
                }
                // Those that fail together count once.
                if self.hooks.refused.is_empty() {
                    let pause = REFUSE.0.saturating_mul(1 << self.hooks.failures.min(6)).min(REFUSE.1);
                    self.hooks.failures = self.hooks.failures.saturating_add(1);
                    self.hooks.refused_until = Some(now + pause);
                }
                self.hooks.failed_at = Some(now);
                self.hooks.refused.insert(partition);
                warn!(app, epoch, partition, "onOwn failed, the partition is given back: {why}");
                let all = &self.hooks.refused;
                self.hooks.trouble = format!("onOwn failed for partitions {all}, they are given back: {why}");
            }
            (Hook::Release, Ok(())) => {
                info!(app, epoch, partition, "partition let go of, onRelease is through");
                self.disown(&BTreeSet::from([(partition, epoch)]));
            }
            (Hook::Release, Err(why)) => {
                warn!(app, epoch, partition, "onRelease failed, the unit is killed before the partition is released: {why}");
                self.hooks.failed_release.insert((partition, epoch));
            }
        }
    }
}
