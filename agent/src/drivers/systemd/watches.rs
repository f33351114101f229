//! Who wants to know of changes of which unit. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::names::object_path;

/// One counter per watched unit. A unit is watched as long as somebody holds a receiver, so this is bounded by the agent's Apps.
#[derive(Debug, Default)]
pub(super) struct Watches {
    units: Mutex<BTreeMap<String, Watched>>,
}

#[derive(Debug)]
struct Watched {
    count: watch::Sender<u64>,
    /// Object path under which systemd reports it: another than that of its name if the name is an alias.
    path: String,
}

impl Watches {
    /// A receiver of the unit's counter.
    pub(super) fn receiver(&self, unit: &str) -> watch::Receiver<u64> {
        let mut units = self.units();
        units.retain(|name, watched| name == unit || watched.count.receiver_count() > 0);
        let fresh = || Watched { count: watch::Sender::new(0), path: object_path(unit).to_string() };
        units.entry(unit.to_owned()).or_insert_with(fresh).count.subscribe()
    }

    /// `unit` turned out to be the unit that systemd calls `id`.
    pub(super) fn is_called(&self, unit: &str, id: &str) {
        if let Some(watched) = self.units().get_mut(unit) {
            let path = object_path(id);
            if watched.path != path.as_str() {
                watched.path = path.to_string();
            }
        }
    }

    /// Something about the unit with this object path may have changed.
    pub(super) fn changed(&self, path: &str) {
        self.units().values().filter(|watched| watched.path == path).for_each(raise);
    }

    /// Anything may have happened.
    pub(super) fn all_changed(&self) {
        self.units().values().for_each(raise);
    }

    fn units(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(watched: &Watched) {
    watched.count.send_modify(|count| *count = count.wrapping_add(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_its_unit_only_and_a_lost_connection_all() {
        let watches = Watches::default();
        let (mut a, mut b) = (watches.receiver("a.service"), watches.receiver("b.service"));
        watches.changed(object_path("a.service").as_str());
        watches.changed(object_path("a.service").as_str());
        assert!(a.has_changed().unwrap() && !b.has_changed().unwrap());
        a.mark_unchanged();
        watches.all_changed();
        assert!(a.has_changed().unwrap() && b.has_changed().unwrap());
        b.mark_unchanged();
        assert!(!b.has_changed().unwrap());
    }

    #[test]
    fn an_alias_hears_of_its_unit() {
        let watches = Watches::default();
        let alias = watches.receiver("mysql.service");
        watches.is_called("mysql.service", "mariadb.service");
        watches.changed(object_path("mariadb.service").as_str());
        assert!(alias.has_changed().unwrap());
    }

    #[test]
    fn what_nobody_watches_is_forgotten() {
        let watches = Watches::default();
        for number in 0..100 {
            drop(watches.receiver(&format!("{number}.service")));
        }
        assert!(watches.units().len() <= 1);
        let kept = watches.receiver("a.service");
        drop(watches.receiver("b.service"));
        let _other = watches.receiver("c.service");
        assert!(watches.units().contains_key("a.service") && !watches.units().contains_key("b.service"));
        drop(kept);
    }
}
