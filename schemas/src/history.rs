//! What was written by whom: revisions of Apps, and the record of all writes (streams `revisions` and `audit`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::app::{App, AppSpec, Metadata};
use crate::plan::FieldChange;

/// Revisions of one App that are kept, the latest ones; those of a deleted App, too.
pub const REVISIONS_MAX: usize = 20;

/// Who asked for a write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// Name of the token; empty where none is asked for (an API on loopback) or nothing is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Role of the token; absent where none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Address that the request came from, without port: the last proxy's where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
}

impl Actor {
    /// For people: the token's name, else the address.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { &self.address } else { &self.name }
    }
}

/// What an App was after one write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Name of the App.
    pub app: String,
    /// Counts the revisions of Apps of this name from 1 on, over deletions.
    pub revision: u64,
    /// What the write did.
    pub change: RevisionChange,
    /// When it was written, RFC 3339.
    pub at: String,
    /// Who wrote it.
    #[serde(default)]
    pub who: Actor,
    /// Its `metadata.resourceVersion`.
    pub resource_version: u64,
    /// Its `metadata.uid`.
    #[serde(default)]
    pub uid: String,
    /// Its `metadata.generation`.
    pub generation: u64,
    /// The apply set that it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// What its file was a state of, such as a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its spec; of a deletion, the one that went.
    pub spec: AppSpec,
}

/// What a write did to an App.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RevisionChange {
    /// It did not exist.
    Created,
    /// It was changed.
    Changed,
    /// Its deletion was asked for.
    Deleted,
    /// It stood so when the next write came, and no record tells who wrote it: that of its write was lost.
    #[default]
    Found,
}

impl RevisionChange {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Found => "found",
        }
    }
}

impl Revision {
    /// The revision that `app`, as stored, is; its number is set by who stores it.
    #[must_use]
    pub fn of(app: &App, change: RevisionChange, who: Actor, at: String) -> Self {
        let Metadata { name, uid, labels, annotations, generation, resource_version, set, source_revision, .. } = app.metadata.clone();
        Self {
            app: name,
            revision: 0,
            change,
            at,
            who,
            resource_version,
            uid,
            generation,
            set,
            source_revision,
            labels,
            annotations,
            spec: app.spec.clone(),
        }
    }
}

/// One write, or one that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Its place in the stream; rises.
    #[serde(default)]
    pub sequence: u64,
    /// When it was answered, RFC 3339.
    pub at: String,
    /// Who asked.
    pub who: Actor,
    /// The controller that took it.
    pub controller: String,
    /// Method and path, without the query.
    pub request: String,
    /// What was written: `app/NAME`, `node/NAME` and so on; the path where it got no further.
    pub object: String,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// HTTP status of the answer.
    pub status: u16,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Before and after; one entry with an empty pointer for a whole object that came or went. Values of applications' shared state and
    /// of databases are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AuditOutcome {
    /// It is done, or taken on.
    Done,
    /// Nothing was written.
    #[default]
    Refused,
    /// The store did not answer: it may have been written.
    Unknown,
}

impl AuditOutcome {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Answer of `GET /v1/audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The latest last.
    pub items: Vec<AuditRecord>,
    /// Records that this controller could not store since it started; its log has them.
    pub missed: u64,
}
