//! A database made anew from what a stream holds.

use std::path::PathBuf;

use cluster_replica::log::LogError;
use cluster_replica::restore::{Restore, RestoreError, Restored};
use cluster_replica::stream::Survey;
use cluster_replica::transaction::decode_all;

use crate::common::{DB, Pair, Python, assert_same};

/// What the log holds, as messages of a stream: each record one.
fn messages(pair: &Pair) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for entry in pair.log.entries() {
        let each = |bytes: &[u8], _| {
            messages.push(bytes.to_vec());
            Ok::<_, LogError>(())
        };
        pair.log.read(entry, each).unwrap();
    }
    messages
}

fn restore(dir: &tempfile::TempDir, messages: &[Vec<u8>]) -> (PathBuf, Result<Restored, RestoreError>) {
    let target = dir.path().join(format!("restored-{}.db", std::fs::read_dir(dir.path()).unwrap().count()));
    let mut survey = Survey::default();
    for record in messages.iter().flat_map(|message| decode_all(message)).flatten() {
        survey.take(&record.1);
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut restore = Restore::begin(&target, scratch.path(), DB, survey.lineage().unwrap()).unwrap();
    let taken = messages.iter().try_for_each(|message| restore.take(message));
    let restored = taken.and_then(|()| restore.finish());
    (target, restored)
}

/// A database with some transactions, one of several chunks among them, and its messages.
fn written() -> (Pair, Python, Vec<Vec<u8>>) {
    let mut pair = Pair::new();
    let mut python = Python::with_table(&pair.path());
    pair.begin().unwrap();
    for line in ["load(30)", "db.execute('BEGIN'); load(40, 60000); db.execute('COMMIT')", "load(30)"] {
        pair.follow(&mut python, line);
    }
    pair.poll();
    let messages = messages(&pair);
    (pair, python, messages)
}

#[test]
fn the_records_of_a_stream_make_the_same_database_however_they_are_cut() {
    let (pair, python, messages) = written();
    python.quit();
    let (target, restored) = restore(&pair.dir, &messages);
    let restored = restored.unwrap();
    assert_eq!((restored.position, restored.remarks()), (pair.log.head(), Vec::new()));
    assert_same(&pair.path(), &target);
    // Several in one message, and some of it twice, as after an append whose answer was lost.
    let mut joined: Vec<Vec<u8>> = messages.chunks(7).map(<[_]>::concat).collect();
    joined.insert(3, joined[2].clone());
    let (target, restored) = restore(&pair.dir, &joined);
    assert_eq!(restored.unwrap().remarks(), Vec::<String>::new());
    assert_same(&pair.path(), &target);
    assert!(std::fs::read_dir(pair.dir.path()).unwrap().all(|file| !file.unwrap().file_name().to_string_lossy().contains("restoring")));
}

#[test]
fn a_bit_that_flipped_and_a_record_that_is_missing_are_named_and_nothing_after_them_is_applied() {
    let (pair, python, messages) = written();
    python.quit();
    let mut flipped = messages.clone();
    let place = flipped.len() - 10;
    flipped[place][60] ^= 1;
    let (_, restored) = restore(&pair.dir, &flipped);
    let restored = restored.unwrap();
    assert_eq!((restored.damaged, restored.last), (1, pair.log.head().tx));
    assert_eq!(restored.position.tx + 10, pair.log.head().tx);
    assert!(restored.remarks().iter().any(|line| line.contains("is missing or damaged")), "{restored:?}");
    let mut missing = messages.clone();
    missing.remove(place);
    let (_, restored) = restore(&pair.dir, &missing);
    assert_eq!(restored.unwrap().remarks().len(), 1);
    // All of it is gone but the end.
    let (target, restored) = restore(&pair.dir, &messages[place..]);
    assert!(matches!(restored, Err(RestoreError::Nothing)) && !target.exists());
}

#[test]
fn a_snapshot_stands_for_what_is_before_it() {
    let (mut pair, mut python, messages) = written();
    let mut snapshot = Vec::new();
    let capture = pair.capture.as_mut().unwrap();
    capture
        .snapshot(&mut pair.log, 0, |record| {
            snapshot.push(record);
            Ok(())
        })
        .unwrap();
    pair.follow(&mut python, "load(20)");
    pair.poll();
    python.quit();
    let after = self::messages(&pair).split_off(messages.len());
    assert!(snapshot.len() > 1 && after.len() >= 20);
    // The end of what was, a snapshot that broke off, the same again, and what came since.
    let mut stream = messages[messages.len() - 4..].to_vec();
    stream.extend(snapshot[..1].iter().cloned());
    stream.extend(snapshot);
    stream.extend(after);
    let (target, restored) = restore(&pair.dir, &stream);
    assert_eq!(restored.unwrap().remarks(), Vec::<String>::new());
    assert_same(&pair.path(), &target);
    let again = Restore::begin(&target, pair.dir.path(), DB, Survey::default().lineage().unwrap());
    assert!(matches!(again, Err(RestoreError::Exists(_))));
}
