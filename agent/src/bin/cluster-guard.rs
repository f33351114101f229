//! The guard process: fences at the deadline, whatever became of the agent. `cluster-guard check SLOT` tells a unit whether it may
//! start, `cluster-guard standby SLOT ROLE_FILE` has a hot one start as a standby where it may not be the active one (F6).

use std::path::Path;
use std::process::ExitCode;

use cluster_agent::guard;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let runtime = Path::new("/run/clusterctl");
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(word), Some(slot), None) if word == "check" => guard::check(runtime, &slot.to_string_lossy()),
        (Some(word), Some(slot), Some(file)) if word == "standby" => guard::standby(runtime, &slot.to_string_lossy(), Path::new(&file)),
        (None, ..) => guard::run(runtime, Path::new("/etc/clusterctl/agent.yaml")),
        _ => guard::usage(),
    }
}
