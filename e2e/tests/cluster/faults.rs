//! Every kind of fault once, with the witness watching: nothing exclusive is held twice, epochs rise, and what has to follow follows.

use cluster_e2e::drill::{Drill, Kind, only_blind};
use cluster_e2e::witness::watch_owners;
use cluster_e2e::{NodeId, Result, wait_until};

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};

/// A witness that was kept from looking, as on a busy machine, has neither seen anything wrong nor seen that nothing was: it looks again.
const TRIES: u32 = 3;

fn play(c: &Cluster, kinds: &[Kind]) -> Result<()> {
    let mut drill = Drill::start(&c.lab)?;
    for kind in kinds {
        let mut tries = 1;
        let told = loop {
            match drill.play(*kind) {
                Err(error) if tries < TRIES && only_blind(&error) => {
                    eprintln!("  {error}: once more");
                    tries += 1;
                }
                played => break played?,
            }
        };
        eprintln!("  {told}");
    }
    Ok(())
}

/// Agents and guards killed, stopped and restarted, each and together.
pub fn agents_and_guards_fail_and_nothing_is_held_twice(c: &Cluster) -> Result<()> {
    use Kind::{AgentKilled, AgentStopped, BothKilled, BothStopped, GuardKilled, HotAgentStopped, RollingRestart, VotersRestarted};
    play(c, &[AgentKilled, AgentStopped, HotAgentStopped, GuardKilled, BothKilled, BothStopped, VotersRestarted, RollingRestart])
}

/// Power, cables, machines that stand still, voters that boot.
pub fn nodes_fail_and_nothing_is_held_twice(c: &Cluster) -> Result<()> {
    play(c, &[Kind::Crash, Kind::CrashLeader, Kind::Cut, Kind::Drop, Kind::Paused, Kind::VotersRebooted])
}

/// NATS servers and controllers: who decides about leases needs neither JetStream nor a controller.
pub fn servers_and_controllers_fail_and_nothing_is_held_twice(c: &Cluster) -> Result<()> {
    play(c, &[Kind::NatsKilled, Kind::NatsFrozen, Kind::ControllersKilled, Kind::AllNatsKilled])
}

/// Units that come back by themselves, by hand or at boot; and a machine with nothing left to give.
pub fn units_that_start_by_themselves_are_killed(c: &Cluster) -> Result<()> {
    play(c, &[Kind::RestartAlways, Kind::StartedByHand, Kind::EnabledAtBoot, Kind::Saturated])
}

/// Rule R5, by the words of all nodes: a partition has one lease owner at most while members fall silent, lose their power, come back, and
/// their agents are killed; and all have one in between.
pub fn partitions_have_one_owner_whatever_fails(c: &Cluster) -> Result<()> {
    const PARTITIONS: u16 = 64;
    c.apply(&demo_app("parts", "Ring", 8120, "ring: { partitions: 64 }"))?;
    c.wait_ready(&["parts"], SOON)?;
    let moved_from = |node: NodeId| {
        wait_until("the others to own all partitions", LATER, || {
            let table = c.ring("parts")?;
            let owns = table.owners.iter().any(|owner| owner.node == node.to_string() && !owner.partitions.is_empty());
            ensure(!owns && table.unowned.is_empty(), || format!("{node} owns some: {owns}; nobody owns {}", table.unowned))
        })
    };
    let (silent, dark, killed) = (NodeId::from(4), NodeId::from(5), NodeId::from(1));
    let ((), owners) = watch_owners(&c.lab, "parts", PARTITIONS, || {
        c.lab.drop_link(silent)?;
        moved_from(silent)?;
        c.lab.heal(silent)?;
        c.systemctl(killed, &["kill", "--signal=SIGKILL", "cluster-agent"])?;
        c.lab.crash(dark)?;
        moved_from(dark)?;
        c.lab.boot(dark)?;
        c.wait_nodes(LATER)?;
        c.wait_ready(&["parts"], LATER)
    })?;
    eprintln!("  {} looks, longest time between two {:.1?}", owners.looks, owners.longest);
    assert_eq!(owners.twice, [], "two owners at a time");
    assert_eq!(owners.most, usize::from(PARTITIONS), "all were seen");
    Ok(())
}
