//! Tests of the planner from outside: scenarios by hand, and a small simulated world under random schedules.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod builders;
mod checker;
mod claims;
mod cluster;
mod explain;
mod leases;
mod placement;
mod platform;
mod pool;
mod preview;
mod random;
mod ring;
mod room;
mod sim;
mod singleton;
mod statuses;
mod update;
