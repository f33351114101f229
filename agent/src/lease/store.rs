//! What a voter keeps on this machine: the durable journal (rule V7) and the records under /run (rule V6).

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cluster_lease::slots::SlotSet;
use cluster_lease::types::Slot;
use cluster_lease::voter::{
    HEADER_LEN, Journal, RECORD_LEN, RecordError, RunHeader, RunImage, SLOTS_MAX, SlotState, decode_header, decode_journal, decode_record,
    encode_header, encode_journal, encode_record,
};

use crate::files::{Durability, read_limited, write_atomic};

/// Name of the journal under the state folder.
pub const JOURNAL: &str = "voter.journal";
/// Name of the records under the runtime folder.
pub const RECORDS: &str = "voter.records";
/// Largest journal that is read, in bytes.
const JOURNAL_MAX: usize = 64 * 1024;

/// Why the voter's storage cannot be used. The voter is silent then: one that cannot remember must not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal is damaged. A voter must not start under its old id then (its memory is another).
    #[error("the voter journal {path} is damaged: replace this voter (`clusterctl voters replace`), then remove the file")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
}

/// The files of one voter.
#[derive(Debug)]
pub struct VoterStore {
    journal: PathBuf,
    records: PathBuf,
    run: File,
    /// Which place in the file a slot's record has.
    places: BTreeMap<Slot, u64>,
    free: VecDeque<u64>,
    next: u64,
}

