use proptest::prelude::*;

use super::*;
use crate::page::PageSize;
use crate::storage::Directory;
use crate::transaction::{Compression, GroupWriter, encode_start};

const DB: DbId = DbId([4; 16]);

fn size() -> PageSize {
    PageSize::new(4096).unwrap()
}

/// Records of transaction `tx`, whose checksums are its number's.
fn change(epoch: u64, tx: u64, pages: u32) -> Vec<Vec<u8>> {
    let mut writer = GroupWriter::new(DB, epoch, tx, Kind::Change, size(), Compression::None);
    let mut out = Vec::new();
    for page in 1..=pages {
        out.extend(writer.push(page, &vec![tx.to_le_bytes()[0]; 4096]).unwrap());
    }
    out.push(writer.finish(pages.max(1), sum(tx - 1), sum(tx), 0).unwrap());
    out
}

fn sum(tx: u64) -> u64 {
    tx * 1000
}

fn at(epoch: u64, tx: u64) -> Position {
    Position { epoch, tx, checksum: sum(tx) }
}

fn start(epoch: u64, base: Position) -> Vec<u8> {
    encode_start(DB, &Start { epoch, base, node: "n-1".to_owned() }).unwrap()
}

type Log = TransactionLog<Directory>;

fn open(dir: &tempfile::TempDir, limits: Limits) -> Log {
    TransactionLog::open(Directory::open(dir.path()).unwrap(), DB, limits).unwrap()
}

fn fill(log: &mut Log, epoch: u64, txs: std::ops::RangeInclusive<u64>) {
    for tx in txs {
        for record in change(epoch, tx, 3) {
            let mark = WalMark { salt: [1, 2], frames: u32::try_from(tx).unwrap(), sum: [3, 4] };
            log.append(&record, Some(mark)).unwrap();
        }
    }
}

#[test]
fn entries_come_back_after_opening_with_their_marks() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir, Limits::default());
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=5);
    for record in change(1, 6, 400) {
        log.append(&record, None).unwrap();
    }
    log.append(&start(2, at(1, 6)), None).unwrap();
    log.sync().unwrap();
    let entries: Vec<_> = log.entries().cloned().collect();
    let log = open(&dir, Limits::default());
    assert_eq!(log.entries().cloned().collect::<Vec<_>>(), entries);
    assert_eq!(log.head(), at(2, 6));
    assert_eq!(entries[3].mark.unwrap().frames, 3);
    let mut pages = 0;
    let large = log.entries().find(|entry| entry.position.tx == 6).unwrap();
    log.read(large, |_, record| {
        if let Record::Chunk(chunk) = record {
            pages += chunk.pages().count();
        }
        Ok::<_, LogError>(())
    })
    .unwrap();
    assert_eq!(pages, 400);
    assert_eq!(log.after(6).count(), 1, "the start of epoch 2");
    assert_eq!(log.after(5).next().unwrap().position.tx, 6);
}

#[test]
fn what_does_not_follow_the_head_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir, Limits::default());
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=2);
    let refused = |log: &mut Log, record: &[u8]| log.append(record, None).unwrap_err().to_string();
    assert_eq!(refused(&mut log, &change(1, 4, 1)[0]), "transaction 4 of epoch 1 does not follow transaction 2 of epoch 1");
    assert_eq!(refused(&mut log, &change(1, 2, 1)[0]), "transaction 2 of epoch 1 does not follow transaction 2 of epoch 1");
    assert!(matches!(log.append(&change(2, 3, 1)[0], None), Err(LogError::Sequence { epoch: 2, .. })));
    let writer = GroupWriter::new(DB, 1, 3, Kind::Change, size(), Compression::None);
    let wrong = writer.finish(1, 77, 78, 0).unwrap();
    assert!(matches!(log.append(&wrong, None), Err(LogError::Checksum { found: 77, .. })));
    let writer = GroupWriter::new(DbId([9; 16]), 1, 3, Kind::Change, size(), Compression::None);
    assert!(matches!(log.append(&writer.finish(1, sum(2), 78, 0).unwrap(), None), Err(LogError::Database(_))));
    assert!(matches!(log.append(&start(2, at(1, 1)), None), Err(LogError::Sequence { .. })));
    assert!(matches!(log.append(&start(2, Position { checksum: 1, ..at(1, 2) }), None), Err(LogError::Checksum { .. })));
    fill(&mut log, 1, 3..=3);
    assert_eq!(open(&dir, Limits::default()).head(), at(1, 3));
}

#[test]
fn d12_a_half_group_is_no_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir, Limits::default());
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=1);
    let records = change(1, 2, 400);
    assert!(records.len() > 3);
    for record in &records[..2] {
        assert_eq!(log.append(record, None).unwrap(), None);
    }
    assert_eq!(log.head(), at(1, 1));
    log.sync().unwrap();
    assert_eq!(open(&dir, Limits::default()).head(), at(1, 1));
    // The chunk that does not continue throws the group away; from its first chunk on it is taken again.
    assert!(log.append(&records[3], None).is_err());
    for record in &records {
        log.append(record, None).unwrap();
    }
    assert_eq!(log.head(), at(1, 2));
    assert_eq!(open(&dir, Limits::default()).head(), at(1, 2));
}

