//! What the node's own machinery does to units and addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::PartitionSet;

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure, wrong};
use crate::observe::Run;

/// Hardware address of the lab's client.
const CLIENT_MAC: &str = "02:63:6c:00:00:64";

/// An address that another machine on the link answers for is not taken, and the App says so; once it is free, it is. After that a
/// take-over asks nobody, whoever answers.
pub fn an_address_of_another_machine_is_not_taken(c: &Cluster) -> Result<()> {
    let (single, pool) = (Ipv4Addr::new(10, 0, 0, 131), Ipv4Addr::new(10, 0, 0, 132));
    let on_client = |verb: &str, ip: Ipv4Addr| c.lab.client(["ip", "address", verb, &format!("{ip}/24"), "dev", "eth0"])?.ok().map(drop);
    on_client("add", single)?;
    on_client("add", pool)?;
    let app = |name: &str, mode: &str, port, vip| demo_app(name, mode, port, &format!("vip: {{ address: {vip}/24, interface: eth0 }}"));
    c.apply(&app("claimed", "Singleton", 8100, single))?;
    c.apply(&app("claims", "Spread", 8101, pool))?;
    for (name, ip) in [("claimed", single), ("claims", pool)] {
        // Until the other instances have started, the message is about them.
        let told = |text: &str| text.contains(CLIENT_MAC) && text.contains(&ip.to_string());
        c.wait_condition(name, "Ready", |ready| ready.reason == "VipTaken" && told(&ready.message))?;
        assert!(c.holders(ip)?.is_empty(), "{ip} was taken");
        on_client("delete", ip)?;
    }
    c.wait_ready(&["claimed", "claims"], LATER)?;

    // Now that it is known, somebody who answers for it keeps nobody from taking over.
    let known =
        |app: &str| -> Result<bool> { Ok(c.assignments()?.values().filter_map(|a| a.apps.get(app)?.vip.as_ref()).all(|vip| !vip.probe)) };
    wait_until("the plan to know the address", SOON, || ensure(known("claimed")?, || "some node is to ask still".to_owned()))?;
    on_client("add", single)?;
    let before = c.active("claimed")?.0;
    c.systemctl(before, &["stop", "cluster-agent"])?;
    let moved = wait_until("another node to take the address", SOON, || {
        let holders = c.holders(single)?;
        ensure(holders.len() == 1 && holders[0] != before, || format!("{holders:?} have it"))
    });
    on_client("delete", single)?;
    c.systemctl(before, &["start", "cluster-agent"])?;
    moved?;
    c.wait_ready(&["claimed", "claims"], LATER)
}

/// What hooks noted on a node: time, hook, partition, epoch, user.
fn noted(c: &Cluster, node: u8) -> Result<Vec<(u64, String, u16)>> {
    let text = c.lab.read(node, NOTES)?;
    let line = |line: &str| -> Result<(u64, String, u16)> {
        let bad = || wrong(format!("{NOTES} of n{node}: {line:?}"));
        let words: Vec<&str> = line.split(' ').collect();
        let [at, hook, partition, epoch, app, user] = words.as_slice() else { return Err(bad()) };
        ensure(*app == "hooked" && *user == "nobody" && epoch.parse::<u64>().is_ok_and(|e| e > 0), || line.to_owned())?;
        Ok((at.parse().map_err(|_| bad())?, (*hook).to_owned(), partition.parse().map_err(|_| bad())?))
    };
    text.lines().map(line).collect()
}

/// Where hooks write down that they ran.
const NOTES: &str = "/run/hook-notes";

/// R1 to R3: `onOwn` runs before the process is told of a partition and `onRelease` before another node has it; one that fails kills the unit,
/// and an `onOwn` that fails gives the partition back without a ping-pong.
pub fn hooks_run_when_partitions_come_and_go(c: &Cluster) -> Result<()> {
    for node in 1..=3_u8 {
        c.lab.write(node, NOTES, "", 0o666)?;
    }
    let script = format!(
        "echo $(date +%s%N) $CLUSTERCTL_HOOK $CLUSTERCTL_PARTITION $CLUSTERCTL_EPOCH $CLUSTERCTL_APP $(id -un) >>{NOTES}; \
         test ! -e /run/fails-$CLUSTERCTL_HOOK || exit 7"
    );
    let hook = format!("{{ command: [/bin/sh, -c, \"{script}\"], timeout: 10s }}");
    let app = |nodes: &str| {
        let exec = "exec: { command: [/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:8100\"], user: nobody }";
        format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: hooked }}\nspec: {{ mode: Ring, ring: {{ partitions: 12 }}, {exec}, \
             placement: {{ nodes: {nodes} }}, hooks: {{ onOwn: {hook}, onRelease: {hook} }} }}\n"
        )
    };
    let played = play_hooks(c, app);
    for node in 1..=3_u8 {
        c.lab.exec(node, ["rm", "-f", NOTES, "/run/fails-onOwn", "/run/fails-onRelease"])?.ok()?;
    }
    played
}

