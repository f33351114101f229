//! Reading all pages of a live database at one transaction: resync, snapshot, verification.

use std::collections::BTreeMap;

use super::open::begin_read;
use super::{Capture, CaptureError, Resync, identity};
use crate::lineage::Position;
use crate::log::TransactionLog;
use crate::page::{PageNo, page_sum};
use crate::storage::Storage;
use crate::sums::PageSums;
use crate::transaction::{GroupWriter, Kind};

/// Why a snapshot was not made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The database could not be read.
    #[error("the database could not be read")]
    Capture(#[source] CaptureError),
    /// Whoever takes the snapshot refused a part.
    #[error("the snapshot could not be handed on")]
    Sink(#[source] std::io::Error),
}

impl From<CaptureError> for SnapshotError {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

/// What a comparison of the database with its checksums found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The state that was read.
    pub position: Position,
    /// Pages read.
    pub pages: PageNo,
    /// Pages that are not what the transactions made of them; at most [`MAX_NAMED`] are named.
    pub wrong: Vec<PageNo>,
}

/// Most pages a [`Verified`] names.
pub const MAX_NAMED: usize = 100;

impl Capture {
    /// Captures up to here and begins a read transaction at exactly that place; the application waits for that moment only.
    fn begin_scan<S: Storage>(&mut self, log: &mut TransactionLog<S>, now_ms: u64) -> Result<Position, CaptureError> {
        self.lock(|capture| {
            capture.follow(log, now_ms)?;
            begin_read(&capture.reader).map_err(|why| CaptureError::sqlite(&capture.options.path, why))?;
            Ok(log.head())
        })
    }

    fn end_scan(&mut self) -> Result<(), CaptureError> {
        self.reader.execute_batch("ROLLBACK").map_err(|why| CaptureError::sqlite(&self.options.path, why))
    }

    /// All pages but the lock page, in order. Gives the number of pages.
    fn scan<E: From<CaptureError>>(&self, mut each: impl FnMut(PageNo, &[u8]) -> Result<(), E>) -> Result<PageNo, E> {
        let sqlite = |why| CaptureError::sqlite(&self.options.path, why);
        let mut statement = self.reader.prepare("SELECT pgno, data FROM sqlite_dbpage('main')").map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        let mut last = 0;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let page: PageNo = row.get(0).map_err(sqlite)?;
            last = page;
            if page != self.size().lock_page() {
                let data = row.get_ref(1).map_err(sqlite)?.as_blob().unwrap_or_default();
                each(page, data)?;
            }
        }
        Ok(last)
    }

    /// Compares all pages with the known checksums and logs those that differ as one transaction. Counted by `cause`.
    pub(super) fn resync<S: Storage>(&mut self, log: &mut TransactionLog<S>, cause: Resync, now_ms: u64) -> Result<(), CaptureError> {
        // The place is that of the lock in which the keeper moved last; whatever came since is read from the log afterwards.
        let mark = self.lock(|capture| {
            begin_read(&capture.reader).map_err(|why| CaptureError::sqlite(&capture.options.path, why))?;
            capture.move_keeper()?;
            capture.here()
        })?;
        // Not the checksum of `sums`: where those are lost, all pages are in the transaction, and its end holds whatever it began from.
        let (head, before) = (log.head(), log.head().checksum);
        let mut writer = GroupWriter::new(self.db, head.epoch, head.tx + 1, Kind::Change, self.size(), self.options.compression);
        let mut changed = BTreeMap::new();
        let mut unchanged = 0_u64;
        let outcome = self.scan(|page, data| {
            let sum = page_sum(page, data);
            if self.sums.get(page) == Some(sum) {
                // Page 1 of an empty database is like that of many another.
                unchanged += u64::from(page > 1);
                return Ok(());
            }
            changed.insert(page, sum);
            match writer.push(page, data)? {
                Some(chunk) => log.append(&chunk, None).map(|_| ()).map_err(CaptureError::from),
                None => Ok(()),
            }
        });
        self.end_scan()?;
        let commit = match outcome {
            Ok(commit) => commit,
            Err(error) => {
                log.abandon_group();
                return Err(error);
            }
        };
        let judged = !matches!(cause, Resync::First | Resync::Adopted);
        if judged && identity::emptied(self.sums.pages(), commit, unchanged) {
            log.abandon_group();
            identity::suspect(log.storage_mut(), self.db)?;
            return Err(CaptureError::Replaced(self.options.path.clone()));
        }
        let pages = changed.len() as u64;
        let change = self.sums.change(self.size(), changed, commit);
        log.append(&writer.finish(commit, before, change.after, now_ms)?, Some(mark))?;
        log.sync()?;
        self.sums.apply(&change);
        self.mark = mark;
        self.counters.transactions += 1;
        self.counters.pages += pages;
        *self.counters.resyncs.entry(cause).or_default() += 1;
        Ok(())
    }

    /// The whole database as one group of chunks, each given to `sink`; the application goes on meanwhile. Which state it holds.
    pub fn snapshot<S: Storage>(
        &mut self,
        log: &mut TransactionLog<S>,
        now_ms: u64,
        mut sink: impl FnMut(Vec<u8>) -> std::io::Result<()>,
    ) -> Result<Position, SnapshotError> {
        let at = self.begin_scan(log, now_ms)?;
        let mut writer = GroupWriter::new(self.db, at.epoch, at.tx, Kind::Snapshot, self.size(), self.options.compression);
        let mut sums = Vec::new();
        let outcome = self.scan(|page, data| {
            sums.resize(page as usize - 1, 0);
            sums.push(page_sum(page, data));
            match writer.push(page, data).map_err(CaptureError::from)? {
                Some(chunk) => sink(chunk).map_err(SnapshotError::Sink),
                None => Ok(()),
            }
        });
        self.end_scan()?;
        let pages = outcome?;
        sums.resize(pages as usize, 0);
        let last = writer.finish(pages, 0, PageSums::from_sums(sums).total(), now_ms).map_err(CaptureError::from)?;
        sink(last).map_err(SnapshotError::Sink)?;
        Ok(at)
    }

    /// Reads the whole database and compares it with the checksums that the transactions led to.
    pub fn verify<S: Storage>(&mut self, log: &mut TransactionLog<S>, now_ms: u64) -> Result<Verified, CaptureError> {
        let position = self.begin_scan(log, now_ms)?;
        let (mut wrong, mut count) = (Vec::new(), 0);
        let outcome = self.scan::<CaptureError>(|page, data| {
            if self.sums.get(page) != Some(page_sum(page, data)) {
                wrong.push(page);
            }
            count = page;
            Ok(())
        });
        let free = if wrong.is_empty() { Ok(std::collections::BTreeSet::new()) } else { self.free_leaves() };
        self.end_scan()?;
        let pages = outcome?;
        // A free page holds whatever was there: SQLite neither writes nor reads it.
        let free = free?;
        wrong.retain(|page| !free.contains(page));
        if pages != self.sums.pages() {
            wrong.push(pages.min(self.sums.pages()).saturating_add(1));
        }
        self.counters.silent += u64::from(!wrong.is_empty());
        wrong.truncate(MAX_NAMED);
        Ok(Verified { position, pages, wrong })
    }

    /// Pages on the free list that hold nothing.
    fn free_leaves(&self) -> Result<std::collections::BTreeSet<PageNo>, CaptureError> {
        let sqlite = |why| CaptureError::sqlite(&self.options.path, why);
        let mut statement = self.reader.prepare("SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1").map_err(sqlite)?;
        let mut read = |page: PageNo| statement.query_row([page], |row| row.get::<_, Vec<u8>>(0)).map_err(sqlite);
        let word = |page: &[u8], at: usize| page.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes);
        let mut free = std::collections::BTreeSet::new();
        let mut trunk = word(&read(1)?, 32);
        // A list that bites its tail ends with the number of pages.
        let mut left = self.sums.pages();
        while trunk != 0 && left > 0 {
            let page = read(trunk)?;
            let leaves = (word(&page, 4) as usize).min(page.len() / 4);
            free.extend((0..leaves).map(|leaf| word(&page, 8 + leaf * 4)));
            trunk = word(&page, 0);
            left -= 1;
        }
        Ok(free)
    }
}
