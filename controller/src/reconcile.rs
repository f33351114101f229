//! The reconcile loop of the leading controller: level-triggered. Look, plan, check, write what changed; again whenever something changed.
//!
//! While it leads, [`Planned`] is the truth about assignments: what was read from the stream's leader after the acquisition, and what was
//! written since. The watch's cache is not used for it, since it may lag behind our own writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cluster_bus::{
    Bucket, Bus, CORDON_PREFIX, CordonOrder, HandoverOrder, Kv, KvError, LEADER_KEY, LeaderRecord, MARK_KEY, REMOVAL_PREFIX, Removal,
    Revised, StoreMark, VOTERS_KEY, VotersOrder,
};
use cluster_planner::{Input, LeasedPlan, Plan, plan_leased};
use cluster_schemas::assignment::Order;
use cluster_schemas::{App, AppStatus, Assignment, Node, NodeStatus};
use futures_util::future::join_all;
use tracing::{debug, error, info, warn};

use crate::events::{Recorder, Seen};
use crate::leadership::{Lead, Leadership, LeadershipHandle};
use crate::recovery::{Gate, Hold, assess, signed};
use crate::world::{ActiveRecord, SharedWorld, is_later};
use crate::{handover, orders, status, voters};

/// Time passes for heartbeats without any message; this often the loop looks.
const TICK: Duration = Duration::from_millis(500);
/// Changes that come together are planned together.
const GATHER: Duration = Duration::from_millis(2);
/// Wait after a pass that the store interrupted.
const RETRY: Duration = Duration::from_millis(250);
/// One line of complaint in the log for this many passes that failed in a row.
const COMPLAIN_EVERY: u32 = 20;
/// Reads under way at once.
const CONCURRENCY: usize = 32;

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("another controller leads")]
    Deposed,
    #[error(transparent)]
    Store(KvError),
    #[error("App {0} cannot be read by this version, planning waits: run the newest version of the controller everywhere")]
    Unreadable(String),
    #[error("the plan breaks {0} rules, nothing of it was written")]
    BadPlan(usize),
}

/// What this leadership knows to be written.
#[derive(Debug, Default)]
struct Planned {
    assignments: BTreeMap<String, Assignment>,
    /// The revisions they were stored with.
    revisions: BTreeMap<String, u64>,
    /// Nodes whose stored assignment is not known for sure: not read yet, or a write went unanswered.
    unsure: BTreeSet<String>,
    /// Highest epochs of plans of this leadership: a node that is forgotten takes its entries with it.
    epochs: BTreeMap<String, u64>,
    /// Why nothing is planned, as last said in the log.
    holds: BTreeSet<Hold>,
    /// Since when operators' wishes to move a Singleton are known.
    handovers: handover::Known,
    /// Nodes and voters as seen last.
    seen: Seen,
}

impl Planned {
    fn stored(&mut self, assignment: Assignment, revision: u64) {
        self.revisions.insert(assignment.node.clone(), revision);
        self.assignments.insert(assignment.node.clone(), assignment);
    }

    /// Nodes whose stored assignment may be another than the one written last: the watch delivered a later revision, or knows none.
    fn suspects(&self, cached: &BTreeMap<String, Revised<Assignment>>) -> Vec<String> {
        let other = |(node, revision): &(&String, &u64)| {
            !self.unsure.contains(*node) && cached.get(*node).is_none_or(|found| found.revision > **revision)
        };
        self.revisions.iter().filter(other).map(|(node, _)| node.clone()).collect()
    }

    /// Whether a successor's assignments were read already, before the news of it arrived: no plan of this one could be newer (rule C3).
    fn has_later(&self, lead: &Lead) -> bool {
        self.assignments.values().any(|a| is_later(&a.order, &lead.incarnation, lead.term))
    }

    /// The same content for `node` again, newer than what is stored and than what was written.
    fn newer(&self, node: &str, found: Option<&Assignment>, lead: &Lead) -> Option<Assignment> {
        let mut again = self.assignments.get(node)?.clone();
        let generation = found.map_or(0, |found| found.order.generation).max(again.order.generation) + 1;
        again.order = Order { incarnation: lead.incarnation.clone(), term: lead.term, generation };
        Some(again)
    }
}

