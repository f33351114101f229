//! Opening a log, after whatever happened to it.

use std::collections::{BTreeMap, VecDeque};

use super::segment::{SEGMENT_HEADER, parse_header, read_entry, segment_header, segment_name, segment_number};
use super::{Entry, Item, Limits, LogError, Segment, TransactionLog};
use crate::lineage::Position;
use crate::storage::Storage;
use crate::transaction::{DbId, GroupReader, Kind, Progress, Record, decode};

impl<S: Storage> TransactionLog<S> {
    /// Opens the log of `db`. What does not fit is cut off, and whatever came after it. A log that is not there yet begins from nothing.
    pub fn open(storage: S, db: DbId, limits: Limits) -> Result<Self, LogError> {
        let mut log = Self {
            storage,
            db,
            limits,
            segments: BTreeMap::new(),
            entries: VecDeque::new(),
            base: Position::default(),
            group: GroupReader::default(),
            group_start: 0,
            group_bytes: 0,
            dirty: false,
            cut: false,
        };
        log.recover()?;
        if log.segments.is_empty() {
            log.begin_segment(Position::default())?;
            log.sync()?;
        }
        Ok(log)
    }

    pub(super) fn begin_segment(&mut self, base: Position) -> Result<(), LogError> {
        // Durable before another file takes what follows.
        self.sync()?;
        let number = self.segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let name = segment_name(number);
        self.storage.remove(&name).map_err(LogError::Storage)?;
        self.storage.append(&name, &segment_header(self.db, base)).map_err(LogError::Storage)?;
        self.segments.insert(number, Segment { base, bytes: SEGMENT_HEADER as u64 });
        self.dirty = true;
        Ok(())
    }

    fn recover(&mut self) -> Result<(), LogError> {
        let names = self.storage.list().map_err(LogError::Storage)?;
        let mut broken = false;
        for number in names.iter().filter_map(|name| segment_number(name)) {
            let name = segment_name(number);
            let mut header = [0; SEGMENT_HEADER];
            let count = self.storage.read_at(&name, 0, &mut header).map_err(LogError::Storage)?;
            let base = parse_header(&header, self.db).filter(|_| count == SEGMENT_HEADER);
            match base {
                Some(base) if self.segments.is_empty() => {
                    self.cut |= broken;
                    self.base = base;
                }
                Some(base) if !broken && base == self.head() => {}
                // A reset that did not come to remove the old ones: what begins anew last is the log.
                Some(base) if !broken => {
                    for old in std::mem::take(&mut self.segments).into_keys() {
                        self.storage.remove(&segment_name(old)).map_err(LogError::Storage)?;
                    }
                    self.cut |= !self.entries.is_empty();
                    self.entries.clear();
                    self.base = base;
                }
                _ => {
                    broken |= self.segments.is_empty();
                    self.storage.remove(&name).map_err(LogError::Storage)?;
                    continue;
                }
            }
            let Some(base) = base else { continue };
            self.segments.insert(number, Segment { base, bytes: SEGMENT_HEADER as u64 });
            broken |= self.recover_segment(number)?;
        }
        Ok(())
    }

    /// Reads a segment's entries up to the first that does not fit, and cuts there. Whether it had to cut.
    fn recover_segment(&mut self, number: u64) -> Result<bool, LogError> {
        let name = segment_name(number);
        let mut group = GroupReader::default();
        let (mut at, mut whole) = (SEGMENT_HEADER as u64, SEGMENT_HEADER as u64);
        let mut record = Vec::new();
        while let Some(framed) = read_entry(&self.storage, &name, at, &mut record).map_err(LogError::Storage)? {
            let head = self.head();
            at += framed.length;
            let Ok(decoded) = decode(&record) else { break };
            let (position, item) = match decoded {
                Record::Start { db, start } if db == self.db && start.base == head && !group.is_open() => {
                    (Position { epoch: start.epoch, ..head }, Item::Start(start))
                }
                Record::Chunk(chunk)
                    if chunk.db == self.db && chunk.kind == Kind::Change && (chunk.epoch, chunk.tx) == (head.epoch, head.tx + 1) =>
                {
                    match group.accept(&chunk) {
                        Ok(Progress::More) => continue,
                        Ok(Progress::Whole(close)) if close.before == head.checksum => {
                            (Position { epoch: chunk.epoch, tx: chunk.tx, checksum: close.after }, Item::Change(close))
                        }
                        _ => break,
                    }
                }
                _ => break,
            };
            self.entries.push_back(Entry { position, item, bytes: at - whole, mark: framed.mark, segment: number, offset: whole, end: at });
            whole = at;
        }
        let len = self.storage.len(&name).map_err(LogError::Storage)?.unwrap_or(0);
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes = whole;
        }
        if len > whole {
            self.storage.truncate(&name, whole).map_err(LogError::Storage)?;
            self.storage.sync(&name).map_err(LogError::Storage)?;
        }
        Ok(len > whole)
    }
}
