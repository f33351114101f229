//! What this controller knows: caches of the buckets and the heartbeats heard. Every controller keeps it, leading or not, so that the API
//! answers everywhere and a new leader starts warm.
//!
//! Each part is filled by one task ([`crate::feed`]); readers take the lock for as long as they look, never across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use cluster_bus::{Beat, CordonOrder, HandoverOrder, LeaderRecord, RecoveryRecord, Removal, Revised, StoreMark, VotersOrder};
use cluster_planner::{Liveness, NodeInput};
use cluster_schemas::api::{NodeState, NodeView};
use cluster_schemas::assignment::Order;
use cluster_schemas::node::Cordon;
use cluster_schemas::watch::WatchKind;
use cluster_schemas::{App, AppStatus, Assignment, Heartbeat, Node, NodeStatus};
use tokio::sync::watch;

use crate::changes::{CHANGES_KEPT, Changes, Kind, Part};

/// A node without a heartbeat for this long is lost. Its agent gives up exclusive things after 3 s without a majority, so the rest is
/// margin. Until leases land this is what exclusivity rests on.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(6);

/// Who became active, as the agent recorded it (KV `status`, key `active.A`).
pub use cluster_schemas::node::ActiveRecord;

/// The caches. `None` means: not listed yet.
#[derive(Debug)]
pub struct World {
    /// Apps by name; `metadata.resourceVersion` is the revision.
    pub apps: Option<BTreeMap<String, App>>,
    /// Apps that are stored and cannot be read, by a version older than the one that wrote them: while there are any nothing is
    /// planned, or they would be taken for deleted and stopped.
    pub unreadable_apps: BTreeSet<String>,
    /// Nodes by name.
    pub nodes: Option<BTreeMap<String, Node>>,
    /// What agents observe, by node, with its revision.
    pub statuses: Option<BTreeMap<String, Revised<NodeStatus>>>,
    /// What the leader computed, by App.
    pub app_statuses: Option<BTreeMap<String, Revised<AppStatus>>>,
    /// Who became active, by App.
    pub actives: Option<BTreeMap<String, ActiveRecord>>,
    /// Assignments by node, as the watch delivers them. The leader does not plan on these but on what it wrote itself; they tell it when
    /// somebody else wrote.
    pub assignments: Option<BTreeMap<String, Revised<Assignment>>>,
    /// The mark in the bucket of Apps; taken over together with a listing of the Apps, so that the two are never of different buckets.
    pub mark: Option<StoreMark>,
    /// The leader record, as the watch delivers it.
    pub record: Option<Revised<LeaderRecord>>,
    /// What an operator signed.
    pub recovery: Option<RecoveryRecord>,
    /// Whether the two above, and the order below, were listed.
    pub records_listed: bool,
    /// A voter that an operator wants replaced.
    pub voters_order: Option<VotersOrder>,
    /// Nodes that operators set apart.
    pub cordons: Option<BTreeMap<String, CordonOrder>>,
    /// Singletons that operators asked to move, by App.
    pub handovers: Option<BTreeMap<String, HandoverOrder>>,
    /// Nodes that are to be forgotten.
    pub removals: BTreeMap<String, Removal>,
    /// Whether the removals were listed.
    pub removals_listed: bool,
    /// The last heartbeat of each node and when it came.
    pub heartbeats: BTreeMap<String, (Instant, Heartbeat)>,
    /// The last beat of a leader and when it came.
    pub leader: Option<(Instant, Beat)>,
    /// What changed lately, for watches.
    pub changes: Changes,
    /// Since when heartbeats are listened to without interruption: silence counts from here at the earliest.
    pub listening_since: Instant,
}

/// Whether an order of this store is of a later leadership than `term`. Terms of other stores cannot be compared (rule C3).
#[must_use]
pub fn is_later(order: &Order, incarnation: &str, term: u64) -> bool {
    order.incarnation == incarnation && order.term > term
}

