//! The witness: sees from outside who holds what, and trusts no agent.
//!
//! It listens to the kernel in every node's network namespace and in the switch's, and reads the nodes' cgroups, each about every
//! millisecond and with real-time priority. An address counts as held where a node has it and the switch lets the node's frames pass; a
//! unit where its cgroup has a task that is not frozen. A workload adds what no look can miss: a line each millisecond in a file that all
//! nodes share, where an older epoch after a newer one would be there to read.

mod events;
mod ledger;
mod look;
mod owners;
mod units;
mod workload;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::NodeId;

pub use ledger::{Blind, Change, Ledger, Nodes, Overlap, RESOLUTION, Thing};
pub use owners::{Owners, Twice, table_of, watch_owners};
pub use workload::{Late, Written};

use look::Looker;
use workload::Workload;

/// Between the end of a look and the begin of the next. A look takes some 100 µs.
const PAUSE: Duration = Duration::from_micros(700);
/// Above what the agents' lease threads have, below the kernel's own.
const PRIORITY: u8 = 60;
/// A witness that once did not look for this long has seen nothing that counts.
const BLIND_MAX: Duration = Duration::from_millis(50);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Witness {
    things: Vec<Thing>,
    ledger: Arc<Mutex<Ledger>>,
    /// Who holds what, for whoever waits: asking for the ledger each time would keep the witness from looking.
    now: Arc<[AtomicU16]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    workloads: Vec<Workload>,
}

/// What was seen between two reports.
#[derive(Debug)]
pub struct Report {
    /// The looks.
    pub ledger: Ledger,
    /// What each workload wrote.
    pub written: Vec<Written>,
    /// What was watched.
    pub things: Vec<Thing>,
}

/// An overlap that is bounded, not excluded (the table in protocols B2): one of the holders is `node`, and it begins after `from`.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// The node that could not know.
    pub node: NodeId,
    /// When it went on.
    pub from: Instant,
    /// How long a unit may overlap.
    pub unit: Duration,
    /// How long an address may.
    pub vip: Duration,
}

impl Witness {
    /// Begins to watch these things on all nodes of the lab. `workloads` are files in the folder that all nodes share
    /// ([`SHARED_DIR`](crate::SHARED_DIR)), one for each App that appends; they are made empty.
    ///
    /// # Errors
    /// [`LabError`] when a namespace of the lab cannot be entered.
    pub fn start(lab: &Lab, things: Vec<Thing>, workloads: &[&str]) -> Result<Self> {
        let workloads = workloads.iter().map(|name| Workload::new(lab.shared_dir().join(name))).collect::<Result<_>>()?;
        let mut looker = Looker::new(lab, &things)?;
        let ledger = Arc::new(Mutex::new(Ledger::new(things.len())));
        let stop = Arc::new(AtomicBool::new(false));
        let now: Arc<[AtomicU16]> = things.iter().map(|_| AtomicU16::new(0)).collect();
        let (shared, stopped, told) = (Arc::clone(&ledger), Arc::clone(&stop), Arc::clone(&now));
        let thread = thread::spawn(move || {
            real_time();
            while !stopped.load(Ordering::Relaxed) {
                let seen = looker.look();
                let mut ledger = lock(&shared);
                if let Err(why) = seen {
                    ledger.spoilt.get_or_insert(why);
                }
                ledger.look(Instant::now(), looker.seen());
                drop(ledger);
                for (now, nodes) in told.iter().zip(looker.seen()) {
                    now.store(nodes.bits(), Ordering::Release);
                }
                thread::sleep(PAUSE);
            }
        });
        Ok(Self { things, ledger, now, stop, thread: Some(thread), workloads })
    }

    /// What is watched.
    #[must_use]
    pub fn things(&self) -> &[Thing] {
        &self.things
    }

    /// Who holds the thing of this place now.
    #[must_use]
    pub fn holders(&self, thing: usize) -> Nodes {
        self.now.get(thing).map_or_else(Nodes::default, |now| Nodes::from_bits(now.load(Ordering::Acquire)))
    }

    /// What was seen since the start or the last report.
    ///
    /// # Errors
    /// [`LabError`] when the workload's file cannot be read.
    pub fn report(&mut self) -> Result<Report> {
        let ledger = lock(&self.ledger).take();
        let written = self.workloads.iter_mut().map(Workload::read).collect::<Result<_>>()?;
        Ok(Report { ledger, written, things: self.things.clone() })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A look does not panic; if it did, the report would show that it stood still.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It has to look when everybody else wants the processors. Where that is not permitted the resolution tells.
pub(crate) fn real_time() {
    use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, thread_native_id};
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(PRIORITY.try_into().unwrap_or_default());
    let _not_permitted = thread_priority::set_thread_priority_and_policy(thread_native_id(), priority, policy);
}

/// The overlaps that are bounded, as they were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounded {
    /// The longest of a unit.
    pub unit: Duration,
    /// The longest of an address.
    pub vip: Duration,
    /// Lines that the workload wrote too late.
    pub lines: u64,
}

