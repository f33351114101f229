//! The durable stream of a database's records, read from its beginning: which of them count, and where they lead. Pure.
//!
//! Everybody who ever was active appended to it, so it holds void records, groups that ended in the middle and the same thing twice. Two
//! passes: [`Survey`] finds the history, [`Reader`] goes along it. A record that is missing shows there: what follows does not go on from
//! where the reader is.

use std::collections::BTreeMap;

use crate::lineage::{Chain, Position, Start};
use crate::transaction::{Kind, Record};

/// Why what is in a stream leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The right number on another state (D10).
    #[error("transaction {tx} of epoch {epoch} goes on from checksum {found:016x}, what is before it leads to {:016x}", at.checksum)]
    Checksum {
        /// Epoch of the record.
        epoch: u64,
        /// Its transaction.
        tx: u64,
        /// The checksum it goes on from.
        found: u64,
        /// Where the reader is.
        at: Position,
    },
}

/// First pass: finds the starts and how far the records reach.
#[derive(Debug, Default)]
pub struct Survey {
    starts: BTreeMap<u64, Start>,
    last: BTreeMap<u64, u64>,
}

impl Survey {
    /// Takes the next record.
    pub fn take(&mut self, record: &Record) {
        if let Record::Start { start, .. } = record {
            self.starts.entry(start.epoch).or_insert_with(|| start.clone());
        }
        let last = self.last.entry(record.epoch()).or_default();
        if let Some(at) = record.reaches() {
            *last = at.tx.max(*last);
        }
    }

    /// What of it counts: the chain from the last start backwards, since one that voids others may be void itself. `None`: the starts make no
    /// history.
    pub fn lineage(&self) -> Option<Lineage> {
        let mut starts = Vec::new();
        let mut next = self.last.last_key_value().map_or(0, |(epoch, _)| *epoch);
        while next != 0 {
            // Older ones may be missing where a snapshot stands for them.
            let Some(this) = self.starts.get(&next) else { break };
            next = this.base.epoch;
            starts.insert(0, this.clone());
        }
        // What the oldest known start goes on from has no start here: a snapshot of that epoch begins it.
        let end = starts.first().map_or(u64::MAX, |start| start.base.tx);
        let mut lineage = Lineage { chain: Chain::new(starts).ok()?, root: next, end, last: 0 };
        let counting = |(epoch, tx): (&u64, &u64)| lineage.end_of(*epoch).map(|end| end.min(*tx));
        lineage.last = self.last.iter().filter_map(counting).max().unwrap_or(0);
        Some(lineage)
    }
}

/// What of a stream counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    chain: Chain,
    /// The epoch that the oldest known start goes on from.
    root: u64,
    end: u64,
    last: u64,
}

impl Lineage {
    /// The starts that are known.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The last transaction that counts and of which there is any record: a reader that ends before it met a gap.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether a record of this epoch and transaction counts.
    pub fn holds(&self, epoch: u64, tx: u64) -> bool {
        self.chain.holds(epoch, tx) || (epoch == self.root && epoch != 0 && tx <= self.end)
    }

    /// The last transaction of an epoch that counts; of the last one there is no such bound.
    fn end_of(&self, epoch: u64) -> Option<u64> {
        if epoch == self.root && epoch != 0 {
            return Some(self.end);
        }
        let place = self.chain.starts().iter().position(|start| start.epoch == epoch)?;
        Some(self.chain.starts().get(place + 1).map_or(u64::MAX, |next| next.base.tx))
    }
}

/// What a record is for somebody at the reader's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Void, known, or beyond a gap.
    Skip,
    /// Part of the next transaction, or it whole, or the next start.
    Next,
    /// Part of a snapshot that leads further than the reader is, or it whole.
    Snapshot,
}

/// Second pass: goes along the history.
#[derive(Debug)]
pub struct Reader {
    lineage: Lineage,
    at: Position,
    /// Chunks of the group that is read: epoch, transaction, and the next one's place.
    open: Option<(Kind, u64, u64, u32)>,
}

impl Reader {
    /// At the empty database.
    pub fn new(lineage: Lineage) -> Self {
        Self::at(lineage, Position::default())
    }

    /// At a state that is known from elsewhere.
    pub fn at(lineage: Lineage, at: Position) -> Self {
        Self { lineage, at, open: None }
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// What counts.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &Record) -> Result<Use, StreamError> {
        let chunk = match record {
            Record::Start { start, .. } => {
                let next = (start.base.epoch, start.base.tx) == (self.at.epoch, self.at.tx) && self.lineage.chain.starts().contains(start);
                if next && start.base.checksum != self.at.checksum {
                    return Err(self.other(start.epoch, start.base.tx, start.base.checksum));
                }
                if !next {
                    return Ok(Use::Skip);
                }
                (self.at.epoch, self.open) = (start.epoch, None);
                return Ok(Use::Next);
            }
            Record::Chunk(chunk) => chunk,
        };
        let counts = self.lineage.holds(chunk.epoch, chunk.tx);
        let wanted = match chunk.kind {
            Kind::Change => (chunk.epoch, chunk.tx) == (self.at.epoch, self.at.tx + 1),
            Kind::Snapshot => chunk.tx > self.at.tx || (chunk.tx == self.at.tx && chunk.epoch > self.at.epoch),
        };
        if !counts || !wanted {
            return Ok(Use::Skip);
        }
        let begun = self.open.filter(|open| *open == (chunk.kind, chunk.epoch, chunk.tx, chunk.index));
        if chunk.index != 0 && begun.is_none() {
            // The rest of a group whose beginning is not here.
            return Ok(Use::Skip);
        }
        self.open = Some((chunk.kind, chunk.epoch, chunk.tx, chunk.index.saturating_add(1)));
        if let Some(close) = chunk.close {
            if chunk.kind == Kind::Change && close.before != self.at.checksum {
                return Err(self.other(chunk.epoch, chunk.tx, close.before));
            }
            self.open = None;
            self.at = Position { epoch: chunk.epoch, tx: chunk.tx, checksum: close.after };
        }
        Ok(if chunk.kind == Kind::Snapshot { Use::Snapshot } else { Use::Next })
    }

