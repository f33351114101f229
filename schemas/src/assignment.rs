//! The planned object: all that one node must do ([`Assignment`], KV `assignments`, key `node.N`).
//!
//! # How an exclusive thing moves
//! 1. The owner's entry turns from holding to *releasing* ([`AppAssignment::releasing`], [`RingAssignment::release`],
//!    [`VipAssignment::releasing`]); nobody else is told to hold it.
//! 2. The owner lets go, and says so in its status: not held, and [`seen`](crate::node::AppObserved::seen) not older than the assignment.
//! 3. The mark is dropped, and the next owner's entry holds it with a higher epoch.
//!
//! An entry leaves an assignment the same way: through [`Role::Absent`], until the node confirmed that nothing is left. A node whose
//! heartbeat is gone for long enough, or that rebooted, has lost what it held without any of this.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::{DatabaseSpec, ExecSpec, Mode, Standby, UnitSpec, VipSpec};
use crate::health::HealthSpec;
use crate::hooks::HooksSpec;
use crate::partition::PartitionSet;

/// Which of two assignments of a node is newer (rule C3): terms, then generations, within one incarnation of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Identity of the store, a UUID made with the buckets. Orders of different incarnations cannot be compared.
    pub incarnation: String,
    /// Leadership in which it was written.
    pub term: u64,
    /// Version of this node's assignment.
    pub generation: u64,
}

impl Order {
    /// Whether this is newer than `other`; `None` when the incarnations differ.
    #[must_use]
    pub fn newer_than(&self, other: &Self) -> Option<bool> {
        (self.incarnation == other.incarnation).then(|| (self.term, self.generation) > (other.term, other.generation))
    }
}

/// All that one node must do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The node.
    pub node: String,
    /// Its place in the order of assignments.
    pub order: Order,
    /// Boot of the node for which exclusive things were given. Another boot holds none of them.
    pub boot_id: String,
    /// All registered nodes, sorted: an agent that hears fewer than a majority of them gives up exclusive things. The assignments of a
    /// plan share the list: in a copy for each it would grow with the square of the nodes.
    pub members: Arc<Vec<String>>,
    /// Incarnations of the store whose assignments this one may follow, as an operator signed by `clusterctl recover` (rule C3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovers: Vec<String>,
    /// An operator wants nothing new here: what the node holds it keeps, and as a candidate it stands back for others (rule P7).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// What to do for each App, by name.
    pub apps: BTreeMap<String, AppAssignment>,
}

/// What one node must do for one App.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppAssignment {
    /// Uid of the App.
    pub uid: String,
    /// Generation of the App's spec this stands on.
    pub generation: u64,
    /// Mode of the App.
    pub mode: Mode,
    /// What the node is for the App.
    pub role: Role,
    /// Singleton: epoch of the tenure that an active node holds; on others the newest epoch planned so far. 0 before the first.
    /// Ring: the newest epoch planned so far for any of its partitions.
    #[serde(default)]
    pub epoch: u64,
    /// Singleton: the node was active with this epoch and has not yet confirmed that it let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releasing: Option<u64>,
    /// Singleton: all nodes that may become active, best first (rule P7). The controller ranks, leases decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// Who should go on when this node lets go; empty where nobody is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub successor: String,
    /// The holder goes on without a majority of the voters (`onQuorumLoss: Keep`): the App is not exclusive.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Lease length in milliseconds; 0: the default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_ms: u64,
    /// What runs. The entries of an App share it, and so do a plan and the next.
    pub run: Arc<RunSpec>,
    /// The VIP, where the App has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipAssignment>,
    /// The partitions, where the App is a Ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingAssignment>,
    /// The other nodes that have a place for this App, sorted; they stand in the role file. Empty for Apps on more nodes than the
    /// planner lists (`PEERS_MAX` there).
    #[serde(default)]
    pub peers: Vec<String>,
    /// Why this node has this role.
    pub reason: Reason,
    /// Why `run` and `generation` are those of an earlier spec, which `update` asks to keep for now; empty where they are the newest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held_back: String,
    /// With `update`: the node was given this content and was not yet seen to be healthy with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a node is for an App.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// The one active instance of a Singleton.
    Active,
    /// Ready to become active.
    Standby,
    /// Instance of a pool or ring.
    Member,
    /// Nothing of the App may be left here.
    #[default]
    Absent,
}

impl Role {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Standby => "Standby",
            Self::Member => "Member",
            Self::Absent => "Absent",
        }
    }
}

/// The part of an App's spec that says what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// As in the App's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitSpec>,
    /// As in the App's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecSpec>,
    /// As in the App's spec.
    #[serde(default)]
    pub standby: Standby,
    /// As in the App's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// As in the App's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksSpec>,
    /// As in the App's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
}

