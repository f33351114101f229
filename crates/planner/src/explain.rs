//! Why an App is where it is: every node and every rule, by the planner's own filters. Nothing here decides.

use cluster_schemas::Mode;
use cluster_schemas::assignment::Role;
use cluster_schemas::placement::{NodePlacement, PlacementView, RuleCheck};

use crate::context::{Board, Context, Entries};
use crate::eligibility::{Rule, broken_rules, weight};
use crate::input::Input;
use crate::leases;

/// The placement of `app` by a plan made now. `None` where it is not placed at all: it does not exist, is being deleted, or another
/// App has its VIP or unit.
#[must_use]
pub fn placement(input: &Input<'_>, app: &str) -> Option<PlacementView> {
    let adopted = leases::adopt(input);
    crate::run(&Input { assignments: &adopted, ..*input }, Some(app)).1
}

/// What was found for one App, while it was planned.
pub(crate) fn view(ctx: &Context<'_, '_>, board: &Board, entries: &Entries) -> PlacementView {
    let exclusive = matches!(ctx.app.spec.mode, Mode::Singleton | Mode::Ring);
    let places = |node: &usize| entries.get(node).is_some_and(|e| e.role != Role::Absent);
    let mut nodes = Vec::with_capacity(ctx.world.nodes.len());
    let mut best: Option<((usize, usize), String)> = None;
    for number in 0..ctx.world.nodes.len() {
        let mut broken = broken_rules(ctx.world, &ctx.app.spec.placement, number);
        broken.extend(ctx.rules_now(number, exclusive));
        let mut rules = applicable(ctx, exclusive);
        rules.extend(broken.iter().filter(|rule| !rules.contains(rule)).copied().collect::<Vec<_>>());
        let entry = entries.get(&number).filter(|e| e.role != Role::Absent);
        let name = ctx.world.name(number);
        let change = match entry.map(|e| e.role) {
            Some(Role::Active | Role::Member) => String::new(),
            role if broken.is_empty() => to_have_it(ctx, name, role),
            _ => broken.iter().map(|rule| rule.fix(name)).collect::<Vec<_>>().join(", and "),
        };
        if !change.is_empty() && best.as_ref().is_none_or(|(least, _)| weight(&broken) < *least) {
            best = Some((weight(&broken), change.clone()));
        }
        let key = ctx.app.spec.placement.spread_by.as_deref();
        let value = |of: usize| key.and_then(|key| ctx.world.nodes[of].node.labels.get(key));
        let alike = || entries.keys().filter(|node| places(node) && value(**node) == value(number)).count();
        nodes.push(NodePlacement {
            node: name.to_owned(),
            role: entry.map(|e| e.role),
            reason: entry.map(|e| e.reason.message.clone()).unwrap_or_default(),
            fits: broken.is_empty(),
            rules: rules
                .iter()
                .map(|rule| RuleCheck { rule: rule.named(), pass: !broken.contains(rule), detail: detail(ctx, *rule, number) })
                .collect(),
            prefer: ctx.score(number),
            spread_value: value(number).cloned(),
            spread_places: key.map(|_| u32::try_from(alike()).unwrap_or(u32::MAX)),
            instances: board.instances[number],
            change,
        });
    }
    PlacementView { app: ctx.name.to_owned(), nodes, smallest_change: best.map(|(_, change)| change).unwrap_or_default() }
}

/// The rules that this App makes, and those that hold for every App.
fn applicable<'a>(ctx: &Context<'_, 'a>, exclusive: bool) -> Vec<Rule<'a>> {
    let placement = &ctx.app.spec.placement;
    let mut rules = vec![Rule::Witness, Rule::Draining, Rule::Cordoned, Rule::Lost];
    rules.extend(exclusive.then_some(Rule::Quorum));
    rules.extend((!placement.nodes.is_empty()).then_some(Rule::Nodes));
    rules.extend(placement.node_selector.iter().map(|(key, value)| Rule::Label(key, value)));
    rules.extend(placement.avoid_labels.iter().map(|(key, value)| Rule::Avoided(key, value)));
    rules.extend(placement.with_apps.iter().map(|app| Rule::With(app)));
    rules.extend(placement.away_from_apps.iter().map(|app| Rule::Away(app)));
    if !ctx.asks.is_zero() {
        rules.extend([Rule::Cpu, Rule::Memory]);
    }
    rules.push(Rule::Leftover);
    rules
}

/// The numbers of a rule that has some.
fn detail(ctx: &Context<'_, '_>, rule: Rule<'_>, node: usize) -> String {
    match rule {
        Rule::Cpu | Rule::Memory => ctx.room_text(node, rule),
        _ => String::new(),
    }
}

/// What would have a node run the App that may run it and does not.
fn to_have_it(ctx: &Context<'_, '_>, node: &str, role: Option<Role>) -> String {
    let name = ctx.name;
    match (ctx.app.spec.mode, role) {
        (Mode::Singleton, Some(Role::Standby)) => format!("it stands by: clusterctl switchover {name} --to {node}"),
        (Mode::Singleton, _) => format!("it fits, and enough others stand by: rank {node} higher in placement.prefer"),
        (Mode::Replicas | Mode::Ring, _) => {
            format!("it fits, and enough others run it: raise replicas, or rank {node} higher in placement.prefer")
        }
        (Mode::Spread, _) => format!("it fits: it is given one as soon as {node} is ready for it"),
    }
}
