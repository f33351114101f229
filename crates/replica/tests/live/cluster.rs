//! Three nodes in one process, the network a function call: write load, crash of the active, promotion, return, `confirm: 1`, switchover.

use std::path::Path;
use std::time::Duration;

use cluster_replica::capture::Options;
use cluster_replica::divergence;
use cluster_replica::host::Host;
use cluster_replica::log::Limits;
use cluster_replica::role::{Confirmations, Policy, Promotion, Received, Step, Tail, TailOutcome};

use crate::common::{DB, Python, assert_same};

const NAMES: [&str; 3] = ["n-1", "n-2", "n-3"];

fn open(dir: &Path, node: &str) -> Host {
    let options = Options { checkpoint_frames: 100, ..Options::new(dir.join(node).join("app.db")) };
    Host::open(&dir.join(node).join("state"), options, node, DB, Limits::default(), 0).unwrap()
}

/// Brings `records` from `from` to `to`, with its questions and answers.
fn deliver(hosts: &mut [Option<Host>], from: usize, to: usize, records: &[Vec<u8>], confirmations: &mut Confirmations) {
    let mut behind = false;
    for record in records {
        let Some(host) = &mut hosts[to] else { return };
        behind |= host.receive(record).unwrap() == Received::Behind;
    }
    if behind {
        catch_up(hosts, from, to);
    }
    let host = hosts[to].as_mut().unwrap();
    if let Some(position) = host.settle().unwrap() {
        confirmations.confirm(NAMES[to], position.epoch, position.tx);
    }
}

fn catch_up(hosts: &mut [Option<Host>], from: usize, to: usize) {
    for _ in 0..1000 {
        let (_, position, chain) = hosts[to].as_ref().unwrap().ask();
        let giver = hosts[from].as_mut().unwrap();
        let epoch = giver.member().noted();
        let outcome = match giver.give(position, &chain, 100_000).unwrap() {
            Tail::Records { chain, records } => hosts[to].as_mut().unwrap().take_tail(epoch, &chain, &records).unwrap(),
            Tail::Snapshot { .. } => TailOutcome::Diverged(position),
        };
        let lost = hosts[to].as_ref().unwrap().applied().is_none();
        if lost || matches!(outcome, TailOutcome::Diverged(_)) {
            let mut chunks = Vec::new();
            let made = hosts[from].as_mut().unwrap().snapshot(0, |chunk| {
                chunks.push(chunk);
                Ok(())
            });
            let (at, chain) = made.unwrap();
            let host = hosts[to].as_mut().unwrap();
            host.take_snapshot(epoch, at, &chain, chunks.iter().map(Vec::as_slice)).unwrap();
        }
        if hosts[to].as_ref().unwrap().member().position() == hosts[from].as_ref().unwrap().member().position() {
            return;
        }
    }
    panic!("does not catch up");
}

fn poll(host: &mut Option<Host>) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    host.as_mut().unwrap().poll(Duration::ZERO, 0, |record| records.push(record.to_vec())).unwrap();
    records
}

fn ship(hosts: &mut [Option<Host>], from: usize, confirmations: &mut Confirmations) {
    let records = poll(&mut hosts[from]);
    for to in (0..3).filter(|to| *to != from) {
        deliver(hosts, from, to, &records, confirmations);
    }
}

/// D5, with all that are up.
fn promote(hosts: &mut [Option<Host>], at: usize, epoch: u64) -> Confirmations {
    let sealed: Vec<_> = hosts.iter_mut().map(|host| host.as_mut().map(|host| host.member_mut().seal(epoch).unwrap())).collect();
    let others = NAMES.iter().filter(|name| **name != NAMES[at]).map(|name| (*name).to_owned()).collect();
    let policy = Policy { confirm: 1, ..Policy::default() };
    let mut promotion = Promotion::new(NAMES[at], policy, Duration::ZERO, sealed[at].clone().unwrap(), others, 0);
    for (node, sealed) in sealed.into_iter().enumerate().filter(|(node, _)| *node != at) {
        if let Some(sealed) = sealed {
            promotion.answer(NAMES[node], sealed);
        }
    }
    let late = Duration::from_millis(200);
    if let Step::Fetch { from, .. } = promotion.decide(late) {
        let from = NAMES.iter().position(|name| *name == from).unwrap();
        catch_up(hosts, from, at);
        let host = hosts[at].as_ref().unwrap();
        promotion.fetched(host.member().position(), host.member().chain().clone());
    }
    assert!(matches!(promotion.decide(late), Step::Start { .. }), "{:?}", promotion.decide(late));
    hosts[at].as_mut().unwrap().begin(epoch, 0).unwrap();
    Confirmations::new(epoch)
}

