//! Two Apps that claim one VIP address or one unit: the older one has it, the other gets no placement.
//!
//! Also which nodes still have a unit of another App's on them that has to go first: starting it for one App while its stop for
//! another is under way would have the two agents' workers fight.

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::App;
use cluster_schemas::app::unit_name;

use crate::world::World;

/// Apps that lost a claim, with a sentence that names the winner; and units that linger.
#[derive(Debug, Default)]
pub(crate) struct Conflicts<'a> {
    /// By App: the sentence.
    pub losers: BTreeMap<&'a str, String>,
    /// By unit: App and node where it may still run though it should not.
    lingering: BTreeMap<String, Vec<(&'a str, usize)>>,
}

impl<'a> Conflicts<'a> {
    pub(crate) fn new(world: &World<'a>) -> Self {
        let mut found = Self { losers: losers(world.input.apps), lingering: BTreeMap::new() };
        found.gather(world);
        found
    }

    fn gather(&mut self, world: &World<'a>) {
        for name in world.seen_apps() {
            let app = world.input.apps.get(name).filter(|a| !a.is_deleted() && !self.losers.contains_key(name));
            let unit = app.map(App::unit_name);
            for seen in world.evidence(name).iter().filter(|e| !e.lost && !e.confirmed_absent()) {
                // What is withdrawn may start its unit until the node confirmed; what changed its unit, as long as it is seen.
                let withdrawn = seen.entry.filter(|_| app.is_none_or(|a| seen.foreign(a)));
                let planned = withdrawn.map(|e| unit_name(name, e.run.unit.as_ref()));
                let observed = seen.observed.and_then(|o| o.unit.as_ref()).map(|u| &u.name).filter(|u| Some(*u) != unit.as_ref());
                for unit in planned.into_iter().chain(observed.cloned()) {
                    self.lingering.entry(unit).or_default().push((name, seen.node));
                }
            }
        }
    }

    /// Nodes on which `unit` may still run for another App than `app`.
    pub(crate) fn busy(&self, app: &str, unit: &str) -> BTreeSet<usize> {
        self.lingering.get(unit).into_iter().flatten().filter(|(other, _)| *other != app).map(|(_, node)| *node).collect()
    }

    /// Whether no unit lingers at all.
    pub(crate) fn nothing_lingers(&self) -> bool {
        self.lingering.is_empty()
    }
}

/// The older App wins (creation time, then name); one that lost does not hold its other claims against anybody.
fn losers(apps: &BTreeMap<String, App>) -> BTreeMap<&str, String> {
    let mut by_age: Vec<(&String, &App)> = apps.iter().collect();
    by_age.sort_by(|(a, x), (b, y)| (&x.metadata.creation_timestamp, a).cmp(&(&y.metadata.creation_timestamp, b)));
    let mut vips: BTreeMap<&str, &str> = BTreeMap::new();
    let mut units: BTreeMap<String, &str> = BTreeMap::new();
    let mut losers = BTreeMap::new();
    for (name, app) in by_age {
        let unit = app.unit_name();
        let vip = app.spec.vip.as_ref().map(cluster_schemas::app::VipSpec::ip);
        if let Some((ip, winner)) = vip.and_then(|ip| vips.get(ip).map(|w| (ip, w))) {
            losers.insert(name.as_str(), format!("VIP {ip} belongs to App {winner}, which is older: give one of them another address"));
        } else if let Some(winner) = units.get(&unit) {
            losers.insert(name.as_str(), format!("unit {unit} belongs to App {winner}, which is older: one unit can serve one App only"));
        } else {
            if let Some(ip) = vip {
                vips.insert(ip, name);
            }
            units.insert(unit, name);
        }
    }
    losers
}
