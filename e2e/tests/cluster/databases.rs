//! A SQLite database that follows its Singleton.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::database::{DatabaseNode, DatabaseStatus};

use crate::cluster::{Cluster, LATER, SOON, ensure, wrong};
use crate::http;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 130);
const PORT: u16 = 8130;
const PATH: &str = "/data/notes.db";

/// Three nodes, none of which all the NATS servers are on.
const APP: &str = "\
apiVersion: cluster/v1
kind: App
metadata: { name: notes }
spec:
  exec: { command: [/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:8130\", --db, \"${database.path}\"] }
  vip: { address: 10.0.0.130/24, interface: eth0 }
  database: { path: /data/notes.db }
  placement: { nodes: [n3, n4, n5] }
";

fn post(text: &str) -> std::io::Result<http::Reply> {
    http::request(SocketAddr::from((VIP, PORT)), "POST", "/notes", &[], text, Duration::from_secs(1))
}

/// Writes notes named `prefix-NUMBER` through the VIP as long as `go_on`; the names of those that were acknowledged.
fn write(c: &Cluster, prefix: &str, mut go_on: impl FnMut(usize) -> bool + Send) -> Result<Vec<String>> {
    c.lab.as_client(|| {
        let mut acknowledged = Vec::new();
        let mut number = 0;
        while go_on(number) {
            let name = format!("{prefix}-{number}");
            if post(&name).is_ok_and(|reply| reply.status == 201) {
                acknowledged.push(name);
            }
            number += 1;
        }
        acknowledged
    })
}

/// All notes, as the active has them.
fn notes(c: &Cluster) -> Result<Vec<String>> {
    let reply = c.get(VIP, PORT, "/notes/all")?;
    ensure(reply.status == 200, || format!("{reply:?}"))?;
    Ok(reply.body.lines().map(ToOwned::to_owned).collect())
}

fn status(c: &Cluster) -> Result<Vec<DatabaseNode>> {
    let text = c.ctl(&["db", "status", "notes", "-o", "json"])?.ok()?;
    let status: DatabaseStatus = serde_json::from_str(&text).map_err(|error| wrong(format!("{error}: {text}")))?;
    Ok(status.nodes)
}

fn wait_replicated(c: &Cluster) -> Result<()> {
    let all = wait_until("the database to be replicated", LATER, || {
        let status = c.status("notes")?;
        let found = status.condition("Replicated").cloned().ok_or_else(|| wrong("no condition Replicated"))?;
        ensure(found.status.as_str() == "True", || format!("{found:?}; {:?}", self::status(c)))?;
        Ok::<_, cluster_e2e::LabError>(found)
    })?;
    ensure(all.message.contains("follow"), || format!("{all:?}"))
}

/// All three nodes have the same database, by its checksum, and nothing is wrong with it; and what one of them restores from the stream is that.
fn wait_same(c: &Cluster) -> Result<()> {
    wait_until("all nodes to have the same database", LATER, || {
        let ran = c.ctl(&["db", "verify", "notes"])?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let states: BTreeSet<&str> = lines.iter().filter_map(|line| line.split_once(": ")?.1.strip_suffix(": all is well")).collect();
        let restored = lines.iter().filter_map(|line| line.split_once("restored elsewhere ")).map(|(_, what)| what);
        let same = restored.filter(|what| states.iter().all(|state| what.contains(state)) && what.contains("as this node has it")).count();
        ensure(ran.code == 0 && lines.len() == 4 && states.len() == 1 && same == 1, || format!("{ran:?}"))
    })
}

fn begin(c: &Cluster) -> Result<(NodeId, u64)> {
    for node in c.lab.nodes() {
        c.lab.exec(node, ["sh", "-c", "rm -f /data/notes.db*"])?.ok()?;
    }
    c.apply(APP)?;
    c.wait_ready(&["notes"], SOON)?;
    wait_replicated(c)?;
    c.active("notes")
}

/// Waits until the store takes writes again: a server that was away may lead streams, and others are elected for seconds.
fn wait_store(c: &Cluster, manifest: &str) -> Result<()> {
    c.lab.wait_nats(LATER)?;
    let labelled = manifest.replace("{ name: notes }", "{ name: notes, labels: { again: \"yes\" } }");
    wait_until("the store to take writes", LATER, || c.apply(&labelled))
}

/// Power cut under load: the survivor has every write that a `db sync` covered, and of the later ones those up to some point. Returned, the old
/// active is a replica of the same content. A switchover under load loses nothing.
pub fn a_database_survives_its_active_and_loses_nothing_in_a_switchover(c: &Cluster) -> Result<()> {
    let (first, epoch) = begin(c)?;
    let before = write(c, "synced", |n| n < 200)?;
    assert_eq!(before.len(), 200);
    let told = c.ctl(&["db", "sync", "notes"])?.ok()?;
    assert!(told.contains(&format!("of {first} (epoch {epoch}) is on n")), "{told}");

    let (crashed, deadline) = (AtomicBool::new(false), Instant::now() + LATER);
    let acknowledged = std::thread::scope(|scope| {
        let lab = &c.lab;
        let crash = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            let outcome = lab.crash(first);
            crashed.store(true, Ordering::Relaxed);
            outcome
        });
        let written = write(c, "load", |_| !crashed.load(Ordering::Relaxed) && Instant::now() < deadline);
        crash.join().map_err(|_| wrong("the crash panicked"))??;
        written
    })?;
    let now = wait_until("the VIP to answer from another node", LATER, || {
        let (node, next) = c.active("notes")?;
        ensure(node != first && next > epoch, || format!("{node} is active with epoch {next}"))?;
        notes(c)
    })?;
    let load: Vec<String> = now.iter().filter(|name| name.starts_with("load")).cloned().collect();
    assert_eq!(now.iter().filter(|name| name.starts_with("synced")).cloned().collect::<Vec<_>>(), before);
    // A write whose answer was lost may be there too.
    let lost = acknowledged.iter().filter(|name| !load.contains(name)).count();
    let expected: Vec<String> = (0..load.len()).map(|n| format!("load-{n}")).collect();
    assert_eq!(load, expected, "a prefix of what was written");
    eprintln!("  {} writes before the crash acknowledged, {lost} of them not on the survivor", acknowledged.len());

    assert_eq!(write(c, "after", |n| n < 50)?.len(), 50);
    c.lab.boot(first)?;
    c.wait_nodes(LATER)?;
    wait_store(c, APP)?;
    wait_replicated(c)?;
    wait_same(c)?;

    let (from, epoch) = c.active("notes")?;
    let all = notes(c)?;
    let (moved, deadline) = (AtomicBool::new(false), Instant::now() + LATER);
    let written = std::thread::scope(|scope| {
        let writer = std::thread::Builder::new();
        let stop = &moved;
        let lab = &c.lab;
        let writer = writer.spawn_scoped(scope, move || {
            lab.as_client(|| {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) || Instant::now() > deadline {
                        break;
                    }
                    let name = format!("switch-{number}");
                    if post(&name).is_ok_and(|reply| reply.status == 201) {
                        acknowledged.push(name);
                    }
                }
                acknowledged
            })
        });
        let told = c.ctl(&["switchover", "notes"]);
        std::thread::sleep(Duration::from_millis(300));
        moved.store(true, Ordering::Relaxed);
        let written = writer.map_err(|error| wrong(error.to_string()))?.join().map_err(|_| wrong("the writer panicked"))?;
        eprintln!("  {}", told?.ok()?.trim_end().replace('\n', "; "));
        written
    })?;
    let (to, next) = c.active("notes")?;
    assert!(to != from && next > epoch);
    let now: BTreeSet<String> = wait_until("the notes", SOON, || notes(c))?.into_iter().collect();
    let lost: Vec<_> = all.iter().chain(&written).filter(|name| !now.contains(*name)).collect();
    assert!(lost.is_empty(), "{lost:?} are lost");
    wait_same(c)
}

