//! What an agent meets beside the usual turns: a restart beside an application that runs on, a database from before, a file in the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_replica::apply::ApplyError;
use cluster_replica::capture::{Options, Resync, beside};
use cluster_replica::host::{Host, HostError};
use cluster_replica::log::Limits;
use cluster_replica::role::Tail;

use crate::common::{DB, Python, assert_same};

fn open(dir: &Path, node: &str) -> Host {
    std::fs::create_dir_all(dir.join(node)).unwrap();
    let options = Options { checkpoint_frames: 100, ..Options::new(dir.join(node).join("app.db")) };
    Host::open(&dir.join(node).join("state"), options, node, DB, Limits::default(), 0).unwrap()
}

fn poll(host: &mut Host) -> usize {
    let mut records = 0;
    host.poll(Duration::ZERO, 0, |_| records += 1).unwrap();
    records
}

fn resyncs(host: &Host) -> u64 {
    host.capture().unwrap().counters().resyncs.values().sum()
}

#[test]
fn a_restart_beside_the_application_goes_on_in_its_epoch_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = open(dir.path(), "n-1");
    let mut app = Python::with_table(&dir.path().join("n-1/app.db"));
    host.member_mut().seal(4).unwrap();
    host.begin(4, 0).unwrap();
    app.run("load(10)");
    poll(&mut host);
    drop(host);
    // Nobody follows meanwhile.
    app.run("load(7)");

    let mut host = open(dir.path(), "n-1");
    assert!(!host.resume(5, 0).unwrap(), "an epoch that was not begun here");
    assert!(host.capture().is_none());
    assert!(host.resume(4, 0).unwrap());
    app.run("load(5)");
    poll(&mut host);
    assert_eq!((host.member().position().epoch, host.member().position().tx, resyncs(&host)), (4, 1 + 10 + 7 + 5, 0));
    // Once a later epoch is noted, this one is over.
    host.let_go();
    host.member_mut().seal(6).unwrap();
    assert!(!host.resume(4, 0).unwrap());
    app.quit();
}

#[test]
fn a_database_from_before_begins_the_first_epoch_and_another_one_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    for (node, rows) in [("n-1", 20), ("n-2", 3)] {
        std::fs::create_dir(dir.path().join(node)).unwrap();
        let mut app = Python::with_table(&dir.path().join(node).join("app.db"));
        app.run(&format!("load({rows}, 700)"));
        app.quit();
    }
    let (mut first, mut second) = (open(dir.path(), "n-1"), open(dir.path(), "n-2"));
    assert_eq!((first.applied(), second.applied()), (None, None));
    assert_eq!(first.set_aside(7).unwrap().map(|aside| aside.exists()), Some(true), "it would make room here, too");
    std::fs::rename(dir.path().join("n-1/app.db.before-7"), dir.path().join("n-1/app.db")).unwrap();
    drop(first);
    let mut first = open(dir.path(), "n-1");
    first.member_mut().seal(1).unwrap();
    first.begin(1, 0).unwrap();
    assert_eq!((first.member().position().tx, resyncs(&first)), (1, 1), "all of it is the first transaction");

    let aside = second.set_aside(9).unwrap().unwrap();
    assert!(aside.ends_with("app.db.before-9"));
    assert_eq!(second.set_aside(9).unwrap(), None, "nothing is there any more");
    let mut chunks = Vec::new();
    let made = first.snapshot(0, |chunk| {
        chunks.push(chunk);
        Ok(())
    });
    let (at, chain) = made.unwrap();
    assert!(second.take_snapshot(1, at, &chain, chunks.iter()).unwrap());
    assert_eq!(second.verify(0).unwrap(), (at, Vec::new()));
    assert_eq!(first.verify(0).unwrap(), (at, Vec::new()));
    let mut app = Python::start(&dir.path().join("n-1/app.db"));
    app.run("load(4)");
    poll(&mut first);
    let (_, position, chain) = second.ask();
    let Tail::Records { chain, records } = first.give(position, &chain, 1 << 20).unwrap() else { panic!("a snapshot for a short tail") };
    second.take_tail(1, &chain, &records).unwrap();
    second.settle().unwrap();
    app.quit();
    assert_same(&dir.path().join("n-1/app.db"), &dir.path().join("n-2/app.db"));
    // What was there before is a database still.
    let mut before = Python::start(&aside);
    before.run("assert db.execute('SELECT count(*) FROM t').fetchone()[0] == 3");
    before.quit();
}

