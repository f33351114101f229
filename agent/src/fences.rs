//! The agent's entries in the fence table: which unit and which addresses go with which App.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster_fence::{GuardedVip, Table, UnitIndex, clock};
use cluster_schemas::app::{Mode, Standby, VipSpec, unit_name};
use cluster_schemas::assignment::AppAssignment;
use tracing::error;

use crate::place::Place;

/// Asks the words themselves whether a slot is held at this moment (rule F2): what the agent believes may be older, as after a stop.
#[derive(Debug, Clone)]
pub struct Armed(Option<Arc<Table>>);

impl Armed {
    /// By the words of `table`.
    #[must_use]
    pub const fn by(table: Arc<Table>) -> Self {
        Self(Some(table))
    }

    /// Everything is held: for tests of what comes after.
    #[cfg(test)]
    pub const fn always() -> Self {
        Self(None)
    }

    /// Whether `slot` is held now.
    #[must_use]
    pub fn holds(&self, slot: &str) -> bool {
        self.0.as_ref().is_none_or(|table| table.holds(slot, clock::now()))
    }
}

/// One App's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    unit: UnitIndex,
    cgroup: String,
    gated: bool,
    vips: Vec<GuardedVip>,
}

/// All entries of this agent.
#[derive(Debug)]
pub struct Fences {
    table: Arc<Table>,
    root: String,
    interface: fn(&str) -> Option<u32>,
    entries: BTreeMap<String, Entry>,
    /// Entries of an earlier agent that are not taken up yet, by cgroup.
    left: BTreeMap<String, UnitIndex>,
}

impl Fences {
    /// Entries in `table`, for the guard of `place`.
    #[must_use]
    pub fn new(table: Arc<Table>, place: &Place) -> Self {
        let left = table.units().into_iter().map(|(unit, cgroup)| (cgroup, unit)).collect();
        Self { table, root: place.groups.clone(), interface: place.interface, entries: BTreeMap::new(), left }
    }

    /// What tells whether a slot is held now.
    #[must_use]
    pub fn armed(&self) -> Armed {
        Armed::by(Arc::clone(&self.table))
    }

    /// The App's entry, made or brought up to date; none where the table is full.
    pub fn unit(&mut self, app: &str, entry: &AppAssignment) -> Option<UnitIndex> {
        let gated = entry.mode == Mode::Singleton && entry.run.standby == Standby::Cold;
        let name = unit_name(app, entry.run.unit.as_ref());
        let cgroup = format!("/{}/{name}", slice_of(&name));
        let known = match self.entries.get(app) {
            Some(known) => known.unit,
            None => {
                let path = format!("{}{cgroup}", self.root);
                // An earlier agent's entry goes on: its words stand for it, and the guard looks at it.
                let taken_up = self.left.remove(&path).map(Ok);
                let unit = match taken_up.unwrap_or_else(|| self.table.add_unit(gated)) {
                    Ok(unit) => unit,
                    Err(why) => {
                        error!(app, "cannot be fenced here, so it cannot be held here: {why}");
                        return None;
                    }
                };
                self.entries.insert(app.to_owned(), Entry { unit, cgroup: String::new(), gated: !gated, vips: Vec::new() });
                unit
            }
        };
        if let Some(entry) = self.entries.get_mut(app).filter(|e| e.gated != gated) {
            entry.gated = gated;
            self.table.set_gated(known, gated);
        }
        if self.entries.get(app).is_some_and(|e| e.cgroup.is_empty()) {
            self.set_cgroup(app, &cgroup);
        }
        self.set_vip(app, entry.vip.as_ref().map(|v| v.spec()).as_ref());
        Some(known)
    }

    /// Where the unit's processes are, as the service manager says; until it runs, where they will be.
    pub fn set_cgroup(&mut self, app: &str, cgroup: &str) {
        let Some(entry) = self.entries.get_mut(app) else { return };
        if cgroup.is_empty() || entry.cgroup == cgroup {
            return;
        }
        match self.table.set_cgroup(entry.unit, &format!("{}{cgroup}", self.root)) {
            Ok(()) => cgroup.clone_into(&mut entry.cgroup),
            Err(why) => error!(app, "the guard cannot be told the cgroup: {why}"),
        }
    }

    fn set_vip(&mut self, app: &str, vip: Option<&VipSpec>) {
        let index_of = self.interface;
        let Some(entry) = self.entries.get_mut(app) else { return };
        let guarded = vip.and_then(|v| {
            let address: IpAddr = v.ip().parse().ok()?;
            // As the driver puts it there.
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            let interface = index_of(&v.interface)?;
            Some(GuardedVip { address, prefix, interface, word: self.table.find_word(&format!("vip/{}", v.ip())) })
        });
        let vips: Vec<GuardedVip> = guarded.into_iter().collect();
        if entry.vips != vips {
            self.table.set_vips(entry.unit, &vips);
            entry.vips = vips;
        }
    }

    /// Nothing of the App is left here.
    pub fn remove(&mut self, app: &str) {
        if let Some(entry) = self.entries.remove(app) {
            self.table.remove_unit(entry.unit);
        }
    }
}

/// Where the unified cgroup hierarchy is mounted.
pub(crate) fn unified_root() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(ToOwned::to_owned))?
    });
    found.unwrap_or_else(|| "/sys/fs/cgroup".to_owned())
}

/// The slice that systemd puts a service into which names none: `system.slice`, and one of its own for each template.
fn slice_of(unit: &str) -> String {
    match unit.split_once('@') {
        Some((template, _)) => {
            let escaped = template.replace('-', "\\x2d");
            format!("system.slice/system-{escaped}.slice")
        }
        None => "system.slice".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn services_are_where_systemd_puts_them() {
        assert_eq!(super::slice_of("nginx.service"), "system.slice");
        assert_eq!(super::slice_of("my-worker@1.service"), "system.slice/system-my\\x2dworker.slice");
    }
}
