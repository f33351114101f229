//! Names of units. Manifests are validated long before; this is the last look before a name becomes a path.

use zbus::OwnedObjectPath;
use zbus_systemd::bus_path_encode;

use crate::drivers::UnitError;

/// Longest name of a unit, in bytes; systemd's limit.
const UNIT_NAME_MAX: usize = 255;
/// systemd's object for all units' objects to hang under.
pub(super) const UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit";

/// Checks that `unit` names one service: no path, no pattern, no template without an instance.
pub(super) fn check(unit: &str) -> Result<(), UnitError> {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let reason = if !unit.ends_with(".service") {
        "is no service"
    } else if unit.len() > UNIT_NAME_MAX {
        "is too long"
    } else if !stem.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        "begins with neither a letter nor a digit nor '_'"
    } else if stem.ends_with('@') {
        "is a template without an instance"
    } else if !stem.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@')) {
        "has characters that no unit has"
    } else if stem.contains("..") {
        "has '..' in it"
    } else {
        return Ok(());
    };
    Err(UnitError::BadName { unit: unit.to_owned(), reason })
}

/// The unit's object on the bus.
pub(super) fn object_path(unit: &str) -> OwnedObjectPath {
    bus_path_encode(&zbus::ObjectPath::from_static_str_unchecked(UNIT_PATHS), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_single_services_pass() {
        for good in ["nginx.service", "a@b.service", "clusterctl-api.service", r"x\x2dy.service", "_a.service", "a:b.c.service"] {
            check(good).unwrap();
        }
        let long = format!("{}.service", "a".repeat(248));
        for bad in [
            "",
            ".service",
            "nginx",
            "nginx.timer",
            "../etc/passwd.service",
            "a/b.service",
            "a..b.service",
            "a@.service",
            "a b.service",
            "-a.service",
            ".a.service",
            "a*.service",
            "a\n.service",
            "é.service",
            &long,
        ] {
            let error = check(bad).unwrap_err();
            assert!(matches!(error, UnitError::BadName { .. }) && error.is_permanent(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_escaped_as_systemd_does() {
        assert_eq!(object_path("a-1@b.service").as_str(), "/org/freedesktop/systemd1/unit/a_2d1_40b_2eservice");
        assert_eq!(object_path("1.service").as_str(), "/org/freedesktop/systemd1/unit/_31_2eservice");
    }
}
