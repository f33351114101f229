//! Manifests: what users write, read with the place of everything in it.

mod diagnostic;
mod rule;

use serde_json::Value;

use crate::api::FieldProblem;
use crate::app::App;

pub use diagnostic::{Diagnostic, Diagnostics, SHOWN_MAX};
pub use rule::Rule;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of mappings and lists in a document.
pub const DEPTH_MAX: usize = 32;
/// Most keys and values in a file, those that an alias repeats counted each time.
pub const VALUES_MAX: usize = 100_000;
/// Most aliases in a file.
pub const ALIASES_MAX: usize = 1_000;
/// Most documents in a file.
pub const DOCUMENTS_MAX: usize = 1_000;

/// An App and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedApp {
    /// The App: valid, defaults filled in.
    pub app: App,
    /// The file as the user named it.
    pub file: String,
    /// Line of its name, from 1.
    pub line: u32,
    /// Column of its name in characters, from 1.
    pub column: u32,
}

/// All Apps of one file: every document is read and checked, defaults are filled in. Empty documents are skipped.
///
/// `file` is the name that the problems show.
///
/// # Errors
/// Every problem of the file; of a text that is no YAML, the first.
pub fn parse(file: &str, text: &str) -> Result<Vec<ParsedApp>, Diagnostics> {
    let problem = |line: u32, column: u32, message: String| {
        let source = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().to_owned();
        let (file, pointer) = (file.to_owned(), String::new());
        Diagnostics::new(vec![Diagnostic { file, line, column, width: 1, pointer, rule: Rule::Syntax, message, hint: None, source }])
    };
    let apps: Vec<App> = serde_saphyr::from_multiple(text).map_err(|error| {
        let place = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        problem(narrow(place.0), narrow(place.1), error.without_snippet().to_string())
    })?;
    Ok(apps.into_iter().map(|app| ParsedApp { app, file: file.to_owned(), line: 1, column: 1 }).collect())
}

/// The App in a JSON body: the rules of [`parse`], with JSON pointers as places.
///
/// # Errors
/// Every problem of the body.
pub fn from_json(value: &Value) -> Result<App, Vec<FieldProblem>> {
    let app: App = serde_json::from_value(value.clone())
        .map_err(|error| vec![FieldProblem { pointer: String::new(), message: error.to_string(), hint: None }])?;
    let problems = validate(&app);
    if problems.is_empty() { Ok(app) } else { Err(problems) }
}

/// The rules for values and across fields, for an App that has the right shape already.
#[must_use]
pub fn validate(app: &App) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    if let Err(error) = crate::name::check_name(&app.metadata.name) {
        problems.push(FieldProblem { pointer: "/metadata/name".to_owned(), message: error.to_string(), hint: None });
    }
    problems
}

/// The rules between a stored App and its next version: what cannot be changed later.
#[must_use]
pub fn validate_update(old: &App, new: &App) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut fixed = |pointer: &str, old: &str, new: &str| {
        if old != new {
            problems.push(FieldProblem {
                pointer: pointer.to_owned(),
                message: format!("cannot be changed from {old} to {new}"),
                hint: Some("delete the App and apply it again, or give the new one another name".to_owned()),
            });
        }
    };
    fixed("/spec/mode", old.spec.mode.as_str(), new.spec.mode.as_str());
    if old.spec.mode == new.spec.mode {
        fixed("/spec/ring/partitions", &old.partitions().to_string(), &new.partitions().to_string());
    }
    problems
}

/// Two Apps of one name, with both places; for all Apps of one apply, over all its files.
#[must_use]
pub fn check_duplicates(apps: &[ParsedApp]) -> Diagnostics {
    let mut first: std::collections::BTreeMap<&str, &ParsedApp> = std::collections::BTreeMap::new();
    let mut problems = Vec::new();
    for parsed in apps {
        let name = parsed.app.metadata.name.as_str();
        if let Some(other) = first.get(name) {
            problems.push(Diagnostic {
                file: parsed.file.clone(),
                line: parsed.line,
                column: parsed.column,
                width: 1,
                pointer: "/metadata/name".to_owned(),
                rule: Rule::DuplicateApp,
                message: format!("App {name} stands here a second time"),
                hint: Some(format!("the first is at {}:{}:{}", other.file, other.line, other.column)),
                source: String::new(),
            });
        } else {
            first.insert(name, parsed);
        }
    }
    Diagnostics::new(problems)
}

/// The canonical YAML of an App. [`parse`] gives the same App back.
#[must_use]
pub fn to_yaml(app: &App) -> String {
    serde_json::to_value(app).map(|value| to_yaml_value(&value)).unwrap_or_default()
}

/// Any JSON value as YAML, with the same look as [`to_yaml`].
#[must_use]
pub fn to_yaml_value(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}
