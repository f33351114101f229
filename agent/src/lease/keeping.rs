//! `onQuorumLoss: Keep`: the active instance goes on when no majority of the voters is reached any more. Exclusivity is given up by it, and the
//! rest of the rules stays: once a majority answers, the lease decides.
//!
//! # Flow
//! 1. The word of such a slot is armed without a deadline ([`KEPT`]), so that the guard does not end it. Words of all other slots have the
//!    deadline of their lease: [`Host::until`] is the only place that chooses.
//! 2. When the lease runs out, the tenure is over for the voters as ever; what runs stays, and the slot is kept. The word is not touched.
//! 3. The lease is asked for again and again. Granted: the same run goes on in a new tenure with a higher epoch. Refused by a majority, since
//!    another node holds it: the slot is fenced, and all of it stops here.

use std::collections::BTreeMap;

use cluster_fence::clock;
use cluster_lease::holder::Event;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, Slot};
use cluster_lease::word::KEPT;
use tracing::warn;

use super::DEFAULT_T;
use super::host::Host;
use super::view::{TenureState, Wanted};

/// Without word from the voters, the lease of a kept slot is asked for this often: seldom enough that the attempts of a node that reaches a
/// minority do not keep others from theirs.
const ASK_EVERY: Span = Span::from_millis(1_000);

/// The slots that go on without a majority, and when each is asked for next.
#[derive(Debug, Default)]
pub(super) struct Keeping(BTreeMap<Slot, Time>);

impl Keeping {
    /// Whether the slot goes on without a majority.
    pub(super) fn has(&self, slot: &Slot) -> bool {
        self.0.contains_key(slot)
    }

    /// It does from now on, and is asked for at once.
    pub(super) fn begin(&mut self, slot: Slot) {
        self.0.insert(slot, Time(0));
    }

    /// It does not any more. True if it did.
    pub(super) fn end(&mut self, slot: &Slot) -> bool {
        self.0.remove(slot).is_some()
    }

    /// When the next one is to be asked for.
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.0.values().min().copied()
    }

    /// Those that are due at `now`; each is due again after [`ASK_EVERY`].
    fn due(&mut self, now: Time) -> Vec<Slot> {
        let due = self.0.iter_mut().filter(|(_, at)| **at <= now);
        due.map(|(slot, at)| {
            *at = now + ASK_EVERY;
            slot.clone()
        })
        .collect()
    }
}

/// The deadline that the word of a slot gets with a lease until `deadline`.
fn until(wanted: Option<&Wanted>, deadline: Time) -> Time {
    if wanted.is_some_and(|w| w.keep) { KEPT } else { deadline }
}

impl Host {
    /// The deadline that the word of a slot gets.
    pub(super) fn until(&self, slot: &Slot, deadline: Time) -> Time {
        until(self.state.wanted.get(slot), deadline)
    }

    /// Whether the end of its lease does not end the slot: by its word alone.
    pub(super) fn may_keep(&mut self, slot: &Slot, epoch: Epoch) -> bool {
        let goes_on = self.state.tenures.get(slot).is_some_and(|t| t.epoch == epoch.0 && t.state == TenureState::Held);
        goes_on && self.word(slot).is_some_and(|word| self.table.word(word).is_kept())
    }

    /// The lease of a slot ran out, and the slot goes on.
    pub(super) fn keep(&mut self, slot: &Slot, epoch: Epoch) -> Vec<Event> {
        warn!(slot = %slot, epoch = epoch.0, "no majority of the voters renews the lease: going on without it, others may do so, too");
        self.state.keeping.begin(slot.clone());
        let mut events = vec![Event::Stopped { slot: slot.clone(), epoch }];
        events.extend(self.offered(slot));
        events
    }

    /// A majority answered, and another node holds the slot.
    pub(super) fn kept_no_longer(&mut self, slot: &Slot) -> Vec<Event> {
        warn!(slot = %slot, "a majority of the voters is there again, and another node holds the lease: stopping");
        self.state.keeping.end(slot);
        self.fence(slot);
        if let Some(tenure) = self.state.tenures.get(slot).copied() {
            self.set_tenure(slot.clone(), Epoch(tenure.epoch), TenureState::Lost);
        }
        self.offered(slot)
    }

    /// Asks for the leases of kept slots that are due. One that is being stopped is not asked for.
    pub(super) fn ask_for_kept(&mut self) {
        let due = self.state.keeping.due(clock::now());
        let held = |slot: &Slot| self.state.tenures.get(slot).is_some_and(|t| t.state == TenureState::Held);
        let t = |slot: &Slot| self.state.wanted.get(slot).map_or(DEFAULT_T, |w| w.t);
        let events: Vec<Event> = due.into_iter().filter(held).map(|slot| Event::Acquire { t: t(&slot), slot }).collect();
        if !events.is_empty() {
            self.holder_events(events);
        }
    }

    /// What a changed policy means for slots that are held: without a deadline from now on, or with one again.
    pub(super) fn follow_policies(&mut self, before: &BTreeMap<Slot, Wanted>) {
        let changed = |(slot, now): &(&Slot, &Wanted)| before.get(*slot).map(|b| b.keep) != Some(now.keep);
        let changed: Vec<(Slot, bool)> = self.state.wanted.iter().filter(changed).map(|(slot, now)| (slot.clone(), now.keep)).collect();
        let mut events = Vec::new();
        for (slot, keep) in changed {
            let Some(tenure) = self.state.tenures.get(&slot).copied().filter(|t| t.state == TenureState::Held) else { continue };
            let Some(index) = self.word(&slot) else { continue };
            let word = self.table.word(index);
            if keep {
                // One that was fenced meanwhile stays so: its loss is on its way.
                let _fenced = word.extend(KEPT, clock::now);
            } else if word.is_kept() {
                let lease = self.holder.as_ref().and_then(|h| h.held(clock::now(), &slot)).filter(|(epoch, _)| epoch.0 == tenure.epoch);
                match lease {
                    Some((_, deadline)) => drop(word.limit(deadline)),
                    None => events.extend(self.kept_no_longer(&slot)),
                }
            }
        }
        if !events.is_empty() {
            self.holder_events(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(keep: bool) -> Wanted {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let table = cluster_fence::Table::open(&dir.path().join("table"), 1).expect("a table");
        let unit = table.add_unit(true).expect("a place");
        Wanted { unit, role: true, t: DEFAULT_T, keep, order: Vec::new(), ready: true, seen: 0 }
    }

    /// `Keep` must not touch a slot with `Stop`: a word without a deadline is what keeps, and only a slot that wants it gets one.
    #[test]
    fn only_a_slot_that_keeps_has_a_word_without_a_deadline() {
        assert_eq!(until(Some(&wanted(true)), Time(5)), KEPT);
        assert_eq!(until(Some(&wanted(false)), Time(5)), Time(5));
        assert_eq!(until(None, Time(5)), Time(5), "nobody said so");
    }

    #[test]
    fn kept_slots_are_asked_for_at_once_and_then_each_second() {
        let slot: Slot = "app/a".parse().expect("a slot");
        let mut keeping = Keeping::default();
        assert_eq!((keeping.next_wake(), keeping.due(Time(1)).len()), (None, 0));
        keeping.begin(slot.clone());
        assert_eq!(keeping.due(Time(7)), std::slice::from_ref(&slot));
        assert!(keeping.due(Time(8)).is_empty());
        assert_eq!(keeping.next_wake(), Some(Time(7) + ASK_EVERY));
        assert!(keeping.end(&slot) && !keeping.end(&slot) && keeping.next_wake().is_none());
    }
}
