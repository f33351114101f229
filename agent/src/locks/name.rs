//! Names of locks and of their slots.

use cluster_lease::types::{Slot, SlotName};
use cluster_schemas::name::check_name;

/// Most holders of one semaphore.
pub const HOLDERS_MAX: u16 = 64;

/// A lock, or a semaphore: one that has several places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockName {
    app: String,
    name: String,
    /// A semaphore's places.
    holders: Option<u16>,
}

/// Why this names no lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS label.
    #[error("{text:?} cannot be the name of {what}: {why}")]
    Label {
        /// What should have the name.
        what: &'static str,
        /// The text.
        text: String,
        /// Why not.
        why: String,
    },
    /// A number of holders that no semaphore has.
    #[error("a semaphore has 1 to {HOLDERS_MAX} holders, not {0}")]
    Holders(u16),
}

impl LockName {
    /// The lock `name` of `app`; with `holders`, the semaphore of that name, which is another thing than the lock.
    ///
    /// # Errors
    /// What is no DNS label, and numbers of holders that are out of range.
    pub fn new(app: &str, name: &str, holders: Option<u16>) -> Result<Self, NameError> {
        let label = |what, text: &str| {
            check_name(text).map_err(|why| NameError::Label { what, text: text.chars().take(80).collect(), why: why.to_string() })
        };
        label("an App", app)?;
        label("a lock", name)?;
        match holders {
            Some(n) if n == 0 || n > HOLDERS_MAX => Err(NameError::Holders(n)),
            holders => Ok(Self { app: app.to_owned(), name: name.to_owned(), holders }),
        }
    }

    /// The App.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// How many may hold it at a time.
    #[must_use]
    pub fn holders(&self) -> u16 {
        self.holders.unwrap_or(1)
    }

    /// App, name and whether it is a semaphore: the same for all numbers of holders.
    pub(super) fn key(&self) -> Key {
        Key { app: self.app.clone(), name: self.name.clone(), semaphore: self.holders.is_some() }
    }
}

/// See [`LockName::key`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) app: String,
    pub(super) name: String,
    pub(super) semaphore: bool,
}

impl Key {
    /// The slot of a place. Names of locks have no dot, so no semaphore's place is a lock.
    pub(super) fn slot(&self, place: u16) -> Option<Slot> {
        let Self { app, name, semaphore } = self;
        let text = if *semaphore { format!("lock/{app}/{name}.{place}") } else { format!("lock/{app}/{name}") };
        SlotName::new(&text).ok().map(Slot::Named)
    }

    /// Which place of which lock a slot is.
    pub(super) fn of(slot: &Slot) -> Option<(Self, u16)> {
        let Slot::Named(text) = slot else { return None };
        let (app, rest) = text.as_str().strip_prefix("lock/")?.split_once('/')?;
        let (name, place) = rest.split_once('.').map_or((rest, None), |(name, place)| (name, Some(place)));
        let at = place.map_or(Some(0), |place| place.parse().ok())?;
        Some((Self { app: app.to_owned(), name: name.to_owned(), semaphore: place.is_some() }, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_names_belong_together() {
        let long = "x".repeat(63);
        for (name, place, text) in [
            (LockName::new("api", "nightly", None), 0, "lock/api/nightly".to_owned()),
            (LockName::new("api", "nightly", Some(3)), 2, "lock/api/nightly.2".to_owned()),
            (LockName::new(&long, &long, Some(64)), 63, format!("lock/{long}/{long}.63")),
        ] {
            let key = name.expect("a name").key();
            let slot = key.slot(place).expect("a slot");
            assert_eq!(slot.to_string(), text);
            assert_eq!(Key::of(&slot), Some((key, place)));
        }
        assert_eq!(Key::of(&"app/api".parse().expect("a slot")), None);
    }

    #[test]
    fn what_is_no_label_names_no_lock() {
        for (app, name) in [("api", "a.0"), ("api", "a/b"), ("api", ""), ("A", "b"), ("api", &"x".repeat(64))] {
            assert!(matches!(LockName::new(app, name, None), Err(NameError::Label { .. })), "{app} {name}");
        }
        assert_eq!(LockName::new("api", "a", Some(0)), Err(NameError::Holders(0)));
        assert_eq!(LockName::new("api", "a", Some(65)), Err(NameError::Holders(65)));
    }
}
