//! `apply` and `validate`.

use std::collections::BTreeMap;

use cluster_schemas::api::{Applied, Outcome};
use cluster_schemas::manifest::ParsedApp;

use crate::args::{ApplyArgs, FileArgs};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::input;
use crate::io::Io;

/// Sends the Apps of all files, once all of them are valid, and prints what became of each.
pub(crate) fn run(args: &ApplyArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let apps = match input::read(&args.input, &mut std::io::stdin()) {
        Ok(apps) => apps,
        Err(error) => {
            let exit = io.fail(&error.into());
            io.note("nothing was sent");
            return Ok(exit);
        }
    };
    let client = connect()?;
    let mut exit = Exit::Done;
    for (index, parsed) in apps.iter().enumerate() {
        let name = &parsed.app.metadata.name;
        match client.put::<Applied>(&format!("/v1/apps/{}", encode(name)), &parsed.app) {
            Ok(applied) => io.line(format_args!("app/{name} {}", word(applied.outcome)))?,
            Err(error @ ClientError::Unreachable { .. }) => {
                // The others would fare the same, each after the whole time for a request.
                let rest: Vec<String> = apps.iter().skip(index).map(|p| format!("app/{}", p.app.metadata.name)).collect();
                io.note(format_args!("not applied: {}", rest.join(", ")));
                return Err(error.into());
            }
            Err(error) => {
                report(parsed, &error, io);
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

/// Checks the files without a cluster, and prints what they have.
pub(crate) fn validate(args: &FileArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let apps = input::read(args, &mut std::io::stdin())?;
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for parsed in &apps {
        files.entry(&parsed.file).or_default().push(&parsed.app.metadata.name);
    }
    for (file, names) in files {
        let count = if names.len() == 1 { "1 App is valid".to_owned() } else { format!("{} Apps are valid", names.len()) };
        io.line(format_args!("{file}: {count}: {}", names.join(", ")))?;
    }
    Ok(Exit::Done)
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Configured => "configured",
        Outcome::Unchanged => "unchanged",
    }
}

/// Says what the controller has against an App, and where that App was written.
fn report(parsed: &ParsedApp, error: &ClientError, io: &mut Io<'_>) {
    let name = &parsed.app.metadata.name;
    let what = match error.problem() {
        // The fields follow one by one.
        Some(problem) if !problem.errors.is_empty() => format!("refused ({} {})", problem.status, problem.kind),
        _ => error.to_string(),
    };
    io.note(format_args!("error: app/{name}: {}", what));
    io.note(format_args!("  --> {}:{}:{}", parsed.file, parsed.line, parsed.column));
    for field in error.problem().map(|problem| problem.errors.as_slice()).unwrap_or_default() {
        io.note(format_args!("  {}: {}", field.pointer, field.message));
        if let Some(hint) = &field.hint {
            io.note(format_args!("    hint: {}", hint));
        }
    }
    for hint in error.hints() {
        io.note(format_args!("  hint: {hint}"));
    }
}
