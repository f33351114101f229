//! Problems of manifests with the place where each was written, shown the way compilers do.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::rule::Rule;

/// Most problems that are shown; the rest is counted.
pub const SHOWN_MAX: usize = 100;

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
    pub source: String,
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
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts `problems` by place.
    #[must_use]
    pub fn new(mut problems: Vec<Diagnostic>) -> Self {
        let place = |d: &Diagnostic| (d.file.clone(), d.line, d.column, d.rule, d.message.clone());
        problems.sort_by_cached_key(place);
        // What an alias brings in twice is wrong once.
        problems.dedup_by(|a, b| place(a) == place(b));
        Self(problems)
    }

    /// Takes in the problems of another file.
    pub fn merge(&mut self, other: Self) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(other.0);
        *self = Self::new(all);
    }

    /// The problems, sorted by place.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many problems there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no problem.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        for problem in self.0.iter().take(SHOWN_MAX) {
            write!(f, "{problem}\n\n")?;
        }
        if self.0.len() > SHOWN_MAX {
            write!(f, "… and {} more\n\n", self.0.len() - SHOWN_MAX)?;
        }
        let mut files: BTreeMap<&str, usize> = BTreeMap::new();
        for problem in &self.0 {
            *files.entry(&problem.file).or_default() += 1;
        }
        let mut summary = String::new();
        write!(summary, "{}", count(self.0.len(), "problem"))?;
        match files.keys().next() {
            Some(file) if files.len() == 1 => write!(summary, " in {}", printable(file))?,
            _ => write!(summary, " in {}", count(files.len(), "file"))?,
        }
        f.write_str(&summary)
    }
}

impl std::error::Error for Diagnostics {}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
