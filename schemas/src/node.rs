//! Nodes: what an agent registers, what it beats each second, and what it observes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assignment::{Order, Role};
use crate::database::DatabaseObserved;
use crate::partition::PartitionSet;
use crate::resources::Amounts;
use crate::takeover::{Cause, Former, HISTORY_MAX, TakeOver};

/// A machine that runs an agent, as that agent registered it (KV `nodes`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// One DNS label, unique in the cluster.
    pub name: String,
    /// Free key/value pairs for `placement.nodeSelector`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Addresses with prefix length by interface, loopback and VIPs left out.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<String>>,
    /// The kernel's boot id. A node that rebooted holds nothing of before.
    pub boot_id: String,
    /// Version of the agent.
    pub agent_version: String,
    /// What the machine has for `placement.resources`; absent from agents that do not tell, which get no App that asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Amounts>,
    /// A witness votes on leases, and no App is ever placed on it (protocols B5.6).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// When the agent first registered, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<String>,
}

/// Whether an operator set a node apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Cordon {
    /// It may be given anything.
    #[default]
    None,
    /// It is given nothing new. What it has stays, and what it holds stays held; as a candidate it stands back for others.
    Cordoned,
    /// What it has is moved away, too.
    Draining,
}

impl Cordon {
    /// Whether it is not set apart.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The word users read; empty where the node is not set apart.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Cordoned => "Cordoned",
            Self::Draining => "Draining",
        }
    }
}

/// What every agent says each second over core NATS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random per agent start.
    pub instance: String,
    /// Rises by one with each heartbeat of this instance.
    pub sequence: u64,
    /// The assignment that the agent holds; none before the first.
    pub assignment: Option<Order>,
    /// Revision of the last status the agent stored in KV `status`.
    pub status_revision: u64,
    /// The highest controller term the agent has seen.
    pub term: u64,
    /// One-minute load average times 100.
    pub load_percent: u32,
    /// Apps whose instance here is not healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<String>,
}

/// What the agent of a node observes (KV `status`, key `node.N`); written on change only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// The boot in which this was seen.
    pub boot_id: String,
    /// Random per agent start.
    pub instance: String,
    /// The newest assignment the agent took. Workers of single Apps may still be behind: see [`AppObserved::seen`].
    pub assignment: Option<Order>,
    /// Whether the node can hold exclusive things: it was not removed, and its guard runs.
    pub quorum: bool,
    /// What is seen of each App that has anything here, by name.
    #[serde(default)]
    pub apps: BTreeMap<String, AppObserved>,
    /// Trouble of the agent itself, such as a refused assignment; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Identity of this node's memory as a voter, 32 hex digits. Another one than in `voters`: it lost what it voted for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub voter_id: String,
    /// The voters as this node knows them; none before it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<VoterList>,
}

/// What an agent sees of one App on its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppObserved {
    /// Uid of the App that this is about.
    pub uid: String,
    /// Generation of the App's spec that was applied.
    pub generation: u64,
    /// Generation of the assignment that the App's worker acts on. It will start nothing on the word of an older one.
    pub seen: u64,
    /// The role it has here.
    pub role: Role,
    /// State of the instance.
    pub state: InstanceState,
    /// Whether the instance can serve: until health checks exist, the unit is active and, where one belongs here, the VIP is present.
    pub healthy: bool,
    /// Singleton: the slot `app/NAME` may be held here: unit or VIP is, or may be, present.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
    /// Singleton: epoch of the tenure held, or held last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// Singleton: epoch with which this node has the lease of slot `app/NAME`; 0 while it has not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leased: u64,
    /// Singleton: highest epoch that this node gave up by itself; that tenure is dead for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gave_up: u64,
    /// The VIP, where the App has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipObserved>,
    /// The partitions, where the App is a Ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingObserved>,
    /// The database, where the App has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseObserved>,
    /// The unit that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitObserved>,
    /// What is wrong, in a sentence, with the last lines of the unit's log where it failed; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Who became active (KV `status`, key `active.A`): written by the agent after each acquisition, off the fail-over path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRecord {
    /// Uid of the App.
    pub uid: String,
    /// The node.
    pub node: String,
    /// Epoch of its tenure.
    pub epoch: u64,
    /// How it began; absent where that is not known, as after the store was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<TakeOver>,
    /// The take-overs before it, the latest first, at most [`HISTORY_MAX`](crate::takeover::HISTORY_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<TakeOver>,
}

