//! Time as the protocol sees it: nanoseconds of one machine's own clock, always passed in.
//!
//! Rule K says which clock: `MONOTONIC_RAW` plus the time spent suspended. Two machines' [`Time`]s are never compared; what they share
//! are lengths ([`Span`]), and those only up to the clock rate error.

use std::fmt;
use std::ops::{Add, Sub};

/// A point on one machine's clock, in nanoseconds since that machine's boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of that many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// This span `n` times over, at most the longest span.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// The `n`-th part of this span, at least one nanosecond.
    #[must_use]
    pub fn part(self, n: u64) -> Self {
        Self((self.0 / n.max(1)).max(1))
    }

    /// This span less `other`, never below zero.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Time> for Time {
    type Output = Span;
    /// The span from `earlier` to this time; zero if `earlier` is not earlier.
    fn sub(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// The longest lease a voter grants (V8), and the wait after a restart without a valid record (V6). A constant of the build: two
/// voters that differed in it would break V6.
pub const MAX_T: Span = Span::from_millis(5_000);

/// What the clocks and the guard promise (rules K and P3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// r: by how much one clock may run faster or slower than true time, in parts per million.
    pub rate_ppm: u32,
    /// F: the most that lies between a deadline and the moment the slot has stopped on this node.
    pub fence: Span,
}

impl Default for Timing {
    /// r = 0.001, F = 100 ms.
    fn default() -> Self {
        Self { rate_ppm: 1_000, fence: Span::from_millis(100) }
    }
}

impl Timing {
    /// P3: `T_hold(T) = T(1 - 2r) - F`, what a holder may use of a lease that the voters time as `t`. Rounded down.
    ///
    /// A slow holder's `T(1-2r)` lasts `T(1-2r)/(1-r)` in true time, a fast voter's `T` lasts `T/(1+r)`; the first is never longer,
    /// since `(1-2r)(1+r) <= 1-r`.
    #[must_use]
    pub fn hold(&self, t: Span) -> Span {
        let lost = (u128::from(t.0) * 2 * u128::from(self.rate_ppm)).div_ceil(1_000_000);
        t.less(Span(u64::try_from(lost).unwrap_or(u64::MAX))).less(self.fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_is_lease_less_drift_less_fence() {
        let timing = Timing::default();
        assert_eq!(timing.hold(Span::from_millis(350)), Span(249_300_000));
        assert_eq!(timing.hold(Span::from_millis(100)), Span::ZERO);
        assert_eq!(timing.hold(MAX_T), Span::from_millis(4_890));
    }

    #[test]
    fn hold_rounds_down() {
        let timing = Timing { rate_ppm: 1, fence: Span::ZERO };
        assert_eq!(timing.hold(Span(10)), Span(9));
    }

    #[test]
    fn slow_holder_never_outlasts_fast_voter() {
        for rate_ppm in [1u32, 100, 1_000, 10_000, 100_000] {
            let timing = Timing { rate_ppm, fence: Span::ZERO };
            for t in [1u64, 7, 1_000, 350_000_000, 5_000_000_000] {
                let (hold, r) = (u128::from(timing.hold(Span(t)).0), u128::from(rate_ppm));
                // hold / (1 - r) <= t / (1 + r), cross-multiplied.
                assert!(hold * (1_000_000 + r) <= u128::from(t) * (1_000_000 - r));
            }
        }
    }
}