#[test]
fn a_database_follows_its_active_through_crash_return_and_switchover() {
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let path = |at: usize| dir.path().join(NAMES[at]).join("app.db");
    let mut hosts: Vec<_> = NAMES.iter().map(|name| Some(open(dir.path(), name))).collect();
    // The first time the application makes its database, then the epoch begins.
    let mut app = Python::with_table(&path(0));
    let mut confirmations = promote(&mut hosts, 0, 1);
    for _ in 0..30 {
        app.run("load(10, 700)");
        ship(&mut hosts, 0, &mut confirmations);
    }
    // `db sync`: all that was committed before is on one standby at least.
    let head = hosts[0].as_ref().unwrap().member().position();
    assert_eq!((head.tx, confirmations.confirmed(1), confirmations.confirmed(2)), (301, 301, 301));
    // What nobody else has: 20 captured and not shipped, 5 not even captured.
    app.run("load(20, 700)");
    poll(&mut hosts[0]);
    app.run("load(5, 700)");
    app.kill();
    hosts[0] = None;

    let mut confirmations = promote(&mut hosts, 1, 2);
    let mut app = Python::start(&path(1));
    app.run("assert db.execute('SELECT count(*) FROM t').fetchone()[0] == 300");
    for _ in 0..5 {
        app.run("load(10, 900)");
        let records = poll(&mut hosts[1]);
        deliver(&mut hosts, 1, 2, &records, &mut confirmations);
    }
    assert_eq!(confirmations.confirmed(1), 351);

    // D9: the old active returns; what only it had is in a file, and it is a replica like the others.
    hosts[0] = Some(open(dir.path(), NAMES[0]));
    // Its old write-ahead log is read first: the five frame by frame, or as one where they stand in a log begun anew, which nobody held.
    let end = hosts[0].as_ref().unwrap().member().position().tx;
    assert!(end == 326 || end == 322, "{end}");
    app.run("load(1)");
    ship(&mut hosts, 1, &mut confirmations);
    let returned = hosts[0].as_ref().unwrap();
    assert_eq!(returned.applied(), Some(hosts[1].as_ref().unwrap().member().position()));
    let files = divergence::list(returned.member().log().storage()).unwrap();
    assert_eq!(files, [format!("divergence-e1-t302-t{end}")]);
    let lost = divergence::read(returned.member().log().storage(), DB, &files[0], |_| {}).unwrap();
    assert_eq!((lost.base.tx, lost.void.len() as u64), (301, end - 301));
    assert!(lost.void.iter().all(|void| void.epoch == 1 && !void.pages.is_empty()));
    assert_eq!(confirmations.confirmed(2), 352, "it confirms again");

    // D11: a switchover loses nothing.
    app.run("load(40)");
    app.quit();
    let mut rest = Vec::new();
    hosts[1].as_mut().unwrap().retire(0, |record| rest.push(record.to_vec())).unwrap();
    for to in [0, 2] {
        deliver(&mut hosts, 1, to, &rest, &mut confirmations);
    }
    assert_eq!(confirmations.confirmed(2), 392);
    let mut confirmations = promote(&mut hosts, 2, 3);
    let mut app = Python::start(&path(2));
    app.run("assert db.execute('SELECT count(*) FROM t').fetchone()[0] == 391");
    app.run("load(3)");
    ship(&mut hosts, 2, &mut confirmations);
    assert_eq!(confirmations.confirmed(2), 395);
    app.quit();
    assert_same(&path(2), &path(0));
    assert_same(&path(2), &path(1));
    let capture = hosts[2].as_ref().unwrap().capture().unwrap();
    assert!(capture.counters().resyncs.is_empty() && capture.counters().silent == 0);
}
