//! What people do with a dev cluster: apply, take a node's power, have one stand still, heal it.

use std::collections::BTreeSet;

use crate::world::{Dev, LIMIT, get, repository};

/// The whole: four patterns, a VIP, a node without power, a node that stands still, each healed.
#[test]
fn a_platform_survives_a_node_without_power_and_one_that_stands_still() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "4"]);
    dev.apply(&repository().join("manifests/platform.yaml"));
    for app in ["database", "cache", "api", "workers"] {
        dev.until(&format!("{app} to be Ready"), || dev.is_ready(app));
    }
    let url = format!("http://{}:8080/", dev.vip("0.100"));
    let answers = || get(&url)?["node"].as_str().map(ToOwned::to_owned);
    let first = dev.until("an answer at the VIP", answers);
    // Under the load of others it may have moved meanwhile: the two agree in the end.
    let agreed = || (dev.running("database", "Active") == [answers()?]).then_some(());
    dev.until("the active node to be the one that answers", agreed);

    dev.play("kill", &first);
    let second = dev.until("an answer from another node", || answers().filter(|node| *node != first));
    assert!(dev.status().contains("has no power"));
    dev.play("heal", &first);
    dev.until("the API on all four", || (dev.running("api", "Member").len() == 4).then_some(()));
    let partitions = || {
        let ring: serde_json::Value = serde_json::from_str(&dev.says(&["ring", "show", "cache", "-o", "json"])).ok()?;
        let owners: BTreeSet<&str> = ring["owners"].as_array()?.iter().filter_map(|o| o["node"].as_str()).collect();
        (owners.len() == 4 && ring["unowned"] == "").then_some(())
    };
    dev.until("all partitions on four nodes", partitions);

    dev.play("pause", &second);
    dev.until("an answer from a third node", || answers().filter(|node| *node != second));
    // What stood still does not go on as the active one: its guard looks before it runs.
    dev.play("heal", &second);
    dev.until("the paused node as a standby", || (dev.running("api", "Member").len() == 4).then_some(()));
    dev.until("one active node, and its answer", agreed);
    dev.ok(&["delete", "-f", &repository().join("manifests/platform.yaml").to_string_lossy()]);
}

/// `Restart=on-failure`, and a reload by the signal that the unit's text names.
#[test]
fn a_process_that_dies_is_started_again() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "1"]);
    let file = home.path().join("pids");
    dev.apply_shell("brittle", "Spread", &format!("echo $$ >> {}; exec sleep 3600", file.display()));
    let pids = || -> Vec<i32> { std::fs::read_to_string(&file).unwrap_or_default().lines().filter_map(|l| l.parse().ok()).collect() };
    let first = dev.until("a process", || pids().first().copied());
    dev.until("it runs", || (dev.running("brittle", "Member").len() == 1).then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).expect("a signal");
    let second = dev.until("another process", || pids().get(1).copied());
    assert_ne!(first, second);
    dev.until("it runs again", || (dev.running("brittle", "Member").len() == 1).then_some(()));
}

#[test]
fn an_installed_unit_is_refused_with_a_hint() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "1"]);
    dev.apply(&repository().join("manifests/singleton.yaml"));
    dev.until("the hint", || dev.says(&["describe", "app", "proxy"]).contains("clusterctl dev has no systemd").then_some(()));
}

/// What was stored is there again, and so is what runs.
#[test]
fn a_kept_cluster_goes_on() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let mut dev = Dev::start(&folder, &["--keep", "--nodes", "3"]);
    dev.apply_shell("stays", "Spread", "exec sleep 3600");
    dev.until("three instances", || (dev.running("stays", "Member").len() == 3).then_some(()));
    assert!(dev.end(nix::sys::signal::Signal::SIGTERM).success());
    assert!(folder.join("cluster.json").exists());
    let dev = Dev::start(&folder, &["--keep"]);
    dev.until("three instances again", || (dev.running("stays", "Member").len() == 3).then_some(()));
}

/// The one NATS server of all nodes is killed: it is back on its port, and everything goes on.
#[test]
fn a_server_that_dies_is_started_again() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "3"]);
    dev.apply_shell("before", "Spread", "exec sleep 3600");
    dev.until("three instances", || (dev.running("before", "Member").len() == 3).then_some(()));
    let server = || -> i32 {
        let record = std::fs::read(folder.join("running/nats")).expect("a record");
        let group: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        i32::try_from(group["leader"].as_i64().expect("a number")).expect("a process id")
    };
    let first = server();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).expect("a signal");
    dev.until("another server", || (server() != first).then_some(()));
    let manifest = folder.with_extension("after.json");
    let app = serde_json::json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "after" },
        "spec": { "mode": "Singleton", "exec": { "command": ["/bin/sleep", "3600"] } },
    });
    std::fs::write(&manifest, app.to_string()).expect("a written manifest");
    dev.until("the store to take an App", || dev.run(&["apply", "-f", &manifest.to_string_lossy()]).status.success().then_some(()));
    dev.until("an active instance", || (dev.running("after", "Active").len() == 1).then_some(()));
}

