//! A cluster under drill: what runs in it, what is watched, and how a fault is judged.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::NodeId;
use crate::status::Power;
use crate::tour::{all_nodes_ready, all_ready, clusterctl};
use crate::wait::wait_until;
use crate::witness::{Allowance, Bounded, Nodes, Report, Thing, Witness, unit_of, vip};

use super::kind::{Expect, Kind};

/// The Apps of [`MANIFEST`].
pub const APPS: [&str; 4] = ["hot", "main", "side", "web"];

/// One Singleton on the nodes with NATS servers and votes, one with a unit of `Restart=always` on two others, a unit of Debian's, and one
/// with hot standbys: there the address and the role are exclusive, not the process.
pub const MANIFEST: &str = r"apiVersion: cluster/v1
kind: App
metadata: { name: main }
spec:
  mode: Singleton
  placement: { nodes: [n1, n2, n3] }
  vip: { address: 10.0.0.150/24, interface: eth0 }
  exec: { command: [/usr/lib/clusterctl/demo, --listen, '0.0.0.0:8100', --append, /srv/lab/main.log] }
---
apiVersion: cluster/v1
kind: App
metadata: { name: side }
spec:
  mode: Singleton
  placement: { nodes: [n4, n5] }
  vip: { address: 10.0.0.151/24, interface: eth0 }
  unit:
    name: own-side
    content: |
      [Unit]
      StartLimitIntervalSec=0
      [Service]
      ExecStart=/usr/lib/clusterctl/demo --listen 0.0.0.0:8101 --role-file /run/clusterctl/side/role.json --append /srv/lab/side.log
      ExecReload=/bin/kill -HUP $MAINPID
      Restart=always
      RestartSec=0
---
apiVersion: cluster/v1
kind: App
metadata: { name: web }
spec:
  mode: Singleton
  placement: { nodes: [n4, n5] }
  unit: { name: nginx }
---
apiVersion: cluster/v1
kind: App
metadata: { name: hot }
spec:
  mode: Singleton
  standby: Hot
  placement: { nodes: [n1, n2, n3] }
  vip: { address: 10.0.0.152/24, interface: eth0 }
  exec: { command: [/usr/lib/clusterctl/demo, --listen, '0.0.0.0:8102', --append, /srv/lab/hot.log] }
";

/// Files that the Apps append to.
const WORKLOADS: [&str; 3] = ["main.log", "side.log", "hot.log"];

/// What has to be held to write each of them.
const WORKLOAD_OF: [usize; 3] = [MAIN, SIDE, HOT_VIP];

/// Places of what is watched.
pub(super) const MAIN: usize = 0;
pub(super) const MAIN_VIP: usize = 1;
pub(super) const SIDE: usize = 2;
pub(super) const SIDE_VIP: usize = 3;
pub(super) const WEB: usize = 4;
pub(super) const HOT_VIP: usize = 5;

fn watched() -> Vec<Thing> {
    let unit = |name: &str| Thing::Unit(name.to_owned());
    let address = |last: u8| vip(Ipv4Addr::new(10, 0, 0, last));
    vec![unit_of("main"), address(150), unit("own-side.service"), address(151), unit("nginx.service"), address(152)]
}

/// An election of NATS, a voter that waits after its boot, and a heartbeat time-out, one after the other, on a loaded machine.
const SETTLED: Duration = Duration::from_secs(60);
/// A take-over is done within a second; this is when something is wrong.
const TAKEN_OVER: Duration = Duration::from_secs(20);
/// How long a voter that booted answers nobody (rule V6), and before that until its agent runs.
pub(crate) const VOTER_WAITS: Duration = Duration::from_millis(7500);

/// How often a witness that was kept from looking looks again before the first fault.
const LOOKS: u32 = 3;

/// Whether all that is wrong is that the witness was kept from looking, as on a busy machine: then nothing wrong was seen, and not that
/// nothing was.
#[must_use]
pub fn only_blind(error: &LabError) -> bool {
    let text = error.to_string();
    // What was seen and how well follows on further lines.
    let wrong = text.lines().next().unwrap_or_default();
    wrong.split("; ").all(|part| part.contains("the witness did not look for") || part.contains("the witness once did not look for"))
}

/// What a fault led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing changed hands, and the epoch is the same.
    Stayed,
    /// Another node has it.
    Moved {
        /// Which.
        to: NodeId,
        /// From the fault until unit and address were there.
        after: Duration,
    },
    /// The same node has it in a new tenure.
    Again,
}

