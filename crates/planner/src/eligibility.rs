//! Which nodes may run an App.
//!
//! `placement.nodes`, `nodeSelector` and `avoidLabels` depend on the App and the nodes alone; `awayFromApps` and `withApps` on where
//! other Apps are planned to run.

use std::collections::BTreeMap;
use std::rc::Rc;

use cluster_schemas::app::Placement;

use crate::words;
use crate::world::World;

/// Nodes that match `placement.nodes`, `nodeSelector` and `avoidLabels`.
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

/// `placement.nodes`, `nodeSelector` and `avoidLabels`.
type Selector<'a> = (&'a [String], &'a BTreeMap<String, String>, &'a BTreeMap<String, String>);

impl<'a> Selectors<'a> {
    pub(crate) fn matching(&mut self, world: &World<'_>, placement: &'a Placement) -> Rc<Matching> {
        let key = (placement.nodes.as_slice(), &placement.node_selector, &placement.avoid_labels);
        Rc::clone(self.known.entry(key).or_insert_with(|| Rc::new(matching(world, placement))))
    }
}

/// Rules of `placement` that leave out `node`, each as the list or the label in question.
pub(crate) fn broken_rules<'p>(world: &World<'_>, placement: &'p Placement, node: usize) -> Vec<Rule<'p>> {
    let view = world.nodes[node].node;
    let mut broken = Vec::new();
    if view.witness {
        broken.push(Rule::Witness);
    } else if world.nodes[node].closed {
        broken.push(Rule::Draining);
    }
    if !placement.nodes.is_empty() && !placement.nodes.contains(&view.name) {
        broken.push(Rule::Nodes);
    }
    let labels = placement.node_selector.iter().filter(|(key, value)| view.labels.get(*key) != Some(value));
    broken.extend(labels.map(|(key, value)| Rule::Label(key, value)));
    let avoided = placement.avoid_labels.iter().filter(|(key, value)| view.labels.get(*key) == Some(value));
    broken.extend(avoided.map(|(key, value)| Rule::Avoided(key, value)));
    broken
}

/// One reason why a node is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule<'p> {
    /// It only votes.
    Witness,
    /// An operator has everything moved away from it.
    Draining,
    /// An operator wants nothing new on it.
    Cordoned,
    /// Not in `placement.nodes`.
    Nodes,
    /// A label of `placement.nodeSelector` is missing.
    Label(&'p str, &'p str),
    /// It has a label of `placement.avoidLabels`.
    Avoided(&'p str, &'p str),
    /// An App of `placement.withApps` has no instance there.
    With(&'p str),
    /// Another App that has to be kept apart runs there.
    Away(&'p str),
    /// Its capacity is not known, and resources are asked for.
    Capacity,
    /// Too little processor time is left for `placement.resources`.
    Cpu,
    /// Too little memory is left for `placement.resources`.
    Memory,
    /// Its heartbeat is not heard.
    Lost,
    /// It hears no majority of the nodes, and the App is exclusive.
    Quorum,
    /// Something has to go there first: of this App, of an earlier one, or of one with the same unit.
    Leftover,
}

impl Rule<'_> {
    /// What it is called where rules are listed.
    pub(crate) fn named(self) -> String {
        match self {
            Self::Witness => "no witness".to_owned(),
            Self::Draining => "not drained".to_owned(),
            Self::Cordoned => "not cordoned".to_owned(),
            Self::Nodes => "nodes".to_owned(),
            Self::Label(key, value) => format!("nodeSelector {key}={value}"),
            Self::Avoided(key, value) => format!("avoidLabels {key}={value}"),
            Self::With(app) => format!("withApps {app}"),
            Self::Away(app) => format!("awayFromApps {app}"),
            Self::Capacity => "capacity known".to_owned(),
            Self::Cpu => "resources cpu".to_owned(),
            Self::Memory => "resources memory".to_owned(),
            Self::Lost => "heard".to_owned(),
            Self::Quorum => "hears a majority".to_owned(),
            Self::Leftover => "nothing left there".to_owned(),
        }
    }

    fn excludes(self) -> String {
        match self {
            Self::Witness => "witnesses:".to_owned(),
            Self::Draining => "being drained:".to_owned(),
            Self::Cordoned => "cordoned:".to_owned(),
            Self::Nodes => "placement.nodes leaves out".to_owned(),
            Self::Label(key, value) => format!("nodeSelector {key}={value} leaves out"),
            Self::Avoided(key, value) => format!("avoidLabels {key}={value} leaves out"),
            Self::With(app) => format!("running beside App {app} leaves out"),
            Self::Away(app) => format!("keeping away from App {app} leaves out"),
            Self::Capacity => "capacity not known:".to_owned(),
            Self::Cpu => "too little cpu left:".to_owned(),
            Self::Memory => "too little memory left:".to_owned(),
            Self::Lost => "not heard:".to_owned(),
            Self::Quorum => "without a majority of the nodes:".to_owned(),
            Self::Leftover => "still letting go of what ran there:".to_owned(),
        }
    }

    /// What a rule of the placement says of nodes that it leaves out.
    fn left_out(self) -> String {
        match self {
            Self::Witness => "a witness".to_owned(),
            Self::Draining => "being drained".to_owned(),
            Self::Label(key, value) => format!("label {key}={value} missing"),
            Self::Avoided(key, value) => format!("label {key}={value} avoided"),
            _ => "not in placement.nodes".to_owned(),
        }
    }

    pub(crate) fn fix(self, node: &str) -> String {
        match self {
            Self::Witness => format!("make {node} more than a witness"),
            Self::Draining | Self::Cordoned => format!("uncordon {node}"),
            Self::Nodes => format!("add {node} to placement.nodes"),
            Self::Label(key, value) => format!("label {node} with {key}={value}"),
            Self::Avoided(key, value) => format!("take the label {key}={value} off {node}"),
            Self::With(app) => format!("have App {app} run on {node}, or drop it from withApps"),
            Self::Away(app) => format!("move App {app} away from {node}, or drop the awayFromApps between the two"),
            Self::Capacity => format!("run a newer agent on {node}"),
            Self::Cpu => format!("have less cpu reserved on {node}, or ask for less"),
            Self::Memory => format!("have less memory reserved on {node}, or ask for less"),
            Self::Lost => format!("bring {node} back"),
            Self::Quorum => format!("connect {node} with a majority of the nodes"),
            Self::Leftover => format!("wait until {node} has let go"),
        }
    }
}

