//! Colours of the words of STATUS: only on a terminal, and not where `NO_COLOR` is set (no-color.org) or the terminal is dumb.

use super::printable;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Whether to colour what goes to stdout.
pub(crate) fn wanted(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// The colour of a status; words with a comma, as `Ready,Cordoned`, by their worst one.
fn colour(status: &str) -> &'static str {
    let of = |word: &str| match word {
        "Ready" | "Running" | "Witness" => 0,
        "NotReady" | "NoQuorum" | "Conflict" | "LostItsMemory" | "Failed" | "Warning" => 2,
        _ => 1,
    };
    match status.split(',').map(of).max() {
        Some(0) | None => GREEN,
        Some(1) => YELLOW,
        Some(_) => RED,
    }
}

/// `line`, a printed row of `cells`, with the cell `column` coloured.
pub(crate) fn cell(line: &str, cells: &[String], column: usize) -> String {
    let Some(word) = cells.get(column).map(|cell| printable(cell)).filter(|cell| !cell.trim().is_empty()) else { return line.to_owned() };
    let mut at = 0;
    for before in cells.iter().take(column) {
        at += printable(before).len();
        at += line.get(at..).map_or(0, |rest| rest.len() - rest.trim_start_matches(' ').len());
    }
    match line.get(at..).and_then(|rest| rest.strip_prefix(word.as_str())) {
        Some(rest) => format!("{}{}{word}{RESET}{rest}", line.get(..at).unwrap_or_default(), colour(&word)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Table;

    #[test]
    fn only_the_status_is_coloured() {
        let mut table = Table::new(&["NAME", "STATUS", "AGE"]);
        table.row(vec!["Ready".to_owned(), "Ready".to_owned(), "5m".to_owned()]);
        table.row(vec!["größe".to_owned(), "Ready,Cordoned".to_owned(), "5m".to_owned()]);
        table.row(vec!["x".to_owned(), "NotReady".to_owned(), "5m".to_owned()]);
        assert_eq!(
            table.render_in(true, false),
            "NAME    STATUS           AGE\n\
             Ready   \x1b[32mReady\x1b[0m            5m\n\
             größe   \x1b[33mReady,Cordoned\x1b[0m   5m\n\
             x       \x1b[31mNotReady\x1b[0m         5m\n"
        );
        assert_eq!(table.render_in(false, true), table.render(true));
        let mut bare = Table::new(&["NAME"]);
        bare.row(vec!["Ready".to_owned()]);
        assert_eq!(bare.render_in(true, false), bare.render(false));
    }
}
