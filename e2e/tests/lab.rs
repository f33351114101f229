//! The lab itself: what the scenarios rely on is so.
//!
//! Needs root and what `scripts/setup` installs; without them it fails and says so.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and tells figures by printing")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_e2e::{Frame, Lab, LabError, Link, NATS_PORT, NodeId, Power, Result, Tap, UpOptions, wait_until};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

const SOON: Duration = Duration::from_secs(30);

fn bare(name: &str, nodes: u8) -> UpOptions {
    UpOptions::new(nodes).bare().named(name)
}

/// Everything on the host that belongs to a lab of this name.
fn traces_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let names = |dir: &str| -> Vec<String> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()).collect()
    };
    for dir in ["/run/netns", "/run/clusterctl-lab", "/var/tmp/clusterctl-lab"] {
        found.extend(names(dir).into_iter().filter(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(name))));
    }
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
        found.extend(names(&format!("{root}/clusterctl-lab")).into_iter().filter(|path| path.ends_with(&format!("/{name}"))));
    }
    for process in names("/proc").iter().filter(|path| path[6..].parse::<u32>().is_ok()) {
        // A process that ends while we look is no trace.
        let read = |file: &str| fs::read_to_string(format!("{process}/{file}")).unwrap_or_default();
        let cgroup = read("cgroup").contains(&format!("/clusterctl-lab/{name}/"));
        let mounts = read("mountinfo").contains(&format!("clusterctl-lab/{name}/"));
        if cgroup || mounts {
            found.push(format!("{process}: {} (cgroup {cgroup}, mounts {mounts})", read("comm").trim()));
        }
    }
    found
}

