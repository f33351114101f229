//! What a watch sends: server-sent events whose `data` is one [`WatchEvent`] each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Problem;

/// One event of a watch. Its `resourceVersion` is also the `id` of the server-sent event, its `type` the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchEvent<T> {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: WatchKind,
    /// Name of the object; empty in bookmarks and at the end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where the watch stands after this: it can be resumed from here, at any controller. Opaque.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The object as it is now; absent where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<T>,
    /// Why the watch ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchKind {
    /// The object is new, or was there when the watch began.
    Added,
    /// The object, or its status, changed.
    Modified,
    /// The object is gone, or the selector does not select it any more.
    Deleted,
    /// Nothing happened; all that was there when the watch began has been told. Comes again from time to time with a newer revision.
    Bookmark,
    /// The watch ends, and `problem` says why: `gone` (410, begin with a list again) or `unavailable` (503, resume at another controller).
    Error,
}

impl WatchKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}
