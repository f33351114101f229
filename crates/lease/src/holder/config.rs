//! What a holder is made with.

use crate::time::{MAX_T, Span, Time, Timing};
use crate::types::{ClusterId, Instance, Node};

/// What a holder must know about itself.
#[derive(Clone, Debug)]
pub struct HolderConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node in this boot.
    pub node: Node,
    /// This life of the agent, random.
    pub instance: Instance,
    /// r and F.
    pub timing: Timing,
    /// P7: what each rank waits longer than the one before it.
    pub stagger: Span,
    /// The T of a planned restart (P6).
    pub max_t: Span,
    /// Renewals per T.
    pub renewals_per_t: u64,
}

impl HolderConfig {
    /// The starting values of the protocol: r = 0.001, F = 100 ms, stagger 20 ms, T/6.
    #[must_use]
    pub fn new(cluster: ClusterId, node: Node, instance: Instance) -> Self {
        let stagger = Span::from_millis(20);
        Self { cluster, node, instance, timing: Timing::default(), stagger, max_t: MAX_T, renewals_per_t: 6 }
    }

    /// The next (or last) multiple of an eighth of a stagger. Slots whose timers differ by less are looked at together, and so share
    /// messages; else thousands of partitions without a majority would each ask for themselves.
    pub(super) fn grid(&self, time: Time, up: bool) -> Time {
        let grain = (self.stagger.0 / 8).max(1);
        let last = time.0 - time.0 % grain;
        if up && last < time.0 { Time(last.saturating_add(grain)) } else { Time(last) }
    }
}
