//! Whether the store is the one that the nodes know (rule C3): pure.
//!
//! A store that was deleted, made again, or put back from an old copy says less than the nodes do. Planning on it would stop what runs.
//! So before each plan the leader asks [`assess`], and plans only on [`Gate::Open`]. docs/recover.md tells the cases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use cluster_schemas::Assignment;
use cluster_schemas::api::{RecoveryNode, RecoveryView, RunningApp};
use cluster_schemas::assignment::{Order, Role};

use crate::world::{HEARTBEAT_TIMEOUT, World};

/// A new store is begun after this long of undisturbed listening: every living agent was heard by then, since each beats once a second.
pub const SETTLE: Duration = Duration::from_millis(1_500);

/// Why nothing is planned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The store is new and nodes hold assignments of others, of which nobody signed that they may follow.
    NewStore {
        /// Node and the incarnation it holds.
        nodes: Vec<(String, String)>,
    },
    /// The bucket of Apps was made again while the others stayed.
    AppsMadeAgain,
    /// The bucket of Apps belongs to another store than the assignments.
    AppsOfAnother {
        /// The incarnation of its mark.
        incarnation: String,
    },
    /// Nodes hold later assignments of this store than it knows: it was put back from an earlier copy.
    WentBack {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Nodes that are heard have assignments and are not registered: the bucket of nodes was lost. They register again by themselves.
    NotRegistered {
        /// The nodes.
        nodes: Vec<String>,
    },
}

impl Hold {
    /// Whether it takes an operator's signature to go on.
    #[must_use]
    pub const fn needs_signature(&self) -> bool {
        !matches!(self, Self::NotRegistered { .. })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewStore { nodes } => {
                let nodes: Vec<String> = nodes.iter().map(|(node, held)| format!("{node} ({held})")).collect();
                write!(f, "the store is new, and nodes hold assignments of another: {}", nodes.join(", "))
            }
            Self::AppsMadeAgain => f.write_str("the bucket of Apps was deleted and made again"),
            Self::AppsOfAnother { incarnation } => {
                write!(f, "the bucket of assignments was deleted and made again; the Apps are still of the store {incarnation}")
            }
            Self::WentBack { nodes } => {
                write!(f, "the store was put back from an earlier copy: {} hold later assignments than it has", nodes.join(", "))
            }
            Self::NotRegistered { nodes } => {
                write!(f, "the bucket of nodes was lost, waiting until these register again by themselves: {}", nodes.join(", "))
            }
        }
    }
}

/// Whether the leader may plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may, without the nodes named here: they hold assignments of a store that nobody signed, and refuse ours.
    Open {
        /// Nodes that refuse this store.
        strangers: BTreeSet<String>,
    },
    /// The store is new and nothing speaks against it: make the mark, then plan.
    Begin,
    /// The store is new; not every living agent can have been heard yet.
    Settling,
    /// It may not.
    Held(BTreeSet<Hold>),
}

/// What the living agents hold, by node.
fn held(world: &World, now: Instant) -> BTreeMap<&str, &Order> {
    let alive = |node: &str| world.silence(node, now) < HEARTBEAT_TIMEOUT;
    let orders =
        world.heartbeats.iter().filter(|(node, _)| alive(node)).filter_map(|(node, (_, h))| Some((node.as_str(), h.assignment.as_ref()?)));
    // An agent that just left everything of an earlier name behind holds an order of no store.
    orders.filter(|(_, order)| !order.incarnation.is_empty()).collect()
}

/// The incarnations that this one may follow, as an operator signed.
#[must_use]
pub fn signed(world: &World, incarnation: &str) -> Vec<String> {
    world.recovery.iter().filter(|r| r.incarnation == incarnation).flat_map(|r| r.recovers.iter().cloned()).collect()
}

