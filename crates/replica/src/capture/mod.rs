//! Following a database beside the application that writes it (D1, D2).
//!
//! Three connections of our own, none of which ever changes anything:
//! - the **keeper** holds a read transaction, so that nobody restarts the write-ahead log over frames that were not read;
//! - the **helper** takes the write lock for a moment (and rolls back) whenever the keeper moves on, so that no frame comes in between;
//! - the **reader** checkpoints inside that lock, and reads the whole database where pages must be compared.
//!
//! # Flow
//! 1. [`Capture::begin`] opens an epoch at the log's head; [`Capture::resume`] goes on in it after a restart of this process.
//! 2. On each wake ([`Watch`]) [`Capture::poll`] appends what was committed to the [`crate::log::TransactionLog`].
//! 3. Every so often [`Capture::advance`] moves the keeper, and lets the next write begin the write-ahead log anew.
//!
//! # Guarantees
//! - Each transaction the application committed is in the log, once, in order, as soon as it is found; or a [`CaptureError`] names why not.
//! - The application waits for us only while the helper holds the lock: milliseconds, and the time of a checkpoint.
//!
//! # Assumptions
//! - Nobody else in this process opens or closes the database, `-wal` or `-shm` file meanwhile: POSIX locks belong to the process.
//! - While we follow, the application's own RESTART and TRUNCATE checkpoints end busy after its timeout, and it cannot leave WAL mode or change
//!   the page size.

mod error;
mod files;
mod follow;
mod identity;
mod open;
mod scan;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

pub use error::CaptureError;
pub use files::beside;
pub(crate) use files::inode;
pub use scan::{SnapshotError, Verified};
pub use watch::{POLL, SETTLE, Watch};

use crate::header::DatabaseHeader;
use crate::log::TransactionLog;
use crate::page::PageSize;
use crate::storage::Storage;
use crate::sums::PageSums;
use crate::transaction::{Compression, DbId};
use crate::wal::{WalIndex, WalMark};
use files::Held;

/// How to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// Bodies of transactions.
    pub compression: Compression,
    /// Whether each look that found something makes it durable before it returns. Without it the caller syncs the log when it likes.
    pub sync: bool,
    /// Frames in the write-ahead log after which the keeper moves and the log is checkpointed. SQLite's own default is 1000.
    pub checkpoint_frames: u32,
    /// The application was quiet this long: then fewer frames are checkpointed too.
    pub quiet: Duration,
    /// Frames beyond which a checkpoint waits for a quiet moment rather than hold up the application for so long...
    pub checkpoint_limit: u32,
    /// Longest wait for the application's write lock.
    pub lock_wait: Duration,
}

impl Options {
    /// The usual ones for a database.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            compression: Compression::default(),
            sync: true,
            checkpoint_frames: 1000,
            quiet: Duration::from_secs(1),
            checkpoint_limit: 16_384,
            lock_wait: Duration::from_millis(500),
        }
    }
}

/// ...but not beyond this many times [`Options::checkpoint_limit`]: a file that only grows is worse.
const CHECKPOINT_REGARDLESS: u32 = 8;

/// Encoded bytes of transactions after which the checksums of all pages are kept again, once the database file holds them.
const KEEP_SUMS_BYTES: u64 = 64 << 20;
/// The same in transactions.
const KEEP_SUMS_TRANSACTIONS: u64 = 20_000;

/// Whole checkpoints after which the change counter is noted again, where the application is never quiet.
const NOTE_CHECKPOINTS: u64 = 64;

/// Why pages had to be compared instead of frames read. Each is counted; none is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resync {
    /// Nothing was known of the database: its first transaction holds all of it.
    First,
    /// This process was away, and the application restarted its write-ahead log meanwhile.
    Away,
    /// The write-ahead log ends before the place remembered: the machine lost power and the tail was not durable.
    Rewound,
    /// The transaction log had lost its tail, or was emptied for want of space.
    LogCut,
    /// The file is not the one that was followed before, and an operator accepted it.
    Adopted,
}

/// What a capture did since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions captured.
    pub transactions: u64,
    /// Pages in them.
    pub pages: u64,
    /// Bytes of them, encoded.
    pub bytes: u64,
    /// The keeper moved.
    pub moves: u64,
    /// Checkpoints that copied the whole write-ahead log.
    pub checkpoints: u64,
    /// The application held its write lock too long for a move; tried again later.
    pub busy: u64,
    /// Pages compared, by reason.
    pub resyncs: BTreeMap<Resync, u64>,
    /// A comparison found pages changed that no transaction named ([`Capture::verify`]). Must stay 0.
    pub silent: u64,
}

/// A database that is followed. See the module.
///
/// Fields are dropped in this order: connections before descriptors, see `files::open_database`.
pub struct Capture {
    keeper: Connection,
    helper: Connection,
    reader: Connection,
    wal: Held,
    shm: Held,
    file: Held,
    options: Options,
    db: DbId,
    size: PageSize,
    sums: PageSums,
    /// All frames up to here are in the transaction log.
    mark: WalMark,
    /// Frames read since the keeper moved last.
    unmoved: u32,
    /// Frames that are not checkpointed yet, as far as known.
    pending: u32,
    counters: Counters,
    /// Transactions and bytes counted when the checksums were kept last.
    kept: (u64, u64),
    /// Highest change counter seen in page 1, and the one that is noted ([`identity`]).
    counter: (u32, u32),
    /// Checkpoints counted when it was noted last.
    noted_at: u64,
    /// The change counter in the file itself, as seen last.
    on_disk: u32,
}

impl Capture {
    /// What it did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// An operator's word: the file that lies at the path now counts, although it is not the one that was followed.
    pub fn adopt<S: Storage>(log: &mut TransactionLog<S>, db: DbId) -> std::io::Result<()> {
        identity::adopt(log.storage_mut(), db)
    }

    /// Size of the database's pages.
    pub fn page_size(&self) -> PageSize {
        self.size
    }

    /// Checksums of all pages, at the log's head.
    pub fn sums(&self) -> &PageSums {
        &self.sums
    }

    /// `SQLITE_VERSION_NUMBER` of the library that wrote the header last, such as 3040001: the application's, since ours never writes.
    /// Below [`SAFE_VERSION`], two processes that checkpoint may lose a page; ours checkpoints inside the write lock only, which avoids it,
    /// the application's own processes among each other do not.
    pub fn writer_version(&self) -> Result<u32, CaptureError> {
        Ok(self.header()?.map_or(0, |header| header.written_by))
    }

    /// The header as the reader sees it.
    fn header(&self) -> Result<Option<DatabaseHeader>, CaptureError> {
        let page: Vec<u8> = self
            .reader
            .query_row("SELECT data FROM sqlite_dbpage WHERE pgno = 1", [], |row| row.get(0))
            .map_err(|why| CaptureError::sqlite(&self.options.path, why))?;
        Ok(DatabaseHeader::parse(&page).ok())
    }

    /// A watch on its write-ahead log.
    pub fn watch(&self) -> Watch {
        Watch::new(&beside(&self.options.path, "-wal"))
    }

    fn index(&self) -> Result<WalIndex, CaptureError> {
        // A process that writes the header is done in nanoseconds, unless it was stopped between the two copies.
        for _ in 0..1000 {
            if let Some(index) = WalIndex::read(&self.shm.file)? {
                return Ok(index);
            }
            std::thread::yield_now();
        }
        Err(CaptureError::Locked(self.options.path.clone()))
    }
}

/// First version of SQLite without the error that lets a checkpoint and a restart of the write-ahead log race.
pub const SAFE_VERSION: u32 = 3_051_003;
