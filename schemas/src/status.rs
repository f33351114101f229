//! The status of an App, as the leading controller computes it (KV `status`, key `app.A`). Users never write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assignment::{Reason, Role};
use crate::node::InstanceState;
use crate::partition::PartitionSet;

/// Status of an App.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Uid of the App that this is about.
    #[serde(default)]
    pub uid: String,
    /// Generation of the spec this was computed from.
    pub observed_generation: u64,
    /// Instances that can serve, beside those wanted, such as `1/1`, `5/5`, `256/256` (a Ring counts partitions).
    pub ready: String,
    /// Sorted by type. `Ready` is always there.
    pub conditions: Vec<Condition>,
    /// One per node that has an entry for the App, sorted by node.
    pub instances: Vec<Instance>,
    /// Ring: version of its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_version: Option<u64>,
}

impl AppStatus {
    /// The condition of that type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Whether the condition `Ready` is true.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == ConditionStatus::True)
    }
}

/// One aspect of an App's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Degraded`, `Replicated`, `Placed`, `Progressing`, `Exclusive`, `Conflict` or `Terminating`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence; names what would have to change where something is wrong.
    pub message: String,
    /// When `status` last changed, RFC 3339. Filled in by the controller, which has a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told now.
    Unknown,
}

impl ConditionStatus {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One instance of an App.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Where.
    pub node: String,
    /// What it is there.
    pub role: Role,
    /// How it is.
    pub state: InstanceState,
    /// Whether it can serve.
    pub healthy: bool,
    /// Ring: the partitions it owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionSet>,
    /// Epoch of the tenure it holds; absent where nothing exclusive is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The VIP, if it is present there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Why it is there.
    pub reason: Reason,
    /// What is wrong with it; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
