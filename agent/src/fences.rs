//! The agent's entries in the fence table: which unit and which addresses go with which App.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster_fence::{GuardedVip, Table, UnitIndex};
use cluster_schemas::app::{Mode, Standby, VipSpec, unit_name};
use cluster_schemas::assignment::AppAssignment;
use nix::net::if_::if_nametoindex;
use tracing::error;

/// One App's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    unit: UnitIndex,
    cgroup: String,
    vip: Option<VipSpec>,
}

/// All entries of this agent.
#[derive(Debug)]
pub struct Fences {
    table: Arc<Table>,
    root: String,
    entries: BTreeMap<String, Entry>,
}

impl Fences {
    /// Entries in `table`.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, root: unified_root(), entries: BTreeMap::new() }
    }

    /// The App's entry, made or brought up to date; none where the table is full.
    pub fn unit(&mut self, app: &str, entry: &AppAssignment) -> Option<UnitIndex> {
        let gated = entry.mode == Mode::Singleton && entry.run.standby == Standby::Cold;
        let known = match self.entries.get(app) {
            Some(known) => known.unit,
            None => match self.table.add_unit(gated) {
                Ok(unit) => {
                    self.entries.insert(app.to_owned(), Entry { unit, cgroup: String::new(), vip: None });
                    unit
                }
                Err(why) => {
                    error!(app, "cannot be fenced here, so it cannot be held here: {why}");
                    return None;
                }
            },
        };
        let unit = unit_name(app, entry.run.unit.as_ref());
        self.set_cgroup(app, &format!("/{}/{unit}", slice_of(&unit)));
        self.set_vip(app, entry.vip.as_ref().map(|v| v.spec()), known);
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

    fn set_vip(&mut self, app: &str, vip: Option<VipSpec>, unit: UnitIndex) {
        let Some(entry) = self.entries.get_mut(app) else { return };
        let word = vip.as_ref().and_then(|v| self.table.find_word(&format!("vip/{}", v.ip())));
        let guarded = vip.as_ref().and_then(|v| {
            let (ip, prefix) = v.address.split_once('/')?;
            let address: IpAddr = ip.parse().ok()?;
            let interface = if_nametoindex(v.interface.as_str()).ok()?;
            Some(GuardedVip { address, prefix: prefix.parse().ok()?, interface, word })
        });
        self.table.set_vips(unit, &guarded.into_iter().collect::<Vec<_>>());
        entry.vip = vip;
    }

    /// Nothing of the App is left here.
    pub fn remove(&mut self, app: &str) {
        if let Some(entry) = self.entries.remove(app) {
            self.table.remove_unit(entry.unit);
        }
    }
}

/// Where the unified cgroup hierarchy is mounted.
fn unified_root() -> String {
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
