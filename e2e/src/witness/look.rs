//! One look at everything.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::error::Result;
use crate::lab::Lab;
use crate::names::{NodeId, netns_path};

use super::events::{Addresses, Ports};
use super::ledger::{Nodes, Thing};
use super::units::UnitGroup;

/// Where units without a slice of their own are, below a node's cgroup.
const SLICE: &str = "payload/system.slice";

/// Everything that is looked at.
#[derive(Debug)]
pub(super) struct Looker {
    ports: Ports,
    nodes: Vec<Node>,
    things: Vec<Thing>,
    seen: Vec<Nodes>,
}

/// One node. Its namespace is another after each boot.
#[derive(Debug)]
struct Node {
    id: NodeId,
    port: String,
    namespace: PathBuf,
    /// The namespace that `addresses` listens in.
    inode: Option<u64>,
    addresses: Option<Addresses>,
    /// One for each thing; none for addresses.
    units: Vec<Option<UnitGroup>>,
}

impl Looker {
    pub(super) fn new(lab: &Lab, things: &[Thing]) -> Result<Self> {
        let ports = Ports::open(&netns_path(&lab.layout.switch_ns()))?;
        let nodes = lab.nodes().map(|id| {
            let slice = lab.cgroups.node(id).join(SLICE);
            let units = things.iter().map(|thing| match thing {
                Thing::Unit(unit) => Some(UnitGroup::new(&slice.join(unit))),
                Thing::Vip(_) => None,
            });
            let namespace = netns_path(&lab.layout.node_ns(id));
            Node { id, port: id.to_string(), namespace, inode: None, addresses: None, units: units.collect() }
        });
        let nodes = nodes.collect();
        Ok(Self { ports, nodes, things: things.to_vec(), seen: vec![Nodes::default(); things.len()] })
    }

    /// Who held what in this look.
    pub(super) fn seen(&self) -> &[Nodes] {
        &self.seen
    }

    /// Looks. Two holders count only if the first still is one after the second was seen: nodes are looked at one after the other.
    ///
    /// # Errors
    /// What was lost.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let mut complete = self.collect();
        if self.seen.iter().any(|nodes| nodes.count() > 1) {
            let first = self.seen.clone();
            complete &= self.collect();
            self.leave_out_gates();
            for (now, before) in self.seen.iter_mut().zip(first) {
                *now = if before.count() > 1 { before.and(*now) } else { *now };
            }
        }
        if complete { Ok(()) } else { Err("the kernel's events came faster than the witness could take them".to_owned()) }
    }

    fn leave_out_gates(&mut self) {
        for (place, seen) in self.seen.iter_mut().enumerate().filter(|(_, nodes)| nodes.count() > 1) {
            for node in &self.nodes {
                let gate = node.units.get(place).and_then(Option::as_ref).is_some_and(|unit| !unit.executes());
                if gate && seen.has(node.id) {
                    *seen = seen.without(node.id);
                }
            }
        }
    }

    fn collect(&mut self) -> bool {
        let Self { ports, nodes, things, seen } = self;
        let mut complete = ports.update();
        seen.fill(Nodes::default());
        for node in nodes {
            node.follow();
            complete &= node.addresses.as_mut().is_none_or(Addresses::update);
            let reached = ports.is_open(&node.port);
            for ((thing, unit), seen) in things.iter().zip(&mut node.units).zip(seen.iter_mut()) {
                let holds = match (thing, unit) {
                    (Thing::Unit(_), Some(unit)) => unit.runs(),
                    (Thing::Vip(address), _) => reached && node.addresses.as_ref().is_some_and(|all| all.has(*address)),
                    (Thing::Unit(_), None) => false,
                };
                if holds {
                    *seen = seen.with(node.id);
                }
            }
        }
        complete
    }
}

impl Node {
    /// Goes into the node's namespace when there is a new one; a node that is off has none.
    fn follow(&mut self) {
        let inode = std::fs::metadata(&self.namespace).ok().map(|found| found.ino());
        if inode != self.inode {
            self.inode = inode;
            // One that is just being made cannot be entered yet; then at the next look.
            self.addresses = inode.and_then(|_| Addresses::open(&self.namespace).ok());
            if self.addresses.is_none() {
                self.inode = None;
            }
        }
    }
}
