//! What a node knows of a database beside its content: its id, the highest epoch heard (D4), and the chain of starts.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use crate::lineage::Chain;
use crate::storage::Storage;
use crate::transaction::{DbId, Record, decode, encode_start};

/// Name of the file.
pub const META_FILE: &str = "lineage";
const MAGIC: [u8; 8] = *b"CMETA1\0\0";
const MAX_BYTES: u64 = 1 << 20;

/// Why it cannot be read or written. Without it nothing is confirmed and nothing promoted.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The file could not be read or written.
    #[error("the lineage file could not be read or written")]
    Storage(#[source] io::Error),
    /// It is there and damaged.
    #[error("the lineage file is damaged")]
    Damaged,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The database.
    pub db: DbId,
    /// Highest epoch heard of: records of lower ones are refused.
    pub noted: u64,
    /// The starts that lead to the present state.
    pub chain: Chain,
    /// The database file may hold void transactions that are in the log no more: what it has beyond the log is not to be captured, it waits
    /// for a snapshot.
    pub stale: bool,
}

impl Meta {
    /// Of a database that nothing is known of yet.
    pub fn new(db: DbId) -> Self {
        Self { db, noted: 0, chain: Chain::default(), stale: false }
    }

    /// Reads it. `None` when there is none.
    pub fn load(storage: &impl Storage) -> Result<Option<Self>, MetaError> {
        let Some(bytes) = storage.read(META_FILE, MAX_BYTES).map_err(MetaError::Storage)? else { return Ok(None) };
        Self::parse(&bytes).ok_or(MetaError::Damaged).map(Some)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, seal) = bytes.split_last_chunk::<8>()?;
        if xxh3_64(content) != u64::from_le_bytes(*seal) {
            return None;
        }
        let rest = content.strip_prefix(&MAGIC)?;
        let (db, rest) = rest.split_first_chunk::<16>()?;
        let (noted, rest) = rest.split_first_chunk::<8>()?;
        let (stale, mut rest) = rest.split_first_chunk::<1>()?;
        let mut starts = Vec::new();
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let (record, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            let Ok(Record::Start { start, .. }) = decode(record) else { return None };
            starts.push(start);
            rest = tail;
        }
        Some(Self { db: DbId(*db), noted: u64::from_le_bytes(*noted), chain: Chain::new(starts).ok()?, stale: stale[0] != 0 })
    }

    /// Writes it; durable when this returns.
    pub fn store(&self, storage: &mut impl Storage) -> Result<(), MetaError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.db.0);
        bytes.extend(self.noted.to_le_bytes());
        bytes.push(u8::from(self.stale));
        for start in self.chain.starts() {
            let record = encode_start(self.db, start).map_err(|error| MetaError::Storage(io::Error::other(error)))?;
            bytes.extend(u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(record);
        }
        let seal = xxh3_64(&bytes);
        bytes.extend(seal.to_le_bytes());
        storage.replace(META_FILE, &bytes).map_err(MetaError::Storage)
    }

    /// Notes an epoch durably, before anything is answered (D4). `false`: a lower one, to be refused.
    pub fn note(&mut self, storage: &mut impl Storage, epoch: u64) -> Result<bool, MetaError> {
        if epoch > self.noted {
            self.noted = epoch;
            self.store(storage)?;
        }
        Ok(epoch == self.noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::{Position, Start};
    use crate::storage::Directory;

    #[test]
    fn what_is_noted_is_read_back_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Directory::open(dir.path()).unwrap();
        assert_eq!(Meta::load(&storage).unwrap(), None);
        let mut meta = Meta::new(DbId([3; 16]));
        for epoch in 1..5 {
            let base = Position { epoch: epoch - 1, tx: epoch * 10, checksum: 9 };
            meta.chain.push(Start { epoch, base, node: "n-1".to_owned() }).unwrap();
        }
        assert!(meta.note(&mut storage, 7).unwrap());
        assert!(!meta.note(&mut storage, 6).unwrap());
        assert_eq!(Meta::load(&storage).unwrap(), Some(meta));
        let good = std::fs::read(dir.path().join(META_FILE)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Meta::parse(&bad), None, "byte {at}");
            assert_eq!(Meta::parse(&good[..at]), None, "cut at {at}");
        }
    }
}
