//! The guard process: fences at the deadline, whatever became of the agent. `cluster-guard check SLOT` tells a unit whether it may start (F6).

use std::path::Path;
use std::process::ExitCode;

use cluster_agent::guard;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let runtime = Path::new("/run/clusterctl");
    match (arguments.next(), arguments.next()) {
        (Some(word), Some(slot)) if word == "check" => guard::check(runtime, &slot.to_string_lossy()),
        (None, _) => guard::run(runtime),
        _ => guard::usage(),
    }
}