#[test]
fn d1_overflow_cuts_the_oldest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 200_000, segment: 40_000, transactions: 1000 };
    let mut log = open(&dir, limits);
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=10);
    assert!(!log.take_cut());
    fill(&mut log, 1, 11..=100);
    assert!(log.take_cut() && !log.take_cut());
    assert!(log.bytes() <= limits.bytes, "{} bytes", log.bytes());
    assert!(log.base().tx > 80 && log.head() == at(1, 100));
    let again = open(&dir, limits);
    assert_eq!((again.base(), again.head()), (log.base(), log.head()));
    let huge = change(1, 101, 60);
    assert!(huge.iter().any(|record| matches!(log.append(record, None), Err(LogError::TooLarge(200_000)))));
    assert_eq!(log.head(), at(1, 100));
    let few = Limits { transactions: 3, segment: 10, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir, few);
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=10);
    assert_eq!(log.entries().count(), 3);
}

#[test]
fn d7_release_drops_whole_segments_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir, Limits { segment: 40_000, ..Limits::default() });
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=20);
    let first = log.entries().next().unwrap().position.tx;
    log.release(2).unwrap();
    assert_eq!(log.entries().next().unwrap().position.tx, first);
    log.release(11).unwrap();
    let oldest = log.base().tx;
    assert!((7..=11).contains(&oldest), "base {oldest}");
    log.release(u64::MAX).unwrap();
    assert_eq!(log.head(), at(1, 20));
    assert!(!log.take_cut());
}

#[test]
fn tails_are_cut_back_and_logs_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 40_000, ..Limits::default() };
    let mut log = open(&dir, limits);
    log.append(&start(1, Position::default()), None).unwrap();
    fill(&mut log, 1, 1..=20);
    log.truncate_after(at(1, 6)).unwrap();
    assert!(matches!(log.truncate_after(at(1, 9)), Err(LogError::Absent(9))));
    log.append(&start(3, at(1, 6)), None).unwrap();
    fill(&mut log, 3, 7..=8);
    log.sync().unwrap();
    assert_eq!(open(&dir, limits).head(), at(3, 8));
    log.truncate_after(at(1, 6)).unwrap();
    assert_eq!(open(&dir, limits).head(), at(1, 6));
    log.reset(at(9, 500)).unwrap();
    fill(&mut log, 9, 501..=502);
    log.sync().unwrap();
    let again = open(&dir, limits);
    assert_eq!((again.base(), again.head()), (at(9, 500), at(9, 502)));
}

#[test]
fn a_full_disk_refuses_and_leaves_the_log_whole() {
    struct Full(Directory, u64);
    impl Storage for Full {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
        fn len(&self, name: &str) -> io::Result<Option<u64>> {
            self.0.len(name)
        }
        fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(name, offset, into)
        }
        fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            // A part gets in, as on a real disk.
            let room = usize::try_from(self.1).unwrap().min(bytes.len());
            self.0.append(name, &bytes[..room])?;
            self.1 -= room as u64;
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
            self.0.truncate(name, len)
        }
        fn sync(&mut self, name: &str) -> io::Result<()> {
            self.0.sync(name)
        }
        fn remove(&mut self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.replace(name, bytes)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Full(Directory::open(dir.path()).unwrap(), 30_000);
    let mut log = TransactionLog::open(disk, DB, Limits::default()).unwrap();
    log.append(&start(1, Position::default()), None).unwrap();
    let mut tx = 1;
    let error = loop {
        match log.append(&change(1, tx, 3)[0], None) {
            Ok(_) => tx += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, LogError::Storage(error) if error.kind() == io::ErrorKind::StorageFull), "{error:?}");
    assert_eq!(log.head(), at(1, 2));
    log.storage_mut().1 = 100_000;
    log.append(&change(1, 3, 3)[0], None).unwrap();
    log.sync().unwrap();
    assert_eq!(open(&dir, Limits::default()).head(), at(1, 3));
}

proptest! {
    /// Wherever a log is torn or damaged: what is left is a beginning of what was there, and all of it up to the damage.
    #[test]
    fn damage_leaves_a_whole_beginning(place: prop::sample::Index, flip in 0..=255_u8) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { segment: 20_000, ..Limits::default() };
        let mut log = open(&dir, limits);
        log.append(&start(1, Position::default()), None).unwrap();
        fill(&mut log, 1, 1..=6);
        log.sync().unwrap();
        let before: Vec<_> = log.entries().cloned().collect();
        let names: Vec<_> = log.storage().list().unwrap();
        prop_assert!(names.len() >= 3);
        let name = &names[place.index(names.len())];
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = place.index(bytes.len());
        if flip == 0 { bytes.truncate(at) } else { bytes[at] ^= flip }
        std::fs::write(&path, &bytes).unwrap();
        let mut log = open(&dir, limits);
        let after: Vec<_> = log.entries().cloned().collect();
        if log.base() == Position::default() {
            prop_assert_eq!(&after[..], &before[..after.len()]);
            prop_assert!(after.iter().all(|entry| names.iter().position(|n| *n == segment_name(entry.segment)) <= names.iter().position(|n| n == name)));
            prop_assert!(before.get(after.len()).is_none_or(|lost| segment_name(lost.segment) >= *name));
        } else {
            // Lost from the front: what begins later stands for itself, and the loss is told.
            prop_assert!(log.take_cut());
            prop_assert!(after.iter().all(|entry| before.contains(entry)));
        }
        // It goes on from there.
        let head = log.head();
        let next = if head.epoch == 0 { start(1, head) } else { change(1, head.tx + 1, 3).remove(0) };
        log.append(&next, None).unwrap();
        let end = log.head();
        log.sync().unwrap();
        prop_assert_eq!(open(&dir, limits).head(), end);
    }
}
