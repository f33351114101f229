//! What an agent meets beside the usual turns: a restart beside an application that runs on, a database from before, a file in the way.

use std::path::Path;
use std::time::Duration;

use cluster_replica::capture::Options;
use cluster_replica::host::Host;
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
