//! Problems of manifests with the place where each was written, shown the way compilers do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::rule::Rule;
use super::text::count;

/// Most problems that are shown; the rest is counted.
pub const SHOWN_MAX: usize = 100;

/// Most problems that are kept in memory.
pub const KEPT_MAX: usize = 1_000;

/// Widest part of a source line that is shown, in characters.
const LINE_CHARS_MAX: usize = 140;

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters of the line are meant, at least 1.
    pub width: u32,
    /// JSON pointer (RFC 6901) into the document.
    pub pointer: String,
    /// The rule that was broken.
    pub rule: Rule,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be told.
    pub hint: Option<String>,
    /// The line itself, for display only.
    pub source: Arc<str>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let (source, before) = excerpt(&self.source, self.column as usize, self.width as usize);
        writeln!(f, "error[{}]: {}", self.rule.as_str(), self.message)?;
        writeln!(f, "{gutter}--> {}:{}:{}", printable(&self.file), self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {source}")?;
        let room = source.chars().count().saturating_sub(before).max(1);
        let marker = "^".repeat((self.width as usize).clamp(1, room));
        write!(f, "{gutter} | {}{marker}", " ".repeat(before))?;
        if let Some(hint) = &self.hint {
            write!(f, " {hint}")?;
        }
        Ok(())
    }
}

/// The part of `line` around `column` (from 1), and how many characters of it stand before the column.
fn excerpt(line: &str, column: usize, width: usize) -> (String, usize) {
    let line = printable(line.trim_end());
    let length = line.chars().count();
    let before = column.saturating_sub(1).min(length);
    if length <= LINE_CHARS_MAX {
        return (line, before);
    }
    let lead = LINE_CHARS_MAX.saturating_sub(width.min(LINE_CHARS_MAX / 2)) / 2;
    let start = before.saturating_sub(lead);
    let mut text: String = line.chars().skip(start).take(LINE_CHARS_MAX).collect();
    let mut shift = 0;
    if start > 0 {
        text.insert_str(0, "… ");
        shift = 2;
    }
    if start + LINE_CHARS_MAX < length {
        text.push_str(" …");
    }
    (text, before - start + shift)
}

/// `text` with nothing in it that could steer a terminal: one character for one, so that columns stay.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '"' | '\'' | '\\' => c,
            // What Debug would escape does not print: controls, separators, marks that turn the direction of writing.
            c if c.escape_debug().len() > 1 => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// Problems in the order of their places. Displayed, each has its file, line, column, the line with a marker, and what would be right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    problems: Vec<Diagnostic>,
    /// Found after [`KEPT_MAX`], and only counted.
    more: usize,
}

impl Diagnostics {
    /// Sorts `problems` by place.
    #[must_use]
    pub fn new(problems: Vec<Diagnostic>) -> Self {
        let mut all = Self { problems, more: 0 };
        all.settle();
        all
    }

    /// Adds a problem, if there is room for one.
    pub(super) fn push(&mut self, problem: impl FnOnce() -> Diagnostic) {
        if self.problems.len() < KEPT_MAX {
            self.problems.push(problem());
        } else {
            self.more += 1;
        }
    }

    /// Counts problems that are not kept.
    pub(super) const fn add(&mut self, more: usize) {
        self.more += more;
    }

    fn settle(&mut self) {
        let place = |d: &Diagnostic| (d.file.clone(), d.line, d.column, d.rule, d.message.clone());
        self.problems.sort_by_cached_key(place);
        // What an alias brings in twice is wrong once.
        self.problems.dedup_by(|a, b| place(a) == place(b));
        self.more += self.problems.len().saturating_sub(KEPT_MAX);
        self.problems.truncate(KEPT_MAX);
    }

    /// Takes in the problems of another file.
    pub fn merge(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.more += other.more;
        self.settle();
    }

    /// The problems that are kept, sorted by place.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.problems.iter()
    }

    /// How many problems there are, those not kept included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.problems.len() + self.more
    }

    /// Whether there is no problem.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// `Err(self)` if there is a problem.
    ///
    /// # Errors
    /// The problems themselves.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(SHOWN_MAX) {
            write!(f, "{problem}\n\n")?;
        }
        if self.len() > SHOWN_MAX {
            write!(f, "… and {} more\n\n", self.len() - SHOWN_MAX)?;
        }
        let files: BTreeSet<&str> = self.problems.iter().map(|problem| problem.file.as_str()).collect();
        match files.first() {
            Some(file) if files.len() == 1 => write!(f, "{} in {}", count(self.len(), "problem"), printable(file)),
            _ => write!(f, "{} in {}", count(self.len(), "problem"), count(files.len(), "file")),
        }
    }
}

impl std::error::Error for Diagnostics {}
