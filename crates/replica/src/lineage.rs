//! The history of a database: epochs, where each began, and how two tails compare (D3, D4, D9, D10). Pure.

use std::cmp::Ordering;

/// Most epochs a chain remembers. The oldest go first: a replica that far behind takes a snapshot.
pub const MAX_CHAIN: usize = 256;

/// A state of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the last [`Start`] before it; 0 before the first.
    pub epoch: u64,
    /// Transactions applied, along the chain.
    pub tx: u64,
    /// Checksum of the whole database.
    pub checksum: u64,
}

/// Opens an epoch: the first record its active appends and sends (D3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The epoch: that of the lease's tenure.
    pub epoch: u64,
    /// The state it goes on from. Records of lower epochs with a higher transaction number are void.
    pub base: Position,
    /// Its active.
    pub node: String,
}

/// Two states with one name and different content: a disk, a memory or a program is broken. Never merged (D10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two contents for transaction {tx} of epoch {epoch}: checksums {left:016x} and {right:016x}")]
pub struct Corruption {
    /// Epoch of both.
    pub epoch: u64,
    /// Transaction of both.
    pub tx: u64,
    /// One checksum.
    pub left: u64,
    /// The other.
    pub right: u64,
}

/// Which of two tails is the better one (D10): by the last start heard, then by transactions.
pub fn order(left: &Position, right: &Position) -> Result<Ordering, Corruption> {
    match (left.epoch, left.tx).cmp(&(right.epoch, right.tx)) {
        Ordering::Equal if left.checksum != right.checksum => {
            Err(Corruption { epoch: left.epoch, tx: left.tx, left: left.checksum, right: right.checksum })
        }
        other => Ok(other),
    }
}

/// Why a start does not go on a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Its base lies in an epoch that the chain does not have: fetch the chain.
    #[error("epoch {epoch} begins from epoch {base}, which is not known here")]
    UnknownBase {
        /// Epoch of the start.
        epoch: u64,
        /// Epoch of its base.
        base: u64,
    },
    /// Its base lies before the epoch it names began.
    #[error("epoch {epoch} begins at transaction {tx}, before its base epoch began")]
    BaseBeforeEpoch {
        /// Epoch of the start.
        epoch: u64,
        /// Transaction of its base.
        tx: u64,
    },
    /// An epoch begins once.
    #[error("epoch {epoch} has begun otherwise already")]
    Doubled {
        /// The epoch.
        epoch: u64,
    },
}

/// The starts that lead to the present state, ascending. Void ones are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    starts: Vec<Start>,
}

impl Chain {
    /// A chain of starts, each checked against those before it. The first one's base is taken as it is: what came before may be forgotten.
    pub fn new(starts: Vec<Start>) -> Result<Self, ChainError> {
        let mut chain = Self::default();
        for start in starts {
            chain.push(start)?;
        }
        Ok(chain)
    }

    /// Its starts.
    pub fn starts(&self) -> &[Start] {
        &self.starts
    }

    /// The present epoch, 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.starts.last().map_or(0, |start| start.epoch)
    }

    /// Goes on with `start`. Epochs above its base's epoch were void, and leave. The same one again changes nothing.
    pub fn push(&mut self, start: Start) -> Result<(), ChainError> {
        if self.starts.contains(&start) {
            return Ok(());
        }
        let kept = self.starts.partition_point(|known| known.epoch <= start.base.epoch);
        if let Some(known) = self.starts.iter().find(|known| known.epoch == start.epoch) {
            return Err(ChainError::Doubled { epoch: known.epoch });
        }
        match kept.checked_sub(1).and_then(|last| self.starts.get(last)) {
            Some(last) if last.epoch != start.base.epoch => {
                return Err(ChainError::UnknownBase { epoch: start.epoch, base: start.base.epoch });
            }
            Some(last) if last.base.tx > start.base.tx => {
                return Err(ChainError::BaseBeforeEpoch { epoch: start.epoch, tx: start.base.tx });
            }
            None if !self.starts.is_empty() => {
                return Err(ChainError::UnknownBase { epoch: start.epoch, base: start.base.epoch });
            }
            _ => {}
        }
        self.starts.truncate(kept);
        self.starts.push(start);
        if self.starts.len() > MAX_CHAIN {
            self.starts.remove(0);
        }
        Ok(())
    }

    /// Last transaction of the epoch at `place`, for a state at `head`.
    fn end(&self, place: usize, head: u64) -> u64 {
        self.starts.get(place + 1).map_or(head, |next| next.base.tx)
    }

    /// Whether a record (or state) of this epoch and transaction is part of this history rather than void.
    pub fn holds(&self, epoch: u64, tx: u64) -> bool {
        let Some(place) = self.starts.iter().position(|start| start.epoch == epoch) else { return false };
        tx >= self.starts[place].base.tx && self.starts.get(place + 1).is_none_or(|next| tx <= next.base.tx)
    }

    /// The last transaction that two histories share: `self` up to `head`, `other` up to `other_head`. `None`: nothing in common that
    /// both remember.
    pub fn common(&self, head: u64, other: &Self, other_head: u64) -> Option<u64> {
        // One of them may have forgotten its oldest epochs.
        let (mine, theirs) = self
            .starts
            .iter()
            .enumerate()
            .rev()
            .find_map(|(mine, start)| other.starts.iter().position(|known| known == start).map(|theirs| (mine, theirs)))?;
        Some(self.end(mine, head).min(other.end(theirs, other_head)))
    }

    /// How a replica with this history and this `head` goes on behind an active (D9).
    pub fn follow(&self, head: Position, active: &Self, active_head: u64) -> Follow {
        if self.starts.is_empty() && head.tx == 0 {
            return Follow::Continue { from: 0 };
        }
        match self.common(head.tx, active, active_head) {
            Some(common) if common == head.tx => Follow::Continue { from: common },
            Some(common) => Follow::Diverged { common },
            None => Follow::Diverged { common: 0 },
        }
    }
}

