//! Which transactions are on how many standbys.

use std::collections::BTreeMap;

use super::NodeName;

/// What standbys confirmed to the active of one epoch.
#[derive(Clone, Debug)]
pub struct Confirmations {
    epoch: u64,
    by: BTreeMap<NodeName, u64>,
}

impl Confirmations {
    /// Nothing yet, for the active of `epoch`.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, by: BTreeMap::new() }
    }

    /// `node` has everything up to `tx` durably. A confirmation of another epoch says nothing about this history.
    pub fn confirm(&mut self, node: &str, epoch: u64, tx: u64) {
        if epoch == self.epoch {
            let known = self.by.entry(node.to_owned()).or_default();
            *known = tx.max(*known);
        }
    }

    /// The last transaction that `count` standbys have; all of them for 0.
    pub fn confirmed(&self, count: usize) -> u64 {
        let Some(place) = count.checked_sub(1) else { return u64::MAX };
        let mut all: Vec<_> = self.by.values().copied().collect();
        all.sort_unstable_by(|left, right| right.cmp(left));
        all.get(place).copied().unwrap_or(0)
    }

    /// The last transaction that each standby has.
    pub fn by_node(&self) -> &BTreeMap<NodeName, u64> {
        &self.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_nodes_not_messages_and_only_of_its_epoch() {
        let mut confirmations = Confirmations::new(3);
        assert_eq!((confirmations.confirmed(0), confirmations.confirmed(1)), (u64::MAX, 0));
        for (node, epoch, tx) in [("a", 3, 5), ("a", 3, 5), ("a", 3, 4), ("b", 2, 9), ("c", 3, 2)] {
            confirmations.confirm(node, epoch, tx);
        }
        assert_eq!((confirmations.confirmed(1), confirmations.confirmed(2), confirmations.confirmed(3)), (5, 2, 0));
    }
}
