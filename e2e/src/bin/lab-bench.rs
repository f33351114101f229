//! `lab-bench`: figures measured in labs, a line of JSON each. `make bench` runs it among others.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cluster_e2e::bench::{Scale, measure, names};
use cluster_e2e::tour::supervised;

/// Measures what users wait for: nodes, applies, fail-overs. Needs root; leaves nothing behind.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// One figure; all when absent
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// How many faults for the fail-over gap that is compared with another tool's; other cases take half as many
    #[arg(long)]
    faults: Option<usize>,
    /// All cases with all leases, thirty times each, and ten minutes with no processor idle, three times for each lease
    #[arg(long)]
    soak: bool,
    /// The name of the labs
    #[arg(long, default_value = "bench")]
    name: String,
    /// Names the figures and ends
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let Cli { only, faults, soak, name, list } = Cli::parse();
    let scale = Scale::of(soak, faults);
    let say = |text: &str| drop(writeln!(std::io::stderr(), "lab-bench: {text}"));
    if list {
        let listed = writeln!(std::io::stdout(), "{}", names().join("\n"));
        return if listed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let work = || match measure(&name, &only, &scale, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    };
    supervised(&name, work).unwrap_or_else(|error| {
        say(&error.chain());
        ExitCode::FAILURE
    })
}
