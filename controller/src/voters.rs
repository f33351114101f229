//! Who should vote on leases (rule B5.5): pure. The voters themselves agree on each change; this only says where it should lead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_bus::VotersOrder;
use cluster_schemas::node::{VoterList, VoterMember};

use crate::world::{HEARTBEAT_TIMEOUT, World};

/// Numbers of sets that a forced one leaves out: the dead may have agreed to some that nobody else heard of.
const FORCE_NUMBERS: u64 = 10;
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

/// What is known of a voter; nothing where its node votes under another identity.
fn known<'a>(nodes: &BTreeMap<&str, Elector<'a>>, voter: &VoterMember) -> Option<Elector<'a>> {
    nodes.get(voter.node.as_str()).filter(|e| e.id.is_empty() || e.id == voter.id).copied()
}

fn heard(nodes: &BTreeMap<&str, Elector<'_>>, voter: &VoterMember) -> bool {
    known(nodes, voter).is_some_and(|e| e.silent < HEARTBEAT_TIMEOUT)
}

fn majority_heard(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>) -> bool {
    current.voters.iter().filter(|m| heard(nodes, m)).count() * 2 > current.voters.len()
}

/// Who should vote by an operator's order; none where it is carried out, or cannot be now.
#[must_use]
pub fn ordered(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>, order: &VotersOrder) -> Option<Vec<VoterMember>> {
    if is_over(current, order) || !majority_heard(current, nodes) {
        return None;
    }
    let mut wanted: Vec<VoterMember> = current.voters.iter().filter(|m| m.node != order.old).cloned().collect();
    if !wanted.iter().any(|m| m.node == order.new) {
        let able = nodes.get(order.new.as_str()).filter(|e| !e.id.is_empty() && e.silent < HEARTBEAT_TIMEOUT)?;
        wanted.push(VoterMember { node: order.new.clone(), id: able.id.to_owned() });
    }
    wanted.sort();
    Some(wanted)
}

/// Whether the voter that was to go is gone.
#[must_use]
pub fn is_over(current: &VoterList, order: &VotersOrder) -> bool {
    !current.voters.iter().any(|m| m.node == order.old)
}

/// Whether an order to replace `old` by `new` may be given.
///
/// # Errors
/// A sentence that says why not.
pub fn judge_replace(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>, old: &str, new: &str) -> Result<(), String> {
    let votes = |node: &str| current.voters.iter().any(|m| m.node == node);
    let all: Vec<&str> = current.voters.iter().map(|m| m.node.as_str()).collect();
    if !votes(old) {
        return Err(format!("{old} does not vote; the voters are {}", all.join(", ")));
    }
    if votes(new) {
        return Err(format!("{new} votes already; the voters are {}", all.join(", ")));
    }
    if !majority_heard(current, nodes) {
        return Err(format!(
            "only a majority of the voters can change who votes, and of {} none is heard: bring one back, or see clusterctl voters force",
            all.join(", ")
        ));
    }
    match nodes.get(new) {
        None => Err(format!("there is no node {new:?}")),
        Some(e) if e.silent >= HEARTBEAT_TIMEOUT => Err(format!("{new} is not heard")),
        Some(e) if e.id.is_empty() => Err(format!("it is not known yet with which memory {new} would vote: try again in some seconds")),
        Some(_) => Ok(()),
    }
}

/// The set to go on with when an operator vouches that `dead` are dead: the other voters, under a number that no change in progress can have.
///
/// # Errors
/// A sentence that says why it must not be.
pub fn judge_force(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>, dead: &[String]) -> Result<VoterList, String> {
    let all: Vec<&str> = current.voters.iter().map(|m| m.node.as_str()).collect();
    if let Some(other) = dead.iter().find(|d| !all.contains(&d.as_str())) {
        return Err(format!("{other} does not vote; the voters are {}", all.join(", ")));
    }
    if majority_heard(current, nodes) {
        return Err(format!(
            "a majority of the voters {} is heard and can change who votes by itself: clusterctl voters replace, or wait until a silent \
             one is replaced after {} minutes",
            all.join(", "),
            REPLACE_AFTER.as_secs() / 60
        ));
    }
    let named = |m: &&VoterMember| dead.contains(&m.node);
    if let Some(alive) =
        current.voters.iter().filter(named).find(|m| nodes.get(m.node.as_str()).is_some_and(|e| e.silent < HEARTBEAT_TIMEOUT))
    {
        return Err(format!("{} is named dead, and its agent is heard", alive.node));
    }
    let left: Vec<VoterMember> = current.voters.iter().filter(|m| !named(m)).cloned().collect();
    if let Some(silent) = left.iter().find(|m| !heard(nodes, m)) {
        return Err(format!("{} is neither heard nor named dead: what it granted cannot be known", silent.node));
    }
    if left.is_empty() {
        return Err("none of the voters would be left".to_owned());
    }
    Ok(VoterList { number: current.number + FORCE_NUMBERS, voters: left })
}

