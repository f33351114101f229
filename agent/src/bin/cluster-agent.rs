//! The agent process.

use std::process::ExitCode;

use clap::Parser;
use cluster_agent::drivers::netlink::Netlink;
use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::run::{Args, RunError, prepare, run};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    cluster_telemetry::start();
    match serve(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cluster_telemetry::fatal(&error);
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> Result<(), RunError> {
    let (config, lock) = prepare(&args.config)?;
    let result = run(config, Systemd::new(), Netlink::new()).await;
    // Held until here: a second agent would fight over the same units.
    drop(lock);
    result
}
