//! What people see: pure functions from objects to text.

pub(crate) mod age;
pub(crate) mod apps;
pub(crate) mod assignments;
pub(crate) mod databases;
pub(crate) mod describe_app;
pub(crate) mod describe_node;
pub(crate) mod document;
pub(crate) mod nodes;
pub(crate) mod paint;
pub(crate) mod plan;
pub(crate) mod rings;
pub(crate) mod sections;
pub(crate) mod table;

use cluster_schemas::PartitionSet;
use cluster_schemas::assignment::Reason;

/// What stands where a list or value is empty, as kubectl writes it.
pub(crate) const NONE: &str = "<none>";
/// What stands where a value is not known, as kubectl writes it.
pub(crate) const UNKNOWN: &str = "<unknown>";

/// `items` joined by `separator`, or [`NONE`].
pub(crate) fn joined<T: AsRef<str>>(items: &[T], separator: &str) -> String {
    if items.is_empty() { NONE.to_owned() } else { items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(separator) }
}

/// The first `max` of `names`, and how many more there are: `n1,n2,n3,+2`.
pub(crate) fn shortened(names: &[&str], max: usize) -> String {
    if names.len() <= max {
        return joined(names, ",");
    }
    format!("{},+{}", names.get(..max).unwrap_or_default().join(","), names.len() - max)
}

/// `text`, at most `max` characters of it.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `text` with nothing in it that could steer a terminal: controllers pass on log lines of any program.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// How many partitions, and which.
pub(crate) fn partitions(set: &PartitionSet) -> String {
    match set.len() {
        0 => "0".to_owned(),
        count => format!("{count} ({set})"),
    }
}

/// Why something was placed so: the sentence, and the rule.
pub(crate) fn reason(reason: &Reason) -> String {
    if reason.message.is_empty() { format!("{:?}", reason.code) } else { format!("{} ({:?})", reason.message, reason.code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_counted_and_long_texts_cut() {
        assert_eq!(shortened(&["a", "b", "c"], 3), "a,b,c");
        assert_eq!(shortened(&["a", "b", "c", "d", "e"], 3), "a,b,c,+2");
        assert_eq!(shortened(&[], 3), "<none>");
        assert_eq!(cut("schlüssel", 9), "schlüssel");
        assert_eq!(cut("schlüssel", 6), "schlü…");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\tb\x1b[31mc\u{9b}d\r"), "a b\u{fffd}[31mc\u{fffd}d\u{fffd}");
    }
}
