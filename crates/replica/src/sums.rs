//! Checksums of all pages, kept so that neither a transaction nor a promotion reads the whole database.
//!
//! In memory 8 bytes for each page (2 MiB for 1 GiB of 4 KiB pages). The side file holds them as of some position; opening replays the
//! transaction log from there, so it is written seldom, and always as a whole.

use std::collections::BTreeMap;
use std::io;

use xxhash_rust::xxh3::xxh3_64;

use crate::lineage::Position;
use crate::log::{LogError, TransactionLog};
use crate::page::{PageNo, PageSize, page_sum};
use crate::storage::Storage;
use crate::transaction::{DbId, Record};

/// Name of the side file.
pub const SUMS_FILE: &str = "sums";
/// Most bytes of it: a database of 8 TiB with pages of 4 KiB.
const MAX_BYTES: u64 = 16 << 30;
const MAGIC: [u8; 8] = *b"CSUMS1\0\0";
const HEADER: usize = 8 + 16 + 4 + 24;

/// The checksums of a database's pages, and their XOR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSums {
    sums: Vec<u64>,
    total: u64,
}

/// What a transaction does to [`PageSums`], not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumChange {
    changed: BTreeMap<PageNo, u64>,
    commit: PageNo,
    /// Checksum of the database after it.
    pub after: u64,
}

impl SumChange {
    /// Pages whose checksum it sets, new ones that nobody wrote included.
    pub fn pages(&self) -> impl Iterator<Item = PageNo> {
        self.changed.keys().copied()
    }
}

impl PageSums {
    /// Checksum of the database: 0 for one without pages.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Pages of the database.
    pub fn pages(&self) -> PageNo {
        PageNo::try_from(self.sums.len()).unwrap_or(PageNo::MAX)
    }

    /// Checksum of a page; `None` beyond the end.
    pub fn get(&self, page: PageNo) -> Option<u64> {
        self.sums.get((page as usize).checked_sub(1)?).copied()
    }

    /// What becomes of the sums when these pages get these checksums and the database has `commit` pages. Pages that are new and not named
    /// hold zeros (SQLite does not write free pages at the end of a file), the lock page counts nothing.
    pub fn change(&self, size: PageSize, mut changed: BTreeMap<PageNo, u64>, commit: PageNo) -> SumChange {
        let mut after = self.total;
        for old in self.sums.iter().skip(commit as usize) {
            after ^= old;
        }
        changed.retain(|page, _| *page <= commit);
        let new = self.pages().saturating_add(1)..=commit;
        if !new.is_empty() {
            let zero = vec![0; size.bytes()];
            for page in new {
                changed.entry(page).or_insert_with(|| page_sum(page, &zero));
            }
        }
        if let Some(sum) = changed.get_mut(&size.lock_page()) {
            *sum = 0;
        }
        for (page, sum) in &changed {
            after ^= self.get(*page).unwrap_or(0) ^ sum;
        }
        SumChange { changed, commit, after }
    }

    /// Does it.
    pub fn apply(&mut self, change: &SumChange) {
        self.sums.resize(change.commit as usize, 0);
        for (page, sum) in &change.changed {
            if let Some(slot) = self.sums.get_mut(*page as usize - 1) {
                *slot = *sum;
            }
        }
        self.total = change.after;
    }

    /// From the checksums of all pages in order.
    pub fn from_sums(sums: Vec<u64>) -> Self {
        let total = sums.iter().fold(0, |total, sum| total ^ sum);
        Self { sums, total }
    }
}