impl VoterStore {
    /// Opens the files; the records are made if they are not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(state: &Path, runtime: &Path) -> Result<Self, StoreError> {
        let records = runtime.join(RECORDS);
        let run = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&records)
            .map_err(|source| StoreError::File { action: "open", path: records.clone(), source })?;
        Ok(Self { journal: state.join(JOURNAL), records, run, places: BTreeMap::new(), free: VecDeque::new(), next: 0 })
    }

    /// The journal; none where this machine never was a voter.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn journal(&self) -> Result<Option<Journal>, StoreError> {
        let path = self.journal.clone();
        let bytes = read_limited(&path, JOURNAL_MAX).map_err(|source| StoreError::File { action: "read", path: path.clone(), source })?;
        bytes.map(|b| decode_journal(&b).map_err(|source| StoreError::Journal { path, source })).transpose()
    }

    /// Writes the journal, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write_journal(&self, journal: &Journal) -> Result<(), StoreError> {
        write_atomic(&self.journal, &encode_journal(journal), 0o600, Durability::Power).map_err(|source| StoreError::File {
            action: "write",
            path: self.journal.clone(),
            source,
        })
    }

    /// Says that the journal, which was there, is not.
    #[must_use]
    pub fn missing(&self) -> StoreError {
        StoreError::File { action: "find", path: self.journal.clone(), source: io::ErrorKind::NotFound.into() }
    }

    /// What an earlier process of this boot left; none where the head cannot be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn image(&mut self) -> Result<Option<RunImage>, StoreError> {
        let length = self.run.metadata().map_err(|source| self.fail("look at", source))?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0).min(HEADER_LEN + RECORD_LEN * SLOTS_MAX)];
        self.run.read_exact_at(&mut bytes, 0).map_err(|source| self.fail("read", source))?;
        let Some(Ok(header)) = bytes.get(..HEADER_LEN).map(decode_header) else { return Ok(None) };
        let mut image = RunImage { header, records: Vec::new(), torn: 0 };
        for (place, record) in (0_u64..).zip(bytes.get(HEADER_LEN..).unwrap_or(&[]).chunks(RECORD_LEN)) {
            self.next = place + 1;
            match decode_record(record) {
                Ok(Some((slot, state))) => {
                    self.places.insert(slot.clone(), place);
                    image.records.push((slot, state));
                }
                Ok(None) => self.free.push_back(place),
                Err(_) => {
                    image.torn += 1;
                    self.free.push_back(place);
                }
            }
        }
        Ok(Some(image))
    }

    /// Empties the records: the voter starts without them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear(&mut self) -> Result<(), StoreError> {
        self.places.clear();
        self.free.clear();
        self.next = 0;
        self.run.set_len(0).map_err(|source| self.fail("empty", source))
    }

    /// Writes the head.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write_header(&self, header: &RunHeader) -> Result<(), StoreError> {
        self.run.write_all_at(&encode_header(header), 0).map_err(|source| self.fail("write", source))
    }

    /// Writes records. Neighbours go out in one write: a renewal of a ring's partitions is a few calls, not thousands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write<'a>(&mut self, slots: &SlotSet, state: impl Fn(&Slot) -> Option<&'a SlotState>) -> Result<(), StoreError> {
        let mut records: Vec<(u64, Vec<u8>)> = Vec::with_capacity(slots.len());
        for slot in slots.iter() {
            if let Some(state) = state(&slot) {
                records.push((self.place(&slot), encode_record(&slot, state)));
            }
        }
        records.sort_unstable_by_key(|(place, _)| *place);
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (place, bytes) in records {
            let after = start + u64::try_from(run.len() / RECORD_LEN).unwrap_or(0);
            if !run.is_empty() && place != after {
                self.write_run(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = place;
            }
            run.extend(bytes);
        }
        if run.is_empty() { Ok(()) } else { self.write_run(start, &run) }
    }

    /// Empties records.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget(&mut self, slots: &SlotSet) -> Result<(), StoreError> {
        for slot in slots.iter() {
            if let Some(place) = self.places.remove(&slot) {
                self.write_run(place, &[0; RECORD_LEN])?;
                self.free.push_back(place);
            }
        }
        Ok(())
    }

    fn place(&mut self, slot: &Slot) -> u64 {
        if let Some(place) = self.places.get(slot) {
            return *place;
        }
        let place = self.free.pop_front().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.places.insert(slot.clone(), place);
        place
    }

    fn write_run(&self, place: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let record = u64::try_from(RECORD_LEN).unwrap_or(0);
        let at = u64::try_from(HEADER_LEN).unwrap_or(0) + place * record;
        self.run.write_all_at(bytes, at).map_err(|source| self.fail("write", source))
    }

    fn fail(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::File { action, path: self.records.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_lease::time::Time;
    use cluster_lease::types::{BootId, Epoch, VoterId};

    fn state(floor: u64) -> SlotState {
        SlotState { grant: None, floor: Epoch(floor), released: Vec::new() }
    }

    fn slot(text: &str) -> Slot {
        text.parse().expect("a slot")
    }

    #[test]
    fn v6_records_come_back_and_a_torn_one_is_counted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut store = VoterStore::open(dir.path(), dir.path()).expect("a store");
        assert_eq!(store.image().expect("readable"), None);
        let header = RunHeader { boot: BootId(1), voter: VoterId(2), waiting_until: None, unknown_until: Some(Time(3)), base: Epoch(4) };
        store.write_header(&header).expect("written");
        let states: BTreeMap<Slot, SlotState> = [("app/a", 1), ("app/b", 2), ("ring/c/7", 3)].map(|(s, f)| (slot(s), state(f))).into();
        store.write(&states.keys().collect(), |s| states.get(s)).expect("written");
        store.forget(&[slot("app/b")].iter().collect()).expect("forgotten");

        let mut again = VoterStore::open(dir.path(), dir.path()).expect("the same store");
        let image = again.image().expect("readable").expect("a head");
        assert_eq!((image.header, image.torn), (header, 0));
        let read: BTreeMap<Slot, SlotState> = image.records.into_iter().collect();
        assert_eq!(read, [("app/a", 1), ("ring/c/7", 3)].map(|(s, f)| (slot(s), state(f))).into());

        let place = *again.places.get(&slot("app/a")).expect("a place");
        again
            .run
            .write_all_at(b"torn", u64::try_from(HEADER_LEN).expect("small") + place * u64::try_from(RECORD_LEN).expect("small") + 20)
            .expect("written");
        let image = VoterStore::open(dir.path(), dir.path()).expect("the same store").image().expect("readable").expect("a head");
        assert_eq!(image.torn, 1);
    }

    #[test]
    fn v7_the_journal_survives_and_damage_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = VoterStore::open(dir.path(), dir.path()).expect("a store");
        assert_eq!(store.journal().expect("readable"), None);
        let journal = Journal::new(VoterId(9), None);
        store.write_journal(&journal).expect("written");
        assert_eq!(store.journal().expect("readable"), Some(journal));
        std::fs::write(dir.path().join(JOURNAL), b"rubbish").expect("written");
        assert!(matches!(store.journal(), Err(StoreError::Journal { .. })));
    }
}
