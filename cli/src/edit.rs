//! `edit`: an App in the user's editor, and what became of it back to a controller.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;
use cluster_schemas::api::AppView;
use serde_json::json;

use crate::apply;
use crate::args::FileArgs;
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::get;
use crate::input::InputError;
use crate::io::Io;
use crate::output::{document, printable};
use crate::plans::{Asked, SetArgs};
use crate::resource::{self, Kind};

/// Where neither `VISUAL` nor `EDITOR` says otherwise: POSIX has it everywhere.
const EDITOR: &str = "vi";
/// Largest file that is read back, in bytes; an App has 1 MiB at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Marks our own comments.
const OURS: &str = "# |";

/// `edit`.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The App: `app database`, `app/database`
    #[arg(required = true, value_name = "app NAME | app/NAME")]
    pub(crate) resources: Vec<String>,
}

/// Opens the App in an editor until it is a valid one, and writes it on the revision that was read.
pub(crate) fn run(args: &EditArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let selections = resource::parse(&args.resources, &[Kind::App])?;
    let [name] = selections.iter().flat_map(|selection| &selection.names).collect::<Vec<_>>()[..] else {
        return Err(usage("one App is edited at a time".to_owned(), "such as: clusterctl edit app database"));
    };
    let client = connect()?;
    let app = match client.get::<AppView>(&format!("/v1/apps/{}", encode(name))) {
        Ok(app) => app,
        Err(error) if error.is_not_found() => return Err(get::not_found(&client, Kind::App, name)),
        Err(error) => return Err(error.into()),
    };
    let before = manifest(&app);
    // Of the user only, and gone in the end whatever happens, unless somebody would miss it.
    let file = tempfile::Builder::new().prefix(&format!("clusterctl-{name}-")).suffix(".yaml").tempfile();
    let file = file.map_err(|error| usage(format!("cannot make a file to edit: {error}"), "TMPDIR names where"))?;
    let (mut text, mut reasons) = (before.clone(), Vec::new());
    loop {
        write(file.path(), &headed(name, &reasons, &text))?;
        open(file.path())?;
        let edited = without_ours(&read(file.path())?);
        if edited.trim().is_empty() || edited == before {
            io.remark("Edit cancelled, nothing changed.");
            return Ok(Exit::Done);
        }
        // Saved once more as it was: the user has given up.
        let again = edited == text && !reasons.is_empty();
        text = edited;
        // So that places are those of what the user wrote.
        write(file.path(), &text)?;
        let files = FileArgs { files: vec![file.path().to_owned()], recursive: false };
        let asked = match Asked::read(&files, &SetArgs::default()) {
            Ok(asked) if asked.request.apps.iter().all(|app| app.metadata.name == *name) => asked,
            wrong => {
                let renamed = || vec![format!("the name is {name} and stays so: another name is another App, clusterctl apply makes it")];
                reasons = wrong.map_or_else(|error| lines(&error, file.path()), |_| renamed());
                if again {
                    io.note("error: the App is not valid, nothing was written");
                    reasons.iter().for_each(|reason| io.note(format_args!("  {reason}")));
                    keep(file, io);
                    return Ok(Exit::Usage);
                }
                continue;
            }
        };
        return match apply::send(&client, &asked, io) {
            Ok(Some((Exit::Done, _))) => Ok(Exit::Done),
            other => {
                keep(file, io);
                other.map(|_| Exit::Failed)
            }
        };
    }
}

/// What the user sees: what may be written, and the revision that it is written on.
fn manifest(app: &AppView) -> String {
    let mut metadata = json!({ "name": app.metadata.name, "resourceVersion": app.metadata.resource_version });
    for (key, map) in [("labels", &app.metadata.labels), ("annotations", &app.metadata.annotations)] {
        if !map.is_empty() {
            metadata[key] = json!(map);
        }
    }
    document::yaml(&json!({ "apiVersion": app.api_version, "kind": app.kind, "metadata": metadata, "spec": app.spec }))
}

/// The text with our words at its top.
fn headed(name: &str, reasons: &[String], text: &str) -> String {
    let mut head = format!("{OURS} app/{name}. What is saved is applied; an empty file, or one without a change, cancels.\n");
    for reason in reasons {
        for line in reason.lines() {
            head.push_str(&format!("{OURS} {}\n", printable(line)));
        }
    }
    head + text
}

fn without_ours(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with(OURS)).map(|line| format!("{line}\n")).collect()
}

/// Each thing that is wrong, by line and column instead of a file that is gone soon.
fn lines(error: &InputError, path: &Path) -> Vec<String> {
    let file = path.display().to_string();
    error.to_string().lines().map(|line| line.replace(&format!("{file}:"), "below these lines, line ")).collect()
}

/// Leaves the file for the user.
fn keep(file: tempfile::NamedTempFile, io: &mut Io<'_>) {
    match file.keep() {
        Ok((_, path)) => {
            io.note(format_args!("hint: what was edited is in {}; after another look: clusterctl apply -f it", path.display()))
        }
        Err(error) => io.note(format_args!("error: what was edited cannot be kept: {}", error.error)),
    }
}

/// Runs the user's editor. Its words are split at spaces, no shell reads them.
fn open(path: &Path) -> Result<(), CliError> {
    let named = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()));
    let command = named.unwrap_or_else(|| EDITOR.to_owned());
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or(EDITOR);
    let hint = "EDITOR names another editor, with arguments if it needs any";
    let status = Command::new(program).args(words).arg(path).status();
    let status = status.map_err(|error| usage(format!("cannot run the editor {program}: {error}"), hint))?;
    if status.success() { Ok(()) } else { Err(usage(format!("the editor {program} ended with {status}; nothing was written"), hint)) }
}

fn read(path: &Path) -> Result<String, CliError> {
    let bytes =
        crate::config::read_bytes(path, FILE_BYTES_MAX).map_err(|error| usage(format!("cannot read {}: {error}", path.display()), ""))?;
    String::from_utf8(bytes).map_err(|_| usage("what was saved is no text (UTF-8); nothing was written".to_owned(), ""))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text).map_err(|error| usage(format!("cannot write {}: {error}", path.display()), "TMPDIR names where"))
}

fn usage(message: String, hint: &str) -> CliError {
    CliError::Usage { message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
}
