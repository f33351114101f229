//! `clusterctl dev`, as it is used: real programs, and what is left of them. Needs `nats-server` (scripts/setup) and all programs of the
//! workspace (`cargo build --workspace --bins`); no root.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod bad;
mod database;
mod ends;
mod examples;
mod gitops;
mod line;
mod local;
mod locks;
mod play;
mod sessions;
mod world;
