//! A checker of finished plans. It knows the rules, not the planner: it judges a plan by the input alone, with none of the planner's
//! code, and the controller runs it before every write. A plan with a violation must not be written.

use std::collections::BTreeMap;
use std::fmt;

use cluster_schemas::assignment::{AppAssignment, Assignment, Role};
use cluster_schemas::{COUNTER_LIMIT, Mode, Node, NodeStatus};

use crate::input::{Input, Liveness, Plan};

mod exclusive;
mod placement;
mod room;
mod update;

/// Which rule a plan breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// One assignment for each registered node, with all of them as members and its present boot.
    Nodes,
    /// Content and order change together; orders rise (rule C3).
    Order,
    /// At most one node holds an exclusive thing, and nobody gets it while another may still hold it.
    Exclusive,
    /// A new tenure has a higher epoch than any known; a tenure given up is dead.
    Epoch,
    /// Exclusive things go only to Live nodes that hear a majority, and only as their mode says.
    Holder,
    /// What a node may still hold is marked as released until it confirmed.
    Release,
    /// An entry leaves an assignment only after the node confirmed that nothing is left.
    Dropped,
    /// No place is new on a node whose capacity is less than what all with a place there ask for.
    Room,
    /// Nothing runs where its App may not run, or for an App that is deleted or lost a conflict.
    Eligible,
    /// Replicas: never fewer than asked for by our own doing (rule S1), never more new ones than asked for.
    Replicas,
    /// Ring: every partition owned or about to be, counts as even as can be, versions rising.
    Ring,
    /// Changed content reaches no more instances at a time than `update` allows.
    Update,
    /// Only an App being deleted of which nothing is left is gone.
    Gone,
}

/// A rule that a plan breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, with the names involved.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.message)
    }
}

/// All violations of `plan`, sorted; none if it may be written.
#[must_use]
pub fn check(input: &Input<'_>, plan: &Plan) -> Vec<Violation> {
    let mut report = Report::default();
    nodes_and_orders(input, plan, &mut report);
    exclusive::check(input, plan, &mut report);
    dropped(input, plan, &mut report);
    gone(input, plan, &mut report);
    placement::check(input, plan, &mut report);
    room::check(input, plan, &mut report);
    report.violations.sort();
    report.violations
}

/// Violations found so far.
#[derive(Debug, Default)]
struct Report {
    violations: Vec<Violation>,
}

impl Report {
    fn add(&mut self, rule: Rule, message: impl Into<String>) {
        self.violations.push(Violation { rule, message: message.into() });
    }

    fn unless(&mut self, good: bool, rule: Rule, message: impl FnOnce() -> String) {
        if !good {
            self.add(rule, message());
        }
    }
}

/// A registered node with what was written for it and what is planned.
#[derive(Debug, Clone, Copy)]
struct Site<'a> {
    name: &'a str,
    node: &'a Node,
    live: bool,
    /// It may be given new things.
    open: bool,
    /// Nothing may be on it.
    closed: bool,
    status: Option<&'a NodeStatus>,
    last: Option<&'a Assignment>,
    planned: Option<&'a Assignment>,
}

impl<'a> Site<'a> {
    fn all(input: &'a Input<'_>, plan: &'a Plan) -> impl Iterator<Item = Self> {
        input.nodes.iter().map(|(name, n)| Self {
            name,
            node: &n.node,
            live: n.liveness == Liveness::Live,
            open: n.cordon == cluster_schemas::node::Cordon::None && !n.node.witness,
            closed: n.cordon == cluster_schemas::node::Cordon::Draining || n.node.witness,
            status: n.status.as_ref(),
            last: input.assignments.get(name),
            planned: plan.assignments.get(name),
        })
    }

    fn entry_before(&self, app: &str) -> Option<&'a AppAssignment> {
        self.last.and_then(|a| a.apps.get(app))
    }

    fn entry(&self, app: &str) -> Option<&'a AppAssignment> {
        self.planned.and_then(|a| a.apps.get(app))
    }

    /// Whether what was written was written for the present boot.
    fn same_boot(&self) -> bool {
        self.last.is_some_and(|a| a.boot_id == self.node.boot_id)
    }

    /// Whether the agent took the assignment as last written.
    fn took_last(&self) -> bool {
        let taken = self.status.and_then(|s| s.assignment.as_ref());
        match (self.last, taken) {
            (Some(last), Some(taken)) => {
                taken.incarnation == last.order.incarnation && (taken.term, taken.generation) >= (last.order.term, last.order.generation)
            }
            _ => false,
        }
    }

    /// Whether `app`'s worker acts on the assignment as last written.
    fn acts_on_last(&self, app: &str) -> bool {
        let seen = self.status.and_then(|s| s.apps.get(app)).map(|o| o.seen);
        self.took_last() && seen.is_none_or(|seen| self.last.is_some_and(|a| seen >= a.order.generation))
    }
}

