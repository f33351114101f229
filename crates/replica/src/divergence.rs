//! What an old active committed and nobody else has (D9): kept in a named file, never dropped silently.
//!
//! The file holds the void records as they were logged. It counts only with its last line; one that a crash left without is made again.

use std::collections::BTreeSet;
use std::io;

use xxhash_rust::xxh3::xxh3_64;

use crate::lineage::Position;
use crate::log::{Item, LogError, TransactionLog};
use crate::page::PageNo;
use crate::storage::Storage;
use crate::transaction::{DbId, MAX_CHUNK, Record, decode};

const MAGIC: [u8; 8] = *b"CDIV1\0\0\0";
const PREFIX: &str = "divergence-";

/// Why divergence was not kept or read. While it is not kept, nothing is thrown away.
#[derive(Debug, thiserror::Error)]
pub enum DivergenceError {
    /// The disk.
    #[error("the divergence file could not be written or read")]
    Storage(#[source] io::Error),
    /// The log the records are in.
    #[error("void transactions could not be read from the log")]
    Log(#[source] LogError),
    /// The file is not whole, or is of another database.
    #[error("{0} is damaged or not whole")]
    Damaged(String),
}

impl From<LogError> for DivergenceError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// One void transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// Epoch it was committed in.
    pub epoch: u64,
    /// Its number there; in the history that won, another transaction has it.
    pub tx: u64,
    /// When, in milliseconds of the Unix epoch by that node's clock.
    pub time_ms: u64,
    /// The pages it wrote.
    pub pages: BTreeSet<PageNo>,
}

/// A file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Name of the file.
    pub name: String,
    /// The last state both histories share.
    pub base: Position,
    /// What came after it, in order.
    pub void: Vec<Void>,
}

/// Keeps all transactions of the log after the state `base`, durably. `None` when there are none. The log is not changed.
pub fn keep<S: Storage>(log: &mut TransactionLog<S>, db: DbId, base: Position) -> Result<Option<String>, DivergenceError> {
    let place = log.place(base).ok_or(LogError::Absent(base.tx))?;
    let void: Vec<_> = log.entries().skip(place).filter(|entry| matches!(entry.item, Item::Change(_))).cloned().collect();
    let (Some(first), Some(last)) = (void.first(), void.last()) else { return Ok(None) };
    let name = format!("{PREFIX}e{}-t{}-t{}", last.position.epoch, first.position.tx, last.position.tx);
    // The same tail is kept under the same name: nothing is lost by writing it again.
    log.storage_mut().remove(&name).map_err(DivergenceError::Storage)?;
    let mut head = MAGIC.to_vec();
    head.extend(db.0);
    for long in [base.epoch, base.tx, base.checksum] {
        head.extend(long.to_le_bytes());
    }
    log.storage_mut().append(&name, &head).map_err(DivergenceError::Storage)?;
    let mut seal = xxh3_64(&head);
    for entry in &void {
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut chunks = 0;
        // A large one is read chunk by chunk, since the log cannot be read and its disk written at once.
        loop {
            records.clear();
            let mut at = 0;
            log.read(entry, |bytes, _| {
                if at >= chunks && records.len() < 16 {
                    records.push(bytes.to_vec());
                }
                at += 1;
                Ok::<_, LogError>(())
            })?;
            for record in &records {
                let mut line = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
                line.extend_from_slice(record);
                seal ^= xxh3_64(&line).rotate_left(1);
                log.storage_mut().append(&name, &line).map_err(DivergenceError::Storage)?;
            }
            chunks += records.len();
            if chunks >= at {
                break;
            }
        }
    }
    let mut end = 0_u32.to_le_bytes().to_vec();
    end.extend(seal.to_le_bytes());
    log.storage_mut().append(&name, &end).map_err(DivergenceError::Storage)?;
    log.storage_mut().sync(&name).map_err(DivergenceError::Storage)?;
    Ok(Some(name))
}

/// Names of all divergence files, sorted.
pub fn list(storage: &impl Storage) -> Result<Vec<String>, DivergenceError> {
    let names = storage.list().map_err(DivergenceError::Storage)?;
    Ok(names.into_iter().filter(|name| name.starts_with(PREFIX)).collect())
}

/// Reads a divergence file; each of its records goes to `each` too.
pub fn read(storage: &impl Storage, db: DbId, name: &str, mut each: impl FnMut(&Record)) -> Result<Divergence, DivergenceError> {
    let damaged = || DivergenceError::Damaged(name.to_owned());
    let mut head = [0; 48];
    let count = storage.read_at(name, 0, &mut head).map_err(DivergenceError::Storage)?;
    if count < head.len() || head[..8] != MAGIC || head[8..24] != db.0 {
        return Err(damaged());
    }
    let long = |at: usize| head.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    let base = Position { epoch: long(24), tx: long(32), checksum: long(40) };
    let (mut seal, mut offset) = (xxh3_64(&head), head.len() as u64);
    let mut void: Vec<Void> = Vec::new();
    loop {
        let mut len = [0; 4];
        if storage.read_at(name, offset, &mut len).map_err(DivergenceError::Storage)? < 4 {
            return Err(damaged());
        }
        let size = u32::from_le_bytes(len) as usize;
        if size == 0 {
            let mut end = [0; 8];
            let count = storage.read_at(name, offset + 4, &mut end).map_err(DivergenceError::Storage)?;
            return if count == 8 && u64::from_le_bytes(end) == seal {
                Ok(Divergence { name: name.to_owned(), base, void })
            } else {
                Err(damaged())
            };
        }
        if size > MAX_CHUNK {
            return Err(damaged());
        }
        let mut line = vec![0; 4 + size];
        if storage.read_at(name, offset, &mut line).map_err(DivergenceError::Storage)? < line.len() {
            return Err(damaged());
        }
        seal ^= xxh3_64(&line).rotate_left(1);
        offset += line.len() as u64;
        let record = decode(&line[4..]).map_err(|_| damaged())?;
        each(&record);
        let Record::Chunk(chunk) = record else { continue };
        let known = void.last_mut().filter(|last| (last.epoch, last.tx) == (chunk.epoch, chunk.tx));
        let pages = chunk.pages().map(|(page, _)| page);
        let time_ms = chunk.close.map_or(0, |close| close.time_ms);
        match known {
            Some(last) => {
                last.pages.extend(pages);
                last.time_ms = time_ms;
            }
            None => void.push(Void { epoch: chunk.epoch, tx: chunk.tx, time_ms, pages: pages.collect() }),
        }
    }
}
