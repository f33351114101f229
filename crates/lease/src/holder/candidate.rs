//! P7: who asks when.

use super::slot::STOOD_BACK;
use crate::time::Span;
use crate::types::NodeName;
use std::sync::Arc;

/// This node as a candidate for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// All candidates, best first, as the controller ranked them. A node that is not listed ranks last.
    pub order: Arc<[NodeName]>,
    /// Could this node serve at once?
    pub ready: bool,
    /// May it go although not ready, if nobody else does?
    pub unready_may_go: bool,
}

impl Candidacy {
    /// A node's rank; 0 is the best.
    #[must_use]
    pub fn rank(&self, node: &NodeName) -> u64 {
        self.order.iter().position(|name| name == node).unwrap_or(self.order.len()) as u64
    }

    /// Does `a` rank better than `b`?
    #[must_use]
    pub fn before(&self, a: &NodeName, b: &NodeName) -> bool {
        self.rank(a) < self.rank(b)
    }

    /// May this node ask at all?
    #[must_use]
    pub const fn may_go(&self) -> bool {
        self.ready || self.unready_may_go
    }

    /// A node's rank once the lease of `ran_out` did: that one comes last, and nobody waits for its turn.
    #[must_use]
    pub fn rank_after(&self, node: &NodeName, ran_out: Option<&NodeName>) -> u64 {
        let rank = self.rank(node);
        match ran_out.map(|gone| (gone == node, self.rank(gone))) {
            Some((true, _)) => self.order.len() as u64,
            Some((false, gone)) if gone < rank => rank - 1,
            _ => rank,
        }
    }

    /// How long this node waits once a slot is free, after the lease of `ran_out` did, if it did. Rank r waits r staggers. One that is not
    /// ready stands back until all ranks had their turn and five staggers more, and does not go at all unless its policy allows.
    #[must_use]
    pub fn delay(&self, node: &NodeName, ran_out: Option<&NodeName>, stagger: Span, jitter: Span) -> Option<Span> {
        let rank = self.rank_after(node, ran_out);
        let jitter = if rank == 0 { Span::ZERO } else { jitter };
        let turns = match (self.ready, self.unready_may_go) {
            (true, _) => rank,
            (false, true) => self.order.len() as u64 + STOOD_BACK + rank,
            (false, false) => return None,
        };
        Some(Span(stagger.times(turns).0.saturating_add(jitter.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_ready_ones_by_rank_then_the_best_of_the_others() {
        let name = |n: &str| NodeName::new(n).unwrap();
        let order: Arc<[NodeName]> = Arc::from([name("a"), name("b"), name("c")]);
        let stagger = Span(10);
        let delay = |node: &str, ready, may| {
            let candidacy = Candidacy { order: order.clone(), ready, unready_may_go: may };
            candidacy.delay(&name(node), None, stagger, Span(1)).map(|span| span.0)
        };
        assert_eq!(delay("a", true, false), Some(0));
        assert_eq!(delay("b", true, false), Some(11));
        assert_eq!(delay("z", true, false), Some(31));
        assert_eq!(delay("a", false, true), Some(80));
        assert_eq!(delay("b", false, true), Some(91));
        assert_eq!(delay("b", false, false), None);
    }

    #[test]
    fn p7_nobody_waits_for_the_one_whose_lease_ran_out() {
        let name = |n: &str| NodeName::new(n).unwrap();
        let order: Arc<[NodeName]> = Arc::from([name("a"), name("b"), name("c")]);
        let candidacy = Candidacy { order, ready: true, unready_may_go: false };
        let ranks = |gone: Option<&str>| ["a", "b", "c", "z"].map(|node| candidacy.rank_after(&name(node), gone.map(name).as_ref()));
        assert_eq!(ranks(None), [0, 1, 2, 3]);
        assert_eq!(ranks(Some("a")), [3, 0, 1, 2]);
        assert_eq!(ranks(Some("b")), [0, 3, 1, 2]);
        assert_eq!(ranks(Some("z")), [0, 1, 2, 3], "one that is no candidate had no turn");
    }
}
