//! Simulates until enough contested acquisitions were seen: `lease-sim [contested] [first_seed] [partitions] [rounds]`.
//!
//! Prints the table of faults and the states they met. On a finding it prints the seed and ends with 1; `lease-sim 1 SEED` with the same
//! sizes shows it again, with the same trace hash.

use cluster_lease::check::sim::{Plan, Stats, simulate};
use std::process::ExitCode;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "the report is the output")]
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().unwrap_or(0));
    let contested = args.next().unwrap_or(5_000_000);
    let mut seed = args.next().unwrap_or(1);
    let partitions = u16::try_from(args.next().unwrap_or(2_000)).unwrap_or(4096).min(4096);
    let rounds = usize::try_from(args.next().unwrap_or(4)).unwrap_or(4);
    let (start, mut stats) = (Instant::now(), Stats::default());
    while stats.contested < contested {
        let outcome = simulate(&Plan::drawn(seed, partitions, rounds));
        stats.add(&outcome.stats);
        if let Some(broken) = outcome.broken {
            println!("seed {seed}: BROKEN: {broken}; trace {:016x}\n{stats}", outcome.trace);
            return ExitCode::FAILURE;
        }
        if seed % 10 == 0 {
            println!("seed {seed}: {} contested after {} s", stats.contested, start.elapsed().as_secs());
        }
        seed += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{stats}\nnothing broken; last seed {}; {:.0} s, {:.0} events/s", seed - 1, seconds, stats.events as f64 / seconds);
    ExitCode::SUCCESS
}
