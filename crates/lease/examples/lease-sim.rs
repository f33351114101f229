//! Simulates until enough contested acquisitions were seen: `lease-sim [contested] [first_seed] [partitions] [rounds]`.
//!
//! Prints the table of faults and the states they met. On a finding it prints the seed and ends with 1; `lease-sim 1 SEED` with the same
//! sizes shows it again, with the same trace hash.

use cluster_lease::check::sim::{Outcome, Plan, Stats, simulate};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// Contested acquisitions between two lines of progress.
const PROGRESS: u64 = 500_000;

/// Runs one seed after the other on each thread until the receiver has seen enough.
fn runs(first: u64, partitions: u16, rounds: usize, mut see: impl FnMut(&Outcome) -> bool) {
    let (next, (sender, outcomes)) = (AtomicU64::new(first), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                // A panic ends the whole program with its message: the scope passes it on.
                while sender.send(simulate(&Plan::drawn(next.fetch_add(1, Ordering::Relaxed), partitions, rounds))).is_ok() {}
            });
        }
        drop(sender);
        while let Ok(outcome) = outcomes.recv() {
            if see(&outcome) {
                break;
            }
        }
        drop(outcomes);
    });
}

#[expect(clippy::print_stdout, reason = "the report is the output")]
fn main() -> ExitCode {
    let args: Vec<Option<u64>> = std::env::args().skip(1).map(|arg| arg.parse().ok()).collect();
    if args.contains(&None) || args.len() > 4 {
        println!("usage: lease-sim [contested] [first_seed] [partitions] [rounds], all numbers");
        return ExitCode::FAILURE;
    }
    let arg = |index: usize, otherwise| args.get(index).copied().flatten().unwrap_or(otherwise);
    let (contested, first) = (arg(0, 5_000_000), arg(1, 1));
    let partitions = u16::try_from(arg(2, 2_000)).unwrap_or(4_096).min(4_096);
    let rounds = usize::try_from(arg(3, 4)).unwrap_or(1_000);
    let (start, mut stats, mut seeds, mut progress) = (Instant::now(), Stats::default(), 0u64, 0);
    let mut found = None;
    runs(first, partitions, rounds, |outcome| {
        stats.add(&outcome.stats);
        seeds += 1;
        if let Some(broken) = &outcome.broken {
            found = Some(format!("seed {}: BROKEN: {broken}; trace {:016x}", outcome.seed, outcome.trace));
        }
        if stats.contested / PROGRESS > progress {
            progress = stats.contested / PROGRESS;
            println!("{} contested after {} seeds and {} s", stats.contested, seeds, start.elapsed().as_secs());
        }
        found.is_some() || stats.contested >= contested
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("{stats}\n{seeds} seeds from {first}, {seconds:.0} s, {:.0} events/s", stats.events as f64 / seconds);
    match found {
        Some(found) => {
            println!("{found}");
            ExitCode::FAILURE
        }
        None => {
            println!("nothing broken");
            ExitCode::SUCCESS
        }
    }
}
