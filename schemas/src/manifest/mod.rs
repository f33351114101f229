//! Manifests: what users write, read with the place of everything in it.
//!
//! Two passes. The first makes a tree that keeps what was written and where (`tree`). The second brings the tree into the shape of the
//! types (`shape`, `conform`) and checks the values (`check`); both collect every problem, and nothing is said twice. What the API gets as
//! JSON goes the same way.

mod check;
mod conform;
mod diagnostic;
mod format;
mod problem;
mod rule;
mod shape;
mod syntax;
mod text;
mod tree;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::api::FieldProblem;
use crate::app::{App, Mode, RingSpec};
use conform::{Conformed, conform};
use problem::{Bad, Problem, Problems, Side};
use tree::{Content, Fatal, Mark, Node};

pub use check::{ANNOTATION_BYTES_MAX, LABELS_MAX, PATH_BYTES_MAX, REPLICAS_MAX};
pub(crate) use check::{NOT_KEPT, OTHER_UNITS, RESERVED_UNITS};
pub use diagnostic::{Diagnostic, Diagnostics, KEPT_MAX, SHOWN_MAX};
pub use format::{FormatError, format};
pub use rule::Rule;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of mappings and lists in a document.
pub const DEPTH_MAX: usize = 32;
/// Most keys and values in a file, those of an anchor and of each alias counted again.
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
    /// That line, to be shown with a problem.
    pub source: Arc<str>,
}

/// All Apps of one file: every document is read and checked, defaults are filled in. Empty documents are skipped, and a list as
/// `get -o yaml` prints it (`items:`) stands for the Apps in it.
///
/// `file` is the name that the problems show.
///
/// # Errors
/// Every problem of the file; of a text that is no YAML, the first.
pub fn parse(file: &str, text: &str) -> Result<Vec<ParsedApp>, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = Source { file, lines: lines(text), shown: HashMap::new() };
    let documents = match tree::read(text) {
        Ok(documents) => documents,
        Err(Fatal { mark, rule, message, hint }) => {
            return Err(Diagnostics::new(vec![source.diagnostic(mark, String::new(), rule, message, hint)]));
        }
    };
    let mut found = Diagnostics::default();
    let mut apps = Vec::new();
    for document in documents.iter().flat_map(Node::members) {
        let (app, problems) = read(document);
        found.add(problems.more());
        for problem in problems {
            let within = problem.line.and_then(|line| document.place_in_text(&problem.pointer, line));
            let mark = problem.mark.or(within).unwrap_or_else(|| document.place(&problem.pointer, problem.side == Side::Key));
            found.push(|| source.diagnostic(mark, problem.pointer, problem.rule, problem.message, problem.hint));
        }
        let mark = document.place("/metadata/name", false);
        let (file, source) = (file.to_owned(), source.line(mark));
        apps.extend(app.map(|app| ParsedApp { app, file, line: mark.line, column: mark.column, source }));
    }
    found.merge(check_duplicates(&apps));
    found.into_result().map(|()| apps)
}

/// The App in a JSON body: the rules of [`parse`], with JSON pointers as places.
///
/// # Errors
/// Every problem of the body.
pub fn from_json(value: &Value) -> Result<App, Vec<FieldProblem>> {
    let Some(document) = Node::from_json(value, 0) else {
        let message = format!("the body is nested deeper than {DEPTH_MAX} levels");
        return Err(vec![FieldProblem { pointer: String::new(), message, hint: None }]);
    };
    match read(&document) {
        (Some(app), problems) if problems.is_empty() => Ok(app),
        (_, problems) => Err(problems.into_iter().map(FieldProblem::from).collect()),
    }
}

/// The rules for values and across fields, for an App that has the right shape already.
#[must_use]
pub fn validate(app: &App) -> Vec<FieldProblem> {
    let mut problems = Problems::default();
    check::check(app, &Bad::default(), &mut problems);
    problems.into_iter().map(FieldProblem::from).collect()
}

/// Reads one document. The App is there whenever its name is, so that two of one name are found in a file with other problems.
fn read(document: &Node) -> (Option<App>, Problems) {
    if let Some(problem) = foreign(document) {
        let mut problems = Problems::default();
        problems.push(problem);
        return (None, problems);
    }
    let Conformed { value, bad, mut problems, renamed } = conform(document, shape::app());
    let mut app = match serde_json::from_value::<App>(value) {
        Ok(app) => app,
        Err(error) => {
            // The shape is made from the types, so this is a contradiction between schemars and serde; better said than hidden.
            let message = format!("this document does not fit: {error}");
            let pointer = String::new();
            problems.push(Problem { pointer, side: Side::Value, mark: None, line: None, rule: Rule::WrongType, message, hint: None });
            return (None, problems);
        }
    };
    if app.spec.mode == Mode::Ring && app.spec.ring.is_none() && !bad.covers("/spec/ring") {
        // Stored, so that the number stays should the default ever change.
        app.spec.ring = Some(RingSpec::default());
    }
    check::check(&app, &bad, &mut problems);
    problems.rename(&renamed);
    let named = !bad.covers("/metadata/name");
    (named.then_some(app), problems)
}

