//! Agents that end, by order or not: what runs is none of their business until they are back.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster_bus::{Bucket, Kv};
use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::Assignment;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};
use crate::observe::Probe;
use crate::patterns::{DATABASE_VIP, PLATFORM, check_ring};

/// What the Apps' processes read on all nodes.
fn files(c: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for node in c.lab.nodes() {
        let script = "cd /run/clusterctl && for f in */role.json */partitions.json; do echo $f; cat $f; done";
        all.push(c.lab.exec(node, ["sh", "-c", script])?.ok()?);
    }
    Ok(all)
}

/// Random names of the agents' runs.
fn instances(c: &Cluster) -> Result<Vec<String>> {
    Ok(c.nodes()?.into_values().map(|node| node.status.map(|status| status.instance).unwrap_or_default()).collect())
}

/// Restarted one by one, then all killed at once: same PIDs, same start times, same files and epochs, the VIP answers all the time.
pub fn a_restarted_or_killed_agent_adopts_what_runs(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;
    let (runs, before, active) = (c.runs()?, files(c)?, c.active("database")?);
    let probe = Probe::start(&c.lab, DATABASE_VIP, 8080);

    let unchanged = |what: &str, old: &[String], count: usize| -> Result<()> {
        wait_until("new agents to report", SOON, || {
            let new = instances(c)?;
            let fresh = new.iter().zip(old).filter(|(new, old)| new != old).count();
            ensure(fresh == count, || format!("{fresh} of {count} are new"))
        })?;
        c.wait_nodes(SOON)?;
        c.wait_ready(&PLATFORM, SOON)?;
        assert_eq!(c.runs()?, runs, "{what}: something was restarted");
        assert_eq!(files(c)?, before, "{what}: a file changed");
        assert_eq!(c.active("database")?, active, "{what}");
        Ok(())
    };
    for node in c.lab.nodes() {
        let old = instances(c)?;
        c.systemctl(node, &["restart", "cluster-agent"])?;
        unchanged(&format!("restart on {node}"), &old, 1)?;
    }
    let old = instances(c)?;
    for node in c.lab.nodes() {
        c.systemctl(node, &["kill", "--signal=KILL", "--kill-whom=main", "cluster-agent"])?;
    }
    unchanged("SIGKILL of all", &old, 5)?;
    // Longer than an agent waits before it gives up for want of a majority: none of them does so now.
    std::thread::sleep(Duration::from_secs(4));
    unchanged("four seconds later", &old, 5)?;

    let answers = probe.stop()?;
    assert!(answers.bad.is_empty(), "of {} answers these were none: {:?}", answers.good.len(), answers.bad);
    assert!(answers.good.len() > 50, "{} answers prove nothing", answers.good.len());
    let pid = &answers.good[0].1["pid"];
    assert!(answers.good.iter().all(|(_, answer)| answer["pid"] == *pid && answer["reloads"] == 0), "the process was touched");
    Ok(())
}

/// A sequence that looks random and is always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Agents are killed at any moment while Apps come, change and go; whatever step it was, the end is as if nothing had been.
pub fn agents_killed_between_any_two_steps_converge(c: &Cluster) -> Result<()> {
    const SEED: u64 = 0x5eed_0002_2026_1123;
    const NAMES: [&str; 4] = ["one", "part", "some", "all"];
    let vip = Ipv4Addr::new(10, 0, 0, 130);
    let apps = |round: u64| {
        let port = |n: u16| 8200 + n + 10 * u16::try_from(round % 2).unwrap();
        [
            demo_app("one", "Singleton", port(0), &format!("vip: {{ address: {vip}/24, interface: eth0 }}")),
            demo_app("part", "Ring", port(1), "ring: { partitions: 32 }"),
            demo_app("some", "Replicas", port(2), &format!("replicas: {}", 2 + round % 3)),
            demo_app("all", "Spread", port(3), "vip: { address: 10.0.0.131/24, interface: eth0 }"),
        ]
        .concat()
    };
    let mut dice = Dice(SEED);
    let mut kills = 0;
    for round in 0..12 {
        if round % 3 == 2 {
            c.ctl(&["delete", "app", "--wait=false", "one", "part", "some", "all"])?.ok()?;
        } else {
            c.apply(&apps(round))?;
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(dice.below(200)));
            for node in c.lab.nodes().filter(|_| dice.below(2) == 0).collect::<Vec<_>>() {
                // One that was killed a moment ago may not be back yet.
                let killed = c.lab.exec(node, ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "cluster-agent"])?;
                assert!(killed.success() || killed.stderr.contains("No main process"), "{killed:?}");
                kills += u32::from(killed.success());
            }
        }
        if round % 3 == 2 {
            wait_until("the Apps to be gone", LATER, || {
                let left = c.apps()?;
                ensure(left.is_empty(), || format!("left: {:?}", left.keys()))
            })?;
            for node in c.lab.nodes() {
                let left = c.lab.exec(node, ["sh", "-c", "ls -d /run/clusterctl/*/ 2>/dev/null; pgrep -a -x demo || true"])?.stdout;
                assert_eq!(left, "", "round {round}: left on {node}");
            }
        }
    }
    eprintln!("  seed {SEED:#x}: {kills} agents killed in 12 rounds");

    c.apply(&apps(1))?;
    c.wait_ready(&NAMES, LATER)?;
    let (active, epoch) = c.active("one")?;
    assert_eq!(c.holders(vip)?, [active]);
    let answer = c.demo(vip, 8210)?;
    assert_eq!((answer["epoch"].as_u64(), answer["node"].as_str()), (Some(epoch), Some(active.to_string().as_str())));
    check_ring(c, "part", 8211, &c.lab.nodes().collect::<Vec<_>>())?;
    let runs = c.runs()?;
    assert_eq!((runs.of("one").len(), runs.of("some").len(), runs.of("all").len()), (1, 3, 5));
    Ok(())
}

