//! The input, indexed: nodes by number in the order of their names, evidence by App, VIPs by address.

use std::collections::BTreeMap;

use cluster_schemas::app::ip;
use cluster_schemas::assignment::AppAssignment;
use cluster_schemas::node::AppObserved;
use cluster_schemas::{Assignment, Mode, Node, NodeStatus};

use crate::claims::{Evidence, reached};
use crate::input::{Input, Liveness};

/// One registered node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeView<'a> {
    pub node: &'a Node,
    pub live: bool,
    pub status: Option<&'a NodeStatus>,
    pub last: Option<&'a Assignment>,
    /// The last assignment was written for the node's present boot.
    pub same_boot: bool,
    /// It may be given new things.
    pub open: bool,
    /// Nothing may be on it, since it is a witness or is being drained.
    pub closed: bool,
}

impl NodeView<'_> {
    /// Whether a new exclusive thing may be given to it.
    pub(crate) fn can_hold(&self) -> bool {
        self.live && self.status.is_some_and(|s| s.quorum)
    }

    /// Whether an exclusive thing that it has may stay: without a status nothing speaks against it.
    pub(crate) fn may_keep(&self) -> bool {
        self.live && self.status.is_none_or(|s| s.quorum)
    }
}

/// What is known of one VIP address, over all Apps.
#[derive(Debug, Clone, Default)]
pub(crate) struct VipFacts<'a> {
    /// Highest epoch seen.
    pub epoch: u64,
    /// Unsettled claims: App and node.
    pub claims: Vec<(&'a str, usize)>,
}

/// Evidence by App.
#[derive(Debug)]
struct Register<'a> {
    /// Names of the Apps that exist, sorted.
    known: Vec<&'a str>,
    /// Their evidence.
    evidence: Vec<Vec<Evidence<'a>>>,
    /// Of Apps that do not exist.
    others: BTreeMap<&'a str, Vec<Evidence<'a>>>,
    /// Where the next App is expected among `known`.
    next: usize,
}

impl<'a> Register<'a> {
    fn new(input: &Input<'a>) -> Self {
        let known: Vec<&str> = input.apps.keys().map(String::as_str).collect();
        let evidence = vec![Vec::new(); known.len()];
        Self { known, evidence, others: BTreeMap::new(), next: 0 }
    }

    fn add(&mut self, app: &'a str, found: Evidence<'a>) {
        // Names come sorted, and Apps that run everywhere lie side by side: often no search is needed.
        let at = if self.known.get(self.next) == Some(&app) { Ok(self.next) } else { self.known.binary_search(&app) };
        match at {
            Ok(at) => {
                self.next = at + 1;
                self.evidence[at].push(found);
            }
            Err(_) => self.others.entry(app).or_default().push(found),
        }
    }

    fn get(&self, app: &str) -> &[Evidence<'a>] {
        match self.known.binary_search(&app) {
            Ok(at) => &self.evidence[at],
            Err(_) => self.others.get(app).map_or(&[], Vec::as_slice),
        }
    }

    fn seen(&self) -> impl Iterator<Item = &'a str> + '_ {
        let known = self.known.iter().zip(&self.evidence).filter(|(_, evidence)| !evidence.is_empty());
        known.map(|(app, _)| *app).chain(self.others.keys().copied())
    }
}

