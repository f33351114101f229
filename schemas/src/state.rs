//! Applications' shared state as the controllers' HTTP API gives it: values as text.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/apps/NAME/kv?prefix=P&after=KEY&limit=N` | | [`StateList`] |
//! | `GET /v1/apps/NAME/kv/KEY` | | [`StateEntry`], read linearizably |
//! | `PUT /v1/apps/NAME/kv/KEY` | [`StatePut`] | [`StateWritten`] |
//! | `DELETE /v1/apps/NAME/kv/KEY?revision=N` | | [`StateWritten`] |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key with its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateEntry {
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
    /// Size of the value in bytes.
    pub size: u64,
    /// The value; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Keys, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateList {
    /// The keys.
    pub items: Vec<StateEntry>,
    /// There are more: ask again with `after` the last one.
    pub more: bool,
}

/// A write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatePut {
    /// The value.
    pub value: String,
    /// Only where the key has no value.
    #[serde(default)]
    pub create: bool,
    /// Only where the key has this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The key goes by itself after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A key that was written or deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateWritten {
    /// The key.
    pub key: String,
    /// Revision of the write.
    pub revision: u64,
}
