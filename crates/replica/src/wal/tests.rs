//! Logs that SQLite wrote, and logs that something damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;

use super::format::{FRAME_HEADER, WAL_HEADER};
use super::*;
use crate::page::PageSize;

fn open(dir: &Path, page_size: u32) -> Connection {
    let db = Connection::open(dir.join("a.db")).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);"
    ))
    .unwrap();
    db
}

fn wal(dir: &Path) -> PathBuf {
    dir.join("a.db-wal")
}

fn transactions(bytes: &[u8]) -> Vec<WalTransaction> {
    let mut reader = WalReader::open(bytes).unwrap().unwrap();
    std::iter::from_fn(|| reader.next_transaction(None).unwrap()).collect()
}

/// Pages after each transaction, laid over each other.
fn replay(bytes: &[u8]) -> Vec<(u32, BTreeMap<u32, Vec<u8>>)> {
    let reader = WalReader::open(bytes).unwrap().unwrap();
    let mut pages = BTreeMap::new();
    let mut states = Vec::new();
    for transaction in transactions(bytes) {
        for (page, frame) in &transaction.pages {
            let mut data = vec![0; reader.header().page_size.bytes()];
            reader.page(*frame, &mut data).unwrap();
            pages.insert(*page, data);
        }
        pages.retain(|page, _| *page <= transaction.commit);
        states.push((transaction.commit, pages.clone()));
    }
    states
}

#[test]
fn every_page_size_gives_the_file_that_a_checkpoint_gives() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), size);
        for round in 0..20 {
            db.execute("INSERT INTO t(b) VALUES (randomblob(?1))", [round * 700]).unwrap();
        }
        db.execute("DELETE FROM t WHERE id > 3", []).unwrap();
        db.execute_batch("VACUUM").unwrap();
        let bytes = std::fs::read(wal(dir.path())).unwrap();
        let states = replay(&bytes);
        assert_eq!(states.len(), 23, "page size {size}: one per statement, and the table");
        let (commit, pages) = states.last().unwrap();
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let file = std::fs::read(dir.path().join("a.db")).unwrap();
        assert_eq!(file.len(), *commit as usize * size as usize);
        for (page, data) in pages {
            assert_eq!(&file[(*page as usize - 1) * size as usize..][..size as usize], data, "page {page} of size {size}");
        }
    }
}

#[test]
fn both_byte_orders_of_the_checksums_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 1024);
    db.execute("INSERT INTO t(b) VALUES (randomblob(5000))", []).unwrap();
    let mut bytes = std::fs::read(wal(dir.path())).unwrap();
    let native = transactions(&bytes);
    // The same log as a machine of the other byte order would have written it.
    let header = WalHeader::parse(&bytes).unwrap().unwrap();
    let other = !header.big_endian;
    bytes[3] ^= 1;
    let mut sum = format::checksum(other, [0, 0], &bytes[..24]);
    let put = |bytes: &mut [u8], at: usize, sum: [u32; 2]| {
        bytes[at..at + 4].copy_from_slice(&sum[0].to_be_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&sum[1].to_be_bytes());
    };
    put(&mut bytes, 24, sum);
    let mut at = WAL_HEADER;
    while at < bytes.len() {
        sum = format::checksum(other, sum, &bytes[at..at + 8]);
        sum = format::checksum(other, sum, &bytes[at + FRAME_HEADER..at + FRAME_HEADER + 1024]);
        put(&mut bytes, at + 16, sum);
        at += FRAME_HEADER + 1024;
    }
    assert_eq!(WalHeader::parse(&bytes).unwrap().unwrap().big_endian, other);
    let foreign = transactions(&bytes);
    assert_eq!(native.len(), 2);
    assert_eq!(
        native.iter().map(|t| (&t.pages, t.commit)).collect::<Vec<_>>(),
        foreign.iter().map(|t| (&t.pages, t.commit)).collect::<Vec<_>>()
    );
}

#[test]
fn reading_goes_on_where_it_ended_and_knows_a_restarted_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 4096);
    let first = {
        let mut reader = WalReader::open(std::fs::File::open(wal(dir.path())).unwrap()).unwrap().unwrap();
        while reader.next_transaction(None).unwrap().is_some() {}
        reader.mark()
    };
    db.execute("INSERT INTO t(b) VALUES (x'01')", []).unwrap();
    let file = std::fs::File::open(wal(dir.path())).unwrap();
    let mut reader = WalReader::open(&file).unwrap().unwrap();
    assert_eq!(reader.resume(first).unwrap(), Resume::Here(first));
    assert!(reader.next_transaction(None).unwrap().is_some());
    assert!(reader.next_transaction(None).unwrap().is_none());
    let second = reader.mark();
    assert_eq!(WalMark::from_bytes(&second.to_bytes()), second);
    // A place that is not in this log although its salts are: somebody wrote over it.
    let wrong = WalMark { sum: [1, 2], ..first };
    assert!(matches!(WalReader::open(&file).unwrap().unwrap().resume(wrong), Err(WalError::Frame { .. })));

    db.execute_batch("PRAGMA wal_checkpoint(RESTART); INSERT INTO t(b) VALUES (x'02')").unwrap();
    let mut reader = WalReader::open(&file).unwrap().unwrap();
    assert!(matches!(reader.resume(second).unwrap(), Resume::Restarted(_)));
    // Frames of the old log lie behind the new ones and do not count.
    assert_eq!(std::iter::from_fn(|| reader.next_transaction(None).unwrap()).count(), 1);
}

