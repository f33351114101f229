//! What happened in the cluster, in words (stream `events`, `GET /v1/events`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that happened to an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The object: `app/NAME`, `node/NAME`, or `cluster/voters`.
    pub object: String,
    /// Whether somebody should look.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it happened first, RFC 3339.
    pub first_seen: String,
    /// When it happened last, RFC 3339.
    pub last_seen: String,
    /// How often it happened since `first_seen`: the same again within ten minutes is counted, not told anew.
    pub count: u64,
}

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// As it should be.
    #[default]
    Normal,
    /// Something is wrong, or was lost.
    Warning,
}

impl EventKind {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// `GET /v1/events`: the latest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// The events.
    pub items: Vec<Event>,
}
