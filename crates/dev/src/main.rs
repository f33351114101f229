//! The laptop cluster that `clusterctl dev` starts.

use std::process::ExitCode;

fn main() -> ExitCode {
    cluster_dev::start(std::env::args_os())
}
