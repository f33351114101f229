//! A systemd generator (systemd.generator(7)): has systemd ask the guard before it starts a unit of an exclusive App, from the first moment of
//! a boot on. Installed in `/usr/lib/systemd/system-generators`.

use std::path::Path;
use std::process::ExitCode;

use cluster_agent::boot_gates::{FOLDER, put_back};

fn main() -> ExitCode {
    // systemd names three folders: normal, early, late.
    let Some(generated) = std::env::args_os().nth(1) else {
        return fail("usage: cluster-gates NORMAL_DIR [EARLY_DIR LATE_DIR]");
    };
    match put_back(Path::new(FOLDER), Path::new(&generated)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot put back all drop-ins of {FOLDER}: {error}")),
    }
}

#[expect(clippy::print_stderr, reason = "its log: systemd takes the standard error of generators to the kernel's log")]
fn fail(why: &str) -> ExitCode {
    eprintln!("cluster-gates: {why}");
    ExitCode::FAILURE
}
