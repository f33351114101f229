//! D5: between the lease and the start of an epoch.
//!
//! Which node the ex-active is, and so whose standbys count, is read from the histories in the answers: it is the node of the last start
//! that any of them has. Not the last holder of the lease: one that was active so shortly that nobody heard its start had no write confirmed,
//! but may be the only one that holds what was confirmed before it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{NodeName, Sealed};
use crate::lineage::{Chain, Corruption, Follow, Position, order};

/// What the App asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A write counts once this many standbys have it. 0: the promotion waits for nobody it cannot reach.
    pub confirm: usize,
    /// Most transactions that may be missing against the last position heard; `None`: as many as it be.
    pub max_lag: Option<u64>,
    /// Longest wait for answers beyond those that must be there.
    pub wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { confirm: 0, max_lag: None, wait: Duration::from_millis(100) }
    }
}

/// Why the database has no active for now. Each may go by itself, when somebody answers, or by an operator's override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StayDown {
    /// Somebody noted a higher epoch: this tenure is over.
    #[error("epoch {0} has been heard of: this tenure is over")]
    Deposed(u64),
    /// Too few standbys answered to be sure that every confirmed write is among what they have.
    #[error("{answers} of {needed} standbys answer, a confirmed write may be on another")]
    TooFewAnswers {
        /// Answers, this node's included.
        answers: usize,
        /// Answers that `confirm` asks for.
        needed: usize,
    },
    /// More transactions would be lost than `maxLag` allows.
    #[error("{lag} transactions would be lost, more than maxLag {max} allows")]
    TooFarBehind {
        /// Missing against the last position heard.
        lag: u64,
        /// Allowed.
        max: u64,
    },
    /// Two nodes have different content under one name.
    #[error("two standbys disagree about what the database is")]
    Corrupt(#[source] Corruption),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for answers until then (the time given to [`Promotion::decide`], or earlier when one comes), asking those again.
    Wait {
        /// When to ask again.
        until: Duration,
        /// Who has not answered.
        ask: Vec<NodeName>,
    },
    /// Get from `from` what it has after `have`: ask it for its tail, append it, and say so with [`Promotion::fetched`]; or say that it
    /// does not answer with [`Promotion::lost`].
    Fetch {
        /// The node with the best tail.
        from: NodeName,
        /// Our own position.
        have: Position,
    },
    /// Our own tail is void: keep it as divergence, take a snapshot from `from`, then [`Promotion::fetched`].
    Resync {
        /// The node with the best tail.
        from: NodeName,
        /// The last transaction both have.
        common: u64,
    },
    /// Begin the epoch at this position, which is our log's end.
    Start {
        /// The base.
        base: Position,
    },
    /// Not now.
    StayDown(StayDown),
}

/// One promotion of one node, for one tenure.
#[derive(Clone, Debug)]
pub struct Promotion {
    me: NodeName,
    epoch: u64,
    policy: Policy,
    begun: Duration,
    mine: Position,
    chain: Chain,
    others: BTreeSet<NodeName>,
    answers: BTreeMap<NodeName, Sealed>,
    lost: BTreeSet<NodeName>,
    heard: u64,
    overridden: bool,
}

impl Promotion {
    /// Begins at `now`, on node `me`, whose own answer is `own`: sealed for the tenure's epoch. `others`: all other nodes that have or had the
    /// database. `heard`: the last transaction heard of, in whatever way.
    pub fn new(me: &str, policy: Policy, now: Duration, own: Sealed, others: BTreeSet<NodeName>, heard: u64) -> Self {
        let (answers, lost) = (BTreeMap::new(), BTreeSet::new());
        let Sealed { epoch, position: mine, chain } = own;
        Self { me: me.to_owned(), epoch, policy, begun: now, mine, chain, others, answers, lost, heard, overridden: false }
    }

    /// Node of the last start that anybody here has.
    fn ex_active(&self) -> Option<&str> {
        let starts = self.answers.values().map(|sealed| &sealed.chain).chain([&self.chain]).filter_map(|chain| chain.starts().last());
        starts.max_by_key(|start| start.epoch).map(|start| start.node.as_str())
    }

    /// An operator accepts the loss: `max_lag` and `confirm` hold nobody any more.
    pub fn override_loss(&mut self) {
        self.overridden = true;
    }

    /// `node` answered.
    pub fn answer(&mut self, node: &str, sealed: Sealed) {
        if self.others.contains(node) {
            self.lost.remove(node);
            self.answers.insert(node.to_owned(), sealed);
        }
    }

