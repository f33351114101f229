//! What the planner reads ([`Input`]) and what it answers ([`Plan`]).

use std::collections::BTreeMap;

use cluster_schemas::node::Cordon;
use cluster_schemas::{App, Assignment, Node, NodeStatus};

/// All that a plan depends on. The same input always gives the same plan.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Identity of the store, as in [`Order::incarnation`](cluster_schemas::assignment::Order::incarnation).
    pub incarnation: &'a str,
    /// The leadership that plans.
    pub term: u64,
    /// Desired: all Apps by name, those being deleted too.
    pub apps: &'a BTreeMap<String, App>,
    /// All registered nodes by name.
    pub nodes: &'a BTreeMap<String, NodeInput>,
    /// Planned: the assignments as last written, by node.
    pub assignments: &'a BTreeMap<String, Assignment>,
    /// The lease of Apps that name none, in milliseconds.
    pub lease_ms: u64,
    /// Highest epoch known from other sources, by slot text (`app/NAME`, `vip/ADDRESS`, `ring/APP`): the recorded active
    /// instances, app statuses, and [`Plan::epochs`] of earlier plans. Keeps epochs rising where no entry remembers them.
    pub epoch_floors: &'a BTreeMap<String, u64>,
    /// Singletons that an operator asked to move, by App.
    pub handovers: &'a BTreeMap<String, Handover>,
}

/// An operator's wish that a Singleton be active elsewhere. It is about one tenure: once a later one is seen, nothing is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Epoch of the tenure to end.
    pub epoch: u64,
    /// Who shall follow; the best candidate where none is named.
    pub to: Option<String>,
}

/// One registered node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInput {
    /// As the agent registered it.
    pub node: Node,
    /// Whether its heartbeat is heard.
    pub liveness: Liveness,
    /// What its agent observes; `None` unless the status is of the node's present boot.
    pub status: Option<NodeStatus>,
    /// Whether an operator set it apart.
    pub cordon: Cordon,
}

impl NodeInput {
    /// Whether it may be given new things: neither set apart nor a witness.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.cordon == Cordon::None && !self.node.witness
    }

    /// Whether nothing may be on it at all.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.cordon == Cordon::Draining || self.node.witness
    }
}

/// Whether a node's heartbeat is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Heard lately. Such a node may hold whatever it was given and did not confirm to have let go.
    Live,
    /// Not heard for so long that its agent has given up every exclusive thing by itself.
    Lost,
}

/// What every node must do, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// One assignment for each registered node. Unchanged ones have the order they were written with.
    pub assignments: BTreeMap<String, Assignment>,
    /// What there is to say of each App that is not being deleted, by name.
    pub notes: BTreeMap<String, AppNotes>,
    /// Apps being deleted of which nothing is left or claimed anywhere, sorted: their objects may go.
    pub gone: Vec<String>,
    /// For each App being deleted that is not gone: the nodes still waited for, sorted.
    pub terminating: BTreeMap<String, Vec<String>>,
    /// Highest epoch known of each slot after this plan, by slot text: floors for later plans.
    pub epochs: BTreeMap<String, u64>,
}

impl Plan {
    /// The assignments that differ from those last written, and so have to be written.
    pub fn changed<'a>(&'a self, input: &'a Input<'_>) -> impl Iterator<Item = &'a Assignment> {
        self.assignments.iter().filter(|(name, a)| input.assignments.get(*name).is_none_or(|last| last.order != a.order)).map(|(_, a)| a)
    }
}

/// What there is to say of one App's placement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppNotes {
    /// Nodes that are Live and on which the App may run now.
    pub eligible: usize,
    /// Eligible nodes that have too little room for `placement.resources`, each with what it lacks.
    pub crowded: Option<String>,
    /// Why fewer instances are placed than asked for.
    pub shortage: Option<Shortage>,
    /// Another App has an older claim on the same VIP or unit: nothing is placed. A sentence that names it.
    pub conflict: Option<String>,
    /// What the plan waits for, such as a node that has to let go first. A sentence.
    pub waits: Option<String>,
}

/// Why fewer instances are placed than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// No node at all may run it now; otherwise some, but fewer than asked for.
    pub none: bool,
    /// How many nodes each rule leaves out, and the smallest change that would help.
    pub message: String,
}