fn host_links() -> BTreeSet<String> {
    fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn carrier(lab: &Lab, node: u8) -> Result<bool> {
    lab.exec(node, ["ip", "-brief", "link", "show", "dev", "eth0"])?.ok().map(|shown| shown.contains("LOWER_UP"))
}

fn nats_addr(node: u8) -> SocketAddr {
    (NodeId::from(node).addr(), NATS_PORT).into()
}

/// Whether the node's NATS server greets a client: the way there and back works, and the node's processes run.
fn greets(lab: &Lab, node: u8) -> Result<(), String> {
    let greeting = || -> std::io::Result<String> {
        let stream = TcpStream::connect_timeout(&nats_addr(node), Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    match lab.as_client(greeting).map_err(|error| error.chain())? {
        Ok(line) if line.starts_with("INFO ") => Ok(()),
        Ok(line) => Err(line),
        Err(error) => Err(error.to_string()),
    }
}

/// One JetStream API call in NATS' text protocol.
fn jetstream(node: u8, subject: &str, body: &str) -> std::io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect_timeout(&nats_addr(node), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "CONNECT {{\"verbose\":false}}\r\nSUB reply 1\r\nPUB $JS.API.{subject} reply {}\r\n{body}\r\n", body.len())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        if line.starts_with("MSG reply 1 ") {
            let length = line.trim_end().rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let mut text = vec![0; length];
            stream.read_exact(&mut text)?;
            return Ok(serde_json::from_slice(&text)?);
        }
        line.clear();
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// The life of one lab, step by step: starting a lab for each would take longer than all steps.
#[test]
fn one_lab_from_up_to_down() -> Result<()> {
    let links = host_links();
    let lab = Lab::up_scoped(&bare("selftest", 3))?;
    assert_eq!(host_links(), links, "the lab added an interface to the host");
    assert_eq!(lab.status()?.iter().map(|node| node.units["nats-server"].as_str()).collect::<Vec<_>>(), ["active"; 3]);
    assert!(lab.nats_leader()?.is_some());

    streams_have_three_replicas(&lab)?;
    commands_run_inside(&lab)?;
    the_client_is_outside(&lab)?;
    cut_is_seen_by_the_node_and_drop_is_not(&lab)?;
    pause_stops_time_and_resume_goes_on(&lab)?;
    crash_lets_nothing_out_and_boot_keeps_the_disk(&lab)?;
    impossible_things_are_refused(&lab)?;

    lab.down()?;
    assert_eq!(traces_of("selftest"), [""; 0]);
    assert_eq!(host_links(), links);
    assert!(matches!(Lab::attach("selftest"), Err(LabError::NotUp { .. })));
    Ok(())
}

fn streams_have_three_replicas(lab: &Lab) -> Result<()> {
    let stream = r#"{"name":"T","subjects":["t"],"num_replicas":3,"storage":"file"}"#;
    let created = wait_until("a replicated stream", SOON, || {
        let reply = lab.as_client(|| jetstream(2, "STREAM.CREATE.T", stream)).map_err(|error| error.chain())?;
        let reply = reply.map_err(|error| error.to_string())?;
        if reply["error"].is_null() { Ok(reply) } else { Err(reply["error"].to_string()) }
    })?;
    assert_eq!(created["config"]["num_replicas"], 3);
    assert_eq!(created["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{created}");
    Ok(())
}

fn commands_run_inside(lab: &Lab) -> Result<()> {
    let ran = lab.exec(2, ["sh", "-c", "hostname; cat /proc/1/comm; cat; echo oops >&2; exit 42"])?;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (42, "n2\nsystemd\n", "oops\n"));
    assert!(matches!(lab.exec(2, ["false"])?.ok(), Err(LabError::Failed { code: 1, .. })));
    assert_eq!(lab.exec(2, ["no-such-program"])?.code, 127);

    // The same through the program, where the code is the process's own and input is passed on.
    let mut shell = Command::new(env!("CARGO_BIN_EXE_lab"));
    shell.args(["--name", "selftest", "exec", "n3", "--", "sh", "-c", "read word; hostname; echo $word; exit 7"]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let done = shell.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(7), b"n3\nhello\n".as_slice()));

    // Nodes are their own: identity, journal, and nothing of the host's clusterctl or enabled units.
    let own = |path: &str| lab.nodes().map(|node| lab.read(node, path)).collect::<Result<BTreeSet<_>>>();
    assert_eq!(own("/etc/machine-id")?.len(), 3);
    assert_eq!(own("/proc/sys/kernel/random/boot_id")?.len(), 3);
    assert!(lab.exec(1, ["journalctl", "--unit=nats-server", "--no-pager"])?.ok()?.contains("Server is ready"));
    let enabled = lab.exec(1, ["systemctl", "list-unit-files", "--state=enabled", "--no-legend"])?.ok()?;
    assert_eq!(enabled.split_whitespace().next(), Some("nats-server.service"), "{enabled}");
    assert_eq!(enabled.lines().count(), 1, "{enabled}");
    assert_eq!(lab.read(3, "/etc/clusterctl/agent.yaml")?.lines().nth(1), Some("node: n3"));

    // Ten in a row: what it costs in a test that asks often.
    let started = Instant::now();
    for _ in 0..10 {
        lab.exec(1, ["true"])?.ok()?;
    }
    assert!(started.elapsed() < Duration::from_secs(5), "an exec takes {:?}", started.elapsed() / 10);
    Ok(())
}

fn the_client_is_outside(lab: &Lab) -> Result<()> {
    let shown = lab.client(["sh", "-c", "ip -4 -brief address show dev eth0; cat $CLUSTERCTL_CONFIG"])?.ok()?;
    for expected in ["10.99.0.100/16", "10.0.0.200/24", "http://10.99.0.13:7070"] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    // A VIP as the manifests have it is reachable, on whatever node it is.
    lab.exec(3, ["ip", "address", "add", "10.0.0.100/24", "dev", "eth0"])?.ok()?;
    lab.exec(3, ["systemctl", "start", "nginx"])?.ok()?;
    assert_eq!(lab.http_get(([10, 0, 0, 100], 80).into(), "/")?.status, 200);
    lab.exec(3, ["systemctl", "stop", "nginx"])?.ok()?;
    lab.exec(3, ["ip", "address", "del", "10.0.0.100/24", "dev", "eth0"])?.ok()?;
    Ok(())
}

fn cut_is_seen_by_the_node_and_drop_is_not(lab: &Lab) -> Result<()> {
    for (link, carrier_stays) in [(Link::Cut, false), (Link::Dropped, true)] {
        assert_eq!((greets(lab, 1), carrier(lab, 1)?), (Ok(()), true), "before {link:?}");
        if link == Link::Cut {
            lab.cut(1)?
        } else {
            lab.drop_link(1)?
        }
        assert_eq!((lab.link(1)?, carrier(lab, 1)?), (link, carrier_stays));
        assert!(greets(lab, 1).is_err(), "{link:?} lets packets through");
        assert_eq!(greets(lab, 2), Ok(()), "{link:?} of n1 hits n2");
        lab.heal(1)?;
        wait_until("n1 to be back", SOON, || greets(lab, 1))?;
    }
    Ok(())
}

fn pause_stops_time_and_resume_goes_on(lab: &Lab) -> Result<()> {
    let count = "i=0; while :; do i=$((i+1)); echo $i >/run/count.new; mv /run/count.new /run/count; sleep 0.01; done";
    let counter = lab.start(2, ["sh", "-c", count])?;
    let path = format!("/proc/{}/root/run/count", lab.node_pid(2)?);
    let read = || fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()).ok_or("no number");
    wait_until("the counter", SOON, read)?;

    lab.pause(2)?;
    assert_eq!((lab.power(2)?, carrier(lab, 2).is_err()), (Power::Paused, true));
    let stopped_at = read().unwrap();
    // Time for ten counts: the wait is the test.
    sleep(Duration::from_millis(100));
    assert_eq!(read(), Ok(stopped_at), "a paused node goes on");
    assert!(
        lab.as_client(|| TcpStream::connect_timeout(&nats_addr(2), Duration::from_millis(200))).unwrap().is_err(),
        "its kernel answers"
    );
    // A cable pulled while the node stands still is out when it goes on.
    lab.drop_link(2)?;
    lab.resume(2)?;
    wait_until("the counter to go on", SOON, || read().and_then(|now| if now > stopped_at { Ok(()) } else { Err("stands still") }))?;
    assert!(greets(lab, 2).is_err(), "resume plugged in a cable that was pulled");
    lab.heal(2)?;
    wait_until("n2 to be back", SOON, || greets(lab, 2))?;
    drop(counter);
    let last = read().unwrap();
    sleep(Duration::from_millis(100));
    assert_eq!(read(), Ok(last), "a stopped background command goes on");
    Ok(())
}

/// Whether a frame ends a TCP connection.
fn says_goodbye(frame: &Frame) -> bool {
    match SlicedPacket::from_ethernet(&frame.data).ok().and_then(|packet| packet.transport) {
        Some(TransportSlice::Tcp(tcp)) => tcp.fin() || tcp.rst(),
        _ => false,
    }
}

fn describe(frame: &Frame) -> String {
    let packet = SlicedPacket::from_ethernet(&frame.data).unwrap();
    let to = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr().to_string(),
        other => format!("{other:?}"),
    };
    format!("to {to}, goodbye {}", says_goodbye(frame))
}

