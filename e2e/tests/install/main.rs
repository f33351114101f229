//! Installing on bare machines word by word after docs/install.md, and what happens to machines and stores afterwards: renamed, doubled,
//! removed, lost. One lab of three machines with nothing but systemd, from the first step to the last.
//!
//! Needs root and what `scripts/setup` installs; without them it fails and says so.

#![expect(clippy::print_stderr, reason = "it takes minutes, so it tells how far it came")]

mod page;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cluster_e2e::{Lab, LabError, Ran, Result, UpOptions, wait_until};
use page::{Block, Place, Reader};

const PAGE: &str = include_str!("../../../docs/install.md");
const SOON: Duration = Duration::from_secs(60);

/// A pool on every machine and one exclusive service with a VIP.
const APPS: &str = "\
apiVersion: cluster/v1
kind: App
metadata: { name: web }
spec: { mode: Spread, exec: { command: [/usr/lib/clusterctl/demo, --listen, '0.0.0.0:8091'] } }
---
apiVersion: cluster/v1
kind: App
metadata: { name: database }
spec:
  exec: { command: [/usr/lib/clusterctl/demo, --listen, '0.0.0.0:8092'] }
  vip: { address: 10.0.0.100/24, interface: eth0 }
  # Longer than this machine may stand still: what is looked at is that nothing is stopped by what operators do.
  failover: { lease: 2s }
";

#[test]
fn a_cluster_is_installed_by_the_page_and_outlives_what_happens_to_machines_and_stores() {
    let lab = Lab::up_scoped(&UpOptions::new(3).empty().named("install")).unwrap();
    // A failure that panics has the lab say what its nodes logged last.
    play(&lab).unwrap();
}

fn play(lab: &Lab) -> Result<()> {
    let failed = |source| LabError::Io { action: "make the reader's commands".to_owned(), source };
    let commands = tempfile::tempdir().map_err(failed)?;
    let mut reader = Reader::new(lab, commands.path()).map_err(failed)?;
    let blocks = page::blocks(PAGE)?;
    assert!(blocks.len() >= 12, "the page has {} blocks", blocks.len());
    step("the page, word by word", || walk(lab, &mut reader, &blocks))?;
    step("a machine that was taken out joins again", || join_again(lab, &mut reader, &blocks))?;
    step("a second agent on a machine is refused", || second_agent(lab))?;
    step("a renamed machine is refused until that is accepted", || renamed(lab))?;
    step("a dead node is removed, and what waited for it goes on", || dead_node(lab))?;
    step("a living node is removed by force only, and joins again at its agent's start", || forced(lab))?;
    step("a store that is lost stops nothing, and is followed again once it is signed", || lost_store(lab))?;
    step("Apps that are lost alone are not taken for deleted", || lost_apps(lab))
}

fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let result = work();
    let so = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("{so} {:5.1} s  {what}", began.elapsed().as_secs_f64());
    result.map_err(|error| LabError::Invalid(format!("{what}: {}", error.chain())))
}

fn sh(lab: &Lab, machine: u8, script: &str) -> Result<Ran> {
    lab.exec(machine, ["bash", "-c", script])
}

fn ctl(lab: &Lab, machine: u8, arguments: &str) -> Result<Ran> {
    sh(lab, machine, &format!("clusterctl {arguments}"))
}

/// Name and the rest of each line of `clusterctl get KIND`.
fn listed(lab: &Lab, kind: &str) -> Result<BTreeMap<String, String>> {
    let text = ctl(lab, 1, &format!("get {kind} --no-headers"))?.ok()?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect())
}

fn wait_ready(lab: &Lab, app: &str, ready: &str) -> Result<()> {
    wait_until(&format!("{app} to be Ready with {ready}"), SOON, || {
        let apps = listed(lab, "apps").map_err(|error| error.chain())?;
        let shown = apps.get(app).cloned().unwrap_or_default();
        let words: Vec<&str> = shown.split_whitespace().collect();
        if words.get(1) == Some(&ready) && words.get(2) == Some(&"Ready") { Ok(()) } else { Err(format!("{apps:?}")) }
    })
}

