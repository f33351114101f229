//! Writing pages in one SQLite transaction.

use std::path::Path;

use rusqlite::{Connection, params};

use super::{ApplyError, Replica};
use crate::lineage::Position;
use crate::page::{PageNo, PageSize, page_sum};
use crate::sums::PageSums;
use crate::transaction::{Chunk, GroupReader, Kind, Progress};

const PUT: &str = "INSERT INTO sqlite_dbpage(pgno, data) VALUES (?1, ?2)";

/// An SQLite transaction that writes pages. Dropped without [`PageWriter::commit`], nothing happened.
pub(super) struct PageWriter<'c> {
    connection: &'c Connection,
    path: &'c Path,
    size: PageSize,
    first: Option<Vec<u8>>,
    open: bool,
}

impl<'c> PageWriter<'c> {
    pub fn begin(connection: &'c Connection, path: &'c Path, size: PageSize) -> Result<Self, ApplyError> {
        let sqlite = |why| ApplyError::Sqlite { path: path.to_owned(), why };
        // A file without pages learns their size, and WAL mode.
        let pages: PageNo = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
        if pages == 0 {
            connection.pragma_update(None, "page_size", size.get()).map_err(sqlite)?;
            connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).map_err(sqlite)?;
        }
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
        Ok(Self { connection, path, size, first: None, open: true })
    }

    fn sqlite(&self, why: rusqlite::Error) -> ApplyError {
        ApplyError::Sqlite { path: self.path.to_owned(), why }
    }

    pub fn put(&mut self, page: PageNo, data: &[u8]) -> Result<(), ApplyError> {
        if page == 1 {
            self.first = Some(data.to_vec());
            return Ok(());
        }
        self.connection.prepare_cached(PUT).and_then(|mut put| put.execute(params![page, data])).map(|_| ()).map_err(|why| self.sqlite(why))
    }

    /// Ends it with `commit` pages, of which there were `before`. `holes`: new pages that nobody wrote.
    pub fn commit(mut self, holes: &[PageNo], before: PageNo, commit: PageNo) -> Result<(), ApplyError> {
        let zero = vec![0; self.size.bytes()];
        let lock = self.size.lock_page();
        for page in holes.iter().copied().filter(|page| *page != lock) {
            self.put(page, &zero)?;
        }
        // Page 1 and the cut in one statement: once page 1 is written, the next statement would read the schema anew, through pages of
        // which SQLite's b-tree still holds what it made of their old content. A row without data cuts the file, and must be the last one.
        let end = match (self.first.take(), commit < before) {
            (Some(first), true) => {
                self.connection.execute("INSERT INTO sqlite_dbpage(pgno, data) VALUES (1, ?1), (?2, NULL)", params![first, commit + 1])
            }
            (Some(first), false) => self.connection.execute(PUT, params![1, first]),
            (None, true) => self.connection.execute(PUT, params![commit + 1, rusqlite::types::Null]),
            (None, false) => Ok(0),
        };
        // For the same reason nothing of the cache may outlive the transaction.
        end.and_then(|_| self.connection.execute_batch("COMMIT"))
            .and_then(|()| self.connection.execute_batch("PRAGMA shrink_memory"))
            .map_err(|why| self.sqlite(why))?;
        self.open = false;
        Ok(())
    }
}

impl Drop for PageWriter<'_> {
    fn drop(&mut self) {
        if self.open {
            // Only fails when SQLite rolled back itself.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Takes a snapshot chunk by chunk; only pages that differ are written. Readers see the state before until [`SnapshotWriter::finish`].
pub struct SnapshotWriter<'r> {
    replica: &'r mut Replica,
    group: GroupReader,
    sums: Vec<u64>,
    begun: bool,
    before: PageNo,
    first: Option<Vec<u8>>,
}

impl Replica {
    /// Begins to take a snapshot. The file may have readers.
    pub fn snapshot(&mut self) -> SnapshotWriter<'_> {
        SnapshotWriter { replica: self, group: GroupReader::default(), sums: Vec::new(), begun: false, before: 0, first: None }
    }
}

impl SnapshotWriter<'_> {
    /// Takes the next chunk. With the last one the replica is at the snapshot's position, which is given.
    pub fn take(&mut self, chunk: &Chunk) -> Result<Option<Position>, ApplyError> {
        if chunk.kind != Kind::Snapshot || chunk.db != self.replica.db {
            return Err(ApplyError::Snapshot("a record of something else".to_owned()));
        }
        let progress = self.group.accept(chunk).map_err(|error| ApplyError::Snapshot(error.to_string()))?;
        let size = chunk.page_size;
        if let Some(have) = self.replica.size.filter(|have| *have != size) {
            return Err(ApplyError::PageSize { found: size, have });
        }
        if !self.begun {
            // SQLite knows the size of the file itself; the checksums may be lost.
            let sqlite = |why| ApplyError::Sqlite { path: self.replica.path.clone(), why };
            self.before = self.replica.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
            // Kept open over several calls: ended by the last chunk, or by Drop.
            let mut writer = PageWriter::begin(&self.replica.connection, &self.replica.path, size)?;
            writer.open = false;
            self.begun = true;
        }
        let mut writer =
            PageWriter { connection: &self.replica.connection, path: &self.replica.path, size, first: self.first.take(), open: false };
        for (page, data) in chunk.pages() {
            let sum = page_sum(page, data);
            self.sums.resize(page as usize - 1, 0);
            self.sums.push(sum);
            if self.replica.sums.get(page) != Some(sum) {
                writer.put(page, data)?;
            }
        }
        self.first = writer.first.take();
        let Progress::Whole(close) = progress else { return Ok(None) };
        self.sums.resize(close.commit as usize, 0);
        let sums = PageSums::from_sums(std::mem::take(&mut self.sums));
        if sums.total() != close.after {
            return Err(ApplyError::Checksum { tx: chunk.tx, found: sums.total(), expected: close.after });
        }
        writer.first = self.first.take();
        writer.commit(&[], self.before, close.commit)?;
        self.begun = false;
        self.replica.sums = sums;
        self.replica.size = Some(size);
        self.replica.position = Position { epoch: chunk.epoch, tx: chunk.tx, checksum: close.after };
        Ok(Some(self.replica.position))
    }
}

impl Drop for SnapshotWriter<'_> {
    fn drop(&mut self) {
        if self.begun {
            let _ = self.replica.connection.execute_batch("ROLLBACK");
        }
    }
}