fn matching(world: &World<'_>, placement: &Placement) -> Matching {
    let mut mask = vec![true; world.nodes.len()];
    let mut groups: BTreeMap<Vec<Rule<'_>>, Vec<usize>> = BTreeMap::new();
    let asks = !placement.nodes.is_empty() || !placement.node_selector.is_empty() || !placement.avoid_labels.is_empty();
    if asks || world.nodes.iter().any(|n| n.closed) {
        for (number, fits) in mask.iter_mut().enumerate() {
            let broken = broken_rules(world, placement, number);
            if !broken.is_empty() {
                *fits = false;
            }
            // That nothing runs on a witness needs no telling.
            if !broken.is_empty() && !broken.contains(&Rule::Witness) {
                groups.entry(broken).or_default().push(number);
            }
        }
    }
    let left_out = groups
        .iter()
        .map(|(rules, nodes)| {
            let why: Vec<String> = rules.iter().map(|r| r.left_out()).collect();
            format!("; {} {} not eligible: {}", world.names(nodes), words::is_are(nodes.len()), why.join(", "))
        })
        .collect();
    let list: Vec<usize> = mask.iter().enumerate().filter(|(_, fits)| **fits).map(|(number, _)| number).collect();
    let live = list.iter().filter(|n| world.nodes[**n].live).count();
    let holding = list.iter().filter(|n| world.nodes[**n].can_hold()).count();
    Matching { mask, list, live, holding, left_out }
}

/// Why `placement` leaves out `node`, which it does.
pub(crate) fn why_left_out(world: &World<'_>, placement: &Placement, node: usize) -> String {
    let why: Vec<String> = broken_rules(world, placement, node).into_iter().map(Rule::left_out).collect();
    format!("not eligible any more: {}", why.join(", "))
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
    let no_apps = placement.with_apps.iter().filter(|app| !world.input.apps.contains_key(*app)).map(String::as_str).collect::<Vec<_>>();
    let all = world.nodes.len();
    let mut text = match rules.as_slice() {
        [] => format!("there {} {all} node{}", words::is_are(all), words::plural(all)),
        rules => format!("of {all} node{}: {}", words::plural(all), rules.join(", ")),
    };
    if !unknown.is_empty() {
        text += &format!("; placement.nodes names {}, not registered", words::list(unknown));
    }
    if !no_apps.is_empty() {
        text += &format!("; withApps names {}, no such App", words::list(no_apps));
    }
    if let Some((number, broken)) = best {
        let fixes: Vec<String> = broken.iter().map(|r| r.fix(world.name(number))).collect();
        text += &format!("; the smallest change: {}", fixes.join(", and "));
    }
    text
}

/// How much has to change: first how many rules, then what a user can change by an edit before what needs a machine.
pub(crate) fn weight(broken: &[Rule<'_>]) -> (usize, usize) {
    (broken.len(), broken.iter().filter(|r| matches!(r, Rule::Witness | Rule::Lost | Rule::Quorum | Rule::Leftover)).count())
}
