//! The clock of leases (rule K): it runs on while the machine sleeps, and nobody sets it.

use std::sync::atomic::{AtomicU64, Ordering};

use cluster_lease::time::Time;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Elapsed time of this boot: `MONOTONIC_RAW`, whose rate nobody bends, plus the time that the machine was suspended
/// (`BOOTTIME - MONOTONIC`). Never CLOCK_REALTIME.
#[must_use]
pub fn now() -> Time {
    static CLOCK: Elapsed = Elapsed::new();
    CLOCK.read(nanos)
}

/// The two clocks are read a moment apart; a difference that grew by less than this is that moment, not a suspension.
const READING: u64 = 2_000_000;

/// What the clock remembers between two readings.
#[derive(Debug)]
struct Elapsed {
    /// The latest time given out: the clock never steps back, not even by what two readings differ.
    latest: AtomicU64,
    /// Time suspended since boot, as far as this process has seen it.
    suspended: AtomicU64,
}

impl Elapsed {
    const fn new() -> Self {
        Self { latest: AtomicU64::new(0), suspended: AtomicU64::new(0) }
    }

    /// The time by these clocks of the kernel, each in nanoseconds.
    fn read(&self, clock: impl Fn(ClockId) -> u64) -> Time {
        let raw = clock(ClockId::CLOCK_MONOTONIC_RAW);
        let monotonic = clock(ClockId::CLOCK_MONOTONIC);
        let boot = clock(ClockId::CLOCK_BOOTTIME);
        let now = raw.saturating_add(self.suspended(boot.saturating_sub(monotonic)));
        Time(self.latest.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// `difference` is the time suspended plus the moment between two readings. A preemption in that moment may look like a suspension: the
    /// clock is then late by it until the next reading mends it, and a lease ends early.
    fn suspended(&self, difference: u64) -> u64 {
        let known = self.suspended.load(Ordering::Acquire);
        if difference >= known && difference - known < READING {
            return known;
        }
        self.suspended.store(difference, Ordering::Release);
        difference
    }
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

    const MS: u64 = 1_000_000;
    const HOUR: u64 = 3_600_000 * MS;

    #[test]
    fn it_does_not_step_back() {
        let mut last = now();
        for _ in 0..100_000 {
            let next = now();
            assert!(next >= last, "{next:?} after {last:?}");
            last = next;
        }
    }

    /// The clocks of a machine that was up for an hour when its wall clock said `wall`.
    #[derive(Clone, Copy)]
    struct Machine {
        up: u64,
        asleep: u64,
        wall: u64,
        /// By how much the steered clock runs ahead of the raw one.
        steered: u64,
    }

    impl Machine {
        fn clock(self, id: ClockId) -> u64 {
            match id {
                ClockId::CLOCK_MONOTONIC_RAW => self.up,
                ClockId::CLOCK_MONOTONIC => self.up + self.steered,
                ClockId::CLOCK_BOOTTIME => self.up + self.steered + self.asleep,
                // Every other one may be stepped.
                _ => self.wall,
            }
        }
    }

    /// Somebody sets the wall clock, forward and back, in all sizes: what deadlines and timers are counted by goes on as if nothing were.
    #[test]
    fn k_a_wall_clock_that_is_stepped_changes_nothing() {
        let (elapsed, still) = (Elapsed::new(), Elapsed::new());
        let mut machine = Machine { up: HOUR, asleep: 0, wall: 500_000 * HOUR, steered: 0 };
        let untouched = machine;
        for step in 0..2_000_u64 {
            machine.up = HOUR + step * MS;
            machine.wall = match step % 4 {
                0 => machine.wall + 26 * HOUR,
                1 => machine.wall - 30 * HOUR,
                2 => 0,
                _ => 500_000 * HOUR + step,
            };
            let other = Machine { up: machine.up, ..untouched };
            assert_eq!(elapsed.read(|id| machine.clock(id)), still.read(|id| other.clock(id)));
            assert_eq!(elapsed.read(|id| machine.clock(id)), Time(machine.up));
        }
    }

    #[test]
    fn k_sleep_counts_and_steering_does_not() {
        let elapsed = Elapsed::new();
        let mut machine = Machine { up: HOUR, asleep: 0, wall: 0, steered: 0 };
        assert_eq!(elapsed.read(|id| machine.clock(id)), Time(HOUR));
        machine.steered = 500 * MS;
        assert_eq!(elapsed.read(|id| machine.clock(id)), Time(HOUR));
        machine.asleep = 7_000 * MS;
        assert_eq!(elapsed.read(|id| machine.clock(id)), Time(HOUR + 7_000 * MS));
        machine.up += MS;
        assert_eq!(elapsed.read(|id| machine.clock(id)), Time(HOUR + 7_001 * MS));
    }
}
