//! What operators ask for: Singletons moved, nodes set apart, a preferred node gone back to.

use std::collections::BTreeMap;

use cluster_planner::Cordon;
use cluster_schemas::Mode;
use cluster_schemas::assignment::Role;
use cluster_schemas::failover::Failback;

use super::Agents;
use crate::builders::{mk_app, with_vip};

/// A switchover: the named node follows, with a higher epoch, and nothing moves it back; the next one goes back. Named or not, whoever
/// cannot follow is no reason to stop.
#[test]
fn an_operator_moves_a_singleton_and_it_stays_there() {
    let mut agents = Agents::of(4, [with_vip(mk_app("db", Mode::Singleton), "10.0.0.100/24")]);
    agents.settle();
    let (first, epoch) = agents.held["app/db"].clone();
    let standbys: Vec<String> = agents.assignments[&first].apps["db"].candidates.iter().filter(|n| **n != first).cloned().collect();
    let target = standbys.last().unwrap().clone();
    agents.hand_over("db", Some(&target));
    agents.plan();
    let entry = &agents.assignments[&first].apps["db"];
    assert_eq!((entry.role, entry.releasing, &entry.successor), (Role::Standby, Some(epoch), &target));
    assert_eq!((entry.candidates.first(), entry.candidates.last()), (Some(&target), Some(&first)));
    agents.settle();
    assert_eq!(agents.holder("app/db"), Some(target.as_str()));
    assert!(agents.held["app/db"].1 > epoch);
    // The wish was about a tenure that is over; without it nothing changes either.
    agents.handovers.clear();
    agents.settle();
    assert_eq!(agents.holder("app/db"), Some(target.as_str()));

    let other = standbys[0].clone();
    agents.cordon(&other, Cordon::Cordoned);
    agents.hand_over("db", Some(&other));
    agents.settle();
    assert_eq!(agents.holder("app/db"), Some(target.as_str()), "a cordoned node takes nothing over");
    agents.hand_over("db", None);
    agents.settle();
    assert!(![target.as_str(), other.as_str()].contains(&agents.holder("app/db").unwrap()), "{:?}", agents.held);
}

/// The named node dies at the wrong moment: another one follows.
#[test]
fn a_switchover_whose_target_dies_goes_to_the_next() {
    let mut agents = Agents::of(3, [mk_app("db", Mode::Singleton)]);
    agents.settle();
    let first = agents.holder("app/db").unwrap().to_owned();
    let standbys: Vec<String> = agents.assignments[&first].apps["db"].candidates.iter().filter(|n| **n != first).cloned().collect();
    agents.hand_over("db", Some(&standbys[1]));
    agents.plan();
    agents.lose(&standbys[1]);
    agents.settle();
    assert_eq!(agents.holder("app/db"), Some(standbys[0].as_str()));
}

/// Cordon moves nothing, gives nothing new, and is the last choice of a fail-over; a drain moves everything that has somewhere to go.
#[test]
fn a_cordoned_node_keeps_what_it_has_and_a_drained_one_nothing() {
    let apps = [mk_app("db", Mode::Singleton), mk_app("cache", Mode::Ring), mk_app("pool", Mode::Spread)];
    let mut agents = Agents::of(3, apps);
    agents.settle();
    let first = agents.holder("app/db").unwrap().to_owned();
    let before = agents.held.clone();
    agents.cordon(&first, Cordon::Cordoned);
    agents.apps.insert("late".to_owned(), mk_app("late", Mode::Spread));
    agents.apps.insert("many".to_owned(), cluster_schemas::App { ..mk_app("many", Mode::Replicas) });
    agents.settle();
    assert_eq!(agents.held, before, "a cordon moves nothing");
    let here = &agents.assignments[&first];
    assert!(here.cordoned && here.apps["pool"].role == Role::Member, "{here:?}");
    assert!(!here.apps.contains_key("late") && !here.apps.contains_key("many"), "{:?}", here.apps.keys());
    // Another node is lost: what it owned goes to the third, not to the cordoned one.
    let others: Vec<String> = agents.nodes.keys().filter(|n| **n != first).cloned().collect();
    let kept = agents.counts("cache")[first.as_str()];
    agents.lose(&others[0]);
    agents.settle();
    assert_eq!(agents.counts("cache")[first.as_str()], kept, "{:?}", agents.counts("cache"));
    // Nobody else is left: the cordoned node goes all the same.
    agents.lose(&others[1]);
    agents.settle();
    assert_eq!((agents.holder("app/db"), agents.counts("cache").len()), (Some(first.as_str()), 1));
    others.iter().for_each(|n| agents.heal(n));
    agents.cordon(&first, Cordon::Draining);
    agents.settle();
    assert!(agents.held.values().all(|(node, _)| *node != first), "{:?}", agents.held);
    assert!(agents.assignments[&first].apps.is_empty(), "{:?}", agents.assignments[&first].apps.keys());
    agents.cordon(&first, Cordon::None);
    agents.settle();
    assert!(agents.assignments[&first].apps.contains_key("late"));
}

/// Off: it stays where it fell over to. On: it goes back once the preferred node stands by again, and not before.
#[test]
fn failback_moves_to_the_preferred_node_once_it_stands_by() {
    for failback in [Failback::Never, Failback::Preferred] {
        let mut app = mk_app("db", Mode::Singleton);
        app.spec.failover = Some(cluster_schemas::failover::FailoverSpec { failback, ..Default::default() });
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        app.spec.placement.prefer = vec![cluster_schemas::app::Preference { labels, weight: 5 }];
        let mut agents = Agents::of(3, [app]);
        agents.nodes.get_mut("n2").unwrap().node.labels.insert("disk".to_owned(), "ssd".to_owned());
        agents.settle();
        assert_eq!(agents.holder("app/db"), Some("n2"));
        agents.lose("n2");
        agents.settle();
        let other = agents.holder("app/db").unwrap().to_owned();
        assert_ne!(other, "n2");
        agents.heal("n2");
        agents.settle();
        assert_eq!(agents.holder("app/db"), Some(if failback == Failback::Preferred { "n2" } else { other.as_str() }));
        if failback == Failback::Preferred {
            agents.cordon("n2", Cordon::Cordoned);
            agents.hand_over("db", Some("n3"));
            agents.settle();
            assert_eq!(agents.holder("app/db"), Some("n3"), "a cordoned node is not gone back to");
        }
    }
}

/// A witness is given nothing, ever.
#[test]
fn nothing_is_placed_on_a_witness() {
    let apps = [mk_app("db", Mode::Singleton), mk_app("cache", Mode::Ring), mk_app("pool", Mode::Spread), mk_app("many", Mode::Replicas)];
    let mut agents = Agents::of(3, apps);
    agents.nodes.get_mut("n3").unwrap().node.witness = true;
    agents.settle();
    assert!(agents.assignments["n3"].apps.is_empty());
    assert_eq!(agents.counts("cache"), BTreeMap::from([("n1", 8), ("n2", 8)]));
    agents.lose("n1");
    agents.settle();
    assert_eq!(agents.holder("app/db"), Some("n2"));
}
