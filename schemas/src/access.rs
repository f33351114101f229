//! Who may use the API: roles, and the lines of the controllers' token file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody may do. Each may do what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Look at everything but what applications keep.
    Viewer,
    /// Change and move Apps.
    Deployer,
    /// Everything: nodes, voters, recovery.
    Admin,
}

impl Role {
    /// The word users write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

/// One entry of the token file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenEntry {
    /// Who has the token: one DNS label.
    pub name: String,
    /// What its owner may do.
    pub role: Role,
    /// SHA-256 of the token's bytes, 64 hexadecimal digits in lower case. A token is random and long, so that nothing slower is needed.
    pub sha256: String,
}
