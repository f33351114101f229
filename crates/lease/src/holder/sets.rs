//! The voter sets a holder knows (B5.4): the present one, the one before it, and which of them each voter answers in.

use crate::set::{Member, VoterSet};
use crate::types::{SetNo, VoterId};
use std::collections::BTreeMap;

/// Two adjacent sets. While a change is under way some voters answer in the one and some in the other.
#[derive(Clone, Debug)]
pub struct KnownSets {
    current: VoterSet,
    previous: Option<VoterSet>,
    labels: BTreeMap<VoterId, SetNo>,
}

impl KnownSets {
    pub(super) const fn new(current: VoterSet) -> Self {
        Self { current, previous: None, labels: BTreeMap::new() }
    }

    /// The highest set known.
    #[must_use]
    pub const fn current(&self) -> &VoterSet {
        &self.current
    }

    /// A known set.
    #[must_use]
    pub fn get(&self, number: SetNo) -> Option<&VoterSet> {
        self.all().find(|set| set.number() == number)
    }

    /// Both sets, the present one first.
    pub fn all(&self) -> impl Iterator<Item = &VoterSet> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// A voter has installed this set. True if it is news. A set that is not the next one drops the former: its deadlines are over by
    /// the commit rule (B5.3), or by the wait of a forced set.
    ///
    /// The set before the present one is news too while it is not known: an agent that starts with a set whose change stands still
    /// would else have no set in which a majority answers.
    pub(super) fn learn(&mut self, set: &VoterSet) -> bool {
        if set.number() <= self.current.number() {
            let before = self.previous.is_none() && set.check_next(&self.current).is_ok();
            if before {
                self.previous = Some(set.clone());
            }
            return before;
        }
        let former = std::mem::replace(&mut self.current, set.clone());
        self.previous = former.check_next(set).is_ok().then_some(former);
        // What was said of older sets is void; the voter that reported this one says so again by its answers.
        self.labels.clear();
        true
    }

    /// A voter answers in this set. True if that is news.
    pub(super) fn label(&mut self, voter: VoterId, number: SetNo) -> bool {
        let known = self.get(number).is_some_and(|set| set.has(voter));
        known && self.labels.insert(voter, number).unwrap_or(self.current.number()) != number
    }

    /// The set to name to this voter, if it votes in it.
    pub(crate) fn label_of(&self, voter: VoterId) -> Option<SetNo> {
        let said = self.labels.get(&voter).and_then(|number| self.get(*number));
        let default = self.all().find(|set| set.has(voter));
        said.or(default).filter(|set| set.has(voter)).map(VoterSet::number)
    }

    /// Every voter of either set, once.
    pub(super) fn voters(&self) -> impl Iterator<Item = &Member> {
        let before = self.previous.iter().flat_map(VoterSet::members);
        self.current.members().iter().chain(before.filter(|member| !self.current.has(member.id)))
    }

    /// The set for an attempt: the present one, unless most voters of the former still answer in that.
    pub(super) fn for_attempt(&self) -> &VoterSet {
        let answers = |set: &VoterSet| set.agreed(|id| self.label_of(id) == Some(set.number()));
        match &self.previous {
            Some(previous) if !answers(&self.current) && answers(previous) => previous,
            _ => &self.current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;

    fn set(number: u64, ids: &[u128]) -> VoterSet {
        let members = ids.iter().map(|&i| Member { id: VoterId(i), node: NodeName::new(&format!("n{i}")).unwrap() });
        VoterSet::new(SetNo(number), members.collect()).unwrap()
    }

    #[test]
    fn b5_each_voter_is_asked_in_the_set_it_answers_in() {
        let mut sets = KnownSets::new(set(1, &[1, 2, 3]));
        assert!(sets.learn(&set(2, &[1, 2, 3, 4])));
        assert!(!sets.learn(&set(1, &[1, 2, 3])));
        assert_eq!(sets.label_of(VoterId(1)), Some(SetNo(2)));
        assert!(sets.label(VoterId(1), SetNo(1)));
        assert!(!sets.label(VoterId(1), SetNo(1)));
        assert!(sets.label(VoterId(2), SetNo(1)));
        assert_eq!(sets.label_of(VoterId(1)), Some(SetNo(1)));
        assert_eq!(sets.for_attempt().number(), SetNo(1), "3 of 4 do not answer in set 2");
        sets.label(VoterId(1), SetNo(2));
        assert_eq!(sets.for_attempt().number(), SetNo(2));
        assert!(!sets.label(VoterId(4), SetNo(1)), "4 does not vote in set 1");
        assert_eq!(sets.voters().count(), 4);
    }

    /// A change stands still after its first install, and an agent starts with what that voter told.
    #[test]
    fn b5_an_agent_that_starts_amid_a_change_learns_the_set_before() {
        let mut sets = KnownSets::new(set(2, &[1, 2, 3, 4]));
        assert!(sets.learn(&set(1, &[1, 2, 3])));
        assert!(sets.label(VoterId(1), SetNo(1)) && sets.label(VoterId(2), SetNo(1)));
        assert_eq!(sets.for_attempt().number(), SetNo(1));
        assert!(!sets.learn(&set(1, &[1, 2, 3])), "no news twice");
        let mut sets = KnownSets::new(set(3, &[1, 2, 3, 4]));
        assert!(!sets.learn(&set(1, &[1, 2, 3])) && !sets.learn(&set(2, &[1, 9])), "only the one before");
    }

    #[test]
    fn a_removed_voter_is_asked_in_the_former_set() {
        let mut sets = KnownSets::new(set(1, &[1, 2, 3]));
        sets.learn(&set(2, &[1, 2]));
        assert_eq!(sets.label_of(VoterId(3)), Some(SetNo(1)));
        assert_eq!(sets.voters().count(), 3);
        sets.learn(&set(4, &[1]));
        assert_eq!(sets.voters().count(), 1, "a jump drops the former set");
    }
}
