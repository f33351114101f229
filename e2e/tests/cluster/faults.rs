//! Every kind of fault once, with the witness watching: nothing exclusive is held twice, epochs rise, and what has to follow follows.

use cluster_e2e::Result;
use cluster_e2e::drill::{Drill, Kind, only_blind};

use crate::cluster::Cluster;

/// A witness that was kept from looking, as on a busy machine, has neither seen anything wrong nor seen that nothing was: it looks again.
const TRIES: u32 = 3;

fn play(c: &Cluster, kinds: &[Kind]) -> Result<()> {
    let mut drill = Drill::start(&c.lab, false)?;
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
    use Kind::{AgentKilled, AgentStopped, BothKilled, BothStopped, GuardKilled, RollingRestart, VotersRestarted};
    play(c, &[AgentKilled, AgentStopped, GuardKilled, BothKilled, BothStopped, VotersRestarted, RollingRestart])
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
