//! Where things run: eligibility, counts of Replicas, balance of Rings.

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::assignment::Role;
use cluster_schemas::{App, Mode};

use super::{Report, Rule, Site, update, wanted};
use crate::input::{Input, Plan};

/// The nodes of one App, with a place for it in the plan or the last assignments.
type Sites<'a> = BTreeMap<&'a str, Vec<Site<'a>>>;

pub(super) fn check(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    let mut sites: Sites<'_> = BTreeMap::new();
    for site in Site::all(input, plan) {
        let planned = site.planned.into_iter().flat_map(|a| a.apps.keys());
        let before = site.last.into_iter().flat_map(|a| a.apps.keys()).filter(|app| site.entry(app).is_none());
        for app in planned.chain(before) {
            sites.entry(app).or_default().push(site);
        }
    }
    for (app, at) in &sites {
        match wanted(input, app) {
            None => {
                for site in at.iter().filter(|s| s.entry(app).is_some_and(|e| e.role != Role::Absent)) {
                    report.add(Rule::Eligible, format!("App {app} is not wanted, and has a place on {}", site.name));
                }
            }
            Some(wanted) => eligible(wanted, at, report),
        }
    }
    conflicts(input, &sites, report);
    let involved = involved(input);
    for (name, app) in input.apps.iter().filter(|(_, a)| !a.is_deleted()) {
        let at = sites.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        apart(app, &sites, at, report);
        beside(input, app, at, report);
        update::check(app, at, report);
        match app.spec.mode {
            Mode::Replicas => replicas(input, plan, app, at, !involved.contains(name.as_str()), report),
            Mode::Ring => ring(app, at, report),
            Mode::Singleton | Mode::Spread => {}
        }
    }
}

fn matches(app: &App, site: &Site<'_>) -> bool {
    let placement = &app.spec.placement;
    !site.closed
        && (placement.nodes.is_empty() || placement.nodes.iter().any(|n| n == site.name))
        && placement.node_selector.iter().all(|(key, value)| site.node.labels.get(key) == Some(value))
        && !placement.avoid_labels.iter().any(|(key, value)| site.node.labels.get(key) == Some(value))
}

fn is(site: &Site<'_>, app: &App, role: Role) -> bool {
    site.entry(&app.metadata.name).is_some_and(|e| e.role == role)
}

fn was_member(site: &Site<'_>, app: &App) -> bool {
    site.entry_before(&app.metadata.name).is_some_and(|e| e.role == Role::Member && e.uid == app.metadata.uid)
}

fn healthy(site: &Site<'_>, app: &App) -> bool {
    site.live && site.status.and_then(|s| s.apps.get(&app.metadata.name)).is_some_and(|o| o.healthy)
}

/// A member of Replicas that has to leave may stay until its replacement runs.
fn is_leaving(site: &Site<'_>, app: &App) -> bool {
    app.spec.mode == Mode::Replicas && was_member(site, app)
}

