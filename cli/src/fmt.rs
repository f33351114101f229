//! `fmt`: manifests in the canonical form.

use std::fs;
use std::io;
use std::path::Path;

use cluster_schemas::manifest::{self, Diagnostics, FormatError};

use crate::args::FmtArgs;
use crate::error::{CliError, Exit};
use crate::input::{self, InputError, STDIN_NAME};
use crate::io::Io;

/// Prints the files in the canonical form, writes them back, or tells which are not in it.
pub(crate) fn run(args: &FmtArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let sources = input::sources(&args.input, &mut std::io::stdin())?;
    let (mut formatted, mut problems, mut lost) = (Vec::new(), Diagnostics::default(), Vec::new());
    for (name, text) in &sources {
        match manifest::format(name, text) {
            Ok(canonical) => formatted.push((name, text, canonical)),
            Err(FormatError::Invalid(found)) => problems.merge(found),
            Err(error @ FormatError::Comments { .. }) => lost.push(error.to_string()),
        }
    }
    problems.into_result().map_err(InputError::Invalid)?;
    if !lost.is_empty() {
        return Err(InputError::Unformattable(lost.join("\n")).into());
    }
    if args.write {
        refuse_other_than_yaml(formatted.iter().map(|(name, ..)| name.as_str()))?;
    }
    let mut exit = Exit::Done;
    let mut first = true;
    for (name, text, canonical) in formatted {
        if args.check {
            if *text != canonical {
                io.line(name)?;
                exit = Exit::Failed;
            }
        } else if args.write {
            if *text != canonical {
                replace(Path::new(name), &canonical).map_err(|error| InputError::Unformattable(format!("cannot write {name}: {error}")))?;
                io.line(format_args!("{name} formatted"))?;
            }
        } else {
            if !std::mem::replace(&mut first, false) {
                io.line("---")?;
            }
            io.out_bytes(canonical.as_bytes())?;
        }
    }
    Ok(exit)
}

/// The canonical form is YAML, which no reader of JSON takes; and stdin cannot be written.
fn refuse_other_than_yaml<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), InputError> {
    for name in names {
        let json = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if name == STDIN_NAME || json {
            let why = if json { "the canonical form is YAML" } else { "it is no file" };
            return Err(InputError::Unformattable(format!("{name} cannot be written back: {why}; nothing was written")));
        }
    }
    Ok(())
}

/// Replaces the file at once: a reader finds the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".fmt-new");
    let new = path.with_file_name(name);
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::metadata(&path)?.permissions()).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
        fs::remove_file(&new).ok();
    })
}
