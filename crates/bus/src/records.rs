//! Small records beside the objects: which store this is, what an operator signed, which nodes go.

use serde::{Deserialize, Serialize};

/// Which store the Apps belong to (rule C3). The first leader makes it when nothing speaks against a new store; a bucket of Apps without
/// it, or with another incarnation than the leader record's, was deleted and made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreMark {
    /// Identity of the store, as in the leader record.
    pub incarnation: String,
}

/// What an operator signed by `clusterctl recover` (rule C3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryRecord {
    /// The store that it stands under.
    pub incarnation: String,
    /// Incarnations whose assignments those of this store may follow, sorted.
    pub recovers: Vec<String>,
    /// Highest term of this incarnation that nodes held when it was signed: the store may have forgotten leaderships up to it.
    pub term: u64,
}

/// An order to forget a node; the leading controller carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// When it was asked for, RFC 3339.
    pub at: String,
    /// Although its agent was heard.
    pub force: bool,
}

/// An operator set a node apart. Kept beside the registration, which is the agent's to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CordonOrder {
    /// When it was asked for, RFC 3339.
    pub at: String,
    /// What is there is moved away, too.
    pub drain: bool,
}

/// An operator's wish that a Singleton be active elsewhere. It is about one tenure, and is deleted once a later one is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoverOrder {
    /// Uid of the App.
    pub uid: String,
    /// Epoch of the tenure to end.
    pub epoch: u64,
    /// Who shall follow; the best candidate where none is named.
    pub to: Option<String>,
    /// When it was asked for, RFC 3339.
    pub at: String,
}

/// An operator's order to have one node vote instead of another; deleted once it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VotersOrder {
    /// The voter that goes.
    pub old: String,
    /// The node that comes.
    pub new: String,
    /// When it was asked for, RFC 3339.
    pub at: String,
}
