//! Waiting for a condition, with a message that says what was seen instead.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};

/// The pause between two looks starts here, so that what takes a few milliseconds is measured as such ...
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// ... and grows to this, so that waiting costs the nodes no processor time.
const LAST_PAUSE: Duration = Duration::from_millis(25);

/// Calls `probe` until it returns `Ok` and gives that back. `probe` tells by `Err` what it saw instead.
///
/// `probe` is always called at least once, and once more after `limit` has passed.
///
/// # Errors
/// [`LabError::TimedOut`] after `limit`, with `what` and the last thing seen.
///
/// ```
/// # use std::time::Duration;
/// let mut looks = 0;
/// let seen = cluster_e2e::wait_until("three looks", Duration::from_secs(5), || {
///     looks += 1;
///     if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
/// });
/// assert_eq!(seen.unwrap(), 3);
/// ```
pub fn wait_until<T, E: Display>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, E>) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // Taken before the look: a look that ends late was still the one that began in time.
        let waited = started.elapsed();
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if waited >= limit => {
                return Err(LabError::TimedOut { what: what.to_owned(), waited, last: seen.to_string() });
            }
            Err(_) => {}
        }
        thread::sleep(pause.min(limit.saturating_sub(started.elapsed())));
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_says_what_was_last_seen() {
        let mut looks = 0;
        let error = wait_until("the moon", Duration::ZERO, || -> Result<(), String> {
            looks += 1;
            Err(format!("clouds {looks}"))
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the moon") && text.contains("clouds 1"), "{text}");
    }
}
