//! The holder's arithmetic: from acked sends to a deadline (P3, B5.4).

use crate::set::VoterSet;
use crate::time::Time;
use crate::types::{SetNo, VoterId};

/// One voter's word for one tenure, in one set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The set the acked sends named.
    pub set: SetNo,
    /// Whose ack.
    pub voter: VoterId,
    /// P3: e_v, the largest (send time + T_hold) of the acked sends.
    pub until: Time,
}

/// All votes of one tenure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Votes(Vec<Vote>);

impl Votes {
    /// Counts an ack.
    pub fn ack(&mut self, set: SetNo, voter: VoterId, until: Time) {
        match self.0.iter_mut().find(|vote| vote.set == set && vote.voter == voter) {
            Some(vote) => vote.until = vote.until.max(until),
            None => self.0.push(Vote { set, voter, until }),
        }
    }

    /// P3: the majority-th largest e_v of this set's voters; `None` without a majority.
    #[must_use]
    pub fn deadline(&self, set: &VoterSet) -> Option<Time> {
        // A set has at most six voters: no allocation for what happens thousands of times per interval.
        let mut largest = [Time(0); crate::set::VOTERS_MAX];
        let mut count = 0;
        for vote in self.0.iter().filter(|vote| vote.set == set.number() && set.has(vote.voter)) {
            if let Some(place) = largest.get_mut(count) {
                *place = vote.until;
                count += 1;
            }
        }
        let votes = largest.get_mut(..count)?;
        votes.sort_unstable_by(|a, b| b.cmp(a));
        votes.get(set.majority() - 1).copied()
    }

    /// Forgets votes of sets that are not known any more.
    pub fn retain_sets(&mut self, known: impl Fn(SetNo) -> bool) {
        self.0.retain(|vote| known(vote.set));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Vote> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::Member;
    use crate::types::NodeName;

    fn set(number: u64, ids: &[u128]) -> VoterSet {
        let members = ids.iter().map(|&i| Member { id: VoterId(i), node: NodeName::new(&format!("n{i}")).unwrap() });
        VoterSet::new(SetNo(number), members.collect()).unwrap()
    }

    #[test]
    fn p3_deadline_is_the_majority_th_largest() {
        let three = set(1, &[1, 2, 3]);
        let mut votes = Votes::default();
        votes.ack(SetNo(1), VoterId(1), Time(50));
        assert_eq!(votes.deadline(&three), None);
        votes.ack(SetNo(1), VoterId(1), Time(70));
        votes.ack(SetNo(1), VoterId(9), Time(90));
        assert_eq!(votes.deadline(&three), None, "a stranger does not count");
        votes.ack(SetNo(1), VoterId(2), Time(60));
        assert_eq!(votes.deadline(&three), Some(Time(60)));
        votes.ack(SetNo(1), VoterId(2), Time(40));
        assert_eq!(votes.deadline(&three), Some(Time(60)), "never back");
        votes.ack(SetNo(1), VoterId(3), Time(65));
        assert_eq!(votes.deadline(&three), Some(Time(65)));
    }

    #[test]
    fn b5_acks_count_in_their_own_set_only() {
        let mut votes = Votes::default();
        votes.ack(SetNo(1), VoterId(1), Time(50));
        votes.ack(SetNo(2), VoterId(2), Time(50));
        assert_eq!(votes.deadline(&set(1, &[1, 2, 3])), None);
        assert_eq!(votes.deadline(&set(2, &[1, 2, 3])), None);
    }
}
