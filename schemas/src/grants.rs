//! What an App lets others do with its things.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::NAME_PATTERN;

/// What another App may do with this one's things, through the local API of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Name of the other App.
    #[schemars(regex(pattern = NAME_PATTERN), extend("examples" = ["reports"]))]
    pub app: String,
    /// What it may.
    #[schemars(length(min = 1, max = 5), extend("uniqueItems" = true), extend("examples" = [["StateRead"]]))]
    pub rights: Vec<Right>,
}

/// One thing that may be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Right {
    /// Read and watch the shared state.
    StateRead,
    /// Write the shared state; reading it is another right.
    StateWrite,
    /// Take the locks.
    Locks,
    /// Publish messages to it.
    Publish,
    /// Receive the messages that are published to it.
    Subscribe,
}

impl Right {
    /// The word users write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateRead => "StateRead",
            Self::StateWrite => "StateWrite",
            Self::Locks => "Locks",
            Self::Publish => "Publish",
            Self::Subscribe => "Subscribe",
        }
    }
}
