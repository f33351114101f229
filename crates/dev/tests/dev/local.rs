//! The local API of the nodes' agents.

use crate::world::Dev;

/// A process knows itself by the socket of its node alone; on the socket of another node it is nobody's.
#[test]
fn a_process_learns_who_it_is_from_the_socket_of_its_node() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "2"]);
    let out = home.path().join("out");
    // The grandchild asks: it descends from what the node started.
    let script = format!(
        "cd {}; curl -s --unix-socket $CLUSTERCTL_SOCKET http://x/v1/self > self.$CLUSTERCTL_NODE.new; \
         curl -s --unix-socket ../nodes/n1/run/local.sock http://x/v1/self > n1.$CLUSTERCTL_NODE.new; \
         for f in self n1; do mv $f.$CLUSTERCTL_NODE.new $f.$CLUSTERCTL_NODE; done; exec sleep 3600",
        out.display()
    );
    std::fs::create_dir(&out).expect("a folder");
    std::os::unix::fs::symlink(folder.join("nodes"), home.path().join("nodes")).expect("a link");
    dev.apply_shell("curious", "Spread", &script);
    let said = |file: &str| -> Option<serde_json::Value> { serde_json::from_slice(&std::fs::read(out.join(file)).ok()?).ok() };
    for node in ["n1", "n2"] {
        let me = dev.until("an answer", || said(&format!("self.{node}")));
        assert_eq!((me["app"].as_str(), me["node"].as_str(), me["role"].as_str()), (Some("curious"), Some(node), Some("Member")), "{me}");
    }
    assert_eq!(dev.until("an answer", || said("n1.n1"))["app"], "curious");
    // Of the same user as the agent, it may ask as an operator, and has to say about whom.
    assert_eq!(dev.until("an answer", || said("n1.n2"))["type"], "bad-request");
}

fn curl(dev: &Dev, node: &str, arguments: &[&str]) -> String {
    let socket = dev.folder.join("nodes").join(node).join("run/local.sock");
    let output = std::process::Command::new("curl").args(["-s", "--unix-socket"]).arg(socket).args(arguments).output();
    String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
}

/// Shared state from both sides: Apps by their node's socket, people by the command line; others only as far as the manifest grants.
#[test]
fn apps_share_state_and_others_only_what_is_granted() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "2"]);
    let out = home.path().join("answer");
    let apply = |name: &str, script: &str, grants: serde_json::Value| {
        let app = serde_json::json!({
            "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": name },
            "spec": { "mode": "Replicas", "replicas": 1, "grants": grants, "exec": { "command": ["/bin/sh", "-c", script] } },
        });
        let path = home.path().join(format!("{name}.json"));
        std::fs::write(&path, app.to_string()).expect("a written manifest");
        dev.apply(&path);
    };
    // What it finds it puts one higher, as long as nobody else did.
    let count = "while sleep 0.05; do \
        r=$(curl -s -D- -o /dev/null --unix-socket $CLUSTERCTL_SOCKET http://x/v1/kv/n | sed -n 's/^x-clusterctl-revision: \\([0-9]*\\).*/\\1/p'); \
        v=$(curl -s --unix-socket $CLUSTERCTL_SOCKET http://x/v1/kv/n); \
        curl -s -X PUT -H \"If-Match: $r\" --data-binary $((v + 1)) --unix-socket $CLUSTERCTL_SOCKET http://x/v1/kv/n; done";
    apply("one", count, serde_json::json!([]));
    let ask = format!(
        "while sleep 0.1; do curl -s --unix-socket $CLUSTERCTL_SOCKET 'http://x/v1/kv/n?app=one' > {0}.new; mv {0}.new {0}; done",
        out.display()
    );
    apply("two", &ask, serde_json::json!([]));
    let kv = |arguments: &[&str]| dev.says(&[&["kv"], arguments].concat());
    dev.until("the App to be there", || dev.run(&["kv", "list", "one"]).status.success().then_some(()));
    dev.until("a first value", || dev.run(&["kv", "put", "one", "n", "10", "--create"]).status.success().then_some(()));
    assert!(!dev.run(&["kv", "put", "one", "n", "10", "--create"]).status.success(), "it is there");
    let number = || kv(&["get", "one", "n"]).parse::<u64>().ok();
    dev.until("the App to have counted", || number().filter(|n| *n > 12));
    assert!(kv(&["list", "one"]).contains("\nn "), "{}", kv(&["list", "one"]));

    let answer = || std::fs::read_to_string(&out).unwrap_or_default();
    dev.until("a refusal", || answer().contains("does not grant StateRead").then_some(()));
    apply("one", count, serde_json::json!([{ "app": "two", "rights": ["StateRead"] }]));
    dev.until("a number", || answer().parse::<u64>().ok());

    // As an operator, on a node; a fast read and a list come from what the node follows.
    let written = curl(&dev, "n1", &["-X", "PUT", "--data-binary", "x y", "http://x/v1/kv/jobs/1?app=one&ttl=1h"]);
    assert!(written.contains("revision"), "{written}");
    let fast = || curl(&dev, "n2", &["http://x/v1/kv/jobs/1?app=one&read=fast"]);
    dev.until("the value on the other node", || (fast() == "x y").then_some(()));
    let listed: serde_json::Value = serde_json::from_str(&curl(&dev, "n2", &["http://x/v1/kv?app=one&prefix=jobs/"])).expect("JSON");
    assert_eq!((listed["items"][0]["key"].as_str(), listed["items"][0]["size"].as_u64()), (Some("jobs/1"), Some(3)), "{listed}");
    dev.ok(&["kv", "delete", "one", "jobs/1"]);
    dev.until("it to be gone", || fast().contains("no such key").then_some(()));
    let wrong = curl(&dev, "n1", &["-X", "PUT", "--data-binary", "x", "http://x/v1/kv/a..b?app=one"]);
    assert!(wrong.contains("is no key"), "{wrong}");
    let large = home.path().join("large");
    std::fs::write(&large, vec![b'x'; 300_000]).expect("a file");
    let refused = curl(&dev, "n1", &["-X", "PUT", "--data-binary", &format!("@{}", large.display()), "http://x/v1/kv/a?app=one"]);
    assert!(refused.contains("too-large"), "{refused}");
}

