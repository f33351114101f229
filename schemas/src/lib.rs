//! The nouns of clusterctl, shared by every part: what users write ([`App`]), what the controller plans ([`Assignment`]), what the
//! agents observe ([`NodeStatus`]) and what the API answers ([`api`]).
//!
//! Three words, three things: *desired* is the [`App`], *planned* the [`Assignment`], *observed* the [`NodeStatus`] and the
//! [`AppStatus`] computed from it. `term` counts controller leaderships, `generation` versions of one object, `epoch` tenures of a
//! slot; all stay below 2^53, so that JSON readers in every language keep them exact.
//!
//! This crate knows no runtime, network or disk.

pub mod access;
pub mod api;
pub mod app;
pub mod assignment;
pub mod database;
pub mod event;
pub mod failover;
pub mod grants;
pub mod health;
pub mod history;
pub mod hooks;
pub mod manifest;
pub mod name;
pub mod node;
pub mod openapi;
pub mod partition;
pub mod placeholder;
pub mod placement;
pub mod plan;
pub mod pointer;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod slot;
pub mod state;
pub mod status;
pub mod takeover;
pub mod unit_change;
pub mod update;
pub mod watch;

pub use app::{App, AppSpec, Metadata, Mode};
pub use assignment::{AppAssignment, Assignment};
pub use node::{Heartbeat, Node, NodeStatus};
pub use partition::PartitionSet;
pub use slot::Slot;
pub use status::AppStatus;

/// The `apiVersion` of every object.
pub const API_VERSION: &str = "cluster/v1";

/// Upper bound (exclusive) of `term`, `generation` and `epoch`: the integers a JSON reader with doubles keeps exact.
pub const COUNTER_LIMIT: u64 = 1 << 53;
