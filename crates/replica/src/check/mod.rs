//! Seeded simulation of a database on three nodes, over disks that drop unsynced writes and tear them at a crash (protocols C, database
//! simulation). It drives the very types that ship: [`crate::role`], [`crate::log`], [`crate::meta`], [`crate::lineage`],
//! [`crate::divergence`], [`crate::sums`] and [`crate::transaction`]. SQLite itself is a model here: pages, a write-ahead log of transactions,
//! checkpoints and the keeper's mark ([`database`]); what the real one does is the business of the tests beside real applications.
//!
//! Not in it: the lease (an oracle: one holder, stopped before the next), loss of acknowledged records by the stream, transactions of
//! several chunks.

pub mod database;
pub mod disk;
mod judge;
mod ledger;
mod node;
mod rng;
mod world;

pub use world::{Report, run};

/// A mistake planted into what is simulated, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A new active goes on in the old epoch, without a start (against D3).
    NoStart,
    /// A standby that heard of an epoch still takes and confirms records of lower ones (against D4).
    NoSeal,
    /// Whatever is found in the stream where an append was refused, the active regards itself as deposed (against D6).
    MismatchIsDeposed,
    /// A standby notes its position durably before the pages are, and believes the note (against D8).
    PositionBeforePages,
    /// A returning node leaves its old write-ahead log beside the database it takes from the active (against D9).
    LeftoverWal,
    /// The keeper moves without the application's write lock (against D2).
    MarkWithoutLock,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NoStart, Self::NoSeal, Self::MismatchIsDeposed, Self::PositionBeforePages, Self::LeftoverWal, Self::MarkWithoutLock];

    /// The rule it breaks.
    pub fn rule(self) -> &'static str {
        match self {
            Self::NoStart => "D3",
            Self::NoSeal => "D4",
            Self::MismatchIsDeposed => "D6",
            Self::PositionBeforePages => "D8",
            Self::LeftoverWal => "D9",
            Self::MarkWithoutLock => "D2",
        }
    }
}

/// What a schedule showed that must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {rule}: {what}")]
pub struct Violation {
    /// Seed of the schedule.
    pub seed: u64,
    /// Step of the schedule.
    pub step: usize,
    /// Rule of protocols.md that does not hold.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}