fn wait_nodes(lab: &Lab, names: &[&str]) -> Result<()> {
    wait_until(&format!("the nodes {names:?} to be Ready and no others"), SOON, || {
        let nodes = listed(lab, "nodes").map_err(|error| error.chain())?;
        let ready = nodes.iter().all(|(_, rest)| rest.starts_with("Ready"));
        if ready && nodes.keys().map(String::as_str).eq(names.iter().copied()) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
}

/// Main processes of our units by machine and unit. All machines must be on.
fn processes(lab: &Lab, machines: &[u8]) -> Result<BTreeMap<(u8, String), u32>> {
    let mut found = BTreeMap::new();
    for &machine in machines {
        for app in ["web", "database"] {
            let pid = sh(lab, machine, &format!("systemctl show --value --property MainPID clusterctl-{app}.service"))?.ok()?;
            if let Ok(pid @ 1..) = pid.trim().parse() {
                found.insert((machine, app.to_owned()), pid);
            }
        }
    }
    Ok(found)
}

fn says(ran: &Ran, code: i32, part: &str) {
    assert!(ran.code == code && (ran.stdout.contains(part) || ran.stderr.contains(part)), "{part:?} with code {code}, but {ran:?}");
}

fn walk(lab: &Lab, reader: &mut Reader<'_>, blocks: &[Block]) -> Result<()> {
    for block in blocks {
        let began = Instant::now();
        let printed = reader.follow(block)?;
        eprintln!("   {:5.1} s  {:?}: {}", began.elapsed().as_secs_f64(), block.place, block.script.lines().next().unwrap_or_default());
        if block.script.contains("clusterctl init") {
            assert!(printed.contains("The cluster prod (") && printed.contains("clusterctl join-file | ssh"), "{printed}");
            assert_eq!(sh(lab, 1, "stat -c %a:%U /etc/clusterctl/token")?.ok()?, "600:root\n");
            let user = sh(lab, 1, "ps -o user= -C cluster-controller")?.ok()?;
            assert!(!user.trim().is_empty() && user.trim() != "root", "the controller runs as {user}");
        }
        if block.script.contains("describe app web") {
            wait_nodes(lab, &["m1", "m2", "m3"])?;
            wait_ready(lab, "web", "3/3")?;
            wait_voters(lab, &["m1", "m2", "m3"])?;
        }
        if block.script.contains("node remove m3") {
            wait_nodes(lab, &["m1", "m2"])?;
            wait_ready(lab, "web", "2/2")?;
            // Two nodes without a witness have one voter (rule B5.6).
            wait_voters(lab, &["m1"])?;
            assert_eq!(sh(lab, 3, "pgrep -x demo")?.stdout, "", "nothing is left on m3");
        }
    }
    Ok(())
}

/// The page's own steps for m3, once more.
fn join_again(lab: &Lab, reader: &mut Reader<'_>, blocks: &[Block]) -> Result<()> {
    let join = "ssh root@10.0.0.11 clusterctl join-file |\n  ssh root@10.0.0.13 clusterctl join --from - --node m3 --address 10.0.0.13 --controller";
    assert!(blocks.iter().any(|block| block.script.contains(join)), "the page joins m3 in another way now");
    reader.follow(&Block { place: Place::Build, script: join.to_owned() })?;
    sh(lab, 3, "systemctl enable --now cluster-guard cluster-agent cluster-controller")?.ok()?;
    wait_nodes(lab, &["m1", "m2", "m3"])?;
    wait_ready(lab, "web", "3/3")?;
    wait_voters(lab, &["m1", "m2", "m3"])?;
    // A machine that is configured is not configured again.
    let again = sh(lab, 3, "clusterctl join-file | clusterctl join --from - --node m4")?;
    says(&again, 2, "this machine is configured already");
    Ok(())
}

/// All nodes count in a set of just these voters (rule B5).
fn wait_voters(lab: &Lab, expected: &[&str]) -> Result<()> {
    wait_until(&format!("the voters to be {expected:?}"), Duration::from_secs(60), || {
        let shown = sh(lab, 1, "clusterctl get nodes -o json").and_then(Ran::ok).map_err(|error| error.chain())?;
        let list: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
        let known: Vec<Vec<&str>> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|node| node["status"]["voters"]["voters"].as_array().into_iter().flatten().filter_map(|v| v["node"].as_str()).collect())
            .collect();
        let agreed = !known.is_empty() && known.iter().all(|voters| voters == expected);
        if agreed { Ok(()) } else { Err(format!("the nodes know {known:?}")) }
    })
}

fn second_agent(lab: &Lab) -> Result<()> {
    let agent = "/usr/lib/clusterctl/cluster-agent";
    says(&sh(lab, 1, agent)?, 1, "another agent runs on this machine");
    // Nor does anybody rename the machine under an agent that runs.
    says(&sh(lab, 1, &format!("{agent} --accept-rename"))?, 1, "another agent runs on this machine");
    wait_nodes(lab, &["m1", "m2", "m3"])
}

fn renamed(lab: &Lab) -> Result<()> {
    let before = processes(lab, &[3])?;
    assert!(before.contains_key(&(3, "web".to_owned())), "{before:?}");
    sh(
        lab,
        3,
        "systemctl stop cluster-agent && sed -i 's/^node: m3/node: m4/' /etc/clusterctl/agent.yaml && systemctl start cluster-agent",
    )?;
    let show = "systemctl show --property ActiveState,ExecMainStatus,NRestarts cluster-agent";
    wait_until("the agent to have ended for good", SOON, || {
        let shown = sh(lab, 3, show).and_then(Ran::ok).map_err(|error| error.chain())?;
        if shown.contains("ExecMainStatus=78") && shown.contains("ActiveState=failed") { Ok(()) } else { Err(shown) }
    })?;
    says(&sh(lab, 3, "journalctl --no-pager -u cluster-agent -n 20")?, 0, "this machine was the node m3 of the cluster prod");
    assert_eq!(processes(lab, &[3])?, before, "a refused agent stops nothing");

    sh(lab, 3, "/usr/lib/clusterctl/cluster-agent --accept-rename && systemctl start cluster-agent")?.ok()?;
    wait_until("m4 instead of m3", SOON, || {
        let nodes = listed(lab, "nodes").map_err(|error| error.chain())?;
        let so = nodes.get("m4").is_some_and(|n| n.starts_with("Ready")) && nodes.get("m3").is_some_and(|n| n.starts_with("NotReady"));
        if so { Ok(()) } else { Err(format!("{nodes:?}")) }
    })?;
    ctl(lab, 1, "node remove m3")?.ok()?;
    wait_nodes(lab, &["m1", "m2", "m4"])?;
    wait_ready(lab, "web", "3/3")
}

fn dead_node(lab: &Lab) -> Result<()> {
    lab.crash(3)?;
    says(&ctl(lab, 1, "node remove m4")?, 1, "is alive");
    let waiting = ctl(lab, 1, "delete app web --timeout 8s")?;
    says(&waiting, 4, "m4");
    ctl(lab, 1, "node remove m4")?.ok()?;
    wait_until("the App to be gone", SOON, || match listed(lab, "apps") {
        Ok(apps) if !apps.contains_key("web") => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    wait_nodes(lab, &["m1", "m2"])?;
    // It comes back under the same name, and with it what belongs there.
    lab.boot(3)?;
    wait_nodes(lab, &["m1", "m2", "m4"])?;
    lab.write(1, "/root/apps.yaml", APPS, 0o644)?;
    ctl(lab, 1, "apply -f /root/apps.yaml")?.ok()?;
    wait_ready(lab, "web", "3/3")?;
    wait_ready(lab, "database", "1/1")
}

fn forced(lab: &Lab) -> Result<()> {
    let before = processes(lab, &[2])?;
    says(&ctl(lab, 1, "node remove m2")?, 1, "stop its agent there (systemctl disable --now cluster-agent)");
    let removed = ctl(lab, 1, "node remove m2 --force")?;
    says(&removed, 0, "m2 may still run");
    says(&removed, 0, "its agent was heard a moment ago");
    wait_nodes(lab, &["m1", "m4"])?;
    wait_ready(lab, "web", "2/2")?;
    wait_until("the agent of m2 to know", SOON, || {
        let journal = sh(lab, 2, "journalctl --no-pager -b -u cluster-agent -n 50").map_err(|error| error.chain())?;
        if journal.stdout.contains("this node was removed from the cluster") { Ok(()) } else { Err(journal.stdout) }
    })?;
    assert_eq!(processes(lab, &[2])?.get(&(2, "web".to_owned())), before.get(&(2, "web".to_owned())), "the pool goes on there");
    // Longer than an agent takes to look at its registration.
    std::thread::sleep(Duration::from_secs(12));
    wait_nodes(lab, &["m1", "m4"])?;

    sh(lab, 2, "systemctl restart cluster-agent")?.ok()?;
    wait_nodes(lab, &["m1", "m2", "m4"])?;
    wait_ready(lab, "web", "3/3")?;
    wait_ready(lab, "database", "1/1")?;
    assert_eq!(processes(lab, &[2])?.get(&(2, "web".to_owned())), before.get(&(2, "web".to_owned())), "and is adopted again");
    Ok(())
}

fn lost_store(lab: &Lab) -> Result<()> {
    let before = processes(lab, &[1, 2, 3])?;
    assert_eq!(before.len(), 4, "{before:?}");
    for bucket in ["apps", "nodes", "status", "assignments"] {
        delete_stream(lab, &format!("KV_prod-{bucket}"))?;
    }
    wait_until("a store that waits for a signature", Duration::from_secs(60), || {
        let shown = ctl(lab, 1, "recover").map_err(|error| error.chain())?;
        let so = shown.stdout.contains("the store is new, and nodes hold assignments of another") && !shown.stdout.contains("<unknown>");
        let all = ["m1", "m2", "m4"].iter().all(|node| shown.stdout.contains(&format!("\n{node} ")));
        if so && all && shown.stdout.contains("not in it: database, web") {
            Ok(())
        } else {
            Err(format!("{}{}", shown.stdout, shown.stderr))
        }
    })?;
    // Longer than any time-out of ours.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(processes(lab, &[1, 2, 3])?, before, "nothing was stopped");
    says(&ctl(lab, 1, "recover --yes")?, 1, "nodes run Apps that the store does not have: database, web");
    ctl(lab, 1, "apply -f /root/apps.yaml")?.ok()?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(processes(lab, &[1, 2, 3])?, before, "nothing is planned before it is signed");
    says(&ctl(lab, 1, "recover --yes")?, 0, "signed: the nodes follow the store");
    wait_ready(lab, "web", "3/3")?;
    wait_ready(lab, "database", "1/1")?;
    assert_eq!(processes(lab, &[1, 2, 3])?, before, "what ran is what was asked for, so it is the same");
    says(&ctl(lab, 1, "recover")?, 0, "there is nothing to recover");
    // Assignments flow again.
    lab.write(1, "/root/changed.yaml", &APPS.replace("8091", "8093"), 0o644)?;
    ctl(lab, 1, "apply -f /root/changed.yaml")?.ok()?;
    wait_until("the changed command on every machine", SOON, || {
        let now = processes(lab, &[1, 2, 3]).map_err(|error| error.chain())?;
        let changed = (1..=3).all(|n| now.get(&(n, "web".to_owned())).is_some_and(|pid| Some(pid) != before.get(&(n, "web".to_owned()))));
        if changed { Ok(()) } else { Err(format!("{now:?}")) }
    })?;
    wait_ready(lab, "web", "3/3")
}

fn lost_apps(lab: &Lab) -> Result<()> {
    let before = processes(lab, &[1, 2, 3])?;
    delete_stream(lab, "KV_prod-apps")?;
    wait_until("Apps that wait for a signature", SOON, || {
        let shown = ctl(lab, 1, "recover").map_err(|error| error.chain())?;
        if shown.stdout.contains("the bucket of Apps was deleted and made again") { Ok(()) } else { Err(shown.stdout) }
    })?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(processes(lab, &[1, 2, 3])?, before, "nothing was stopped");
    // This time the operator wants the pool gone.
    let only_database = APPS.split_once("---\n").map(|(_, rest)| rest).unwrap_or_default();
    lab.write(1, "/root/database.yaml", only_database, 0o644)?;
    ctl(lab, 1, "apply -f /root/database.yaml")?.ok()?;
    says(&ctl(lab, 1, "recover --yes --stop web")?, 0, "signed");
    wait_until("the pool to be stopped and nothing else", SOON, || {
        let now = processes(lab, &[1, 2, 3]).map_err(|error| error.chain())?;
        let left: BTreeMap<_, _> = before.iter().filter(|((_, app), _)| app == "database").map(|(k, v)| (k.clone(), *v)).collect();
        if now == left { Ok(()) } else { Err(format!("{now:?} instead of {left:?}")) }
    })?;
    wait_ready(lab, "database", "1/1")
}

/// Deletes a stream by one call in NATS' text protocol.
fn delete_stream(lab: &Lab, stream: &str) -> Result<()> {
    let call = || -> std::io::Result<String> {
        let mut stream_ = TcpStream::connect("10.0.0.11:4222")?;
        stream_.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream_, "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.DELETE.{stream} answer 0\r\n\r\n")?;
        let mut lines = BufReader::new(stream_);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            if let Some(length) = line.strip_prefix("MSG answer 1 ").and_then(|rest| rest.trim_end().rsplit(' ').next()?.parse().ok()) {
                let mut body = vec![0; length];
                lines.read_exact(&mut body)?;
                return Ok(String::from_utf8_lossy(&body).into_owned());
            }
            line.clear();
        }
        Err(std::io::ErrorKind::UnexpectedEof.into())
    };
    let answer = lab.as_client(call)?.map_err(|source| LabError::Io { action: format!("delete {stream}"), source })?;
    if answer.contains("\"success\":true") { Ok(()) } else { Err(LabError::Invalid(format!("{stream}: {answer}"))) }
}