/// A fault that was played, and found to be as it should.
#[derive(Debug, Clone)]
pub struct Played {
    /// What.
    pub kind: Kind,
    /// Where it was active.
    pub node: NodeId,
    /// What it led to.
    pub outcome: Outcome,
    /// The overlaps that the kind allows, as measured.
    pub bounded: Bounded,
    /// From the first order to the end, all well again.
    pub took: Duration,
    /// What of it was waited for at the end: NATS servers, nodes, Apps, voters that booted.
    pub settled: [Duration; 4],
    /// How well the witness saw.
    pub resolution: String,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18} on {}: ", self.kind.name(), self.node)?;
        match self.outcome {
            Outcome::Stayed => f.write_str("stayed")?,
            Outcome::Again => f.write_str("a new tenure on the same node")?,
            Outcome::Moved { to, after } => write!(f, "{to} had it after {} ms", after.as_millis())?,
        }
        let Bounded { unit, vip, lines } = self.bounded;
        if self.bounded != Bounded::default() {
            write!(f, "; bounded overlap: unit {:.1} ms, address {:.1} ms, {lines} late lines", millis(unit), millis(vip))?;
        }
        let [nats, nodes, apps, voters] = self.settled.map(|waited| waited.as_secs_f64());
        let took = self.took.as_secs_f64();
        write!(f, "; {took:.1} s in all (NATS {nats:.1}, nodes {nodes:.1}, Apps {apps:.1}, voters {voters:.1}); {}", self.resolution)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The order of a fault: whom it hit, when, and which overlaps are bounded only.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) node: NodeId,
    pub(super) at: Instant,
    /// The unit that has to move or stay, and its address.
    pub(super) unit: usize,
    pub(super) vip: Option<usize>,
    pub(super) allowed: Vec<Allowance>,
}

/// A cluster under drill.
#[derive(Debug)]
pub struct Drill<'a> {
    pub(super) lab: &'a Lab,
    pub(super) witness: Witness,
    /// When a voter was switched on last.
    pub(super) booted: Option<Instant>,
    epochs: Vec<u64>,
}

impl<'a> Drill<'a> {
    /// Applies the Apps to a cluster of five nodes and waits until all is well.
    ///
    /// # Errors
    /// [`LabError`] when it does not become so.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let file = lab.shared_dir().join("drill.yaml");
        fs::write(&file, MANIFEST).context(|| format!("write {}", file.display()))?;
        let witness = Witness::start(lab, watched(), &WORKLOADS)?;
        clusterctl(lab, &["apply", "-f", &file.display().to_string()])?;
        let mut drill = Self { lab, witness, booted: None, epochs: vec![0; WORKLOADS.len()] };
        drill.settle()?;
        // Before the first fault nothing may have been held twice either.
        let mut looks = 1;
        let report = loop {
            let report = drill.witness.report()?;
            match report.judge(&[]) {
                Ok(_) => break report,
                Err(error) if only_blind(&error) && looks < LOOKS => {
                    // The Apps are there by now, so this time shows less than the first would have; each fault is judged by itself.
                    looks += 1;
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(error) => return Err(drill.told("start", &report, Instant::now(), &error)),
            }
        };
        drill.note_epochs(&report);
        Ok(drill)
    }

    /// The Apps that are watched, for whoever deletes them.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Plays one fault, undoes it, waits until all is well and judges what was seen.
    ///
    /// # Errors
    /// [`LabError`] with what was not as it should be, and what was seen of it.
    pub fn play(&mut self, kind: Kind) -> Result<Played> {
        let began = Instant::now();
        let done = self.fault(kind).and_then(|done| self.settle().map(|settled| (done, settled)));
        let report = self.witness.report()?;
        let (done, settled) = done.map_err(|error| self.told(kind.name(), &report, began, &error))?;
        let told = |error: &LabError| self.told(kind.name(), &report, done.at, error);
        let bounded = report.judge(&done.allowed).map_err(|error| told(&error))?;
        let outcome = self.outcome(&done, &report);
        let as_expected = match (kind.expects(), outcome) {
            (Expect::Either, _) | (Expect::Moves, Outcome::Moved { .. }) | (Expect::Stays, Outcome::Stayed) => true,
            (Expect::Moves | Expect::Stays, _) => false,
        };
        if !as_expected {
            let error = LabError::Invalid(format!("it should have been {:?}, it was {outcome:?}", kind.expects()));
            return Err(told(&error));
        }
        if report.written.iter().any(|written| written.lines == 0) {
            return Err(told(&LabError::Invalid("a workload wrote nothing".to_owned())));
        }
        self.note_epochs(&report);
        Ok(Played { kind, node: done.node, outcome, bounded, took: began.elapsed(), settled, resolution: report.resolution() })
    }

    /// After a fault that did not end well: undoes what may be left of it, and waits until all is well again.
    ///
    /// # Errors
    /// [`LabError`] when it does not become so.
    pub fn recover(&mut self) -> Result<()> {
        for node in self.lab.nodes() {
            match self.lab.power(node)? {
                Power::Off => self.boot(node)?,
                Power::Paused => self.lab.resume(node)?,
                Power::On | Power::Booting => {}
            }
            self.lab.heal(node)?;
        }
        self.settle()?;
        let report = self.witness.report()?;
        self.note_epochs(&report);
        Ok(())
    }

