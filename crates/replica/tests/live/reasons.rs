//! Every reason for which a database cannot be followed, provoked.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use crate::common::{DB, Pair, Python};
use cluster_replica::capture::{Capture, CaptureError, Options, beside};
use cluster_replica::log::{Limits, TransactionLog};
use cluster_replica::storage::Directory;
use cluster_replica::wal::WalReader;

fn reason(pair: &mut Pair) -> &'static str {
    pair.begin().expect_err("it cannot be followed").reason()
}

fn poll_reason(pair: &mut Pair) -> &'static str {
    pair.capture.as_mut().unwrap().poll(&mut pair.log, 0).expect_err("it cannot be followed").reason()
}

#[test]
fn what_is_no_database_to_follow_is_named() {
    let mut pair = Pair::new();
    assert_eq!(reason(&mut pair), "DatabaseMissing");
    std::fs::write(pair.path(), "").unwrap();
    assert_eq!(reason(&mut pair), "DatabaseEmpty");
    std::fs::write(pair.path(), "Dear diary, today I was taken for a database, which I am not, and this line is long enough to be one.")
        .unwrap();
    assert_eq!(reason(&mut pair), "NotSqlite");
    std::fs::write(pair.path(), "SQLite format 3\0 and no more").unwrap();
    assert_eq!(reason(&mut pair), "NotSqlite");
    std::fs::remove_file(pair.path()).unwrap();
    std::fs::create_dir(pair.path()).unwrap();
    assert_eq!(reason(&mut pair), "NotAFile");
    std::fs::remove_dir(pair.path()).unwrap();
    let mut app = Python::start(&pair.path());
    app.run("db.execute('CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)')");
    assert_eq!(reason(&mut pair), "RollbackJournal");
    assert_eq!(pair.log.head().tx, 0);
    // And once the application does what it should, all is well.
    app.run("db.execute('PRAGMA journal_mode=WAL').fetchall()");
    pair.begin().unwrap();
    pair.follow(&mut app, "load(3)");
    assert_eq!(pair.assert_replica_equal().tx, 4);
    app.quit();
}

#[test]
fn a_database_replaced_or_deleted_under_us_is_named_and_taken_up_again() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(3)");
    // As an application would restore a backup: another file, moved over.
    app.run(&format!(
        "import os; other = sqlite3.connect('{}'); db.backup(other); other.close()",
        pair.path().with_extension("new").display()
    ));
    std::fs::rename(pair.path().with_extension("new"), pair.path()).unwrap();
    assert_eq!(poll_reason(&mut pair), "DatabaseReplaced");
    app.kill();
    let sums = pair.drop_capture();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(&pair.path(), suffix));
    }
    let mut app = Python::with_table(&pair.path());
    app.run("load(1)");
    let head = pair.log.head();
    assert_eq!(pair.resume(Some(sums.clone())).unwrap_err().reason(), "DatabaseReplaced");
    assert_eq!(pair.log.head(), head);
    Capture::adopt(&mut pair.log, DB).unwrap();
    pair.resume(Some(sums)).unwrap();
    pair.follow(&mut app, "load(1)");
    pair.assert_replica_equal();
    std::fs::remove_file(pair.path()).unwrap();
    assert_eq!(poll_reason(&mut pair), "DatabaseDeleted");
    app.kill();
}

#[test]
fn an_application_that_keeps_its_lock_is_named() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    app.run("db.execute('BEGIN IMMEDIATE')");
    assert_eq!(reason(&mut pair), "Locked");
    app.run("db.execute('COMMIT')");
    pair.begin().unwrap();
    app.quit();
}

#[test]
fn a_flipped_bit_in_the_wal_is_found_and_not_shipped() {
    let mut pair = Pair::new();
    let mut app = Python::with_table(&pair.path());
    pair.begin().unwrap();
    pair.follow(&mut app, "load(3)");
    app.run("load(1, 3000)");
    let path = beside(&pair.path(), "-wal");
    let wal = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let last = wal.metadata().unwrap().len() - 100;
    let mut byte = [0];
    wal.read_exact_at(&mut byte, last).unwrap();
    wal.write_all_at(&[byte[0] ^ 1], last).unwrap();
    let before = pair.log.head();
    let error = pair.capture.as_mut().unwrap().poll(&mut pair.log, 0).unwrap_err();
    assert_eq!(error.reason(), "WalDamaged");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("frame ") && source.ends_with(" of the write-ahead log is damaged"), "{source}");
    assert_eq!(pair.log.head(), before);
    app.kill();
    // As a machine would come back: SQLite itself drops the damaged transaction.
    let sums = pair.drop_capture();
    drop(wal);
    assert!(WalReader::open(std::fs::read(&path).unwrap()).unwrap().is_some());
    let _ = std::fs::remove_file(beside(&pair.path(), "-shm"));
    pair.resume(Some(sums)).unwrap();
    assert!(pair.capture().counters().resyncs.is_empty());
    pair.assert_replica_equal();
}

/// Runs `work` with a file system of `size` bytes at a fresh directory, in a mount namespace that this thread has for itself.
fn on_small_disk(size: &str, work: impl FnOnce(&Path) + Send) {
    use nix::mount::{MsFlags, mount};
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str())).unwrap();
            work(dir.path());
        });
    });
}

#[test]
fn a_full_disk_under_the_log_holds_nobody_up_and_is_caught_up_later() {
    on_small_disk("3m", |small| {
        let mut pair = Pair::new();
        let mut log = TransactionLog::open(Directory::open(small).unwrap(), DB, Limits::default()).unwrap();
        std::mem::swap(&mut pair.log, &mut log);
        let mut app = Python::with_table(&pair.path());
        pair.begin().unwrap();
        pair.follow(&mut app, "load(20)");
        app.run("load(3000, 3000)");
        let head = pair.log.head();
        assert_eq!(poll_reason(&mut pair), "DiskFull");
        assert!(pair.log.head().tx > head.tx, "what fitted is in");
        let sums = pair.drop_capture();
        app.run("load(10)");
        nix::mount::mount(None::<&str>, small, None::<&str>, nix::mount::MsFlags::MS_REMOUNT, Some("size=100m")).unwrap();
        pair.resume(Some(sums)).unwrap();
        pair.follow(&mut app, "load(10)");
        pair.assert_replica_equal();
        app.quit();
    });
}

#[test]
fn a_read_only_database_is_named() {
    use nix::mount::{MsFlags, mount};
    on_small_disk("20m", |disk| {
        let pair = Pair::new();
        let mut app = Python::with_table(&disk.join("app.db"));
        app.run("load(3)");
        app.quit();
        mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>).unwrap();
        let Pair { mut log, .. } = pair;
        let options = Options { lock_wait: Duration::from_millis(50), ..Options::new(disk.join("app.db")) };
        let start = cluster_replica::lineage::Start { epoch: 1, base: log.head(), node: "n-1".to_owned() };
        let error = Capture::begin(options, DB, &mut log, &start, Default::default(), 0).map(|_| ()).unwrap_err();
        assert!(matches!(error, CaptureError::ReadOnly(_)), "{error:?}");
        assert_eq!(error.reason(), "ReadOnly");
        mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).unwrap();
    });
}
