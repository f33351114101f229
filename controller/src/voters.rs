//! Who should vote on leases (rule B5.5): pure. The voters themselves agree on each change; this only says where it should lead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_schemas::node::{VoterList, VoterMember};

use crate::world::{HEARTBEAT_TIMEOUT, World};

/// A voter that is silent for so long is replaced.
pub const REPLACE_AFTER: Duration = Duration::from_secs(600);

/// A registered node as far as voting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elector<'a> {
    /// Identity of its memory, 32 hex digits; empty while it is not known.
    pub id: &'a str,
    /// How long it has been silent.
    pub silent: Duration,
}

/// Who should vote, out of the registered nodes; none where nothing may be changed: the present voters are not known, or fewer than a
/// majority of them are heard. `size` is how many there should be where there are enough nodes (3 or 5).
///
/// Three nodes or more have at least three voters, fewer nodes have one (rule B5.6: two would be a majority only together).
#[must_use]
pub fn wanted(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>, size: usize) -> Option<Vec<VoterMember>> {
    let knows = |m: &&VoterMember| nodes.get(m.node.as_str()).filter(|e| e.id.is_empty() || e.id == m.id).copied();
    let heard = current.voters.iter().filter(|m| knows(m).is_some_and(|e| e.silent < HEARTBEAT_TIMEOUT)).count();
    if current.voters.is_empty() || heard * 2 <= current.voters.len() {
        return None;
    }
    let target = match nodes.len() {
        0..=2 => 1,
        3..=4 => 3,
        _ => size,
    };
    let mut stay: Vec<VoterMember> =
        current.voters.iter().filter(|m| knows(m).is_some_and(|e| e.silent < REPLACE_AFTER)).cloned().collect();
    // Those that are heard stay before those that are not.
    stay.sort_by_key(|m| (knows(&m).is_none_or(|e| e.silent >= HEARTBEAT_TIMEOUT), m.clone()));
    stay.truncate(target);
    let mut wanted = stay;
    let votes = |wanted: &[VoterMember], node: &str| wanted.iter().any(|m| m.node == node);
    for (node, elector) in nodes {
        let able = !elector.id.is_empty() && elector.silent < HEARTBEAT_TIMEOUT;
        if wanted.len() < target && able && !votes(&wanted, node) {
            wanted.push(VoterMember { node: (*node).to_owned(), id: elector.id.to_owned() });
        }
    }
    // Nobody is there to take the place of those that are gone: they keep it.
    for member in current.voters.iter().filter(|m| nodes.contains_key(m.node.as_str())) {
        if wanted.len() < target && !votes(&wanted, &member.node) {
            wanted.push(member.clone());
        }
    }
    // Where more than one goes, those that are silent go first: a set of two with a dead one in it has no majority.
    let leave = |m: &&VoterMember| !wanted.contains(m);
    let silent = |m: &&VoterMember| knows(m).is_none_or(|e| e.silent >= HEARTBEAT_TIMEOUT);
    let joins = wanted.iter().any(|m| !current.voters.contains(m));
    if !joins
        && current.voters.iter().filter(leave).count() > 1
        && let Some(first) = current.voters.iter().filter(leave).find(silent)
    {
        wanted = current.voters.iter().filter(|m| *m != first).cloned().collect();
    }
    wanted.sort();
    Some(wanted)
}

impl World {
    /// Who should vote, for the leader's beat; empty where that cannot be said.
    #[must_use]
    pub fn wanted_voters(&self, now: Instant, size: usize) -> Vec<VoterMember> {
        let (Some(nodes), Some(statuses)) = (&self.nodes, &self.statuses) else { return Vec::new() };
        let elector = |name: &str| {
            let id = statuses.get(name).map_or("", |s| s.value.voter_id.as_str());
            Elector { id, silent: self.silence(name, now) }
        };
        let nodes: BTreeMap<&str, Elector<'_>> =
            nodes.keys().filter(|n| !self.removals.contains_key(*n)).map(|n| (n.as_str(), elector(n))).collect();
        self.voters().and_then(|current| wanted(current, &nodes, size)).unwrap_or_default()
    }

