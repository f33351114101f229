//! Runs schedules of the database simulation: `replica-sim [SCHEDULES] [FIRST SEED]`, 10,000 from seed 0 by default. Prints what they did, or
//! the first violation with its seed, and then ends with 1.

use std::io::Write as _;
use std::process::ExitCode;

use cluster_replica::check::run;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Ok(count), Ok(first)) = (arguments.next().unwrap_or(Ok(10_000)), arguments.next().unwrap_or(Ok(0))) else {
        let _ = writeln!(std::io::stderr(), "usage: replica-sim [SCHEDULES] [FIRST SEED]");
        return ExitCode::from(2);
    };
    let (mut commits, mut lost, mut confirmed, mut epochs, mut snapshots, mut files) = (0, 0, 0, 0, 0, 0);
    for seed in first..first.saturating_add(count) {
        match run(seed, None) {
            Ok(report) => {
                commits += report.commits;
                lost += report.lost;
                confirmed += report.confirmed;
                epochs += report.epochs;
                snapshots += report.snapshots;
                files += report.divergence;
            }
            Err(violation) => {
                let _ = writeln!(std::io::stderr(), "{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    let _ = writeln!(
        std::io::stdout(),
        "{count} schedules: {commits} commits ({lost} lost, {confirmed} confirmed), {epochs} epochs, {snapshots} snapshots, {files} divergence files"
    );
    ExitCode::SUCCESS
}
