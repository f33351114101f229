//! What is not wrong yet, but a person should know: pure.

use std::time::Duration;

use cluster_schemas::app::VipSpec;

use crate::drivers::flaps::{Flapping, Flaps};
use crate::drivers::{Conflict, UnitState};

/// How long a conflict of an address is shown after it was last heard.
const CONFLICT_SHOWN: Duration = Duration::from_secs(60);

/// What is known of one App.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    flaps: Flaps,
    flapping: Option<(String, Flapping)>,
    starters: Option<String>,
    conflict: Option<(Duration, String)>,
}

impl Warnings {
    /// Takes in a look at the unit. Only units of exclusive Apps must not be started by others.
    pub(super) fn seen(&mut self, now: Duration, exclusive: bool, unit: &UnitState) {
        self.flapping = self.flaps.note(now, unit).map(|flapping| (unit.unit.clone(), flapping));
        self.starters = unit.started_by_others().filter(|_| exclusive);
    }

    /// Takes in that another machine claims an address; one that is not the App's does not concern it.
    pub(super) fn claimed(&mut self, now: Duration, vip: Option<&VipSpec>, conflict: &Conflict) {
        let ours = vip.is_some_and(|vip| vip.interface == conflict.interface && vip.ip() == conflict.address.to_string());
        if ours {
            self.conflict = Some((now, conflict.to_string()));
        }
    }

    /// What there is to say now; empty if nothing.
    pub(super) fn text(&self, now: Duration) -> String {
        let conflict = self.conflict.as_ref().filter(|(at, _)| now.saturating_sub(*at) < CONFLICT_SHOWN).map(|(_, text)| text.clone());
        let flapping = self.flapping.as_ref().map(|(unit, flapping)| format!("unit {unit} {flapping}"));
        [conflict, flapping, self.starters.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::Mac;

    #[test]
    fn only_units_of_exclusive_apps_must_not_be_started_by_others() {
        let unit = UnitState { unit: "a.service".to_owned(), unit_file_state: "enabled".to_owned(), ..UnitState::default() };
        let mut warnings = Warnings::default();
        warnings.seen(Duration::ZERO, false, &unit);
        assert_eq!(warnings.text(Duration::ZERO), "");
        warnings.seen(Duration::ZERO, true, &unit);
        assert!(warnings.text(Duration::ZERO).contains("systemctl disable a.service"));
    }

    #[test]
    fn a_conflict_of_the_apps_address_is_shown_for_a_minute() {
        let vip = VipSpec { address: "10.0.0.100/24".to_owned(), interface: "eth0".to_owned() };
        let mut warnings = Warnings::default();
        let conflict = |ip: &str| Conflict { address: ip.parse().unwrap(), interface: "eth0".to_owned(), mac: Mac([2, 0, 0, 0, 0, 9]) };
        warnings.claimed(Duration::from_secs(10), Some(&vip), &conflict("10.0.0.101"));
        assert_eq!(warnings.text(Duration::from_secs(10)), "");
        warnings.claimed(Duration::from_secs(10), Some(&vip), &conflict("10.0.0.100"));
        warnings.claimed(Duration::from_secs(20), None, &conflict("10.0.0.100"));
        assert!(warnings.text(Duration::from_secs(69)).contains("02:00:00:00:00:09"));
        assert_eq!(warnings.text(Duration::from_secs(70)), "");
    }
}
