//! From what should be and what is to the next step: pure, one step at a time, so that an agent killed between any two steps goes on.

use cluster_schemas::PartitionSet;
use cluster_schemas::app::VipSpec;
use cluster_schemas::assignment::{OwnedPartitions, Role};
use serde::{Deserialize, Serialize};

use super::health::Fitness;
use super::target::{DatabaseWish, PartitionsFile, RoleFile, Target, Wish};
use crate::database::{Order, Stage};
use crate::drivers::unit_change::needs_restart;
use crate::drivers::{ActiveState, Gate, UnitState};
use crate::health::budget::Restarts;

/// What the worker remembers of this boot, in `/run/clusterctl/APP/agent.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The unit last started or stopped for the App.
    pub unit: String,
    /// Text of the unit that the agent wrote; empty where the unit was installed by others.
    pub content: String,
    /// Text that the running process was started with.
    pub started_with: String,
    /// The unit that systemd asks the guard about, and the slot (rule F6).
    pub gate: Option<(String, Gate)>,
    /// The VIP last held.
    pub vip: Option<VipSpec>,
    /// The VIP that the link was asked for, and that nobody else has.
    pub probed: Option<VipSpec>,
    /// The role file as written.
    pub role: Option<RoleFile>,
    /// The role that the process was last seen to know (started with, or reloaded after).
    pub told_role: Option<RoleFile>,
    /// The partition file as written.
    pub partitions: Option<PartitionsFile>,
    /// The partition file that the process was last seen to know (started with, or reloaded after).
    pub confirmed: Option<PartitionsFile>,
    /// The unit's run that was last found healthy; empty where the present one was not.
    pub healthy_run: String,
    /// Restarts because of failed checks.
    pub restarts: Restarts,
    /// Of a Ring with hooks: the partitions whose `onOwn` ended well. They count as held until their `onRelease` did.
    pub owned: Option<Vec<OwnedPartitions>>,
}

impl Memory {
    /// No process is left: nobody knows anything of what was told.
    pub fn stopped(&mut self) {
        self.started_with.clear();
        self.confirmed = None;
        self.told_role = None;
    }
}

/// What is seen of the App's database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenDatabase {
    /// Where it is.
    pub stage: Stage,
    /// What was ordered last.
    pub order: Order,
    /// It is one that an earlier spec named, and a tenure has it still.
    pub other: bool,
}

/// What is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The unit that [`Memory::unit`] names, if it is another than the target's.
    pub old_unit: Option<UnitState>,
    /// The target's unit.
    pub unit: UnitState,
    /// The target's unit has to run with another text than it was started with, or with one that cannot be made.
    pub outdated: bool,
    /// Whether the target's VIP is present with our mark.
    pub vip_present: bool,
    /// Starts and reloads wait: the last one failed a short time ago.
    pub backing_off: bool,
    /// The process was started a moment ago and may not handle a reload's signal yet.
    pub young: bool,
    /// The unit failed, but before the present tenure began.
    pub failed_before: bool,
    /// The last attempt to run it here failed, and still counts.
    pub failure_counts: bool,
    /// What its checks say.
    pub fitness: Fitness,
    /// The VIP is not taken because another machine on the link has it: so it is on every node, and no failure of this one.
    pub vip_taken: bool,
    /// Partitions that hooks are at work for.
    pub hooked: PartitionSet,
    /// Partitions that are given back because their `onOwn` failed.
    pub refused: PartitionSet,
    /// An `onRelease` failed: nobody knows what the process still does with the partition.
    pub distrusted: bool,
    /// The database, where there is one.
    pub database: Option<SeenDatabase>,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop this unit and see that no process is left.
    Stop(String),
    /// Kill this unit and see that no process is left.
    Kill(String),
    /// Remove the file of this unit, if we wrote it, and forget the unit.
    Uninstall(String),
    /// Have systemd ask the guard before it starts this unit.
    Gate(String, Gate),
    /// Have systemd start this unit without asking.
    Ungate(String),
    /// Remove this address.
    ReleaseVip(VipSpec),
    /// Ask the link whether another machine has this address.
    ProbeVip(VipSpec),
    /// Put this address there and tell the neighbours.
    HoldVip(VipSpec),
    /// Write the role file.
    WriteRole(RoleFile),
    /// Write the partition file.
    WritePartitions(PartitionsFile),
    /// Write the unit's text.
    Install(String),
    /// Start the unit.
    Start,
    /// Stop and start the unit: its text changed, or it cannot reload.
    Restart,
    /// Have the process read its partition file again.
    Reload,
    /// Bring the database to the best tail, and begin this epoch (rule D5).
    Promote {
        /// Epoch of the tenure.
        epoch: u64,
        /// The unit runs, and may have the file open as its own.
        adopt: bool,
    },
    /// The unit that had the database is stopped: make a replica of it again (rules D9, D11).
    Retire,
    /// Remove the App's folder: nothing is left of it.
    Forget,
    /// All is as it should be, or has to wait.
    Settled,
}

