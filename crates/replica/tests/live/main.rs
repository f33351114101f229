//! The crate beside real SQLite files: applications in processes of their own, readers of replicas, small disks.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends at what it did not expect")]

mod cluster;
mod common;
mod follow;
mod large;
mod reasons;
mod replay;
mod restore;
mod turns;
