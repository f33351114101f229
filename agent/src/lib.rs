//! The agent of a node: it registers the node, takes its assignment, and carries it out with systemd units, addresses and partition files.
//!
//! [`run`] lists the tasks. What an App needs on the node is decided by pure code ([`worker::target`], [`worker::decide`],
//! [`worker::observe`], [`accept`], [`candidacies`]) and done through [`drivers`].

pub mod accept;
pub mod boot_gates;
pub mod candidacies;
pub mod clock;
pub mod config;
pub mod database;
pub mod drivers;
pub mod fences;
pub mod files;
pub mod guard;
pub mod health;
pub mod identity;
pub mod journal;
pub mod lease;
mod leftovers;
pub mod local;
pub mod locks;
pub mod manager;
pub mod place;
pub mod run;
pub mod store;
pub mod takeovers;
pub mod watchdog;
pub mod worker;