/// See [`Chain::follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// All it has is part of the active's history: transactions after `from` bring it up.
    Continue {
        /// Last transaction it has.
        from: u64,
    },
    /// Its transactions after `common` are void: they are kept as divergence, and the database is brought back by pages.
    Diverged {
        /// Last transaction that is shared.
        common: u64,
    },
}

/// What a standby makes of a record of some epoch, given the highest epoch it durably noted (D4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Of the noted epoch, or of one to be noted now, before anything is answered.
    Take,
    /// Of a lower epoch: whoever sends it is deposed. Not applied, not confirmed.
    Refuse,
}

/// D4.
pub fn admit(noted: u64, epoch: u64) -> Admission {
    if epoch >= noted { Admission::Take } else { Admission::Refuse }
}

/// What a record found in the stream where an append did not fit means to the active of `epoch` (D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// My own append got through: go on behind it.
    Mine,
    /// Somebody with a higher epoch appends: I am deposed. Stop.
    Deposed,
    /// A record of my history that another wrote before me: go on behind it.
    Inherited,
    /// A record of a lower epoch that is not in my history. My start covers it; go on behind it.
    Void,
}

/// D6: judges the record at the place where an append was refused or timed out. `mine`: it leads to a state of my log.
pub fn judge(chain: &Chain, mine: bool, epoch: u64, tx: u64) -> Found {
    if mine {
        Found::Mine
    } else if epoch > chain.epoch() {
        Found::Deposed
    } else if chain.holds(epoch, tx) {
        Found::Inherited
    } else {
        Found::Void
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: u64, tx: u64) -> Position {
        Position { epoch, tx, checksum: epoch * 1000 + tx }
    }

    fn start(epoch: u64, base: Position) -> Start {
        Start { epoch, base, node: format!("n{epoch}") }
    }

    fn chain(starts: &[(u64, u64, u64)]) -> Chain {
        Chain::new(starts.iter().map(|(epoch, base, tx)| start(*epoch, at(*base, *tx))).collect()).unwrap()
    }

    #[test]
    fn d10_later_start_wins_then_the_longer_tail_and_equal_names_must_be_equal() {
        assert_eq!(order(&at(3, 10), &at(2, 99)), Ok(Ordering::Greater));
        assert_eq!(order(&at(3, 10), &at(3, 11)), Ok(Ordering::Less));
        assert_eq!(order(&at(3, 10), &at(3, 10)), Ok(Ordering::Equal));
        let broken = Position { checksum: 5, ..at(3, 10) };
        let error = order(&at(3, 10), &broken).unwrap_err();
        assert_eq!(error.to_string(), "two contents for transaction 10 of epoch 3: checksums 0000000000000bc2 and 0000000000000005");
    }

    #[test]
    fn a_start_voids_the_epochs_above_its_base() {
        let mut chain = chain(&[(1, 0, 0), (4, 1, 10), (5, 4, 20)]);
        chain.push(start(7, at(4, 15))).unwrap();
        assert_eq!(chain.starts().iter().map(|start| start.epoch).collect::<Vec<_>>(), [1, 4, 7]);
        assert!(chain.holds(1, 10) && !chain.holds(1, 11) && chain.holds(4, 15) && !chain.holds(4, 16) && !chain.holds(5, 20));
        assert!(chain.holds(7, 1000));
        chain.push(start(7, at(4, 15))).unwrap();
        assert_eq!(chain.push(start(7, at(4, 14))), Err(ChainError::Doubled { epoch: 7 }));
        assert_eq!(chain.push(start(9, at(5, 20))), Err(ChainError::UnknownBase { epoch: 9, base: 5 }));
        assert_eq!(chain.push(start(9, at(7, 3))), Err(ChainError::BaseBeforeEpoch { epoch: 9, tx: 3 }));
    }

    #[test]
    fn d9_an_old_active_continues_up_to_the_base_and_diverges_beyond_it() {
        let active = chain(&[(1, 0, 0), (2, 1, 10)]);
        let old = chain(&[(1, 0, 0)]);
        assert_eq!(old.follow(at(1, 8), &active, 30), Follow::Continue { from: 8 });
        assert_eq!(old.follow(at(1, 10), &active, 30), Follow::Continue { from: 10 });
        assert_eq!(old.follow(at(1, 11), &active, 30), Follow::Diverged { common: 10 });
        assert_eq!(active.follow(at(2, 30), &active, 30), Follow::Continue { from: 30 });
        assert_eq!(Chain::default().follow(Position::default(), &active, 30), Follow::Continue { from: 0 });
        // Heard of an epoch that came to nothing: what it has of before is still good.
        let void = chain(&[(1, 0, 0), (3, 1, 10)]);
        let later = chain(&[(1, 0, 0), (5, 1, 12)]);
        assert_eq!(void.follow(at(3, 10), &later, 40), Follow::Continue { from: 10 });
        assert_eq!(void.follow(at(3, 11), &later, 40), Follow::Diverged { common: 10 });
        assert_eq!(chain(&[(8, 7, 50)]).follow(at(8, 60), &later, 40), Follow::Diverged { common: 0 });
    }

    #[test]
    fn d4_lower_epochs_are_refused() {
        assert_eq!([admit(5, 4), admit(5, 5), admit(5, 6)], [Admission::Refuse, Admission::Take, Admission::Take]);
    }

    #[test]
    fn d6_a_mismatch_deposes_by_a_higher_epoch_only() {
        let chain = chain(&[(1, 0, 0), (4, 1, 10)]);
        assert_eq!(judge(&chain, true, 4, 11), Found::Mine);
        assert_eq!(judge(&chain, false, 5, 11), Found::Deposed);
        assert_eq!(judge(&chain, false, 1, 9), Found::Inherited);
        assert_eq!(judge(&chain, false, 1, 11), Found::Void);
        assert_eq!(judge(&chain, false, 3, 1), Found::Void);
    }

    #[test]
    fn chains_are_bounded() {
        let mut chain = Chain::default();
        for epoch in 1..=MAX_CHAIN as u64 + 10 {
            chain.push(start(epoch, at(epoch - 1, epoch))).unwrap();
        }
        assert_eq!(chain.starts().len(), MAX_CHAIN);
        // What is forgotten on one side only still meets.
        let longer = chain.clone();
        assert_eq!(chain.common(500, &longer, 400), Some(400));
    }

    proptest! {
        /// Two histories that part at a transaction share exactly what came before, whatever epochs follow on either side.
        #[test]
        fn common_is_where_they_part(shared in prop::collection::vec(0..20_u64, 1..6), left in prop::collection::vec(0..20_u64, 0..4),
                                     right in prop::collection::vec(0..20_u64, 0..4), left_more in 0..9_u64, right_more in 0..9_u64) {
            let mut base = Chain::default();
            let mut head = Position::default();
            for (epoch, more) in (1_u64..).zip(&shared) {
                base.push(start(epoch, head)).unwrap();
                head = at(epoch, head.tx + more);
            }
            let grow = |side: &[u64], more: u64, offset: u64| {
                let (mut chain, mut head, mut parted) = (base.clone(), head, head.tx + more);
                if !side.is_empty() { parted = head.tx; }
                for (number, step) in (0_u64..).zip(side) {
                    let epoch = 100 + number * 2 + offset;
                    chain.push(start(epoch, head)).unwrap();
                    head = at(epoch, head.tx + step);
                }
                let end = if side.is_empty() { parted } else { head.tx };
                (chain, end, parted)
            };
            let (a, a_head, a_parted) = grow(&left, left_more, 0);
            let (b, b_head, b_parted) = grow(&right, right_more, 1);
            prop_assert_eq!(a.common(a_head, &b, b_head), Some(a_parted.min(b_parted)));
            prop_assert_eq!(b.common(b_head, &a, a_head), Some(a_parted.min(b_parted)));
            prop_assert_eq!(a.common(a_head, &a, a_head), Some(a_head));
        }
    }
}