#[test]
fn a_tenure_ends_although_the_database_cannot_be_followed_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = open(dir.path(), "n-1");
    let path = dir.path().join("n-1/app.db");
    let mut app = Python::with_table(&path);
    host.member_mut().seal(1).unwrap();
    host.begin(1, 0).unwrap();
    app.run("load(10)");
    app.quit();
    std::fs::rename(&path, dir.path().join("n-1/elsewhere.db")).unwrap();
    assert!(host.retire(0, |_| {}).is_err(), "it is told");
    // The second time it is looked at as what it is now: nothing.
    host.retire(0, |_| {}).ok();
    assert!(host.capture().is_none());
}

fn remove_all(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(beside(path, suffix)).ok();
    }
}

fn reason(outcome: Result<bool, HostError>) -> &'static str {
    let Err(HostError::Capture(error)) = outcome else { panic!("another file was followed: {:?}", outcome.map_err(|e| e.to_string())) };
    error.reason()
}

/// Node n-1, active with epoch 1, beside an application with a table.
fn begun(dir: &Path) -> (Host, Python, PathBuf) {
    let mut host = open(dir, "n-1");
    let path = dir.join("n-1/app.db");
    let app = Python::with_table(&path);
    host.member_mut().seal(1).unwrap();
    host.begin(1, 0).unwrap();
    (host, app, path)
}

/// What the application sees of itself.
fn rows(app: &mut Python, count: u32) {
    app.run(&format!("assert db.execute('SELECT count(*) FROM t').fetchone()[0] == {count}"));
}

#[test]
fn an_empty_database_in_the_place_of_a_deleted_one_is_never_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let (mut host, mut app, path) = begun(dir.path());
    app.run("load(10)");
    poll(&mut host);
    let head = host.member().position();
    // The application is stopped, its files are removed, and it makes an empty database at its next start.
    app.kill();
    remove_all(&path);
    assert_eq!(reason(host.poll(Duration::ZERO, 0, |_| {}).map(|()| true)), "DatabaseDeleted");
    host.let_go();
    assert_eq!(reason(host.resume(1, 0)), "DatabaseDeleted");
    let mut app = Python::with_table(&path);
    app.run("load(2)");
    for _ in 0..2 {
        assert_eq!(reason(host.resume(1, 0)), "DatabaseReplaced");
    }
    // Nor does a restarted agent take it for a change, nor the end of the tenure.
    drop(host);
    let mut host = open(dir.path(), "n-1");
    assert_eq!((host.applied(), host.is_foreign()), (None, true));
    assert_eq!(reason(host.resume(1, 0)), "DatabaseReplaced");
    app.quit();
    host.retire(0, |_| panic!("something of it was shipped")).unwrap();
    assert_eq!((host.member().position(), host.applied(), host.is_foreign()), (head, None, true));
    // It makes room for what the others have, and is not lost.
    let aside = host.set_aside(5).unwrap().unwrap();
    let mut kept = Python::start(&aside);
    rows(&mut kept, 2);
    kept.quit();
    // With nothing in its place, the node has all of it in its log.
    drop(host);
    let mut host = open(dir.path(), "n-1");
    host.settle().unwrap();
    assert_eq!(host.applied(), Some(head));
    assert_eq!(host.verify(0).unwrap(), (head, Vec::new()));
    host.member_mut().seal(2).unwrap();
    host.begin(2, 0).unwrap();
    let mut app = Python::start(&path);
    rows(&mut app, 10);
    app.quit();
}