    fn note_epochs(&mut self, report: &Report) {
        for (epoch, written) in self.epochs.iter_mut().zip(&report.written) {
            *epoch = written.epoch.max(*epoch);
        }
    }

    fn outcome(&self, done: &Done, report: &Report) -> Outcome {
        let now = self.witness.holders(done.unit).only();
        if let Some(to) = now.filter(|to| *to != done.node) {
            let at = |thing: usize| report.ledger.first(thing, done.at, |nodes| nodes.has(to));
            let both = at(done.unit).max(done.vip.and_then(at));
            return Outcome::Moved { to, after: both.unwrap_or(done.at).saturating_duration_since(done.at) };
        }
        let touched = |thing: usize| report.ledger.first(thing, done.at, |_| true).is_some();
        let place = WORKLOAD_OF.iter().position(|unit| *unit == done.unit);
        // The unit of Debian's writes nothing.
        let same_epoch =
            place.is_none_or(|place| report.written.get(place).map(|written| written.epoch) == self.epochs.get(place).copied());
        // Who interferes with a standby changes what is held, but not by the active node.
        let kept = done.allowed.iter().any(|allowed| allowed.node != done.node);
        if same_epoch && (kept || !(touched(done.unit) || done.vip.is_some_and(touched))) { Outcome::Stayed } else { Outcome::Again }
    }

    fn told(&self, what: &str, report: &Report, from: Instant, error: &LabError) -> LabError {
        let story = report.ledger.story(&report.things, from);
        let story = if story.is_empty() { "nothing changed hands".to_owned() } else { story };
        LabError::Invalid(format!("{what}: {}\nseen: {story}\nwitness: {}", error.chain(), report.resolution()))
    }

    // ---- for the faults

    /// The node that holds a thing, if it is one.
    pub(super) fn holder(&self, thing: usize) -> Result<NodeId> {
        let nodes = self.witness.holders(thing);
        nodes.only().ok_or_else(|| {
            let name = self.witness.things().get(thing).map(ToString::to_string).unwrap_or_default();
            LabError::Invalid(format!("{name} is held by {nodes}"))
        })
    }

    /// Waits until unit and address are with one other node.
    pub(super) fn wait_moved(&self, unit: usize, vip: usize, from: NodeId) -> Result<NodeId> {
        wait_until(&format!("another than {from} to take over"), TAKEN_OVER, || {
            let held = (self.witness.holders(unit), self.witness.holders(vip));
            // The old one may still be there where overlaps are bounded only; what was seen is judged at the end.
            let next = self.lab.nodes().find(|node| *node != from && held.0.has(*node) && held.1.has(*node));
            next.ok_or_else(|| format!("unit {}, address {}", held.0, held.1))
        })
    }

    /// Switches a node on.
    pub(super) fn boot(&mut self, node: NodeId) -> Result<()> {
        self.lab.boot(node)?;
        if self.lab.servers().contains(&node) {
            self.booted = Some(Instant::now());
        }
        Ok(())
    }

    /// Waits until all nodes, servers and Apps are well, each thing has one holder, and no voter waits.
    pub(super) fn settle(&mut self) -> Result<[Duration; 4]> {
        let began = Instant::now();
        self.lab.wait_nats(SETTLED)?;
        let nats = began.elapsed();
        wait_until("Ready nodes", SETTLED, || all_nodes_ready(self.lab))?;
        let nodes = began.elapsed();
        wait_until("Ready Apps, each held once", SETTLED, || {
            let held: [Nodes; 6] = std::array::from_fn(|thing| self.witness.holders(thing));
            let one = |thing: usize| held.get(thing).and_then(|nodes| nodes.only());
            let apart = one(MAIN).is_none()
                || one(WEB).is_none()
                || one(MAIN) != one(MAIN_VIP)
                || one(SIDE) != one(SIDE_VIP)
                || one(HOT_VIP).is_none();
            if apart {
                return Err(held.map(|nodes| nodes.to_string()).join(", "));
            }
            all_ready(self.lab, &APPS)
        })?;
        let apps = began.elapsed();
        if let Some(booted) = self.booted.take() {
            std::thread::sleep(VOTER_WAITS.saturating_sub(booted.elapsed()));
        }
        Ok([nats, nodes - nats, apps - nodes, began.elapsed() - apps])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_witness_that_could_not_look_is_no_verdict() {
        let blind = |text: &str| only_blind(&LabError::Invalid(text.to_owned()));
        assert!(blind("drop: the witness once did not look for 60.2ms\nseen: main moved; main.log moved\nwitness: 3 looks"));
        assert!(!blind("drop: main is held twice; the witness once did not look for 60.2ms\nseen: nothing"));
        assert!(!blind("drop: epochs fell\nseen: the witness once did not look for 60.2ms"));
    }
}