/// A VIP that concerns this node. A Singleton's is held exactly while the node is active.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VipAssignment {
    /// Address with prefix length.
    pub address: String,
    /// Interface that carries it.
    pub interface: String,
    /// Whether this node holds it.
    pub hold: bool,
    /// Pools and rings: epoch of the tenure of slot `vip/ADDRESS` that the holder has; on others the newest planned so far.
    /// A Singleton's VIP goes by [`AppAssignment::epoch`], and this is the same number.
    #[serde(default)]
    pub epoch: u64,
    /// The node held it with this epoch and has not yet confirmed that it let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releasing: Option<u64>,
    /// Pools and rings: all nodes that may hold it, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// No node of the App was ever seen to have this address: who takes it asks the link first whether another machine has it. Never set
    /// for a take-over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
}

impl VipAssignment {
    /// The VIP as the spec names it.
    #[must_use]
    pub fn spec(&self) -> VipSpec {
        VipSpec { address: self.address.clone(), interface: self.interface.clone() }
    }
}

/// The partitions that concern this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingAssignment {
    /// Partitions of the ring.
    pub partitions: u16,
    /// Partitions that this node owns, grouped by epoch: rising epochs, each partition in one group.
    #[serde(default)]
    pub own: Vec<OwnedPartitions>,
    /// Partitions that this node had and has not yet confirmed to have let go.
    #[serde(default)]
    pub release: PartitionSet,
    /// Version of the ring's table: rises whenever an owner changes.
    #[serde(default)]
    pub version: u64,
    /// Every partition that this node may own, in groups with the same candidates, best first; the first of them is the planned owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<PartitionCandidates>,
}

impl RingAssignment {
    /// All partitions that this node owns.
    #[must_use]
    pub fn owned(&self) -> PartitionSet {
        self.own.iter().flat_map(|group| group.partitions.iter()).collect()
    }

    /// Epoch with which this node owns `partition`.
    #[must_use]
    pub fn epoch_of(&self, partition: u16) -> Option<u64> {
        self.own.iter().find(|group| group.partitions.contains(partition)).map(|group| group.epoch)
    }
}

/// Partitions with the same candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionCandidates {
    /// Nodes, best first; the first is the planned owner.
    pub order: Vec<String>,
    /// The partitions.
    pub partitions: PartitionSet,
}

/// Partitions that were given in the same tenure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedPartitions {
    /// Epoch of the tenure.
    pub epoch: u64,
    /// The partitions.
    pub partitions: PartitionSet,
}

impl OwnedPartitions {
    /// Partitions with the epochs they are owned in, grouped by epoch, rising.
    pub fn grouped(owned: impl IntoIterator<Item = (u16, u64)>) -> Vec<Self> {
        let mut groups: BTreeMap<u64, PartitionSet> = BTreeMap::new();
        for (partition, epoch) in owned {
            groups.entry(epoch).or_default().insert(partition);
        }
        groups.into_iter().map(|(epoch, partitions)| Self { epoch, partitions }).collect()
    }
}

/// Why something was placed where it is: data first, the sentence for people beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Which rule decided.
    pub code: ReasonCode,
    /// The same in a sentence, with the names involved.
    pub message: String,
}

/// Which rule decided a placement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ReasonCode {
    /// It is there already, and nothing asks for a move.
    #[default]
    Sticky,
    /// The best of the eligible nodes by the planner's order.
    Chosen,
    /// Every eligible node runs one.
    EveryEligibleNode,
    /// Takes over from a node that is lost, rebooted or gave up.
    TakeOver,
    /// Ready to become active.
    Standby,
    /// The App is being deleted.
    Deleted,
    /// The node is not eligible any more.
    NotEligible,
    /// More instances than asked for.
    Surplus,
    /// Waits until another node confirmed that it let go.
    WaitsForRelease,
    /// Another App has a claim on the same VIP or unit.
    Conflict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_term_then_generation_within_an_incarnation() {
        let order = |incarnation: &str, term, generation| Order { incarnation: incarnation.to_owned(), term, generation };
        assert_eq!(order("a", 2, 1).newer_than(&order("a", 1, 9)), Some(true));
        assert_eq!(order("a", 2, 2).newer_than(&order("a", 2, 1)), Some(true));
        assert_eq!(order("a", 2, 1).newer_than(&order("a", 2, 1)), Some(false));
        assert_eq!(order("a", 1, 9).newer_than(&order("a", 2, 1)), Some(false));
        assert_eq!(order("a", 9, 9).newer_than(&order("b", 1, 1)), None);
    }
}