fn eligible(app: &App, at: &[Site<'_>], report: &mut Report) {
    let name = &app.metadata.name;
    for site in at {
        let Some(entry) = site.entry(name).filter(|e| e.role != Role::Absent) else { continue };
        let current = entry.uid == app.metadata.uid && entry.mode == app.spec.mode;
        let before = site.entry_before(name);
        let current = current && (entry.generation == app.metadata.generation || update::held_back(app, entry, before));
        report.unless(current, Rule::Eligible, || format!("App {name} on {}: not as its spec is now", site.name));
        let fits = matches(app, site) || is_leaving(site, app);
        report.unless(fits, Rule::Eligible, || format!("App {name} has a place on {}, which is not eligible", site.name));
        let before = site.entry_before(name).is_some_and(|e| e.role != Role::Absent);
        report.unless(site.live || before, Rule::Eligible, || format!("App {name} gets a place on {}, which is lost", site.name));
        report.unless(site.open || before, Rule::Eligible, || format!("App {name} gets a place on {}, which is cordoned", site.name));
    }
}

/// No two Apps with a place share a VIP or a unit.
fn conflicts(input: &Input<'_>, sites: &Sites<'_>, report: &mut Report) {
    let mut vips: BTreeMap<&str, &str> = BTreeMap::new();
    let mut units: BTreeMap<String, &str> = BTreeMap::new();
    for (name, at) in sites {
        let Some(app) = wanted(input, name).filter(|app| at.iter().any(|s| s.entry(name).is_some() && !is(s, app, Role::Absent))) else {
            continue;
        };
        if let Some(vip) = &app.spec.vip
            && let Some(other) = vips.insert(vip.ip(), name)
        {
            report.add(Rule::Eligible, format!("Apps {other} and {name} have the VIP {}", vip.ip()));
        }
        if let Some(other) = units.insert(app.unit_name(), name) {
            report.add(Rule::Eligible, format!("Apps {other} and {name} have the unit {}", app.unit_name()));
        }
    }
}

/// Nothing runs beside an App that it has to be kept apart from, except what is on its way out or cannot be seen.
fn apart(app: &App, sites: &Sites<'_>, at: &[Site<'_>], report: &mut Report) {
    let name = &app.metadata.name;
    for other in app.spec.placement.away_from_apps.iter().filter(|o| *o != name) {
        let beside: BTreeSet<&str> = sites.get(other.as_str()).into_iter().flatten().filter(|s| runs(s, other)).map(|s| s.name).collect();
        for site in at.iter().filter(|s| s.live && runs(s, name) && beside.contains(s.name)) {
            let was = |of: &str| site.entry_before(of).is_some_and(|e| e.role == Role::Member && e.mode == Mode::Replicas);
            report.unless(was(name) || was(other), Rule::Eligible, || format!("Apps {name} and {other} are both on {}", site.name));
        }
    }
}

/// Nothing runs without the Apps that it has to run beside, except what is on its way out or cannot be seen.
fn beside(input: &Input<'_>, app: &App, at: &[Site<'_>], report: &mut Report) {
    let name = &app.metadata.name;
    for site in at.iter().filter(|s| s.live && runs(s, name) && !is_leaving(s, app)) {
        if let Some(other) = missing(input, app, site) {
            report.add(Rule::Eligible, format!("App {name} is on {}, and App {other} is not", site.name));
        }
    }
}

fn runs(site: &Site<'_>, app: &str) -> bool {
    site.entry(app).is_some_and(|e| matches!(e.role, Role::Active | Role::Member))
}

/// An App that `app` has to run beside and that does not run on `site`.
fn missing<'a>(input: &Input<'_>, app: &'a App, site: &Site<'_>) -> Option<&'a str> {
    let name = app.metadata.name.as_str();
    let with = app.spec.placement.with_apps.iter().map(String::as_str);
    with.filter(|other| *other != name && !runs(site, other)).find(|other| *other < name || !leads_to(input, other, name))
}

/// Whether `from` has to run beside `to`, perhaps by way of others. In such a circle the first by name leads.
fn leads_to(input: &Input<'_>, from: &str, to: &str) -> bool {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(app) = open.pop() {
        if app == to {
            return true;
        }
        if let Some((name, app)) = input.apps.get_key_value(app).filter(|(name, _)| seen.insert(name.as_str())) {
            open.extend(app.spec.placement.with_apps.iter().map(String::as_str).filter(|other| other != name));
        }
    }
    false
}

/// Apps that are to be kept apart from others, whichever asked, or that have to run beside others.
fn involved<'a>(input: &Input<'a>) -> BTreeSet<&'a str> {
    let following = input.apps.iter().filter(|(_, a)| !a.spec.placement.with_apps.is_empty()).map(|(name, _)| name.as_str());
    let asking = input.apps.iter().filter(|(_, a)| !a.spec.placement.away_from_apps.is_empty());
    asking.flat_map(|(name, a)| a.spec.placement.away_from_apps.iter().chain([name]).map(String::as_str)).chain(following).collect()
}

