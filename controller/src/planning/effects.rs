//! What becomes of a change on the nodes: the leader's inputs, as far as any controller has them, given to the planner's preview.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cluster_planner::{Input, preview};
use cluster_schemas::plan::{Effects, InterruptionKind};
use cluster_schemas::takeover::{Cause, TakeOver};
use cluster_schemas::{App, Assignment};

use super::unknown;
use crate::recovery::{Gate, assess};
use crate::world::World;
use crate::{handover, reconcile};

pub(super) fn of(world: &World, wanted: &BTreeMap<String, App>, lease_ms: u64, now: Instant) -> Effects {
    let made = with_input(world, lease_ms, now, |input| preview::effects(input, wanted));
    let mut effects = match made {
        Ok(effects) => effects,
        Err(why) => return unknown(why),
    };
    for interruption in &mut effects.interruptions {
        if matches!(interruption.kind, InterruptionKind::HotSwitchover | InterruptionKind::ColdSwitchover) {
            let active = world.actives.as_ref().and_then(|all| all.get(&interruption.app));
            interruption.last_ms = active.and_then(|a| a.takeover.iter().chain(&a.history).find_map(took));
        }
    }
    effects
}

/// Gives `look` the inputs of the leader, as far as this controller has them; the error says why there are none.
pub(super) fn with_input<T>(world: &World, lease_ms: u64, now: Instant, look: impl FnOnce(&Input<'_>) -> T) -> Result<T, &'static str> {
    let (Some(apps), Some(known), Some(record)) = (&world.apps, &world.app_statuses, &world.record) else {
        return Err("no controller has led yet, or the caches of this one are not complete");
    };
    if !world.is_complete() {
        return Err("the caches of this controller are not complete yet");
    }
    if !world.unreadable_apps.is_empty() {
        return Err("an App cannot be read by this version, and nothing is planned meanwhile");
    }
    let (incarnation, term) = (record.value.incarnation.as_str(), record.value.term);
    let assignments: BTreeMap<String, Assignment> =
        world.assignments.iter().flatten().map(|(node, entry)| (node.clone(), entry.value.clone())).collect();
    let strangers = match assess(world, (incarnation, term), &assignments, now) {
        Gate::Open { strangers } => strangers,
        // A new store that nothing speaks against: planning begins in a moment.
        Gate::Begin | Gate::Settling => BTreeSet::new(),
        Gate::Held(_) => return Err("nothing is planned until an operator signed the store: see `clusterctl recover`"),
    };
    let mut nodes = world.node_inputs(now);
    nodes.retain(|name, _| !strangers.contains(name) && (assignments.contains_key(name) || world.heartbeats.contains_key(name)));
    let floors = reconcile::epoch_floors(world.actives.as_ref(), known);
    let handovers = handover::wishes(world);
    let input =
        Input { incarnation, term, apps, nodes: &nodes, assignments: &assignments, lease_ms, epoch_floors: &floors, handovers: &handovers };
    Ok(look(&input))
}

/// How long a switchover took, in milliseconds from the grant until all that was seen of it was seen.
fn took(takeover: &TakeOver) -> Option<u64> {
    let seen = [takeover.vip_us, takeover.unit_us, takeover.healthy_us].into_iter().flatten().max()?;
    (takeover.cause == Cause::HandOver).then(|| u64::try_from(seen).unwrap_or(0).div_ceil(1000))
}
