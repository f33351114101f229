//! `clusterctl`, the command line. Everything is in the library, so that tests reach it.

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    clusterctl::run(std::env::args_os(), &mut io::stdout(), &mut io::stderr())
}