fn crash_lets_nothing_out_and_boot_keeps_the_disk(lab: &Lab) -> Result<()> {
    lab.exec(1, ["sh", "-c", "mkdir -p /var/lib/mine; echo kept >/var/lib/mine/file; sync; echo lost >/run/file"])?.ok()?;
    lab.exec(1, ["ip", "address", "add", "10.0.0.100/24", "dev", "eth0"])?.ok()?;
    let boot_id = lab.boot_id(1)?;

    // A busy node: datagrams all the time, and connections (its NATS server has more) that a dying process would end.
    let traffic = "for i in 1 2 3 4; do exec {fd}<>/dev/tcp/10.99.0.12/4222; done; touch /run/talking; while :; do echo x >/dev/udp/10.99.0.12/9; done";
    let mut talker = lab.start(1, ["bash", "-c", traffic])?;
    wait_until("n1 to talk", SOON, || lab.read(1, "/run/talking"))?;
    let capture = lab.capture(Tap::Port(NodeId::from(2)), "")?;
    // Long enough for the capture to see the node talk.
    sleep(Duration::from_millis(200));
    let crash = lab.crash(1)?;
    // Long enough for a first retransmission, were anything left that could retransmit.
    sleep(Duration::from_millis(300));
    let frames: Vec<Frame> = capture.stop()?.into_iter().filter(|frame| frame.is_from(1)).collect();
    assert_eq!(talker.ended()?, Some(128 + 9), "the power cut left a command running");

    let before = frames.iter().filter(|frame| frame.time < crash.started).count();
    assert!(before > 50, "only {before} frames of n1 before the crash: this would prove nothing");
    let after: Vec<String> = frames.iter().filter(|frame| frame.time >= crash.unplugged).map(describe).collect();
    assert!(after.is_empty(), "{} frames after the power cut, first: {:?}", after.len(), after.first());
    let goodbyes: Vec<String> = frames.iter().filter(|frame| frame.time >= crash.started && says_goodbye(frame)).map(describe).collect();
    assert!(goodbyes.is_empty(), "the dying node says goodbye: {goodbyes:?}");
    let gone = crash.empty.duration_since(crash.started).unwrap();
    assert!(gone < Duration::from_secs(5), "the power cut took {gone:?}");
    eprintln!(
        "crash: port out after {:?}, killed after {:?}, empty after {gone:?}; {before} frames before, last of all frames {:?} before the port was out",
        crash.unplugged.duration_since(crash.started).unwrap(),
        crash.killed.duration_since(crash.started).unwrap(),
        frames.last().and_then(|frame| crash.unplugged.duration_since(frame.time).ok()),
    );

    assert_eq!(lab.power(1)?, Power::Off);
    assert!(matches!(lab.exec(1, ["true"]), Err(LabError::NodeState { state: "off", .. })));
    lab.boot(1)?;
    assert_ne!(lab.boot_id(1)?, boot_id);
    assert_eq!(lab.read(1, "/var/lib/mine/file")?, "kept\n");
    assert!(lab.read(1, "/run/file").is_err(), "/run outlived the power cut");
    assert!(!lab.exec(1, ["ip", "-brief", "address"])?.ok()?.contains("10.0.0.100"), "an address outlived the power cut");
    lab.wait_units(SOON)?;
    lab.wait_nats(Duration::from_secs(30))?;
    let info = wait_until("the stream on n1", SOON, || lab.as_client(|| jetstream(1, "STREAM.INFO.T", "")).unwrap())?;
    assert_eq!(info["config"]["num_replicas"], 3, "{info}");
    assert!(lab.exec(1, ["journalctl", "--list-boots", "--no-pager"])?.ok()?.lines().count() >= 2, "the journal was lost");
    Ok(())
}

