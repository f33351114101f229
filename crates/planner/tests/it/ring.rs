//! Rings: balance, movement, epochs and versions.

use std::collections::BTreeMap;

use cluster_schemas::Mode;
use cluster_schemas::app::RingSpec;
use cluster_schemas::assignment::Role;
use proptest::prelude::*;

use crate::builders::{mk_app, mk_node};
use crate::cluster::Cluster;

fn ring(nodes: usize, partitions: u16) -> Cluster {
    let mut app = mk_app("ring", Mode::Ring);
    app.spec.ring = Some(RingSpec { partitions });
    let mut cluster = Cluster::of(nodes, [app]);
    cluster.settle().assert_ready();
    cluster
}

fn owners(cluster: &Cluster) -> BTreeMap<u16, String> {
    let mut owners = BTreeMap::new();
    for node in cluster.nodes_of("ring", Role::Member) {
        for partition in cluster.entry(node, "ring").unwrap().ring.as_ref().unwrap().owned().iter() {
            assert_eq!(owners.insert(partition, node.to_owned()), None);
        }
    }
    owners
}

fn owned(cluster: &Cluster, node: &str) -> String {
    cluster.entry(node, "ring").unwrap().ring.as_ref().unwrap().owned().to_string()
}

fn versions(cluster: &Cluster) -> u64 {
    let versions: Vec<u64> =
        cluster.nodes_of("ring", Role::Member).iter().map(|n| cluster.entry(n, "ring").unwrap().ring.as_ref().unwrap().version).collect();
    assert!(versions.windows(2).all(|w| w[0] == w[1]), "{versions:?}");
    versions[0]
}

