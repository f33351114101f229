//! What is said to people. A terminal that is gone stops nothing.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// A text on standard output, with a new line.
pub fn out(text: &str) {
    let mut out = io::stdout().lock();
    let _nobody_reads = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
}

/// An error with what to do, on standard error.
pub fn failed(error: &dyn Error, hint: Option<&str>) -> ExitCode {
    let mut err = io::stderr().lock();
    let _nobody_reads = writeln!(err, "error: {}", cluster_telemetry::chain(error));
    if let Some(hint) = hint {
        let _nobody_reads = writeln!(err, "hint: {hint}");
    }
    ExitCode::FAILURE
}

/// What a cluster refused, on standard error.
pub fn refused(text: &str) -> ExitCode {
    let _nobody_reads = writeln!(io::stderr().lock(), "error: {text}");
    ExitCode::FAILURE
}