/// A document of another kind gets one problem: its fields mean nothing to us.
fn foreign(document: &Node) -> Option<Problem> {
    let Content::Map(entries) = &document.content else { return None };
    let entry = entries.iter().find(|entry| entry.key.as_deref() == Some("kind"))?;
    match &entry.value.content {
        Content::Scalar(kind, _) if !check::meant_as_app(kind) => Some(Problem {
            pointer: "/kind".to_owned(),
            side: Side::Value,
            mark: Some(entry.value_mark()),
            line: None,
            rule: Rule::Kind,
            message: format!("there is no kind {}", text::quote(kind)),
            hint: Some(format!("write `kind: {}`", check::KIND)),
        }),
        _ => None,
    }
}

/// The rules between a stored App and its next version: what cannot be changed later.
#[must_use]
pub fn validate_update(old: &App, new: &App) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut fixed = |pointer: &str, what: &str, old: &str, new: &str| {
        if old != new {
            let message = format!("{what} cannot be changed, from {old} to {new}");
            let hint = Some("delete the App first, or give the new one another name".to_owned());
            problems.push(FieldProblem { pointer: pointer.to_owned(), message, hint });
        }
    };
    fixed("/spec/mode", "the mode", old.spec.mode.as_str(), new.spec.mode.as_str());
    if old.spec.mode == new.spec.mode {
        let (old, new) = (old.partitions().to_string(), new.partitions().to_string());
        fixed("/spec/ring/partitions", "the number of partitions", &old, &new);
    }
    problems
}

/// Two Apps of one name, with both places; for all Apps of one apply, over all its files.
#[must_use]
pub fn check_duplicates(apps: &[ParsedApp]) -> Diagnostics {
    let mut first: BTreeMap<&str, &ParsedApp> = BTreeMap::new();
    let mut found = Diagnostics::default();
    for parsed in apps {
        let name = parsed.app.metadata.name.as_str();
        let Some(other) = first.get(name) else {
            first.insert(name, parsed);
            continue;
        };
        found.push(|| Diagnostic {
            file: parsed.file.clone(),
            line: parsed.line,
            column: parsed.column,
            width: u32::try_from(name.len()).unwrap_or(u32::MAX),
            pointer: "/metadata/name".to_owned(),
            rule: Rule::DuplicateApp,
            message: format!("a second App is called {}", text::quote(name)),
            hint: Some(format!("the first is at {}:{}:{}", other.file, other.line, other.column)),
            source: Arc::clone(&parsed.source),
        });
    }
    found
}

/// The canonical YAML of an App. [`parse`] gives the same App back.
#[must_use]
pub fn to_yaml(app: &App) -> String {
    write::write(app)
}

/// Anything else as YAML, with the same look as [`to_yaml`].
#[must_use]
pub fn to_yaml_value<T: Serialize + ?Sized>(value: &T) -> String {
    write::write(value)
}

/// The lines of `text`, ended as YAML ends them: by a line feed, a carriage return, or both.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive(['\n', '\r'])
        .collect::<Vec<_>>()
        .into_iter()
        .scan(false, |after_return, piece| {
            let rest_of_pair = std::mem::replace(after_return, piece.ends_with('\r')) && piece == "\n";
            Some((!rest_of_pair).then(|| piece.trim_end_matches(['\n', '\r'])))
        })
        .flatten()
        .collect()
}

/// The lines of a file.
struct Source<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    /// Lines that have a problem, each kept once however many problems it has.
    shown: HashMap<u32, Arc<str>>,
}

impl Source<'_> {
    fn line(&mut self, mark: Mark) -> Arc<str> {
        let text = self.lines.get(mark.line.saturating_sub(1) as usize).copied().unwrap_or_default();
        Arc::clone(self.shown.entry(mark.line).or_insert_with(|| Arc::from(text)))
    }

    fn diagnostic(&mut self, mark: Mark, pointer: String, rule: Rule, message: String, hint: Option<String>) -> Diagnostic {
        let source = self.line(mark);
        Diagnostic {
            file: self.file.to_owned(),
            line: mark.line,
            column: mark.column,
            width: mark.width,
            pointer,
            rule,
            message,
            hint,
            source,
        }
    }
}