fn impossible_things_are_refused(lab: &Lab) -> Result<()> {
    assert!(matches!(lab.exec(4, ["true"]), Err(LabError::NoSuchNode { nodes: 3, .. })));
    assert!(matches!(lab.boot(1), Err(LabError::NodeState { state: "on", .. })));
    assert!(matches!(lab.resume(1), Err(LabError::NodeState { state: "not paused", .. })));
    assert!(matches!(lab.capture(Tap::Client, "no such filter"), Err(LabError::Failed { .. })));
    lab.crash(3)?;
    assert!(matches!(lab.crash(3), Err(LabError::NodeState { state: "off", .. })));
    assert!(matches!(lab.pause(3), Err(LabError::NodeState { state: "off", .. })));
    // A hung command ends after its own limit, and all of it.
    let hung = lab.exec_within(Duration::from_millis(100), 1, ["sleep", "54321"]);
    assert!(matches!(hung, Err(LabError::TimedOut { .. })));
    wait_until("the hung command to be gone", SOON, || {
        let all = lab.exec(1, ["sh", "-c", "cat /proc/[0-9]*/cmdline"])?.stdout;
        if all.contains("sleep\x0054321") { Err(LabError::Invalid("it runs".to_owned())) } else { Ok(()) }
    })?;
    Ok(())
}

