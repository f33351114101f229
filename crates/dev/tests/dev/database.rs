//! What is durable of a database: its stream, its snapshots, and a database made anew from them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::world::{Dev, get, repository};

fn post(url: &str, text: &str) -> Option<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(std::time::Duration::from_secs(5))).build().into();
    agent.post(url).send(text).ok()?.body_mut().read_json().ok()
}

fn note(dev: &Dev, text: &str) {
    let url = format!("http://{}:8100/notes", dev.vip("0.120"));
    dev.until("a note to be taken", || post(&url, text));
}

/// The active's transaction once it is in the stream too.
fn durable(dev: &Dev) -> u64 {
    // What is committed is captured a moment later.
    dev.until("a standby to have all of it", || dev.run(&["db", "sync", "notes"]).status.success().then_some(()));
    dev.until("the stream to have all of it", || {
        let status: Value = serde_json::from_slice(&dev.run(&["db", "status", "notes", "-o", "json"]).stdout).ok()?;
        let active = status["nodes"].as_array()?.iter().find(|node| node["role"] == "Active")?.clone();
        let transaction = active["transaction"].as_u64().filter(|transaction| *transaction > 0)?;
        (active["durable"].as_u64() == Some(transaction)).then_some(transaction)
    })
}

/// The notes in a file, as SQLite reads them.
#[track_caller]
fn notes(path: &Path) -> Vec<String> {
    read_notes(path).expect("notes in the file")
}

/// The same, of a file that may be in the making.
fn read_notes(path: &Path) -> Result<Vec<String>, String> {
    let script = "import sqlite3, sys\n\
        base = sqlite3.connect('file:' + sys.argv[1] + '?mode=rw', uri=True)\n\
        for row in base.execute('SELECT text FROM notes ORDER BY number'): print(row[0])";
    let ran = Command::new("/usr/bin/python3").args(["-c", script]).arg(path).output().expect("python3 runs");
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).lines().map(ToOwned::to_owned).collect())
}

/// Asks the NATS server of the cluster for something, as an operator's tool would.
fn api(dev: &Dev, subject: &str) -> String {
    let ports = std::fs::read_dir(dev.folder.join("nats/ports")).expect("a folder").flatten().next().expect("a file of ports");
    let ports: Value = serde_json::from_slice(&std::fs::read(ports.path()).expect("ports")).expect("JSON");
    let url = ports["nats"][0].as_str().expect("an address").replace("nats://", "");
    let mut server = TcpStream::connect(url).expect("a connection");
    let ask = format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{subject} answer 0\r\n\r\n");
    server.write_all(ask.as_bytes()).expect("a question");
    let lines = BufReader::new(server).lines().map(|line| line.expect("an answer"));
    lines.skip_while(|line| !line.starts_with("MSG answer")).nth(1).expect("an answer")
}

