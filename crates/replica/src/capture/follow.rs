//! Reading what was committed, and moving on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CHECKPOINT_REGARDLESS, Capture, CaptureError, KEEP_SUMS_BYTES, KEEP_SUMS_TRANSACTIONS, NOTE_CHECKPOINTS, identity};
use crate::header::{DatabaseHeader, HEADER_LEN};
use crate::log::{LogError, TransactionLog};
use crate::page::page_sum;
use crate::storage::Storage;
use crate::sums::SumsError;
use crate::transaction::{GroupWriter, Kind};
use crate::wal::{ReadAt as _, Resume, WalError, WalIndex, WalReader, WalTransaction};

/// Looks at a header before it counts as that of another database, and the pause between them.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Capture {
    /// Appends all that was committed since. How many transactions. `now_ms`: the wall clock, for figures.
    pub fn poll<S: Storage>(&mut self, log: &mut TransactionLog<S>, now_ms: u64) -> Result<u64, CaptureError> {
        if let Err(error) = self.file.check() {
            identity::gone(log.storage_mut(), self.db)?;
            return Err(error);
        }
        if let Err(error) = self.look_at_header() {
            if matches!(error, CaptureError::Replaced(_)) {
                identity::suspect(log.storage_mut(), self.db)?;
            }
            return Err(error);
        }
        for held in [&self.wal, &self.shm] {
            held.check()?;
        }
        self.follow(log, now_ms)
    }

    /// The file was not cut, nor an older copy written over it: its change counter never goes back, whatever of the write-ahead log is in it.
    fn look_at_header(&mut self) -> Result<(), CaptureError> {
        let mut bytes = [0; HEADER_LEN];
        // A checkpoint may be writing page 1 just now: what looks wrong is looked at again.
        for _ in 0..LOOKS {
            let read = self.file.file.read_at(0, &mut bytes);
            let count = read.map_err(|why| CaptureError::Unreadable { path: self.options.path.clone(), why })?;
            let counter = bytes.get(24..28).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes);
            if count == HEADER_LEN && !identity::went_back(self.on_disk, counter) {
                self.on_disk = counter;
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(CaptureError::Replaced(self.options.path.clone()))
    }

    pub(super) fn follow<S: Storage>(&mut self, log: &mut TransactionLog<S>, now_ms: u64) -> Result<u64, CaptureError> {
        let Some((mut reader, index)) = self.current()? else { return Ok(0) };
        let restarted = index.salt != self.mark.salt;
        if restarted {
            // A restart counts the first salt up by one. It happens only when all was checkpointed and nobody holds a place in the log; the
            // keeper lets go only under the write lock with all frames read. A second restart is held up by the keeper itself.
            if index.salt[0] != self.mark.salt[0].wrapping_add(1) && self.mark.frames != 0 {
                return Err(CaptureError::Missed(self.options.path.clone()));
            }
            self.mark = reader.mark();
        } else if self.mark.frames == 0 {
            self.mark = reader.mark();
        } else if !matches!(reader.resume(self.mark)?, Resume::Here(_)) {
            return Err(CaptureError::Missed(self.options.path.clone()));
        }
        let mut count = 0;
        while let Some(transaction) = reader.next_transaction(Some(index.frames))? {
            self.log_transaction(&reader, &transaction, log, now_ms)?;
            let read = transaction.end.frames - self.mark.frames;
            self.unmoved = self.unmoved.saturating_add(read);
            self.mark = transaction.end;
            count += 1;
        }
        self.pending = index.frames.saturating_sub(index.backfilled);
        // The first transaction of a log begun anew must be durable before anybody ships it: after a power cut the place in the log before is
        // of no use, and what is found by comparing pages must not get a name that is in use elsewhere.
        if count > 0 && (self.options.sync || restarted) {
            log.sync()?;
        }
        Ok(count)
    }

    /// The log in use, when it holds frames that were not read.
    fn current(&self) -> Result<Option<(WalReader<std::fs::File>, WalIndex)>, CaptureError> {
        let mut index = self.index()?;
        loop {
            // Nothing new; or restarted, and its first transaction is being written.
            if (index.salt == self.mark.salt && index.frames == self.mark.frames) || index.frames == 0 {
                return Ok(None);
            }
            let file = self.wal.file.try_clone().map_err(WalError::Read)?;
            if let Some(reader) = WalReader::open(file)?.filter(|reader| reader.header().salt == index.salt) {
                return Ok(Some((reader, index)));
            }
            // Restarted between the two looks. The index is written before the header.
            let again = self.index()?;
            if again.salt == index.salt {
                return Err(WalError::Header("not the log that is in use").into());
            }
            index = again;
        }
    }

    fn log_transaction<S: Storage>(
        &mut self,
        reader: &WalReader<std::fs::File>,
        transaction: &WalTransaction,
        log: &mut TransactionLog<S>,
        now_ms: u64,
    ) -> Result<(), CaptureError> {
        let (head, before) = (log.head(), self.sums.total());
        let mut writer = GroupWriter::new(self.db, head.epoch, head.tx + 1, Kind::Change, self.size, self.options.compression);
        let mut sums = BTreeMap::new();
        let mut data = vec![0; self.size.bytes()];
        let mut bytes = 0;
        for (page, frame) in &transaction.pages {
            if *page == self.size.lock_page() {
                continue;
            }
            reader.page(*frame, &mut data)?;
            if *page == 1 {
                self.counter.0 = DatabaseHeader::parse(&data).map_or(self.counter.0, |header| header.change_counter);
            }
            sums.insert(*page, page_sum(*page, &data));
            if let Some(chunk) = writer.push(*page, &data)? {
                bytes += chunk.len() as u64;
                log.append(&chunk, None)?;
            }
        }
        let pages = sums.len() as u64;
        let change = self.sums.change(self.size, sums, transaction.commit);
        let last = writer.finish(transaction.commit, before, change.after, now_ms)?;
        bytes += last.len() as u64;
        log.append(&last, Some(transaction.end))?;
        self.sums.apply(&change);
        self.counters.transactions += 1;
        self.counters.pages += pages;
        self.counters.bytes += bytes;
        Ok(())
    }

    /// Moves the keeper when it is time (D2), and checkpoints. `quiet`: since when the application has written nothing. Whether it moved.
    pub fn advance<S: Storage>(&mut self, log: &mut TransactionLog<S>, quiet: Duration, now_ms: u64) -> Result<bool, CaptureError> {
        let due = self.unmoved >= self.options.checkpoint_frames || (self.unmoved > 0 && quiet >= self.options.quiet);
        if due { self.move_on(log, quiet, now_ms) } else { Ok(false) }
    }

    /// Moves the keeper now. `false` when the application holds its write lock.
    pub fn move_on<S: Storage>(&mut self, log: &mut TransactionLog<S>, quiet: Duration, now_ms: u64) -> Result<bool, CaptureError> {
        let limit = self.options.checkpoint_limit;
        // Before frames may be written over, the log must hold them durably: what a crash took from it is read again from there, frame by
        // frame, and so under the names it was shipped by. Most of it before the lock, which the application waits for.
        log.sync()?;
        let outcome = self.lock(|capture| {
            capture.follow(log, now_ms)?;
            log.sync()?;
            capture.move_keeper()?;
            let small = capture.pending <= limit || capture.pending / CHECKPOINT_REGARDLESS > limit;
            if (small || quiet >= capture.options.quiet) && capture.checkpoint()? {
                // All is in the database file: the keeper lands beside the log, and the next write begins it anew.
                capture.move_keeper()?;
                return Ok(true);
            }
            Ok(false)
        });
        match outcome {
            Ok(whole) => {
                if whole {
                    self.keep_sums(log)?;
                    self.note_counter(log, quiet)?;
                }
                Ok(true)
            }
            Err(CaptureError::Locked(_)) => {
                self.counters.busy += 1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes the change counter, seldom while the application is busy.
    fn note_counter<S: Storage>(&mut self, log: &mut TransactionLog<S>, quiet: Duration) -> Result<(), CaptureError> {
        let due = quiet >= self.options.quiet || self.counters.checkpoints - self.noted_at >= NOTE_CHECKPOINTS;
        if due && self.counter.0 != self.counter.1 {
            identity::count(log.storage_mut(), self.db, self.counter.0)?;
            self.counter.1 = self.counter.0;
            self.noted_at = self.counters.checkpoints;
        }
        Ok(())
    }

    /// The database file holds everything up to the log's head, durably: now and then its checksums are kept, so that after a crash the log is
    /// not needed from before.
    fn keep_sums<S: Storage>(&mut self, log: &mut TransactionLog<S>) -> Result<(), CaptureError> {
        let (transactions, bytes) = self.kept;
        let due = self.counters.transactions - transactions >= KEEP_SUMS_TRANSACTIONS || self.counters.bytes - bytes >= KEEP_SUMS_BYTES;
        if !due {
            return Ok(());
        }
        let head = log.head();
        match crate::sums::store(log.storage_mut(), self.db, self.size, head, &self.sums) {
            Ok(()) | Err(SumsError::Damaged) => {}
            Err(SumsError::Storage(why)) => return Err(LogError::Storage(why).into()),
        }
        self.kept = (self.counters.transactions, self.counters.bytes);
        Ok(())
    }

    /// A passive checkpoint, inside the write lock: nobody can append meanwhile, so that even an SQLite before
    /// [`super::SAFE_VERSION`] beside us is safe from it. Whether all frames are in the database file.
    fn checkpoint(&mut self) -> Result<bool, CaptureError> {
        let (busy, frames, done): (i64, i64, i64) = self
            .reader
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(|why| CaptureError::sqlite(&self.options.path, why))?;
        // A reader of the application that began earlier holds the rest back; next time.
        let whole = busy == 0 && frames == done;
        if whole {
            self.counters.checkpoints += 1;
            self.pending = 0;
        }
        Ok(whole)
    }
}
