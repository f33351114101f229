//! How each fault is made and undone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::names::NodeId;
use crate::wait::wait_until;
use crate::witness::Allowance;

use super::kind::Kind;
use super::load::Load;
use super::stage::{Done, Drill, HOT_VIP, MAIN, MAIN_VIP, SIDE, SIDE_VIP, WEB};

const AGENT: &str = "cluster-agent";
const GUARD: &str = "cluster-guard";
const NATS: &str = "nats-server";
const CONTROLLER: &str = "cluster-controller";

/// How long a node or an agent stands still.
const STANDS_STILL: Duration = Duration::from_secs(5);
/// How long a NATS server stands still.
const NATS_FROZEN: Duration = Duration::from_secs(10);
/// How long there is no NATS server.
const NATS_AWAY: Duration = Duration::from_secs(20);
/// Longer than any lease: what would follow from a fault has followed.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// A unit that the guard kills is gone well before this.
const KILLED: Duration = Duration::from_secs(5);

/// After a thaw until the guard ran: a beat of 20 ms and the kill, on a loaded machine.
const THAWED_UNIT: Duration = Duration::from_millis(250);
/// An address on a node that stood still goes with its lifetime: 1.0 to 2.5 s.
const THAWED_VIP: Duration = Duration::from_millis(2600);
/// The guard's watchdog takes 1 to 1.5 s, a loaded machine and a beat on top.
const WATCHDOG: Duration = Duration::from_millis(2600);
/// From a start by hand until the guard killed it: a beat and the kill.
const BY_HAND: Duration = Duration::from_millis(250);

