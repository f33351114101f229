//! kubectl's `-o custom-columns=NAME:.metadata.name,...`.

use serde_json::Value;

use super::SelectError;
use super::path::{self, Path};
use crate::output::NONE;
use crate::output::table::Table;

/// Most columns.
const COLUMNS_MAX: usize = 64;

/// Columns, each with its header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Columns(Vec<(String, Path)>);

impl Columns {
    /// Reads `HEADER:PATH,HEADER:PATH`.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectError> {
        let mut columns = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                return Err(SelectError("a column is missing, columns are written like NAME:.metadata.name,MODE:.spec.mode".to_owned()));
            }
            let Some((header, path)) = part.split_once(':').filter(|(header, path)| !header.is_empty() && !path.is_empty()) else {
                return Err(SelectError(format!("{part:?} is no column, columns are written like NAME:.metadata.name")));
            };
            columns.push((header.to_owned(), Path::relaxed(path)?));
        }
        if columns.len() > COLUMNS_MAX {
            return Err(SelectError(format!("{} columns are given, at most {COLUMNS_MAX} are shown", columns.len())));
        }
        Ok(Self(columns))
    }

    /// One row for each of `items`.
    pub(crate) fn table(&self, items: &[Value]) -> Table {
        let headers: Vec<&str> = self.0.iter().map(|(header, _)| header.as_str()).collect();
        let mut table = Table::new(&headers);
        for item in items {
            table.row(self.0.iter().map(|(_, path)| cell(&path.all(item))).collect());
        }
        table
    }
}

fn cell(values: &[&Value]) -> String {
    if values.is_empty() { NONE.to_owned() } else { values.iter().copied().map(path::text).collect::<Vec<_>>().join(",") }
}

/// Splits at commas that stand in no brackets and no quotation marks.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0i32, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth -= 1,
            (None, ',') if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_of_paths() {
        let columns = Columns::parse("NAME:.metadata.name,NODES:{.status.instances[*].node},R:.c[?(@.type=='a,b')].s").unwrap();
        let items = [
            json!({"metadata": {"name": "db"}, "status": {"instances": [{"node": "n1"}, {"node": "n2"}]}, "c": [{"type": "a,b", "s": true}]}),
            json!({"metadata": {"name": "x"}}),
        ];
        assert_eq!(columns.table(&items).render(false), "NAME   NODES    R\ndb     n1,n2    true\nx      <none>   <none>\n");
    }

    #[test]
    fn nonsense_is_told() {
        for (text, part) in [
            ("", "is missing"),
            ("NAME", "is no column"),
            ("NAME:", "is no column"),
            (":.a", "is no column"),
            ("A:.a,", "is missing"),
            ("A:.a[", "not closed"),
        ] {
            let error = Columns::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