/// Whether an App that `app` has to be kept apart from, whichever asked, runs on `site`.
fn beside_another(input: &Input<'_>, app: &App, site: &Site<'_>) -> bool {
    let name = &app.metadata.name;
    site.planned.into_iter().flat_map(|a| &a.apps).filter(|(_, e)| matches!(e.role, Role::Active | Role::Member)).any(|(other, _)| {
        let asked = |of: &App, other: &String| of.spec.placement.away_from_apps.contains(other);
        other != name && (asked(app, other) || input.apps.get(other).is_some_and(|o| asked(o, name)))
    })
}

/// `free`: no other App has a say in where this one runs.
fn replicas(input: &Input<'_>, plan: &Plan, app: &App, at: &[Site<'_>], free: bool, report: &mut Report) {
    let name = &app.metadata.name;
    let asked = app.spec.replicas.unwrap_or(1) as usize;
    let members: Vec<&Site<'_>> = at.iter().filter(|s| s.live && is(s, app, Role::Member)).collect();
    let healthy_after = members.iter().filter(|s| healthy(s, app)).count();
    let removed = at.iter().find(|s| s.live && was_member(s, app) && healthy(s, app) && !is(s, app, Role::Member));
    if let Some(site) = removed
        && plan.notes.get(name).is_some_and(|n| n.conflict.is_none())
    {
        // Those that have to leave do not count as places.
        let places = members.iter().filter(|s| matches(app, s) && !beside_another(input, app, s) && missing(input, app, s).is_none());
        let places = places.count();
        let enough = healthy_after >= asked.min(places);
        report.unless(enough, Rule::Replicas, || {
            format!("App {name} loses a healthy instance on {} while {healthy_after} of {asked} are healthy elsewhere", site.name)
        });
    }
    if !free || plan.notes.get(name).is_some_and(|n| n.conflict.is_some()) {
        return;
    }
    let new = members.iter().filter(|s| !was_member(s, app)).count();
    let staying = members.iter().filter(|s| was_member(s, app) && matches(app, s)).count();
    report.unless(new == 0 || new + staying <= asked, Rule::Replicas, || format!("App {name} gets {new} instances beside {staying}"));
    // Where there is room is for `room` to judge.
    if members.len() < asked && app.spec.placement.asks().is_zero() {
        let idle = Site::all(input, plan).find(|s| s.live && s.open && matches(app, s) && !is(s, app, Role::Member) && !blocked(app, s));
        if let Some(site) = idle {
            report.add(Rule::Replicas, format!("App {name} has {} of {asked} instances, and none on {}", members.len(), site.name));
        }
    }
}

/// Something of this App, of an earlier one, or of another one with the same unit has to leave the node first.
fn blocked(app: &App, site: &Site<'_>) -> bool {
    let name = &app.metadata.name;
    let unit = app.unit_name();
    let earlier = site.entry_before(name).is_some_and(|e| e.role == Role::Absent || e.uid != app.metadata.uid || e.mode != app.spec.mode);
    let seen = site.status.into_iter().flat_map(|s| &s.apps);
    let observed = seen.clone().any(|(of, o)| of != name && o.unit.as_ref().is_some_and(|u| u.name == unit));
    let other_uid = seen.clone().any(|(of, o)| of == name && !o.uid.is_empty() && o.uid != app.metadata.uid);
    let planned = site.last.into_iter().flat_map(|a| &a.apps);
    let lingering = planned.clone().any(|(of, e)| of != name && cluster_schemas::app::unit_name(of, e.run.unit.as_ref()) == unit);
    earlier || observed || other_uid || lingering
}

