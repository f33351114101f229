//! SQLite as far as replication sees it: a file, a write-ahead log of transactions, checkpoints, and the keeper's mark.

use std::collections::BTreeMap;

use super::rng::Rng;
use crate::page::{PageNo, PageSize, page_sum};
use crate::sums::PageSums;

/// Pages by number; each is filled with one number, that of the commit that wrote it.
pub type Pages = BTreeMap<PageNo, u64>;

/// Size of the model's pages.
pub fn page_size() -> PageSize {
    PageSize::new(512).unwrap_or_else(|| unreachable!("512 is a size of SQLite's"))
}

/// Bytes of a page that holds `value`.
pub fn image(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(64)
}

/// Checksums of pages.
pub fn sums(pages: &Pages) -> PageSums {
    PageSums::from_sums(pages.iter().map(|(page, value)| page_sum(*page, &image(*value))).collect())
}

/// A committed transaction in the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pages it wrote.
    pub pages: Pages,
    /// Pages of the database after it.
    pub commit: PageNo,
}

fn overlay(pages: &mut Pages, frame: &Frame) {
    pages.extend(&frame.pages);
    pages.retain(|page, _| *page <= frame.commit);
}

#[derive(Clone, Copy, Debug)]
struct Keeper {
    mark: usize,
    /// All was in the database file when it began to read: it reads nothing from the log, so that the log may begin anew.
    beside: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Database {
    file: Pages,
    wal: Vec<Frame>,
    synced: usize,
    backfilled: usize,
    salt: u32,
    keeper: Option<Keeper>,
}

impl Database {
    /// What a reader sees.
    pub fn view(&self) -> Pages {
        let mut pages = self.file.clone();
        self.wal.iter().for_each(|frame| overlay(&mut pages, frame));
        pages
    }

    /// Which write-ahead log, and its transactions.
    pub fn wal(&self) -> (u32, &[Frame]) {
        (self.salt, &self.wal)
    }

    /// A transaction. `synced`: durable when it returns (`PRAGMA synchronous=FULL`).
    pub fn commit(&mut self, pages: Pages, commit: PageNo, synced: bool) {
        let whole = !self.wal.is_empty() && self.backfilled == self.wal.len();
        if whole && self.keeper.is_none_or(|keeper| keeper.beside && keeper.mark == self.wal.len()) {
            self.wal.clear();
            self.salt += 1;
            (self.synced, self.backfilled) = (0, 0);
            if let Some(keeper) = &mut self.keeper {
                keeper.mark = 0;
            }
        }
        self.wal.push(Frame { pages, commit });
        if synced {
            self.synced = self.wal.len();
        }
    }

    /// A checkpoint, by whomever: up to the keeper's mark.
    pub fn checkpoint(&mut self) {
        self.synced = self.wal.len();
        let end = self.keeper.map_or(self.wal.len(), |keeper| keeper.mark);
        for frame in self.wal.iter().take(end).skip(self.backfilled) {
            overlay(&mut self.file, frame);
        }
        self.backfilled = self.backfilled.max(end);
    }

    /// The keeper reads from here on.
    pub fn keep(&mut self) {
        self.keeper = Some(Keeper { mark: self.wal.len(), beside: self.backfilled == self.wal.len() });
    }

    /// Nobody holds the log.
    pub fn let_go(&mut self) {
        self.keeper = None;
    }

    /// All that was committed is durable.
    pub fn sync(&mut self) {
        self.synced = self.wal.len();
    }

    /// Power is lost.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let kept = self.synced + rng.below(self.wal.len() - self.synced + 1);
        self.wal.truncate(kept);
        self.synced = kept;
        self.keeper = None;
    }

    /// D9: everything into the file, and the write-ahead log removed.
    pub fn fold(&mut self) {
        self.keeper = None;
        self.checkpoint();
        self.wal.clear();
        self.salt += 1;
        (self.synced, self.backfilled) = (0, 0);
    }

    /// Other content, as from a snapshot. `fold` it before; what is left in the write-ahead log lies over it.
    pub fn install(&mut self, pages: Pages) {
        self.file = pages;
        // A left-over log has its frames still.
        self.backfilled = 0;
    }
}
