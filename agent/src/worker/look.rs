//! What the worker looks at before each decision.
//!
//! A look at a unit asks systemd for some hundred properties. It tells of every change by itself, so a unit that is known to run steadily is
//! asked about again only when it told of a change, when the worker did something to the unit, or after [`RESYNC`]: a hand-over between
//! hot standbys, where only role and address move, waits for no such answer. What is *gone* is always looked at anew.

use std::sync::Arc;
use std::time::Duration;

use cluster_schemas::PartitionSet;
use tokio::sync::watch;
use tokio::time::Instant;

use super::decide::{Seen, Step};
use super::health::Fitness;
use super::target::Target;
use super::{RESYNC, Worker, YOUNG, address};
use crate::clock;
use crate::drivers::{ActiveState, UnitError, UnitState, Units, Vips};

/// A unit as last seen, if it ran steadily.
#[derive(Debug, Default)]
pub(super) struct Known(Option<(UnitState, Instant)>);

impl Known {
    /// Something about the unit may have changed.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    fn note(&mut self, state: &UnitState) {
        let steady = state.active_state == ActiveState::Active && !state.job_pending;
        self.0 = steady.then(|| (state.clone(), Instant::now()));
    }

    fn of(&self, unit: &str) -> Option<UnitState> {
        let (state, at) = self.0.as_ref()?;
        (state.unit == unit && at.elapsed() < RESYNC).then(|| state.clone())
    }
}

impl Step {
    /// Whether the unit is the same after it.
    pub(super) const fn leaves_the_unit(&self) -> bool {
        matches!(
            self,
            Self::WriteRole(_) | Self::WritePartitions(_) | Self::ProbeVip(_) | Self::HoldVip(_) | Self::ReleaseVip(_) | Self::Settled
        )
    }
}

/// Whether a change was told of since the last look; from now on the next one counts. A driver that ended tells nothing any more.
pub(super) fn take(changes: &mut watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap_or(true);
    changes.mark_unchanged();
    changed
}

impl<U: Units, V: Vips> Worker<U, V> {
    pub(super) async fn look(&mut self, target: &Target) -> Result<Seen, String> {
        let chain = |e: UnitError| cluster_telemetry::chain(&e);
        let units = Arc::clone(&self.parts.units);
        let unit = match self.known.of(&target.unit) {
            Some(known) => known,
            None => {
                let seen = units.observe(&target.unit).await.map_err(chain)?;
                self.known.note(&seen);
                seen
            }
        };
        self.runs = unit.is_running();
        let age = clock::since_boot().saturating_sub(Duration::from_micros(unit.active_enter_us));
        self.young_until = (unit.is_running() && age < YOUNG).then(|| Instant::now() + YOUNG.saturating_sub(age));
        let old_unit = if !self.memory.unit.is_empty() && self.memory.unit != target.unit {
            Some(units.observe(&self.memory.unit).await.map_err(chain)?)
        } else {
            None
        };
        let vip_present = match &target.vip {
            Some((vip, ..)) => self.parts.vips.present(vip).await.map_err(|e| cluster_telemetry::chain(&e))?,
            None => false,
        };
        let fenced = target.gate.as_ref().is_some_and(|gate| !gate.hot && !self.parts.armed.holds(&gate.slot));
        let failed_before = self.past.seen(self.tenure.1, target.run, target.hot, fenced, &unit);
        Ok(Seen {
            old_unit,
            unit,
            outdated: false,
            vip_present,
            backing_off: self.retry_at.is_some(),
            young: self.young_until.is_some(),
            hooked: PartitionSet::new(),
            refused: PartitionSet::new(),
            distrusted: false,
            database: None,
            failed_before,
            failure_counts: self.failed.is_some(),
            fitness: Fitness::default(),
            vip_taken: target.vip.is_some() && self.vip_trouble == address::TAKEN,
        })
    }
}
