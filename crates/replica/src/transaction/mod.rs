//! Transactions as they are logged and shipped (D3, D12).
//!
//! A transaction is a group of chunks, each at most [`MAX_CHUNK`] encoded; the last one closes the group: only with it is any of it valid. A
//! snapshot is a group too, of all pages, that begins from nothing. A [`Start`] opens an epoch and is a record of its own.
//!
//! ```text
//! 0   "CTX1"           magic with the version of the format
//! 4   kind u8          1 change, 2 snapshot, 3 start
//! 5   flags u8         1 body is LZ4, 2 closes its group
//! 6   page size u16    1 = 65536; 0 in a start
//! 8   database [16]    a database's id never changes, whatever its path
//! 24  epoch u64, tx u64, index u32 (of the chunk), pages u32 (in the chunk), raw u32, body u32 (bytes)
//! 56  when closing: commit u32, chunks u32, pages u32, before u64, after u64, time u64 (ms of the Unix epoch), digest u64
//! ..  body: (page number u32, page)*; of a start: base epoch u64, base tx u64, base checksum u64, node
//! ..  XXH3-64 over all before it
//! ```
//! All numbers little-endian. LZ4 because it costs less than the disk write beside it (and is pure Rust with bounds checked); zstd would
//! halve the bytes once more at five times the processor time, in the path of each commit.

mod decode;
mod encode;
mod group;

use std::fmt;

pub use decode::{DecodeError, decode, decode_all};
pub use encode::{EncodeError, GroupWriter, encode_start};
pub use group::{GroupError, GroupReader, Progress};

use crate::lineage::{Position, Start};
use crate::page::{PageNo, PageSize};

/// Most bytes of an encoded record: what one NATS message may hold (N6).
pub const MAX_CHUNK: usize = 512 * 1024;
/// Most bytes of pages with their numbers in a chunk, so that it fits even when it does not compress.
pub const MAX_BODY: usize = MAX_CHUNK - HEADER - CLOSE - SEAL;
/// Most bytes of a node's name: one DNS label.
pub const MAX_NODE: usize = 63;

const MAGIC: [u8; 4] = *b"CTX1";
const HEADER: usize = 56;
const CLOSE: usize = 44;
const SEAL: usize = 8;
const LZ4: u8 = 1;
const CLOSES: u8 = 2;
const START: u8 = 3;

/// Identity of a database: random, made when replication of it begins, never changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbId(pub [u8; 16]);

impl fmt::Debug for DbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a group of chunks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A transaction: the pages that changed.
    Change,
    /// All pages of the database, from nothing.
    Snapshot,
}

/// How bodies are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 blocks, where that is smaller.
    #[default]
    Lz4,
}

/// What the last chunk of a group says about all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Pages of the database after it.
    pub commit: PageNo,
    /// Chunks of the group, this one included.
    pub chunks: u32,
    /// Pages in the group.
    pub pages: u32,
    /// Checksum of the database before it; 0 in a snapshot.
    pub before: u64,
    /// Checksum of the database after it.
    pub after: u64,
    /// When it was captured, in milliseconds of the Unix epoch by that node's clock. For figures only, nothing is decided by it.
    pub time_ms: u64,
    /// Over the checksums of the chunks before this one, in order.
    pub digest: u64,
}

/// A part of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which database.
    pub db: DbId,
    /// Epoch of the lineage it was made in.
    pub epoch: u64,
    /// Number of the transaction: from 1, without gaps along a chain of epochs. A snapshot has that of the state it holds.
    pub tx: u64,
    /// What the group is.
    pub kind: Kind,
    /// Its place in the group, from 0.
    pub index: u32,
    /// Size of the pages.
    pub page_size: PageSize,
    /// Closes the group.
    pub close: Option<Close>,
    /// Checksum of the encoded chunk.
    pub seal: u64,
    body: Vec<u8>,
}

impl Chunk {
    /// Its pages in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = (PageNo, &[u8])> {
        self.body.chunks_exact(4 + self.page_size.bytes()).filter_map(|entry| {
            let (number, data) = entry.split_first_chunk::<4>()?;
            Some((PageNo::from_le_bytes(*number), data))
        })
    }
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Part of a transaction or a snapshot.
    Chunk(Chunk),
    /// An epoch begins.
    Start {
        /// Of which database.
        db: DbId,
        /// Where it begins.
        start: Start,
    },
}

impl Record {
    /// The epoch it was made in, or begins.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Start { start, .. } => start.epoch,
            Self::Chunk(chunk) => chunk.epoch,
        }
    }

    /// Its database.
    pub fn db(&self) -> DbId {
        match self {
            Self::Start { db, .. } => *db,
            Self::Chunk(chunk) => chunk.db,
        }
    }

    /// The state that it leads to; `None` for a chunk that others of its group follow.
    pub fn reaches(&self) -> Option<Position> {
        match self {
            Self::Start { start, .. } => Some(Position { epoch: start.epoch, ..start.base }),
            Self::Chunk(chunk) => chunk.close.map(|close| Position { epoch: chunk.epoch, tx: chunk.tx, checksum: close.after }),
        }
    }
}

#[cfg(test)]
mod tests;
