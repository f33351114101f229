//! Voter sets (B5): who votes, what a majority is, and which set may follow which.

use crate::types::{NodeName, SetNo, VoterId};

/// Voters of one set at most; one more than the largest size at rest, as a change adds before it removes.
pub const VOTERS_MAX: usize = 6;

/// One voter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Identity of its memory.
    pub id: VoterId,
    /// Where it runs.
    pub node: NodeName,
}

/// A numbered list of voters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoterSet {
    number: SetNo,
    members: Vec<Member>,
}

/// A list that is no voter set, or no next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// None, or more than [`VOTERS_MAX`].
    #[error("a set of {0} voters; must be 1 to {VOTERS_MAX}")]
    Size(usize),
    /// The same voter id or the same node twice.
    #[error("voter {0} is listed twice")]
    Twice(NodeName),
    /// Not exactly one voter more or less than the former set.
    #[error("set {next} differs from set {from} by {changes} voters; must differ by exactly one")]
    Step {
        /// The former set.
        from: SetNo,
        /// The offered one.
        next: SetNo,
        /// Voters added plus voters removed.
        changes: usize,
    },
    /// Not the number after the former one.
    #[error("set {next} cannot follow set {from}")]
    Number {
        /// The former set.
        from: SetNo,
        /// The offered one.
        next: SetNo,
    },
}

impl VoterSet {
    /// A set of these voters, in order of their ids.
    ///
    /// # Errors
    /// [`SetError::Size`] or [`SetError::Twice`].
    pub fn new(number: SetNo, mut members: Vec<Member>) -> Result<Self, SetError> {
        if members.is_empty() || members.len() > VOTERS_MAX {
            return Err(SetError::Size(members.len()));
        }
        members.sort();
        for (i, member) in members.iter().enumerate() {
            if members.iter().skip(i + 1).any(|other| other.id == member.id || other.node == member.node) {
                return Err(SetError::Twice(member.node.clone()));
            }
        }
        Ok(Self { number, members })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> SetNo {
        self.number
    }

    /// Its voters, in order of their ids.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many make a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Is this voter one of them?
    #[must_use]
    pub fn has(&self, id: VoterId) -> bool {
        self.members.iter().any(|m| m.id == id)
    }

    /// The voter with this id.
    #[must_use]
    pub fn member(&self, id: VoterId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// Do those for which `says` is true make a majority?
    pub fn agreed(&self, says: impl Fn(VoterId) -> bool) -> bool {
        self.members.iter().filter(|m| says(m.id)).count() >= self.majority()
    }

    /// B5.1: may `next` follow this set? Its number is one higher and it has exactly one voter more or less. Then any majority of the
    /// one meets any majority of the other: their sizes sum to n + 2, out of n + 1 voters.
    ///
    /// # Errors
    /// [`SetError::Number`] or [`SetError::Step`].
    pub fn check_next(&self, next: &Self) -> Result<(), SetError> {
        if next.number.0 != self.number.0 + 1 {
            return Err(SetError::Number { from: self.number, next: next.number });
        }
        let added = next.members.iter().filter(|m| !self.members.contains(m)).count();
        let removed = self.members.iter().filter(|m| !next.members.contains(m)).count();
        if added + removed != 1 {
            return Err(SetError::Step { from: self.number, next: next.number, changes: added + removed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(number: u64, ids: &[u128]) -> VoterSet {
        let members = ids.iter().map(|&i| Member { id: VoterId(i), node: NodeName::new(&format!("n{i}")).unwrap() });
        VoterSet::new(SetNo(number), members.collect()).unwrap()
    }

    #[test]
    fn next_differs_by_exactly_one() {
        let three = set(4, &[1, 2, 3]);
        assert_eq!(three.check_next(&set(5, &[1, 2, 3, 4])), Ok(()));
        assert_eq!(three.check_next(&set(5, &[1, 3])), Ok(()));
        assert!(matches!(three.check_next(&set(5, &[1, 2, 4])), Err(SetError::Step { changes: 2, .. })));
        assert!(matches!(three.check_next(&set(5, &[1, 2, 3])), Err(SetError::Step { changes: 0, .. })));
        assert!(matches!(three.check_next(&set(6, &[1, 2])), Err(SetError::Number { .. })));
    }

    /// Rule B5.1 by brute force: all majorities of all adjacent sets of up to six voters meet.
    #[test]
    fn majorities_of_adjacent_sets_meet() {
        for n in 1..VOTERS_MAX {
            let (small, large) = (set(1, &(0..n as u128).collect::<Vec<_>>()), set(2, &(0..=n as u128).collect::<Vec<_>>()));
            for a in 0u32..1 << n {
                for b in 0u32..1 << (n + 1) {
                    let in_a = |id: VoterId| a >> id.0 & 1 == 1;
                    let in_b = |id: VoterId| b >> id.0 & 1 == 1;
                    if small.agreed(in_a) && large.agreed(in_b) {
                        assert_ne!(a & b, 0, "sizes {n} and {}", n + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn a_voter_is_listed_once() {
        let twice = vec![
            Member { id: VoterId(1), node: NodeName::new("a").unwrap() },
            Member { id: VoterId(2), node: NodeName::new("a").unwrap() },
        ];
        assert!(matches!(VoterSet::new(SetNo(1), twice), Err(SetError::Twice(_))));
        assert_eq!(VoterSet::new(SetNo(1), vec![]), Err(SetError::Size(0)));
    }
}
