//! The deadline word (F2): one 64-bit word per slot, shared by the agent and the guard.
//!
//! It is a deadline on this machine's clock in nanoseconds, or [`FENCED`]. The agent extends it, the guard fences it, each by
//! compare-and-swap, so that exactly one of them wins. The word is the only authority on whether this node may act: what a state machine
//! believes is checked here once more.
//!
//! Guarantees: a word whose deadline passed is never extended; FENCED leaves only by [`SlotWord::arm`] with an epoch above every
//! earlier one. Assumption: one agent at a time writes (the agent's own lock file); any number of guards may fence and read.

use crate::rules::{AsWritten, Fault, Rules};
use crate::time::Time;
use crate::types::Epoch;
use std::sync::atomic::{AtomicU64, Ordering};

/// The word of a slot that may not run here. Zero, so that a zeroed table is fenced everywhere.
pub const FENCED: u64 = 0;

/// The deadline of a slot that goes on without a majority (`onQuorumLoss: Keep`): never. Its App gave up exclusivity; nothing else may have it.
pub const KEPT: Time = Time(u64::MAX);

/// Why the word was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// The guard, or this agent, fenced it.
    #[error("slot is fenced")]
    Fenced,
    /// The deadline passed; only a new tenure helps.
    #[error("deadline {deadline:?} has passed at {now:?}")]
    Passed {
        /// What the word says.
        deadline: Time,
        /// When it was read.
        now: Time,
    },
    /// Armed already; an armed slot is fenced before a new tenure arms it.
    #[error("slot is armed until {0:?}")]
    Armed(Time),
    /// The epoch is not above the last one armed here.
    #[error("epoch {offered} is not above epoch {last}, the last one armed")]
    Epoch {
        /// The last one.
        last: Epoch,
        /// The one offered.
        offered: Epoch,
    },
}

/// What the word becomes when the agent extends it to `to`, seen at `now`; `None` when it says so already.
///
/// # Errors
/// [`WordError::Fenced`] or [`WordError::Passed`].
pub fn extended<R: Rules>(rules: &R, word: u64, now: Time, to: Time) -> Result<Option<u64>, WordError> {
    if word == FENCED {
        return if rules.breaks(Fault::FencedExtended) { Ok(Some(to.0)) } else { Err(WordError::Fenced) };
    }
    if now.0 >= word && !rules.breaks(Fault::DeadTenureRevived) {
        return Err(WordError::Passed { deadline: Time(word), now });
    }
    Ok((to.0 > word).then_some(to.0))
}

/// A slot's word and the epoch it was last armed for. Lies in the table under /run that agent and guard map.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SlotWord {
    /// Written by the agent only, before the word.
    epoch: AtomicU64,
    word: AtomicU64,
}

impl SlotWord {
    /// A fenced word that was never armed.
    #[must_use]
    pub const fn new() -> Self {
        Self { epoch: AtomicU64::new(0), word: AtomicU64::new(FENCED) }
    }

