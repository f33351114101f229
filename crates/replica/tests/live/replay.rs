//! Any sequence of SQLite operations, captured and replayed, gives the same pages; and a replica through crashes, readers and damage.

use crate::common::{DB, Pair, Python, assert_same, assert_whole};
use cluster_replica::apply::{ApplyError, Replica};
use cluster_replica::lineage::Position;
use cluster_replica::transaction::{Record, decode};
use proptest::prelude::*;
use rusqlite::Connection;

#[derive(Clone, Debug)]
enum Step {
    Insert { rows: u32, size: u32 },
    Delete { modulo: u32 },
    Update { modulo: u32, size: u32 },
    RollBack,
    Vacuum,
    IncrementalVacuum,
    Index,
    DropIndex,
    NewTable,
    DropTable,
    UserVersion(u32),
    Poll,
    Advance,
    Restart,
    Verify,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..30_u32, 0..6000_u32).prop_map(|(rows, size)| Step::Insert { rows, size }),
        2 => (1..5_u32).prop_map(|modulo| Step::Delete { modulo }),
        2 => (1..5_u32, 0..9000_u32).prop_map(|(modulo, size)| Step::Update { modulo, size }),
        1 => Just(Step::RollBack),
        1 => Just(Step::Vacuum),
        1 => Just(Step::IncrementalVacuum),
        1 => Just(Step::Index),
        1 => Just(Step::DropIndex),
        1 => Just(Step::NewTable),
        1 => Just(Step::DropTable),
        1 => (0..9_u32).prop_map(Step::UserVersion),
        3 => Just(Step::Poll),
        3 => Just(Step::Advance),
        1 => Just(Step::Restart),
        1 => Just(Step::Verify),
    ]
}

fn run(page_size: u32, auto_vacuum: u32, steps: &[Step]) {
    let mut pair = Pair::new();
    let db = Connection::open(pair.path()).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);"
    ))
    .unwrap();
    pair.begin().unwrap();
    // A replica that follows all along, batch by batch.
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    for step in steps {
        let sql = match step {
            Step::Insert { rows, size } => format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t(b) SELECT randomblob({size}) FROM n"
            ),
            Step::Delete { modulo } => format!("DELETE FROM t WHERE id % {modulo} = 0"),
            Step::Update { modulo, size } => format!("UPDATE t SET b = zeroblob({size}) WHERE id % {modulo} = 0"),
            Step::RollBack => "PRAGMA cache_size=3; BEGIN; INSERT INTO t(b) VALUES (randomblob(90000)); DELETE FROM t; ROLLBACK".to_owned(),
            Step::Vacuum => "VACUUM".to_owned(),
            Step::IncrementalVacuum => "PRAGMA incremental_vacuum(7)".to_owned(),
            Step::Index => "CREATE INDEX IF NOT EXISTS i ON t(b)".to_owned(),
            Step::DropIndex => "DROP INDEX IF EXISTS i".to_owned(),
            Step::NewTable => "CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t".to_owned(),
            Step::DropTable => "DROP TABLE IF EXISTS u".to_owned(),
            Step::UserVersion(version) => format!("PRAGMA user_version={version}"),
            Step::Poll => {
                pair.poll();
                replica.apply(&pair.log).unwrap();
                continue;
            }
            Step::Advance => {
                pair.advance();
                continue;
            }
            Step::Restart => {
                pair.poll();
                pair.log.sync().unwrap();
                replica.checkpoint(pair.log.storage_mut()).unwrap();
                drop(replica);
                replica = Replica::open(&path, DB, &pair.log).unwrap();
                continue;
            }
            Step::Verify => {
                let verified = pair.capture.as_mut().unwrap().verify(&mut pair.log, 0).unwrap();
                assert_eq!(verified.wrong, [] as [u32; 0]);
                continue;
            }
        };
        db.execute_batch(&sql).unwrap();
    }
    pair.poll();
    let verified = pair.capture.as_mut().unwrap().verify(&mut pair.log, 0).unwrap();
    assert_eq!((verified.wrong, verified.position), (vec![], pair.log.head()));
    while replica.apply(&pair.log).unwrap() != pair.log.head() {}
    drop(replica);
    pair.assert_replica_equal();
    assert_same(&pair.path(), &path);
    drop(db);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_gives_the_same_pages(
        page_size in prop::sample::select(vec![512_u32, 1024, 4096, 65536]), auto_vacuum in 0..3_u32,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(page_size, auto_vacuum, &steps);
    }
}

#[test]
fn readers_see_one_transaction_or_the_next() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    app.run("db.execute('CREATE TABLE sum(n)'); db.execute('INSERT INTO sum VALUES (0)')");
    pair.begin().unwrap();
    let line = "for i in range(300): db.execute('BEGIN'); load(3, 900); db.execute('UPDATE sum SET n = n + 3'); db.execute('COMMIT')";
    pair.follow(&mut app, line);
    pair.follow(&mut app, "db.executescript('BEGIN; DELETE FROM t; UPDATE sum SET n = 0; COMMIT; VACUUM')");
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    replica.apply_to(&pair.log, 1).unwrap();
    // A reader in another process, with another SQLite, that never stops.
    let mut reader = Python::bare(pair.dir.path());
    reader.run(&format!("r = sqlite3.connect('file:{}?mode=ro', uri=True, timeout=10)", path.display()));
    reader.run("seen = 0");
    let mut tx = 1;
    while replica.position() != pair.log.head() {
        tx += 7;
        reader
            .send("a, b = r.execute('SELECT (SELECT count(*) FROM t), (SELECT n FROM sum)').fetchone(); seen += 1; assert a == b, (a, b)");
        replica.apply_to(&pair.log, tx).unwrap();
        assert_eq!(reader.wait(), "ok");
    }
    reader.run("assert r.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'; assert seen > 20, seen");
    reader.quit();
    assert_eq!(replica.integrity_check().unwrap(), ["ok"]);
    drop(replica);
    assert_same(&pair.path(), &path);
    app.quit();
}

