//! What the tour prints: steps, what was seen, how long it took, a summary.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// Text ends here; times stand right-aligned behind it.
const TEXT_WIDTH: usize = 84;
/// Where text begins below the heading of a step.
const INDENT: &str = "    ";
/// Beyond these a step's output is cut: a failure shall be readable as a whole.
const OUTPUT_LINES_MAX: usize = 40;

/// A plain-text record of a run. Nothing of it depends on colours, fonts or the width of a terminal.
#[derive(Debug)]
pub struct Paper<W> {
    out: W,
    steps: usize,
    summary: Vec<(String, String, String)>,
}

impl Paper<io::Stdout> {
    /// On standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Paper<W> {
    /// On any writer. A reader that has gone away ends nothing: the exit code still counts.
    pub fn new(out: W) -> Self {
        Self { out, steps: 0, summary: Vec::new() }
    }

    fn line(&mut self, text: &str) {
        let _gone = writeln!(self.out, "{}", text.trim_end());
        let _gone = self.out.flush();
    }

    /// The first line.
    pub fn title(&mut self, text: &str) {
        self.line(text);
        self.line(&"=".repeat(text.chars().count()));
    }

    /// The heading of the next step.
    pub fn step(&mut self, text: &str) {
        self.steps += 1;
        self.line("");
        self.line(&format!("{:2}  {text}", self.steps));
    }

    /// Something to know about the step, broken into lines.
    pub fn note(&mut self, text: &str) {
        for line in wrapped(text, TEXT_WIDTH - INDENT.len()) {
            self.line(&format!("{INDENT}{line}"));
        }
    }

    /// A command and what it printed.
    pub fn ran(&mut self, command: &str, output: &str) {
        self.line(&format!("{INDENT}$ {command}"));
        let lines: Vec<&str> = output.trim_end().lines().collect();
        for line in lines.iter().take(OUTPUT_LINES_MAX) {
            self.line(&format!("{INDENT}{line}"));
        }
        if lines.len() > OUTPUT_LINES_MAX {
            self.line(&format!("{INDENT}... {} more lines", lines.len() - OUTPUT_LINES_MAX));
        }
    }

    /// What was seen, and how long it took.
    pub fn seen(&mut self, text: &str, took: Duration) {
        let mut lines = wrapped(text, TEXT_WIDTH - INDENT.len());
        let last = lines.pop().unwrap_or_default();
        for line in lines {
            self.line(&format!("{INDENT}{line}"));
        }
        self.line(&format!("{INDENT}{last:<width$}{:>10}", time(took), width = TEXT_WIDTH - INDENT.len()));
    }

    /// A line of the summary: what was measured, its value, a remark.
    pub fn remember(&mut self, what: &str, value: impl Display, remark: &str) {
        self.summary.push((what.to_owned(), value.to_string(), remark.to_owned()));
    }

    /// All that was remembered.
    pub fn summary(&mut self) {
        let rows = std::mem::take(&mut self.summary);
        let width = |pick: fn(&(String, String, String)) -> &String| rows.iter().map(|row| pick(row).chars().count()).max().unwrap_or(0);
        let (first, second) = (width(|row| &row.0), width(|row| &row.1));
        self.line("");
        self.line("Summary");
        for (what, value, remark) in &rows {
            self.line(&format!("{INDENT}{what:<first$}  {value:>second$}  {remark}"));
        }
    }

    /// The last words of a run that went well.
    pub fn end(&mut self, text: &str) {
        self.line("");
        self.line(text);
    }

    /// A step that did not go as said.
    pub fn failed(&mut self, expected: &str, seen: &str, details: &str) {
        self.line("");
        self.line("FAILED");
        self.field("expected", expected);
        self.field("seen", seen);
        if !details.is_empty() {
            self.line("");
            self.line(details);
        }
    }

    fn field(&mut self, name: &str, text: &str) {
        let mut name = format!("{name}:");
        for line in text.trim_end().lines().take(OUTPUT_LINES_MAX) {
            self.line(&format!("{INDENT}{name:<10}{line}"));
            name.clear();
        }
    }
}

/// `12 ms`, `1.24 s`: three digits are all that two runs have in common.
#[must_use]
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(work: impl FnOnce(&mut Paper<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        work(&mut Paper::new(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_three_digits() {
        let shown: Vec<String> = [4, 999, 1_000, 9_412, 12_345].map(Duration::from_millis).map(time).into();
        assert_eq!(shown, ["4 ms", "999 ms", "1.00 s", "9.41 s", "12.3 s"]);
    }

    #[test]
    fn times_stand_below_each_other_whatever_the_text() {
        let text = printed(|paper| {
            paper.seen("short", Duration::from_millis(7));
            paper.seen(&"word ".repeat(40), Duration::from_secs(70));
        });
        let ends: Vec<usize> = text.lines().filter(|line| line.ends_with('s')).map(str::len).collect();
        assert_eq!(ends, [TEXT_WIDTH + 10; 2], "{text}");
        assert!(text.lines().all(|line| line.len() <= TEXT_WIDTH + 10 && !line.ends_with(' ')), "{text}");
    }

    #[test]
    fn a_failure_says_what_was_expected_and_seen_and_cuts_long_output() {
        let text = printed(|paper| paper.failed("four Ready Apps", &"not Ready\n".repeat(100), "--- n1"));
        assert!(text.contains("expected: four Ready Apps") && text.contains("seen:     not Ready"), "{text}");
        assert_eq!(text.matches("not Ready").count(), OUTPUT_LINES_MAX);
    }
}
