//! The guard (F1 to F5): looks at the table each [`BEAT`] or at the next deadline, fences what is past it, removes its addresses, kills
//! its processes, and sees that nothing gated runs unarmed.
//!
//! No allocation after the start, no lock, no other process needed: a deadline is kept whatever became of the agent, of systemd and of
//! the network.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster_lease::time::{Span, Time};

use crate::cgroup;
use crate::clock;
use crate::layout::UNITS_MAX;
use crate::netlink::Addresses;
use crate::table::{BEAT, Table, UnitCopy, UnitIndex, copy_unit};

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
pub struct Guard {
    addresses: Addresses,
    /// Units that were fenced and not yet seen empty.
    pending: [bool; UNITS_MAX],
}

impl Guard {
    /// Opens what it needs, so that nothing has to be opened when a deadline passes.
    ///
    /// # Errors
    /// The system's, where no netlink socket can be had.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { addresses: Addresses::open()?, pending: [false; UNITS_MAX] })
    }

    /// One round.
    pub fn round(&mut self, table: &Table) -> Round {
        let mut round = Round::default();
        table.guard_beats();
        // First all swaps: from then on the agent cannot extend any of them (F2).
        for (_, entry) in table.used_words() {
            let now = clock::now();
            let deadline = entry.word.deadline();
            if entry.word.fence_if_passed(now) {
                round.fenced += 1;
                round.lateness = round.lateness.max(deadline.map_or(Span::ZERO, |d| now - d));
                table.header().fences.fetch_add(1, Ordering::Relaxed);
                let unit = entry.unit.load(Ordering::Acquire);
                if let Some(pending) = unit.checked_sub(1).and_then(|u| usize::try_from(u).ok()).and_then(|u| self.pending.get_mut(u)) {
                    *pending = true;
                }
            }
        }
        let now = clock::now();
        for (index, entry) in table.used_units() {
            let copy = copy_unit(entry);
            let fenced = self.is_pending(index);
            self.withdraw_addresses(table, &copy, now, &mut round);
            // F5: populated => armed, always, not only at the moment of loss.
            let unarmed = copy.gated && !table.is_armed(copy.role_word, now);
            if !(fenced || unarmed) {
                continue;
            }
            if cgroup::is_populated(&copy.cgroup) {
                cgroup::kill(&copy.cgroup);
                entry.kills.fetch_add(1, Ordering::AcqRel);
                round.killed += 1;
            } else {
                self.settled(index);
            }
        }
        round
    }

    /// F3: an address whose tenure is not armed goes, before anything else of its unit.
    fn withdraw_addresses(&mut self, table: &Table, copy: &UnitCopy, now: Time, round: &mut Round) {
        for (vip, word) in copy.vips.iter().flatten() {
            let word = if *word == 0 { copy.role_word } else { *word };
            if table.is_armed(word, now) {
                continue;
            }
            let removed = match vip.address {
                IpAddr::V4(v4) => self.addresses.remove(vip.interface, vip.prefix, &v4.octets()),
                IpAddr::V6(v6) => self.addresses.remove(vip.interface, vip.prefix, &v6.octets()),
            };
            round.removed += u32::from(removed);
        }
    }

    fn is_pending(&self, index: UnitIndex) -> bool {
        self.pending.get(index.place()).copied().unwrap_or(false)
    }

    fn settled(&mut self, index: UnitIndex) {
        if let Some(pending) = self.pending.get_mut(index.place()) {
            *pending = false;
        }
    }

    /// How long to sleep: to the next deadline, at most a beat; less while something is to be seen gone.
    #[must_use]
    pub fn pause(&self, table: &Table) -> Duration {
        const WHILE_KILLING: Span = Span::from_millis(1);
        let now = clock::now();
        let longest = if self.pending.iter().any(|p| *p) { WHILE_KILLING } else { BEAT };
        let next = table.used_words().filter_map(|(_, e)| e.word.deadline()).map(|d| d - now).min();
        let span = next.map_or(longest, |n| n.min(longest));
        Duration::from_nanos(span.0)
    }
}