#[test]
fn a_new_member_gets_its_share_after_release_and_nothing_else_moves() {
    let mut cluster = ring(3, 256);
    assert_eq!(["n1", "n2", "n3"].map(|n| owned(&cluster, n)), ["0-85", "86-170", "171-255"]);
    assert_eq!((cluster.status("ring").ready.as_str(), versions(&cluster)), ("256/256", 1));
    cluster.nodes.insert("n4".to_owned(), mk_node("n4"));
    cluster.step();
    assert_eq!(["n1", "n2", "n3", "n4"].map(|n| owned(&cluster, n)), ["0-63", "86-149", "171-234", ""]);
    assert_eq!(cluster.entry("n1", "ring").unwrap().ring.as_ref().unwrap().release.to_string(), "64-85");
    assert_eq!(versions(&cluster), 2);
    assert_eq!(
        cluster.plan.notes["ring"].waits.as_deref(),
        Some("64 partitions are not owned until n1, n2 and n3 confirmed to have let go")
    );
    // What n1 let go of is given, the rest waits.
    cluster.obey("n1").step();
    assert_eq!(owned(&cluster, "n4"), "64-85");
    cluster.obey_all().settle().assert_ready();
    assert_eq!(owned(&cluster, "n4"), "64-85,150-170,235-255");
    let groups = &cluster.entry("n4", "ring").unwrap().ring.as_ref().unwrap().own;
    assert_eq!(groups.iter().map(|g| g.epoch).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(cluster.entry("n1", "ring").unwrap().epoch, 3, "every member remembers the newest epoch");
}

#[test]
fn a_lost_members_partitions_are_given_at_once_and_it_rejoins_through_release() {
    let mut cluster = ring(3, 10);
    cluster.lose("n2").step();
    assert_eq!(["n1", "n3"].map(|n| owned(&cluster, n)), ["0-4", "5-9"].map(str::to_owned), "{:?}", owners(&cluster));
    cluster.obey_all().settle().assert_ready();
    assert_eq!(cluster.roles("ring"), "n1:Member n2:Member n3:Member");
    // Its old status says that it owns some: others keep what they have.
    cluster.heal("n2").step();
    assert_eq!(owned(&cluster, "n2"), "");
    cluster.report("n2").obey_all().settle().assert_ready();
    assert_eq!(owners(&cluster).len(), 10);
}

#[test]
fn what_a_node_gave_up_stays_there_with_a_fresh_epoch() {
    let mut cluster = ring(3, 9);
    let before = owners(&cluster);
    cluster.give_up("n2").step();
    assert_eq!(owners(&cluster), before);
    assert_eq!(cluster.entry("n2", "ring").unwrap().ring.as_ref().unwrap().own[0].epoch, 2);
    assert_eq!(cluster.status("ring").ready, "6/9");
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn a_member_without_a_majority_owns_nothing_once_it_let_go() {
    let mut cluster = ring(3, 9);
    cluster.nodes.get_mut("n2").unwrap().status.as_mut().unwrap().quorum = false;
    cluster.step();
    assert_eq!(cluster.roles("ring"), "n1:Member n2:Member* n3:Member");
    assert_eq!(owners(&cluster).len(), 6);
    cluster.obey("n2").step();
    assert_eq!((owners(&cluster).len(), owned(&cluster, "n2").as_str()), (9, ""));
    // Given up before anybody asked: nothing to wait for.
    cluster.nodes.get_mut("n3").unwrap().status.as_mut().unwrap().quorum = false;
    cluster.give_up("n3").step();
    assert_eq!(owned(&cluster, "n1"), "0-8");
}

#[test]
fn members_can_be_capped() {
    let mut cluster = ring(3, 12);
    cluster.app("ring").spec.replicas = Some(2);
    cluster.step().obey_all().settle().assert_ready();
    assert_eq!(cluster.roles("ring"), "n1:Member n2:Member");
    cluster.lose("n1").step();
    assert_eq!(["n2", "n3"].map(|n| owned(&cluster, n)), ["4-7,10-11", "0-3,8-9"]);
    cluster.obey_all().settle().assert_ready();
}

#[test]
fn more_members_than_partitions_leave_some_out() {
    let cluster = ring(5, 3);
    assert_eq!(cluster.roles("ring"), "n1:Member n2:Member n3:Member");
}

/// Fewest partitions that have to change their owner for `members` to have counts that differ by at most one: every way of choosing
/// who has one more is tried. Independent of how the planner finds its quotas.
fn lower_bound(before: &BTreeMap<u16, String>, members: &[String], partitions: u16) -> usize {
    let total = usize::from(partitions);
    let (base, extra) = (total / members.len(), total % members.len());
    let count = |m: &String| before.values().filter(|o| *o == m).count();
    let counts: Vec<usize> = members.iter().map(count).collect();
    let choices = (0u32..1 << members.len()).filter(|mask| mask.count_ones() as usize == extra);
    let kept = choices.map(|mask| (0..members.len()).map(|i| counts[i].min(base + (mask as usize >> i & 1))).sum::<usize>());
    total - kept.max().unwrap_or(0)
}

proptest! {
    /// Nodes come, go and return, several at once: the counts differ by at most one and no plan could move less.
    #[test]
    fn movement_is_the_lower_bound(
        partitions in 1u16..70,
        first in 1u8..255,
        changes in proptest::collection::vec((1u8..255, any::<bool>()), 1..6),
    ) {
        const NODES: usize = 8;
        let mut app = mk_app("ring", Mode::Ring);
        app.spec.ring = Some(RingSpec { partitions });
        // Capped by the partitions, not every node is a member; that is another test.
        let mut cluster = Cluster::of(NODES, [app]);
        let name = |n: usize| format!("n{}", n + 1);
        let set = |cluster: &mut Cluster, mask: u8, gently: bool| {
            for n in 0..NODES {
                let (node, up) = (name(n), mask >> n & 1 == 1);
                if gently {
                    // Eligibility changes: everything is released first.
                    cluster.app("ring").spec.placement.nodes.retain(|other| *other != node);
                    if up {
                        cluster.app("ring").spec.placement.nodes.push(node.clone());
                    }
                } else if !up && cluster.live().contains(&node) {
                    cluster.lose(&node);
                }
            }
        };
        set(&mut cluster, first, true);
        cluster.settle();
        for (mask, gently) in changes {
            let before = owners(&cluster);
            set(&mut cluster, mask, gently);
            let live = cluster.live();
            let members: Vec<String> =
                cluster.app("ring").spec.placement.nodes.iter().filter(|n| live.contains(n)).cloned().collect();
            if members.is_empty() || members.len() > usize::from(partitions) {
                return Ok(());
            }
            cluster.settle().assert_ready();
            let after = owners(&cluster);
            let moved = (0..partitions).filter(|p| before.get(p) != after.get(p)).count();
            prop_assert_eq!(moved, lower_bound(&before, &members, partitions));
            let counts: Vec<usize> = members.iter().map(|m| after.values().filter(|o| *o == m).count()).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
            prop_assert_eq!(after.len(), usize::from(partitions));
        }
    }
}

/// What a node gives back because its hook failed goes to the others, and it is given nothing until that is over.
#[test]
fn a_member_whose_hook_fails_is_given_nothing_and_nothing_goes_round() {
    let mut cluster = ring(3, 10);
    let before = owners(&cluster);
    let refuse = |cluster: &mut Cluster, node: &str, set: &str| {
        cluster.observed(node, "ring").ring.as_mut().unwrap().refused = set.parse().unwrap();
    };
    refuse(&mut cluster, "n1", "0");
    for _ in 0..6 {
        cluster.step().obey_all();
        refuse(&mut cluster, "n1", "0");
    }
    let now = owners(&cluster);
    assert_ne!(now[&0], "n1");
    assert!((1..10).all(|p| now[&p] == before[&p]), "only what was given back moves: {now:?}");
    let told = cluster.status("ring");
    assert_eq!(told.condition("HooksFailing").map(|c| c.reason.as_str()), Some("OnOwnFailed"));
    // All of them refuse: nobody is better, and nothing moves.
    for node in ["n2", "n3"] {
        refuse(&mut cluster, node, "0");
    }
    cluster.step();
    assert_eq!(owners(&cluster), now);
    // It is over.
    for node in ["n1", "n2", "n3"] {
        refuse(&mut cluster, node, "");
    }
    cluster.settle().assert_ready();
    assert_eq!(cluster.status("ring").condition("HooksFailing"), None);
    assert!(owners(&cluster).values().filter(|n| *n == "n1").count() >= 3);
}