fn play_hooks(c: &Cluster, app: impl Fn(&str) -> String) -> Result<()> {
    let of = |node: u8, hook: &str| -> Result<BTreeMap<u16, u64>> {
        Ok(noted(c, node)?.into_iter().filter(|(_, h, _)| h == hook).map(|(at, _, p)| (p, at)).collect())
    };
    let owned = |node: u8| -> Result<PartitionSet> {
        let table = c.ring("hooked")?;
        Ok(table.owners.iter().filter(|o| o.node == format!("n{node}")).flat_map(|o| o.partitions.iter()).collect())
    };
    let forget = || (1..=3_u8).try_for_each(|node| c.lab.write(node, NOTES, "", 0o666));
    c.apply(&app("[n1, n2]"))?;
    c.wait_ready(&["hooked"], LATER)?;
    // Who comes first may have more for a moment: what counts is what each has in the end.
    let mut first = BTreeMap::new();
    for node in [1, 2] {
        let mut has = PartitionSet::new();
        for (_, hook, partition) in noted(c, node)? {
            let _known = if hook == "onOwn" { has.insert(partition) } else { has.remove(partition) };
        }
        ensure(has.len() == 6 && has == owned(node)?, || format!("n{node}: hooks ran for {has}"))?;
        first.extend(has.iter().map(|partition| (partition, node)));
    }

    // A third node takes a share; n1 cannot let go in good order.
    forget()?;
    c.lab.write(1, "/run/fails-onRelease", "", 0o644)?;
    let before = c.runs()?.of("hooked");
    c.apply(&app("[n1, n2, n3]"))?;
    wait_until("every node to have its share", LATER, || {
        let counts = [owned(1)?.len(), owned(2)?.len(), owned(3)?.len()];
        ensure(counts == [4, 4, 4] && c.status("hooked")?.is_ready(), || format!("{counts:?}"))
    })?;
    let after = c.runs()?.of("hooked");
    let pid = |runs: &BTreeMap<NodeId, Run>, node: u8| runs.get(&NodeId::from(node)).map(|run| run.pid);
    assert_ne!(pid(&before, 1), pid(&after, 1), "what failed to let go was not killed");
    assert_eq!(pid(&before, 2), pid(&after, 2), "what let go in good order was disturbed");
    let (released, taken) = ([of(1, "onRelease")?, of(2, "onRelease")?], of(3, "onOwn")?);
    for partition in owned(3)?.iter() {
        let left = first.get(&partition).and_then(|node| released.get(usize::from(*node) - 1)?.get(&partition));
        let in_order = left.zip(taken.get(&partition)).is_some_and(|(left, taken)| left < taken);
        assert!(in_order, "partition {partition}: {released:?}, {taken:?}");
    }

    // n2 goes, and n3 can take nothing: n1 has what n2 had, and n3 says why.
    forget()?;
    c.lab.exec(1, ["rm", "/run/fails-onRelease"])?.ok()?;
    c.lab.write(3, "/run/fails-onOwn", "", 0o644)?;
    c.apply(&app("[n1, n3]"))?;
    let failing = c.wait_condition("hooked", "HooksFailing", |_| true)?;
    assert!(failing.message.contains("n3: onOwn failed for partitions"), "{}", failing.message);
    // It may have been given some of n2's before it failed, and have had to make room for them.
    wait_until("n1 to have what n3 cannot take", LATER, || {
        let counts = [owned(1)?.len(), owned(2)?.len(), owned(3)?.len()];
        let shared = counts[0] >= 8 && counts[1] == 0 && counts.iter().sum::<usize>() == 12;
        ensure(shared && c.status("hooked")?.is_ready(), || format!("{counts:?}"))
    })?;
    let tried = noted(c, 3)?.len();
    assert!(tried <= 24, "{tried} hooks ran on n3: it goes round");
    c.lab.exec(3, ["rm", "/run/fails-onOwn"])?.ok()?;
    wait_until("n3 to have its share", LATER, || {
        let counts = [owned(1)?.len(), owned(3)?.len()];
        let told = c.status("hooked")?.condition("HooksFailing").cloned();
        ensure(counts == [6, 6] && told.is_none(), || format!("{counts:?}, {told:?}"))
    })
}