#[test]
fn a_file_moved_into_the_place_counts_once_an_operator_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut host, mut app, path) = begun(dir.path());
    app.run("load(10)");
    poll(&mut host);
    let head = host.member().position();
    app.run(&format!("db.execute(\"VACUUM INTO '{}'\")", dir.path().join("n-1/copy.db").display()));
    app.run("load(5)");
    app.kill();
    host.let_go();
    remove_all(&path);
    std::fs::rename(dir.path().join("n-1/copy.db"), &path).unwrap();
    let mut app = Python::with_table(&path);
    assert_eq!(reason(host.resume(1, 0)), "DatabaseReplaced");
    host.adopt_file().unwrap();
    assert!(host.resume(1, 0).unwrap());
    assert_eq!(host.capture().unwrap().counters().resyncs, [(Resync::Adopted, 1)].into());
    app.run("load(1)");
    poll(&mut host);
    assert_eq!(host.member().position().tx, head.tx + 2);
    assert_eq!(host.verify(0).unwrap().1, Vec::<String>::new());
    // From here on it is the one that is known.
    drop(host);
    let mut host = open(dir.path(), "n-1");
    assert!(host.resume(1, 0).unwrap());
    rows(&mut app, 11);
    app.quit();
}

#[test]
fn a_file_cut_or_written_over_under_its_name_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut host, mut app, path) = begun(dir.path());
    app.run("load(200, 2000)");
    poll(&mut host);
    let head = host.member().position();
    app.quit();
    // All is in the file, and the write-ahead log gone: what an operator would find beside a stopped application.
    host.retire(0, |_| {}).unwrap();
    host.member_mut().seal(2).unwrap();
    host.begin(2, 0).unwrap();
    host.let_go();
    let whole = std::fs::read(&path).unwrap();
    let begun = host.member().position();
    assert_eq!((begun.tx, begun.checksum), (head.tx, head.checksum));
    // The same inode, without content; then with another, empty database in it, after nobody looked at it meanwhile.
    for seen in [true, false] {
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(beside(&path, suffix)).ok();
        }
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        if seen {
            assert_eq!(reason(host.resume(2, 0)), "DatabaseReplaced");
            std::fs::write(&path, &whole).unwrap();
            assert_eq!(reason(host.resume(2, 0)), "DatabaseReplaced", "what was found stays found");
            host.adopt_file().unwrap();
            assert!(host.resume(2, 0).unwrap());
            host.let_go();
            continue;
        }
        let mut app = Python::with_table(&path);
        app.run("load(1)");
        assert_eq!(reason(host.resume(2, 0)), "DatabaseReplaced");
        app.quit();
    }
}

#[test]
fn a_replica_whose_file_is_gone_takes_nothing_into_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = open(dir.path(), "n-2");
    std::fs::remove_file(dir.path().join("n-2/app.db")).unwrap();
    let Err(HostError::Apply(ApplyError::Replaced(_))) = host.settle() else { panic!("nobody noticed") };
    drop(host);
    let mut host = open(dir.path(), "n-2");
    assert!(host.settle().is_ok());
}

#[test]
fn a_database_moved_away_and_back_goes_on_without_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let (mut host, mut app, path) = begun(dir.path());
    app.run("load(10)");
    poll(&mut host);
    let head = host.member().position();
    let elsewhere = dir.path().join("elsewhere.db");
    for killed in [false, true] {
        std::fs::rename(&path, &elsewhere).unwrap();
        assert_eq!(reason(host.poll(Duration::ZERO, 0, |_| {}).map(|()| true)), "DatabaseDeleted");
        host.let_go();
        assert_eq!(reason(host.resume(1, 0)), "DatabaseDeleted");
        std::fs::rename(&elsewhere, &path).unwrap();
        if killed {
            drop(host);
            host = open(dir.path(), "n-1");
        }
        assert!(!host.is_foreign());
        assert!(host.resume(1, 0).unwrap());
        assert_eq!(host.capture().unwrap().counters().resyncs, [].into());
    }
    app.run("load(1)");
    poll(&mut host);
    assert_eq!(host.member().position().tx, head.tx + 1);
    app.quit();
}
