//! What a change of Apps would do to the nodes: pure, and by the planner itself.
//!
//! # Flow
//! [`effects`] lets both worlds come to rest, the one with the Apps as they are and the one with the Apps as they shall be, each by
//! planning again and again on nodes that do at once what they are told ([`settle`]). The two ends are compared. So what is under way
//! already is no effect of the change, and there is one planner only.
//!
//! # Assumptions
//! - What is started runs. An instance that is seen to fail goes on failing until its App is changed.
//! - Nodes that are not heard do nothing.
//! - `update` only paces: it is left out, so that its end is seen and not its first step.

mod settle;

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::app::{Standby, ip, unit_name};
use cluster_schemas::assignment::{AppAssignment, Role, RunSpec};
use cluster_schemas::plan::{Effects, Interruption, InterruptionKind, PartitionMove, UnitAction, UnitEffect, VipMove};
use cluster_schemas::unit_change::needs_restart;
use cluster_schemas::{App, Mode};

pub use settle::{ROUNDS_MAX, Settled, settle};

use crate::input::{Input, Liveness};

/// What changing `input.apps` to `wanted` does, once all has come to rest.
#[must_use]
pub fn effects(input: &Input<'_>, wanted: &BTreeMap<String, App>) -> Effects {
    let (now, then) = (settle(input), settle(&Input { apps: wanted, ..*input }));
    let live = |node: &str| input.nodes.get(node).is_some_and(|n| n.liveness == Liveness::Live);
    let (before, after) = (by_app(&now), by_app(&then));
    let mut effects = Effects::default();
    if !now.steady || !then.steady {
        effects.unknown = format!("the nodes did not come to rest within {ROUNDS_MAX} rounds of planning; this is how far it got");
    }
    let none = BTreeMap::new();
    let apps: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for app in apps {
        let (old, new) = (before.get(app).unwrap_or(&none), after.get(app).unwrap_or(&none));
        if old == new && input.apps.get(app).map(|a| &a.spec) == wanted.get(app).map(|a| &a.spec) {
            continue;
        }
        effects.units.extend(units(app, old, new, live));
        vips(app, old, new, &mut effects.vips);
        partitions(app, old, new, &mut effects.partitions);
        let mode = wanted.get(app).or(input.apps.get(app)).map(|a| a.spec.mode);
        if mode == Some(Mode::Singleton) {
            let deleted = wanted.get(app).is_none_or(App::is_deleted);
            effects.interruptions.extend(interruption(app, old, new, deleted));
        }
    }
    effects
}

type ByNode<'s> = BTreeMap<&'s str, &'s AppAssignment>;

/// Entries that are a place, by App and node.
fn by_app(settled: &Settled) -> BTreeMap<&str, ByNode<'_>> {
    let mut all: BTreeMap<&str, ByNode<'_>> = BTreeMap::new();
    for (node, assignment) in &settled.assignments {
        for (app, entry) in assignment.apps.iter().filter(|(_, e)| e.role != Role::Absent) {
            all.entry(app).or_default().insert(node, entry);
        }
    }
    all
}

fn runs(entry: &AppAssignment) -> bool {
    match entry.role {
        Role::Active | Role::Member => true,
        Role::Standby => entry.run.standby == Standby::Hot,
        Role::Absent => false,
    }
}

fn units<'s>(app: &'s str, old: &ByNode<'s>, new: &ByNode<'s>, live: impl Fn(&str) -> bool) -> Vec<UnitEffect> {
    let mut found = Vec::new();
    let nodes: BTreeSet<&str> = old.keys().chain(new.keys()).copied().filter(|node| live(node)).collect();
    for node in nodes {
        let mut add = |entry: &AppAssignment, action| {
            let unit = unit_name(app, entry.run.unit.as_ref());
            found.push(UnitEffect { app: app.to_owned(), node: node.to_owned(), unit, action });
        };
        let (old, new) = (old.get(node).filter(|e| runs(e)), new.get(node).filter(|e| runs(e)));
        match (old, new) {
            (None, Some(new)) => add(new, UnitAction::Started),
            (Some(old), None) => add(old, UnitAction::Stopped),
            (Some(old), Some(new)) if unit_name(app, old.run.unit.as_ref()) != unit_name(app, new.run.unit.as_ref()) => {
                add(old, UnitAction::Stopped);
                add(new, UnitAction::Started);
            }
            (Some(old), Some(new)) if old.uid != new.uid || other_process(&old.run, &new.run) => add(new, UnitAction::Restarted),
            (Some(old), Some(new)) if old.role != new.role || owned(old) != owned(new) => add(new, UnitAction::Reloaded),
            _ => {}
        }
    }
    found
}