/// A full disk under the agent's state, one that is read-only when it starts, and a full folder of an App: each is said, harms nothing that
/// runs, and is over when the disk takes something again, without a restart of anything.
pub fn a_disk_that_takes_nothing_is_told_and_harms_nothing(c: &Cluster) -> Result<()> {
    let played = play_disks(c);
    c.lab.exec(DISK_NODE, ["sh", "-c", "umount -l /run/clusterctl/ringed; umount -l /var/lib/clusterctl; true"])?.ok()?;
    c.systemctl(DISK_NODE, &["restart", "cluster-agent"])?;
    c.wait_nodes(LATER)?;
    played
}

/// Not one of the three voters.
const DISK_NODE: u8 = 5;

/// Moves a folder of the node onto a disk of its own, in memory.
fn small_disk(c: &Cluster, folder: &str, size: &str) -> Result<()> {
    let text = "mkdir -p /run/small && mount -t tmpfs -o size=$2,mode=$(stat -c %a $1) tmpfs /run/small && cp -a $1/. /run/small/ && \
                mount --bind /run/small $1 && umount /run/small";
    c.lab.exec(DISK_NODE, ["sh", "-ec", text, "sh", folder, size])?.ok().map(drop)
}

fn play_disks(c: &Cluster) -> Result<()> {
    let on_node = |command: &str| c.lab.exec(DISK_NODE, ["sh", "-ec", command])?.ok();
    let started = || on_node("systemctl show --value --property=InvocationID cluster-agent");
    let name = format!("n{DISK_NODE}");
    let journal = || -> Result<Vec<String>> {
        let problems = c.nodes()?.get(&name).and_then(|n| n.status.as_ref()).map(|s| s.problems.clone()).unwrap_or_default();
        Ok(problems.into_iter().filter(|p| p.contains("journal")).collect())
    };
    let told = |words: &str| {
        wait_until("the node to tell of its disk", SOON, || {
            let found = journal()?;
            ensure(found.iter().any(|p| p.contains(words)), || format!("problems: {found:?}"))
        })
    };
    let healed = || wait_until("the node to be well", SOON, || ensure(journal()?.is_empty(), || format!("{:?}", journal())));

    c.systemctl(DISK_NODE, &["stop", "cluster-agent"])?;
    small_disk(c, "/var/lib/clusterctl", "1m")?;
    c.systemctl(DISK_NODE, &["start", "cluster-agent"])?;
    c.wait_nodes(LATER)?;
    let agent = started()?;
    on_node("dd if=/dev/zero of=/var/lib/clusterctl/fill bs=1k status=none || true")?;
    c.apply(&demo_app("spread", "Spread", 8100, ""))?;
    c.wait_ready(&["spread"], LATER)?;
    told("full")?;
    on_node("rm /var/lib/clusterctl/fill")?;
    healed()?;
    assert_eq!(started()?, agent, "the agent was restarted");

    // An agent that starts on a read-only disk takes up what runs, and what it is told. Its voter, which lost its records, would have to
    // write before it answers: it is silent until it can.
    let before = c.runs()?.of("spread");
    c.systemctl(DISK_NODE, &["stop", "cluster-agent"])?;
    on_node("mount -o remount,ro,bind /var/lib/clusterctl; rm /run/clusterctl/voter.records")?;
    c.systemctl(DISK_NODE, &["start", "cluster-agent"])?;
    told("journal.db")?;
    told("voter answers nobody")?;
    let agent = started()?;
    c.apply(&format!("{}{}", demo_app("spread", "Spread", 8100, ""), demo_app("other", "Spread", 8101, "")))?;
    c.wait_ready(&["spread", "other"], LATER)?;
    assert_eq!(c.runs()?.of("spread"), before, "what ran was touched");
    on_node("mount -o remount,rw,bind /var/lib/clusterctl")?;
    healed()?;
    assert_eq!(started()?, agent, "the agent was restarted");

    // The partition file cannot be written: what is to go stays, and is let go of when it can.
    let ring = |nodes: &str| demo_app("ringed", "Ring", 8102, &format!("ring: {{ partitions: 12 }}, placement: {{ nodes: {nodes} }}"));
    c.apply(&ring("[n4, n5]"))?;
    c.wait_ready(&["ringed"], LATER)?;
    small_disk(c, "/run/clusterctl/ringed", "64k")?;
    on_node("dd if=/dev/zero of=/run/clusterctl/ringed/fill bs=1k status=none || true")?;
    c.apply(&ring("[n3, n4, n5]"))?;
    wait_until("the instance to tell of its disk", SOON, || {
        let status = c.status("ringed")?;
        let message = status.instances.iter().find(|i| i.node == name).map(|i| i.message.clone()).unwrap_or_default();
        ensure(message.contains("No space left on device") && !status.is_ready(), || message)
    })?;
    on_node("rm /run/clusterctl/ringed/fill")?;
    c.wait_ready(&["ringed"], LATER)?;
    on_node("umount -l /run/clusterctl/ringed")?;
    Ok(())
}