/// Why the side file cannot be used. The database is read as a whole then.
#[derive(Debug, thiserror::Error)]
pub enum SumsError {
    /// It could not be read or written.
    #[error("page checksums could not be read or written")]
    Storage(#[source] io::Error),
    /// It is damaged, or of another database.
    #[error("page checksums are damaged or of another database")]
    Damaged,
}

/// Writes the side file: the sums at `position`. Call it only when the database file holds that position durably: what is replayed
/// after a crash begins here.
pub fn store(storage: &mut impl Storage, db: DbId, size: PageSize, position: Position, sums: &PageSums) -> Result<(), SumsError> {
    let mut bytes = Vec::with_capacity(HEADER + sums.sums.len() * 8 + 8);
    bytes.extend(MAGIC);
    bytes.extend(db.0);
    bytes.extend(size.get().to_le_bytes());
    for long in [position.epoch, position.tx, position.checksum] {
        bytes.extend(long.to_le_bytes());
    }
    for sum in &sums.sums {
        bytes.extend(sum.to_le_bytes());
    }
    let seal = xxh3_64(&bytes);
    bytes.extend(seal.to_le_bytes());
    storage.replace(SUMS_FILE, &bytes).map_err(SumsError::Storage)
}

/// Reads the side file. `None` when there is none.
pub fn load(storage: &impl Storage, db: DbId) -> Result<Option<(PageSize, Position, PageSums)>, SumsError> {
    let Some(bytes) = storage.read(SUMS_FILE, MAX_BYTES).map_err(SumsError::Storage)? else { return Ok(None) };
    let (content, seal) = bytes.split_last_chunk::<8>().ok_or(SumsError::Damaged)?;
    if xxh3_64(content) != u64::from_le_bytes(*seal) {
        return Err(SumsError::Damaged);
    }
    let (header, sums) = content.split_first_chunk::<HEADER>().ok_or(SumsError::Damaged)?;
    let long = |at: usize| header.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    let size = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
    let size = PageSize::new(size).ok_or(SumsError::Damaged)?;
    if header[..8] != MAGIC || header[8..24] != db.0 {
        return Err(SumsError::Damaged);
    }
    let sums = sums.chunks_exact(8).map(|eight| eight.try_into().map_or(0, u64::from_le_bytes)).collect();
    let position = Position { epoch: long(28), tx: long(36), checksum: long(44) };
    let sums = PageSums::from_sums(sums);
    if sums.total() != position.checksum { Err(SumsError::Damaged) } else { Ok(Some((size, position, sums))) }
}

/// The checksums at the log's end: the kept ones, and what the log says since. `None` where the log does not lead on from the kept ones.
pub fn at_head<S: Storage>(log: &TransactionLog<S>, db: DbId) -> Result<Option<PageSums>, LogError> {
    let kept = load(log.storage(), db).ok().flatten();
    let kept = kept.and_then(|(_, position, sums)| log.place(position).map(|place| (place, sums)));
    let Some((place, mut sums)) = kept.or_else(|| (log.base() == Position::default()).then(|| (0, PageSums::default()))) else {
        return Ok(None);
    };
    for entry in log.entries().skip(place) {
        let Some(commit) = entry.commit() else { continue };
        let (mut changed, mut size) = (BTreeMap::new(), None);
        log.read(entry, |_, record| {
            if let Record::Chunk(chunk) = record {
                size = Some(chunk.page_size);
                changed.extend(chunk.pages().map(|(page, data)| (page, page_sum(page, data))));
            }
            Ok::<_, LogError>(())
        })?;
        let Some(size) = size else { return Ok(None) };
        let change = sums.change(size, changed, commit);
        sums.apply(&change);
    }
    Ok((sums.total() == log.head().checksum).then_some(sums))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::Directory;

    fn size() -> PageSize {
        PageSize::new(512).unwrap()
    }

    #[test]
    fn side_file_is_read_back_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Directory::open(dir.path()).unwrap();
        let (db, sums) = (DbId([1; 16]), PageSums::from_sums(vec![3, 9, 27]));
        assert!(load(&storage, db).unwrap().is_none());
        let position = Position { epoch: 4, tx: 77, checksum: sums.total() };
        store(&mut storage, db, size(), position, &sums).unwrap();
        assert_eq!(load(&storage, db).unwrap(), Some((size(), position, sums)));
        assert!(matches!(load(&storage, DbId([2; 16])), Err(SumsError::Damaged)));
        let path = dir.path().join(SUMS_FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 16;
            storage.replace(SUMS_FILE, &bad).unwrap();
            assert!(matches!(load(&storage, db), Err(SumsError::Damaged)), "byte {at}");
        }
    }

    proptest! {
        /// Whatever grows, shrinks and changes: the running checksum is that of the pages there are.
        #[test]
        fn running_checksum_is_that_of_the_pages(steps in prop::collection::vec((prop::collection::btree_map(1..40_u32, any::<u8>(), 0..8), 1..40_u32), 1..20)) {
            let mut sums = PageSums::default();
            let mut pages: Vec<u8> = Vec::new();
            for (changed, commit) in steps {
                pages.resize(commit as usize, 0);
                for (page, fill) in &changed {
                    if *page <= commit { pages[*page as usize - 1] = *fill; }
                }
                let changed = changed.into_iter().map(|(page, fill)| (page, page_sum(page, &[fill; 512]))).collect();
                let change = sums.change(size(), changed, commit);
                sums.apply(&change);
                let expected = (1..).zip(&pages).fold(0, |total, (page, fill)| total ^ page_sum(page, &[*fill; 512]));
                prop_assert_eq!(sums.total(), expected);
                prop_assert_eq!(sums.pages(), commit);
            }
        }
    }
}