    fn other(&self, epoch: u64, tx: u64, found: u64) -> StreamError {
        StreamError::Checksum { epoch, tx, found, at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PageSize;
    use crate::transaction::{Compression, DbId, GroupWriter, decode, decode_all, encode_start};

    const DB: DbId = DbId([7; 16]);

    fn at(epoch: u64, tx: u64) -> Position {
        Position { epoch, tx, checksum: if tx == 0 { 0 } else { epoch * 1000 + tx } }
    }

    fn start(epoch: u64, base: Position) -> Vec<u8> {
        encode_start(DB, &Start { epoch, base, node: format!("n{epoch}") }).unwrap()
    }

    /// A group of `pages` pages, of which each takes a chunk.
    fn group(kind: Kind, before: u64, to: Position, pages: u32) -> Vec<Vec<u8>> {
        let size = PageSize::from_header(1).unwrap();
        let mut writer = GroupWriter::new(DB, to.epoch, to.tx, kind, size, Compression::None);
        let mut chunks = Vec::new();
        for page in 1..=pages * 8 {
            chunks.extend(writer.push(page, &vec![u8::try_from(page % 251).unwrap(); size.bytes()]).unwrap());
        }
        chunks.push(writer.finish((pages * 8).max(1), before, to.checksum, 0).unwrap());
        chunks
    }

    fn change(before: Position, epoch: u64) -> Vec<u8> {
        group(Kind::Change, before.checksum, at(epoch, before.tx + 1), 0).remove(0)
    }

    fn read(records: &[Vec<u8>]) -> Result<(Position, u64), StreamError> {
        let mut survey = Survey::default();
        let all: Vec<Record> = records.iter().map(|bytes| decode(bytes).unwrap()).collect();
        all.iter().for_each(|record| survey.take(record));
        let mut reader = Reader::new(survey.lineage().unwrap());
        for record in &all {
            reader.take(record)?;
        }
        Ok((reader.position(), reader.lineage().last()))
    }

    fn plain() -> Vec<Vec<u8>> {
        vec![start(1, at(0, 0)), change(at(0, 0), 1), change(at(1, 1), 1)]
    }

    #[test]
    fn void_records_and_doubled_ones_are_passed_over() {
        let mut stream = plain();
        // Epoch 3 went on from transaction 1: the second one of epoch 1 is void. Epoch 2 never counted.
        stream.extend([start(2, at(1, 2)), change(at(1, 2), 2), start(3, at(1, 1)), change(at(1, 1), 3), change(at(1, 1), 3)]);
        assert_eq!(read(&stream), Ok((at(3, 2), 2)));
    }

    #[test]
    fn a_group_that_ends_in_the_middle_is_begun_anew() {
        let large = group(Kind::Change, at(1, 2).checksum, at(1, 3), 2);
        assert!(large.len() > 2);
        let mut stream = plain();
        stream.extend(large[..2].iter().cloned());
        assert_eq!(read(&stream), Ok((at(1, 2), 2)));
        stream.extend(large);
        assert_eq!(read(&stream), Ok((at(1, 3), 3)));
    }

    #[test]
    fn what_is_missing_shows_and_a_snapshot_heals_it() {
        let mut stream = plain();
        stream.push(change(at(1, 2), 1));
        stream.remove(2);
        assert_eq!(read(&stream), Ok((at(1, 1), 3)), "it ends before the last record");
        // Purged: the start is gone too.
        let mut purged = vec![change(at(1, 4), 1)];
        assert_eq!(read(&purged), Ok((at(0, 0), 5)));
        purged.extend(group(Kind::Snapshot, 0, at(1, 5), 1));
        purged.push(change(at(1, 5), 1));
        assert_eq!(read(&purged), Ok((at(1, 6), 6)));
    }

    #[test]
    fn the_right_number_on_another_state_is_an_error() {
        let mut stream = plain();
        stream.push(change(Position { checksum: 5, ..at(1, 2) }, 1));
        assert!(matches!(read(&stream), Err(StreamError::Checksum { tx: 3, found: 5, .. })));
    }

    #[test]
    fn records_one_behind_the_other_come_apart_again() {
        let records = plain();
        let message = records.concat();
        let apart: Vec<Vec<u8>> = decode_all(&message).map(|record| record.unwrap().0.to_vec()).collect();
        assert_eq!(apart, records);
        for broken in [&message[..message.len() - 1], &message[1..]] {
            assert!(decode_all(broken).any(|record| record.is_err()));
        }
    }
}
