//! Opening, and finding the place to go on.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::files::{Held, beside, open_database};
use super::{Capture, CaptureError, Counters, Options, Resync, identity};
use crate::lineage::Start;
use crate::log::{Item, TransactionLog};
use crate::page::PageSize;
use crate::storage::Storage;
use crate::sums::PageSums;
use crate::transaction::{DbId, encode_start};
use crate::wal::{Resume, WalMark, WalReader};

impl Capture {
    /// Opens epoch `start.epoch` at the log's head: its start is the first thing in the log, then whatever the application commits. `start.base`
    /// must be the head.
    pub fn begin<S: Storage>(
        options: Options,
        db: DbId,
        log: &mut TransactionLog<S>,
        start: &Start,
        sums: PageSums,
        now_ms: u64,
    ) -> Result<Self, CaptureError> {
        let record = encode_start(db, start)?;
        let mut capture = Self::open(options, db, sums)?;
        // Before the start: a tenure without a note would take any file for its own.
        identity::note(log.storage_mut(), db, &capture.options.path, capture.counter.0)?;
        capture.lock(|capture| {
            capture.mark = capture.here()?;
            log.append(&record, Some(capture.mark))?;
            log.sync()?;
            capture.move_keeper()
        })?;
        if log.head().tx == 0 {
            capture.resync(log, Resync::First, now_ms)?;
        }
        Ok(capture)
    }

    /// Goes on in the epoch of the log's head. `sums`: the checksums at the head, `None` when they are lost (all pages are logged then).
    ///
    /// [`CaptureError::Replaced`] or [`CaptureError::Deleted`], again and again, where the file is not the one that was followed before:
    /// nothing of it is logged until [`crate::host::Host::adopt_file`].
    pub fn resume<S: Storage>(
        options: Options,
        db: DbId,
        log: &mut TransactionLog<S>,
        sums: Option<PageSums>,
        now_ms: u64,
    ) -> Result<Self, CaptureError> {
        let known = sums.is_some();
        let noted = identity::check(log.storage_mut(), db, &options.path)?;
        let mark = log.entries().next_back().and_then(|entry| entry.mark.map(|mark| (mark, matches!(entry.item, Item::Start(_)))));
        let mut capture = Self::open(options, db, sums.unwrap_or_default())?;
        if let Some(noted) = noted
            && !noted.accepted()
            && identity::went_back(noted.counter, capture.counter.0)
        {
            identity::suspect(log.storage_mut(), db)?;
            return Err(CaptureError::Replaced(capture.options.path.clone()));
        }
        let mut cause = None;
        capture.lock(|capture| {
            cause = match mark {
                _ if noted.is_some_and(|noted| noted.accepted()) => Some(Resync::Adopted),
                _ if !known => Some(Resync::LogCut),
                None => Some(Resync::LogCut),
                // Begun, and ended before the first transaction got in.
                Some((_, true)) if log.head().tx == 0 => Some(Resync::First),
                Some((mark, _)) => capture.find(mark)?,
            };
            if cause.is_none() {
                capture.follow(log, now_ms)?;
            } else {
                capture.mark = capture.here()?;
            }
            capture.move_keeper()
        })?;
        if let Some(cause) = cause {
            capture.resync(log, cause, now_ms)?;
        }
        if noted.is_none_or(|noted| noted.accepted()) {
            identity::note(log.storage_mut(), db, &capture.options.path, capture.counter.0)?;
        }
        Ok(capture)
    }