/// The input, indexed.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub input: &'a Input<'a>,
    /// Sorted by name; a node's number is its place here.
    pub nodes: Vec<NodeView<'a>>,
    /// Numbers of nodes that may be given nothing new.
    pub shut: Vec<usize>,
    evidence: Register<'a>,
    vips: BTreeMap<&'a str, VipFacts<'a>>,
    /// Entries of nodes that are not registered any more: only their epochs count.
    strays: BTreeMap<&'a str, Vec<&'a AppAssignment>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(input: &'a Input<'a>) -> Self {
        let nodes: Vec<NodeView<'a>> = input
            .nodes
            .iter()
            .map(|(name, n)| {
                let last = input.assignments.get(name);
                NodeView {
                    node: &n.node,
                    live: n.liveness == Liveness::Live,
                    status: n.status.as_ref(),
                    last,
                    same_boot: last.is_some_and(|a| a.boot_id == n.node.boot_id),
                    open: n.is_open(),
                    closed: n.is_closed(),
                }
            })
            .collect();
        let shut = nodes.iter().enumerate().filter(|(_, n)| !n.open).map(|(number, _)| number).collect();
        let mut world = Self { input, nodes, shut, evidence: Register::new(input), vips: BTreeMap::new(), strays: BTreeMap::new() };
        world.gather();
        world
    }

    fn gather(&mut self) {
        for (number, view) in self.nodes.iter().enumerate() {
            let taken = view.last.is_some_and(|a| reached(view.status.and_then(|s| s.assignment.as_ref()), &a.order));
            let generation = view.last.map_or(0, |a| a.order.generation);
            let mut add = |app: &'a str, entry: Option<&'a AppAssignment>, observed: Option<&'a AppObserved>| {
                let found = Evidence {
                    node: number,
                    entry,
                    observed,
                    lost: !view.live,
                    same_boot: view.same_boot,
                    acked: taken && observed.is_none_or(|o| o.seen >= generation),
                    clear: taken && observed.is_none(),
                    has_vip: entry.is_some_and(|e| e.vip.is_some()) || observed.is_some_and(|o| o.vip.is_some()),
                };
                for claim in found.vip_claims() {
                    let facts = self.vips.entry(ip(claim.address)).or_default();
                    facts.epoch = facts.epoch.max(claim.epoch);
                    facts.claims.push((app, number));
                }
                if let Some(vip) = entry.and_then(|e| e.vip.as_ref()) {
                    let facts = self.vips.entry(ip(&vip.address)).or_default();
                    facts.epoch = facts.epoch.max(vip.epoch).max(vip.releasing.unwrap_or(0));
                }
                if let Some(vip) = observed.and_then(|o| o.vip.as_ref()) {
                    let facts = self.vips.entry(ip(&vip.address)).or_default();
                    facts.epoch = facts.epoch.max(vip.epoch).max(vip.gave_up);
                }
                self.evidence.add(app, found);
            };
            // Both sorted by App: side by side, for looking each up in the other would take most of the time.
            let mut seen = view.status.into_iter().flat_map(|s| &s.apps).peekable();
            for (app, entry) in view.last.into_iter().flat_map(|a| &a.apps) {
                while let Some((before, observed)) = seen.next_if(|(other, _)| *other < app) {
                    add(before, None, Some(observed));
                }
                add(app, Some(entry), seen.next_if(|(other, _)| *other == app).map(|(_, observed)| observed));
            }
            for (app, observed) in seen {
                add(app, None, Some(observed));
            }
        }
        for (name, assignment) in self.input.assignments {
            if !self.input.nodes.contains_key(name) {
                for (app, entry) in &assignment.apps {
                    self.strays.entry(app).or_default().push(entry);
                    if let Some(vip) = &entry.vip {
                        let facts = self.vips.entry(ip(&vip.address)).or_default();
                        facts.epoch = facts.epoch.max(vip.epoch).max(vip.releasing.unwrap_or(0));
                    }
                }
            }
        }
    }

    /// A node's name.
    pub(crate) fn name(&self, node: usize) -> &'a str {
        &self.nodes[node].node.name
    }

    /// Names of nodes, joined as in a sentence.
    pub(crate) fn names(&self, nodes: &[usize]) -> String {
        crate::words::list(nodes.iter().map(|n| self.name(*n)))
    }

    /// Evidence about `app`, in the order of the nodes.
    pub(crate) fn evidence(&self, app: &str) -> &[Evidence<'a>] {
        self.evidence.get(app)
    }

    /// Names of all Apps with evidence anywhere, those that exist first.
    pub(crate) fn seen_apps(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.evidence.seen()
    }

    /// What is known of the VIP with this address.
    pub(crate) fn vip(&self, address: &str) -> Option<&VipFacts<'a>> {
        self.vips.get(ip(address))
    }

    /// Addresses of all VIPs that anything was seen of, with their highest epochs.
    pub(crate) fn vip_epochs(&self) -> impl Iterator<Item = (&'a str, u64)> + '_ {
        self.vips.keys().map(|ip| (*ip, self.newest_vip_epoch(ip)))
    }

    /// Highest epoch known of a Singleton's slot or a ring, its VIP's included where that goes by the same epoch.
    pub(crate) fn newest_epoch(&self, app: &str, mode: Mode) -> u64 {
        let evidence = self.evidence(app);
        let entries = evidence.iter().filter_map(|e| e.entry).chain(self.strays.get(app).into_iter().flatten().copied());
        let planned = entries.map(|e| {
            let groups = e.ring.iter().flat_map(|r| r.own.iter().map(|g| g.epoch)).max().unwrap_or(0);
            e.epoch.max(e.releasing.unwrap_or(0)).max(groups)
        });
        let observed = evidence.iter().filter_map(|e| e.observed).map(|o| {
            let ring = o.ring.as_ref().map_or(0, |r| r.gave_up);
            o.epoch.max(o.gave_up).max(ring)
        });
        let slot = if mode == Mode::Ring { format!("ring/{app}") } else { format!("app/{app}") };
        planned.chain(observed).max().unwrap_or(0).max(self.floor(&slot))
    }

    /// Highest epoch known of slot `vip/ADDRESS`.
    pub(crate) fn newest_vip_epoch(&self, address: &str) -> u64 {
        self.vip(address).map_or(0, |v| v.epoch).max(self.floor(&format!("vip/{}", ip(address))))
    }

    fn floor(&self, slot: &str) -> u64 {
        self.input.epoch_floors.get(slot).copied().unwrap_or(0)
    }
}