    /// The newest voters that any node knows.
    #[must_use]
    pub fn voters(&self) -> Option<&VoterList> {
        self.statuses.iter().flatten().filter_map(|(_, s)| s.value.voters.as_ref()).max_by_key(|v| v.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Duration = Duration::ZERO;
    const SILENT: Duration = Duration::from_secs(60);
    const GONE: Duration = Duration::from_secs(601);

    fn current(nodes: &[&str]) -> VoterList {
        let voters = nodes.iter().map(|n| VoterMember { node: (*n).to_owned(), id: format!("id-{n}") }).collect();
        VoterList { number: 4, voters }
    }

    fn want(voters: &[&str], nodes: &[(&str, Duration)], size: usize) -> Option<String> {
        let ids: Vec<String> = nodes.iter().map(|(n, _)| format!("id-{n}")).collect();
        let nodes = nodes.iter().zip(&ids).map(|((n, silent), id)| (*n, Elector { id, silent: *silent })).collect();
        let wanted = wanted(&current(voters), &nodes, size)?;
        Some(wanted.iter().map(|m| m.node.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn b5_the_set_grows_to_three_with_the_third_node_and_to_five_on_request() {
        let heard =
            |n: usize| -> Vec<(&str, Duration)> { ["a", "b", "c", "d", "e", "f"].into_iter().take(n).map(|n| (n, HEARD)).collect() };
        let grown = |n, size| want(&["b"], &heard(n), size).expect("a wish");
        assert_eq!([grown(2, 3), grown(3, 3), grown(4, 3), grown(6, 3)], ["b", "a b c", "a b c", "a b c"]);
        assert_eq!((grown(4, 5).as_str(), grown(5, 5).as_str()), ("a b c", "a b c d e"));
    }

    #[test]
    fn b5_a_voter_is_replaced_when_it_is_gone_and_only_with_another() {
        let nodes = |c: Duration| [("a", HEARD), ("b", HEARD), ("c", c), ("d", HEARD)];
        assert_eq!(want(&["a", "b", "c"], &nodes(SILENT), 3).as_deref(), Some("a b c"));
        assert_eq!(want(&["a", "b", "c"], &nodes(GONE), 3).as_deref(), Some("a b d"));
        assert_eq!(want(&["a", "b", "c"], &[("a", HEARD), ("b", HEARD), ("c", GONE)], 3).as_deref(), Some("a b c"), "never below three");
        // A removed node votes no more; two nodes have one voter. Who is dead goes first, so that no set of two needs it.
        assert_eq!(want(&["a", "b", "c"], &[("a", HEARD), ("c", HEARD)], 3).as_deref(), Some("a c"));
        assert_eq!(want(&["a", "c"], &[("a", HEARD), ("c", HEARD)], 3).as_deref(), Some("a"));
    }

    #[test]
    fn b5_nothing_is_changed_while_a_majority_is_missing() {
        assert_eq!(want(&["a", "b", "c"], &[("a", HEARD), ("b", SILENT), ("c", SILENT), ("d", HEARD)], 3), None);
        assert_eq!(want(&[], &[("a", HEARD)], 3), None);
    }

    #[test]
    fn b5_a_voter_that_lost_its_memory_is_another_one() {
        let nodes: BTreeMap<&str, Elector<'_>> =
            [("a", "id-a"), ("b", "id-b"), ("c", "anew")].into_iter().map(|(n, id)| (n, Elector { id, silent: HEARD })).collect();
        let wanted = wanted(&current(&["a", "b", "c"]), &nodes, 3).expect("a wish");
        assert_eq!(wanted.iter().find(|m| m.node == "c").map(|m| m.id.as_str()), Some("anew"));
    }
}
