//! How changes reach the instances, and what runs when partitions move.

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;
use crate::app::Mode;
use crate::failover::{Failback, QuorumLoss, parse_lease};
use crate::update::UpdateOrder;

impl Checker<'_> {
    pub(super) fn changes(&mut self) {
        self.update();
        self.hooks();
        self.failover();
    }

    fn failover(&mut self) {
        let Some(failover) = &self.app.spec.failover else { return };
        if let Some(lease) = failover.lease.as_deref().filter(|lease| parse_lease(lease).is_none()) {
            let message = format!("{} is no lease", quote(lease));
            self.value("/spec/failover/lease", Rule::FailoverLease, message, "write a time from `200ms` to `5s`".to_owned());
        }
        if failover.failback == Failback::Preferred && (self.app.spec.mode != Mode::Singleton || self.app.spec.placement.prefer.is_empty())
        {
            let message = "`failback: Preferred` goes back to the node that `placement.prefer` ranks highest, and there is none";
            let hint = "name what is preferred in `placement.prefer`, in mode `Singleton`; or leave `failback` out";
            self.value("/spec/failover/failback", Rule::FailbackRefused, message, hint.to_owned());
        }
        if failover.on_quorum_loss != QuorumLoss::Keep {
            return;
        }
        let spec = &self.app.spec;
        let why = match (spec.database.is_some(), spec.mode) {
            (true, _) => "a database that two instances write has no one history",
            (_, Mode::Ring) if self.sound("/spec/mode") => "a partition that two members own is no partition",
            _ => return,
        };
        let message = format!("`Keep` gives up exclusivity, and {why}");
        self.value("/spec/failover/onQuorumLoss", Rule::QuorumLossRefused, message, "write `Stop`, or leave it out".to_owned());
    }

    fn update(&mut self) {
        let Some(update) = &self.app.spec.update else { return };
        if update.order == UpdateOrder::StartFirst {
            let message = "`StartFirst` cannot be: a node has one systemd unit for an App, which does not run twice at a time";
            self.value("/spec/update/order", Rule::UpdateOrder, message, "write `StopFirst`, or leave it out".to_owned());
        }
        if !(1..=super::REPLICAS_MAX).contains(&update.max_unavailable) {
            let message = format!("`maxUnavailable` is not between 1 and {}", super::REPLICAS_MAX);
            self.value("/spec/update/maxUnavailable", Rule::OutOfRange, message, None);
        } else if self.sound("/spec/mode") && self.app.spec.mode == Mode::Singleton && update.max_unavailable > 1 {
            let message = "a Singleton has one active instance, so that no more can be down";
            self.value("/spec/update/maxUnavailable", Rule::UpdateUnavailable, message, "write 1, or leave it out".to_owned());
        }
    }

    fn hooks(&mut self) {
        let Some(hooks) = &self.app.spec.hooks else { return };
        if self.sound("/spec/mode") && self.app.spec.mode != Mode::Ring {
            let message = format!("mode `{}` has no partitions for `onOwn` and `onRelease`", self.app.spec.mode.as_str());
            self.key("/spec/hooks", Rule::HooksRefused, message, "leave it out, or write `mode: Ring`".to_owned());
        }
        for (name, hook) in [("onOwn", &hooks.on_own), ("onRelease", &hooks.on_release)] {
            let Some(hook) = hook else { continue };
            let at = format!("/spec/hooks/{name}");
            self.command(&format!("{at}/command"), &hook.command);
            self.environment(&format!("{at}/environment"), &hook.environment);
            if hook.timeout().is_none() {
                let message = format!("{} is no time-out", quote(&hook.timeout));
                let hint = "write such as `500ms`, `30s` or `2m`, at most an hour".to_owned();
                self.value(&format!("{at}/timeout"), Rule::HookTimeout, message, hint);
            }
        }
    }
}
