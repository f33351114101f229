//! `man`: manual pages, one for each command, from the same words as `--help`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::error::{CliError, Exit};
use crate::io::Io;

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder, such as /usr/share/man/man1; made where it is not there
    pub(crate) folder: PathBuf,
}

/// Writes them.
pub(crate) fn run(args: &ManArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let failed =
        |error: std::io::Error| CliError::Usage { message: format!("cannot write to {}: {error}", args.folder.display()), hint: None };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.folder).map_err(failed)?;
    io.line(format_args!("manual pages written to {}", args.folder.display()))?;
    Ok(Exit::Done)
}
