//! The agent of a node: drivers (systemd, VIP, ring), slots, journal.

pub mod drivers;
pub mod files;
