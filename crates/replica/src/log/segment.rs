//! Bytes of segments and entries.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use crate::lineage::Position;
use crate::storage::Storage;
use crate::transaction::{DbId, MAX_CHUNK};
use crate::wal::WalMark;

const MAGIC: [u8; 8] = *b"CLOG1\0\0\0";
/// Header of a segment: magic, database, base (epoch, transaction, checksum), checksum of all that.
pub(super) const SEGMENT_HEADER: usize = 8 + 16 + 24 + 8;
/// Before the record: its length, whether a mark is there.
const ENTRY_HEADER: usize = 5;
const PREFIX: &str = "log-";

pub(super) fn segment_name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX).filter(|digits| digits.len() == 20)?.parse().ok()
}

pub(super) fn segment_header(db: DbId, base: Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
    bytes.extend(MAGIC);
    bytes.extend(db.0);
    for long in [base.epoch, base.tx, base.checksum] {
        bytes.extend(long.to_le_bytes());
    }
    let seal = xxh3_64(&bytes);
    bytes.extend(seal.to_le_bytes());
    bytes
}

/// The base in a header; `None` when it is damaged or of another database.
pub(super) fn parse_header(bytes: &[u8; SEGMENT_HEADER], db: DbId) -> Option<Position> {
    let long = |at: usize| bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    let good = bytes[..8] == MAGIC && bytes[8..24] == db.0 && xxh3_64(&bytes[..SEGMENT_HEADER - 8]) == long(SEGMENT_HEADER - 8);
    good.then(|| Position { epoch: long(24), tx: long(32), checksum: long(40) })
}

/// A record as it stands in a segment.
pub(super) fn entry_bytes(record: &[u8], mark: Option<WalMark>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_HEADER + WalMark::LEN + record.len() + 8);
    bytes.extend(u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.push(u8::from(mark.is_some()));
    if let Some(mark) = mark {
        bytes.extend(mark.to_bytes());
    }
    bytes.extend_from_slice(record);
    let seal = xxh3_64(&bytes);
    bytes.extend(seal.to_le_bytes());
    bytes
}

/// An entry found in a segment.
pub(super) struct Framed {
    pub mark: Option<WalMark>,
    /// Bytes it takes in the segment.
    pub length: u64,
}

/// Reads the entry at `offset`; its record is in `record` afterwards. `None`: no whole one is there.
pub(super) fn read_entry(storage: &impl Storage, name: &str, offset: u64, record: &mut Vec<u8>) -> io::Result<Option<Framed>> {
    let mut header = [0; ENTRY_HEADER];
    if storage.read_at(name, offset, &mut header)? < ENTRY_HEADER {
        return Ok(None);
    }
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let mark_len = match header[4] {
        0 => 0,
        1 => WalMark::LEN,
        _ => return Ok(None),
    };
    if length == 0 || length > MAX_CHUNK {
        return Ok(None);
    }
    let whole = ENTRY_HEADER + mark_len + length + 8;
    record.resize(whole, 0);
    if storage.read_at(name, offset, record)? < whole {
        return Ok(None);
    }
    let Some((content, seal)) = record.split_last_chunk::<8>() else { return Ok(None) };
    if xxh3_64(content) != u64::from_le_bytes(*seal) {
        return Ok(None);
    }
    let mark = content.get(ENTRY_HEADER..).and_then(|rest| rest.first_chunk()).filter(|_| mark_len > 0).map(WalMark::from_bytes);
    record.truncate(whole - 8);
    record.drain(..ENTRY_HEADER + mark_len);
    Ok(Some(Framed { mark, length: whole as u64 }))
}