fn ring(app: &App, at: &[Site<'_>], report: &mut Report) {
    let name = &app.metadata.name;
    let owns = |s: &Site<'_>| s.entry(name).and_then(|e| e.ring.as_ref()).is_some_and(|r| !r.own.is_empty());
    let able = |s: &&Site<'_>| s.live && is(s, app, Role::Member) && s.status.map_or_else(|| owns(s), |x| x.quorum);
    let of = |s: &Site<'_>| s.entry(name).and_then(|e| e.ring.as_ref()).map(|r| r.own.iter().map(|g| g.partitions.len()).sum::<usize>());
    // Members on cordoned nodes, and those whose hooks fail, keep what they have and get nothing more: the rest is what has to be even.
    let refuses =
        |s: &Site<'_>| s.status.and_then(|x| x.apps.get(name)).and_then(|o| o.ring.as_ref()).is_some_and(|r| !r.refused.is_empty());
    let open = |s: &Site<'_>| s.open && !refuses(s);
    let any_open = at.iter().filter(able).any(open);
    let kept: Vec<usize> = at.iter().filter(able).filter(|s| any_open && !open(s)).filter_map(of).collect();
    let counts: Vec<usize> = at.iter().filter(able).filter(|s| !any_open || open(s)).filter_map(of).collect();
    let total = usize::from(app.partitions());
    let share = total.div_ceil((counts.len() + kept.len()).max(1));
    report.unless(kept.iter().all(|c| *c <= share), Rule::Ring, || format!("App {name}: {kept:?} on cordoned nodes is more than a share"));
    let total = total - kept.iter().sum::<usize>().min(total);
    let mut open: BTreeSet<u16> = (0..app.partitions()).collect();
    let mut versions = BTreeSet::new();
    let mut version_before = 0;
    for site in at {
        let before = site.entry_before(name).and_then(|e| e.ring.as_ref());
        version_before = version_before.max(before.map_or(0, |r| r.version));
        let Some(ring) = site.entry(name).filter(|e| e.uid == app.metadata.uid).and_then(|e| e.ring.as_ref()) else { continue };
        if is(site, app, Role::Member) {
            versions.insert(ring.version);
            let changed = before.map_or(&[][..], |r| &r.own) != ring.own.as_slice();
            let rises = !changed || ring.version > before.map_or(0, |r| r.version);
            report.unless(rises, Rule::Ring, || format!("App {name} on {}: other partitions in the same version", site.name));
        }
        for partition in ring.own.iter().flat_map(|g| g.partitions.iter()) {
            open.remove(&partition);
            report.unless(partition < app.partitions(), Rule::Ring, || format!("App {name} has no partition {partition}"));
        }
        let groups_rise = ring.own.is_sorted_by(|a, b| a.epoch < b.epoch) && ring.own.iter().all(|g| !g.partitions.is_empty());
        report.unless(groups_rise, Rule::Ring, || format!("App {name} on {}: groups are not in rising epochs", site.name));
    }
    let fitting = versions.len() <= 1 && versions.iter().all(|v| *v >= version_before);
    report.unless(fitting, Rule::Ring, || format!("App {name}: versions {versions:?} after {version_before}"));
    if counts.is_empty() {
        return;
    }
    let even = counts.iter().all(|c| *c <= total.div_ceil(counts.len()));
    let full = !open.is_empty() || counts.iter().max().zip(counts.iter().min()).is_some_and(|(max, min)| max - min <= 1);
    report.unless(even && full, Rule::Ring, || format!("App {name}: counts {counts:?} are not even"));
    let released = |p: u16| {
        at.iter().any(|s| {
            let seen = s.status.filter(|_| s.live).and_then(|x| x.apps.get(name)).and_then(|o| o.ring.as_ref());
            let planned = s.entry(name).and_then(|e| e.ring.as_ref());
            planned.is_some_and(|r| r.release.contains(p)) || seen.is_some_and(|r| r.held.contains(p))
        })
    };
    if let Some(idle) = open.iter().find(|p| !released(**p)) {
        report.add(Rule::Ring, format!("App {name}: nobody owns partition {idle}, though nobody else may hold it"));
    }
}
