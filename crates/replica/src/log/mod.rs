//! The local transaction log (D1, D7): what was captured or received, in order, until everybody who needs it has it.
//!
//! Segments `log-N`, each with the state it begins from; entries with checksums behind it. Whatever a crash leaves of the tail: the log
//! ends at the last whole group before the first thing that does not fit. The log itself keeps the chain: a transaction that does not go
//! on from the head, by number and by checksum, does not get in.
//!
//! Bounded by bytes and by transactions. Beyond the bound the oldest segments go, needed or not; [`TransactionLog::take_cut`] says so, and whoever
//! needed them is owed a snapshot.

mod open;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::lineage::{Position, Start};
use crate::page::PageNo;
use crate::storage::Storage;
use crate::transaction::{Close, DbId, DecodeError, GroupError, GroupReader, Kind, MAX_CHUNK, Progress, Record, decode};
use crate::wal::WalMark;
use segment::{entry_bytes, segment_name};

/// How much a log may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all segments together, about: a segment goes as a whole.
    pub bytes: u64,
    /// Bytes after which a segment is followed by another.
    pub segment: u64,
    /// Transactions: each takes about 120 bytes of memory.
    pub transactions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, segment: 16 << 20, transactions: 1_000_000 }
    }
}

/// Why the log did not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused, such as for want of space. A group begun is thrown away; the log is as it was before it.
    #[error("the transaction log could not be written or read")]
    Storage(#[source] io::Error),
    /// Not a record.
    #[error("not a record")]
    Decode(#[source] DecodeError),
    /// The chunks do not make a group.
    #[error("not a whole transaction")]
    Group(#[source] GroupError),
    /// A record of another database.
    #[error("a record of database {0}")]
    Database(DbId),
    /// It does not go on from the head: something is missing between, or it is here already.
    #[error("transaction {tx} of epoch {epoch} does not follow transaction {} of epoch {}", head.tx, head.epoch)]
    Sequence {
        /// Epoch of the record.
        epoch: u64,
        /// Its transaction.
        tx: u64,
        /// Where the log ends.
        head: Position,
    },
    /// The right number on another state: somebody's database is not what its name says (D10).
    #[error("transaction {tx} of epoch {epoch} goes on from checksum {found:016x}, the log ends with {:016x}", head.checksum)]
    Checksum {
        /// Epoch of the record.
        epoch: u64,
        /// Its transaction.
        tx: u64,
        /// The checksum it goes on from.
        found: u64,
        /// Where the log ends.
        head: Position,
    },
    /// Snapshots are kept elsewhere.
    #[error("a snapshot does not go into the log")]
    Snapshot,
    /// A transaction larger than the whole log may be.
    #[error("a transaction of more than {0} bytes does not fit the log")]
    TooLarge(u64),
    /// What was asked for is not, or no longer, in the log.
    #[error("transaction {0} is not in the log")]
    Absent(u64),
    /// What was written is not what is read: the disk is broken.
    #[error("transaction {0} of the log is damaged")]
    Damaged(u64),
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A transaction.
    Change(Close),
    /// An epoch begins.
    Start(Start),
}

/// A transaction or a start in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The state after it.
    pub position: Position,
    /// What it is.
    pub item: Item,
    /// Encoded bytes, as shipped.
    pub bytes: u64,
    /// Where in the write-ahead log it ended; only where it was captured, not where it was received.
    pub mark: Option<WalMark>,
    segment: u64,
    offset: u64,
    end: u64,
}

impl Entry {
    /// Pages of the database after it, for a transaction.
    pub fn commit(&self) -> Option<PageNo> {
        match &self.item {
            Item::Change(close) => Some(close.commit),
            Item::Start(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    base: Position,
    bytes: u64,
}

/// See the module.
pub struct TransactionLog<S> {
    storage: S,
    db: DbId,
    limits: Limits,
    segments: BTreeMap<u64, Segment>,
    entries: VecDeque<Entry>,
    base: Position,
    group: GroupReader,
    /// Where the open group begins in the last segment.
    group_start: u64,
    group_bytes: u64,
    dirty: bool,
    cut: bool,
}

impl<S: Storage> TransactionLog<S> {
    /// The state after the last entry.
    pub fn head(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| entry.position)
    }

    /// The state before the first entry.
    pub fn base(&self) -> Position {
        self.base
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    /// Entries that lead on from transaction `tx`: starts at its end included.
    pub fn after(&self, tx: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let from = self.entries.partition_point(|entry| entry.position.tx < tx || (entry.position.tx == tx && entry.commit().is_some()));
        self.entries.range(from..)
    }

    /// How many entries lead to the state `at`, from the base: what follows is what is missing there. `None`: not a state of this log.
    pub fn place(&self, at: Position) -> Option<usize> {
        // Ordered by epoch and transaction: each goes on from the one before.
        let place = self.entries.partition_point(|entry| (entry.position.epoch, entry.position.tx) <= (at.epoch, at.tx));
        let there = place.checked_sub(1).and_then(|last| self.entries.get(last)).map_or(self.base, |entry| entry.position);
        (there == at).then_some(place)
    }

    /// The entry with this number, from [`Self::place`].
    pub fn entry(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// The disk under it.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The disk under it, for the other files of this database.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Whether entries that nobody released were thrown away since the last call: a snapshot is owed.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// Appends an encoded record that was made or received here. A transaction is in with its closing chunk, and durable with the next
    /// [`Self::sync`]. After an error nothing of its group is in. `mark` is kept with a closing chunk or a start.
    pub fn append(&mut self, bytes: &[u8], mark: Option<WalMark>) -> Result<Option<Position>, LogError> {
        let outcome = self.step(bytes, mark);
        if outcome.is_err() {
            self.abandon();
        }
        outcome
    }

    fn step(&mut self, bytes: &[u8], mark: Option<WalMark>) -> Result<Option<Position>, LogError> {
        let head = self.head();
        match decode(bytes).map_err(LogError::Decode)? {
            Record::Start { db, start } => {
                let (epoch, tx) = (start.epoch, start.base.tx);
                self.belongs(db)?;
                if (start.base.epoch, tx) != (head.epoch, head.tx) || self.group.is_open() {
                    return Err(LogError::Sequence { epoch, tx, head });
                }
                if start.base.checksum != head.checksum {
                    return Err(LogError::Checksum { epoch, tx, found: start.base.checksum, head });
                }
                self.write(bytes, mark)?;
                let position = Position { epoch, ..head };
                self.finish(position, Item::Start(start), mark);
                Ok(Some(position))
            }
            Record::Chunk(chunk) => {
                let (epoch, tx) = (chunk.epoch, chunk.tx);
                self.belongs(chunk.db)?;
                if chunk.kind == Kind::Snapshot {
                    return Err(LogError::Snapshot);
                }
                if epoch != head.epoch || tx != head.tx + 1 {
                    return Err(LogError::Sequence { epoch, tx, head });
                }
                let progress = self.group.accept(&chunk).map_err(LogError::Group)?;
                if let Progress::Whole(close) = progress
                    && close.before != head.checksum
                {
                    return Err(LogError::Checksum { epoch, tx, found: close.before, head });
                }
                self.write(bytes, mark.filter(|_| chunk.close.is_some()))?;
                let Progress::Whole(close) = progress else { return Ok(None) };
                let position = Position { epoch, tx, checksum: close.after };
                self.finish(position, Item::Change(close), mark);
                Ok(Some(position))
            }
        }
    }

    fn belongs(&self, db: DbId) -> Result<(), LogError> {
        if db == self.db { Ok(()) } else { Err(LogError::Database(db)) }
    }

    /// Writes an entry at the end of the last segment; the first of a group may begin another segment.
    fn write(&mut self, bytes: &[u8], mark: Option<WalMark>) -> Result<(), LogError> {
        if self.group_bytes == 0 {
            if self.segments.last_key_value().is_none_or(|(_, last)| last.bytes >= self.limits.segment) {
                self.begin_segment(self.head())?;
            }
            self.group_start = self.segments.last_key_value().map_or(0, |(_, last)| last.bytes);
        }
        let framed = entry_bytes(bytes, mark);
        let Some(mut last) = self.segments.last_entry() else { return Err(LogError::Absent(0)) };
        if self.group_bytes + framed.len() as u64 > self.limits.bytes {
            return Err(LogError::TooLarge(self.limits.bytes));
        }
        // Counted before it is tried: what a refused write left behind is cut off again.
        self.group_bytes += framed.len() as u64;
        self.dirty = true;
        self.storage.append(&segment_name(*last.key()), &framed).map_err(LogError::Storage)?;
        last.get_mut().bytes += framed.len() as u64;
        Ok(())
    }

    fn finish(&mut self, position: Position, item: Item, mark: Option<WalMark>) {
        let (segment, end) = self.segments.last_key_value().map_or((0, 0), |(number, last)| (*number, last.bytes));
        let bytes = self.group_bytes;
        self.entries.push_back(Entry { position, item, bytes, mark, segment, offset: self.group_start, end });
        self.group_bytes = 0;
        self.enforce_limits();
    }

    /// Throws an open group away.
    fn abandon(&mut self) {
        self.group.reset();
        if std::mem::take(&mut self.group_bytes) == 0 {
            return;
        }
        if let Some(mut last) = self.segments.last_entry() {
            last.get_mut().bytes = self.group_start;
            // Should this fail too: opening cuts it, and the next entry's place is checked there.
            let _ = self.storage.truncate(&segment_name(*last.key()), self.group_start);
        }
    }

    /// Throws an open group away, such as when its sender is gone.
    pub fn abandon_group(&mut self) {
        self.abandon();
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.dirty
            && let Some((number, _)) = self.segments.last_key_value()
        {
            self.storage.sync(&segment_name(*number)).map_err(LogError::Storage)?;
        }
        self.dirty = false;
        Ok(())
    }

    fn enforce_limits(&mut self) {
        while self.segments.len() > 1 && (self.bytes() > self.limits.bytes || self.entries.len() > self.limits.transactions) {
            self.cut = true;
            if self.drop_first_segment().is_err() {
                // Tried again with the next transaction.
                return;
            }
        }
    }

    fn drop_first_segment(&mut self) -> Result<(), LogError> {
        let Some((&first, _)) = self.segments.first_key_value() else { return Ok(()) };
        self.storage.remove(&segment_name(first)).map_err(LogError::Storage)?;
        self.segments.remove(&first);
        while self.entries.front().is_some_and(|entry| entry.segment == first) {
            if let Some(gone) = self.entries.pop_front() {
                self.base = gone.position;
            }
        }
        Ok(())
    }

    /// Nobody needs entries up to `tx` any more (D7): whole segments of them go.
    pub fn release(&mut self, tx: u64) -> Result<(), LogError> {
        loop {
            let mut segments = self.segments.iter();
            let (Some(_), Some((_, second))) = (segments.next(), segments.next()) else { return Ok(()) };
            if second.base.tx > tx {
                return Ok(());
            }
            self.drop_first_segment()?;
        }
    }

    /// Throws away what came after the state `keep`, which is in the log (or its base). Durable when this returns.
    pub fn truncate_after(&mut self, keep: Position) -> Result<(), LogError> {
        self.abandon();
        let kept = match self.entries.iter().rposition(|entry| entry.position == keep) {
            Some(last) => last + 1,
            None if self.base == keep => 0,
            None => return Err(LogError::Absent(keep.tx)),
        };
        let Some(first) = self.entries.get(kept) else { return Ok(()) };
        let (segment, offset) = (first.segment, first.offset);
        for number in self.segments.keys().copied().filter(|number| *number > segment).collect::<Vec<_>>().into_iter().rev() {
            self.storage.remove(&segment_name(number)).map_err(LogError::Storage)?;
            self.segments.remove(&number);
        }
        self.storage.truncate(&segment_name(segment), offset).map_err(LogError::Storage)?;
        self.storage.sync(&segment_name(segment)).map_err(LogError::Storage)?;
        if let Some(last) = self.segments.get_mut(&segment) {
            last.bytes = offset;
        }
        self.entries.truncate(kept);
        Ok(())
    }

    /// Empties the log: it goes on from `base`, as after a snapshot. Durable when this returns.
    pub fn reset(&mut self, base: Position) -> Result<(), LogError> {
        self.abandon();
        // The new one first: a crash between leaves segments that do not fit each other, and opening takes the last that begins anew.
        self.begin_segment(base)?;
        let newest = self.segments.last_key_value().map_or(0, |(number, _)| *number);
        for number in self.segments.keys().copied().filter(|number| *number < newest).collect::<Vec<_>>() {
            self.storage.remove(&segment_name(number)).map_err(LogError::Storage)?;
            self.segments.remove(&number);
        }
        self.entries.clear();
        self.base = base;
        self.sync()
    }

    /// The encoded records of `entry`, each with `each`. Checked against the disk's mistakes.
    pub fn read<E: From<LogError>>(&self, entry: &Entry, mut each: impl FnMut(&[u8], Record) -> Result<(), E>) -> Result<(), E> {
        let tx = entry.position.tx;
        let name = segment_name(entry.segment);
        let mut offset = entry.offset;
        let mut buffer = Vec::with_capacity(MAX_CHUNK);
        while offset < entry.end {
            let read = segment::read_entry(&self.storage, &name, offset, &mut buffer).map_err(LogError::Storage)?;
            let framed = read.ok_or(LogError::Damaged(tx))?;
            offset += framed.length;
            let record = decode(&buffer).map_err(|_| LogError::Damaged(tx))?;
            each(&buffer, record)?;
        }
        Ok(())
    }

    /// The encoded record of `entry` that begins at `offset` within it, from 0, and where the next one begins; no next: it was the last.
    pub fn record(&self, entry: &Entry, offset: u64) -> Result<(Vec<u8>, Option<u64>), LogError> {
        let mut buffer = Vec::new();
        let at = entry.offset + offset;
        let read = segment::read_entry(&self.storage, &segment_name(entry.segment), at, &mut buffer).map_err(LogError::Storage)?;
        let framed = read.filter(|framed| at + framed.length <= entry.end).ok_or(LogError::Damaged(entry.position.tx))?;
        let next = at + framed.length;
        Ok((buffer, (next < entry.end).then_some(next - entry.offset)))
    }
}
