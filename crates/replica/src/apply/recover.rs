//! Opening a replica, and finding out where it is.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::{ApplyError, Replica, connect};
use crate::header::{DatabaseHeader, HEADER_LEN};
use crate::lineage::Position;
use crate::log::TransactionLog;
use crate::page::{PageNo, PageSize, page_sum};
use crate::storage::Storage;
use crate::sums::{self, PageSums};
use crate::transaction::{DbId, Record};
use crate::wal::ReadAt as _;

impl Replica {
    /// Opens the replica at `path`, making it when it is not there, and finds its position by its checksum: among the states of the log from the kept
    /// checksums on, reading only pages that the log names; else by reading all of it.
    ///
    /// [`ApplyError::Unknown`]: it is none of them. Open it with [`Self::open_unknown`] to take a snapshot.
    pub fn open<S: Storage>(path: &Path, db: DbId, log: &TransactionLog<S>) -> Result<Self, ApplyError> {
        let mut replica = Self::open_unknown(path, db)?;
        let Some(size) = replica.size else {
            return if log.base() == Position::default() || replica.sums.pages() == 0 { Ok(replica) } else { Err(replica.unknown()) };
        };
        let kept = sums::load(log.storage(), db).ok().flatten().filter(|(kept, ..)| *kept == size);
        if let Some((_, position, sums)) = kept
            && replica.find_after(log, size, position, sums)?
        {
            return Ok(replica);
        }
        replica.sums = replica.read_all()?;
        let checksum = replica.sums.total();
        let known = log.entries().rev().find(|entry| entry.position.checksum == checksum).map(|entry| entry.position);
        let known = known.or_else(|| (log.base().checksum == checksum && log.base().tx > 0).then(|| log.base()));
        match known {
            Some(position) => {
                replica.position = position;
                Ok(replica)
            }
            None => Err(replica.unknown()),
        }
    }

    /// Opens the replica without knowing where it is: position 0. For a snapshot only.
    pub fn open_unknown(path: &Path, db: DbId) -> Result<Self, ApplyError> {
        let failed = |why| ApplyError::File { path: path.to_owned(), why };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        let sqlite = |why| ApplyError::Sqlite { path: path.to_owned(), why };
        let connection = connect(path).map_err(sqlite)?;
        let mut header = [0; HEADER_LEN];
        let count = file.read_at(0, &mut header).map_err(failed)?;
        // In a file whose first transaction is still in the write-ahead log the header is there already: SQLite makes it with WAL mode.
        let size = DatabaseHeader::parse(&header[..count]).ok().map(|header| header.page_size);
        let pages: PageNo = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
        let size = size.filter(|_| pages > 0);
        let mut replica =
            Self { connection, file, path: path.to_owned(), db, size, sums: PageSums::default(), position: Position::default() };
        if let Some(size) = size
            && replica.is_blank(size, pages)?
        {
            replica.size = None;
        }
        Ok(replica)
    }

    /// Whether the file has nothing but the empty page 1 that we made ourselves before its first transaction.
    fn is_blank(&self, size: PageSize, pages: PageNo) -> Result<bool, ApplyError> {
        if pages != 1 {
            return Ok(false);
        }
        let page = read_page(&self.connection, 1).map_err(|why| self.sqlite(why))?;
        let _ = size;
        // Schema cookie and number of tables.
        Ok(page.get(40..44) == Some(&[0; 4]) && page.get(103..105) == Some(&[0; 2]))
    }

    fn unknown(&self) -> ApplyError {
        ApplyError::Unknown { path: self.path.clone(), checksum: self.sums.total() }
    }

    /// Looks for the file's state among those of the log after `kept`; takes it over when found.
    fn find_after<S: Storage>(
        &mut self,
        log: &TransactionLog<S>,
        size: PageSize,
        kept: Position,
        sums: PageSums,
    ) -> Result<bool, ApplyError> {
        let from = match log.entries().position(|entry| entry.position == kept) {
            Some(place) => place + 1,
            None if log.base() == kept => 0,
            None => return Ok(false),
        };
        let pages: PageNo = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(|why| self.sqlite(why))?;
        // Pages that may differ from the kept checksums, as they are now.
        let mut now: BTreeMap<PageNo, u64> = BTreeMap::new();
        for entry in log.entries().skip(from) {
            log.read(entry, |_, record| {
                if let Record::Chunk(chunk) = record {
                    now.extend(chunk.pages().map(|(page, _)| (page, 0)));
                }
                Ok::<_, ApplyError>(())
            })?;
        }
        now.extend((sums.pages().saturating_add(1)..=pages).map(|page| (page, 0)));
        now.retain(|page, _| *page <= pages && *page != size.lock_page());
        for (page, sum) in &mut now {
            *sum = page_sum(*page, &read_page(&self.connection, *page).map_err(|why| self.sqlite(why))?);
        }
        let change = sums.change(size, now, pages);
        let commits = log.entries().skip(from).map(|entry| (entry.position, entry.commit()));
        let found = std::iter::once((kept, Some(sums.pages())))
            .chain(commits)
            .rfind(|(position, commit)| position.checksum == change.after && commit.is_none_or(|commit| commit == pages));
        let Some((position, _)) = found else { return Ok(false) };
        self.sums = sums;
        self.sums.apply(&change);
        self.position = position;
        Ok(true)
    }

    /// Checksums of all pages, from the file.
    pub fn read_all(&self) -> Result<PageSums, ApplyError> {
        let Some(size) = self.size else { return Ok(PageSums::default()) };
        let mut statement = self.connection.prepare("SELECT pgno, data FROM sqlite_dbpage('main')").map_err(|why| self.sqlite(why))?;
        let mut rows = statement.query([]).map_err(|why| self.sqlite(why))?;
        let mut sums = Vec::new();
        while let Some(row) = rows.next().map_err(|why| self.sqlite(why))? {
            let page: PageNo = row.get(0).map_err(|why| self.sqlite(why))?;
            let data = row.get_ref(1).map_err(|why| self.sqlite(why))?.as_blob().unwrap_or_default();
            sums.push(if page == size.lock_page() { 0 } else { page_sum(page, data) });
        }
        Ok(PageSums::from_sums(sums))
    }
}

fn read_page(connection: &Connection, page: PageNo) -> rusqlite::Result<Vec<u8>> {
    connection
        .prepare_cached("SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1")
        .and_then(|mut read| read.query_row([page], |row| row.get(0)))
}
