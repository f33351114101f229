//! What hooks have to do for which partition: pure.
//!
//! # Rules
//! - A Ring's process is told of a partition when its `onOwn` ended well (R3), with the epoch of the lease; a new epoch is a new `onOwn`.
//! - `onRelease` follows when the process was told that the partition goes, or is gone itself; the lease is released after it (R1).
//! - Where the lease was lost there is nothing to release, and no hook runs: another node may own the partition already.

use std::collections::BTreeMap;

use cluster_schemas::app::Mode;
use cluster_schemas::assignment::OwnedPartitions;
use cluster_schemas::hooks::HooksSpec;
use cluster_schemas::partition::PartitionSet;

use super::decide::Memory;
use super::target::{Desired, PartitionsFile, Target};

/// A partition in the tenure with this epoch.
pub type Owned = (u16, u64);

/// What is to be done, in rising partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Todo {
    /// Acquired: `onOwn`.
    pub own: Vec<Owned>,
    /// The process knows that they go: `onRelease`.
    pub release: Vec<Owned>,
    /// Their tenures are over: they are forgotten.
    pub forget: Vec<Owned>,
}

/// The hooks of a Ring that has any.
#[must_use]
pub fn hooks(desired: &Desired) -> Option<&HooksSpec> {
    let hooks = desired.entry.run.hooks.as_ref().filter(|_| desired.entry.mode == Mode::Ring)?;
    (hooks.on_own.is_some() || hooks.on_release.is_some()).then_some(hooks)
}

/// All partitions of some groups.
#[must_use]
pub fn partitions(groups: &[OwnedPartitions]) -> PartitionSet {
    groups.iter().flat_map(|group| group.partitions.iter()).collect()
}

/// Partitions with their epochs.
#[must_use]
pub fn epochs(groups: &[OwnedPartitions]) -> BTreeMap<u16, u64> {
    groups.iter().flat_map(|group| group.partitions.iter().map(|p| (p, group.epoch))).collect()
}

/// Leaves in the partition file what `onOwn` ended well for.
pub fn only_owned(target: &mut Target, memory: &Memory) {
    let (Some(file), Some(owned)) = (&mut target.partitions, &memory.owned) else { return };
    let owned = epochs(owned);
    let ready = epochs(&file.own).into_iter().filter(|(p, epoch)| owned.get(p) == Some(epoch));
    file.own = OwnedPartitions::grouped(ready);
}

/// What is to be done, for an App with hooks. `gone`: no process of its unit is left.
#[must_use]
pub fn todo(desired: &Desired, memory: &Memory, gone: bool, member: bool) -> Todo {
    let tenures = &desired.tenures;
    let (held, releasing) = (epochs(&tenures.ring), epochs(&tenures.releasing));
    let owned = epochs(memory.owned.as_deref().unwrap_or_default());
    let knows = |file: &Option<PartitionsFile>, p: u16| file.as_ref().is_some_and(|f| f.own.iter().any(|g| g.partitions.contains(p)));
    let mut todo = Todo::default();
    if member {
        todo.own = held.iter().filter(|(p, epoch)| owned.get(p) != Some(epoch)).map(|(p, epoch)| (*p, *epoch)).collect();
    }
    for (p, epoch) in owned {
        if held.get(&p) == Some(&epoch) {
            continue;
        }
        if releasing.get(&p) != Some(&epoch) {
            todo.forget.push((p, epoch));
            continue;
        }
        let in_file = member && knows(&memory.partitions, p);
        let told = gone || !knows(&memory.confirmed, p);
        if !in_file && told {
            todo.release.push((p, epoch));
        }
    }
    todo
}
