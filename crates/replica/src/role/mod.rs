//! Who does what with a database, as state machines: time, storage and the network come from outside.
//!
//! - [`Member`]: one node's log and lineage: what it takes, refuses, answers (D3, D4, D7, D10, D12).
//! - [`Promotion`]: from "the lease is mine" to "the epoch begins", or why not (D5).
//! - [`Backfill`]: the active's records into the stream, after whatever is there (D6).
//! - [`Confirmations`]: which transactions are on how many standbys (`confirm: N`, `db sync`).

mod backfill;
mod confirm;
mod member;
mod promotion;

pub use backfill::{Backfill, StreamStep};
pub use confirm::Confirmations;
pub use member::{Member, MemberError, Received, SnapshotUse, Tail, TailOutcome};
pub use promotion::{Policy, Promotion, StayDown, Step};

use crate::lineage::{Chain, Position};

/// Name of a node.
pub type NodeName = String;

/// What a standby answers to `Seal(e)`: from now on it takes nothing of lower epochs, and this is what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The highest epoch it noted: above the one asked for, the asker is deposed already.
    pub epoch: u64,
    /// The end of its log, durable.
    pub position: Position,
    /// The history that leads there.
    pub chain: Chain,
}
