//! Puts chunks together: a group counts only whole (D12).

use xxhash_rust::xxh3::xxh3_64;

use super::{Chunk, Close, DbId, Kind};
use crate::page::{PageNo, PageSize};

/// Continues the digest of a group by the checksum of its next chunk.
pub(super) fn digest(before: u64, seal: u64) -> u64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&before.to_le_bytes());
    both[8..].copy_from_slice(&seal.to_le_bytes());
    xxh3_64(&both)
}

/// What a chunk was to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One of several; more to come.
    More,
    /// The last one: the group is whole.
    Whole(Close),
}

/// Why a chunk does not go on the group. The group is to be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// It is of another group than the one begun, or does not begin one.
    #[error("chunk {index} of transaction {tx} does not continue what came before it")]
    Sequence {
        /// Transaction of the chunk.
        tx: u64,
        /// Its place.
        index: u32,
    },
    /// Its pages do not come after those before.
    #[error("transaction {tx} has page {page} out of order")]
    Order {
        /// Transaction of the chunk.
        tx: u64,
        /// The page.
        page: PageNo,
    },
    /// The closing chunk counted other chunks or pages than came.
    #[error("transaction {tx} is not the one that its closing chunk describes")]
    Digest {
        /// Transaction of the chunk.
        tx: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    db: DbId,
    epoch: u64,
    tx: u64,
    kind: Kind,
    page_size: PageSize,
}

/// Follows the chunks of one group after another. Keeps no pages.
#[derive(Default)]
pub struct GroupReader {
    of: Option<Identity>,
    next: u32,
    last: PageNo,
    pages: u32,
    digest: u64,
}

impl GroupReader {
    /// Whether a group is begun and not whole.
    pub fn is_open(&self) -> bool {
        self.of.is_some()
    }

    /// Forgets a begun group.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes the next chunk. After an error the group is forgotten.
    pub fn accept(&mut self, chunk: &Chunk) -> Result<Progress, GroupError> {
        let outcome = self.step(chunk);
        if !matches!(outcome, Ok(Progress::More)) {
            self.reset();
        }
        outcome
    }

    fn step(&mut self, chunk: &Chunk) -> Result<Progress, GroupError> {
        let tx = chunk.tx;
        let of = Identity { db: chunk.db, epoch: chunk.epoch, tx, kind: chunk.kind, page_size: chunk.page_size };
        if chunk.index != self.next || self.of.is_some_and(|begun| begun != of) {
            return Err(GroupError::Sequence { tx, index: chunk.index });
        }
        for (page, _) in chunk.pages() {
            if page <= self.last {
                return Err(GroupError::Order { tx, page });
            }
            self.last = page;
            self.pages = self.pages.saturating_add(1);
        }
        if let Some(close) = chunk.close {
            let whole = close.digest == self.digest && close.pages == self.pages && self.last <= close.commit;
            return if whole { Ok(Progress::Whole(close)) } else { Err(GroupError::Digest { tx }) };
        }
        self.of = Some(of);
        self.next = self.next.saturating_add(1);
        self.digest = digest(self.digest, chunk.seal);
        Ok(Progress::More)
    }
}
