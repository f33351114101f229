//! The crate beside real SQLite files: applications in processes of their own, readers of replicas, small disks.

mod common;
mod follow;
mod reasons;
mod replay;