/// An active that is cut off writes something that nobody else has. It is fenced, returns, and keeps it in a file that is listed; the
/// database of all nodes is the one of its successor.
pub fn what_only_a_cut_off_active_wrote_is_kept_as_divergence(c: &Cluster) -> Result<()> {
    let (first, epoch) = begin(c)?;
    assert_eq!(write(c, "both", |n| n < 20)?.len(), 20);
    c.ctl(&["db", "sync", "notes"])?.ok()?;
    c.lab.cut(first)?;
    let alone =
        format!("import sqlite3; db = sqlite3.connect('{PATH}'); db.execute(\"INSERT INTO notes (text) VALUES ('alone')\"); db.commit()");
    c.lab.exec(first, ["python3", "-c", &alone])?.ok()?;
    let now = wait_until("another to be active", LATER, || {
        let (node, next) = c.active("notes")?;
        ensure(node != first && next > epoch, || format!("{node} is active with epoch {next}"))?;
        notes(c)
    })?;
    assert_eq!(now, (0..20).map(|n| format!("both-{n}")).collect::<Vec<_>>());
    assert_eq!(write(c, "later", |n| n < 20)?.len(), 20);
    c.lab.heal(first)?;
    c.wait_nodes(LATER)?;
    wait_store(c, APP)?;
    let file = wait_until("the divergence to be listed", LATER, || {
        let nodes = status(c)?;
        let kept = nodes.iter().find(|node| node.node == first.to_string()).and_then(|node| node.divergences.first().cloned());
        kept.ok_or_else(|| wrong(format!("{nodes:?}")))
    })?;
    let listed = c.ctl(&["db", "divergence", "notes"])?.ok()?;
    assert!(listed.contains(&first.to_string()) && listed.contains(&file), "{listed}");
    let shown = c.ctl(&["db", "show-divergence", "notes", &first.to_string(), &file])?.ok()?;
    assert!(shown.contains("1 transactions after"), "{shown}");
    wait_replicated(c)?;
    wait_same(c)
}