/// The next step. `content` is the text of the unit where the agent writes it.
#[must_use]
pub fn next(target: &Target, content: Option<&str>, memory: &Memory, seen: &Seen) -> Step {
    if let Some(step) = clear_old(target, content, memory, seen) {
        return step;
    }
    // Rule R2: never a release on a hope.
    if seen.distrusted && !seen.unit.is_gone() {
        return Step::Kill(target.unit.clone());
    }
    if let Some(step) = gate(target, memory) {
        return step;
    }
    match target.run {
        Wish::No | Wish::Fence => withdraw(target, memory, seen),
        Wish::Yes => run(target, content, memory, seen),
    }
}

/// What an earlier version of the App left: another unit, another address.
fn clear_old(target: &Target, content: Option<&str>, memory: &Memory, seen: &Seen) -> Option<Step> {
    if let Some(vip) = &memory.vip
        && target.vip.as_ref().is_none_or(|(wanted, ..)| wanted != vip)
    {
        return Some(Step::ReleaseVip(vip.clone()));
    }
    if !memory.unit.is_empty() && memory.unit != target.unit {
        let gone = seen.old_unit.as_ref().is_none_or(UnitState::is_gone);
        return Some(if gone { Step::Uninstall(memory.unit.clone()) } else { Step::Stop(memory.unit.clone()) });
    }
    // The unit was ours, and is now one that others installed under the same name: ours must make room.
    if !memory.content.is_empty() && content.is_none() && !target.absent && target.run == Wish::Yes {
        return Some(if seen.unit.is_gone() { Step::Uninstall(memory.unit.clone()) } else { Step::Stop(memory.unit.clone()) });
    }
    None
}

/// The gate stands before anything is started, and goes when nothing is left.
fn gate(target: &Target, memory: &Memory) -> Option<Step> {
    let wanted = target.gate.as_ref().map(|gate| (target.unit.clone(), gate.clone()));
    if memory.gate == wanted || target.absent || target.run == Wish::Fence {
        return None;
    }
    match (&memory.gate, wanted) {
        (Some((unit, _)), wanted) if wanted.as_ref().is_none_or(|(other, _)| other != unit) => Some(Step::Ungate(unit.clone())),
        (_, wanted) => wanted.map(|(unit, gate)| Step::Gate(unit, gate)),
    }
}

fn withdraw(target: &Target, memory: &Memory, seen: &Seen) -> Step {
    let address = target.vip.as_ref().filter(|_| seen.vip_present).map(|(vip, ..)| vip.clone());
    // A lost tenure: the address goes first, whatever the unit does (rule F3). In good order the unit ends its requests first.
    if target.run == Wish::Fence
        && let Some(vip) = &address
    {
        return Step::ReleaseVip(vip.clone());
    }
    if !seen.unit.is_gone() {
        return Step::Stop(target.unit.clone());
    }
    if let Some(vip) = address {
        return Step::ReleaseVip(vip);
    }
    if let Some(database) = seen.database.filter(|database| database.stage.in_tenure()) {
        // What waits for it waits for its end: the lease too, see `observe`.
        return if database.order == Order::Follow { Step::Settled } else { Step::Retire };
    }
    if target.absent {
        if !seen.hooked.is_empty() || memory.owned.iter().any(|owned| !owned.is_empty()) {
            return Step::Settled;
        }
        if let Some((unit, _)) = &memory.gate {
            return Step::Ungate(unit.clone());
        }
        // The name is remembered before a file is written, so that an agent killed in between leaves none behind.
        let nothing_written = memory.content.is_empty() && memory.unit.is_empty();
        return if nothing_written { Step::Forget } else { Step::Uninstall(target.unit.clone()) };
    }
    write_role(target, memory).unwrap_or(Step::Settled)
}

