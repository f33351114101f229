//! How much is measured: what fits into `make bench`, or all of it as in `make soak`.

use std::time::Duration;

/// The default lease, milliseconds.
pub(super) const DEFAULT_LEASE_MS: u64 = 350;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// How many labs are started for the figures of the tour; the median counts.
    pub runs: usize,
    /// How many faults for the fail-over gap that is compared with another tool's.
    pub faults: usize,
    /// Every case with every lease and as many faults; else the cases that are not compared take the default lease and half as many.
    pub every_case: bool,
    /// Leases that fail-overs are measured with, milliseconds.
    pub leases_ms: &'static [u64],
    /// Numbers of slots that the cost of leases is measured with, beside one.
    pub slots: &'static [u16],
    /// Leases that are watched on a machine with no processor idle, milliseconds.
    pub busy_leases_ms: &'static [u64],
    /// How often.
    pub busy_runs: usize,
    /// How long each time.
    pub busy: Duration,
}

impl Scale {
    /// That of `make soak` or of `make bench`, with another number of faults where one is given.
    #[must_use]
    pub fn of(soak: bool, faults: Option<usize>) -> Self {
        let full = if soak { Self::SOAK } else { Self::BENCH };
        Self { faults: faults.unwrap_or(full.faults), ..full }
    }

    /// What `make bench` has the time for.
    pub const BENCH: Self = Self {
        runs: 3,
        faults: 10,
        every_case: false,
        leases_ms: &[DEFAULT_LEASE_MS, 300],
        slots: &[100],
        busy_leases_ms: &[DEFAULT_LEASE_MS],
        busy_runs: 1,
        busy: Duration::from_secs(180),
    };

    /// All of it: some six hours.
    pub const SOAK: Self = Self {
        runs: 3,
        faults: 30,
        every_case: true,
        leases_ms: &[DEFAULT_LEASE_MS, 300, 250, 200],
        slots: &[100, 1000],
        busy_leases_ms: &[DEFAULT_LEASE_MS, 200, 250, 300, 400, 500],
        busy_runs: 3,
        busy: Duration::from_secs(600),
    };
}