fn nodes_and_orders(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    for name in plan.assignments.keys().filter(|n| !input.nodes.contains_key(*n)) {
        report.add(Rule::Nodes, format!("{name} is not registered"));
    }
    for site in Site::all(input, plan) {
        let name = site.name;
        let Some(planned) = site.planned else {
            report.add(Rule::Nodes, format!("{name} has no assignment"));
            continue;
        };
        report.unless(planned.node == name, Rule::Nodes, || format!("{name} has the assignment of {}", planned.node));
        report.unless(planned.boot_id == site.node.boot_id, Rule::Nodes, || format!("{name} is planned for another boot"));
        report.unless(planned.members.iter().eq(input.nodes.keys()), Rule::Nodes, || format!("{name} has other members than the nodes"));
        let order = &planned.order;
        report.unless(order.generation < COUNTER_LIMIT && order.term < COUNTER_LIMIT, Rule::Order, || format!("{name}: beyond 2^53"));
        if let Some(last) = site.last.filter(|last| last.order == *order) {
            let same = last.boot_id == planned.boot_id
                && last.members == planned.members
                && last.cordoned == planned.cordoned
                && last.apps == planned.apps;
            report.unless(same, Rule::Order, || format!("{name}: other content in the same order"));
            report.unless(order.incarnation == input.incarnation, Rule::Order, || format!("{name}: an order of another incarnation"));
            continue;
        }
        let ours = order.incarnation == input.incarnation && order.term == input.term && order.generation > 0;
        report.unless(ours, Rule::Order, || format!("{name}: changed, but not in this term and incarnation"));
        if let Some(last) = site.last.filter(|last| last.order.incarnation == order.incarnation) {
            let rises = order.term >= last.order.term && order.generation > last.order.generation;
            report.unless(rises, Rule::Order, || format!("{name}: the order does not rise"));
        }
    }
}

fn dropped(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    for site in Site::all(input, plan) {
        let status = site.status;
        for (app, entry) in site.last.into_iter().flat_map(|a| &a.apps).filter(|(app, _)| site.entry(app).is_none()) {
            let confirmed = entry.role == Role::Absent && site.took_last() && status.is_some_and(|s| !s.apps.contains_key(app));
            report.unless(confirmed, Rule::Dropped, || format!("the entry of App {app} leaves {} unconfirmed", site.name));
        }
        for app in status.into_iter().flat_map(|s| s.apps.keys()) {
            report.unless(site.entry(app).is_some(), Rule::Dropped, || format!("{} has something of App {app}, and no entry", site.name));
        }
    }
}

fn gone(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    if plan.gone.is_empty() && plan.terminating.is_empty() {
        return;
    }
    let mut left: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for site in Site::all(input, plan) {
        for app in site.planned.into_iter().flat_map(|a| a.apps.keys()) {
            left.entry(app).or_default().push(site.name);
        }
    }
    for app in &plan.gone {
        let deleted = input.apps.get(app).is_some_and(cluster_schemas::App::is_deleted);
        report.unless(deleted && !left.contains_key(app.as_str()), Rule::Gone, || format!("App {app} is not gone"));
    }
    for (app, nodes) in &plan.terminating {
        let same = left.get(app.as_str()).is_some_and(|l| l.iter().eq(nodes.iter()));
        report.unless(same, Rule::Gone, || format!("App {app} waits for other nodes than those with an entry"));
    }
}

/// Apps that may have a place: not deleted.
fn wanted<'a>(input: &Input<'a>, app: &str) -> Option<&'a cluster_schemas::App> {
    input.apps.get(app).filter(|a| !a.is_deleted())
}

/// Whether `mode` has an exclusive slot of its own.
const fn has_slot(mode: Mode) -> bool {
    matches!(mode, Mode::Singleton | Mode::Ring)
}