    /// The deadline, if not fenced. It may have passed.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.word.load(Ordering::Acquire) {
            FENCED => None,
            deadline => Some(Time(deadline)),
        }
    }

    /// The epoch it was last armed for; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// P6: the epoch and deadline of a tenure that is armed and whose deadline lies after `now`.
    #[must_use]
    pub fn armed(&self, now: Time) -> Option<(Epoch, Time)> {
        let deadline = self.deadline().filter(|deadline| now < *deadline)?;
        Some((Epoch(self.epoch.load(Ordering::Acquire)), deadline))
    }

    /// Arms a new tenure. Must come before any start or address.
    ///
    /// # Errors
    /// [`WordError::Armed`] when a tenure is armed and not fenced yet, even if its deadline passed; [`WordError::Epoch`] when the
    /// epoch is not new; [`WordError::Passed`] when the deadline is not in the future.
    pub fn arm(&self, epoch: Epoch, deadline: Time, clock: impl Fn() -> Time) -> Result<(), WordError> {
        let last = Epoch(self.epoch.load(Ordering::Acquire));
        if epoch <= last {
            return Err(WordError::Epoch { last, offered: epoch });
        }
        if let Some(deadline) = self.deadline() {
            return Err(WordError::Armed(deadline));
        }
        let now = clock();
        if now >= deadline {
            return Err(WordError::Passed { deadline, now });
        }
        self.epoch.store(epoch.0, Ordering::Release);
        self.word
            .compare_exchange(FENCED, deadline.0, Ordering::AcqRel, Ordering::Acquire)
            .map_or_else(|other| Err(WordError::Armed(Time(other))), |_| Ok(()))
    }

    /// Extends the deadline to `to`; keeps it when it is later already. The clock is read before and after the swap: an agent that
    /// was held up between the two fences the slot itself.
    ///
    /// # Errors
    /// [`WordError::Fenced`] or [`WordError::Passed`]; the tenure is dead then.
    pub fn extend(&self, to: Time, clock: impl Fn() -> Time) -> Result<(), WordError> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let Some(next) = extended(&AsWritten, word, clock(), to)? else { return Ok(()) };
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let now = clock();
                    if now.0 >= word {
                        self.word.store(FENCED, Ordering::Release);
                        return Err(WordError::Passed { deadline: Time(word), now });
                    }
                    return Ok(());
                }
                Err(other) => word = other,
            }
        }
    }

    /// Whether it goes on without a majority.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.deadline() == Some(KEPT)
    }

    /// A kept word goes on in a new tenure, without being fenced in between: what runs goes on running. True if it was kept.
    ///
    /// # Errors
    /// [`WordError::Epoch`] when the epoch is not new; [`WordError::Fenced`] when it is not kept (any more).
    pub fn follow(&self, epoch: Epoch) -> Result<(), WordError> {
        let last = Epoch(self.epoch.load(Ordering::Acquire));
        if epoch <= last {
            return Err(WordError::Epoch { last, offered: epoch });
        }
        if !self.is_kept() {
            return Err(WordError::Fenced);
        }
        self.epoch.store(epoch.0, Ordering::Release);
        Ok(())
    }

    /// A kept word gets a deadline again. True if it was kept.
    pub fn limit(&self, to: Time) -> bool {
        self.word.compare_exchange(KEPT.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The guard's swap: fences the slot if its deadline passed. True if this call fenced it.
    pub fn fence_if_passed(&self, now: Time) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        while word != FENCED && now.0 >= word {
            match self.word.compare_exchange_weak(word, FENCED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                // The agent extended it in between, or another guard fenced it.
                Err(other) => word = other,
            }
        }
        false
    }

    /// Fences the slot whatever its deadline: a release, a stop, an agent that fences itself (F4). True if it was armed.
    pub fn fence(&self) -> bool {
        self.word.swap(FENCED, Ordering::AcqRel) != FENCED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_fenced_leaves_only_by_a_new_tenure() {
        let word = SlotWord::new();
        assert_eq!(word.extend(Time(10), || Time(1)), Err(WordError::Fenced));
        word.arm(Epoch(1), Time(10), || Time(1)).unwrap();
        assert_eq!(word.armed(Time(9)), Some((Epoch(1), Time(10))));
        assert_eq!(word.armed(Time(10)), None);
        assert!(!word.fence_if_passed(Time(9)));
        assert!(word.fence_if_passed(Time(10)));
        assert_eq!(word.extend(Time(20), || Time(1)), Err(WordError::Fenced));
        let same = WordError::Epoch { last: Epoch(1), offered: Epoch(1) };
        assert_eq!(word.arm(Epoch(1), Time(20), || Time(1)), Err(same));
        word.arm(Epoch(2), Time(20), || Time(11)).unwrap();
    }

    #[test]
    fn f2_extends_only_before_the_deadline_and_never_back() {
        let word = SlotWord::new();
        word.arm(Epoch(1), Time(10), || Time(1)).unwrap();
        word.extend(Time(15), || Time(9)).unwrap();
        word.extend(Time(12), || Time(9)).unwrap();
        assert_eq!(word.deadline(), Some(Time(15)));
        assert!(matches!(word.extend(Time(30), || Time(15)), Err(WordError::Passed { .. })));
    }

    /// The agent reads the clock, sleeps past the deadline and swaps before the guard wakes.
    #[test]
    fn f2_agent_held_up_in_the_swap_fences_itself() {
        let word = SlotWord::new();
        word.arm(Epoch(1), Time(10), || Time(1)).unwrap();
        let reads = std::cell::Cell::new(0);
        let clock = || {
            reads.set(reads.get() + 1);
            Time(if reads.get() == 1 { 9 } else { 11 })
        };
        assert!(matches!(word.extend(Time(30), clock), Err(WordError::Passed { .. })));
        assert_eq!(word.deadline(), None);
    }

    #[test]
    fn an_armed_slot_is_not_armed_again() {
        let word = SlotWord::new();
        word.arm(Epoch(1), Time(10), || Time(1)).unwrap();
        assert_eq!(word.arm(Epoch(2), Time(30), || Time(20)), Err(WordError::Armed(Time(10))));
        assert!(word.fence());
        assert!(!word.fence());
        assert!(matches!(word.arm(Epoch(2), Time(30), || Time(30)), Err(WordError::Passed { .. })));
    }

    #[test]
    fn a_kept_word_has_no_deadline_until_it_is_limited_or_fenced() {
        let word = SlotWord::new();
        word.arm(Epoch(1), KEPT, || Time(1)).unwrap();
        assert!(word.is_kept() && !word.fence_if_passed(Time(u64::MAX - 1)));
        word.extend(Time(20), || Time(9)).unwrap();
        assert!(word.is_kept(), "a renewal changes nothing");
        assert!(matches!(word.follow(Epoch(1)), Err(WordError::Epoch { .. })));
        word.follow(Epoch(2)).unwrap();
        assert_eq!(word.armed(Time(9)), Some((Epoch(2), KEPT)));
        assert!(word.limit(Time(20)) && !word.limit(Time(30)));
        assert!(word.fence_if_passed(Time(20)));
        assert_eq!(word.follow(Epoch(3)), Err(WordError::Fenced));
        // One that has a deadline is never made one without by these.
        word.arm(Epoch(4), Time(40), || Time(30)).unwrap();
        assert_eq!(word.follow(Epoch(5)), Err(WordError::Fenced));
        assert!(!word.limit(Time(50)));
        assert_eq!(word.armed(Time(31)), Some((Epoch(4), Time(40))));
    }

    /// F2, real threads: of one extension and one fence at the deadline exactly one wins.
    #[test]
    fn f2_one_of_agent_and_guard_wins() {
        for round in 1..2_000u64 {
            let word = SlotWord::new();
            word.arm(Epoch(round), Time(10), || Time(1)).unwrap();
            let (extended, fenced) = std::thread::scope(|scope| {
                let agent = scope.spawn(|| word.extend(Time(20), || Time(9)).is_ok());
                let guard = scope.spawn(|| word.fence_if_passed(Time(10)));
                (agent.join().unwrap(), guard.join().unwrap())
            });
            assert_ne!(extended, fenced, "round {round}");
            assert_eq!(word.deadline(), extended.then_some(Time(20)));
        }
    }
}
