//! How tenures of Singletons began: who took over from whom, and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Take-overs of an App that are remembered, beside the present one.
pub const HISTORY_MAX: usize = 20;

/// How a tenure began, told by its holder. Times are microseconds after the grant, before it where negative. Those of the holder itself are
/// measured; those of the former one are what the voters' hints tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TakeOver {
    /// The holder.
    pub node: String,
    /// Its epoch.
    pub epoch: u64,
    /// Why it began.
    pub cause: Cause,
    /// Who was active before, by the record that this one follows; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Former>,
    /// When the lease was granted, by the holder's wall clock, RFC 3339.
    pub granted_at: String,
    /// The last renewal of the former holder, at the latest: an estimate, one lease length before the first voter said that the slot is
    /// free. Absent where it let go by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewal_us: Option<i64>,
    /// The deadline of the former holder, at the latest: an estimate, from the last renewal by rule P3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<i64>,
    /// When this node heard that the slot is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_us: Option<i64>,
    /// When the VIP was seen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip_us: Option<i64>,
    /// When the unit was seen to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_us: Option<i64>,
    /// When the instance was seen to be healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_us: Option<i64>,
}

/// The tenure before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Former {
    /// Its holder.
    pub node: String,
    /// Its epoch.
    pub epoch: u64,
}

/// Why a tenure began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Cause {
    /// Nobody was recorded to be active before.
    #[default]
    First,
    /// The former holder let go in favour of this node.
    HandOver,
    /// The voters said that the slot is free: its lease ran out, or its holder let go without a successor.
    FailOver,
}

impl Cause {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::HandOver => "hand-over",
            Self::FailOver => "fail-over",
        }
    }
}