/// A copy of the replica's files at this moment: what a crash of the machine leaves, when everything was synced.
fn crash(pair: &Pair, name: &str) -> std::path::PathBuf {
    let to = pair.dir.path().join(name);
    for suffix in ["", "-wal"] {
        std::fs::copy(pair.dir.path().join(format!("replica.db{suffix}")), pair.dir.path().join(format!("{name}{suffix}"))).unwrap();
    }
    to
}

#[test]
fn d8_a_replica_finds_its_position_after_a_crash_wherever_it_was() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(40, 2000); db.execute('DELETE FROM t WHERE id > 10'); db.execute('VACUUM'); load(40, 700)");
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    for (round, tx) in [3, 20, 43, 44, 60].into_iter().enumerate() {
        while replica.position().tx < tx {
            replica.apply_to(&pair.log, tx).unwrap();
        }
        if round == 1 {
            replica.checkpoint(pair.log.storage_mut()).unwrap();
        }
        let copy = crash(&pair, &format!("crash-{tx}.db"));
        let mut again = Replica::open(&copy, DB, &pair.log).unwrap();
        assert_eq!(again.position(), replica.position());
        while again.apply(&pair.log).unwrap() != pair.log.head() {}
        drop(again);
        assert_same(&pair.path(), &copy);
        // The same where the tail of the replica's write-ahead log was not durable: an earlier state, found as well.
        let copy = crash(&pair, &format!("torn-{tx}.db"));
        let wal = std::fs::OpenOptions::new().write(true).open(cluster_replica::capture::beside(&copy, "-wal")).unwrap();
        let len = wal.metadata().unwrap().len();
        wal.set_len(len.saturating_sub(5000)).unwrap();
        let mut again = Replica::open(&copy, DB, &pair.log).unwrap();
        assert!(again.position().tx <= tx);
        while again.apply(&pair.log).unwrap() != pair.log.head() {}
        drop(again);
        assert_same(&pair.path(), &copy);
    }
    app.quit();
}

#[test]
fn a_damaged_replica_is_found_and_healed_by_a_snapshot() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(200, 500)");
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    while replica.apply(&pair.log).unwrap() != pair.log.head() {}
    drop(replica);
    // A bit flips in the middle of the file.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(&path, &bytes).unwrap();
    let error = Replica::open(&path, DB, &pair.log).map(|_| ()).unwrap_err();
    assert!(matches!(error, ApplyError::Unknown { .. }), "{error:?}");
    pair.follow(&mut app, "load(30, 500)");
    let mut chunks = Vec::new();
    let at = pair.capture.as_mut().unwrap().snapshot(&mut pair.log, 0, |chunk| {
        chunks.push(chunk);
        Ok(())
    });
    let at = at.unwrap();
    assert_eq!(at, pair.log.head());
    let mut replica = Replica::open_unknown(&path, DB).unwrap();
    let mut writer = replica.snapshot();
    let mut reached = None;
    for chunk in &chunks {
        let Record::Chunk(chunk) = decode(chunk).unwrap() else { panic!("a start") };
        reached = writer.take(&chunk).unwrap();
    }
    assert_eq!(reached, Some(at));
    drop(writer);
    pair.follow(&mut app, "db.execute('DELETE FROM t WHERE id > 20'); db.execute('VACUUM')");
    while replica.apply(&pair.log).unwrap() != pair.log.head() {}
    drop(replica);
    assert_same(&pair.path(), &path);
    app.quit();
}

#[test]
fn half_a_snapshot_changes_nothing() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(600, 3000)");
    let mut chunks = Vec::new();
    let made = pair.capture.as_mut().unwrap().snapshot(&mut pair.log, 0, |chunk| {
        chunks.push(chunk);
        Ok(())
    });
    made.unwrap();
    assert!(chunks.len() > 3);
    let decoded: Vec<_> = chunks.iter().map(|chunk| decode(chunk).unwrap()).collect();
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    replica.apply_to(&pair.log, 1).unwrap();
    let before = replica.position();
    let mut writer = replica.snapshot();
    for record in &decoded[..2] {
        let Record::Chunk(chunk) = record else { panic!("a start") };
        assert_eq!(writer.take(chunk).unwrap(), None);
    }
    let Record::Chunk(last) = decoded.last().unwrap() else { panic!("a start") };
    assert!(matches!(writer.take(last), Err(ApplyError::Snapshot(_))));
    drop(writer);
    assert_eq!(replica.position(), before);
    assert_eq!(replica.read_all().unwrap().total(), before.checksum);
    assert_whole(&path);
    app.quit();
}

#[test]
fn a_log_that_begins_too_late_is_named() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(5)");
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    replica.apply_to(&pair.log, 3).unwrap();
    let far = Position { epoch: 1, tx: 90, checksum: 1 };
    pair.log.reset(far).unwrap();
    assert!(matches!(replica.apply(&pair.log), Err(ApplyError::Gap { log: 90, at }) if at.tx == 3));
    app.quit();
}
