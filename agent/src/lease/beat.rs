//! F4: what the agent makes of the guard's silence.
//!
//! A guard that dies has 60 ms on a real node (`STALE`) to be back before the agent gives everything up. systemd starts it again at once, but lets its timers
//! wait for up to 250 ms unless something wakes it: so it is nudged, with a word that it has to read anyway, as soon as a beat is missing.

use cluster_fence::BEAT;
use cluster_lease::time::Span;

/// A guard that was silent for longer missed a beat.
const LATE: Span = Span::from_millis(26);
/// A guard that was silent for longer is not waited for any more.
const GONE: Span = Span::from_millis(1_000);
/// Pause between two nudges.
const NUDGE: Span = Span::from_millis(4);

/// What follows from a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Nobody would keep the deadlines: what is held has to be given up.
    pub stale: bool,
    /// systemd is to be nudged.
    pub nudge: bool,
    /// When to look again.
    pub next: Span,
}

/// Judges how long the guard has been silent. `stale`: after which it is not there.
pub(super) fn look(silence: Span, stale: Span) -> Look {
    let nudge = (LATE..GONE).contains(&silence);
    // Not later than the moment at which a beat is missing, else a nudge would come up to a beat too late.
    let until_late = Span(LATE.0.saturating_sub(silence.0));
    let next = match silence {
        _ if nudge => NUDGE,
        silence if silence < LATE => BEAT.min(until_late).max(NUDGE),
        _ => BEAT,
    };
    Look { stale: silence > stale, nudge, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_fence::STALE;

    const fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    /// What a guard that dies right after a beat leads to, as the agent looks: (time, nudged, stale).
    fn after_a_death(until: Span) -> Vec<(Span, bool, bool)> {
        let (mut at, mut looks) = (Span::ZERO, Vec::new());
        while at < until {
            let look = look(at, STALE);
            looks.push((at, look.nudge, look.stale));
            at = Span(at.0 + look.next.0);
        }
        looks
    }

    #[test]
    fn f4_a_guard_that_beats_is_left_alone() {
        for silence in 0..=25 {
            let look = look(ms(silence), STALE);
            assert!(!look.nudge && !look.stale && look.next <= BEAT, "{silence} ms");
        }
    }

    #[test]
    fn f4_systemd_is_nudged_in_time_and_the_deadline_stays() {
        let looks = after_a_death(ms(3_000));
        let first = looks.iter().find(|(_, nudge, _)| *nudge).expect("a nudge").0;
        assert!(first <= Span(LATE.0 + NUDGE.0), "{first:?}");
        let in_time = looks.iter().filter(|(at, nudge, stale)| *nudge && !stale && *at <= STALE).count();
        assert!(in_time >= 5, "{looks:?}");
        // The rule itself: no longer than STALE, whatever was nudged.
        let stale = looks.iter().find(|(.., stale)| *stale).expect("it ends").0;
        assert!(stale > STALE && stale <= Span(STALE.0 + NUDGE.0), "{stale:?}");
        assert!(looks.iter().all(|(at, _, stale)| *stale == (*at > STALE)));
        // Who does not come back is not waited for.
        assert!(looks.iter().filter(|(at, ..)| *at > GONE).all(|(_, nudge, _)| !nudge));
        assert!(looks.iter().filter(|(_, nudge, _)| *nudge).count() <= 250);
    }
}
