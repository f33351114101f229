//! Text in sections, as `describe` prints it: fields with aligned values, and blocks that are indented under a title.

use std::fmt::Write as _;

use super::printable;

/// Spaces that one level is indented by.
const INDENT: usize = 2;

/// Lines in the making.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    text: String,
    depth: usize,
}

impl Sections {
    /// Fields under each other, their values in one column. A value of several lines goes on under its own beginning.
    pub(crate) fn fields<K: AsRef<str>>(&mut self, fields: &[(K, String)]) {
        let width = fields.iter().map(|(key, _)| key.as_ref().chars().count() + 1).max().unwrap_or_default();
        for (key, value) in fields {
            let mut lines = value.lines();
            let key = format!("{}:", key.as_ref());
            self.line(&format!("{key:width$}  {}", lines.next().unwrap_or_default()));
            lines.for_each(|line| self.line(&format!("{:width$}  {line}", "")));
        }
    }

    /// A title, and under it what `body` adds, one level deeper.
    pub(crate) fn block(&mut self, title: &str, body: impl FnOnce(&mut Self)) {
        self.line(&format!("{title}:"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
    }

    /// The lines of `text` as they stand.
    pub(crate) fn lines(&mut self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    /// The text so far, with its last line feed.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        let line = printable(line);
        // Writing into a string cannot fail.
        writeln!(self.text, "{:indent$}{}", "", line.trim_end(), indent = self.depth * INDENT).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_a_column_and_long_ones_go_on_there() {
        let mut sections = Sections::default();
        sections.fields(&[("Name", "x".to_owned()), ("Message", "first\nsecond \x1b[2J".to_owned())]);
        sections.block("Empty", |s| s.lines("<none>"));
        sections.block("Nested", |s| s.block("deeper", |s| s.fields(&[("A", String::new())])));
        assert_eq!(
            sections.finish(),
            "\
Name:     x
Message:  first
          second \u{fffd}[2J
Empty:
  <none>
Nested:
  deeper:
    A:
"
        );
    }
}
