//! Time as the agent counts it: since boot, time asleep included, never set back or forward by anybody.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since boot, with the time that the machine was suspended (CLOCK_BOOTTIME). The wall clock plays no part.
#[must_use]
pub fn since_boot() -> Duration {
    // The clock exists on every kernel that has cgroup v2; without it nothing could be counted, and zero gives up nothing by itself.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
