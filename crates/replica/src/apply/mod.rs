//! The replica: a file that any program may open read-only at any time, brought forward through SQLite itself (D8).
//!
//! Pages go in by the table `sqlite_dbpage`, in one SQLite transaction per batch, page 1 last. Readers see the state before or after.
//! Before the commit the checksum of all pages is computed and compared with the one the active had: a replica is equal, or says so.
//!
//! The position is written nowhere beside the pages, so it cannot disagree with them: after a crash it is the one whose checksum the file
//! has ([`Replica::open`]). For that the checksums of some earlier durable state are kept ([`crate::sums`]), and the log from there on.

mod recover;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

pub use write::SnapshotWriter;

use crate::capture::beside;
use crate::capture::inode;
use crate::lineage::Position;
use crate::log::{Entry, Item, LogError, TransactionLog};
use crate::page::{PageNo, PageSize, page_sum};
use crate::storage::Storage;
use crate::sums::{PageSums, SumsError};
use crate::transaction::{DbId, Record};
use write::PageWriter;

/// Most encoded bytes of transactions that are applied as one. Their pages are in memory meanwhile; a larger transaction is streamed.
pub const BATCH_BYTES: u64 = 8 << 20;
/// Longest wait for a lock: only a reader that recovers the file or a checkpoint holds one that matters.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Why a replica was not opened or not brought forward. It is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// SQLite does not do it.
    #[error("SQLite refuses to write the replica {path}")]
    Sqlite {
        /// The replica.
        path: PathBuf,
        /// What it says.
        #[source]
        why: rusqlite::Error,
    },
    /// The file or the directory.
    #[error("the replica {path} could not be opened")]
    File {
        /// The replica.
        path: PathBuf,
        /// Why.
        #[source]
        why: std::io::Error,
    },
    /// The file is not at any position the log knows: written by somebody else, or damaged. It needs a snapshot.
    #[error("the replica {path} is at no known transaction: checksum {checksum:016x}")]
    Unknown {
        /// The replica.
        path: PathBuf,
        /// What its pages sum up to.
        checksum: u64,
    },
    /// Another file has its name, or none has. Open what is there anew.
    #[error("the replica {0} was deleted or replaced by another file")]
    Replaced(PathBuf),
    /// The pages do not sum up to what the active had. Nothing was applied.
    #[error("transaction {tx} leads to checksum {found:016x} here, {expected:016x} at the active")]
    Checksum {
        /// The transaction.
        tx: u64,
        /// Computed here.
        found: u64,
        /// Sent along.
        expected: u64,
    },
    /// The log goes on from another state than the file's. It needs what is between, or a snapshot.
    #[error("the log begins at transaction {log}, the replica is at {}", at.tx)]
    Gap {
        /// First state of the log.
        log: u64,
        /// State of the file.
        at: Position,
    },
    /// The size of pages never changes in a replica that may have readers. It needs a snapshot into a new file.
    #[error("pages of {found} bytes for a replica with pages of {have}")]
    PageSize {
        /// In the transaction.
        found: PageSize,
        /// In the file.
        have: PageSize,
    },
    /// The snapshot's chunks are not those of one snapshot of this database.
    #[error("not a whole snapshot of this database: {0}")]
    Snapshot(String),
    /// The log could not be read.
    #[error("the transaction log could not be read")]
    Log(#[source] LogError),
    /// The side file.
    #[error("page checksums could not be kept")]
    Sums(#[source] SumsError),
}

impl From<LogError> for ApplyError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// See the module.
pub struct Replica {
    connection: Connection,
    // Outlives the connection: closing it drops SQLite's locks.
    file: File,
    path: PathBuf,
    db: DbId,
    size: Option<PageSize>,
    sums: PageSums,
    position: Position,
}

impl Replica {
    /// Where it is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Checksums of its pages.
    pub fn sums(&self) -> &PageSums {
        &self.sums
    }

    /// Size of its pages; `None` before it has any.
    pub fn page_size(&self) -> Option<PageSize> {
        self.size
    }

    /// Whether its name still means it. A replica whose file is gone would take transactions into nowhere.
    pub fn check(&self) -> Result<(), ApplyError> {
        let failed = |why| ApplyError::File { path: self.path.clone(), why };
        let held = self.file.metadata().map_err(failed)?;
        match std::fs::metadata(&self.path) {
            Ok(now) if inode(&now) == inode(&held) => Ok(()),
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(why)),
            _ => Err(ApplyError::Replaced(self.path.clone())),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies what the log holds after the present position, as far as one batch goes. Where it is then; the same as before when there is
    /// nothing more. Sync the log first: SQLite may make the database durable at any moment, and one that outlives its log after a power cut
    /// is at no known transaction.
    pub fn apply<S: Storage>(&mut self, log: &TransactionLog<S>) -> Result<Position, ApplyError> {
        self.apply_to(log, u64::MAX)
    }

    /// Applies up to transaction `last` at most.
    pub fn apply_to<S: Storage>(&mut self, log: &TransactionLog<S>, last: u64) -> Result<Position, ApplyError> {
        let at = self.position;
        let place = log.place(at).ok_or(ApplyError::Gap { log: log.base().tx, at })?;
        let mut entries = log.entries().skip(place).take_while(|entry| entry.position.tx <= last).peekable();
        let (mut batch, mut bytes): (Vec<&Entry>, u64) = (Vec::new(), 0);
        let (mut end, mut pages) = (at, self.sums.pages());
        while let Some(entry) = entries.next_if(|entry| batch.is_empty() || bytes + entry.bytes <= BATCH_BYTES) {
            end = entry.position;
            let Some(commit) = entry.commit() else { continue };
            bytes += entry.bytes;
            batch.push(entry);
            // Growing again over what was cut off would need to know the order within the batch.
            if commit < pages {
                break;
            }
            pages = commit;
        }
        match batch[..] {
            [] => {}
            [one] => self.apply_one(log, one)?,
            _ => self.apply_batch(log, &batch)?,
        }
        self.position = end;
        Ok(end)
    }

    /// One transaction, page by page from the log: nothing of it is kept in memory but its checksums and page 1.
    fn apply_one<S: Storage>(&mut self, log: &TransactionLog<S>, entry: &Entry) -> Result<(), ApplyError> {
        let Item::Change(close) = &entry.item else { return Ok(()) };
        let size = self.size_for(log, entry)?;
        let mut writer = PageWriter::begin(&self.connection, &self.path, size)?;
        let mut changed = BTreeMap::new();
        log.read(entry, |_, record| {
            let Record::Chunk(chunk) = record else { return Ok(()) };
            for (page, data) in chunk.pages() {
                changed.insert(page, page_sum(page, data));
                writer.put(page, data)?;
            }
            Ok::<_, ApplyError>(())
        })?;
        finish(writer, &mut self.sums, size, changed, entry.position, close.commit)?;
        self.size = Some(size);
        Ok(())
    }

    /// Several transactions as one: of each page the last image.
    fn apply_batch<S: Storage>(&mut self, log: &TransactionLog<S>, batch: &[&Entry]) -> Result<(), ApplyError> {
        let Some((last, commit)) = batch.last().and_then(|last| Some((last, last.commit()?))) else { return Ok(()) };
        let size = self.size_for(log, last)?;
        let mut pages: BTreeMap<PageNo, Vec<u8>> = BTreeMap::new();
        for entry in batch {
            log.read(entry, |_, record| {
                let Record::Chunk(chunk) = record else { return Ok(()) };
                if chunk.page_size != size {
                    return Err(ApplyError::PageSize { found: chunk.page_size, have: size });
                }
                pages.extend(chunk.pages().map(|(page, data)| (page, data.to_vec())));
                Ok::<_, ApplyError>(())
            })?;
        }
        pages.split_off(&commit.saturating_add(1));
        let changed = pages.iter().map(|(page, data)| (*page, page_sum(*page, data))).collect();
        let mut writer = PageWriter::begin(&self.connection, &self.path, size)?;
        for (page, data) in &pages {
            writer.put(*page, data)?;
        }
        finish(writer, &mut self.sums, size, changed, last.position, commit)?;
        self.size = Some(size);
        Ok(())
    }

    fn size_for<S: Storage>(&self, log: &TransactionLog<S>, entry: &Entry) -> Result<PageSize, ApplyError> {
        let mut found = None;
        log.read(entry, |_, record| {
            if let Record::Chunk(chunk) = record {
                found = found.or(Some(chunk.page_size));
            }
            Ok::<_, ApplyError>(())
        })?;
        let found = found.ok_or(LogError::Damaged(entry.position.tx))?;
        match self.size {
            Some(have) if have != found => Err(ApplyError::PageSize { found, have }),
            _ => Ok(found),
        }
    }

    /// Makes the file durable at its position and keeps its checksums: after a crash the search for the position begins here, and the log
    /// is not needed before it. Gives that position.
    pub fn checkpoint<S: Storage>(&mut self, storage: &mut S) -> Result<Position, ApplyError> {
        let Some(size) = self.size else { return Ok(self.position) };
        // Readers may hold the checkpoint up; then the write-ahead log is what must be durable.
        let file = |why| ApplyError::File { path: self.path.clone(), why };
        File::open(beside(&self.path, "-wal")).and_then(|wal| wal.sync_all()).map_err(file)?;
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(|why| self.sqlite(why))?;
        crate::sums::store(storage, self.db, size, self.position, &self.sums).map_err(ApplyError::Sums)?;
        Ok(self.position)
    }

    /// SQLite's own check of the file: `Ok` lines only, or what is wrong. Reads all of it.
    pub fn integrity_check(&self) -> Result<Vec<String>, ApplyError> {
        let mut statement = self.connection.prepare("PRAGMA integrity_check").map_err(|why| self.sqlite(why))?;
        let lines = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(|why| self.sqlite(why))?;
        Ok(lines)
    }

    fn sqlite(&self, why: rusqlite::Error) -> ApplyError {
        ApplyError::Sqlite { path: self.path.clone(), why }
    }
}

/// Checks what the pages sum up to, and only then commits.
fn finish(
    writer: PageWriter<'_>,
    sums: &mut PageSums,
    size: PageSize,
    changed: BTreeMap<PageNo, u64>,
    position: Position,
    commit: PageNo,
) -> Result<(), ApplyError> {
    let written: Vec<PageNo> = changed.keys().copied().collect();
    let change = sums.change(size, changed, commit);
    if change.after != position.checksum {
        return Err(ApplyError::Checksum { tx: position.tx, found: change.after, expected: position.checksum });
    }
    let holes: Vec<PageNo> = change.pages().filter(|page| written.binary_search(page).is_err()).collect();
    writer.commit(&holes, sums.pages(), commit)?;
    sums.apply(&change);
    Ok(())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    // Durable by checkpoints: what a power cut takes is applied again from the log.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}