/// Two agents would fight over the same units: the second one ends at once and says why; the first one does not notice.
pub fn a_second_agent_on_a_node_is_refused(c: &Cluster) -> Result<()> {
    let pid = || c.lab.exec(2, ["systemctl", "show", "--property=MainPID", "cluster-agent"])?.ok();
    let before = pid()?;
    let ran = c.lab.exec(2, ["/usr/lib/clusterctl/cluster-agent", "--config", "/etc/clusterctl/agent.yaml"])?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code == 1 && said.contains("another agent runs on this machine"), "{ran:?}");
    assert!(said.contains("/run/clusterctl/agent.lock"), "{said}");
    assert_eq!(pid()?, before);
    Ok(())
}

/// An assignment of yesterday comes back under the node's key: the agent refuses it, nothing changes, and the leader puts its own there
/// again, so that an agent without a journal would not fall for it.
pub fn an_older_assignment_replayed_is_refused_and_put_right(c: &Cluster) -> Result<()> {
    let node = NodeId::from(4);
    let key = format!("node.{node}");
    let read = || c.with_bus(async |bus| bus.open::<Assignment>(Bucket::Assignments).await.get(&key).await.unwrap().unwrap());
    c.apply(&demo_app("main", "Singleton", 8100, "placement: { nodes: [n4] }, vip: { address: 10.0.0.140/24, interface: eth0 }"))?;
    c.wait_ready(&["main"], SOON)?;
    let old = read()?.value;
    c.apply(&demo_app("web", "Spread", 8101, ""))?;
    c.wait_ready(&["web"], SOON)?;
    let (runs, newest) = (c.runs()?, read()?);
    assert!(newest.value.order.newer_than(&old.order).unwrap() && old.apps.contains_key("main") && !old.apps.contains_key("web"));

    let replayed = c.with_bus(async |bus| {
        let kv: Kv<Assignment> = bus.open(Bucket::Assignments).await;
        kv.put(&key, &old).await.unwrap()
    })?;
    c.wait_logged(node, "cluster-agent", "an older assignment came, it is refused", SOON)?;
    let right = wait_until("the leader to put it right", SOON, || {
        let now = read()?;
        ensure(now.revision > replayed && now.value.order.newer_than(&newest.value.order) == Some(true), || format!("{now:?}"))?;
        Ok::<_, cluster_e2e::LabError>(now.value)
    })?;
    assert_eq!(right.apps, newest.value.apps, "the leader planned on what was replayed");
    // The agent takes the repaired one, and nothing is touched by all this for three seconds.
    wait_until("the agent to hold the repaired one", SOON, || {
        let held = c.nodes()?.remove(&node.to_string()).and_then(|n| n.status).and_then(|s| s.assignment);
        ensure(held.as_ref() == Some(&right.order), || format!("it holds {held:?}, not {:?}", right.order))
    })?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(c.runs()?, runs);
    assert_eq!(read()?.value, right, "the leader goes on writing");

    // The same with a record that is gone altogether.
    c.with_bus(async |bus| {
        let kv: Kv<Assignment> = bus.open(Bucket::Assignments).await;
        let present = kv.get(&key).await.unwrap().unwrap();
        kv.delete(&key, present.revision).await.unwrap();
    })?;
    wait_until("the record to be back", SOON, || {
        let found = c.with_bus(async |bus| bus.open::<Assignment>(Bucket::Assignments).await.get(&key).await.unwrap())?;
        ensure(found.is_some_and(|found| found.value.apps == right.apps), || "it is not there".to_owned())
    })?;
    assert_eq!(c.runs()?, runs);
    Ok(())
}