/// No majority is heard: what is exclusive ends at its deadline, by the guard or, where that comes late, by the agent; pools go on.
#[test]
fn without_a_majority_what_is_exclusive_ends() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "3"]);
    let file = home.path().join("pids");
    let manifest = folder.with_extension("only.json");
    let app = serde_json::json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "only" },
        "spec": {
            "mode": "Singleton",
            "exec": { "command": ["/bin/sh", "-c", format!("echo $$ >> {}; exec sleep 3600", file.display())] },
            "vip": { "address": "10.0.0.130/24", "interface": "eth0" },
        },
    });
    std::fs::write(&manifest, app.to_string()).expect("a written manifest");
    dev.apply(&manifest);
    dev.apply_shell("all", "Spread", "exec sleep 3600");
    dev.until("an active instance", || (dev.running("only", "Active").len() == 1).then_some(()));
    dev.until("three instances", || (dev.running("all", "Member").len() == 3).then_some(()));
    let pids = || -> Vec<i32> { std::fs::read_to_string(&file).unwrap_or_default().lines().filter_map(|l| l.parse().ok()).collect() };
    let last = pids().last().copied().expect("a process");
    let record = std::fs::read(folder.join("running/nats")).expect("a record");
    let group: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let server = nix::unistd::Pid::from_raw(i32::try_from(group["leader"].as_i64().expect("a number")).expect("a process id"));
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGSTOP).expect("a signal");
    let begun = std::time::Instant::now();
    // The API cannot answer meanwhile, so nothing is asked of it.
    while cluster_dev::kernel::stat(last).is_some_and(|stat| stat.lives()) {
        assert!(begun.elapsed() < LIMIT, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGCONT).expect("a signal");
    dev.until("another process", || pids().last().copied().filter(|pid| *pid != last));
    dev.until("three instances", || (dev.running("all", "Member").len() == 3).then_some(()));
}

/// Hooks run as commands of their own, once for each partition.
#[test]
fn hooks_run_for_each_partition() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "1"]);
    let file = home.path().join("owned");
    let manifest = folder.with_extension("ring.json");
    let hook = format!("echo $CLUSTERCTL_PARTITION >> {}", file.display());
    let app = serde_json::json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "hooked" },
        "spec": {
            "mode": "Ring", "ring": { "partitions": 4 },
            "exec": { "command": ["/bin/sh", "-c", "trap : HUP; while :; do sleep 1; done"] },
            "hooks": { "onOwn": { "command": ["/bin/sh", "-c", hook] } },
        },
    });
    std::fs::write(&manifest, app.to_string()).expect("a written manifest");
    dev.apply(&manifest);
    dev.until("the ring to be Ready", || dev.is_ready("hooked"));
    let owned = std::fs::read_to_string(&file).expect("what the hooks wrote");
    assert_eq!(owned.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["0", "1", "2", "3"]));
}

/// Hot standbys run everywhere: a take-over is a role file and a reload, and no process is started.
#[test]
fn a_hot_standby_takes_over_in_the_process_that_runs() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "3"]);
    let manifest = folder.with_extension("hot.json");
    let app = serde_json::json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "hot" },
        "spec": { "mode": "Singleton", "standby": "Hot", "exec": { "command": ["/usr/lib/clusterctl/demo", "--listen", "0.0.0.0:8110"] } },
    });
    std::fs::write(&manifest, app.to_string()).expect("a written manifest");
    dev.apply(&manifest);
    let nodes = ["n1", "n2", "n3"].map(|node| (node, dev.address(node)));
    let said = |node: &str| {
        let (_, address) = nodes.iter().find(|(name, _)| *name == node)?;
        get(&format!("http://{address}:8110/"))
    };
    let active = || nodes.iter().map(|(node, _)| *node).find(|node| said(node).is_some_and(|s| s["role"] == "Active"));
    dev.until("three instances", || nodes.iter().all(|(node, _)| said(node).is_some()).then_some(()));
    let first = dev.until("an active one", active);
    dev.until("the App to be Ready", || dev.is_ready("hot"));
    let started = |node: &str| dev.until("an answer", || said(node))["startedAt"].clone();
    let before = nodes.each_ref().map(|(node, _)| (*node, started(node)));
    dev.play("kill", first);
    let second = dev.until("another active one", || active().filter(|node| *node != first));
    assert!(before.contains(&(second, started(second))), "{second} was started anew");
}
