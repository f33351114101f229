//! The controller process.

use std::process::ExitCode;

use clap::Parser;
use cluster_controller::run::{Args, run};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    cluster_telemetry::start();
    match run(&args.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cluster_telemetry::fatal(&error);
            ExitCode::FAILURE
        }
    }
}
