//! Exclusive things: who holds, who may still hold, which epochs are known.

use std::collections::BTreeMap;

use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::{COUNTER_LIMIT, Mode};

use super::{Report, Rule, Site, has_slot};
use crate::input::{Input, Plan};

/// One exclusive thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing<'a> {
    App(&'a str),
    Vip(&'a str),
    Partition(&'a str, u16),
}

/// What shares one sequence of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sequence<'a> {
    App(&'a str),
    Vip(&'a str),
}

fn address(text: &str) -> &str {
    text.split('/').next().unwrap_or(text)
}

/// Things that an entry gives, with epochs; and things that it has released.
fn given<'a>(app: &'a str, entry: &'a AppAssignment) -> (Vec<(Thing<'a>, u64)>, Vec<Thing<'a>>) {
    let (mut holds, mut releases) = (Vec::new(), Vec::new());
    if entry.role == Role::Active {
        holds.push((Thing::App(app), entry.epoch));
    }
    releases.extend(entry.releasing.map(|_| Thing::App(app)));
    if let Some(vip) = &entry.vip {
        if vip.hold {
            holds.push((Thing::Vip(address(&vip.address)), vip.epoch));
        }
        releases.extend(vip.releasing.map(|_| Thing::Vip(address(&vip.address))));
    }
    if let Some(ring) = &entry.ring {
        for group in &ring.own {
            holds.extend(group.partitions.iter().map(|p| (Thing::Partition(app, p), group.epoch)));
        }
        releases.extend(ring.release.iter().map(|p| Thing::Partition(app, p)));
    }
    (holds, releases)
}

/// Epochs given up by `site` for `thing` of `app`.
fn gave_up(site: &Site<'_>, app: &str, thing: Thing<'_>) -> u64 {
    let Some(seen) = site.status.and_then(|s| s.apps.get(app)) else { return 0 };
    let singleton = site.entry_before(app).is_some_and(|e| e.mode == Mode::Singleton);
    match thing {
        Thing::App(_) => seen.gave_up,
        Thing::Partition(..) => seen.ring.as_ref().map_or(0, |r| r.gave_up),
        Thing::Vip(ip) => {
            let own = seen.vip.as_ref().filter(|v| address(&v.address) == ip).map_or(0, |v| v.gave_up);
            if singleton { own.max(seen.gave_up) } else { own }
        }
    }
}

/// Whether `site` says that it has `thing`.
fn says(site: &Site<'_>, app: &str, thing: Thing<'_>) -> bool {
    let Some(seen) = site.status.and_then(|s| s.apps.get(app)) else { return false };
    match thing {
        Thing::App(_) => seen.holds,
        Thing::Partition(_, p) => seen.ring.as_ref().is_some_and(|r| r.held.contains(p)),
        Thing::Vip(ip) => seen.vip.as_ref().is_some_and(|v| v.present && address(&v.address) == ip),
    }
}

/// Who may hold what: by what was written, unless the node let go or gave up; and by what the nodes say.
#[derive(Default)]
struct Knowledge<'a> {
    /// Nodes that may hold it: App through which, node.
    claims: BTreeMap<Thing<'a>, Vec<(&'a str, &'a str)>>,
    /// Of these, those by what was written.
    written: Vec<(Thing<'a>, &'a str, &'a str)>,
    /// Tenures as last written for present boots: thing, node and epoch.
    tenures: BTreeMap<(Thing<'a>, &'a str), u64>,
    epochs: BTreeMap<Sequence<'a>, u64>,
}

impl<'a> Knowledge<'a> {
    fn new(input: &'a Input<'_>, plan: &'a Plan) -> Self {
        let mut known = Self::default();
        for site in Site::all(input, plan) {
            for (app, entry) in site.last.into_iter().flat_map(|a| &a.apps) {
                known.epochs_of_entry(app, entry);
                if site.live && site.same_boot() {
                    known.written(&site, app, entry);
                }
            }
            for (app, seen) in site.status.into_iter().flat_map(|s| &s.apps) {
                known.epoch(Sequence::App(app), seen.epoch.max(seen.gave_up).max(seen.ring.as_ref().map_or(0, |r| r.gave_up)));
                if let Some(vip) = &seen.vip {
                    known.epoch(Sequence::Vip(address(&vip.address)), vip.epoch.max(vip.gave_up));
                }
                if site.live {
                    let vip = seen.vip.as_ref().filter(|v| v.present).map(|v| Thing::Vip(address(&v.address)));
                    let ring = seen.ring.iter().flat_map(|r| r.held.iter()).map(|p| Thing::Partition(app, p));
                    for thing in seen.holds.then_some(Thing::App(app)).into_iter().chain(vip).chain(ring) {
                        known.claim(thing, app, site.name);
                    }
                }
            }
        }
        for (slot, floor) in input.epoch_floors {
            match slot.split_once('/') {
                Some(("vip", ip)) => known.epoch(Sequence::Vip(ip), *floor),
                Some(("app" | "ring", app)) => known.epoch(Sequence::App(app), *floor),
                _ => {}
            }
        }
        for (_, assignment) in input.assignments.iter().filter(|(name, _)| !input.nodes.contains_key(*name)) {
            for (app, entry) in &assignment.apps {
                known.epochs_of_entry(app, entry);
            }
        }
        known
    }

    fn written(&mut self, site: &Site<'a>, app: &'a str, entry: &'a AppAssignment) {
        let (holds, releases) = given(app, entry);
        for (thing, epoch) in &holds {
            self.tenures.insert((*thing, site.name), *epoch);
            if gave_up(site, app, *thing) < *epoch || says(site, app, *thing) {
                self.claim(*thing, app, site.name);
                self.written.push((*thing, app, site.name));
            }
        }
        for thing in releases {
            let epoch = match thing {
                Thing::App(_) => entry.releasing,
                Thing::Vip(_) => entry.vip.as_ref().and_then(|v| v.releasing),
                Thing::Partition(..) => None,
            };
            let dead = epoch.is_some_and(|e| gave_up(site, app, thing) >= e);
            if says(site, app, thing) || !(site.acts_on_last(app) || dead) {
                self.claim(thing, app, site.name);
                self.written.push((thing, app, site.name));
            }
        }
    }

    fn claim(&mut self, thing: Thing<'a>, app: &'a str, node: &'a str) {
        let claims = self.claims.entry(thing).or_default();
        if !claims.contains(&(app, node)) {
            claims.push((app, node));
        }
    }

    fn epoch(&mut self, sequence: Sequence<'a>, epoch: u64) {
        let known = self.epochs.entry(sequence).or_default();
        *known = epoch.max(*known);
    }

    fn epochs_of_entry(&mut self, app: &'a str, entry: &'a AppAssignment) {
        if has_slot(entry.mode) {
            self.epoch(Sequence::App(app), entry.epoch.max(entry.releasing.unwrap_or(0)));
        }
        for group in entry.ring.iter().flat_map(|r| &r.own) {
            self.epoch(Sequence::App(app), group.epoch);
        }
        if let Some(vip) = &entry.vip {
            self.epoch(Sequence::Vip(address(&vip.address)), vip.epoch.max(vip.releasing.unwrap_or(0)));
        }
    }
}

pub(super) fn check(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    let known = Knowledge::new(input, plan);
    let mut holders: BTreeMap<Thing<'_>, Vec<&str>> = BTreeMap::new();
    for site in Site::all(input, plan) {
        for (app, entry) in site.planned.into_iter().flat_map(|a| &a.apps) {
            shape(&site, app, entry, report);
            for (thing, epoch) in given(app, entry).0 {
                holders.entry(thing).or_default().push(site.name);
                tenure(&known, &site, app, thing, epoch, report);
            }
        }
    }
    for (thing, nodes) in holders.iter().filter(|(_, nodes)| nodes.len() > 1) {
        report.add(Rule::Exclusive, format!("{thing:?} is given to {}", nodes.join(" and ")));
    }
    for (thing, app, node) in &known.written {
        let kept = plan.assignments.get(*node).and_then(|a| a.apps.get(*app)).is_some_and(|entry| {
            let (holds, releases) = given(app, entry);
            releases.contains(thing) || holds.iter().any(|(held, _)| held == thing)
        });
        report.unless(kept, Rule::Release, || format!("{thing:?} may still be on {node}, and its entry neither holds nor releases it"));
    }
}

fn tenure(known: &Knowledge<'_>, site: &Site<'_>, app: &str, thing: Thing<'_>, epoch: u64, report: &mut Report) {
    let name = site.name;
    report.unless(site.live, Rule::Holder, || format!("{thing:?} is given to {name}, which is lost"));
    report.unless(epoch > 0 && epoch < COUNTER_LIMIT, Rule::Epoch, || format!("{thing:?} on {name} has epoch {epoch}"));
    report.unless(gave_up(site, app, thing) < epoch, Rule::Epoch, || format!("{thing:?}: {name} gave up epoch {epoch}"));
    if known.tenures.get(&(thing, name)) == Some(&epoch) {
        return;
    }
    let others = known.claims.get(&thing).into_iter().flatten().filter(|(through, node)| (*through, *node) != (app, name));
    for (through, node) in others {
        report.add(Rule::Exclusive, format!("{thing:?} is given to {name} while {node} may hold it (App {through})"));
    }
    // A tenure of which only the node itself knows is adopted, not new.
    let adopted = site.entry_before(app).is_none()
        && says(site, app, thing)
        && site.status.and_then(|s| s.apps.get(app)).is_some_and(|o| o.epoch == epoch);
    let sequence = match thing {
        Thing::Vip(ip) => Sequence::Vip(ip),
        Thing::App(of) | Thing::Partition(of, _) => Sequence::App(of),
    };
    let highest = known.epochs.get(&sequence).copied().unwrap_or(0);
    let rises = epoch > highest || adopted && epoch == highest;
    report.unless(rises, Rule::Epoch, || format!("{thing:?} on {name}: epoch {epoch} is not above {highest}"));
    let hears = site.status.is_some_and(|s| s.quorum);
    report.unless(hears || adopted, Rule::Holder, || format!("{thing:?} is given to {name}, which hears no majority"));
}

/// An entry is one of the shapes that its mode allows.
fn shape(site: &Site<'_>, app: &str, entry: &AppAssignment, report: &mut Report) {
    let name = site.name;
    let holds_vip = entry.vip.as_ref().is_some_and(|v| v.hold);
    let vip_epoch = entry.vip.as_ref().is_none_or(|v| v.releasing.is_some() || v.epoch == entry.epoch);
    let owns = entry.ring.as_ref().is_some_and(|r| !r.own.is_empty());
    let good = match entry.role {
        Role::Active => {
            entry.mode == Mode::Singleton && holds_vip == entry.vip.is_some() && vip_epoch && !owns && entry.releasing.is_none()
        }
        Role::Standby => entry.mode == Mode::Singleton && !holds_vip && vip_epoch && !owns,
        Role::Member => entry.mode != Mode::Singleton && (entry.mode == Mode::Ring || !owns),
        Role::Absent => !holds_vip && !owns,
    };
    report.unless(good, Rule::Holder, || format!("App {app} on {name}: no {:?} of a {:?} looks like this", entry.role, entry.mode));
}
