//! What `diff` and `apply` share: which Apps are asked for and how far it goes, saved plans, and what a controller has against them.

use std::path::{Path, PathBuf};

use clap::Args;
use cluster_schemas::api::FieldProblem;
use cluster_schemas::manifest::ParsedApp;
use cluster_schemas::plan::{Plan, PlanOptions, PlanRequest, SavedPlan};

use crate::args::FileArgs;
use crate::client::ClientError;
use crate::error::CliError;
use crate::input::{self, InputError};
use crate::io::Io;

/// Largest saved plan, in bytes.
const PLAN_BYTES_MAX: u64 = 64 << 20;

/// Which files, and the set that they are.
#[derive(Debug, Default, Args)]
pub(crate) struct SetArgs {
    /// The set that all these Apps belong to; they keep theirs without it
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,

    /// Delete the Apps of the set that are not in the files
    #[arg(long, requires = "set")]
    pub(crate) prune: bool,

    /// Most Apps that may be deleted: a number, or a part of the set (at least one App) [default: 25%]
    #[arg(long, value_name = "N|N%", requires = "prune")]
    pub(crate) max_delete: Option<String>,

    /// With --prune: files without any App are meant so
    #[arg(long, requires = "prune")]
    pub(crate) allow_empty: bool,

    /// Take Apps that belong to another set into this one
    #[arg(long, visible_alias = "force-conflicts", requires = "set")]
    pub(crate) take_over: bool,

    /// What the files are a state of, such as a commit; kept with each App that changes
    #[arg(long, value_name = "REVISION")]
    pub(crate) source_revision: Option<String>,
}

impl SetArgs {
    fn options(&self) -> PlanOptions {
        PlanOptions {
            set: self.set.clone(),
            prune: self.prune,
            max_delete: self.max_delete.clone(),
            allow_empty: self.allow_empty,
            take_over: self.take_over,
            source_revision: self.source_revision.clone(),
        }
    }
}

/// A request, and where its Apps were written: one for each App, none of a saved plan.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What is sent.
    pub(crate) request: PlanRequest,
    /// Where the Apps come from.
    pub(crate) places: Vec<ParsedApp>,
}

impl Asked {
    /// Reads the files and checks them all.
    pub(crate) fn read(files: &FileArgs, set: &SetArgs) -> Result<Self, InputError> {
        let places = match input::read(files, &mut std::io::stdin()) {
            Err(InputError::Empty(_) | InputError::EmptyFolder(_)) if set.allow_empty => Vec::new(),
            other => other?,
        };
        let apps = places.iter().map(|parsed| parsed.app.clone()).collect();
        Ok(Self { request: PlanRequest { apps, options: set.options(), basis: None }, places })
    }

    /// The request as a saved plan has it.
    pub(crate) fn saved(self, plan: Plan) -> SavedPlan {
        SavedPlan { api_version: cluster_schemas::API_VERSION.to_owned(), kind: "Plan".to_owned(), request: self.request, plan }
    }

    /// Says what the controller has against the request, each at the place in the files that it is about.
    pub(crate) fn report(&self, error: &ClientError, io: &mut Io<'_>) {
        let problem = error.problem();
        let fields: &[FieldProblem] = problem.map(|p| p.errors.as_slice()).unwrap_or_default();
        match problem {
            // The fields follow one by one.
            Some(problem) if !fields.is_empty() => {
                io.note(format_args!("error: refused ({} {}), nothing was written", problem.status, problem.kind))
            }
            _ => io.note(format_args!("error: {error}")),
        }
        for field in fields {
            let at = field.pointer.strip_prefix("/apps/").and_then(|rest| {
                let (index, pointer) = rest.split_once('/').unwrap_or((rest, ""));
                Some((self.places.get(index.parse::<usize>().ok()?)?, pointer))
            });
            match at {
                Some((parsed, pointer)) => {
                    io.note(format_args!("error: app/{}: /{pointer}: {}", parsed.app.metadata.name, field.message));
                    io.note(format_args!("  --> {}:{}:{}", parsed.file, parsed.line, parsed.column));
                }
                None => io.note(format_args!("error: {}: {}", field.pointer, field.message)),
            }
            if let Some(hint) = &field.hint {
                io.note(format_args!("  hint: {hint}"));
            }
        }
        for hint in error.hints() {
            io.note(format_args!("hint: {hint}"));
        }
    }
}

/// Reads a plan that `diff --save` or `apply --dry-run=server -o json` wrote.
pub(crate) fn read_saved(path: &Path) -> Result<SavedPlan, CliError> {
    let bad = |why: String| CliError::Usage {
        message: format!("{} is no saved plan: {why}", path.display()),
        hint: Some("make one with `clusterctl diff -f FILES --save FILE`".to_owned()),
    };
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > PLAN_BYTES_MAX {
        return Err(bad(format!("it is longer than {PLAN_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let saved: SavedPlan = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if saved.kind != "Plan" {
        return Err(bad(format!("its kind is {:?}", saved.kind)));
    }
    Ok(saved)
}

/// Writes a plan where `--save` says.
pub(crate) fn save(path: &PathBuf, saved: &SavedPlan) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(saved).unwrap_or_default();
    std::fs::write(path, text + "\n")
        .map_err(|error| CliError::Usage { message: format!("cannot write {}: {error}", path.display()), hint: None })
}