impl ActiveRecord {
    /// The first record of an App: nobody was active before, so there is nothing to tell of a former holder.
    #[must_use]
    pub fn first(mut self) -> Self {
        if let Some(takeover) = &mut self.takeover {
            takeover.cause = Cause::First;
            (takeover.last_renewal_us, takeover.deadline_us, takeover.free_us) = (None, None, None);
        }
        self
    }

    /// The record that follows `before`, which it replaces: the same tenure keeps what is known of it, a later one of the same App puts the
    /// former into its history.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if before.uid != self.uid {
            return self.first();
        }
        if (before.epoch, &before.node) == (self.epoch, &self.node) {
            self.history.clone_from(&before.history);
            let known = before.takeover.as_ref();
            match &mut self.takeover {
                Some(now) => {
                    // What the first report knew of the time before stands; this one may tell later steps.
                    if let Some(known) = known {
                        now.from.clone_from(&known.from);
                        if now.cause != Cause::HandOver {
                            now.cause = known.cause;
                            (now.last_renewal_us, now.deadline_us, now.free_us) = (known.last_renewal_us, known.deadline_us, known.free_us);
                        }
                    }
                }
                None => self.takeover.clone_from(&before.takeover),
            }
            return self;
        }
        if let Some(now) = &mut self.takeover {
            now.from = Some(Former { node: before.node.clone(), epoch: before.epoch });
            if now.cause == Cause::First {
                now.cause = Cause::FailOver;
            }
        }
        self.history = before.takeover.iter().chain(&before.history).take(HISTORY_MAX).cloned().collect();
        self
    }
}

/// State of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum InstanceState {
    /// Planned, nothing done yet; a cold standby rests here.
    #[default]
    Pending,
    /// Being started.
    Starting,
    /// Its unit is active.
    Running,
    /// Being stopped.
    Stopping,
    /// Its unit failed, does not exist, or cannot be started.
    Failed,
    /// Its node is not heard.
    Unknown,
    /// Nothing runs, as planned.
    Stopped,
}

/// What is seen of a VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VipObserved {
    /// Address with prefix length.
    pub address: String,
    /// Whether the address is, or may be, on this node.
    pub present: bool,
    /// Epoch of the tenure it was put there in.
    pub epoch: u64,
    /// Pools and rings: epoch with which this node has the lease of slot `vip/ADDRESS`; 0 while it has not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leased: u64,
    /// Highest epoch that this node gave up by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gave_up: u64,
    /// Why it could not be put there, in one word such as `VipTaken`; empty when nothing is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// What is seen of a ring's partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingObserved {
    /// Partitions that this node owns, or may still own because its process was not yet seen to let go.
    pub held: PartitionSet,
    /// Partitions that the process was told to own (file written, unit reloaded). A subset of `held`.
    pub confirmed: PartitionSet,
    /// Partitions whose leases this node has, by epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leased: Vec<crate::assignment::OwnedPartitions>,
    /// Partitions that are given back because their `onOwn` failed here. While there are any, this node takes no others.
    #[serde(default, skip_serializing_if = "PartitionSet::is_empty")]
    pub refused: PartitionSet,
    /// Highest epoch that this node gave up by itself, for all its partitions together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gave_up: u64,
}

/// What systemd says of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitObserved {
    /// Full name, such as `nginx.service`.
    pub name: String,
    /// systemd's ActiveState: active, inactive, failed, activating, …
    pub active_state: String,
    /// systemd's SubState: running, dead, …
    pub sub_state: String,
    /// systemd's Result of the last run: success, exit-code, signal, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// Process id of its main process; 0 when none.
    #[serde(default)]
    pub main_pid: u32,
    /// How often systemd restarted it by itself since it was started.
    #[serde(default)]
    pub restarts: u32,
}

/// A numbered list of voters (protocols B5), as it stands in KV and in agents' files. The truth is what a majority of voters installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoterList {
    /// Number of the set; rises by one with each change.
    pub number: u64,
    /// The voters, sorted by node.
    pub voters: Vec<VoterMember>,
}

/// One voter.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoterMember {
    /// Where it runs.
    pub node: String,
    /// Identity of its memory, 32 hex digits.
    pub id: String,
}
