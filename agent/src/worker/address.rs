//! The VIP as the worker holds it: asked for, put there, refreshed.

use std::sync::Arc;
use std::time::Duration;

use cluster_schemas::app::VipSpec;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Worker;
use super::target::{Target, target};
use crate::drivers::{Held, Units, VipError, Vips};

/// How long a VIP stays without being refreshed: the last line (rule F7), behind the guard.
const VIP_VALID: Duration = Duration::from_secs(2);
/// How often a VIP is refreshed.
const VIP_REFRESH: Duration = Duration::from_millis(500);
/// Pause before a slot whose word is not armed is looked at again.
const NOT_ARMED_RETRY: Duration = Duration::from_millis(20);

/// What [`VipError::reason`] says of an address that another machine has.
pub(super) const TAKEN: &str = "VipTaken";

impl<U: Units, V: Vips> Worker<U, V> {
    /// Asks the link whether another machine has the address, as long as it is wanted here. False when the manager is gone.
    pub(super) async fn probe_vip(&mut self, vip: VipSpec) -> bool {
        let vips = Arc::clone(&self.parts.vips);
        let mut under_way = Box::pin(vips.probe(&vip));
        let answer = loop {
            tokio::select! {
                answer = &mut under_way => break answer,
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    let wanted = target(&self.parts.app, &self.parts.node, &self.desired.borrow());
                    if !wanted.vip.is_some_and(|(other, wish, _)| wish.may_stay() && other == vip) {
                        self.desired.mark_changed();
                        return true;
                    }
                }
            }
        };
        match answer {
            Ok(()) => {
                info!(app = self.parts.app, vip = vip.address, interface = vip.interface, "no other machine has the address");
                self.memory.probed = Some(vip.clone());
                self.save();
            }
            Err(error) => {
                self.vip_failed(&vip, &error).await;
            }
        }
        true
    }

    pub(super) fn next_refresh(&self, target: &Target) -> Option<Instant> {
        let (vip, wish, _) = target.vip.as_ref()?;
        (wish.may_stay() && self.memory.vip.as_ref() == Some(vip)).then(|| self.refreshed + VIP_REFRESH)
    }

    /// Puts the VIP there or refreshes it, if that is (still) wanted.
    pub(super) async fn refresh_vip(&mut self, target: &Target) {
        self.refreshed = Instant::now();
        let Some((vip, wish, epoch)) = &target.vip else { return };
        // F2: the word is asked right before. One that was fenced while this agent stood still is not followed by an address.
        if !wish.may_stay() || !self.armed(&target.vip_slot) {
            return;
        }
        match self.parts.vips.hold(vip, VIP_VALID).await {
            Ok(Held::Refreshed) => self.vip_trouble = "",
            Ok(Held::Fresh) => {
                self.vip_trouble = "";
                info!(app = self.parts.app, vip = vip.address, interface = vip.interface, epoch, "address is here");
                if let Err(error) = self.parts.vips.announce(vip).await {
                    warn!(app = self.parts.app, vip = vip.address, "cannot announce the address: {}", cluster_telemetry::chain(&error));
                }
            }
            Err(error) => {
                self.vip_failed(vip, &error).await;
            }
        }
    }

    /// Whether the slot is held now. Where it is not, its tenure is over, and that is heard soon.
    pub(super) fn armed(&mut self, slot: &str) -> bool {
        let armed = self.parts.armed.holds(slot);
        if !armed {
            self.retry_at = Some(Instant::now() + NOT_ARMED_RETRY);
        }
        armed
    }

    async fn vip_failed(&mut self, vip: &VipSpec, error: &VipError) {
        self.vip_trouble = error.reason();
        // An activation that fails here may work on another node, unless the address is in use wherever one asks. What runs stays.
        if self.vip_trouble != TAKEN && !self.runs {
            self.failed = Some((Instant::now(), self.desired.borrow().entry.generation));
        }
        self.failed(&format!("hold address {} on {}", vip.address, vip.interface), &cluster_telemetry::chain(error)).await;
    }
}