/// Judges the store of this incarnation, in the leadership of this term, by what the nodes hold. `written` are the assignments as the
/// caller knows them to be stored.
#[must_use]
pub fn assess(world: &World, (incarnation, term): (&str, u64), written: &BTreeMap<String, Assignment>, now: Instant) -> Gate {
    let held = held(world, now);
    let signed = signed(world, incarnation);
    let ours = |order: &Order| order.incarnation == incarnation;
    let strangers: Vec<(&str, &Order)> =
        held.iter().filter(|(_, order)| !ours(order) && !signed.contains(&order.incarnation)).map(|(n, o)| (*n, *o)).collect();
    let mut holds = BTreeSet::new();
    match &world.mark {
        Some(mark) if mark.incarnation == incarnation => {
            let signed_term = world.recovery.as_ref().filter(|r| r.incarnation == incarnation).map_or(0, |r| r.term);
            let behind = |node: &str, order: &Order| {
                let stored = written.get(node).map(|a| &a.order).filter(|stored| ours(stored));
                // What this leadership wrote itself is no earlier copy; a node that joined again may hold more than that.
                let stored = stored.filter(|stored| stored.term < term);
                stored.is_some_and(|stored| order.newer_than(stored) == Some(true)) && order.term > signed_term
            };
            let back: Vec<String> =
                held.iter().filter(|(node, order)| ours(order) && behind(node, order)).map(|(n, _)| (*n).to_owned()).collect();
            if !back.is_empty() {
                holds.insert(Hold::WentBack { nodes: back });
            }
        }
        Some(mark) => {
            holds.insert(Hold::AppsOfAnother { incarnation: mark.incarnation.clone() });
        }
        None => {
            // Nothing is written in a store before it has its mark.
            if written.values().any(|a| ours(&a.order)) || held.values().any(|order| ours(order)) {
                holds.insert(Hold::AppsMadeAgain);
            } else if !strangers.is_empty() {
                let nodes = strangers.iter().map(|(node, order)| ((*node).to_owned(), order.incarnation.clone())).collect();
                holds.insert(Hold::NewStore { nodes });
            } else if now.saturating_duration_since(world.listening_since) < SETTLE {
                return Gate::Settling;
            } else {
                return Gate::Begin;
            }
        }
    }
    let registered = |node: &str| world.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(node));
    let lost = |node: &&String| held.contains_key(node.as_str()) && !registered(node) && !world.removals.contains_key(*node);
    let lost: Vec<String> = written.keys().filter(lost).cloned().collect();
    if !lost.is_empty() {
        holds.insert(Hold::NotRegistered { nodes: lost });
    }
    if holds.is_empty() {
        Gate::Open { strangers: strangers.into_iter().map(|(node, _)| node.to_owned()).collect() }
    } else {
        Gate::Held(holds)
    }
}

/// What `clusterctl recover` shows. `None` while the caches are not complete or no controller has led in this store.
#[must_use]
pub fn view(world: &World, now: Instant) -> Option<RecoveryView> {
    let record = &world.record.as_ref()?.value;
    let incarnation = &record.incarnation;
    if !world.is_complete() {
        return None;
    }
    let written = world.assignments.iter().flatten().map(|(node, stored)| (node.clone(), stored.value.clone())).collect();
    let gate = assess(world, (incarnation, record.term), &written, now);
    let (mut reasons, mut needed) = (Vec::new(), false);
    match &gate {
        Gate::Held(holds) => {
            needed = holds.iter().any(Hold::needs_signature);
            reasons.extend(holds.iter().map(ToString::to_string));
        }
        Gate::Open { strangers } if !strangers.is_empty() => {
            // Other nodes go on; these are waiting for a signature all the same.
            needed = true;
            let names: Vec<&str> = strangers.iter().map(String::as_str).collect();
            reasons.push(format!("nodes hold assignments of another store and refuse this one: {}", names.join(", ")));
        }
        Gate::Open { .. } | Gate::Begin | Gate::Settling => {}
    }
    let held = held(world, now);
    let signed = signed(world, incarnation);
    let registered = world.nodes.iter().flatten().map(|(name, _)| name.as_str());
    let names: BTreeSet<&str> = registered.chain(held.keys().copied()).collect();
    let nodes: Vec<RecoveryNode> = names
        .into_iter()
        .map(|node| {
            let holds = held.get(node).map(|order| (*order).clone());
            let status = world.statuses.as_ref().and_then(|s| s.get(node)).map(|s| &s.value);
            RecoveryNode {
                node: node.to_owned(),
                alive: world.heartbeats.contains_key(node) && world.silence(node, now) < HEARTBEAT_TIMEOUT,
                registered: world.nodes.as_ref().is_some_and(|n| n.contains_key(node)),
                refuses: holds.as_ref().is_some_and(|order| order.incarnation != *incarnation && !signed.contains(&order.incarnation)),
                holds,
                known: status.is_some(),
                apps: status.map(running).unwrap_or_default(),
            }
        })
        .collect();
    let apps: Vec<String> = world.apps.iter().flatten().filter(|(_, app)| !app.is_deleted()).map(|(name, _)| name.clone()).collect();
    let missing: BTreeSet<String> = nodes.iter().flat_map(|n| &n.apps).map(|r| r.app.clone()).filter(|name| !apps.contains(name)).collect();
    Some(RecoveryView { incarnation: Some(incarnation.clone()), needed, reasons, nodes, apps, missing: missing.into_iter().collect() })
}

