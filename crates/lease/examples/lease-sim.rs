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
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (start, mut stats) = (Instant::now(), Stats::default());
    while stats.contested < contested {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let run = |seed| scope.spawn(move || simulate(&Plan::drawn(seed, partitions, rounds)));
            let runs: Vec<_> = (seed..seed + threads).map(run).collect();
            runs.into_iter().filter_map(|run| run.join().ok()).collect()
        });
        for outcome in outcomes {
            stats.add(&outcome.stats);
            if let Some(broken) = outcome.broken {
                println!("seed {}: BROKEN: {broken}; trace {:016x}\n{stats}", outcome.seed, outcome.trace);
                return ExitCode::FAILURE;
            }
        }
        seed += threads;
        println!("seed {}: {} contested after {} s", seed - 1, stats.contested, start.elapsed().as_secs());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{stats}\nnothing broken; last seed {}; {:.0} s, {:.0} events/s", seed - 1, seconds, stats.events as f64 / seconds);
    ExitCode::SUCCESS
}