fn run(target: &Target, content: Option<&str>, memory: &Memory, seen: &Seen) -> Step {
    if let Some(text) = content
        && (memory.content != text || memory.unit != target.unit)
    {
        return Step::Install(text.to_owned());
    }
    if let Some(step) = database(target, memory, seen) {
        return step;
    }
    if let Some(step) = write_role(target, memory) {
        return step;
    }
    // A hot process ends its work as the active one before its address goes.
    if seen.unit.is_running() && loses_role(target, memory) && !seen.young {
        return if seen.unit.can_reload { Step::Reload } else { Step::Restart };
    }
    if let Some(step) = release_vip(target, seen) {
        return step;
    }
    if !target.vip_after_unit
        && let Some(step) = hold_vip(target, memory, seen)
    {
        return step;
    }
    if memory.partitions != target.partitions
        && let Some(file) = &target.partitions
    {
        return Step::WritePartitions(file.clone());
    }
    if seen.unit.is_running() {
        // What has to be let go of is told at once, whatever else failed a moment ago: others wait for it, and only so long.
        if lets_go(target, memory) && !seen.young {
            return if seen.unit.can_reload { Step::Reload } else { Step::Restart };
        }
        if !seen.backing_off {
            if seen.fitness.restart {
                return Step::Restart;
            }
            if content.is_some_and(|text| needs_restart(&memory.started_with, text)) {
                return Step::Restart;
            }
            let other_role = target.hot && role_of(&memory.told_role) != role_of(&target.role);
            if other_role && seen.unit.can_reload && !seen.young {
                return Step::Reload;
            }
            // What a young process was told goes on to count as held, so waiting is safe.
            if target.partitions.is_some() && memory.confirmed != target.partitions && !(seen.young && seen.unit.can_reload) {
                return if seen.unit.can_reload { Step::Reload } else { Step::Restart };
            }
        }
        if target.vip_after_unit
            && let Some(step) = hold_vip(target, memory, seen)
        {
            return step;
        }
        return Step::Settled;
    }
    let on_its_way = seen.unit.active_state == ActiveState::Activating || seen.unit.job_pending;
    if on_its_way || seen.backing_off { Step::Settled } else { Step::Start }
}

/// The database comes before role, address and unit, and a process that had it ends before it goes.
fn database(target: &Target, memory: &Memory, seen: &Seen) -> Option<Step> {
    let SeenDatabase { stage, order, other } = seen.database?;
    // A hot process that was never told that it is the active one does not write.
    let told = |file: &Option<RoleFile>| role_of(file).is_some_and(|(role, _)| role == Role::Active);
    let has_it = !seen.unit.is_gone() && (!target.hot || told(&memory.told_role));
    let wanted = match target.database {
        DatabaseWish::Lead(epoch) if !other => Some(epoch),
        _ => None,
    };
    if stage.open().is_some() && stage.open() == wanted {
        return None;
    }
    // Of another tenure, of another spec, or not to be had beside the process.
    let refused = wanted.is_some_and(|epoch| stage == Stage::Refused(epoch));
    if has_it && (refused || stage.open().is_some()) {
        return Some(Step::Stop(target.unit.clone()));
    }
    match wanted {
        Some(epoch) if stage.open().is_none() => {
            let step = Step::Promote { epoch, adopt: has_it };
            let ordered = order == Order::Promote { epoch, adopt: has_it };
            match (ordered, has_it) {
                (false, _) => Some(step),
                // What runs is looked after meanwhile.
                (true, true) => None,
                (true, false) => Some(Step::Settled),
            }
        }
        _ if stage.in_tenure() && order != Order::Follow => Some(Step::Retire),
        // An earlier tenure's, on its way out.
        Some(_) => Some(Step::Settled),
        None => None,
    }
}

/// Whether the process was told of partitions that it may not own any more.
fn lets_go(target: &Target, memory: &Memory) -> bool {
    let owned = |file: &Option<PartitionsFile>| file.as_ref().map(PartitionsFile::owned).unwrap_or_default();
    target.partitions.is_some() && !owned(&memory.confirmed).is_subset(&owned(&target.partitions))
}

/// What of a role a process acts on.
fn role_of(file: &Option<RoleFile>) -> Option<(Role, u64)> {
    file.as_ref().map(|f| (f.role, f.epoch))
}

/// Whether the process was told that it is the active one, and is not any more, or in a later tenure.
fn loses_role(target: &Target, memory: &Memory) -> bool {
    let told = role_of(&memory.told_role).filter(|(role, _)| *role == Role::Active);
    target.hot && told.is_some() && told != role_of(&target.role)
}

fn write_role(target: &Target, memory: &Memory) -> Option<Step> {
    let role = target.role.as_ref()?;
    (memory.role.as_ref() != Some(role)).then(|| Step::WriteRole(role.clone()))
}

fn release_vip(target: &Target, seen: &Seen) -> Option<Step> {
    match &target.vip {
        Some((vip, Wish::No | Wish::Fence, _)) if seen.vip_present => Some(Step::ReleaseVip(vip.clone())),
        _ => None,
    }
}

fn hold_vip(target: &Target, memory: &Memory, seen: &Seen) -> Option<Step> {
    let (vip, wish, _) = target.vip.as_ref()?;
    let missing = !seen.vip_present || memory.vip.as_ref() != Some(vip);
    let asked = !target.probe || seen.vip_present || memory.probed.as_ref() == Some(vip);
    let step = if asked { Step::HoldVip } else { Step::ProbeVip };
    (*wish == Wish::Yes && missing && !seen.backing_off).then(|| step(vip.clone()))
}
