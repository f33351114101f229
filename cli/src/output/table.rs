//! Tables as kubectl prints them: upper-case headers, three spaces between columns, no lines.

use comfy_table::{Cell, ContentArrangement, Table as Grid, presets};

use super::{paint, printable};

/// Spaces between columns.
const GAP: u16 = 3;

/// Rows under headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self { headers: headers.iter().map(|header| (*header).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are headers.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headers.len(), "one cell per header");
        self.rows.push(cells);
    }

    /// The same with the words of the column STATUS coloured, where `colour` is wanted.
    pub(crate) fn render_in(&self, colour: bool, no_headers: bool) -> String {
        let text = self.render(no_headers);
        let Some(column) = self.headers.iter().position(|header| header == "STATUS").filter(|_| colour) else { return text };
        let header = usize::from(!no_headers);
        let line = |(at, line): (usize, &str)| match at.checked_sub(header).and_then(|row| self.rows.get(row)) {
            Some(row) => format!("{}\n", paint::cell(line, row, column)),
            None => format!("{line}\n"),
        };
        text.lines().enumerate().map(line).collect()
    }

    /// The table as text, each line with its line feed. Without rows it is empty.
    pub(crate) fn render(&self, no_headers: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !no_headers {
            grid.set_header(self.headers.iter().map(Cell::new));
        }
        grid.add_rows(self.rows.iter().map(|row| row.iter().map(|cell| Cell::new(printable(cell))).collect::<Vec<_>>()));
        grid.column_iter_mut().for_each(|column| {
            column.set_padding((0, GAP));
        });
        grid.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_lines_end_where_their_text_does() {
        let mut table = Table::new(&["NAME", "STATUS", "AGE"]);
        table.row(vec!["database".to_owned(), "Ready".to_owned(), "5m".to_owned()]);
        table.row(vec!["größe".to_owned(), "a\nb".to_owned(), String::new()]);
        assert_eq!(
            table.render(false),
            "NAME       STATUS   AGE\n\
             database   Ready    5m\n\
             größe      a\u{fffd}b\n"
        );
        assert_eq!(table.render(true).lines().next(), Some("database   Ready   5m"));
        assert_eq!(Table::new(&["NAME"]).render(false), "");
    }

    #[test]
    fn ten_thousand_rows_are_no_trouble() {
        let mut table = Table::new(&["NAME", "STATUS"]);
        (0..10_000).for_each(|n| table.row(vec![format!("app-{n}"), "Ready".to_owned()]));
        assert_eq!(table.render(false).lines().count(), 10_001);
    }
}
