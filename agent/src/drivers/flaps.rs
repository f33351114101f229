//! Units that keep ending and are started again and again by the service manager: pure.
//!
//! Each restart by itself is quick, and a look between two of them finds the unit running. Only the count over time tells.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::{ActiveState, UnitState};

/// A unit flaps if the manager restarted it so often ...
pub const RESTARTS: u32 = 3;
/// ... within so long. After as long without a restart it does not flap any more.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What is remembered of one unit.
#[derive(Debug, Default)]
pub struct Flaps {
    /// The count at the last look; what happened before the first one is not known.
    count: Option<u32>,
    /// When restarts were seen, [`RESTARTS`] at most.
    seen: VecDeque<Duration>,
    /// Restarts within the window, those that are not kept one by one included.
    total: u32,
    /// How a run last ended that was seen to end badly: result and exit status. A look at the run that follows shows neither.
    end: Option<(String, i32)>,
}

/// A unit that flaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flapping {
    /// Restarts by the manager since it began.
    pub restarts: u32,
    /// The manager does not start it any more: its start limit is used up.
    pub gave_up: bool,
    /// How a run of it went last: the last that was seen to end badly, if one was.
    pub result: String,
    /// Exit status or signal of that run's main process.
    pub exit_status: i32,
}

impl fmt::Display for Flapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keeps ending (result {}, exit status {}), restarted {} times", self.result, self.exit_status, self.restarts)?;
        if self.gave_up { f.write_str(", then given up by its start limit") } else { Ok(()) }
    }
}

impl Flaps {
    /// Takes in what was seen of the unit at `now`, a time that only rises. Says whether it flaps.
    pub fn note(&mut self, now: Duration, state: &UnitState) -> Option<Flapping> {
        // The manager counts anew when the unit is started by somebody, as after a change.
        let before = self.count.replace(state.restarts).unwrap_or(state.restarts);
        let more = if state.restarts >= before { state.restarts - before } else { state.restarts };
        if self.seen.back().is_some_and(|last| now.saturating_sub(*last) > WINDOW) {
            self.seen.clear();
            self.total = 0;
        }
        self.total = self.total.saturating_add(more);
        for _ in 0..more.min(RESTARTS) {
            self.seen.push_back(now);
        }
        while self.seen.len() > RESTARTS as usize {
            self.seen.pop_front();
        }
        if state.exit_status != 0 || !matches!(state.result.as_str(), "" | "success") {
            self.end = Some((state.result.clone(), state.exit_status));
        }
        // Its count stays until somebody starts it anew.
        let gave_up = state.active_state == ActiveState::Failed && state.restarts > 0;
        let often = self.seen.len() >= RESTARTS as usize && self.seen.front().is_some_and(|first| now.saturating_sub(*first) <= WINDOW);
        let (result, exit_status) = self.end.clone().unwrap_or_else(|| (state.result.clone(), state.exit_status));
        let restarts = if gave_up { self.total.max(state.restarts) } else { self.total };
        (often || gave_up).then_some(Flapping { restarts, gave_up, result, exit_status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(restarts: u32, active_state: ActiveState) -> UnitState {
        UnitState { restarts, active_state, result: "exit-code".to_owned(), exit_status: 3, ..UnitState::default() }
    }

    fn after(flaps: &mut Flaps, seconds: u64, restarts: u32) -> Option<u32> {
        flaps.note(Duration::from_secs(seconds), &state(restarts, ActiveState::Active)).map(|flapping| flapping.restarts)
    }

    #[test]
    fn a_unit_flaps_from_the_third_restart_in_a_minute_until_a_minute_without() {
        let mut flaps = Flaps::default();
        assert_eq!(after(&mut flaps, 0, 0), None);
        assert_eq!(after(&mut flaps, 10, 1), None);
        assert_eq!(after(&mut flaps, 30, 2), None);
        assert_eq!(after(&mut flaps, 60, 3), Some(3));
        assert_eq!(after(&mut flaps, 70, 3), Some(3), "the first of three is just within a minute");
        assert_eq!(after(&mut flaps, 71, 3), None);
        assert_eq!(after(&mut flaps, 75, 4), Some(4));
        assert_eq!(after(&mut flaps, 140, 4), None);
        assert_eq!(after(&mut flaps, 141, 5), None, "counted anew");
    }

    #[test]
    fn many_restarts_between_two_looks_count_and_so_do_those_after_a_start_by_hand() {
        let mut flaps = Flaps::default();
        assert_eq!(after(&mut flaps, 0, 0), None);
        assert_eq!(after(&mut flaps, 15, 40), Some(40));
        assert_eq!(after(&mut flaps, 16, 0), Some(40), "somebody started it");
        assert_eq!(after(&mut flaps, 17, 2), Some(42));
        assert!(flaps.seen.len() <= RESTARTS as usize);
    }

    #[test]
    fn rare_and_earlier_restarts_are_no_flapping() {
        assert_eq!(after(&mut Flaps::default(), 0, 100), None, "before this agent looked");
        let mut flaps = Flaps::default();
        for restarts in 0..20 {
            assert_eq!(after(&mut flaps, u64::from(restarts) * 40, restarts), None, "{restarts}");
        }
    }

    #[test]
    fn a_unit_that_used_up_its_start_limit_says_so() {
        let mut flaps = Flaps::default();
        let told = flaps.note(Duration::ZERO, &state(2, ActiveState::Failed)).unwrap();
        let text = "keeps ending (result exit-code, exit status 3), restarted 2 times, then given up by its start limit";
        assert_eq!(told.to_string(), text);
        assert_eq!(flaps.note(Duration::from_secs(1), &state(0, ActiveState::Failed)), None, "a first start that failed");
    }
}
