//! What is seen of nodes from outside, once or all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use cluster_e2e::{Lab, LabError, NodeId, Power, Result};
use serde_json::Value;

use crate::cluster::wrong;
use crate::http;

/// One run of a unit: another process or another start is another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub pid: u32,
    /// When the unit became active, µs of the monotonic clock.
    pub since: u64,
}

/// All runs, by node and unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(pub BTreeMap<(NodeId, String), Run>);

impl Runs {
    /// The runs of one App's unit by node.
    pub fn of(&self, app: &str) -> BTreeMap<NodeId, Run> {
        let unit = format!("clusterctl-{app}.service");
        self.0.iter().filter(|((_, u), _)| *u == unit).map(|((node, _), run)| (*node, *run)).collect()
    }

    /// Nodes on which the App's unit runs.
    pub fn nodes_of(&self, app: &str) -> Vec<NodeId> {
        self.of(app).into_keys().collect()
    }
}

/// Reads `systemctl show` of several units; those that are not active are left out.
pub fn runs_of(shown: &str) -> BTreeMap<String, Run> {
    let blocks = shown.split("\n\n").filter_map(|block| {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let run = Run { pid: value("MainPID")?.parse().ok()?, since: value("ActiveEnterTimestampMonotonic")?.parse().ok()? };
        (value("ActiveState") == Some("active")).then(|| (value("Id").unwrap_or_default().to_owned(), run))
    });
    blocks.collect()
}

/// IPv4 addresses of a node beside its own, read without entering it.
pub fn vips_on(lab: &Lab, node: NodeId) -> Result<BTreeSet<Ipv4Addr>> {
    let path = format!("/proc/{}/net/fib_trie", lab.node_pid(node)?);
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("{path}: {error}")))?;
    let own = [node.addr(), node.service_addr()];
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in text.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback() && !own.contains(address)));
        }
    }
    Ok(found)
}

/// A Singleton watched from outside, on all nodes, every 20 ms.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// Nodes with processes of the unit, and nodes with the address.
type Holders = (Vec<NodeId>, Vec<NodeId>);

/// What a [`Watch`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub samples: usize,
    /// What was so from when on.
    pub changes: Vec<(Instant, Holders)>,
    /// Moments at which two nodes had processes of the unit, or two had the address.
    pub overlaps: Vec<(Instant, Holders)>,
}

impl Watch {
    /// Begins to watch a unit and an address. Nodes that are paused or off are not looked at.
    pub fn start(lab: &Lab, unit: &str, address: Ipv4Addr) -> Self {
        let (lab, stop) = (lab.clone(), Arc::new(AtomicBool::new(false)));
        let (stopped, path) = (Arc::clone(&stop), format!("/sys/fs/cgroup/system.slice/{unit}/cgroup.events"));
        let thread = spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                let now = Instant::now();
                let holders = look(&lab, &path, address);
                seen.samples += 1;
                if holders.0.len() > 1 || holders.1.len() > 1 {
                    seen.overlaps.push((now, holders.clone()));
                }
                if seen.changes.last().is_none_or(|(_, last)| *last != holders) {
                    seen.changes.push((now, holders));
                }
                sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn look(lab: &Lab, path: &str, address: Ipv4Addr) -> Holders {
    let awake = |node: &NodeId| matches!(lab.power(node), Ok(Power::On));
    let runs = |node: &NodeId| lab.read(node, path).is_ok_and(|text| text.contains("populated 1"));
    let has = |node: &NodeId| vips_on(lab, *node).is_ok_and(|all| all.contains(&address));
    let nodes: Vec<NodeId> = lab.nodes().filter(awake).collect();
    (nodes.iter().copied().filter(runs).collect(), nodes.iter().copied().filter(has).collect())
}

impl Seen {
    /// How long after `from` neither process nor address was on `node`.
    pub fn gone_from(&self, node: NodeId, from: Instant) -> Option<Duration> {
        self.first(from, |(runs, has)| !runs.contains(&node) && !has.contains(&node))
    }

    /// How long after `from` another node than `node` had both.
    pub fn taken_over_from(&self, node: NodeId, from: Instant) -> Option<Duration> {
        self.first(from, |(runs, has)| runs.iter().any(|n| *n != node && has.contains(n)))
    }

    fn first(&self, from: Instant, holds: impl Fn(&Holders) -> bool) -> Option<Duration> {
        self.changes.iter().find(|(at, holders)| *at >= from && holds(holders)).map(|(at, _)| *at - from)
    }

    /// In a few words, counted from `from`.
    pub fn story(&self, from: Instant) -> String {
        let names = |nodes: &[NodeId]| match nodes {
            [] => "nobody".to_owned(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
        };
        let at = |at: &Instant| at.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(*at).as_secs_f64();
        let told = self.changes.iter().map(|(when, (runs, has))| format!("{:.2} s unit {} vip {}", at(when), names(runs), names(has)));
        told.collect::<Vec<_>>().join(", ")
    }
}

/// A client that asks an address all the time.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers, LabError>>,
}

/// What a [`Probe`] got.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers with status 200, as (when, what).
    pub good: Vec<(Instant, Value)>,
    /// Everything else.
    pub bad: Vec<(Instant, String)>,
}

impl Probe {
    /// Begins to ask `http://ADDRESS:PORT/` every 20 ms; what takes longer than 300 ms is no answer.
    pub fn start(lab: &Lab, address: Ipv4Addr, port: u16) -> Self {
        let (lab, stop) = (lab.clone(), Arc::new(AtomicBool::new(false)));
        let (stopped, addr) = (Arc::clone(&stop), SocketAddr::from((address, port)));
        let thread = spawn(move || {
            lab.as_client(|| {
                let mut answers = Answers::default();
                while !stopped.load(Ordering::Relaxed) {
                    let now = Instant::now();
                    match http::request(addr, "GET", "/", &[], "", Duration::from_millis(300)) {
                        Ok(reply) if reply.status == 200 => {
                            answers.good.push((now, serde_json::from_str(&reply.body).unwrap_or(Value::Null)));
                        }
                        Ok(reply) => answers.bad.push((now, format!("status {}", reply.status))),
                        Err(error) => answers.bad.push((now, error.to_string())),
                    }
                    sleep(Duration::from_millis(20));
                }
                answers
            })
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