#[test]
fn two_labs_run_side_by_side_and_an_unclean_end_is_cleaned_up() -> Result<()> {
    let one = Lab::up_scoped(&bare("selftest-one", 2))?;
    let two = Lab::up_scoped(&bare("selftest-two", 1))?;
    assert_eq!((one.servers().len(), two.servers().len()), (1, 1));

    // The same addresses, but not the same wire.
    one.write(1, "/var/lib/mine", "one", 0o644)?;
    assert!(two.read(1, "/var/lib/mine").is_err());
    one.crash(1)?;
    assert_eq!((greets(&one, 1).is_err(), greets(&two, 1)), (true, Ok(())));

    // One that is being worked on is left alone.
    let lock = fs::File::open("/run/clusterctl-lab/selftest-one.lock").unwrap();
    lock.lock().unwrap();
    assert!(matches!(Lab::up(&bare("selftest-one", 1)), Err(LabError::Busy { .. })));
    assert!(matches!(one.down(), Err(LabError::Busy { .. })));
    drop(lock);

    // The end comes from outside: supervisors killed, the record of the lab lost, everything else left behind.
    let supervisor = fs::read_to_string("/sys/fs/cgroup/unified/clusterctl-lab/selftest-one/n2/supervisor/cgroup.procs")
        .or_else(|_| fs::read_to_string("/sys/fs/cgroup/clusterctl-lab/selftest-one/n2/supervisor/cgroup.procs"))
        .unwrap();
    for pid in supervisor.lines() {
        assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
    }
    fs::remove_file("/run/clusterctl-lab/selftest-one/lab.json").unwrap();
    fs::remove_file("/run/clusterctl-lab/selftest-one.lock").unwrap();
    assert!(!traces_of("selftest-one").is_empty());
    let again = Lab::up(&bare("selftest-one", 1))?;
    assert!(again.read(1, "/var/lib/mine").is_err(), "a new lab found the old one's disk");
    assert_eq!(greets(&two, 1), Ok(()));

    one.down()?;
    assert_eq!(traces_of("selftest-one"), [""; 0]);
    assert_eq!(greets(&two, 1), Ok(()), "one lab's end hit the other");
    two.down()?;
    assert_eq!(traces_of("selftest-two"), [""; 0]);
    // Nothing there is fine as well.
    let nothing = Lab::remove("selftest-two")?;
    assert_eq!((nothing.processes, nothing.namespaces), (0, 0));
    Ok(())
}

