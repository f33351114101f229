//! From an assignment's entry to what should be here: pure.

use cluster_schemas::app::{Mode, Standby, VipSpec, unit_name};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, Role};
use cluster_schemas::partition::PartitionSet;
use serde::{Deserialize, Serialize};

use crate::drivers::Gate;
use crate::lease::view::{TenureState, TenureView};

/// What the manager tells an App's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The assignment's entry; [`Role::Absent`] where there is none.
    pub entry: AppAssignment,
    /// Generation of the assignment.
    pub generation: u64,
    /// The tenures of this App's slots that this node has. Leases decide, the assignment only ranks.
    pub tenures: Tenures,
    /// First address of the node, for `${node.address}`.
    pub node_address: Option<String>,
}

/// The tenures of one App on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenures {
    /// Rises with every change of them: a report names the one it was made under.
    pub version: u64,
    /// Slot `app/NAME`.
    pub app: Option<TenureView>,
    /// Slot `vip/ADDRESS`.
    pub vip: Option<TenureView>,
    /// Partitions that are held, by epoch.
    pub ring: Vec<OwnedPartitions>,
    /// Partitions that are to be let go of in good order, by epoch.
    pub releasing: Vec<OwnedPartitions>,
}

/// How much something should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It should be.
    Yes,
    /// It should go, in good order.
    No,
    /// The tenure is lost: it must go at once, the address first.
    Fence,
}

impl Wish {
    /// Whether what is there may stay.
    #[must_use]
    pub const fn may_stay(self) -> bool {
        matches!(self, Self::Yes)
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

/// What the App's database should be here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DatabaseWish {
    /// It has none.
    #[default]
    None,
    /// A replica.
    Follow,
    /// The application's, in this epoch.
    Lead(u64),
}

/// What should be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The unit runs on standbys too: role, VIP and database are what is exclusive.
    pub hot: bool,
    /// Nothing of the App may be left.
    pub absent: bool,
    /// What has to be asked before the unit is started here, whoever wants it (rule F6).
    pub gate: Option<Gate>,
    /// The unit's full name.
    pub unit: String,
    /// Whether the unit should run.
    pub run: Wish,
    /// The VIP, with the wish to hold it and the epoch of its tenure.
    pub vip: Option<(VipSpec, Wish, u64)>,
    /// Nobody is known to have had the VIP yet: the link is asked before it is taken.
    pub probe: bool,
    /// The slot that the VIP goes with.
    pub vip_slot: String,
    /// A pool's VIP waits until the unit runs; a Singleton's comes before the unit.
    pub vip_after_unit: bool,
    /// The role file; none where nothing may be left.
    pub role: Option<RoleFile>,
    /// The partition file, where the App is a Ring.
    pub partitions: Option<PartitionsFile>,
    /// The database: before address and unit.
    pub database: DatabaseWish,
}

/// What should be here of App `app` on node `node`.
#[must_use]
pub fn target(app: &str, node: &str, desired: &Desired) -> Target {
    let entry = &desired.entry;
    let tenure = |tenure: Option<TenureView>| match tenure.map(|t| t.state) {
        Some(TenureState::Held) => Wish::Yes,
        Some(TenureState::Lost) => Wish::Fence,
        Some(TenureState::Releasing) | None => Wish::No,
    };
    let hot = entry.mode == Mode::Singleton && entry.run.standby == Standby::Hot;
    let slot = tenure(desired.tenures.app);
    let run = match (entry.mode, entry.role) {
        (_, Role::Absent) => Wish::No,
        // It runs on standbys too; a lost tenure ends it all the same, and it comes back as a standby (rule F5).
        (Mode::Singleton, _) if hot && slot != Wish::Fence => Wish::Yes,
        (Mode::Singleton, _) => slot,
        (_, Role::Member) => Wish::Yes,
        _ => Wish::No,
    };
    let vip = entry.vip.as_ref().map(|vip| {
        let (wish, of) = match entry.mode {
            Mode::Singleton => (slot, desired.tenures.app),
            _ => (tenure(desired.tenures.vip), desired.tenures.vip),
        };
        (vip.spec(), wish, of.map_or(0, |t| t.epoch))
    });
    let active = entry.mode == Mode::Singleton && slot == Wish::Yes && entry.role != Role::Absent;
    let shown = match entry.mode {
        Mode::Singleton if active => Role::Active,
        Mode::Singleton => Role::Standby,
        _ => entry.role,
    };
    let role = (entry.role != Role::Absent).then(|| RoleFile {
        app: app.to_owned(),
        node: node.to_owned(),
        role: shown,
        epoch: if active { desired.tenures.app.map_or(0, |t| t.epoch) } else { 0 },
        peers: entry.peers.clone(),
    });
    let partitions = entry.ring.as_ref().filter(|_| entry.role == Role::Member).map(|ring| PartitionsFile {
        app: app.to_owned(),
        node: node.to_owned(),
        version: ring.version,
        partitions: ring.partitions,
        own: desired.tenures.ring.clone(),
    });
    let gated = entry.mode == Mode::Singleton && entry.role != Role::Absent;
    let vip_slot = match (&entry.vip, entry.mode) {
        (Some(vip), mode) if mode != Mode::Singleton => format!("vip/{}", vip.spec().ip()),
        _ => format!("app/{app}"),
    };
    let database = match entry.run.database.as_ref().filter(|_| entry.role != Role::Absent) {
        None => DatabaseWish::None,
        Some(_) if active => DatabaseWish::Lead(desired.tenures.app.map_or(0, |t| t.epoch)),
        Some(_) => DatabaseWish::Follow,
    };
    Target {
        database,
        probe: entry.vip.as_ref().is_some_and(|vip| vip.probe),
        vip_slot,
        gate: gated.then(|| Gate { slot: format!("app/{app}"), hot }),
        hot,
        absent: entry.role == Role::Absent,
        unit: unit_name(app, entry.run.unit.as_ref()),
        run,
        vip,
        vip_after_unit: entry.mode != Mode::Singleton,
        role,
        partitions,
    }
}
