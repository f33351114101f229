//! Figures measured in labs: a line of JSON each.

mod apply;
mod bounded;
mod gap;
mod keepalived;
mod leases;
pub(crate) mod line;
mod probe;
mod process;
mod rest;
mod scale;
mod stage;
mod switchover;

use std::io::Write;

pub use scale::Scale;

use crate::tour::{self, Failure};

/// All figures of the lab.
#[must_use]
pub fn names() -> Vec<&'static str> {
    [&tour::NAMES[..], &apply::NAMES, &rest::NAMES, &gap::NAMES, &leases::NAMES, &switchover::NAMES, &bounded::NAMES].concat()
}

/// Measures the figures that `wanted` names (all when empty) in labs of this name.
///
/// # Errors
/// [`Failure`] when something measured did not come about.
pub fn measure(name: &str, wanted: &str, scale: &Scale, out: &mut impl Write) -> Result<(), Failure> {
    let names = names();
    if !wanted.is_empty() && !names.contains(&wanted) {
        return Err(Failure::new(format!("one of {}", names.join(", ")), wanted));
    }
    let asked = |some: &[&str]| wanted.is_empty() || some.contains(&wanted);
    if asked(&tour::NAMES) {
        tour::measure(name, wanted, scale.runs, out)?;
    }
    if asked(&apply::NAMES) {
        apply::measure(name, out)?;
    }
    if asked(&rest::NAMES) {
        rest::measure(name, out)?;
    }
    if asked(&gap::NAMES) {
        gap::measure(name, scale, out)?;
    }
    if asked(&switchover::NAMES) {
        switchover::measure(name, scale.faults, out)?;
    }
    if asked(&bounded::NAMES) {
        bounded::measure(name, out)?;
    }
    if asked(&leases::NAMES) {
        leases::measure(name, wanted, scale, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let mut all = names();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(measure("unused", "failover", &Scale::BENCH, &mut Vec::new()).unwrap_err().expected.contains("failover_gap_ms"));
    }
}
