//! How often an unhealthy instance was restarted where it is: pure.

use std::time::Duration;

use cluster_schemas::health::{RESTARTS_MAX, RestartSpec};
use serde::{Deserialize, Serialize};

/// The restarts that still count, in milliseconds since boot, oldest first; never more than [`RESTARTS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Restarts(Vec<u64>);

impl Restarts {
    /// Whether one more is allowed `now`.
    #[must_use]
    pub fn may(&self, now: Duration, spec: &RestartSpec) -> bool {
        self.within(now, spec) < usize::try_from(spec.attempts.min(RESTARTS_MAX)).unwrap_or(0)
    }

    /// How many were made in the window that ends `now`.
    #[must_use]
    pub fn within(&self, now: Duration, spec: &RestartSpec) -> usize {
        let from = millis(now).saturating_sub(millis(spec.window().unwrap_or_default()));
        // Later than now: of another boot, and no use.
        self.0.iter().filter(|at| (from..=millis(now)).contains(at)).count()
    }

    /// When the oldest of the window leaves it: then one more is allowed, if any is.
    #[must_use]
    pub fn again(&self, now: Duration, spec: &RestartSpec) -> Option<Duration> {
        let window = spec.window()?;
        let from = millis(now).saturating_sub(millis(window));
        let oldest = self.0.iter().find(|at| (from..=millis(now)).contains(at))?;
        (spec.attempts > 0).then(|| Duration::from_millis(oldest + 1) + window)
    }

    /// One is made `now`.
    pub fn note(&mut self, now: Duration) {
        let over = (self.0.len() + 1).saturating_sub(usize::try_from(RESTARTS_MAX).unwrap_or(0));
        self.0.drain(..over);
        self.0.push(millis(now));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_window_and_then_as_the_window_moves() {
        let spec = RestartSpec { attempts: 2, window: "10m".to_owned() };
        let s = Duration::from_secs;
        let mut restarts = Restarts::default();
        assert!(restarts.may(s(0), &spec));
        restarts.note(s(1000));
        assert!(restarts.may(s(1000), &spec));
        restarts.note(s(1100));
        assert!(!restarts.may(s(1100), &spec) && !restarts.may(s(1600), &spec));
        let again = restarts.again(s(1100), &spec).expect("a time");
        assert!(restarts.may(again, &spec) && !restarts.may(again - Duration::from_millis(1), &spec));
        assert!(!restarts.may(s(2000), &RestartSpec { attempts: 0, ..spec.clone() }));
        for n in 0..100 {
            restarts.note(s(2000 + n));
        }
        assert_eq!(restarts.0.len(), 20);
        assert_eq!(restarts.within(s(5), &spec), 0, "times of another boot do not count");
    }
}