#[test]
fn what_is_durable_makes_the_database_anew_across_a_crash_and_a_purged_stream() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    dev.apply(&repository().join("manifests/examples/notes.yaml"));
    // Each of the three votes: else the one that goes might be a majority.
    dev.until("three voters", || (dev.says(&["get", "voters", "-o", "name"]).lines().count() == 3).then_some(()));
    let mut written: Vec<String> = Vec::new();
    let write = |written: &mut Vec<String>, prefix: &str| {
        for number in 0..10 {
            let text = format!("{prefix}-{number}");
            note(&dev, &text);
            written.push(text);
        }
    };
    let restored = |name: &str| {
        let path = home.path().join(name);
        let said = dev.ok(&["db", "restore", "notes", "--to", &path.display().to_string()]);
        (said, notes(&path))
    };
    write(&mut written, "first");
    durable(&dev);
    let (said, found) = restored("from-stream.db");
    assert!(said.contains("from the stream: transaction"), "{said}");
    assert_eq!(found, written);
    let again = dev.run(&["db", "restore", "notes", "--to", &home.path().join("from-stream.db").display().to_string()]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("exists already"), "{again:?}");

    // Another node goes on with the stream, in its own epoch.
    let vip = format!("http://{}:8100", dev.vip("0.120"));
    let active = dev.until("the active node", || get(&vip)?["node"].as_str().map(ToOwned::to_owned));
    durable(&dev);
    dev.play("kill", &active);
    dev.until("another node", || get(&vip)?["node"].as_str().filter(|node| *node != active).map(drop));
    write(&mut written, "second");
    durable(&dev);
    assert_eq!(restored("across-epochs.db").1, written);

    // Somebody empties the stream: the active notices, and a snapshot stands for what is gone.
    let purged = api(&dev, "STREAM.PURGE.dev-db-notes");
    assert!(purged.contains("\"success\":true"), "{purged}");
    write(&mut written, "third");
    durable(&dev);
    // It ends with an error all the same: the killed node says nothing of its own.
    dev.until("the stream to be healed", || {
        let ran = dev.run(&["db", "verify", "notes"]);
        String::from_utf8_lossy(&ran.stdout).contains("restored elsewhere from the stream: transaction").then_some(())
    });
    assert_eq!(restored("after-a-purge.db").1, written);

    // A snapshot in the object store goes without its stream.
    let said = dev.ok(&["db", "snapshot", "notes", "--keep", "2"]);
    assert!(said.contains("is kept, 1 are there"), "{said}");
    write(&mut written, "fourth");
    durable(&dev);
    let (said, found) = restored("from-snapshot.db");
    assert!(said.contains("from snapshot e") && found == written, "{said}: {found:?}");
}

/// The file is removed and the application starts anew, with an empty one: nobody gets that, until somebody decides what counts.
#[test]
fn a_deleted_database_is_told_and_never_replicated_as_an_empty_one() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "2", "--lease", "3s"]);
    dev.apply(&repository().join("manifests/examples/notes.yaml"));
    let mut written: Vec<String> = Vec::new();
    for number in 0..10 {
        written.push(format!("note-{number}"));
        note(&dev, &written[number]);
    }
    dev.until("a standby to have all of it", || dev.run(&["db", "sync", "notes"]).status.success().then_some(()));
    let vip = format!("http://{}:8100", dev.vip("0.120"));
    let asked = || Some((get(&vip)?["node"].as_str()?.to_owned(), get(&vip)?["pid"].as_i64()?));
    let (active, pid) = dev.until("an answer", asked);
    let file = |node: &str| dev.folder.join("nodes").join(node).join("data/data/notes.db");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(file(&active).with_file_name(format!("notes.db{suffix}"))).expect("a file of the database");
    }
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).expect("a signal");
    let node = dev.until("the application again", || asked().filter(|(_, now)| *now != pid)).0;
    assert_eq!(node, active, "it is started again where it was");
    note(&dev, "in another file");
    let replicated = || {
        let app = dev.app("notes");
        let conditions = app["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == "Replicated")
    };
    let reason = |wanted: &str| {
        let is = |c: &Value| c["status"] == "False" && c["reason"] == wanted;
        dev.until(wanted, || replicated().filter(is).map(drop));
    };
    reason("DatabaseReplaced");
    let standby = if active == "n1" { "n2" } else { "n1" };
    assert_eq!(notes(&file(standby)), written);
    assert!(!dev.run(&["db", "sync", "notes", "--timeout", "1s"]).status.success(), "what is in the other file is on no standby");

    // The standby has what counts; what was written into the other file stays beside it.
    dev.ok(&["switchover", "notes", "--to", standby, "--timeout", "60s"]);
    let listed = || {
        let listed = get(&format!("{vip}/notes"))?;
        Some(listed.as_array()?.iter().map(|note| note["text"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>())
    };
    dev.until("what was written before", || listed().filter(|listed| *listed == written));
    dev.until("the old active to have it", || {
        (file(&active).exists() && read_notes(&file(&active)).as_ref() == Ok(&written)).then_some(())
    });
    let folder = std::fs::read_dir(file(&active).parent().expect("a folder")).expect("a listing").flatten();
    let aside = folder.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("notes.db.before-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    assert_eq!(notes(&aside.expect("what was written into the other file")), ["in another file"]);
}
