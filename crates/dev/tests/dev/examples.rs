//! The examples under manifests/examples, as their pages say.

use std::path::PathBuf;
use std::process::Command;

use crate::world::{Dev, get, programs, repository};

fn example(name: &str) -> PathBuf {
    repository().join("manifests/examples").join(name)
}

fn post(url: &str, body: &str) -> Option<serde_json::Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(std::time::Duration::from_secs(5))).build().into();
    agent.post(url).send(body).ok()?.body_mut().read_json().ok()
}

/// Every other manifest that has an `exec`; platform.yaml has a test of its own.
#[test]
fn the_manifests_run_as_they_stand() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    for (name, app, port) in [("spread", "web", 8091), ("replicas", "jobs", 8092), ("ring", "sessions", 8093)] {
        dev.apply(&repository().join(format!("manifests/{name}.yaml")));
        dev.until(&format!("{app} to be Ready"), || dev.is_ready(app));
        let node = dev.running(app, "Member").first().cloned().expect("a member");
        let address = dev.address(&node);
        let answer = dev.until("its answer", || get(&format!("http://{address}:{port}/")));
        assert_eq!((answer["app"].as_str(), answer["node"].as_str()), (Some(app), Some(node.as_str())));
    }
}

#[test]
fn the_examples_do_what_their_pages_say() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    for name in ["notes.yaml", "cache.yaml", "pool.yaml"] {
        dev.apply(&example(name));
    }

    let notes = format!("http://{}:8100", dev.vip("0.120"));
    dev.until("a note to be taken", || post(&format!("{notes}/notes"), "milk"));
    let noted = || get(&format!("{notes}/notes")).filter(|all| all[0]["text"] == "milk").map(drop);
    dev.until("the note", noted);
    let replicated = |c: &serde_json::Value| c["type"] == "Replicated" && c["status"] == "True";
    let conditions = || dev.app("notes")["status"]["conditions"].as_array().cloned().unwrap_or_default();
    dev.until("the notes to be replicated", || conditions().iter().any(replicated).then_some(()));
    dev.until("the note to be on a standby", || dev.run(&["db", "sync", "notes"]).status.success().then_some(()));

    let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap_or_default());
    let client = |words: &[&str]| {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(example("cache-client.py")).args(words).env("PATH", &path).env("CLUSTERCTL_SERVERS", &dev.servers);
        // Nothing where it gave up: the cluster may be busy for longer than it tries.
        serde_json::from_slice::<serde_json::Value>(&command.output().expect("python3 runs").stdout).unwrap_or_default()
    };
    for (key, value) in [("user:42", "Ada"), ("user:43", "Grace"), ("a", "b")] {
        // It is a cache: what is put while its partition is still on its way may be gone.
        dev.until("a value that stays", || {
            client(&["put", key, value]);
            (client(&["get", key])["value"] == value).then_some(())
        });
    }
    let never = dev.until("an answer", || Some(client(&["get", "never"])).filter(|answer| answer["node"].is_string()));
    assert!(never["value"].is_null(), "{never}");

    let pool = format!("http://{}:8102/", dev.vip("0.121"));
    let primes = dev.until("an answer of a worker", || post(&pool, "7\n8\n9\n11\n"));
    assert_eq!(primes["primes"], serde_json::json!([7, 11]));

    let first = dev.until("the node of the notes", || get(&notes)?["node"].as_str().map(ToOwned::to_owned));
    dev.play("kill", &first);
    dev.until("an answer of another node", || get(&notes)?["node"].as_str().filter(|node| *node != first).map(|_| ()));
    dev.until("the note that came along", noted);
    dev.until("a value that stays", || {
        client(&["put", "user:42", "Ada again"]);
        (client(&["get", "user:42"])["value"] == "Ada again").then_some(())
    });
}