impl Drill<'_> {
    pub(super) fn fault(&mut self, kind: Kind) -> Result<Done> {
        let node = self.holder(MAIN)?;
        match kind {
            Kind::Crash => self.crash(node),
            Kind::CrashLeader => {
                self.lab.lead_everything(node)?;
                self.crash(node)
            }
            Kind::Cut => self.unplugged(node, |drill| drill.lab.cut(node)),
            Kind::Drop => {
                self.lab.lead_everything(node)?;
                self.unplugged(node, |drill| drill.lab.drop_link(node))
            }
            Kind::AgentKilled => self.killed(node, &[AGENT]),
            Kind::GuardKilled => self.killed(node, &[GUARD]),
            Kind::BothKilled => self.killed(node, &[AGENT, GUARD]),
            Kind::AgentStopped => self.stopped(node, &[AGENT], vec![]),
            Kind::HotAgentStopped => self.hot_stopped(),
            Kind::BothStopped => {
                let bounded = Allowance { node, from: Instant::now(), unit: WATCHDOG, vip: WATCHDOG };
                self.stopped(node, &[AGENT, GUARD], vec![bounded])
            }
            Kind::Paused => self.paused(node),
            Kind::NatsKilled => self.killed(node, &[NATS]),
            Kind::NatsFrozen => self.nats_frozen(node),
            Kind::AllNatsKilled => self.all_nats_killed(node),
            Kind::ControllersKilled => self.controllers_killed(node),
            Kind::VotersRestarted => self.voters_restarted(node),
            Kind::VotersRebooted => self.voters_rebooted(node),
            Kind::RollingRestart => self.rolling_restart(node),
            Kind::RestartAlways => self.restart_always(),
            Kind::StartedByHand => self.started_by_hand(),
            Kind::EnabledAtBoot => self.enabled_at_boot(),
            Kind::Saturated => self.saturated(node),
        }
    }

    fn done(node: NodeId, at: Instant) -> Done {
        Done { node, at, unit: MAIN, vip: Some(MAIN_VIP), allowed: vec![] }
    }

    fn systemctl(&self, node: NodeId, words: &[&str]) -> Result<()> {
        self.lab.exec(node, ["systemctl"].iter().chain(words))?.ok().map(drop)
    }

    fn signal(&self, node: NodeId, signal: &str, units: &[&str]) -> Result<()> {
        self.systemctl(node, &[&["kill", "--kill-whom=main", signal], units].concat())
    }

    fn other_voters(&self, node: NodeId) -> Vec<NodeId> {
        self.lab.servers().iter().copied().filter(|server| *server != node).collect()
    }

    fn crash(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        self.lab.crash(node)?;
        self.wait_moved(MAIN, MAIN_VIP, node)?;
        self.boot(node)?;
        Ok(Self::done(node, at))
    }

    fn unplugged(&mut self, node: NodeId, pull: impl FnOnce(&Self) -> Result<()>) -> Result<Done> {
        let at = Instant::now();
        pull(self)?;
        let moved = self.wait_moved(MAIN, MAIN_VIP, node);
        sleep(AFTERMATH);
        self.lab.heal(node)?;
        moved?;
        Ok(Self::done(node, at))
    }

    fn killed(&mut self, node: NodeId, units: &[&str]) -> Result<Done> {
        let at = Instant::now();
        self.signal(node, "--signal=KILL", units)?;
        sleep(AFTERMATH);
        Ok(Self::done(node, at))
    }

    fn stopped(&mut self, node: NodeId, units: &[&str], allowed: Vec<Allowance>) -> Result<Done> {
        let at = Instant::now();
        self.signal(node, "--signal=STOP", units)?;
        let moved = self.wait_moved(MAIN, MAIN_VIP, node);
        sleep(STANDS_STILL.saturating_sub(at.elapsed()));
        // What the watchdog killed meanwhile is another process and does not mind.
        self.signal(node, "--signal=CONT", units)?;
        moved?;
        Ok(Done { allowed, ..Self::done(node, at) })
    }

    fn hot_stopped(&mut self) -> Result<Done> {
        let node = self.holder(HOT_VIP)?;
        let at = Instant::now();
        self.signal(node, "--signal=STOP", &[AGENT])?;
        let moved = self.wait_moved(HOT_VIP, HOT_VIP, node);
        sleep(STANDS_STILL.saturating_sub(at.elapsed()));
        self.signal(node, "--signal=CONT", &[AGENT])?;
        moved?;
        Ok(Done { node, at, unit: HOT_VIP, vip: None, allowed: vec![] })
    }

    fn paused(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        self.lab.pause(node)?;
        let moved = self.wait_moved(MAIN, MAIN_VIP, node);
        sleep(STANDS_STILL.saturating_sub(at.elapsed()));
        let from = Instant::now();
        self.lab.resume(node)?;
        moved?;
        let bounded = Allowance { node, from, unit: THAWED_UNIT, vip: THAWED_VIP };
        Ok(Done { allowed: vec![bounded], ..Self::done(node, at) })
    }

    fn nats_frozen(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        self.signal(node, "--signal=STOP", &[NATS])?;
        sleep(NATS_FROZEN);
        self.signal(node, "--signal=CONT", &[NATS])?;
        sleep(AFTERMATH);
        Ok(Self::done(node, at))
    }

    fn all_nats_killed(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        for server in self.lab.servers() {
            self.lab.exec(server, ["sh", "-c", "systemctl kill --signal=KILL nats-server; systemctl stop nats-server"])?.ok()?;
        }
        wait_until("everything exclusive to be given up", KILLED, || {
            let held = [MAIN, MAIN_VIP, SIDE, SIDE_VIP, WEB, HOT_VIP].map(|thing| self.witness.holders(thing));
            if held.iter().all(|nodes| nodes.count() == 0) { Ok(()) } else { Err(held.map(|nodes| nodes.to_string()).join(", ")) }
        })?;
        sleep(NATS_AWAY.saturating_sub(at.elapsed()));
        for server in self.lab.servers() {
            self.systemctl(*server, &["start", NATS])?;
        }
        Ok(Self::done(node, at))
    }

    fn controllers_killed(&mut self, node: NodeId) -> Result<Done> {
        for server in self.lab.servers() {
            self.lab
                .exec(server, ["sh", "-c", "systemctl kill --signal=KILL cluster-controller; systemctl stop cluster-controller"])?
                .ok()?;
        }
        let at = Instant::now();
        self.lab.crash(node)?;
        let moved = self.wait_moved(MAIN, MAIN_VIP, node);
        self.boot(node)?;
        for server in self.other_voters(node) {
            self.systemctl(server, &["start", CONTROLLER])?;
        }
        moved?;
        Ok(Self::done(node, at))
    }

    fn voters_restarted(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        for voter in self.other_voters(node) {
            self.systemctl(voter, &["restart", AGENT])?;
        }
        sleep(AFTERMATH);
        Ok(Self::done(node, at))
    }

    fn voters_rebooted(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        let voters = self.other_voters(node);
        for voter in &voters {
            self.lab.crash(*voter)?;
        }
        for voter in &voters {
            self.boot(*voter)?;
        }
        Ok(Self::done(node, at))
    }

    fn rolling_restart(&mut self, node: NodeId) -> Result<Done> {
        let at = Instant::now();
        for unit in [AGENT, GUARD] {
            for one in self.lab.nodes() {
                self.systemctl(one, &["restart", unit])?;
            }
        }
        sleep(AFTERMATH);
        Ok(Self::done(node, at))
    }

    fn restart_always(&mut self) -> Result<Done> {
        let node = self.holder(SIDE)?;
        let at = Instant::now();
        self.lab.drop_link(node)?;
        let moved = self.wait_moved(SIDE, SIDE_VIP, node);
        sleep(AFTERMATH);
        self.lab.heal(node)?;
        moved?;
        Ok(Done { node, at, unit: SIDE, vip: Some(SIDE_VIP), allowed: vec![] })
    }

    /// The node that may run the unit of Debian's and does not.
    fn standby_of_web(&self) -> Result<(NodeId, NodeId)> {
        let node = self.holder(WEB)?;
        let candidates = [4, 5].map(NodeId::from);
        let [first, second] = candidates;
        Ok((node, if node == first { second } else { first }))
    }

    fn wait_not_on(&self, node: NodeId) -> Result<()> {
        wait_until(&format!("the unit to be gone from {node}"), KILLED, || {
            let held = self.witness.holders(WEB);
            if held.has(node) { Err(held.to_string()) } else { Ok(()) }
        })
    }

    fn started_by_hand(&mut self) -> Result<Done> {
        let (node, standby) = self.standby_of_web()?;
        let at = Instant::now();
        // It is killed while it starts: what systemctl says of that is no matter.
        self.lab.exec(standby, ["systemctl", "start", "nginx"])?;
        self.wait_not_on(standby)?;
        sleep(AFTERMATH);
        let bounded = Allowance { node: standby, from: at, unit: BY_HAND, vip: Duration::ZERO };
        Ok(Done { node, at, unit: WEB, vip: None, allowed: vec![bounded] })
    }

    fn enabled_at_boot(&mut self) -> Result<Done> {
        let (node, standby) = self.standby_of_web()?;
        self.systemctl(standby, &["enable", "nginx"])?;
        let at = Instant::now();
        self.lab.crash(standby)?;
        self.boot(standby)?;
        sleep(AFTERMATH);
        let gone = self.wait_not_on(standby);
        self.systemctl(standby, &["disable", "nginx"])?;
        gone?;
        // F6 over a boot: not even before the agent is up.
        Ok(Done { node, at, unit: WEB, vip: None, allowed: vec![] })
    }

    fn saturated(&mut self, node: NodeId) -> Result<Done> {
        let _busy = Load::start(2);
        self.killed(node, &[AGENT])?;
        let node = wait_until("one to have it", KILLED, || self.holder(MAIN).map_err(|error| error.chain()))?;
        self.killed(node, &[GUARD])?;
        let node = wait_until("one to have it", KILLED, || self.holder(MAIN).map_err(|error| error.chain()))?;
        self.crash(node)
    }
}
