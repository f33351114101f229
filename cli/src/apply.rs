//! `apply` and `validate`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use cluster_schemas::api::{AppView, Outcome};
use cluster_schemas::plan::{AppResult, AppliedAll};

use crate::args::{FileArgs, VersionFormat, duration};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::plans::{Asked, SetArgs, read_saved};
use crate::{diff, input};

/// Pause between two looks at an App that is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// File, folder (its *.yaml, *.yml and *.json), or - for stdin; repeatable
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required_unless_present = "plan")]
    pub(crate) files: Vec<PathBuf>,

    /// Also read the folders within folders
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,

    #[command(flatten)]
    pub(crate) set: SetArgs,

    /// Change nothing: check the files only (client), or print what would be done, as `diff` does (server)
    #[arg(long, value_enum, value_name = "client|server", conflicts_with = "plan")]
    pub(crate) dry_run: Option<DryRun>,

    /// Carry out a plan that was saved, and refuse if the world is another by now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "set", "recursive", "source_revision"])]
    pub(crate) plan: Option<PathBuf>,

    /// Wait until all the Apps are Ready, and the deleted ones gone
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,

    /// Longest time to wait, for all of them together
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// How to print the plan of --dry-run=server
    #[arg(short = 'o', long, value_enum, default_value_t = VersionFormat::Table)]
    pub(crate) output: VersionFormat,
}

/// How much of an apply is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// The files are checked, no controller is asked.
    Client,
    /// The controller makes the plan.
    Server,
}

/// Sends the Apps of all files, once all of them are valid, and prints what became of each.
pub(crate) fn run(args: &ApplyArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let asked = match &args.plan {
        Some(path) => {
            let saved = read_saved(path)?;
            let mut request = saved.request;
            request.basis = Some(saved.plan.basis);
            Asked { request, places: Vec::new() }
        }
        None => {
            let files = FileArgs { files: args.files.clone(), recursive: args.recursive };
            match Asked::read(&files, &args.set) {
                Ok(asked) => asked,
                Err(error) => {
                    let exit = io.fail(&error.into());
                    io.note("nothing was sent");
                    return Ok(exit);
                }
            }
        }
    };
    if args.dry_run == Some(DryRun::Client) {
        for app in &asked.request.apps {
            io.line(format_args!("app/{} valid (client dry run)", app.metadata.name))?;
        }
        return Ok(Exit::Done);
    }
    let client = connect()?;
    if args.dry_run == Some(DryRun::Server) {
        let Some(plan) = diff::ask(&client, &asked, io)? else { return Ok(Exit::Failed) };
        return diff::preview(asked, plan, args.output, io);
    }
    match send(&client, &asked, io)? {
        Some((Exit::Done, results)) if args.wait => wait(&client, &results, args.timeout, io),
        Some((exit, _)) => Ok(exit),
        None => Ok(Exit::Failed),
    }
}

/// Has a request carried out and prints what became of each App; none where the controller refused it, which was told.
pub(crate) fn send(client: &Client, asked: &Asked, io: &mut Io<'_>) -> Result<Option<(Exit, Vec<AppResult>)>, CliError> {
    let applied = match client.post::<AppliedAll>("/v1/apply", &asked.request) {
        Ok(applied) => applied,
        Err(error @ ClientError::Refused { .. }) => {
            asked.report(&error, io);
            return Ok(None);
        }
        Err(error) => {
            let names: Vec<String> = asked.request.apps.iter().map(|app| format!("app/{}", app.metadata.name)).collect();
            io.note(format_args!("not known whether applied: {}", names.join(", ")));
            return Err(error.into());
        }
    };
    let mut exit = Exit::Done;
    for sentence in &applied.warnings {
        io.note(format_args!("warning: {sentence}"));
    }
    for result in &applied.results {
        if result.error.is_empty() {
            io.line(format_args!("app/{} {}", result.name, word(result)))?;
        } else {
            io.note(format_args!("error: app/{}: {}", result.name, result.error));
            exit = Exit::Failed;
        }
    }
    Ok(Some((exit, applied.results)))
}

/// Waits until each App is Ready by the spec that was applied, or gone.
fn wait(client: &Client, results: &[AppResult], timeout: Duration, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let end = Instant::now() + timeout;
    for result in results {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let last = match client.get_within::<AppView>(&format!("/v1/apps/{}", encode(&result.name)), left.max(LOOK)) {
                Err(error) if error.is_not_found() && result.deleted => break,
                Err(error) if error.is_not_found() => "it does not exist".to_owned(),
                // Controllers change, and what is waited for happens all the same.
                Err(error @ ClientError::Unreachable { .. }) => error.to_string(),
                Err(error) => return Err(error.into()),
                Ok(_) if result.deleted => "something of it is left".to_owned(),
                Ok(app) => match app.status {
                    Some(status) if status.observed_generation >= result.generation && status.is_ready() => break,
                    Some(status) if status.observed_generation >= result.generation => {
                        let ready = status.condition("Ready");
                        ready.map_or_else(String::new, |c| format!("{}: {}", c.reason, c.message))
                    }
                    _ => "no controller has looked at it yet".to_owned(),
                },
            };
            if left.is_zero() {
                let what = if result.deleted { "gone" } else { "Ready" };
                io.note(format_args!("error: app/{} is not {what} after {} s: {last}", result.name, timeout.as_secs()));
                return Ok(Exit::Timeout);
            }
            std::thread::sleep(LOOK.min(left));
        }
    }
    Ok(Exit::Done)
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

const fn word(result: &AppResult) -> &'static str {
    match result.outcome {
        Some(Outcome::Created) => "created",
        Some(Outcome::Configured) => "configured",
        Some(Outcome::Unchanged) => "unchanged",
        None => "deleted",
    }
}
