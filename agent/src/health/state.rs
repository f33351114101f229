//! When an instance is checked, and what the answers mean: pure, with time as the caller counts it.

use std::time::Duration;

use cluster_schemas::health::HealthSpec;

/// Before the first passed check of a start, checks come this much more often than afterwards, so that who just became active is soon seen
/// to serve.
const EAGER: u32 = 10;
/// The shortest pause between two such checks.
const EAGER_MIN: Duration = Duration::from_millis(100);

/// Times and thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From the begin of a check to the begin of the next.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// So many passed checks in a row make it healthy.
    pub successes: u32,
    /// So many failed checks in a row make it unhealthy.
    pub failures: u32,
    /// Before the first passed check, failed ones do not count at this age of the run and below.
    pub start_grace: Duration,
}

impl Settings {
    /// As the spec says; none where it has a time that the validation would have refused.
    #[must_use]
    pub fn of(spec: &HealthSpec) -> Option<Self> {
        Some(Self {
            interval: spec.interval()?,
            timeout: spec.timeout()?,
            successes: spec.success_threshold.max(1),
            failures: spec.failure_threshold.max(1),
            start_grace: spec.start_grace()?,
        })
    }
}

/// What the answers so far mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not enough answers yet.
    #[default]
    Unknown,
    /// It can serve.
    Healthy,
    /// It cannot.
    Unhealthy,
}

/// One run of a unit as seen by its checks. Times count from when this was made.
#[derive(Debug, Clone)]
pub struct State {
    settings: Settings,
    /// Age of the run when this was made.
    age: Duration,
    verdict: Verdict,
    /// Whether any check passed.
    passed: bool,
    /// Answers of one kind in a row.
    in_a_row: u32,
    last: Option<bool>,
    next: Duration,
}

impl State {
    /// A run of this age. `was_healthy`: it was found so before, so that only failed checks change that.
    #[must_use]
    pub fn new(settings: Settings, age: Duration, was_healthy: bool) -> Self {
        let verdict = if was_healthy { Verdict::Healthy } else { Verdict::Unknown };
        Self { settings, age, verdict, passed: was_healthy, in_a_row: 0, last: None, next: Duration::ZERO }
    }

    /// What the answers so far mean.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When the next check is due.
    #[must_use]
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// A check begins.
    pub fn begin(&mut self, now: Duration) {
        let interval = self.settings.interval;
        self.next = now + if self.in_grace(now) { interval.min((interval / EAGER).max(EAGER_MIN)) } else { interval };
    }

    /// It was answered.
    pub fn answered(&mut self, now: Duration, passed: bool) -> Verdict {
        if !passed && self.in_grace(now) {
            return self.verdict;
        }
        self.passed |= passed;
        self.in_a_row = if self.last == Some(passed) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        if passed && self.in_a_row >= self.settings.successes {
            self.verdict = Verdict::Healthy;
        } else if !passed && self.in_a_row >= self.settings.failures {
            self.verdict = Verdict::Unhealthy;
        }
        self.verdict
    }

    fn in_grace(&self, now: Duration) -> bool {
        !self.passed && self.age + now <= self.settings.start_grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn settings() -> Settings {
        Settings { interval: s(2), timeout: s(1), successes: 2, failures: 3, start_grace: s(30) }
    }

    fn after(state: &mut State, at: u64, answers: &[bool]) -> Verdict {
        answers.iter().map(|passed| state.answered(s(at), *passed)).last().expect("an answer")
    }

    #[test]
    fn so_many_in_a_row_are_needed_either_way() {
        let mut state = State::new(settings(), s(0), false);
        assert_eq!(after(&mut state, 0, &[true]), Verdict::Unknown);
        assert_eq!(after(&mut state, 2, &[true]), Verdict::Healthy);
        assert_eq!(after(&mut state, 4, &[false, false, true]), Verdict::Healthy, "not in a row");
        assert_eq!(after(&mut state, 8, &[false, false]), Verdict::Healthy);
        assert_eq!(after(&mut state, 9, &[false]), Verdict::Unhealthy);
        assert_eq!(after(&mut state, 9, &[true, false, true]), Verdict::Unhealthy);
        assert_eq!(after(&mut state, 9, &[true]), Verdict::Healthy);
    }

    #[test]
    fn a_start_is_given_its_grace_until_the_first_check_passes() {
        let mut state = State::new(settings(), s(0), false);
        assert_eq!(after(&mut state, 30, &[false; 9]), Verdict::Unknown);
        assert_eq!(after(&mut state, 31, &[false, false]), Verdict::Unknown);
        assert_eq!(after(&mut state, 31, &[false]), Verdict::Unhealthy);
        let mut state = State::new(settings(), s(0), false);
        assert_eq!(after(&mut state, 1, &[true, false, false, false]), Verdict::Unhealthy, "it served, and does not any more");
    }

    #[test]
    fn a_run_that_an_earlier_agent_found_healthy_stays_so_until_checks_fail() {
        let mut state = State::new(settings(), s(1), true);
        assert_eq!(state.verdict(), Verdict::Healthy);
        assert_eq!(after(&mut state, 0, &[false, false]), Verdict::Healthy);
        assert_eq!(after(&mut state, 1, &[false]), Verdict::Unhealthy);
        let mut old = State::new(settings(), s(3600), false);
        assert_eq!(after(&mut old, 0, &[false; 3]), Verdict::Unhealthy, "its grace was over before");
    }

    #[test]
    fn checks_come_more_often_until_the_first_passes() {
        let mut state = State::new(settings(), s(0), false);
        assert_eq!(state.next(), s(0), "at once");
        state.begin(s(0));
        assert_eq!(state.next(), Duration::from_millis(200));
        state.answered(s(1), true);
        state.begin(s(1));
        assert_eq!(state.next(), s(3));
        let mut slow = State::new(settings(), s(31), false);
        slow.begin(s(0));
        assert_eq!(slow.next(), s(2), "the grace is over");
        let mut short = State::new(Settings { interval: Duration::from_millis(150), ..settings() }, s(0), false);
        short.begin(s(0));
        assert_eq!(short.next(), EAGER_MIN);
    }
}
