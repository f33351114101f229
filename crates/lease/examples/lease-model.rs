//! Explores the model: `lease-model [small|large|faults] [states_max] [only]`.

use cluster_lease::check::model::{Config, explore, fault_runs, large_runs, small_runs};
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "the report is the output")]
fn run(rule: &str, config: Config, max: Option<usize>) -> bool {
    let start = Instant::now();
    let report = explore(config, 2, max);
    println!("{rule:<5} {report} ({:.1} s, acquired twice: {})", start.elapsed().as_secs_f64(), report.acquired);
    if let (Some((_, path)), true) = (&report.broken, std::env::var_os("PATHS").is_some()) {
        for step in path {
            println!("        {step}");
        }
    }
    report.broken.is_some()
}

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "small".to_owned());
    let max = args.next().and_then(|max| max.parse().ok());
    let only = args.next().unwrap_or_default();
    let (runs, faulty): (Vec<_>, bool) = match what.as_str() {
        "faults" => (fault_runs(), true),
        "large" => (large_runs().into_iter().map(|config| ("", config)).collect(), false),
        _ => (small_runs().into_iter().map(|config| ("", config)).collect(), false),
    };
    let mut wrong = 0;
    for (rule, config) in runs.into_iter().filter(|(_, config)| config.name.contains(&only)) {
        wrong += u8::from(run(rule, config, max) != faulty);
    }
    std::process::ExitCode::from(wrong.min(1))
}