    fn open(options: Options, db: DbId, sums: PageSums) -> Result<Self, CaptureError> {
        let (file, header) = open_database(&options.path)?;
        let connect = || connection(&options).map_err(|why| CaptureError::sqlite(&options.path, why));
        let (keeper, helper, reader) = (connect()?, connect()?, connect()?);
        if keeper.is_readonly("main").unwrap_or(false) {
            return Err(CaptureError::ReadOnly(options.path));
        }
        let mode: String =
            keeper.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(|why| CaptureError::sqlite(&options.path, why))?;
        if mode != "wal" {
            return Err(CaptureError::RollbackJournal(options.path));
        }
        // Makes the other two files, if the application is not running.
        begin_read(&keeper).map_err(|why| CaptureError::sqlite(&options.path, why))?;
        file.check()?;
        let (wal, shm) = (Held::open(beside(&options.path, "-wal"))?, Held::open(beside(&options.path, "-shm"))?);
        let mark = WalMark { salt: [0; 2], frames: 0, sum: [0; 2] };
        let size = header.page_size;
        let mut capture = Self {
            keeper,
            helper,
            reader,
            wal,
            shm,
            file,
            options,
            db,
            size,
            sums,
            mark,
            unmoved: 0,
            pending: 0,
            counters: Counters::default(),
            kept: (0, 0),
            counter: (0, 0),
            noted_at: 0,
            on_disk: header.change_counter,
        };
        let counter = capture.header()?.map_or(header.change_counter, |header| header.change_counter);
        capture.counter = (counter, counter);
        Ok(capture)
    }

    /// The end of what is committed.
    pub(super) fn here(&self) -> Result<WalMark, CaptureError> {
        let index = self.index()?;
        if index.frames > 0 {
            return Ok(WalMark { salt: index.salt, frames: index.frames, sum: index.sum });
        }
        // Nothing in it. Its header may be missing yet: then its sum is unknown, and not needed, since there is no frame to continue from.
        let reader = WalReader::open(&self.wal.file)?;
        let start = reader.map(|reader| reader.header().start()).filter(|start| start.salt == index.salt);
        Ok(start.unwrap_or(WalMark { salt: index.salt, frames: 0, sum: [0; 2] }))
    }

    /// Looks for a remembered place; the cause of a resync when it is not there.
    fn find(&mut self, mark: WalMark) -> Result<Option<Resync>, CaptureError> {
        let index = self.index()?;
        self.mark = mark;
        if index.salt != mark.salt {
            // The log was restarted. Only the remembered place being its very end would make that harmless, and nobody held it there.
            return Ok(Some(Resync::Away));
        }
        if index.frames < mark.frames {
            return Ok(Some(Resync::Rewound));
        }
        if mark.frames == 0 {
            return Ok(None);
        }
        let Some(mut reader) = WalReader::open(&self.wal.file)? else { return Ok(Some(Resync::Rewound)) };
        match reader.resume(mark) {
            Ok(Resume::Here(_)) => Ok(None),
            Ok(_) => Ok(Some(Resync::Away)),
            Err(_) => Ok(Some(Resync::Rewound)),
        }
    }

    /// Runs `work` under the application's write lock.
    pub(super) fn lock<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, CaptureError>) -> Result<T, CaptureError> {
        self.helper.execute_batch("BEGIN IMMEDIATE").map_err(|why| CaptureError::sqlite(&self.options.path, why))?;
        let outcome = work(self);
        let end = self.helper.execute_batch("ROLLBACK").map_err(|why| CaptureError::sqlite(&self.options.path, why));
        outcome.and_then(|value| end.map(|()| value))
    }

    /// The keeper's next read transaction. Under the write lock only: else frames written between its two would go unheld.
    pub(super) fn move_keeper(&mut self) -> Result<(), CaptureError> {
        let moved = self.keeper.execute_batch("ROLLBACK").and_then(|()| begin_read(&self.keeper));
        moved.map_err(|why| CaptureError::sqlite(&self.options.path, why))?;
        self.counters.moves += 1;
        self.unmoved = 0;
        Ok(())
    }

    pub(super) fn size(&self) -> PageSize {
        self.size
    }
}

/// Begins a read transaction that really holds: with a first read.
pub(super) fn begin_read(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(|_| ())
}

fn connection(options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags)?;
    connection.busy_timeout(options.lock_wait)?;
    // Neither on its own, nor when it closes.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}