impl World {
    /// Whether every cache was listed: nothing is planned or pruned before (rule C4).
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.apps.is_some()
            && self.nodes.is_some()
            && self.statuses.is_some()
            && self.app_statuses.is_some()
            && self.actives.is_some()
            && self.assignments.is_some()
            && self.cordons.is_some()
            && self.handovers.is_some()
            && self.records_listed
            && self.removals_listed
    }

    /// How long `node` has been silent at `now`.
    #[must_use]
    pub fn silence(&self, node: &str, now: Instant) -> Duration {
        let heard = self.heartbeats.get(node).map_or(self.listening_since, |(at, _)| (*at).max(self.listening_since));
        now.saturating_duration_since(heard)
    }

    /// The nodes as the planner wants them at `now`, without those that are to be forgotten.
    #[must_use]
    pub fn node_inputs(&self, now: Instant) -> BTreeMap<String, NodeInput> {
        let (Some(nodes), Some(statuses)) = (&self.nodes, &self.statuses) else { return BTreeMap::new() };
        nodes
            .iter()
            .filter(|(name, _)| !self.removals.contains_key(*name))
            .map(|(name, node)| {
                let mut node = node.clone();
                // The heartbeat is the freshest word on the boot; the registration may still be on its way.
                if let Some((_, heartbeat)) = self.heartbeats.get(name) {
                    node.boot_id.clone_from(&heartbeat.boot_id);
                }
                let liveness = if self.silence(name, now) < HEARTBEAT_TIMEOUT { Liveness::Live } else { Liveness::Lost };
                let status = statuses.get(name).map(|s| &s.value).filter(|s| s.boot_id == node.boot_id).cloned();
                (name.clone(), NodeInput { node, liveness, status, cordon: self.cordon(name) })
            })
            .collect()
    }

    /// Whether an operator set `node` apart.
    #[must_use]
    pub fn cordon(&self, node: &str) -> Cordon {
        match self.cordons.as_ref().and_then(|c| c.get(node)) {
            None => Cordon::None,
            Some(CordonOrder { drain: false, .. }) => Cordon::Cordoned,
            Some(CordonOrder { drain: true, .. }) => Cordon::Draining,
        }
    }

    /// Whether a node can be used.
    #[must_use]
    pub fn node_state(&self, node: &Node, now: Instant) -> NodeState {
        if self.silence(&node.name, now) >= HEARTBEAT_TIMEOUT || !self.heartbeats.contains_key(&node.name) {
            NodeState::NotReady
        } else if self.statuses.as_ref().and_then(|s| s.get(&node.name)).is_some_and(|s| !s.value.quorum) {
            NodeState::NoQuorum
        } else {
            NodeState::Ready
        }
    }

    /// Tells watches that a part was listed. To be called when the world has it.
    pub fn tell_listed(&mut self, part: Part, first: bool, mut changes: Vec<(String, WatchKind)>, revision: u64) {
        let (kind, index) = part.place();
        if index > 0 {
            changes.retain(|(name, _)| self.exists(kind, name));
            changes.iter_mut().for_each(|(_, what)| *what = WatchKind::Modified);
        }
        self.changes.of_mut(kind).listed(index, first, changes, revision);
    }

    /// Tells watches that a part of an object changed. To be called when the world has it.
    pub fn tell(&mut self, part: Part, name: &str, what: WatchKind, revision: u64) {
        let (kind, index) = part.place();
        let known = index == 0 || self.exists(kind, name);
        let log = self.changes.of_mut(kind);
        if known {
            log.push(name, if index == 0 { what } else { WatchKind::Modified }, Some((index, revision)));
        } else {
            log.advance(index, revision);
        }
    }

    /// Tells watches that a node is heard or silent now.
    pub fn tell_turned(&mut self, node: &str) {
        if self.exists(Kind::Nodes, node) {
            self.changes.of_mut(Kind::Nodes).push(node, WatchKind::Modified, None);
        }
    }

    fn exists(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Apps => self.apps.as_ref().is_some_and(|all| all.contains_key(name)),
            Kind::Nodes => self.nodes.as_ref().is_some_and(|all| all.contains_key(name)),
            Kind::Assignments => self.assignments.as_ref().is_some_and(|all| all.contains_key(name)),
        }
    }

    /// A node as the API shows it.
    #[must_use]
    pub fn node_view(&self, node: &Node, now: Instant) -> NodeView {
        let heard = self.heartbeats.get(&node.name);
        let status = self.statuses.as_ref().and_then(|s| s.get(&node.name)).map(|s| s.value.clone());
        NodeView {
            node: node.clone(),
            state: self.node_state(node, now),
            cordon: self.cordon(&node.name),
            heartbeat_age_ms: heard.map(|(at, _)| u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX)),
            load_percent: heard.map(|(_, h)| h.load_percent),
            status,
        }
    }

    /// Whether agents hold, or the store has, an assignment of a later term than `term` of this store: another led meanwhile.
    #[must_use]
    pub fn knows_later(&self, incarnation: &str, term: u64) -> bool {
        let heartbeats = self.heartbeats.values().filter_map(|(_, h)| h.assignment.as_ref());
        let statuses = self.statuses.iter().flatten().filter_map(|(_, s)| s.value.assignment.as_ref());
        let stored = self.assignments.iter().flatten().map(|(_, a)| &a.value.order);
        heartbeats.chain(statuses).chain(stored).any(|order| is_later(order, incarnation, term))
    }

    /// The highest term seen anywhere (rule C3).
    #[must_use]
    pub fn highest_term(&self) -> u64 {
        let assignments = self.assignments.iter().flatten().map(|(_, a)| a.value.order.term);
        let heartbeats = self.heartbeats.values().map(|(_, h)| h.term);
        let beat = self.leader.iter().map(|(_, b)| b.term);
        assignments.chain(heartbeats).chain(beat).max().unwrap_or(0)
    }
}

