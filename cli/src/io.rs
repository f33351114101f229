//! Where a command prints: data to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::{CliError, Exit};
use crate::input::InputError;
use crate::output::printable;

/// The two streams of a command.
pub(crate) struct Io<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Whether remarks are kept back.
    quiet: bool,
    /// Whether data may be coloured.
    colour: bool,
}

impl<'a> Io<'a> {
    /// Prints data to `out` and everything else to `err`.
    pub(crate) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, quiet: false, colour: false }
    }

    /// Keeps remarks back, and colours data.
    pub(crate) fn with(self, quiet: bool, colour: bool) -> Self {
        Self { quiet, colour, ..self }
    }

    /// Whether data may be coloured.
    pub(crate) const fn colour(&self) -> bool {
        self.colour
    }

    /// Prints `text` as it is, in one write.
    pub(crate) fn out(&mut self, text: &str) -> Result<(), CliError> {
        self.out_bytes(text.as_bytes())
    }

    /// Prints `bytes` as they are, in one write.
    pub(crate) fn out_bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CliError::Output)
    }

    /// Prints a line of data.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), CliError> {
        self.out(&format!("{line}\n"))
    }

    /// Says something beside the data, in one line or several. A closed stderr is no reason to fail.
    pub(crate) fn note(&mut self, text: impl Display) {
        let lines: String = text.to_string().lines().map(|line| format!("{}\n", printable(line))).collect();
        self.err.write_all(lines.as_bytes()).ok();
    }

    /// Says something that nobody misses who asked for quiet.
    pub(crate) fn remark(&mut self, text: impl Display) {
        if !self.quiet {
            self.note(text);
        }
    }

    /// Reports what failed and what to do, and returns the exit code for it.
    pub(crate) fn fail(&mut self, error: &CliError) -> Exit {
        if let CliError::Output(cause) = error
            && cause.kind() == ErrorKind::BrokenPipe
        {
            // The reader has what it wanted, as in `clusterctl get apps | head -1`.
            return Exit::Done;
        }
        // Problems of manifests come one by one, each with its own heading.
        let mut text = if matches!(error, CliError::Input(InputError::Invalid(_))) { String::new() } else { "error: ".to_owned() };
        text.push_str(&error.to_string());
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.note(text);
        for hint in error.hints() {
            self.note(format_args!("hint: {hint}"));
        }
        error.exit()
    }
}
