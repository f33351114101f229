//! Which nodes may run an App, and in which order Apps are planned.
//!
//! `placement.nodes` and `nodeSelector` depend on the App and the nodes alone. `awayFromApps` depends on where other Apps are planned to
//! run. It works both ways: of two Apps kept apart, the one planned later gives way, whichever of them asked. Singletons are planned
//! first (a fail-over waits for nobody), then the rest; within each group the Apps that others keep away from come before those
//! others, then by name; a cycle is cut at its first name.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cluster_schemas::app::Placement;
use cluster_schemas::{App, Mode};

use crate::words;
use crate::world::World;

/// Nodes that match `placement.nodes` and `nodeSelector`.
#[derive(Debug)]
pub(crate) struct Matching {
    /// By node number.
    pub mask: Vec<bool>,
    /// The matching nodes, rising.
    pub list: Vec<usize>,
    /// How many of them are Live.
    pub live: usize,
    /// How many of them can be given exclusive things.
    pub holding: usize,
    /// The rest of a sentence that says who is left out, such as `; n4 is not eligible: label zone=z1 missing`.
    pub left_out: String,
}

/// Matching nodes by selector; many Apps share few selectors.
#[derive(Debug, Default)]
pub(crate) struct Selectors<'a> {
    known: BTreeMap<Selector<'a>, Rc<Matching>>,
}

/// `placement.nodes` and `nodeSelector`.
type Selector<'a> = (&'a [String], &'a BTreeMap<String, String>);

impl<'a> Selectors<'a> {
    pub(crate) fn matching(&mut self, world: &World<'_>, placement: &'a Placement) -> Rc<Matching> {
        let key = (placement.nodes.as_slice(), &placement.node_selector);
        Rc::clone(self.known.entry(key).or_insert_with(|| Rc::new(matching(world, placement))))
    }
}

/// Rules of `placement` that leave out `node`, each as the label or the list that is missing.
fn broken_rules<'p>(world: &World<'_>, placement: &'p Placement, node: usize) -> Vec<Rule<'p>> {
    let view = world.nodes[node].node;
    let mut broken = Vec::new();
    if !placement.nodes.is_empty() && !placement.nodes.contains(&view.name) {
        broken.push(Rule::Nodes);
    }
    let labels = placement.node_selector.iter().filter(|(key, value)| view.labels.get(*key) != Some(value));
    broken.extend(labels.map(|(key, value)| Rule::Label(key, value)));
    broken
}

/// One reason why a node is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule<'p> {
    /// Not in `placement.nodes`.
    Nodes,
    /// A label of `placement.nodeSelector` is missing.
    Label(&'p str, &'p str),
    /// Another App that has to be kept apart runs there.
    Away(&'p str),
    /// Its heartbeat is not heard.
    Lost,
    /// It hears no majority of the nodes, and the App is exclusive.
    Quorum,
    /// Something of an earlier App has to go there first.
    Leftover,
}

impl Rule<'_> {
    fn excludes(self) -> String {
        match self {
            Self::Nodes => "placement.nodes leaves out".to_owned(),
            Self::Label(key, value) => format!("nodeSelector {key}={value} leaves out"),
            Self::Away(app) => format!("keeping away from App {app} leaves out"),
            Self::Lost => "not heard:".to_owned(),
            Self::Quorum => "without a majority of the nodes:".to_owned(),
            Self::Leftover => "still letting go of an earlier App:".to_owned(),
        }
    }

    fn fix(self, node: &str) -> String {
        match self {
            Self::Nodes => format!("add {node} to placement.nodes"),
            Self::Label(key, value) => format!("label {node} with {key}={value}"),
            Self::Away(app) => format!("move App {app} away from {node}, or drop the awayFromApps between the two"),
            Self::Lost => format!("bring {node} back"),
            Self::Quorum => format!("connect {node} with a majority of the nodes"),
            Self::Leftover => format!("wait until {node} has let go"),
        }
    }
}

fn matching(world: &World<'_>, placement: &Placement) -> Matching {
    let mut mask = vec![true; world.nodes.len()];
    let mut groups: BTreeMap<Vec<Rule<'_>>, Vec<usize>> = BTreeMap::new();
    if !placement.nodes.is_empty() || !placement.node_selector.is_empty() {
        for (number, fits) in mask.iter_mut().enumerate() {
            let broken = broken_rules(world, placement, number);
            if !broken.is_empty() {
                *fits = false;
                groups.entry(broken).or_default().push(number);
            }
        }
    }
    let left_out = groups
        .iter()
        .map(|(rules, nodes)| {
            let why: Vec<String> = rules
                .iter()
                .map(|r| match r {
                    Rule::Label(key, value) => format!("label {key}={value} missing"),
                    _ => "not in placement.nodes".to_owned(),
                })
                .collect();
            format!("; {} {} not eligible: {}", world.names(nodes), words::is_are(nodes.len()), why.join(", "))
        })
        .collect();
    let list: Vec<usize> = mask.iter().enumerate().filter(|(_, fits)| **fits).map(|(number, _)| number).collect();
    let live = list.iter().filter(|n| world.nodes[**n].live).count();
    let holding = list.iter().filter(|n| world.nodes[**n].can_hold()).count();
    Matching { mask, list, live, holding, left_out }
}

