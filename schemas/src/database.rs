//! Databases that follow their Singleton: what nodes report of them, and what the API says and takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's part in an App's database, in the node's status. Figures are as of a few seconds ago, everything else is reported at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseObserved {
    /// Epoch of the history's last start that is known here; 0 before the first.
    pub epoch: u64,
    /// The last transaction here.
    pub transaction: u64,
    /// Replica: transactions that the active was last heard to have beyond it.
    #[serde(default)]
    pub lag: u64,
    /// Size of the database file in bytes.
    pub bytes: u64,
    /// The active captures what the application commits; a replica hears the active and is at a state of it.
    pub follows: bool,
    /// Why not, in a word; empty while nothing is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One node's part in a database, as that node says when it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseNode {
    /// The node.
    pub node: String,
    /// `Active`, `Standby`, `Promoting`, `Retiring`, `Waiting` (for the application to make its database), `Closed`; `Unknown` where it does not
    /// answer.
    pub role: String,
    /// As in the node's status, of this moment.
    #[serde(flatten)]
    pub observed: DatabaseObserved,
    /// Bytes of the transaction log.
    pub log_bytes: u64,
    /// The active: transactions captured since it follows the database.
    #[serde(default)]
    pub captured: u64,
    /// The active: how often all pages were compared, because reading on was not possible.
    #[serde(default)]
    pub resyncs: u64,
    /// The active: the last transaction that is in the durable stream too; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<u64>,
    /// The active: why the stream does not take more; empty while it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// The active: the SQLite that wrote the file last, such as `3.40.1`; empty where unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sqlite: String,
    /// Files with transactions that only this node had when it was active, and that are void.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divergences: Vec<String>,
}

/// A database on all nodes that have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// The App.
    pub app: String,
    /// The file.
    pub path: String,
    /// Standbys that a write is to be on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<u32>,
    /// Most transactions that a take-over may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<u64>,
    /// By node.
    pub nodes: Vec<DatabaseNode>,
}

/// Asks that all that is committed be on standbys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSyncRequest {
    /// Longest wait in milliseconds, at most [`SYNC_MAX_MS`].
    pub timeout_ms: u64,
}

/// Longest [`DatabaseSyncRequest::timeout_ms`].
pub const SYNC_MAX_MS: u64 = 60_000;

/// All that was committed before the call is on these standbys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSynced {
    /// The active node.
    pub node: String,
    /// Epoch of its tenure.
    pub epoch: u64,
    /// The last transaction that was committed when it was asked.
    pub transaction: u64,
    /// Standbys that have it durably, sorted.
    pub standbys: Vec<String>,
}

/// Transactions of an earlier active that nobody else had when another took over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseDivergence {
    /// The node that has the file.
    pub node: String,
    /// Name of the file.
    pub name: String,
    /// The last transaction that both histories share.
    pub base: u64,
    /// What came after it, in order.
    pub void: Vec<VoidTransaction>,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoidTransaction {
    /// Epoch it was committed in.
    pub epoch: u64,
    /// Its number; in the history that counts another transaction has it.
    pub transaction: u64,
    /// When, in milliseconds of the Unix epoch, by that node's clock.
    pub time_ms: u64,
    /// Pages that it wrote.
    pub pages: u32,
}

/// What a controller asks the agent of a node, over NATS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseAsk {
    /// [`DatabaseNode`].
    Status,
    /// [`DatabaseSynced`], after at most so many milliseconds.
    Sync {
        /// Longest wait.
        timeout_ms: u64,
    },
    /// An operator accepts the loss that holds a promotion back, or the file that took the place of the database. The answer is [`DatabaseNode`].
    AcceptLoss,
    /// [`DatabaseDivergence`] with this name.
    Divergence {
        /// Name of the file.
        name: String,
    },
    /// Compares the file with its checksums, and has SQLite check it: [`DatabaseVerified`].
    Verify,
    /// Begins long work: [`DatabaseWork`].
    Begin(DatabaseJob),
    /// How far the last one is: [`DatabaseWork`].
    Work,
}

/// Long work on a database, done by the agent of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseJob {
    /// The active puts a snapshot into the object store of the database.
    Snapshot {
        /// So many of the newest snapshots stay.
        keep: u32,
    },
    /// Any node that has the App makes the database anew, from the newest snapshot and the stream.
    Restore {
        /// The file to be made, on that node; there must be none.
        to: String,
    },
    /// The same into a file that goes again, compared with the node's log.
    Verify,
}

/// How far such work is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseWork {
    /// Names it among those of this node.
    pub id: u64,
    /// The node that does it.
    pub node: String,
    /// What it is, for people.
    pub what: String,
    /// Whether it is done.
    pub state: WorkState,
    /// Bytes read or written so far.
    #[serde(default)]
    pub done_bytes: u64,
    /// Of so many, about; 0 while that is not known.
    #[serde(default)]
    pub total_bytes: u64,
    /// When done: epoch of the state that the snapshot or the file holds.
    #[serde(default)]
    pub epoch: u64,
    /// When done: its transaction.
    #[serde(default)]
    pub transaction: u64,
    /// When done: its checksum over all pages, 16 hex digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub checksum: String,
    /// When done: what was made; when failed: why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When done: what is not as it should be, nothing where all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Whether work is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkState {
    /// Not yet.
    #[default]
    Running,
    /// It is.
    Done,
    /// It came to nothing.
    Failed,
}

/// What a check of a database found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseVerified {
    /// The node.
    pub node: String,
    /// Epoch of the state that was read.
    pub epoch: u64,
    /// Its transaction.
    pub transaction: u64,
    /// Checksum over all its pages, 16 hex digits: equal on all nodes at one transaction.
    pub checksum: String,
    /// What is wrong; nothing where all is well.
    pub wrong: Vec<String>,
}

/// What an agent answers to a [`DatabaseAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseAnswer {
    /// To `Status` and `AcceptLoss`.
    Node(DatabaseNode),
    /// To `Sync`.
    Synced(DatabaseSynced),
    /// To `Divergence`.
    Divergence(DatabaseDivergence),
    /// To `Verify`.
    Verified(DatabaseVerified),
    /// To `Begin` and `Work`.
    Work(DatabaseWork),
    /// It cannot be done, and why.
    Refused(String),
}
