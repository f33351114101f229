//! `diff`: what an apply of the files would do, as the controller plans it.

use std::path::PathBuf;

use clap::Args;
use cluster_schemas::plan::Plan;

use crate::args::{FileArgs, VersionFormat};
use crate::client::{Client, ClientError};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::{document, plan};
use crate::plans::{self, Asked, SetArgs};

/// `diff`. Exit codes are those of diff(1): 0 the same, 1 different, 2 for everything that went wrong.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) input: FileArgs,

    #[command(flatten)]
    pub(crate) set: SetArgs,

    /// Keep the plan in this file, for `apply --plan`
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = VersionFormat::Table)]
    pub(crate) output: VersionFormat,
}

/// Prints what would change.
pub(crate) fn run(args: &DiffArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Exit {
    match show(args, connect, io) {
        Ok(exit) => exit,
        Err(error) => {
            io.fail(&error);
            // As with diff(1): nobody who tests for 1 may take a failure for a difference.
            Exit::Usage
        }
    }
}

fn show(args: &DiffArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let asked = Asked::read(&args.input, &args.set)?;
    let Some(made) = ask(&connect()?, &asked, io)? else { return Ok(Exit::Usage) };
    let exit = if made.changes() { Exit::Failed } else { Exit::Done };
    print(asked, made, args.output, args.save.as_ref(), io)?;
    Ok(exit)
}

/// Asks for the plan; none where the controller has something against the request, which was told.
pub(crate) fn ask(client: &Client, asked: &Asked, io: &mut Io<'_>) -> Result<Option<Plan>, CliError> {
    match client.post::<Plan>("/v1/plan", &asked.request) {
        Ok(made) => Ok(Some(made)),
        Err(error @ ClientError::Refused { .. }) => {
            asked.report(&error, io);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints what an apply would do instead of doing it; it ends well where the apply would not be refused.
pub(crate) fn preview(asked: Asked, made: Plan, format: VersionFormat, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let exit = if made.refusals.is_empty() { Exit::Done } else { Exit::Failed };
    print(asked, made, format, None, io)?;
    Ok(exit)
}

/// Prints a plan, and keeps it where that is asked for.
fn print(asked: Asked, made: Plan, format: VersionFormat, save: Option<&PathBuf>, io: &mut Io<'_>) -> Result<(), CliError> {
    for sentence in made.warnings.iter() {
        io.note(format_args!("warning: {sentence}"));
    }
    for sentence in made.refusals.iter() {
        io.note(format_args!("apply would refuse this: {sentence}"));
    }
    if matches!(format, VersionFormat::Table) {
        io.out(&plan::text(&made))?;
    }
    let saved = asked.saved(made);
    if let Some(path) = save {
        plans::save(path, &saved)?;
    }
    match format {
        VersionFormat::Table => Ok(()),
        VersionFormat::Json => io.out(&document::json(&serde_json::to_value(&saved).unwrap_or_default())),
        VersionFormat::Yaml => io.out(&document::yaml(&serde_json::to_value(&saved).unwrap_or_default())),
    }
}
