//! From what is seen to what is reported: pure.

use cluster_schemas::PartitionSet;
use cluster_schemas::app::Mode;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::{AppObserved, InstanceState, RingObserved, UnitObserved, VipObserved};

use super::decide::{Memory, Seen};
use super::owning;
use super::target::{Desired, PartitionsFile, Target};
use crate::drivers::{ActiveState, UnitState};
use crate::lease::view::{TenureState, TenureView};

/// The report on one App.
#[must_use]
pub fn observed(desired: &Desired, target: &Target, memory: &Memory, seen: &Seen, trouble: &str) -> AppObserved {
    let entry = &desired.entry;
    let old_gone = seen.old_unit.as_ref().is_none_or(UnitState::is_gone);
    let gone = seen.unit.is_gone() && old_gone;
    // An address that we may have put there counts until it is seen to be gone.
    let earlier_vip = memory.vip.as_ref().filter(|m| target.vip.as_ref().is_none_or(|(v, ..)| v != *m));
    let vip_here = seen.vip_present || earlier_vip.is_some();
    let state = state(target, seen, gone, trouble);
    let wants_vip = target.vip.as_ref().is_some_and(|(_, wish, _)| wish.may_stay());
    // What still runs by an earlier spec says nothing about this one.
    let by_this_spec = seen.unit.is_running() && !seen.outdated;
    let healthy = target.run.may_stay() && by_this_spec && seen.fitness.passes && (!wants_vip || seen.vip_present);
    let singleton = entry.mode == Mode::Singleton;
    // D11: the lease goes when the successor has all of it.
    let database_here = seen.database.is_some_and(|database| database.stage.in_tenure());
    AppObserved {
        uid: entry.uid.clone(),
        generation: entry.generation,
        seen: desired.generation,
        role: target.role.as_ref().map_or(Role::Absent, |r| r.role),
        state,
        healthy,
        holds: singleton && (vip_here || database_here || !gone && (!target.hot || knows_active(memory))),
        epoch: desired.tenures.app.map_or(0, |t| t.epoch),
        leased: held(desired.tenures.app),
        gave_up: 0,
        vip: entry.vip.as_ref().map(|vip| VipObserved {
            address: earlier_vip.filter(|_| !seen.vip_present).map_or_else(|| vip.address.clone(), |m| m.address.clone()),
            present: vip_here,
            epoch: if singleton { desired.tenures.app } else { desired.tenures.vip }.map_or(0, |t| t.epoch),
            leased: held(desired.tenures.vip),
            gave_up: 0,
            trouble: String::new(),
        }),
        database: None,
        ring: (entry.mode == Mode::Ring).then(|| RingObserved { leased: desired.tenures.ring.clone(), ..ring(target, memory, seen, gone) }),
        unit: Some(UnitObserved {
            name: target.unit.clone(),
            active_state: seen.unit.active_state.as_str().to_owned(),
            sub_state: seen.unit.sub_state.clone(),
            result: seen.unit.result.clone(),
            main_pid: seen.unit.main_pid,
            restarts: seen.unit.restarts,
        }),
        message: if trouble.is_empty() { seen.fitness.why.clone() } else { trouble.to_owned() },
    }
}

/// Whether the process may take itself for the active one: it was told so, or would read it now.
fn knows_active(memory: &Memory) -> bool {
    [&memory.told_role, &memory.role].into_iter().flatten().any(|r| r.role == Role::Active)
}

fn held(tenure: Option<TenureView>) -> u64 {
    tenure.filter(|t| t.state == TenureState::Held).map_or(0, |t| t.epoch)
}

fn state(target: &Target, seen: &Seen, gone: bool, trouble: &str) -> InstanceState {
    if !target.run.may_stay() {
        // A standby that failed says so, or it would be chosen again at once.
        let failed = seen.failure_counts && target.role.is_some();
        return match gone {
            true if failed => InstanceState::Failed,
            true => InstanceState::Stopped,
            false => InstanceState::Stopping,
        };
    }
    match seen.unit.active_state {
        ActiveState::Active | ActiveState::Reloading if !seen.outdated && seen.fitness.spent => InstanceState::Failed,
        ActiveState::Active | ActiveState::Reloading if !seen.outdated => InstanceState::Running,
        ActiveState::Active | ActiveState::Reloading if !trouble.is_empty() => InstanceState::Failed,
        ActiveState::Active | ActiveState::Reloading => InstanceState::Starting,
        // It is about to be started for the first time in this tenure.
        ActiveState::Failed if seen.failed_before && trouble.is_empty() => InstanceState::Starting,
        ActiveState::Failed => InstanceState::Failed,
        ActiveState::Deactivating => InstanceState::Stopping,
        ActiveState::Inactive | ActiveState::Maintenance if !trouble.is_empty() && !seen.vip_taken => InstanceState::Failed,
        ActiveState::Inactive | ActiveState::Maintenance | ActiveState::Activating => InstanceState::Starting,
    }
}

/// Held is what the process may own: what the file says, for it reads it whenever it starts, and what it was told before.
fn ring(target: &Target, memory: &Memory, seen: &Seen, gone: bool) -> RingObserved {
    let owned = |file: &Option<PartitionsFile>| file.as_ref().map(PartitionsFile::owned).unwrap_or_default();
    let (file, told) = (owned(&memory.partitions), owned(&memory.confirmed));
    let will_not_start = target.partitions.is_none();
    let held = match (gone, will_not_start) {
        (true, true) => PartitionSet::new(),
        (true, false) => file.clone(),
        (false, _) => file.union(&told),
    };
    // What a hook is at work for, or is still to be asked about, is not let go of either.
    let hooked = owning::partitions(memory.owned.as_deref().unwrap_or_default());
    let held = held.union(&hooked).union(&seen.hooked);
    let confirmed = if seen.unit.is_running() { file.intersection(&told) } else { PartitionSet::new() };
    RingObserved { held, confirmed, refused: seen.refused.clone(), ..RingObserved::default() }
}

/// Whether the role is one that this report says is being served: for the record of who became active.
#[must_use]
pub fn is_active(observed: &AppObserved) -> bool {
    observed.role == Role::Active && observed.state == InstanceState::Running && observed.healthy
}
