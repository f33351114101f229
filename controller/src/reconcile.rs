//! The reconcile loop of the leading controller: level-triggered. Look, plan, check, write what changed; again whenever something changed.
//!
//! While it leads, [`Planned`] is the truth about assignments: what was read from the stream's leader after the acquisition, and what was
//! written since. The watch's cache is not used for it, since it may lag behind our own writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cluster_bus::{Bucket, Bus, Kv, KvError, Revised};
use cluster_planner::{Input, LeasedPlan, Plan, plan_leased};
use cluster_schemas::{App, AppStatus, Assignment};
use futures_util::future::join_all;
use tracing::{debug, error, info, warn};

use crate::leadership::{Lead, Leadership, LeadershipHandle};
use crate::status;
use crate::world::{ActiveRecord, SharedWorld};

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
    #[error("the plan breaks {0} rules, nothing of it was written")]
    BadPlan(usize),
}

/// What this leadership knows to be written.
#[derive(Debug, Default)]
struct Planned {
    assignments: BTreeMap<String, Assignment>,
    /// Nodes whose stored assignment is not known for sure: not read yet, or a write went unanswered.
    unsure: BTreeSet<String>,
}

/// The buckets that the leader writes.
#[derive(Debug)]
struct Stores {
    apps: Kv<App>,
    assignments: Kv<Assignment>,
    app_statuses: Kv<AppStatus>,
    actives: Kv<ActiveRecord>,
}

/// Runs the loop for ever.
pub async fn run(bus: Bus, world: SharedWorld, mut leadership: LeadershipHandle) {
    let stores = Stores {
        apps: bus.open(Bucket::Apps).await,
        assignments: bus.open(Bucket::Assignments).await,
        app_statuses: bus.open(Bucket::Status).await,
        actives: bus.open(Bucket::Status).await,
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
        match pass(&stores, &world, lead, planned).await {
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
async fn pass(stores: &Stores, world: &SharedWorld, lead: &Lead, planned: &mut Planned) -> Result<(), PassError> {
    if !world.read().is_complete() {
        return Ok(());
    }
    make_sure(&stores.assignments, world, planned).await?;
    let (result, statuses, revisions) = {
        let world = world.read();
        let now = Instant::now();
        let nodes = world.node_inputs(now);
        let (Some(apps), Some(known)) = (&world.apps, &world.app_statuses) else { return Ok(()) };
        if nodes.keys().any(|n| planned.unsure.contains(n) || !planned.assignments.contains_key(n) && world.assignments.is_none()) {
            return Ok(());
        }
        let floors = epoch_floors(world.actives.as_ref(), known);
        let input = Input {
            incarnation: &lead.incarnation,
            term: lead.term,
            apps,
            nodes: &nodes,
            assignments: &planned.assignments,
            epoch_floors: &floors,
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
    write_assignments(&stores.assignments, lead, planned, &result).await?;
    remove_gone(stores, &result, &revisions).await?;
    write_statuses(stores, world, statuses).await
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
                Some(Revised { value, .. }) => planned.assignments.insert(node.to_owned(), value),
                None => planned.assignments.remove(node),
            };
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

/// Highest epochs known from elsewhere than assignments and node statuses.
fn epoch_floors(
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
            Ok(_) => {
                let generation = assignment.order.generation;
                info!(node = assignment.node, term = lead.term, generation, "assignment written");
                planned.assignments.insert(assignment.node.clone(), assignment.clone());
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

/// Removes deleted Apps of which nothing is left anywhere.
async fn remove_gone(stores: &Stores, result: &Plan, revisions: &BTreeMap<String, u64>) -> Result<(), PassError> {
    for app in &result.gone {
        let Some(revision) = revisions.get(app) else { continue };
        match stores.apps.delete(app, *revision).await {
            Ok(()) => info!(app, "deleted, nothing of it is left"),
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
