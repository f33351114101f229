//! `tour`: five nodes, one platform, one power cut; each step shown and checked. `make demo` runs it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_e2e::tour::{Paper, Tour, supervised};

/// Shows the main job on real nodes and ends with 1 if anything was not as said. Needs root; leaves nothing behind.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The name of the lab to make
    #[arg(long, default_value = "tour")]
    name: String,
    /// Lease of exclusive Apps in milliseconds, where the machine may stand still for longer than the default bears
    #[arg(long, value_parser = clap::value_parser!(u64).range(200..=5000))]
    lease: Option<u64>,
}

fn main() -> ExitCode {
    let Cli { name, lease } = Cli::parse();
    let lease = lease.map(Duration::from_millis);
    let work = || match Tour::new(&name, lease, Paper::stdout()).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_on_the_paper) => ExitCode::FAILURE,
    };
    supervised(&name, work).unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr(), "tour: {}", error.chain());
        ExitCode::FAILURE
    })
}