#[test]
fn uncommitted_frames_are_not_read_and_the_index_says_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 512);
    let before = transactions(&std::fs::read(wal(dir.path())).unwrap()).len();
    // A cache of few pages spills frames into the log long before the commit.
    db.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=2; BEGIN; INSERT INTO t(b) VALUES (randomblob(100000));").unwrap();
    for _ in 0..5 {
        db.execute("INSERT INTO t(b) VALUES (randomblob(100000))", []).unwrap();
    }
    let bytes = std::fs::read(wal(dir.path())).unwrap();
    let shm = std::fs::read(dir.path().join("a.db-shm")).unwrap();
    let index = WalIndex::read(&shm).unwrap().unwrap();
    let frames = u32::try_from((bytes.len() - WAL_HEADER) / (FRAME_HEADER + 512)).unwrap();
    assert!(frames > index.frames + 100, "{frames} frames, {} committed: nothing spilled", index.frames);
    assert_eq!(transactions(&bytes).len(), before);
    db.execute_batch("COMMIT").unwrap();
    let shm = std::fs::read(dir.path().join("a.db-shm")).unwrap();
    let bytes = std::fs::read(wal(dir.path())).unwrap();
    let after = transactions(&bytes);
    assert_eq!(after.len(), before + 1);
    let index = WalIndex::read(&shm).unwrap().unwrap();
    let last = after.last().unwrap();
    assert_eq!((index.frames, index.sum, index.salt, index.pages), (last.end.frames, last.end.sum, last.end.salt, last.commit));
    assert_eq!(index.page_size.map(PageSize::get), Some(512));
}

#[test]
fn frames_beyond_what_the_index_publishes_wait_and_damage_before_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 1024);
    db.execute("INSERT INTO t(b) VALUES (randomblob(5000))", []).unwrap();
    let mut bytes = std::fs::read(wal(dir.path())).unwrap();
    let all = transactions(&bytes);
    let first = all[0].end.frames;
    let mut reader = WalReader::open(&bytes).unwrap().unwrap();
    assert!(reader.next_transaction(Some(first)).unwrap().is_some());
    // The frames of the second are there and whole; their writer has not published them.
    assert!(reader.next_transaction(Some(first)).unwrap().is_none());
    let flipped = WAL_HEADER + first as usize * (FRAME_HEADER + 1024) + FRAME_HEADER + 17;
    bytes[flipped] ^= 4;
    let mut reader = WalReader::open(&bytes).unwrap().unwrap();
    assert!(reader.next_transaction(Some(all[1].end.frames)).unwrap().is_some());
    let error = reader.next_transaction(Some(all[1].end.frames)).unwrap_err();
    assert!(matches!(error, WalError::Frame { frame } if frame == first + 1), "{error}");
}

#[test]
fn headers_half_written_wait_and_foreign_ones_are_named() {
    assert!(WalReader::open(&[][..]).unwrap().is_none());
    assert!(WalReader::open(&[0; 32][..]).unwrap().is_none());
    assert!(matches!(WalReader::open(&[9; 32][..]), Err(WalError::Header(_))));
    let dir = tempfile::tempdir().unwrap();
    let _db = open(dir.path(), 4096);
    let bytes = std::fs::read(wal(dir.path())).unwrap();
    for cut in 0..WAL_HEADER {
        assert!(WalReader::open(&bytes[..cut]).unwrap().is_none(), "{cut} bytes");
    }
}

/// A log of seven transactions, made once.
fn sample() -> &'static Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), 512);
        for round in 0..6 {
            db.execute("INSERT INTO t(b) VALUES (randomblob(?1))", [round * 400]).unwrap();
        }
        std::fs::read(wal(dir.path())).unwrap()
    })
}

proptest! {
    /// Whatever is damaged: what is read is a prefix of what was committed, and ends before the damage.
    #[test]
    fn damage_ends_the_log_and_nothing_damaged_is_read(at in 0..sample().len(), flip in 1..=255_u8, cut in 0..sample().len()) {
        let good = transactions(sample());
        let mut bytes = sample().clone();
        bytes[at] ^= flip;
        if let Ok(Some(mut reader)) = WalReader::open(&bytes) {
            let read: Vec<_> = std::iter::from_fn(|| reader.next_transaction(None).unwrap()).collect();
            prop_assert_eq!(&read[..], &good[..read.len()]);
            let whole = good.iter().take_while(|t| WAL_HEADER + t.end.frames as usize * (FRAME_HEADER + 512) <= at).count();
            prop_assert_eq!(read.len(), whole);
        }
        // A torn tail: the transactions that are whole, no more and no fewer.
        if cut >= WAL_HEADER {
            let whole = good.iter().take_while(|t| WAL_HEADER + t.end.frames as usize * (FRAME_HEADER + 512) <= cut).count();
            prop_assert_eq!(transactions(&sample()[..cut]), &good[..whole]);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..3000), committed in prop::option::of(0..20_u32)) {
        let mut log = sample()[..WAL_HEADER].to_vec();
        log.extend(&bytes);
        for log in [&log, &bytes] {
            if let Ok(Some(mut reader)) = WalReader::open(log) {
                while let Ok(Some(_)) = reader.next_transaction(committed) {}
            }
            let _ = WalIndex::read(log);
        }
    }
}