/// What runs on a node by its agent's word.
fn running(status: &cluster_schemas::NodeStatus) -> Vec<RunningApp> {
    let here = status.apps.iter().filter(|(_, seen)| seen.role != Role::Absent);
    here.map(|(app, seen)| RunningApp { app: app.clone(), role: seen.role, state: seen.state }).collect()
}

/// The uid and generation of an App that runs by the word of a store that was lost. While that store waits for a signature, an App of
/// its name that is made again takes them over, so that it is the same App to the nodes.
#[must_use]
pub fn identity_that_runs(world: &World, app: &str, now: Instant) -> Option<(String, u64)> {
    if !view(world, now)?.needed {
        return None;
    }
    let seen = world.statuses.iter().flatten().filter_map(|(_, status)| status.value.apps.get(app));
    let seen = seen.filter(|seen| !seen.uid.is_empty() && seen.role != Role::Absent);
    seen.map(|seen| (seen.uid.clone(), seen.generation)).max_by_key(|(_, generation)| *generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_bus::{RecoveryRecord, Removal, StoreMark};
    use cluster_schemas::{Heartbeat, Node};

    fn order(incarnation: &str, term: u64, generation: u64) -> Order {
        Order { incarnation: incarnation.to_owned(), term, generation }
    }

    fn assignment(node: &str, order: Order) -> (String, Assignment) {
        (node.to_owned(), Assignment { node: node.to_owned(), order, ..Assignment::default() })
    }

    /// A world that listened for ten seconds, with these agents alive, all registered, and this mark.
    fn world(mark: Option<&str>, agents: &[(&str, Option<Order>)]) -> (World, Instant) {
        let started = Instant::now();
        let now = started + Duration::from_secs(10);
        let shared = crate::world::SharedWorld::new(started);
        shared.change(|w| {
            w.mark = mark.map(|incarnation| StoreMark { incarnation: incarnation.to_owned() });
            let nodes = w.nodes.insert(BTreeMap::new());
            for (name, holds) in agents {
                nodes.insert(
                    (*name).to_owned(),
                    Node {
                        name: (*name).to_owned(),
                        labels: BTreeMap::new(),
                        addresses: BTreeMap::new(),
                        boot_id: "b".to_owned(),
                        agent_version: "0".to_owned(),
                        witness: false,
                        capacity: None,
                        registered_at: None,
                    },
                );
                let heartbeat = Heartbeat {
                    node: (*name).to_owned(),
                    boot_id: "b".to_owned(),
                    instance: "i".to_owned(),
                    sequence: 1,
                    assignment: holds.clone(),
                    status_revision: 0,
                    term: 0,
                    load_percent: 0,
                    not_ready: Vec::new(),
                };
                w.heartbeats.insert((*name).to_owned(), (now, heartbeat));
            }
            true
        });
        (shared.into_inner(), now)
    }

    fn held_by(gate: &Gate) -> Vec<String> {
        match gate {
            Gate::Held(holds) => holds.iter().map(ToString::to_string).collect(),
            other => panic!("not held: {other:?}"),
        }
    }

    #[test]
    fn a_fresh_store_begins_once_everybody_can_have_been_heard() {
        let none = BTreeMap::new();
        let (mut world, now) = world(None, &[("n1", None)]);
        assert_eq!(assess(&world, ("new", 4), &none, now), Gate::Begin);
        world.listening_since = now;
        assert_eq!(assess(&world, ("new", 4), &none, now + Duration::from_secs(1)), Gate::Settling);
        // What was no store's order, after a rename, is no sign of one.
        let (world, now) = self::world(None, &[("n1", Some(order("", 0, 0)))]);
        assert_eq!(assess(&world, ("new", 4), &none, now), Gate::Begin);
    }

    #[test]
    fn a_new_store_waits_while_nodes_hold_another_until_that_is_signed() {
        let none = BTreeMap::new();
        let agents = [("n1", Some(order("old", 5, 40))), ("n2", None)];
        let (mut world, now) = world(None, &agents);
        assert_eq!(held_by(&assess(&world, ("new", 4), &none, now)), ["the store is new, and nodes hold assignments of another: n1 (old)"]);
        world.recovery = Some(RecoveryRecord { incarnation: "new".to_owned(), recovers: vec!["old".to_owned()], term: 0 });
        assert_eq!(assess(&world, ("new", 4), &none, now), Gate::Begin);
        // A signature under another store counts for nothing.
        world.recovery = Some(RecoveryRecord { incarnation: "other".to_owned(), recovers: vec!["old".to_owned()], term: 0 });
        assert!(matches!(assess(&world, ("new", 4), &none, now), Gate::Held(_)));
    }

    #[test]
    fn dead_nodes_do_not_hold_a_new_store_up() {
        let (world, now) = world(None, &[("n1", Some(order("old", 5, 40)))]);
        assert_eq!(assess(&world, ("new", 4), &BTreeMap::new(), now + HEARTBEAT_TIMEOUT), Gate::Begin);
    }

    #[test]
    fn a_stranger_in_a_store_that_is_in_use_is_left_out_alone() {
        let (world, now) = world(Some("s"), &[("n1", Some(order("s", 1, 1))), ("n9", Some(order("elsewhere", 1, 1)))]);
        let written = BTreeMap::from([assignment("n1", order("s", 1, 1))]);
        assert_eq!(assess(&world, ("s", 4), &written, now), Gate::Open { strangers: BTreeSet::from(["n9".to_owned()]) });
    }

    #[test]
    fn apps_made_again_alone_are_not_planned_on() {
        let written = BTreeMap::from([assignment("n1", order("s", 1, 1))]);
        let (world, now) = world(None, &[("n1", None)]);
        assert_eq!(held_by(&assess(&world, ("s", 4), &written, now)), ["the bucket of Apps was deleted and made again"]);
        let (world, now) = self::world(None, &[("n1", Some(order("s", 1, 1)))]);
        assert_eq!(held_by(&assess(&world, ("s", 4), &BTreeMap::new(), now)), ["the bucket of Apps was deleted and made again"]);
        let (world, now) = self::world(Some("s"), &[("n1", Some(order("s", 1, 1)))]);
        assert!(held_by(&assess(&world, ("new", 4), &BTreeMap::new(), now))[0].contains("still of the store s"));
    }

    #[test]
    fn a_store_put_back_from_an_old_copy_is_not_planned_on_until_signed() {
        let written = BTreeMap::from([assignment("n1", order("s", 2, 9))]);
        let (mut world, now) = world(Some("s"), &[("n1", Some(order("s", 3, 12)))]);
        assert!(held_by(&assess(&world, ("s", 4), &written, now))[0].contains("n1 hold later assignments"));
        // What this leadership wrote is no earlier copy.
        assert!(matches!(assess(&world, ("s", 2), &written, now), Gate::Open { .. }));
        world.recovery = Some(RecoveryRecord { incarnation: "s".to_owned(), recovers: Vec::new(), term: 3 });
        assert!(matches!(assess(&world, ("s", 4), &written, now), Gate::Open { .. }));
        // An agent that is a moment behind is nothing special.
        let (world, now) = self::world(Some("s"), &[("n1", Some(order("s", 2, 8)))]);
        assert!(matches!(assess(&world, ("s", 4), &written, now), Gate::Open { .. }));
    }

    #[test]
    fn assigned_nodes_that_lost_their_registration_are_waited_for_unless_they_are_dead_or_to_be_forgotten() {
        let written = BTreeMap::from([assignment("n1", order("s", 1, 1)), assignment("n2", order("s", 1, 1))]);
        let (mut world, now) = world(Some("s"), &[("n1", Some(order("s", 1, 1))), ("n2", Some(order("s", 1, 1)))]);
        world.nodes.as_mut().expect("listed").remove("n2");
        let gate = assess(&world, ("s", 4), &written, now);
        assert!(held_by(&gate)[0].contains("register again by themselves: n2"));
        assert!(matches!(gate, Gate::Held(holds) if !holds.iter().any(Hold::needs_signature)));
        assert!(matches!(assess(&world, ("s", 4), &written, now + HEARTBEAT_TIMEOUT), Gate::Open { .. }));
        world.removals.insert("n2".to_owned(), Removal { at: String::new(), force: true });
        assert!(matches!(assess(&world, ("s", 4), &written, now), Gate::Open { .. }));
    }
}