impl Report {
    /// Fails unless nothing was held twice and no epoch was followed by an older one, beside what is allowed; says how long that was.
    ///
    /// # Errors
    /// [`LabError::Invalid`] with all that was wrong, also when the witness itself saw too little.
    pub fn judge(&self, allowed: &[Allowance]) -> Result<Bounded> {
        let (mut bounded, mut wrong) = (Bounded::default(), Vec::new());
        for overlap in &self.ledger.overlaps {
            let thing = self.things.get(overlap.thing);
            let is_unit = matches!(thing, Some(Thing::Unit(_)));
            let allowance = allowed.iter().find(|a| overlap.nodes.has(a.node) && overlap.from >= a.from);
            let limit = allowance.map(|a| if is_unit { a.unit } else { a.vip });
            let longest = if is_unit { &mut bounded.unit } else { &mut bounded.vip };
            *longest = (*longest).max(overlap.lasted());
            if limit.is_none_or(|limit| overlap.lasted() > limit) {
                let name = thing.map(ToString::to_string).unwrap_or_default();
                let allowed = limit.map_or_else(String::new, |limit| format!(", allowed {limit:.1?}"));
                wrong.push(format!("{name} was held by {} for {:.1?}{allowed}", overlap.nodes, overlap.lasted()));
            }
        }
        for written in &self.written {
            let mut late = BTreeMap::<_, (u64, &Late)>::new();
            for one in &written.late {
                late.entry((&one.node, one.epoch)).or_insert((0, one)).0 += one.lines;
            }
            for ((node, epoch), (lines, Late { after, .. })) in late {
                bounded.lines += lines;
                // A line stands for a millisecond, or less.
                let limit = allowed.iter().find(|a| a.node.to_string() == *node).map_or(0, |a| a.unit.as_millis());
                if u128::from(lines) > limit {
                    let file = &written.file;
                    wrong
                        .push(format!("{file}: {node} wrote {lines} lines in epoch {epoch} after {} had begun epoch {}", after.1, after.0));
                }
            }
        }
        wrong.extend(self.ledger.spoilt.clone());
        wrong.extend(self.ledger.blind.iter().find(|b| b.handover).map(|b| {
            format!("the witness did not look for {:.1?} while something changed hands, it needs {RESOLUTION:.0?}", b.until - b.from)
        }));
        if self.ledger.slowest > BLIND_MAX {
            wrong.push(format!("the witness once did not look for {:.1?}", self.ledger.slowest));
        }
        if self.ledger.looks == 0 {
            wrong.push("the witness did not look at all".to_owned());
        }
        if wrong.is_empty() { Ok(bounded) } else { Err(LabError::Invalid(wrong.join("; "))) }
    }

    /// The place of a thing among those watched.
    #[must_use]
    pub fn place(&self, thing: &Thing) -> Option<usize> {
        self.things.iter().position(|one| one == thing)
    }

    /// How well the witness saw, in a line.
    #[must_use]
    pub fn resolution(&self) -> String {
        let Ledger { looks, slowest, blind, .. } = &self.ledger;
        let millis = slowest.as_secs_f64() * 1e3;
        format!("{looks} looks, longest time between two {millis:.1} ms, {} times above {} ms", blind.len(), RESOLUTION.as_millis())
    }
}

/// The unit of an App that is written by the agent.
#[must_use]
pub fn unit_of(app: &str) -> Thing {
    Thing::Unit(format!("clusterctl-{app}.service"))
}

/// The address as a thing.
#[must_use]
pub fn vip(address: Ipv4Addr) -> Thing {
    Thing::Vip(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(looks: &[(u64, &[u8])], late: Vec<Late>) -> (Report, Instant) {
        let (mut ledger, start) = (Ledger::new(1), Instant::now());
        for (at, who) in looks {
            let nodes = who.iter().fold(Nodes::default(), |set, n| set.with(NodeId::from(*n)));
            ledger.look(start + Duration::from_millis(*at), &[nodes]);
        }
        let written = vec![Written { file: "main.log".to_owned(), lines: 100, epoch: 9, late }];
        (Report { ledger, written, things: vec![unit_of("main")] }, start)
    }

    #[test]
    fn an_overlap_fails_unless_it_is_bounded() {
        let (two, start) = report(&[(0, &[1]), (1, &[1, 2]), (3, &[1, 2]), (4, &[2])], vec![]);
        let text = two.judge(&[]).unwrap_err().to_string();
        assert!(text.contains("clusterctl-main.service was held by n1+n2 for 2.0ms"), "{text}");
        let allow = |node: u8, from: Instant, unit: u64| Allowance {
            node: NodeId::from(node),
            from,
            unit: Duration::from_millis(unit),
            vip: Duration::ZERO,
        };
        assert_eq!(two.judge(&[allow(1, start, 2)]).unwrap().unit, Duration::from_millis(2));
        assert!(two.judge(&[allow(1, start, 1)]).unwrap_err().to_string().contains("allowed 1.0ms"));
        assert!(two.judge(&[allow(3, start, 9)]).is_err(), "another node");
        assert!(two.judge(&[allow(1, start + Duration::from_millis(2), 9)]).is_err(), "before it went on");
    }

    #[test]
    fn late_lines_and_blindness_fail() {
        let late = Late { node: "n1".to_owned(), epoch: 7, after: (9, "n2".to_owned()), lines: 3 };
        let (wrote, _) = report(&[(0, &[1])], vec![late]);
        assert!(wrote.judge(&[]).unwrap_err().to_string().contains("n1 wrote 3 lines in epoch 7 after n2 had begun epoch 9"));
        let (unseen, _) = report(&[(0, &[1]), (4, &[2])], vec![]);
        assert!(unseen.judge(&[]).unwrap_err().to_string().contains("changed hands"));
        let (stood_still, _) = report(&[(0, &[1]), (80, &[1])], vec![]);
        assert!(stood_still.judge(&[]).is_err());
        let (never, _) = report(&[], vec![]);
        assert!(never.judge(&[]).is_err());
        let (fine, _) = report(&[(0, &[1]), (1, &[]), (2, &[2])], vec![]);
        assert_eq!(fine.judge(&[]).unwrap(), Bounded::default());
    }
}