/// What keeps each node from running `app` now; `extra` adds the rules that depend on the moment.
///
/// The sentence counts the nodes that each rule leaves out, and names the smallest change: the node with the fewest rules against it.
pub(crate) fn explain<'p>(world: &World<'_>, placement: &'p Placement, extra: impl Fn(usize) -> Vec<Rule<'p>>) -> String {
    if world.nodes.is_empty() {
        return "no node is registered".to_owned();
    }
    let mut counts: BTreeMap<Rule<'_>, usize> = BTreeMap::new();
    let mut best: Option<(usize, Vec<Rule<'_>>)> = None;
    for number in 0..world.nodes.len() {
        let mut broken = broken_rules(world, placement, number);
        broken.extend(extra(number));
        for rule in &broken {
            *counts.entry(*rule).or_default() += 1;
        }
        if !broken.is_empty() && best.as_ref().is_none_or(|(_, b)| weight(&broken) < weight(b)) {
            best = Some((number, broken));
        }
    }
    let rules: Vec<String> = counts.iter().map(|(rule, count)| format!("{} {count}", rule.excludes())).collect();
    let unknown: Vec<&str> = placement.nodes.iter().filter(|n| !world.input.nodes.contains_key(*n)).map(String::as_str).collect();
    let mut text = format!("of {} node{}: {}", world.nodes.len(), words::plural(world.nodes.len()), rules.join(", "));
    if !unknown.is_empty() {
        text += &format!("; placement.nodes names {}, not registered", words::list(unknown));
    }
    if let Some((number, broken)) = best {
        let fixes: Vec<String> = broken.iter().map(|r| r.fix(world.name(number))).collect();
        text += &format!("; the smallest change: {}", fixes.join(", and "));
    }
    text
}

/// How much has to change: first how many rules, then what a user can change by an edit before what needs a machine.
fn weight(broken: &[Rule<'_>]) -> (usize, usize) {
    (broken.len(), broken.iter().filter(|r| matches!(r, Rule::Lost | Rule::Quorum | Rule::Leftover)).count())
}

/// The order in which Apps are planned, and for each App those it has to be kept apart from.
pub(crate) struct PlanningOrder<'a> {
    pub apps: Vec<&'a str>,
    pub apart: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

pub(crate) fn planning_order<'a>(apps: &'a BTreeMap<String, App>) -> PlanningOrder<'a> {
    let mut apart: BTreeMap<&'a str, BTreeSet<&'a str>> = BTreeMap::new();
    for (name, app) in apps {
        for other in app.spec.placement.away_from_apps.iter().filter(|o| *o != name) {
            if let Some((other, _)) = apps.get_key_value(other) {
                apart.entry(name).or_default().insert(other);
                apart.entry(other).or_default().insert(name);
            }
        }
    }
    let (first, rest): (Vec<_>, Vec<_>) = apps.iter().partition(|(_, app)| app.spec.mode == Mode::Singleton);
    let mut order = sorted_by_edges(&first);
    order.extend(sorted_by_edges(&rest));
    PlanningOrder { apps: order, apart }
}

/// Apps that others keep away from before those others, then by name; a cycle is cut at its first name.
fn sorted_by_edges<'a>(group: &[(&'a String, &'a App)]) -> Vec<&'a str> {
    let names: BTreeSet<&'a str> = group.iter().map(|(name, _)| name.as_str()).collect();
    let mut waits: BTreeMap<&'a str, BTreeSet<&'a str>> = BTreeMap::new();
    let mut followers: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
    for (name, app) in group {
        for other in &app.spec.placement.away_from_apps {
            if other != *name && names.contains(other.as_str()) {
                waits.entry(name).or_default().insert(other);
                followers.entry(other).or_default().push(name);
            }
        }
    }
    let mut ready: BTreeSet<&'a str> = names.iter().filter(|n| !waits.contains_key(*n)).copied().collect();
    let mut left = names;
    let mut order = Vec::with_capacity(left.len());
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(next);
        order.push(next);
        for follower in followers.get(next).into_iter().flatten() {
            if let Some(pending) = waits.get_mut(follower) {
                pending.remove(next);
                if pending.is_empty() && left.contains(follower) {
                    ready.insert(follower);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::{AppSpec, Metadata};

    fn order(apps: &[(&str, Mode, &[&str])]) -> String {
        let mut all = BTreeMap::new();
        for (name, mode, away) in apps {
            let placement = Placement { away_from_apps: away.iter().map(|a| (*a).to_owned()).collect(), ..Placement::default() };
            let spec = AppSpec { mode: *mode, placement, ..AppSpec::default() };
            let metadata = Metadata { name: (*name).to_owned(), ..Metadata::default() };
            let app = App { api_version: String::new(), kind: String::new(), metadata, spec };
            all.insert((*name).to_owned(), app);
        }
        planning_order(&all).apps.join(" ")
    }

    #[test]
    fn singletons_first_then_edges_then_names() {
        use Mode::{Replicas, Singleton, Spread};
        assert_eq!(order(&[("a", Spread, &[]), ("b", Singleton, &[]), ("c", Replicas, &[])]), "b a c");
        assert_eq!(order(&[("a", Replicas, &["c"]), ("b", Replicas, &[]), ("c", Replicas, &[])]), "b c a");
        assert_eq!(order(&[("a", Singleton, &["z"]), ("z", Replicas, &[])]), "a z");
        // A cycle is cut at its first name, and what hangs on it follows.
        assert_eq!(order(&[("a", Spread, &["b"]), ("b", Spread, &["a"]), ("c", Spread, &["b", "c"])]), "a b c");
    }
}