/// Who should vote, out of the registered nodes; none where nothing may be changed: the present voters are not known, or fewer than a
/// majority of them are heard. `size` is how many there should be where there are enough nodes (3 or 5).
///
/// Three nodes or more have at least three voters, fewer nodes have one (rule B5.6: two would be a majority only together).
#[must_use]
pub fn wanted(current: &VoterList, nodes: &BTreeMap<&str, Elector<'_>>, size: usize) -> Option<Vec<VoterMember>> {
    if !majority_heard(current, nodes) {
        return None;
    }
    let knows = |m: &&VoterMember| known(nodes, m);
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
    /// The registered nodes as far as voting goes.
    #[must_use]
    pub fn electors(&self, now: Instant) -> BTreeMap<&str, Elector<'_>> {
        let (Some(nodes), Some(statuses)) = (&self.nodes, &self.statuses) else { return BTreeMap::new() };
        let elector = |name: &str| {
            let id = statuses.get(name).map_or("", |s| s.value.voter_id.as_str());
            Elector { id, silent: self.silence(name, now) }
        };
        nodes.keys().filter(|n| !self.removals.contains_key(*n)).map(|n| (n.as_str(), elector(n))).collect()
    }

    /// Who should vote, for the leader's beat; empty where that cannot be said.
    #[must_use]
    pub fn wanted_voters(&self, now: Instant, size: usize) -> Vec<VoterMember> {
        let nodes = self.electors(now);
        let Some(current) = self.voters().filter(|_| !nodes.is_empty()) else { return Vec::new() };
        let by_order = self.voters_order.as_ref().and_then(|order| ordered(current, &nodes, order));
        by_order.or_else(|| wanted(current, &nodes, size)).unwrap_or_default()
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

    /// A witness is a node as far as voting goes: with it two nodes have three voters, and without it one.
    #[test]
    fn b5_one_and_two_nodes_have_one_voter_and_two_with_a_witness_have_three() {
        let heard = |nodes: &[&'static str]| -> Vec<(&str, Duration)> { nodes.iter().map(|n| (*n, HEARD)).collect() };
        let after = |nodes: &[&'static str]| want(&["a"], &heard(nodes), 3).expect("a wish");
        assert_eq!(
            [after(&["a"]), after(&["a", "b"]), after(&["a", "b", "witness"]), after(&["a", "b", "c"])],
            ["a", "a", "a b witness", "a b c"]
        );
    }

    fn electors<'a>(nodes: &'a [(&'a str, String, Duration)]) -> BTreeMap<&'a str, Elector<'a>> {
        nodes.iter().map(|(n, id, silent)| (*n, Elector { id, silent: *silent })).collect()
    }

    fn four(silent: &[&str]) -> Vec<(&'static str, String, Duration)> {
        ["a", "b", "c", "d"].map(|n| (n, format!("id-{n}"), if silent.contains(&n) { SILENT } else { HEARD })).to_vec()
    }

    #[test]
    fn b5_an_operator_replaces_a_voter_and_a_majority_has_to_be_there() {
        let order = |old: &str, new: &str| VotersOrder { old: old.to_owned(), new: new.to_owned(), at: String::new() };
        let names = |wanted: Option<Vec<VoterMember>>| wanted.map(|w| w.into_iter().map(|m| m.node).collect::<Vec<_>>().join(" "));
        let now = current(&["a", "b", "c"]);
        let (all, two_gone) = (four(&["b"]), four(&["b", "c"]));
        assert_eq!(names(ordered(&now, &electors(&all), &order("b", "d"))).as_deref(), Some("a c d"));
        // On its way, and done.
        assert_eq!(names(ordered(&current(&["a", "b", "c", "d"]), &electors(&all), &order("b", "d"))).as_deref(), Some("a c d"));
        assert_eq!(ordered(&current(&["a", "c", "d"]), &electors(&all), &order("b", "d")), None);
        assert_eq!(ordered(&now, &electors(&two_gone), &order("b", "d")), None);
        let judge = |nodes: &[(&str, String, Duration)], old: &str, new: &str| {
            judge_replace(&now, &electors(nodes), old, new).err().unwrap_or_default()
        };
        assert_eq!(judge(&all, "b", "d"), "");
        assert!(judge(&all, "d", "a").contains("d does not vote") && judge(&all, "a", "c").contains("votes already"));
        assert!(judge(&all, "b", "z").contains("no node") && judge(&two_gone, "b", "d").contains("voters force"));
    }

    #[test]
    fn b5_force_is_for_a_majority_that_is_gone_and_named() {
        let now = current(&["a", "b", "c"]);
        let judge = |silent: &[&str], dead: &[&str]| {
            let dead: Vec<String> = dead.iter().map(|d| (*d).to_owned()).collect();
            judge_force(&now, &electors(&four(silent)), &dead)
        };
        let left = judge(&["b", "c"], &["b", "c"]).expect("two of three are gone");
        assert!(left.number > now.number + 1 && left.voters.iter().map(|m| m.node.as_str()).eq(["a"]), "{left:?}");
        for (silent, dead, why) in [
            (&["b"][..], &["b"][..], "a majority"),
            (&["b", "c"], &["b"], "c is neither heard nor named dead"),
            (&["b", "c"], &["a", "b", "c"], "a is named dead, and its agent is heard"),
            (&["a", "b", "c"], &["a", "b", "c"], "none of the voters"),
            (&["b", "c"], &["b", "c", "d"], "d does not vote"),
        ] {
            let refused = judge(silent, dead).expect_err("a refusal");
            assert!(refused.contains(why), "{refused}");
        }
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
