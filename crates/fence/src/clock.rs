//! The clock of leases (rule K): it runs on while the machine sleeps, and nobody sets it.

use std::sync::atomic::{AtomicU64, Ordering};

use cluster_lease::time::Time;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Elapsed time of this boot: `MONOTONIC_RAW`, whose rate nobody bends, plus the time that the machine was suspended
/// (`BOOTTIME - MONOTONIC`). Never CLOCK_REALTIME.
#[must_use]
pub fn now() -> Time {
    let raw = nanos(ClockId::CLOCK_MONOTONIC_RAW);
    let monotonic = nanos(ClockId::CLOCK_MONOTONIC);
    let boot = nanos(ClockId::CLOCK_BOOTTIME);
    let now = raw.saturating_add(suspended(boot.saturating_sub(monotonic)));
    Time(LATEST.fetch_max(now, Ordering::AcqRel).max(now))
}

/// The latest time given out by this process: the clock never steps back, not even by what two readings differ.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// Time suspended since boot, as far as this process has seen it.
static SUSPENDED: AtomicU64 = AtomicU64::new(0);
/// The two clocks are read a moment apart; a difference that grew by less than this is that moment, not a suspension.
const READING: u64 = 2_000_000;

/// `difference` is the time suspended plus the moment between two readings. A preemption in that moment may look like a suspension: the
/// clock is then late by it until the next reading mends it, and a lease ends early.
fn suspended(difference: u64) -> u64 {
    let known = SUSPENDED.load(Ordering::Acquire);
    if difference >= known && difference - known < READING {
        return known;
    }
    SUSPENDED.store(difference, Ordering::Release);
    difference
}

fn nanos(clock: ClockId) -> u64 {
    // These clocks exist on every kernel that has cgroup v2. A clock that stood at the end of time would fence everything.
    let Ok(time): Result<TimeSpec, _> = clock_gettime(clock) else { return u64::MAX };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_step_back() {
        let mut last = now();
        for _ in 0..100_000 {
            let next = now();
            assert!(next >= last, "{next:?} after {last:?}");
            last = next;
        }
    }
}
