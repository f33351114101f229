//! The program as users run it, against controllers that answer by script.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod complete;
mod contexts;
mod create;
mod delete;
mod docs;
mod edit;
mod events;
mod fake;
mod get;
mod history;
mod node;
mod operate;
mod ring;
mod servers;
mod setup;
mod tls;
mod usage;
mod wait;
mod world;
