//! Whether this node hears a majority: pure. Until leases land this decides when exclusive things are given up.

use std::collections::BTreeMap;
use std::time::Duration;

/// A node that hears heartbeats of fewer than a majority for this long gives up exclusive things.
pub const QUORUM_TIMEOUT: Duration = Duration::from_secs(3);

/// Strangers whose heartbeats are remembered; a cluster has fewer nodes.
const STRANGERS_MAX: usize = 8192;

/// Whether a majority is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quorum {
    /// The agent has not listened for long enough: what runs is kept, nothing exclusive is begun.
    #[default]
    Unknown,
    /// A majority was heard within [`QUORUM_TIMEOUT`].
    Yes,
    /// Fewer: exclusive things are given up.
    No,
}

/// Counts who was heard. Times are since any fixed moment before the agent's start.
#[derive(Debug, Clone)]
pub struct Hearing {
    node: String,
    started: Duration,
    members: Vec<String>,
    heard: BTreeMap<String, Duration>,
}

impl Hearing {
    /// Begins to listen at `now`.
    #[must_use]
    pub const fn new(node: String, now: Duration) -> Self {
        Self { node, started: now, members: Vec::new(), heard: BTreeMap::new() }
    }

    /// The nodes that the majority is of, as the assignment lists them.
    pub fn set_members(&mut self, members: Vec<String>) {
        self.members = members;
    }

    /// A heartbeat of `node` came. Those of strangers do not count, but a stranger may be a member in a moment: forgetting it would
    /// make a cluster that grows, or a node that just joined, give up exclusive things until the next heartbeat.
    pub fn hear(&mut self, node: &str, now: Duration) {
        if self.heard.len() >= STRANGERS_MAX {
            let members = &self.members;
            self.heard.retain(|name, _| members.contains(name));
        }
        self.heard.insert(node.to_owned(), now);
    }

    /// The state at `now`. The node itself is always heard.
    #[must_use]
    pub fn quorum(&self, now: Duration) -> Quorum {
        if !self.members.contains(&self.node) {
            return Quorum::Unknown;
        }
        let recent =
            |node: &&String| **node == self.node || self.heard.get(*node).is_some_and(|at| now.saturating_sub(*at) < QUORUM_TIMEOUT);
        let heard = self.members.iter().filter(recent).count();
        if heard > self.members.len() / 2 {
            Quorum::Yes
        } else if now.saturating_sub(self.started) < QUORUM_TIMEOUT {
            Quorum::Unknown
        } else {
            Quorum::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hearing(members: &[&str]) -> Hearing {
        let mut hearing = Hearing::new("n1".to_owned(), s(100));
        hearing.set_members(members.iter().map(ToString::to_string).collect());
        hearing
    }

    #[test]
    fn a_majority_counts_the_node_itself() {
        let mut h = hearing(&["n1", "n2", "n3"]);
        assert_eq!(h.quorum(s(101)), Quorum::Unknown);
        h.hear("n2", s(101));
        assert_eq!(h.quorum(s(102)), Quorum::Yes);
        assert_eq!(h.quorum(s(103)), Quorum::Yes);
        assert_eq!(h.quorum(s(104)), Quorum::No);
        h.hear("n3", s(105));
        assert_eq!(h.quorum(s(105)), Quorum::Yes);
    }

    #[test]
    fn half_is_no_majority() {
        let mut h = hearing(&["n1", "n2", "n3", "n4"]);
        h.hear("n2", s(104));
        assert_eq!(h.quorum(s(104)), Quorum::No);
        h.hear("n3", s(104));
        assert_eq!(h.quorum(s(104)), Quorum::Yes);
        assert_eq!(hearing(&["n1", "n2"]).quorum(s(104)), Quorum::No);
    }

    #[test]
    fn one_node_is_its_own_majority_and_strangers_do_not_count() {
        assert_eq!(hearing(&["n1"]).quorum(s(100)), Quorum::Yes);
        let mut h = hearing(&["n1", "n2", "n3"]);
        h.hear("n9", s(104));
        assert_eq!(h.quorum(s(104)), Quorum::No);
        // A node that no assignment lists yet has nothing to give up.
        assert_eq!(hearing(&[]).quorum(s(104)), Quorum::Unknown);
    }

    #[test]
    fn a_cluster_that_grows_keeps_its_majority() {
        let mut h = hearing(&["n1"]);
        for node in ["n2", "n3", "n4", "n5"] {
            h.hear(node, s(110));
        }
        h.set_members(["n1", "n2", "n3", "n4", "n5"].map(ToOwned::to_owned).into());
        assert_eq!(h.quorum(s(111)), Quorum::Yes);
        // They were heard as strangers; that is no different from having been heard as members.
        assert_eq!(h.quorum(s(113)), Quorum::No);
    }

    #[test]
    fn strangers_are_remembered_within_a_bound() {
        let mut h = hearing(&["n1", "n2", "n3"]);
        h.hear("n2", s(110));
        for stranger in 0..2 * STRANGERS_MAX {
            h.hear(&format!("x{stranger}"), s(110));
        }
        assert!(h.heard.len() <= STRANGERS_MAX);
        assert_eq!(h.quorum(s(111)), Quorum::Yes);
    }

    #[test]
    fn after_a_pause_of_the_machine_old_heartbeats_are_old() {
        let mut h = hearing(&["n1", "n2", "n3"]);
        h.hear("n2", s(110));
        h.hear("n3", s(110));
        assert_eq!(h.quorum(s(130)), Quorum::No);
    }
}