/// P6: the agent of the active is killed under load, and comes back beside the unit that runs on: the same process, the same epoch, no page compared,
/// and nothing lost. A database that is taken away is told.
pub fn a_killed_agent_goes_on_following_its_database(c: &Cluster) -> Result<()> {
    let (active, epoch) = begin(c)?;
    let run = |c: &Cluster| Ok::<_, cluster_e2e::LabError>(c.runs_on(active)?.get("clusterctl-notes.service").copied());
    let before = run(c)?;
    assert!(before.is_some());
    for round in 0..3 {
        assert_eq!(write(c, &format!("before-{round}"), |n| n < 20)?.len(), 20);
        c.systemctl(active, &["kill", "--signal=SIGKILL", "cluster-agent.service"])?;
        assert_eq!(write(c, &format!("while-{round}"), |n| n < 40)?.len(), 40);
    }
    wait_replicated(c)?;
    let told = c.ctl(&["db", "sync", "notes"])?.ok()?;
    assert!(told.contains(&format!("of {active} (epoch {epoch})")), "{told}");
    assert_eq!((run(c)?, c.active("notes")?), (before, (active, epoch)));
    let nodes = status(c)?;
    let leads = nodes.iter().find(|node| node.node == active.to_string()).ok_or_else(|| wrong(format!("{nodes:?}")))?;
    assert_eq!((leads.role.as_str(), leads.resyncs, leads.observed.epoch), ("Active", 0, epoch), "{leads:?}");
    assert_eq!(notes(c)?.len(), 180);
    wait_same(c)?;

    c.lab.exec(active, ["mv", PATH, "/data/elsewhere.db"])?.ok()?;
    let gone = c.wait_condition("notes", "Replicated", |condition| condition.reason.starts_with("Database"))?;
    assert!(gone.message.starts_with(&format!("{active}: ")), "{gone:?}");
    c.lab.exec(active, ["mv", "/data/elsewhere.db", PATH])?.ok()?;
    wait_replicated(c)
}

/// With `confirm: 1` a take-over needs an answer from every standby: a write that one of them confirmed may be on any. It waits, with the reason,
/// until the missing one is back, or an operator accepts the loss. A folder that is missing is told, and the App is active elsewhere.
pub fn a_take_over_that_could_lose_a_confirmed_write_waits(c: &Cluster) -> Result<()> {
    let confirming = APP.replace("path: /data/notes.db }", "path: /data/notes.db, confirm: 1 }");
    for node in c.lab.nodes() {
        c.lab.exec(node, ["sh", "-c", "rm -f /data/notes.db*"])?.ok()?;
    }
    c.apply(&confirming)?;
    c.wait_ready(&["notes"], SOON)?;
    wait_replicated(c)?;
    let (first, epoch) = c.active("notes")?;
    assert_eq!(write(c, "kept", |n| n < 20)?.len(), 20);
    c.ctl(&["db", "sync", "notes"])?.ok()?;
    let early = c.ctl(&["db", "accept-loss", "notes", "--yes"])?;
    ensure(early.code == 1 && early.stderr.contains("no promotion is held back"), || format!("{early:?}"))?;

    // One standby is away while the active fails.
    let away = c.lab.nodes().skip(2).find(|node| *node != first).ok_or_else(|| wrong("no standby"))?;
    c.lab.cut(away)?;
    c.lab.cut(first)?;
    let held = wait_until("the take-over to wait", LATER, || {
        let status = c.status("notes")?;
        let found = status.condition("Replicated").cloned().ok_or_else(|| wrong("no condition"))?;
        ensure(found.reason == "TooFewStandbys", || format!("{found:?}"))?;
        Ok::<_, cluster_e2e::LabError>(found)
    })?;
    assert!(held.message.contains("1 of 2 standbys answer"), "{held:?}");
    let vip = c.get(VIP, PORT, "/notes");
    ensure(vip.is_err(), || format!("{vip:?} answers while nobody may"))?;
    c.lab.heal(away)?;
    let now = wait_until("the take-over to go on", LATER, || {
        let (node, next) = c.active("notes")?;
        ensure(node != first && next > epoch, || format!("{node} is active with epoch {next}"))?;
        notes(c)
    })?;
    assert_eq!(now.len(), 20);
    c.lab.heal(first)?;
    c.wait_nodes(LATER)?;
    wait_store(c, &confirming)?;
    wait_replicated(c)?;

    // The same again, and an operator decides.
    let (second, epoch) = c.active("notes")?;
    let away = c.lab.nodes().skip(2).find(|node| *node != second).ok_or_else(|| wrong("no standby"))?;
    c.lab.cut(away)?;
    c.lab.cut(second)?;
    wait_until("an operator to be let decide", LATER, || {
        let ran = c.ctl(&["db", "accept-loss", "notes", "--yes"])?;
        ensure(ran.code == 0, || format!("{ran:?}"))
    })?;
    wait_until("the last one to be active", LATER, || {
        let (node, next) = c.active("notes")?;
        ensure(node != second && node != away && next > epoch, || format!("{node} is active with epoch {next}"))?;
        let now = notes(c)?;
        ensure(now.len() == 20, || format!("{} notes", now.len()))
    })?;
    c.lab.heal(away)?;
    c.lab.heal(second)?;
    c.wait_nodes(LATER)?;
    wait_store(c, &confirming)?;
    wait_same(c)
}
