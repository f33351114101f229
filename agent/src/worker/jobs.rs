//! Jobs of the service manager as the worker waits for them: with an ear for what is desired meanwhile.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::decide::Step;
use super::target::{Desired, Target, Wish, target};
use super::{FENCE_GRACE, START_TIMEOUT, STOP_TIMEOUT, Worker, sleep_until};
use crate::drivers::{UnitError, Units, Vips};

impl<U: Units, V: Vips> Worker<U, V> {
    /// Stops a unit in good order; one whose tenure is lost, now or meanwhile, has [`FENCE_GRACE`] before it is killed.
    pub(super) async fn stop(&mut self, unit: &str, target: &Target) -> Result<(), UnitError> {
        let units = Arc::clone(&self.parts.units);
        let mut under_way = Box::pin(units.stop(unit, STOP_TIMEOUT));
        let mut kill_at = (target.run == Wish::Fence).then(|| Instant::now() + FENCE_GRACE);
        let mut follows = true;
        loop {
            tokio::select! {
                result = &mut under_way => break result,
                () = sleep_until(kill_at) => {
                    warn!(app = self.parts.app, unit, "the tenure is lost and the unit still runs, killing it");
                    kill_at = Some(Instant::now() + FENCE_GRACE);
                    if let Err(error) = self.parts.units.kill(unit).await {
                        warn!(app = self.parts.app, unit, "{}", cluster_telemetry::chain(&error));
                    }
                }
                changed = self.desired.changed(), if follows => {
                    follows = changed.is_ok();
                    // The newest is taken again once the unit has stopped; here only its urgency counts.
                    let newest = self.desired.borrow_and_update().clone();
                    if self.wanted(&newest).run == Wish::Fence {
                        kill_at = kill_at.or_else(|| Some(Instant::now() + FENCE_GRACE));
                    }
                }
            }
        }
    }

    /// The target under a desired state that is not taken yet.
    fn wanted(&self, desired: &Desired) -> Target {
        target(&self.parts.app, &self.parts.node, desired)
    }

    /// Starts, restarts or reloads, as long as that is wanted; the VIP is refreshed meanwhile. False when the manager is gone.
    pub(super) async fn start(&mut self, step: &Step, target: &Target, desired: &Desired) -> bool {
        if let Some(gate) = target.gate.as_ref().filter(|gate| !gate.hot)
            && !self.armed(&gate.slot)
        {
            return true;
        }
        let unit = target.unit.clone();
        info!(app = self.parts.app, epoch = desired.tenures.app.map_or(0, |t| t.epoch), unit, ?step, "telling the service manager");
        self.memory.unit.clone_from(&unit);
        self.save();
        let (units, action) = (Arc::clone(&self.parts.units), step.clone());
        let (named, told, told_role) = (unit.clone(), self.memory.partitions.clone(), self.memory.role.clone());
        let mut under_way = Box::pin(async move {
            match action {
                Step::Reload => units.reload(&named, START_TIMEOUT).await,
                Step::Restart => units.restart(&named, START_TIMEOUT).await,
                _ => units.start(&named, START_TIMEOUT).await,
            }
        });
        let result = loop {
            let refresh_at = self.next_refresh(target);
            tokio::select! {
                result = &mut under_way => break result,
                () = sleep_until(refresh_at) => self.refresh_vip(target).await,
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    let newest = self.desired.borrow().clone();
                    let wanted = self.wanted(&newest);
                    let vip_goes = |t: &Target| t.vip.as_ref().is_some_and(|(_, wish, _)| !wish.may_stay());
                    let less = wanted.partitions != target.partitions || vip_goes(&wanted) && !vip_goes(target) || target.hot && wanted.role != target.role;
                    if wanted.run != Wish::Yes || wanted.unit != unit || less {
                        // A stop that follows takes the place of the job under way; anything else looks at the job again.
                        self.desired.mark_changed();
                        return true;
                    }
                }
            }
        };
        match &result {
            Ok(()) => {
                if *step != Step::Reload {
                    self.memory.started_with.clone_from(&self.memory.content);
                }
                self.memory.confirmed = told;
                self.memory.told_role = told_role;
                self.save();
            }
            Err(UnitError::NotFound { .. }) if !self.memory.content.is_empty() => {
                // Somebody removed our file: it is written again.
                self.memory.content.clear();
                self.save();
            }
            // Rule R2: a process that does not take its new partitions is not trusted with a guess; it is stopped and starts with them.
            Err(_) if *step == Step::Reload => {
                warn!(app = self.parts.app, unit, "the reload failed, the unit is stopped and started instead");
                let stopped = self.parts.units.stop(&unit, STOP_TIMEOUT).await;
                if stopped.is_ok() {
                    self.memory.stopped();
                    self.save();
                    return true;
                }
            }
            Err(_) => {}
        }
        let what = match step {
            Step::Reload => "reload",
            Step::Restart => "restart",
            _ => "start",
        };
        self.outcome(&format!("{what} unit {unit}"), result, target).await;
        true
    }
}
