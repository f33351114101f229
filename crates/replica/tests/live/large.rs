//! What takes too long for every run: `cargo test -p cluster-replica --test live -- --ignored large`.

use std::time::Instant;

use cluster_replica::apply::Replica;

use crate::common::{DB, Pair, Python, assert_whole};

/// Applies the rest of the log, and compares all pages by their checksums.
fn bring_up(pair: &mut Pair, replica: &mut Replica) {
    pair.log.sync().unwrap();
    while replica.apply(&pair.log).unwrap() != pair.log.head() {}
    assert_eq!(replica.read_all().unwrap().total(), pair.log.head().checksum);
    let verified = pair.capture.as_mut().unwrap().verify(&mut pair.log, 0).unwrap();
    assert_eq!(verified.wrong, [] as [u32; 0]);
}

#[test]
#[ignore = "3 GB of disk and a minute or two"]
fn beyond_the_lock_page_and_a_transaction_of_200_mb() {
    let mut pair = Pair::new();
    let mut app = Python::start(&pair.path());
    app.run("db.executescript('PRAGMA page_size=65536; PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)')");
    app.run("db.execute('PRAGMA synchronous=OFF')");
    pair.begin().unwrap();
    let path = pair.dir.path().join("replica.db");
    let mut replica = Replica::open(&path, DB, &pair.log).unwrap();
    let begun = Instant::now();
    // The lock page of this size of pages is number 16385: 1 GiB.
    for _ in 0..6 {
        pair.follow(&mut app, "db.execute('BEGIN'); load(2000, 100000); db.execute('COMMIT')");
        bring_up(&mut pair, &mut replica);
        pair.log.release(pair.log.head().tx).unwrap();
    }
    let pages = replica.sums().pages();
    assert!(pages > 17_000, "{pages} pages do not reach beyond the lock page");
    assert_eq!(replica.sums().get(16_385), Some(0), "the lock page counts nothing");
    pair.follow(&mut app, "db.execute('DELETE FROM t WHERE id % 2 = 0')");
    pair.follow(&mut app, "db.execute('UPDATE t SET b = randomblob(70000) WHERE id > 11000')");
    bring_up(&mut pair, &mut replica);
    drop(replica);
    assert_whole(&path);
    println!("{pages} pages of 64 KiB in {:?}", begun.elapsed());
    app.quit();
}
