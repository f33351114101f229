//! Capture beside real applications in processes of their own, and the replica their transactions lead to.

use std::time::Duration;

use crate::common::{Pair, Python};
use cluster_replica::capture::{Resync, SAFE_VERSION};

#[test]
fn follows_an_application_over_restarts_of_the_wal_and_vacuum() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(1500)");
    pair.move_on();
    pair.assert_replica_equal();
    pair.follow(&mut app, "db.execute('DELETE FROM t WHERE id % 3 = 0')");
    pair.move_on();
    pair.follow(&mut app, "db.execute('VACUUM')");
    pair.move_on();
    pair.follow(&mut app, "db.execute('CREATE INDEX i ON t(b)'); load(700, 3000)");
    pair.move_on();
    pair.follow(&mut app, "db.execute('DELETE FROM t WHERE id > 200'); db.execute('VACUUM')");
    pair.move_on();
    pair.follow(&mut app, "load(300)");
    let at = pair.assert_replica_equal();
    assert_eq!(at.tx, 1 + 1500 + 2 + 701 + 2 + 300, "each transaction once");
    let verified = pair.capture.as_mut().unwrap().verify(&mut pair.log, 0).unwrap();
    assert_eq!(verified.wrong, [] as [u32; 0]);
    let counters = pair.capture().counters().clone();
    // Those asked for; what came between them is the scheduler's.
    assert!(counters.checkpoints >= 5 && counters.moves > counters.checkpoints, "{counters:?}");
    assert_eq!((counters.resyncs.get(&Resync::First), counters.resyncs.len(), counters.silent), (Some(&1), 1, 0));
    let wal = cluster_replica::wal::WalReader::open(std::fs::read(cluster_replica::capture::beside(&pair.path(), "-wal")).unwrap());
    let restarts = wal.unwrap().unwrap().header().restarts;
    assert!(restarts >= 5, "the write-ahead log began anew {restarts} times only");
    assert!(pair.capture().writer_version().unwrap() < SAFE_VERSION, "Debian's SQLite is an old one");
    app.quit();
    pair.assert_replica_equal();
}

#[test]
fn survives_the_application_ending_and_being_killed() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    for round in 0..6 {
        pair.follow(&mut app, "load(60, 2000)");
        if round % 2 == 0 {
            // In the middle of a transaction that has written to the log already.
            app.run("db.execute('PRAGMA cache_size=5'); db.execute('BEGIN'); load(200, 5000)");
            app.kill();
        } else {
            app.quit();
        }
        app = Python::with_table(&pair.path());
    }
    pair.follow(&mut app, "load(60, 2000)");
    app.send("load(100000, 300)");
    for _ in 0..30 {
        pair.poll();
        pair.advance();
        std::thread::sleep(Duration::from_millis(2));
    }
    app.kill();
    let mut app = Python::with_table(&pair.path());
    pair.follow(&mut app, "load(5)");
    pair.assert_replica_equal();
    let counters = pair.capture().counters().clone();
    assert_eq!((counters.resyncs.len(), counters.silent), (1, 0), "{counters:?}");
    app.quit();
}

#[test]
fn goes_on_where_it_was_and_names_what_it_missed() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    app.run("db.execute('PRAGMA wal_autocheckpoint=0')");
    pair.begin().unwrap();
    pair.follow(&mut app, "load(50)");
    // Away while the application only appends: nothing is missed, nothing compared.
    let sums = pair.drop_capture();
    app.run("load(50)");
    pair.resume(Some(sums)).unwrap();
    assert!(pair.capture().counters().resyncs.is_empty());
    let at = pair.assert_replica_equal();
    assert_eq!(at.tx, 101);
    // Away while it checkpoints and begins its log anew: found by comparing, in one transaction, with the reason.
    let sums = pair.drop_capture();
    app.run("load(50); db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall(); load(50); db.execute('VACUUM')");
    pair.resume(Some(sums)).unwrap();
    assert_eq!(pair.capture().counters().resyncs, [(Resync::Away, 1)].into());
    assert_eq!(pair.assert_replica_equal().tx, 102);
    pair.follow(&mut app, "load(20)");
    assert_eq!(pair.assert_replica_equal().tx, 122);
    // Away, and what was known of the pages is lost too.
    pair.drop_capture();
    app.run("load(3)");
    pair.resume(None).unwrap();
    assert_eq!(pair.capture().counters().resyncs, [(Resync::LogCut, 1)].into());
    pair.follow(&mut app, "load(2)");
    assert_eq!(pair.assert_replica_equal().tx, 125);
    app.quit();
}

#[test]
fn a_large_transaction_arrives_whole() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "db.execute('BEGIN'); load(20000, 1000); db.execute('COMMIT')");
    let at = pair.assert_replica_equal();
    assert_eq!(at.tx, 2);
    let bytes = pair.log.entries().next_back().unwrap().bytes;
    assert!(bytes > 20_000_000, "{bytes} bytes");
    app.quit();
}

#[test]
fn the_application_is_held_up_by_its_own_restart_checkpoint_only() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "db.execute('PRAGMA busy_timeout=50'); load(30)");
    // As documented: it ends busy, and does no harm.
    app.run("assert db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0] == 1");
    app.run("assert db.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()[0] == 1");
    assert!(app.run_for("db.execute('PRAGMA journal_mode=DELETE')").starts_with("OperationalError: database is locked"));
    pair.follow(&mut app, "load(30)");
    assert_eq!(pair.assert_replica_equal().tx, 61);
    // It keeps its write lock: the keeper stays where it is, and nothing is lost.
    app.run("db.execute('BEGIN IMMEDIATE'); load(300, 2000)");
    let options = pair.options();
    assert!(!pair.capture.as_mut().unwrap().move_on(&mut pair.log, options.quiet, 0).unwrap());
    assert_eq!(pair.capture().counters().busy, 1);
    pair.follow(&mut app, "db.execute('COMMIT')");
    assert_eq!(pair.assert_replica_equal().tx, 62);
    app.quit();
}

/// The application of the next test, in a process of its own, with the SQLite that we bundle.
#[test]
#[ignore = "no test by itself: the next one starts it"]
fn rust_application() {
    let path = std::env::var_os("REPLICA_TEST_APPLICATION").expect("started by the test");
    let db = rusqlite::Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    for round in 0..400 {
        db.execute("INSERT INTO t(b) VALUES (randomblob(?1))", [round * 10]).unwrap();
        if round % 100 == 99 {
            db.execute_batch("DELETE FROM t WHERE id % 3 = 0; PRAGMA wal_checkpoint(PASSIVE); VACUUM").unwrap();
        }
    }
}

#[test]
fn follows_two_applications_with_different_versions_of_sqlite() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "follow::rust_application"])
        .env("REPLICA_TEST_APPLICATION", pair.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    pair.follow(&mut app, "load(400, 1500)");
    while child.try_wait().unwrap().is_none() {
        pair.poll();
        pair.advance();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    pair.poll();
    // Each of them: 400 inserts; the one in Rust 4 deletions and 4 VACUUMs besides; and the first transaction.
    assert_eq!(pair.assert_replica_equal().tx, 1 + 400 + 400 + 8);
    let verified = pair.capture.as_mut().unwrap().verify(&mut pair.log, 0).unwrap();
    assert_eq!(verified.wrong, [] as [u32; 0]);
    assert_eq!((pair.capture().counters().resyncs.len(), pair.capture().counters().silent), (1, 0));
    app.quit();
}
