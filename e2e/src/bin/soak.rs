//! `soak`: faults at random on real nodes, with the witness watching. `make soak` runs it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_e2e::drill::{Kind, Soak};
use cluster_e2e::tour::supervised;

/// Plays faults drawn at random and ends with 1 if any had consequences that must not be. Needs root; leaves nothing behind.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// How long; every kind is played once at least
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What the draw begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The name of the lab
    #[arg(long, default_value = "soak")]
    name: String,
    /// Only these kinds, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
}

fn main() -> ExitCode {
    let Cli { minutes, seed, name, only } = Cli::parse();
    let say = |text: &str| drop(writeln!(std::io::stderr(), "soak: {text}"));
    let soak = Soak { name: name.clone(), time: Duration::from_secs(60 * minutes), seed, only };
    let work = || match soak.run(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.chain());
            ExitCode::FAILURE
        }
    };
    supervised(&name, work).unwrap_or_else(|error| {
        say(&error.chain());
        ExitCode::FAILURE
    })
}