    /// What was to be fetched is in our log now, durably.
    pub fn fetched(&mut self, mine: Position, chain: Chain) {
        self.mine = mine;
        self.chain = chain;
    }

    /// `node` answered once and does not give what it has: as if it had not answered. It is asked again.
    pub fn lost(&mut self, node: &str) {
        self.answers.remove(node);
        self.lost.insert(node.to_owned());
    }

    /// The next step at `now`.
    pub fn decide(&self, now: Duration) -> Step {
        if let Some(higher) = self.answers.values().map(|sealed| sealed.epoch).filter(|epoch| *epoch > self.epoch).max() {
            return Step::StayDown(StayDown::Deposed(higher));
        }
        let ex = self.ex_active();
        let missing: Vec<_> = self.others.iter().filter(|node| !self.answers.contains_key(*node)).cloned().collect();
        let until = self.begun + self.policy.wait;
        // Nobody waits for the ex-active: it is the one that died.
        if now < until && missing.iter().any(|node| !self.lost.contains(node) && Some(node.as_str()) != ex) {
            return Step::Wait { until, ask: missing };
        }
        let standby = |node: &&str| Some(*node) != ex;
        let standbys = self.others.iter().map(String::as_str).chain([self.me.as_str()]).filter(standby).count();
        let answers = self.answers.keys().map(String::as_str).chain([self.me.as_str()]).filter(standby).count();
        let needed = if self.policy.confirm == 0 { 0 } else { (standbys + 1).saturating_sub(self.policy.confirm) };
        if answers < needed && !self.overridden {
            return Step::StayDown(StayDown::TooFewAnswers { answers, needed });
        }
        let mut best: Option<(&NodeName, &Sealed)> = None;
        for (node, sealed) in &self.answers {
            let than = best.map_or(self.mine, |(_, sealed)| sealed.position);
            match order(&sealed.position, &than) {
                Ok(Ordering::Greater) => best = Some((node, sealed)),
                Ok(_) => {}
                Err(corruption) => return Step::StayDown(StayDown::Corrupt(corruption)),
            }
        }
        let end = best.map_or(self.mine.tx, |(_, sealed)| sealed.position.tx);
        if let Some(max) = self.policy.max_lag.filter(|_| !self.overridden) {
            let lag = self.heard.saturating_sub(end);
            if lag > max {
                return Step::StayDown(StayDown::TooFarBehind { lag, max });
            }
        }
        match best {
            None => Step::Start { base: self.mine },
            Some((node, sealed)) => match self.chain.follow(self.mine, &sealed.chain, sealed.position.tx) {
                Follow::Continue { .. } => Step::Fetch { from: node.clone(), have: self.mine },
                Follow::Diverged { common } => Step::Resync { from: node.clone(), common },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::Start;

    fn at(epoch: u64, tx: u64) -> Position {
        Position { epoch, tx, checksum: epoch * 100 + tx }
    }

    /// Epochs with their bases; `ex` was active in the last one.
    fn chain(epochs: &[(u64, Position)], ex: &str) -> Chain {
        let node = |epoch: u64| if epoch == 1 { "ex" } else { ex }.to_owned();
        Chain::new(epochs.iter().map(|(epoch, base)| Start { epoch: *epoch, base: *base, node: node(*epoch) }).collect()).unwrap()
    }

    fn first() -> Chain {
        chain(&[(1, Position::default())], "ex")
    }

    fn sealed(epoch: u64, position: Position) -> Sealed {
        Sealed { epoch, position, chain: first() }
    }

    fn promotion(policy: Policy, mine: Position, heard: u64) -> Promotion {
        Promotion::new("a", policy, Duration::ZERO, sealed(5, mine), ["b", "c", "ex"].map(str::to_owned).into(), heard)
    }

    const LATE: Duration = Duration::from_millis(101);

    #[test]
    fn d5_waits_for_all_or_a_moment_and_the_best_tail_wins() {
        let mut promotion = promotion(Policy::default(), at(1, 10), 0);
        assert!(matches!(promotion.decide(Duration::ZERO), Step::Wait { ask, .. } if ask == ["b", "c", "ex"]));
        promotion.answer("b", sealed(5, at(1, 12)));
        assert!(matches!(promotion.decide(Duration::ZERO), Step::Wait { ask, .. } if ask == ["c", "ex"]));
        assert_eq!(promotion.decide(LATE), Step::Fetch { from: "b".to_owned(), have: at(1, 10) });
        promotion.answer("c", sealed(5, at(1, 14)));
        assert_eq!(promotion.decide(Duration::ZERO), Step::Fetch { from: "c".to_owned(), have: at(1, 10) });
        promotion.lost("c");
        assert_eq!(promotion.decide(LATE), Step::Fetch { from: "b".to_owned(), have: at(1, 10) });
        promotion.fetched(at(1, 12), first());
        assert_eq!(promotion.decide(LATE), Step::Start { base: at(1, 12) });
        // Of whom it is not a standby, nothing is asked and nothing believed.
        promotion.answer("stranger", sealed(5, at(1, 99)));
        assert_eq!(promotion.decide(LATE), Step::Start { base: at(1, 12) });
    }

    #[test]
    fn d5_confirm_needs_as_many_answers_as_leave_no_confirmed_write_out() {
        for (confirm, needed) in [(0, 0), (1, 3), (2, 2), (3, 1), (9, 0)] {
            let mut promotion = promotion(Policy { confirm, ..Policy::default() }, at(1, 10), 0);
            for (answers, node) in ["nobody", "b", "c"].iter().enumerate() {
                promotion.answer(node, sealed(5, at(1, 10)));
                let expected = if answers + 1 >= needed {
                    Step::Start { base: at(1, 10) }
                } else {
                    Step::StayDown(StayDown::TooFewAnswers { answers: answers + 1, needed })
                };
                assert_eq!(promotion.decide(LATE), expected, "confirm {confirm}, {answers} answers");
            }
        }
        let mut promotion = promotion(Policy { confirm: 1, ..Policy::default() }, at(1, 10), 0);
        promotion.override_loss();
        assert_eq!(promotion.decide(LATE), Step::Start { base: at(1, 10) });
    }

    #[test]
    fn d5_the_ex_active_is_the_node_of_the_last_start_heard() {
        // "b" was active in epoch 2, and nobody heard of it. What was confirmed in epoch 1 is on "b" or on "c": both must answer.
        let policy = Policy { confirm: 1, ..Policy::default() };
        let mut promotion = Promotion::new("ex", policy, Duration::ZERO, sealed(5, at(1, 10)), ["b", "c"].map(str::to_owned).into(), 0);
        promotion.answer("c", sealed(5, at(1, 10)));
        assert_eq!(promotion.decide(LATE), Step::StayDown(StayDown::TooFewAnswers { answers: 1, needed: 2 }));
        // Once "c" heard of it, it has all that "b" had then: the standbys that count are those of "b".
        let heard = chain(&[(2, at(1, 12))], "b");
        promotion.answer("c", Sealed { epoch: 5, position: at(2, 12), chain: heard });
        assert!(matches!(promotion.decide(LATE), Step::Fetch { from, .. } | Step::Resync { from, .. } if from == "c"));
    }

    #[test]
    fn max_lag_refuses_until_overridden() {
        let policy = Policy { max_lag: Some(5), ..Policy::default() };
        assert_eq!(promotion(policy, at(1, 10), 15).decide(LATE), Step::Start { base: at(1, 10) });
        let mut promotion = promotion(policy, at(1, 10), 16);
        assert_eq!(promotion.decide(LATE), Step::StayDown(StayDown::TooFarBehind { lag: 6, max: 5 }));
        promotion.answer("b", sealed(5, at(1, 11)));
        assert!(matches!(promotion.decide(LATE), Step::Fetch { .. }));
        promotion.lost("b");
        promotion.override_loss();
        assert_eq!(promotion.decide(LATE), Step::Start { base: at(1, 10) });
    }

    #[test]
    fn deposed_void_and_corrupt_are_told_apart() {
        let mut deposed = promotion(Policy::default(), at(1, 10), 0);
        deposed.answer("b", sealed(6, at(1, 1)));
        assert_eq!(deposed.decide(Duration::ZERO), Step::StayDown(StayDown::Deposed(6)));
        let mut corrupt = promotion(Policy::default(), at(1, 10), 0);
        corrupt.answer("b", sealed(5, Position { checksum: 1, ..at(1, 10) }));
        assert!(matches!(corrupt.decide(LATE), Step::StayDown(StayDown::Corrupt(_))));
        let mut void = promotion(Policy::default(), at(1, 10), 0);
        let other = chain(&[(1, Position::default()), (3, at(1, 7))], "c");
        void.answer("c", Sealed { epoch: 5, position: at(3, 8), chain: other });
        assert_eq!(void.decide(LATE), Step::Resync { from: "c".to_owned(), common: 7 });
    }
}
