//! How changed content reaches the instances of an App.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a change of what runs (`unit`, `exec`, `hooks`, `health`) reaches the instances; other changes reach all at once. Without `update` all
/// instances take up the new content at once.
///
/// With it, at most `maxUnavailable` instances are down at a time by the change: an instance gets the new content only while all that
/// got it before are seen to be healthy, unhealthy ones first. Content that does not come up stops there: the other instances keep
/// theirs, the condition `Progressing` is False and says where, and the next change begins with the instances that are down. What is
/// newly placed gets the new content. Of a Singleton the standbys get it first, and the active instance once they all took it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateSpec {
    /// What comes first on a node.
    #[serde(default)]
    #[schemars(extend("enum" = ["StopFirst"], "examples" = ["StopFirst"]))]
    pub order: UpdateOrder,
    /// Most instances that are down at a time by a change. A Singleton has one instance, and takes 1 only.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000), extend("examples" = [1]))]
    pub max_unavailable: u32,
}

/// What comes first on a node when its instance changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum UpdateOrder {
    /// The old instance stops, then the new one starts. The only order: a node has one systemd unit for an App, which does not run twice.
    #[default]
    StopFirst,
    /// Refused, with the reason: see `StopFirst`.
    StartFirst,
}

const fn one() -> u32 {
    1
}

impl Default for UpdateSpec {
    fn default() -> Self {
        Self { order: UpdateOrder::default(), max_unavailable: one() }
    }
}