/// A watch tells what is, then what comes; who was away is told what he missed, deletions too.
#[test]
fn a_watch_of_shared_state_is_taken_up_where_it_ended() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "1"]);
    dev.apply_shell("one", "Spread", "exec sleep 3600");
    let put = |key: &str, value: &str| curl(&dev, "n1", &["-X", "PUT", "--data-binary", value, &format!("http://x/v1/kv/{key}?app=one")]);
    dev.until("a write", || put("a", "1").contains("revision").then_some(()));
    put("b", "1");
    let watch = |last: &str| -> String {
        // It ends by its time-out.
        let header = format!("Last-Event-ID: {last}");
        curl(&dev, "n1", &["-N", "-m", "2", "-H", &header, "http://x/v1/kv?app=one&watch=true"])
    };
    let told = dev.until("both keys", || Some(watch("0")).filter(|told| told.contains("\"key\":\"b\"")));
    assert!(told.contains("event: put") && told.contains("event: synced") && told.contains("\"value\":\"1\""), "{told}");
    let last = told.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("an id").to_owned();
    dev.ok(&["kv", "delete", "one", "a"]);
    let told = dev.until("the deletion", || Some(watch(&last)).filter(|told| told.contains("event: delete")));
    assert!(!told.contains("\"key\":\"b\""), "it is told only what is new: {told}");
}

/// The routing table of a ring, by any node's socket, is the one of the API, and each key is one member's.
#[test]
fn every_node_tells_where_a_key_lives() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "2"]);
    dev.apply_shell("cache", "Ring", "trap : HUP; while :; do sleep 1; done");
    dev.until("the ring to be Ready", || dev.is_ready("cache"));
    let ask = |node: &str, path: &str| -> serde_json::Value {
        serde_json::from_str(&curl(&dev, node, &[&format!("http://x/v1/ring/cache{path}app=cache")])).expect("JSON")
    };
    let table = dev.until("all partitions owned", || Some(ask("n1", "?")).filter(|table| table["unowned"] == ""));
    assert_eq!((table["partitions"].as_u64(), table["owners"].as_array().map(Vec::len)), (Some(256), Some(2)), "{table}");
    for key in ["user:7", "a", "b", "c"] {
        let located: serde_json::Value = serde_json::from_str(&dev.ok(&["ring", "locate", "cache", key, "-o", "json"])).expect("JSON");
        for node in ["n1", "n2"] {
            let owner = ask(node, &format!("/owner?key={key}&"));
            assert_eq!(
                (&owner["node"], &owner["partition"], &owner["epoch"]),
                (&located["node"], &located["partition"], &located["epoch"])
            );
            let mine = ask(node, &format!("/owner?key={key}&mine=true&"));
            assert_eq!(mine["mine"], *node == located["node"], "{mine} on {node}, {located}");
        }
    }
}

/// Who serves, by any node's socket: an instance leaves when its checks fail, and is back when they pass.
#[test]
fn every_node_tells_which_instances_serve() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "2"]);
    let sick = home.path().join("sick");
    let check = format!("test ! -e {}.$CLUSTERCTL_NODE", sick.display());
    let app = serde_json::json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "api" },
        "spec": {
            "mode": "Spread", "exec": { "command": ["/bin/sleep", "3600"] },
            "health": { "exec": { "command": ["/bin/sh", "-c", check] }, "interval": "200ms", "restarts": { "attempts": 0 } },
        },
    });
    let path = home.path().join("api.json");
    std::fs::write(&path, app.to_string()).expect("a written manifest");
    dev.apply(&path);
    let serving = |node: &str| {
        let answer: serde_json::Value = serde_json::from_str(&curl(&dev, node, &["http://x/v1/services/api?app=api"])).ok()?;
        let nodes = answer["instances"].as_array()?.iter().map(|instance| instance["node"].as_str().unwrap_or_default().to_owned());
        Some((nodes.collect::<Vec<_>>().join(","), answer["stale"].as_bool()?))
    };
    let until = |what: &str, expected: &str| {
        for node in ["n1", "n2"] {
            dev.until(what, || serving(node).filter(|found| *found == (expected.to_owned(), false)));
        }
    };
    until("both to serve", "n1,n2");
    let mark = sick.with_file_name("sick.n2");
    std::fs::write(&mark, "").expect("a file");
    until("the sick one to leave", "n1");
    std::fs::remove_file(&mark).expect("a file");
    until("it to be back", "n1,n2");
    assert!(curl(&dev, "n1", &["http://x/v1/services/nothing?app=api"]).contains("not-found"));
}