/// Whether a process that runs by `old` has to be another to run by `new`: the agent's own rule, where the text is known here.
fn other_process(old: &RunSpec, new: &RunSpec) -> bool {
    let text = |run: &RunSpec| run.unit.as_ref().and_then(|u| u.content.clone());
    let path = |run: &RunSpec| run.database.as_ref().map(|d| d.path.clone());
    let other_text = match (text(old), text(new)) {
        (Some(old), Some(new)) => needs_restart(&old, &new),
        (old, new) => old != new,
    };
    old.exec != new.exec || other_text || path(old) != path(new)
}

fn owned(entry: &AppAssignment) -> BTreeSet<u16> {
    entry.ring.iter().flat_map(|ring| &ring.own).flat_map(|group| group.partitions.iter()).collect()
}

fn holder<'s>(entries: &ByNode<'s>) -> Option<(&'s str, &'s str)> {
    entries.iter().find_map(|(node, e)| e.vip.as_ref().filter(|v| v.hold).map(|v| (*node, v.address.as_str())))
}

fn vips(app: &str, old: &ByNode<'_>, new: &ByNode<'_>, moves: &mut Vec<VipMove>) {
    let mut add = |address: &str, from: Option<&str>, to: Option<&str>| {
        moves.push(VipMove {
            app: app.to_owned(),
            address: address.to_owned(),
            from: from.map(ToOwned::to_owned),
            to: to.map(ToOwned::to_owned),
        });
    };
    match (holder(old), holder(new)) {
        (old, new) if old == new => {}
        (Some((from, address)), Some((to, same))) if ip(address) == ip(same) => {
            if from != to {
                add(same, Some(from), Some(to));
            }
        }
        (old, new) => {
            if let Some((from, address)) = old {
                add(address, Some(from), None);
            }
            if let Some((to, address)) = new {
                add(address, None, Some(to));
            }
        }
    }
}

fn partitions(app: &str, old: &ByNode<'_>, new: &ByNode<'_>, moves: &mut Vec<PartitionMove>) {
    fn owners<'s>(entries: &ByNode<'s>) -> BTreeMap<u16, &'s str> {
        entries.iter().flat_map(|(node, e)| owned(e).into_iter().map(|p| (p, *node))).collect()
    }
    let (old, new) = (owners(old), owners(new));
    let mut counts: BTreeMap<(Option<&str>, Option<&str>), u32> = BTreeMap::new();
    for partition in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (from, to) = (old.get(partition).copied(), new.get(partition).copied());
        if from != to {
            *counts.entry((from, to)).or_default() += 1;
        }
    }
    moves.extend(counts.into_iter().map(|((from, to), count)| PartitionMove {
        app: app.to_owned(),
        from: from.map(ToOwned::to_owned),
        to: to.map(ToOwned::to_owned),
        count,
    }));
}

fn interruption(app: &str, old: &ByNode<'_>, new: &ByNode<'_>, deleted: bool) -> Option<Interruption> {
    fn active<'s>(entries: &ByNode<'s>) -> Option<(&'s str, &'s AppAssignment)> {
        entries.iter().find(|(_, e)| e.role == Role::Active).map(|(node, e)| (*node, *e))
    }
    let address = match (holder(old), holder(new)) {
        (Some((_, old)), Some((_, new))) if old != new => format!("; its address changes from {old} to {new}"),
        (Some((_, old)), None) => format!("; its address {old} goes"),
        (None, Some((_, new))) if !old.is_empty() => format!("; its address {new} comes"),
        _ => String::new(),
    };
    let (kind, message) = match (active(old), active(new)) {
        (None, None) => return None,
        (None, Some((to, _))) => (InterruptionKind::Begins, format!("begins on {to}")),
        (Some((from, _)), None) if deleted => (InterruptionKind::Ends, format!("ends on {from}")),
        (Some((from, _)), None) => (InterruptionKind::Ends, format!("ends on {from}, and no node may run it then")),
        (Some((from, was)), Some((to, is))) if from == to => {
            if was.uid != is.uid
                || other_process(&was.run, &is.run)
                || was.run.unit.as_ref().map(|u| &u.name) != is.run.unit.as_ref().map(|u| &u.name)
            {
                (InterruptionKind::Restart, format!("stays on {from}, its process is restarted there{address}"))
            } else {
                (InterruptionKind::None, format!("stays on {from}, its process goes on{address}"))
            }
        }
        (Some((from, _)), Some((to, _))) => {
            // Hot only if the process over there runs before, and is the same after.
            let there = old.get(to).zip(new.get(to)).filter(|(was, is)| runs(was) && !other_process(&was.run, &is.run));
            if there.is_some() {
                (InterruptionKind::HotSwitchover, format!("moves from {from} to {to}, where its process runs already{address}"))
            } else {
                (InterruptionKind::ColdSwitchover, format!("moves from {from} to {to}: stopped here, then started there{address}"))
            }
        }
    };
    Some(Interruption { app: app.to_owned(), kind, message, last_ms: None })
}
