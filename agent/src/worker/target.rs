//! From an assignment's entry to what should be here: pure.

use cluster_schemas::app::{Mode, VipSpec, unit_name};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, Role};
use cluster_schemas::partition::PartitionSet;
use serde::{Deserialize, Serialize};

use crate::quorum::Quorum;

/// What the manager tells an App's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The assignment's entry; [`Role::Absent`] where there is none.
    pub entry: AppAssignment,
    /// Generation of the assignment.
    pub generation: u64,
    /// Whether the assignment was written for this boot: exclusive things of another boot are void.
    pub same_boot: bool,
    /// Whether a majority is heard.
    pub quorum: Quorum,
    /// First address of the node, for `${node.address}`.
    pub node_address: Option<String>,
}

/// Tenures that this node gave up by itself in this boot. They are dead for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GaveUp {
    /// Highest epoch of slot `app/NAME`.
    pub app: u64,
    /// Highest epoch of slot `vip/ADDRESS`.
    pub vip: u64,
    /// Highest epoch of the App's partitions.
    pub ring: u64,
}

/// How much something should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It should be.
    Yes,
    /// It may stay if it is there, and is not begun: whether the tenure still holds is not known yet.
    Keep,
    /// It should go, in good order.
    No,
    /// The tenure is lost: it must go at once, the address first.
    Fence,
}

impl Wish {
    /// Whether what is there may stay.
    #[must_use]
    pub const fn may_stay(self) -> bool {
        matches!(self, Self::Yes | Self::Keep)
    }
}

/// The role file, `/run/clusterctl/APP/role.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleFile {
    /// The App.
    pub app: String,
    /// This node.
    pub node: String,
    /// What this node is for the App.
    pub role: Role,
    /// Epoch of the tenure; 0 where nothing exclusive is held.
    pub epoch: u64,
    /// The other nodes that have the App.
    pub peers: Vec<String>,
}

/// The partition file, `/run/clusterctl/APP/partitions.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionsFile {
    /// The App.
    pub app: String,
    /// This node.
    pub node: String,
    /// Version of the ring's table.
    pub version: u64,
    /// Partitions of the ring.
    pub partitions: u16,
    /// What this node owns, by epoch.
    pub own: Vec<OwnedPartitions>,
}

impl PartitionsFile {
    /// All partitions owned.
    #[must_use]
    pub fn owned(&self) -> PartitionSet {
        self.own.iter().flat_map(|group| group.partitions.iter()).collect()
    }
}

/// What should be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Nothing of the App may be left.
    pub absent: bool,
    /// The unit's full name.
    pub unit: String,
    /// Whether the unit should run.
    pub run: Wish,
    /// The VIP, with the wish to hold it and the epoch of its tenure.
    pub vip: Option<(VipSpec, Wish, u64)>,
    /// A pool's VIP waits until the unit runs; a Singleton's comes before the unit.
    pub vip_after_unit: bool,
    /// The role file; none where nothing may be left.
    pub role: Option<RoleFile>,
    /// The partition file, where the App is a Ring.
    pub partitions: Option<PartitionsFile>,
}

/// The tenures that are lost under `desired`, added to what was given up before.
#[must_use]
pub fn give_up(desired: &Desired, before: GaveUp) -> GaveUp {
    if desired.quorum != Quorum::No || !desired.same_boot {
        return before;
    }
    let entry = &desired.entry;
    let app = if entry.role == Role::Active { entry.epoch } else { 0 };
    let app = app.max(entry.releasing.unwrap_or(0));
    let vip = entry.vip.as_ref().map_or(0, |v| if v.hold { v.epoch } else { v.releasing.unwrap_or(0) });
    let ring = entry.ring.iter().flat_map(|r| &r.own).map(|g| g.epoch).max().unwrap_or(0);
    GaveUp { app: before.app.max(app), vip: before.vip.max(vip), ring: before.ring.max(ring) }
}

/// What should be here of App `app` on node `node`. `told` is the partition file as written before: while it is not known whether a
/// majority is heard, partitions of it may stay, and none are begun.
#[must_use]
pub fn target(app: &str, node: &str, desired: &Desired, gave_up: GaveUp, told: Option<&PartitionsFile>) -> Target {
    let entry = &desired.entry;
    // A tenure holds while it is of this boot, was not given up, and a majority is (or may be) heard.
    let tenure = |epoch: u64, lost: u64| match desired.quorum {
        _ if !desired.same_boot || epoch <= lost => Wish::Fence,
        Quorum::No => Wish::Fence,
        Quorum::Unknown => Wish::Keep,
        Quorum::Yes => Wish::Yes,
    };
    let run = match entry.role {
        Role::Active => tenure(entry.epoch, gave_up.app),
        Role::Member => Wish::Yes,
        Role::Standby | Role::Absent => Wish::No,
    };
    let vip = entry.vip.as_ref().map(|vip| {
        let wish = match (entry.mode, vip.hold) {
            (_, false) => Wish::No,
            (Mode::Singleton, true) => run,
            (_, true) => tenure(vip.epoch, gave_up.vip),
        };
        (vip.spec(), wish, vip.epoch)
    });
    let active = entry.role == Role::Active && run.may_stay();
    let role = (entry.role != Role::Absent).then(|| RoleFile {
        app: app.to_owned(),
        node: node.to_owned(),
        role: if entry.role == Role::Active && !active { Role::Standby } else { entry.role },
        epoch: if active { entry.epoch } else { 0 },
        peers: entry.peers.clone(),
    });
    let partitions = entry.ring.as_ref().filter(|_| entry.role == Role::Member).map(|ring| PartitionsFile {
        app: app.to_owned(),
        node: node.to_owned(),
        version: ring.version,
        partitions: ring.partitions,
        own: match desired.quorum {
            Quorum::Unknown => told.map(|file| kept(&ring.own, file)).unwrap_or_default(),
            _ => ring.own.iter().filter(|group| tenure(group.epoch, gave_up.ring).may_stay()).cloned().collect(),
        },
    });
    Target {
        absent: entry.role == Role::Absent,
        unit: unit_name(app, entry.run.unit.as_ref()),
        run,
        vip,
        vip_after_unit: entry.mode != Mode::Singleton,
        role,
        partitions,
    }
}

/// The part of `own` that `told` has with the same epochs.
fn kept(own: &[OwnedPartitions], told: &PartitionsFile) -> Vec<OwnedPartitions> {
    own.iter()
        .filter_map(|group| {
            let before = told.own.iter().find(|t| t.epoch == group.epoch)?;
            let partitions = group.partitions.intersection(&before.partitions);
            (!partitions.is_empty()).then_some(OwnedPartitions { epoch: group.epoch, partitions })
        })
        .collect()
}
