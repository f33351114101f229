//! The guard (F1 to F5): looks at the table each [`BEAT`] or at the next deadline, fences what is past it, removes its addresses, kills
//! its processes, and sees that nothing gated runs unarmed.
//!
//! No allocation after the start, no lock, no other process needed: a deadline is kept whatever became of the agent, of systemd and of
//! the network.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster_lease::time::{Span, Time};

use crate::clock;
use crate::hands::{Hands, Machine};
use crate::layout::{KILL, UnitEntry};
use crate::table::{BEAT, Table, UnitCopy, WordIndex, copy_unit};

/// What the guard did in one round, for its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Words fenced because their deadline passed.
    pub fenced: u32,
    /// Units killed: a word of theirs was fenced, or they ran unarmed.
    pub killed: u32,
    /// Addresses that were removed.
    pub removed: u32,
    /// How late the latest fence was, after its deadline.
    pub lateness: Span,
}

impl Round {
    /// Whether anything was done.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        *self == Self::default()
    }
}

/// The guard's own state: what it still has to see gone.
#[derive(Debug)]
pub struct Guard<H = Machine> {
    hands: H,
    /// Since when something that was fenced is not seen gone.
    killing_since: Option<Time>,
}

impl Guard {
    /// Opens what it needs, so that nothing has to be opened when a deadline passes.
    ///
    /// # Errors
    /// The system's, where no netlink socket can be had.
    pub fn new() -> std::io::Result<Self> {
        Machine::open().map(Self::with)
    }
}

impl<H: Hands> Guard<H> {
    /// A guard that acts with these hands.
    #[must_use]
    pub const fn with(hands: H) -> Self {
        Self { hands, killing_since: None }
    }

    /// One round.
    pub fn round(&mut self, table: &Table) -> Round {
        let mut round = Round::default();
        table.guard_beats();
        // First all swaps: from then on the agent cannot extend any of them (F2).
        for (index, entry) in table.used_words() {
            let now = clock::now();
            let deadline = entry.word.deadline();
            if deadline.is_none_or(|deadline| now < deadline) {
                continue;
            }
            // Said before it is done, so that the next guard finishes what this one may not.
            let unit = table.unit_of(entry);
            let begun = unit.is_some_and(|u| begin(u, index));
            if entry.word.fence_if_passed(now) {
                round.fenced += 1;
                round.lateness = round.lateness.max(deadline.map_or(Span::ZERO, |d| now - d));
                table.header().fences.fetch_add(1, Ordering::Relaxed);
                if let Some(unit) = unit {
                    unit.pending.store(KILL, Ordering::Release);
                }
            } else if let Some(unit) = unit.filter(|_| begun) {
                // The agent was in time.
                unit.pending.store(0, Ordering::Release);
            }
        }
        self.hands.look();
        let now = clock::now();
        let mut killing = false;
        for (_, entry) in table.used_units() {
            let copy = copy_unit(entry);
            let fenced = is_pending(table, entry);
            self.withdraw_addresses(table, &copy, now, &mut round);
            // F5: populated => armed, always, not only at the moment of loss.
            let unarmed = copy.gated && !table.is_armed(copy.role_word, now);
            if !(fenced || unarmed) {
                continue;
            }
            if self.hands.is_populated(copy.cgroup()) {
                killing = true;
                self.hands.kill(copy.cgroup());
                entry.kills.fetch_add(1, Ordering::AcqRel);
                round.killed += 1;
            } else {
                entry.pending.store(0, Ordering::Release);
            }
        }
        self.killing_since = killing.then(|| self.killing_since.unwrap_or(now));
        round
    }

    /// How long something has been killed without being seen gone.
    #[must_use]
    pub fn kills_for(&self, now: Time) -> Span {
        self.killing_since.map_or(Span::ZERO, |since| now - since)
    }

    /// F3: an address whose tenure is not armed goes, before anything else of its unit.
    fn withdraw_addresses(&mut self, table: &Table, copy: &UnitCopy, now: Time, round: &mut Round) {
        for (vip, word) in copy.vips.iter().flatten() {
            let word = if *word == 0 { copy.role_word } else { *word };
            if table.is_armed(word, now) {
                continue;
            }
            round.removed += u32::from(self.hands.remove(vip));
        }
    }

    /// How long to sleep: to the next deadline, at most a beat; less while something is to be seen gone.
    #[must_use]
    pub fn pause(&self, table: &Table) -> Duration {
        const WHILE_KILLING: Span = Span::from_millis(1);
        let now = clock::now();
        let longest = if self.killing_since.is_some() { WHILE_KILLING } else { BEAT };
        let next = table.used_words().filter_map(|(_, e)| e.word.deadline()).map(|d| d - now).min();
        let span = next.map_or(longest, |n| n.min(longest));
        Duration::from_nanos(span.0)
    }
}

/// Notes that a word of the unit is about to be fenced. False where a kill is due anyway.
fn begin(unit: &UnitEntry, word: WordIndex) -> bool {
    let due = unit.pending.load(Ordering::Acquire) == KILL;
    if !due {
        unit.pending.store(word.plus_one(), Ordering::Release);
    }
    !due
}

/// Whether a kill was begun and not seen done. Of what an earlier guard was about to do, the word tells whether it did.
fn is_pending(table: &Table, unit: &UnitEntry) -> bool {
    match unit.pending.load(Ordering::Acquire) {
        0 => false,
        KILL => true,
        word => {
            let fenced = table.is_fenced(word);
            unit.pending.store(if fenced { KILL } else { 0 }, Ordering::Release);
            fenced
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_lease::types::Epoch;

    /// F4: whatever moment a guard dies at, the next one kills what was fenced, and only that.
    #[test]
    fn a_kill_that_was_begun_is_taken_up_by_the_next_guard() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let table = Table::open(&dir.path().join("table"), 1).expect("a table");
        let index = table.add_unit(false).expect("a unit");
        let word = table.word_for("app/a", index, true).expect("a word");
        let (_, unit) = table.used_units().next().expect("the unit");
        let now = clock::now();
        table.word(word).arm(Epoch(1), now + Span::from_millis(60_000), clock::now).expect("armed");
        assert!(!is_pending(&table, unit));
        // Dead between the note and the swap, and the agent extended: nothing is to be killed.
        assert!(begin(unit, word));
        assert!(!is_pending(&table, unit));
        assert_eq!(unit.pending.load(Ordering::Acquire), 0);
        // Dead right after the swap.
        assert!(begin(unit, word));
        table.word(word).fence();
        assert!(is_pending(&table, unit));
        assert!(!begin(unit, word), "it stays due");
        // The table is opened again by the next one.
        let again = Table::open(&dir.path().join("table"), 1).expect("the table");
        let (_, unit) = again.used_units().next().expect("the unit");
        assert!(is_pending(&again, unit));
    }
}
