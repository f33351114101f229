//! The small HTTP workload of the demo and the manifests: says node, role, epoch and partitions.
//!
//! It is what an application under clusterctl looks like from the inside: it learns its role and its partitions from two files that the
//! agent replaces atomically, reads them at start and again on SIGHUP (a unit's reload), and never needs to know that a cluster exists.

mod append;
mod args;
mod echo;
mod files;
mod notes;
mod server;
mod state;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match server::run(args::Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            server::log(&format!("demo: {error}"));
            ExitCode::FAILURE
        }
    }
}