/// A repository and a folder of programs with stand-ins for the product: what is tested is where the lab puts them.
fn stand_ins(dir: &std::path::Path, agent: &str) -> UpOptions {
    let (bin, unit) = (dir.join("bin"), |name: &str| {
        format!("[Service]\nType=exec\nExecStart=/usr/lib/clusterctl/{name}\n[Install]\nWantedBy=multi-user.target\n")
    });
    for folder in ["bin", "agent/dist", "controller/dist"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let sleep = "exec sleep infinity";
    let clusterctl = "echo I am clusterctl of $CLUSTERCTL_CONFIG; exit 3";
    let others = [("cluster-controller", sleep), ("cluster-gates", "exit 0"), ("demo", sleep), ("clusterctl", clusterctl)];
    for (name, script) in [("cluster-agent", agent)].into_iter().chain(others) {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(dir.join("agent/dist/cluster-agent.service"), unit("cluster-agent")).unwrap();
    fs::write(dir.join("controller/dist/cluster-controller.service"), unit("cluster-controller")).unwrap();
    let mut options = UpOptions::new(2).named("selftest-product");
    options.repo = dir.to_path_buf();
    options.bin_dir = bin;
    options.cluster = "prod".to_owned();
    options
}

#[test]
fn the_product_is_installed_as_a_user_would() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("lab-stand-ins-{}", std::process::id()));
    let lab = Lab::up_scoped(&stand_ins(&dir, "exec sleep infinity"))?;
    let units: Vec<_> = lab.status()?.into_iter().map(|node| node.units.into_keys().collect::<Vec<_>>()).collect();
    assert_eq!(units[0], ["cluster-agent", "cluster-controller", "nats-server"]);
    assert_eq!(units[1], ["cluster-agent", "cluster-controller"], "unit files are everywhere, NATS is not");
    let active = |node: u8, unit: &str| lab.exec(node, ["systemctl", "is-active", unit]).map(|ran| ran.stdout.trim() == "active");
    assert!(active(1, "cluster-agent")? && active(2, "cluster-agent")? && active(1, "cluster-controller")?);
    assert!(!active(2, "cluster-controller")?);

    let agent = lab.read(2, "/etc/clusterctl/agent.yaml")?;
    assert_eq!(
        agent,
        "cluster: prod\nnode: n2\nvoters: [n1]\nlabels: { zone: z2 }\nnats:\n  servers: [\"nats://10.99.0.11:4222\"]\n  replicas: 1\n"
    );
    assert!(lab.read(1, "/etc/clusterctl/controller.yaml")?.contains("listen: 0.0.0.0:7070"));
    assert!(lab.read(2, "/etc/clusterctl/controller.yaml").is_err());
    let token = lab.exec(2, ["stat", "--format=%a %s", "/etc/clusterctl/token"])?.ok()?;
    assert_eq!(token, "600 65\n");
    assert_eq!(lab.read(1, "/etc/clusterctl/token")?, lab.read(2, "/etc/clusterctl/token")?);

    // The client and the nodes find clusterctl on their PATH; a node may replace its own program, the others keep theirs.
    let client = lab.client(["clusterctl"])?;
    assert_eq!((client.code, client.stdout.as_str()), (3, "I am clusterctl of /run/clusterctl-lab/selftest-product/client/cli.yaml\n"));
    lab.exec(2, ["sh", "-c", "echo echo new >/usr/lib/clusterctl/clusterctl"])?.ok()?;
    assert_eq!((lab.exec(2, ["clusterctl"])?.stdout.as_str(), lab.exec(1, ["clusterctl"])?.code), ("new\n", 3));
    assert!(fs::read_to_string(dir.join("bin/clusterctl")).unwrap().contains("I am clusterctl"), "a node wrote to the host");
    drop(lab);

    // A unit that fails fails the start, by name.
    let error = Lab::up_scoped(&stand_ins(&dir, "echo no such luck; exit 1")).unwrap_err().chain();
    assert!(error.contains("cluster-agent.service"), "{error}");
    assert!(Lab::attach("selftest-product").is_err(), "the failed lab is still up");
    // So does a program that is missing, before anything is started.
    let mut options = stand_ins(&dir, "exec sleep infinity");
    options.bin_dir = dir.join("nowhere");
    let error = Lab::up(&options).unwrap_err().to_string();
    assert!(error.contains("nowhere/cluster-agent") && error.contains("nowhere/demo") && error.contains("cargo build"), "{error}");
    fs::remove_dir_all(dir).unwrap();
    Ok(())
}

#[test]
fn without_root_the_lab_says_what_it_needs() {
    // A copy: the build may be in a folder that others may not enter.
    let copy = std::env::temp_dir().join(format!("lab-unprivileged-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_lab"), &copy).unwrap();
    let mut command = Command::new(&copy);
    if nix::unistd::geteuid().is_root() {
        command.uid(65534);
    }
    let said = command.args(["--name", "selftest-none", "up", "--bare"]).output();
    fs::remove_file(&copy).unwrap();
    let said = said.unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("run it as root"), "{said:?}");
}

#[test]
fn a_missing_program_is_named_before_anything_is_started() {
    let mut options = bare("selftest-missing", 1);
    options.nats_server = "/nonexistent/nats-server".into();
    let error = Lab::up(&options).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/nats-server") && error.contains("scripts/setup"), "{error}");
    assert_eq!(traces_of("selftest-missing"), [""; 0]);
}
