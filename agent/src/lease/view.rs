//! What the rest of the agent sees of leases, and what it asks for.

use std::collections::BTreeMap;

use cluster_fence::UnitIndex;
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{NodeName, SetNo, Slot, VoterId};
use cluster_schemas::node::{VoterList, VoterMember};

use super::locking::LockAsk;

/// A slot that this node is a candidate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The unit's entry in the fence table.
    pub unit: UnitIndex,
    /// Whether the slot is the unit's role: the word that a gated unit needs.
    pub role: bool,
    /// T.
    pub t: Span,
    /// It goes on without a majority of the voters (`onQuorumLoss: Keep`).
    pub keep: bool,
    /// All candidates, best first.
    pub order: Vec<NodeName>,
    /// Whether this node could serve at once (rule P7).
    pub ready: bool,
    /// The newest epoch that the assignment knows: tenures get higher ones.
    pub seen: u64,
}

/// Where a tenure of this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenureState {
    /// Held: the slot may run.
    Held,
    /// Held, and to be stopped in good order: it was asked for.
    Releasing,
    /// Over before it was released: everything of it must go at once.
    Lost,
}

/// A tenure of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenureView {
    /// Its epoch.
    pub epoch: u64,
    /// Where it stands.
    pub state: TenureState,
}

/// How a tenure of a named slot began. Times are of the lease's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquired {
    /// Its epoch.
    pub epoch: u64,
    /// When the lease was granted.
    pub granted: Time,
    /// When this node first heard that the slot is free; none where it asked without a hint.
    pub free: Option<Time>,
    /// Whether the former holder named this node as its successor.
    pub handed: bool,
    /// T of the slot.
    pub t: Span,
}

/// All tenures of this node, and the state of the parts they rest on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// By slot. What is not here is not held.
    pub tenures: BTreeMap<Slot, TenureView>,
    /// How those of them began that this agent acquired itself; named slots only.
    pub acquired: BTreeMap<Slot, Acquired>,
    /// Identity of this node's own memory as a voter, 32 hex digits; empty before it is known.
    pub voter: String,
    /// The voter set that is counted in; none before it is known.
    pub voters: Option<VoterList>,
    /// Its voter waited after a boot when this view was made (rule V6).
    pub waits: bool,
    /// Why its voter answers nobody, in a sentence; empty when it does.
    pub silent: String,
    /// What keeps this node from holding anything, in a sentence; empty when nothing does.
    pub trouble: String,
}

/// What may be asked of the lease host. Lists are whole: what is not in them any more is not wanted any more.
#[derive(Debug)]
pub enum Command {
    /// The slots that this node is a candidate for.
    Want(BTreeMap<Slot, Wanted>),
    /// Tenures to end in good order, with their successors.
    GiveUp(BTreeMap<Slot, Option<NodeName>>),
    /// Nothing of these tenures is left on this node.
    Stopped(Vec<(Slot, u64)>),
    /// Who should vote, as the leading controller sees it.
    WantVoters(Vec<VoterMember>),
    /// A set that the store knows of.
    HeardVoters(VoterList),
    /// An operator vouches that all voters but these are dead.
    ForceVoters(VoterList),
    /// About locks.
    Lock(LockAsk),
    /// The agent is about to be restarted: renew with the longest T (rule P6), then answer.
    Restarting(tokio::sync::oneshot::Sender<()>),
}

/// The list of a set.
#[must_use]
pub fn list_of(set: &VoterSet) -> VoterList {
    let mut voters: Vec<VoterMember> =
        set.members().iter().map(|m| VoterMember { node: m.node.to_string(), id: format!("{:032x}", m.id.0) }).collect();
    voters.sort();
    VoterList { number: set.number().0, voters }
}

/// The set of a list; none where the list is not one.
#[must_use]
pub fn set_of(list: &VoterList) -> Option<VoterSet> {
    let members = members_of(&list.voters);
    VoterSet::new(SetNo(list.number), members).ok().filter(|set| set.members().len() == list.voters.len())
}

/// The members of a list; those that cannot be read are left out.
#[must_use]
pub fn members_of(list: &[VoterMember]) -> Vec<Member> {
    let member = |m: &VoterMember| {
        let id = VoterId(u128::from_str_radix(&m.id, 16).ok()?);
        Some(Member { id, node: NodeName::new(&m.node).ok()? })
    };
    list.iter().filter_map(member).collect()
}