/// The world, shared: one lock, and a version that rises with every change.
#[derive(Debug, Clone)]
pub struct SharedWorld {
    world: Arc<RwLock<World>>,
    version: watch::Sender<u64>,
}

impl SharedWorld {
    /// A world that knows nothing yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let world = World {
            apps: None,
            unreadable_apps: BTreeSet::new(),
            nodes: None,
            statuses: None,
            app_statuses: None,
            actives: None,
            assignments: None,
            mark: None,
            record: None,
            recovery: None,
            records_listed: false,
            voters_order: None,
            cordons: None,
            handovers: None,
            removals: BTreeMap::new(),
            removals_listed: false,
            heartbeats: BTreeMap::new(),
            leader: None,
            changes: Changes::new(CHANGES_KEPT),
            listening_since: now,
        };
        Self { world: Arc::new(RwLock::new(world)), version: watch::Sender::new(0) }
    }

    /// Looks at the world. Do not hold the guard across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, World> {
        // A writer that panicked left whole values behind: each change is one assignment or map operation.
        self.world.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the world and tells who waits for a change if `change` says that it did something worth planning for.
    pub fn change(&self, change: impl FnOnce(&mut World) -> bool) {
        let mut world = self.world.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let worth = change(&mut world);
        drop(world);
        if worth {
            self.version.send_modify(|v| *v += 1);
        }
    }

    /// Rises with every change that is worth planning for.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The world alone, for tests of what judges it.
    #[cfg(test)]
    pub(crate) fn into_inner(self) -> World {
        let world = Arc::try_unwrap(self.world).unwrap_or_else(|_| unreachable!("a test has one handle"));
        world.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cluster_schemas::assignment::Order;

    use super::*;

    #[test]
    fn a_later_term_is_known_from_statuses_and_the_store_each_by_itself() {
        let knows = |change: fn(&mut World, Order), term: u64| {
            let shared = SharedWorld::new(Instant::now());
            let order = Order { incarnation: "i".to_owned(), term, generation: 1 };
            shared.change(|world| {
                change(world, order);
                false
            });
            let world = shared.read();
            assert!(!world.knows_later("j", 1), "terms of other stores cannot be compared");
            world.knows_later("i", 4)
        };
        let sources: [fn(&mut World, Order); 2] = [
            |world, order| {
                let value = NodeStatus { assignment: Some(order), ..NodeStatus::default() };
                world.statuses = Some(BTreeMap::from([("n1".to_owned(), Revised { value, revision: 1 })]));
            },
            |world, order| {
                let value = Assignment { order, ..Assignment::default() };
                world.assignments = Some(BTreeMap::from([("n1".to_owned(), Revised { value, revision: 1 })]));
            },
        ];
        for source in sources {
            assert_eq!((knows(source, 4), knows(source, 5)), (false, true));
        }
    }
}
