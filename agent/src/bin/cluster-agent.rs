//! The agent process.

use std::process::ExitCode;

use clap::Parser;
use cluster_agent::drivers::netlink::Netlink;
use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::journal::JournalError;
use cluster_agent::run::{Args, RunError, accept_rename, prepare, run};

/// Exit code for what no restart heals: this machine was another node. The unit does not restart it then (EX_CONFIG of sysexits.h).
const NOT_THIS_NODE: u8 = 78;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    cluster_telemetry::start();
    match serve(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cluster_telemetry::fatal(&error);
            match error {
                RunError::Journal(JournalError::OtherOwner { .. }) => ExitCode::from(NOT_THIS_NODE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn serve(args: &Args) -> Result<(), RunError> {
    let (config, lock) = prepare(&args.config)?;
    if args.accept_rename {
        return accept_rename(&config);
    }
    let result = run(config, Systemd::new(), Netlink::new()).await;
    // Held until here: a second agent would fight over the same units.
    drop(lock);
    result
}