/// The buckets that the leader writes.
#[derive(Debug)]
struct Stores {
    apps: Kv<App>,
    assignments: Kv<Assignment>,
    app_statuses: Kv<AppStatus>,
    actives: Kv<ActiveRecord>,
    records: Kv<LeaderRecord>,
    marks: Kv<StoreMark>,
    nodes: Kv<Node>,
    removals: Kv<Removal>,
    node_statuses: Kv<NodeStatus>,
    cordons: Kv<CordonOrder>,
    handovers: Kv<HandoverOrder>,
    voters: Kv<VotersOrder>,
    events: Recorder,
}

/// Runs the loop for ever. `lease` is that of Apps which name none.
pub async fn run(bus: Bus, world: SharedWorld, mut leadership: LeadershipHandle, lease: Duration, events: Recorder) {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let stores = Stores {
        apps: bus.open(Bucket::Apps).await,
        assignments: bus.open(Bucket::Assignments).await,
        app_statuses: bus.open(Bucket::Status).await,
        actives: bus.open(Bucket::Status).await,
        records: bus.open(Bucket::Assignments).await,
        marks: bus.open(Bucket::Apps).await,
        nodes: bus.open(Bucket::Nodes).await,
        removals: bus.open(Bucket::Nodes).await,
        node_statuses: bus.open(Bucket::Status).await,
        cordons: bus.open(Bucket::Nodes).await,
        handovers: bus.open(Bucket::Assignments).await,
        voters: bus.open(Bucket::Assignments).await,
        events,
    };
    let mut changes = world.changes();
    let mut leading: Option<(Lead, Planned)> = None;
    let mut failures = 0_u32;
    loop {
        leading = match (leadership.current(), leading) {
            (Leadership::Leading(lead), Some((before, planned))) if before == lead => Some((lead, planned)),
            (Leadership::Leading(lead), _) => Some((lead, Planned::default())),
            (Leadership::Following, _) => None,
        };
        let Some((lead, planned)) = &mut leading else {
            if !leadership.changed().await {
                return;
            }
            continue;
        };
        changes.mark_unchanged();
        match pass(&stores, &world, lead, planned, lease_ms).await {
            Ok(()) => failures = 0,
            Err(PassError::Deposed) => {
                leadership.deposed(lead.term);
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => {
                failures += 1;
                // The first ones are the store electing a leader, as a rule; what goes on is worth a line.
                if failures.is_multiple_of(COMPLAIN_EVERY) {
                    warn!(term = lead.term, failures, "no pass came to its end: {error}");
                } else {
                    debug!(term = lead.term, "pass ended early, looking again: {error}");
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(GATHER).await,
            _ = leadership.changed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// One pass: everything is looked at, nothing is remembered but what was written.
async fn pass(stores: &Stores, world: &SharedWorld, lead: &Lead, planned: &mut Planned, lease_ms: u64) -> Result<(), PassError> {
    let unreadable = world.read().unreadable_apps.iter().next().cloned();
    if let Some(app) = unreadable {
        return Err(PassError::Unreadable(app));
    }
    if !world.read().is_complete() {
        return Ok(());
    }
    still_leads(stores, world, lead).await?;
    make_sure(&stores.assignments, world, planned).await?;
    if planned.has_later(lead) {
        return Err(PassError::Deposed);
    }
    let Some(strangers) = may_plan(stores, world, lead, planned).await? else { return Ok(()) };
    put_right(&stores.assignments, world, lead, planned).await?;
    let (mut result, statuses, revisions) = {
        let world = world.read();
        // What was heard since the last look: no plan could be newer than what agents hold by now.
        if world.knows_later(&lead.incarnation, lead.term) {
            return Err(PassError::Deposed);
        }
        let now = Instant::now();
        let mut nodes = world.node_inputs(now);
        // A node that nobody heard yet may hold anything, and can be told nothing.
        let heard = |name: &String| planned.assignments.contains_key(name) || world.heartbeats.contains_key(name);
        nodes.retain(|name, _| !strangers.contains(name) && heard(name));
        let (Some(apps), Some(known)) = (&world.apps, &world.app_statuses) else { return Ok(()) };
        if nodes.keys().any(|n| planned.unsure.contains(n) || !planned.assignments.contains_key(n) && world.assignments.is_none()) {
            return Ok(());
        }
        let mut floors = epoch_floors(world.actives.as_ref(), known);
        for (slot, epoch) in &planned.epochs {
            let floor = floors.entry(slot.clone()).or_insert(0);
            *floor = (*epoch).max(*floor);
        }
        let handovers = handover::wishes(&world);
        let input = Input {
            incarnation: &lead.incarnation,
            term: lead.term,
            apps,
            nodes: &nodes,
            assignments: &planned.assignments,
            lease_ms,
            epoch_floors: &floors,
            handovers: &handovers,
        };
        let LeasedPlan { adopted, bare, plan: result } = plan_leased(&input);
        let violations = cluster_planner::check::check(&Input { assignments: &adopted, ..input }, &bare);
        if !violations.is_empty() {
            for violation in &violations {
                error!(term = lead.term, "the plan is refused by its checker: {violation:?}");
            }
            return Err(PassError::BadPlan(violations.len()));
        }
        let statuses = status::compute(apps, &result, &nodes, known);
        let revisions: BTreeMap<String, u64> = apps.iter().map(|(name, app)| (name.clone(), app.metadata.resource_version)).collect();
        (result, statuses, revisions)
    };
    stores.events.all(planned.seen.look(&world.read(), Instant::now()));
    let recovers = signed(&world.read(), &lead.incarnation);
    orders::carry_signature(&mut result, lead, &planned.assignments, &recovers);
    orders::rise_above_held(&mut result, lead, &planned.assignments, &world.read());
    planned.epochs.clone_from(&result.epochs);
    write_assignments(&stores.assignments, lead, planned, &result).await?;
    remove_nodes(stores, world, lead, planned).await?;
    remove_gone(stores, &result, &revisions).await?;
    settle_voters(stores, world).await?;
    handover::settle(&stores.handovers, world, &mut planned.handovers).await.map_err(PassError::Store)?;
    write_statuses(stores, world, statuses).await
}

/// Whether the record is still this leadership's. An idle leader writes nothing, so it would never be told that the bucket was lost; and
/// agents that hold assignments of a later term refuse whatever it writes.
async fn still_leads(stores: &Stores, world: &SharedWorld, lead: &Lead) -> Result<(), PassError> {
    let (cached, later) = {
        let world = world.read();
        (world.record.as_ref().map(|record| record.revision), world.knows_later(&lead.incarnation, lead.term))
    };
    if later {
        return Err(PassError::Deposed);
    }
    if cached == Some(lead.revision) {
        return Ok(());
    }
    let present = stores.records.get(LEADER_KEY).await.map_err(PassError::Store)?;
    if present.is_some_and(|record| record.revision == lead.revision) { Ok(()) } else { Err(PassError::Deposed) }
}

/// Asks whether the store is the one that the nodes know (rule C3). The nodes to plan without; `None` where nothing may be planned.
async fn may_plan(stores: &Stores, world: &SharedWorld, lead: &Lead, planned: &mut Planned) -> Result<Option<BTreeSet<String>>, PassError> {
    let gate = assess(&world.read(), (&lead.incarnation, lead.term), &planned.assignments, Instant::now());
    let holds = match gate {
        Gate::Open { strangers } => {
            if !planned.holds.is_empty() {
                info!(term = lead.term, "planning goes on");
                planned.holds.clear();
            }
            return Ok(Some(strangers));
        }
        Gate::Settling => return Ok(None),
        Gate::Begin => {
            let mark = StoreMark { incarnation: lead.incarnation.clone() };
            match stores.marks.create(MARK_KEY, &mark).await {
                Ok(_) => info!(incarnation = lead.incarnation, "a new store begins"),
                Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(PassError::Store(error)),
            }
            // The watch brings the mark, and with it the next pass.
            return Ok(None);
        }
        Gate::Held(holds) => holds,
    };
    if planned.holds != holds {
        for hold in &holds {
            let fix = if hold.needs_signature() { "; nothing is planned until `clusterctl recover` signs it" } else { "" };
            error!(term = lead.term, incarnation = lead.incarnation, "{hold}{fix}");
        }
        planned.holds = holds;
    }
    Ok(None)
}

/// Forgets the nodes whose removal was asked for. The order is deleted last, so that a pass that is interrupted is taken up again.
async fn remove_nodes(stores: &Stores, world: &SharedWorld, lead: &Lead, planned: &mut Planned) -> Result<(), PassError> {
    let removals = world.read().removals.clone();
    for (node, removal) in removals {
        // First the registration: an agent that is told that its assignment is gone looks whether it is still registered.
        forget(&stores.nodes, &node).await?;
        let key = format!("node.{node}");
        if stores.assignments.get(&key).await.map_err(PassError::Store)?.is_some() {
            match stores.assignments.delete_as_leader(&key, lead.revision).await {
                Ok(()) => {}
                Err(KvError::Conflict { .. }) => return Err(PassError::Deposed),
                Err(error) => return Err(PassError::Store(error)),
            }
        }
        planned.assignments.remove(&node);
        planned.revisions.remove(&node);
        planned.unsure.remove(&node);
        forget(&stores.node_statuses, &key).await?;
        world.change(|w| {
            // Known before the watches say so: the three of them may say it in any order.
            w.nodes.as_mut().map(|nodes| nodes.remove(&node));
            w.statuses.as_mut().map(|statuses| statuses.remove(&node));
            w.assignments.as_mut().map(|assignments| assignments.remove(&node));
            true
        });
        if stores.nodes.get(&node).await.map_err(PassError::Store)?.is_some() {
            // Its agent wrote in between; the next pass goes on.
            continue;
        }
        forget(&stores.cordons, &format!("{CORDON_PREFIX}{node}")).await?;
        forget(&stores.removals, &format!("{REMOVAL_PREFIX}{node}")).await?;
        info!(node, force = removal.force, "forgotten");
    }
    Ok(())
}

/// Reads the assignments of nodes that this leadership is not sure about, from the stream's leader.
async fn make_sure(kv: &Kv<Assignment>, world: &SharedWorld, planned: &mut Planned) -> Result<(), PassError> {
    let unknown: Vec<String> = {
        let world = world.read();
        let nodes = world.nodes.iter().flatten().map(|(name, _)| name);
        let assigned = world.assignments.iter().flatten().map(|(name, _)| name);
        let unknown = |n: &&String| !planned.assignments.contains_key(*n) || planned.unsure.contains(*n);
        nodes.chain(assigned).filter(unknown).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    for some in unknown.chunks(CONCURRENCY) {
        let reads = join_all(some.iter().map(|node| read_assignment(kv, node))).await;
        for (node, read) in some.iter().zip(reads) {
            take_read(planned, node, read)?;
        }
    }
    Ok(())
}

async fn read_assignment(kv: &Kv<Assignment>, node: &str) -> Result<Option<Revised<Assignment>>, KvError> {
    kv.get(&format!("node.{node}")).await
}

fn take_read(planned: &mut Planned, node: &str, read: Result<Option<Revised<Assignment>>, KvError>) -> Result<(), PassError> {
    match read {
        Ok(found) => {
            planned.unsure.remove(node);
            match found {
                Some(Revised { value, revision }) => {
                    planned.revisions.insert(node.to_owned(), revision);
                    planned.assignments.insert(node.to_owned(), value);
                }
                None => {
                    planned.revisions.remove(node);
                    planned.assignments.remove(node);
                }
            }
            Ok(())
        }
        Err(KvError::Encoding { key, source }) => {
            // Written by a version we cannot read, or damaged. Planning without it could give away what the node holds.
            error!(key, "stored assignment cannot be read, planning waits: {source}");
            Err(PassError::Store(KvError::Encoding { key, source }))
        }
        Err(error) => Err(PassError::Store(error)),
    }
}

/// Writes again what somebody else replaced or removed. Nobody but the leader may write assignments, and agents refuse an older one; but
/// an agent without a journal, or the next leader, would go by what is stored.
async fn put_right(kv: &Kv<Assignment>, world: &SharedWorld, lead: &Lead, planned: &mut Planned) -> Result<(), PassError> {
    let suspects = world.read().assignments.as_ref().map(|cached| planned.suspects(cached)).unwrap_or_default();
    for node in suspects {
        let found = match read_assignment(kv, &node).await {
            Ok(found) => found,
            // Not ours, then.
            Err(KvError::Encoding { .. }) => None,
            Err(error) => return Err(PassError::Store(error)),
        };
        if let Some(found) = &found
            && planned.assignments.get(&node) == Some(&found.value)
        {
            // Ours: the watch lags behind, or somebody wrote the same.
            planned.revisions.insert(node, found.revision);
            continue;
        }
        let found = found.map(|f| f.value);
        if found.as_ref().is_some_and(|f| is_later(&f.order, &lead.incarnation, lead.term)) {
            // A successor wrote it, of whom this one has not heard yet.
            return Err(PassError::Deposed);
        }
        let Some(again) = planned.newer(&node, found.as_ref(), lead) else { continue };
        let (was, generation) = (found.map(|f| f.order.generation), again.order.generation);
        match kv.put_as_leader(&format!("node.{node}"), &again, lead.revision).await {
            Ok(revision) => {
                warn!(
                    node,
                    term = lead.term,
                    generation,
                    stored = was,
                    "the stored assignment was not the one written, it is written again"
                );
                planned.stored(again, revision);
            }
            Err(KvError::Conflict { .. }) => return Err(PassError::Deposed),
            Err(error) => {
                planned.unsure.insert(node);
                return Err(PassError::Store(error));
            }
        }
    }
    Ok(())
}

/// Highest epochs known from elsewhere than assignments and node statuses.
pub(crate) fn epoch_floors(
    actives: Option<&BTreeMap<String, ActiveRecord>>,
    statuses: &BTreeMap<String, Revised<AppStatus>>,
) -> BTreeMap<String, u64> {
    let mut floors = BTreeMap::new();
    let mut raise = |slot: String, epoch: u64| {
        let floor = floors.entry(slot).or_insert(0);
        *floor = epoch.max(*floor);
    };
    for (app, active) in actives.into_iter().flatten() {
        raise(format!("app/{app}"), active.epoch);
    }
    for (app, status) in statuses {
        for instance in &status.value.instances {
            raise(format!("app/{app}"), instance.epoch.unwrap_or(0));
        }
    }
    floors
}

async fn write_assignments(kv: &Kv<Assignment>, lead: &Lead, planned: &mut Planned, result: &Plan) -> Result<(), PassError> {
    let changed: Vec<&Assignment> = result.assignments.values().filter(|a| planned.assignments.get(&a.node) != Some(*a)).collect();
    let mut failed = None;
    // One after the other: with two writes on the way that stand on the same record, the stream refuses the second (10164).
    for assignment in changed {
        let key = format!("node.{}", assignment.node);
        match kv.put_as_leader(&key, assignment, lead.revision).await {
            Ok(revision) => {
                let generation = assignment.order.generation;
                info!(node = assignment.node, term = lead.term, generation, "assignment written");
                planned.stored(assignment.clone(), revision);
            }
            Err(KvError::Conflict { .. }) => return Err(PassError::Deposed),
            Err(error) => {
                // It may or may not have been written: read it again before planning on it.
                planned.unsure.insert(assignment.node.clone());
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(PassError::Store(error)))
}

/// Deletes an operator's order to replace a voter once that is done.
async fn settle_voters(stores: &Stores, world: &SharedWorld) -> Result<(), PassError> {
    let over = {
        let world = world.read();
        world.voters_order.as_ref().zip(world.voters()).is_some_and(|(order, current)| voters::is_over(current, order))
    };
    if over { forget(&stores.voters, VOTERS_KEY).await } else { Ok(()) }
}

/// Removes deleted Apps of which nothing is left anywhere.
async fn remove_gone(stores: &Stores, result: &Plan, revisions: &BTreeMap<String, u64>) -> Result<(), PassError> {
    for app in &result.gone {
        let Some(revision) = revisions.get(app) else { continue };
        match stores.apps.delete(app, *revision).await {
            Ok(()) => {
                info!(app, "deleted, nothing of it is left");
                stores.events.deleted(app);
            }
            // Changed meanwhile: the next pass sees it.
            Err(KvError::Conflict { .. }) => continue,
            Err(error) => return Err(PassError::Store(error)),
        }
        forget(&stores.app_statuses, &format!("app.{app}")).await?;
        forget(&stores.actives, &format!("active.{app}")).await?;
    }
    Ok(())
}

async fn forget<T: serde::Serialize + serde::de::DeserializeOwned>(kv: &Kv<T>, key: &str) -> Result<(), PassError> {
    let Some(present) = kv.get(key).await.map_err(PassError::Store)? else { return Ok(()) };
    match kv.delete(key, present.revision).await {
        Ok(()) | Err(KvError::Conflict { .. }) => Ok(()),
        Err(error) => Err(PassError::Store(error)),
    }
}

/// Stores the statuses that changed. Compare-and-set, so that a deposed leader does not overwrite its successor's.
async fn write_statuses(stores: &Stores, world: &SharedWorld, statuses: BTreeMap<String, AppStatus>) -> Result<(), PassError> {
    for (app, status) in statuses {
        let known = world.read().app_statuses.iter().flatten().find(|(name, _)| **name == app).map(|(_, s)| s.clone());
        if known.as_ref().is_some_and(|k| k.value == status) {
            continue;
        }
        let key = format!("app.{app}");
        let written = match &known {
            Some(known) => stores.app_statuses.update(&key, &status, known.revision).await,
            None => stores.app_statuses.create(&key, &status).await,
        };
        match written {
            Ok(revision) => world.change(|w| {
                stores.events.status(&app, known.as_ref().map(|known| &known.value), &status);
                // Our own write is known before the watch says so; the watch may already have said something newer.
                let map = w.app_statuses.get_or_insert_default();
                if map.get(&app).is_none_or(|present| present.revision < revision) {
                    map.insert(app, Revised { value: status, revision });
                }
                false
            }),
            Err(KvError::Conflict { .. }) => {
                warn!(app, "status written by somebody else in between, computing it again");
                if let Ok(Some(present)) = stores.app_statuses.get(&key).await {
                    world.change(|w| {
                        w.app_statuses.get_or_insert_default().insert(app, present);
                        true
                    });
                }
            }
            Err(error) => return Err(PassError::Store(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(generation: u64, revision: u64) -> Revised<Assignment> {
        let order = Order { incarnation: "i".to_owned(), term: 1, generation };
        let value = Assignment { node: "n1".to_owned(), order, boot_id: "ours".to_owned(), ..Assignment::default() };
        Revised { value, revision }
    }

    fn planned() -> Planned {
        let mut planned = Planned::default();
        planned.stored(stored(5, 50).value, 50);
        planned
    }

    #[test]
    fn a_later_revision_or_a_missing_record_is_suspect_and_a_lagging_watch_is_not() {
        let suspects = |planned: &Planned, cached: Option<Revised<Assignment>>| {
            planned.suspects(&cached.into_iter().map(|c| ("n1".to_owned(), c)).collect())
        };
        let mut planned = planned();
        assert_eq!(suspects(&planned, Some(stored(5, 50))), [""; 0]);
        assert_eq!(suspects(&planned, Some(stored(4, 49))), [""; 0]);
        assert_eq!(suspects(&planned, Some(stored(2, 51))), ["n1"]);
        assert_eq!(suspects(&planned, None), ["n1"]);
        // One that is read anew anyway is no question of suspicion.
        planned.unsure.insert("n1".to_owned());
        assert_eq!(suspects(&planned, Some(stored(2, 51))), [""; 0]);
    }

    #[test]
    fn an_assignment_of_a_later_term_says_that_another_leads() {
        let lead = |incarnation: &str, term| Lead { incarnation: incarnation.to_owned(), term, revision: 1 };
        let mut planned = planned();
        assert!(!planned.has_later(&lead("i", 1)));
        planned
            .stored(Assignment { order: Order { term: 2, ..stored(1, 1).value.order }, node: "n2".to_owned(), ..stored(1, 1).value }, 60);
        assert!(planned.has_later(&lead("i", 1)));
        assert!(!planned.has_later(&lead("i", 2)));
        // Of a store that is no more: nothing follows from it.
        assert!(!planned.has_later(&lead("j", 1)));
    }

    #[test]
    fn what_is_written_again_is_newer_than_everything_and_has_the_planned_content() {
        let lead = Lead { incarnation: "i".to_owned(), term: 3, revision: 1 };
        let mut replayed = stored(9, 51).value;
        replayed.boot_id = "theirs".to_owned();
        for (found, generation) in [(Some(&replayed), 10), (Some(&stored(2, 51).value), 6), (None, 6)] {
            let again = planned().newer("n1", found, &lead).expect("a planned assignment");
            assert_eq!((again.order.term, again.order.generation, again.boot_id.as_str()), (3, generation, "ours"));
        }
        assert_eq!(planned().newer("n2", None, &lead), None);
    }
}
