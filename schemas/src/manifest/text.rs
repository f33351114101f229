//! Words for messages: quoting what the user wrote, and guessing what was meant.

/// Longest part of a user's text that a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 60;

/// Longest word that a suggestion is sought for, in bytes. The search costs the product of the lengths.
const GUESSED_BYTES_MAX: usize = 64;

/// `text` in backticks, on one line, without anything that could steer a terminal, cut where it is long.
pub(super) fn quote(text: &str) -> String {
    if text.is_empty() {
        return "`\"\"`".to_owned();
    }
    let mut out = String::from("`");
    for (n, c) in text.chars().enumerate() {
        if n == QUOTED_CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out.push('`');
    out
}

/// `words` in backticks with commas, `and` or `or` before the last.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let mut words: Vec<String> = words.into_iter().map(quote).collect();
    match words.pop() {
        Some(end) if words.is_empty() => end,
        Some(end) => format!("{} {last} {end}", words.join(", ")),
        None => String::new(),
    }
}

/// The one of `candidates` that `word` was most likely meant to be, if one is near.
pub(super) fn guess<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > GUESSED_BYTES_MAX {
        return None;
    }
    let plain = |w: &str| w.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect::<String>();
    let meant = plain(word);
    let near = (meant.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&meant, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= near && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The hint for [`guess`].
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    guess(word, candidates).map(|candidate| format!("did you mean {}?", quote(candidate)))
}

/// `article` and `noun` for a count: `1 character`, `2 characters`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_near_or_none() {
        let fields = ["address", "interface", "mode", "vip"];
        assert_eq!(guess("adress", fields), Some("address"));
        assert_eq!(guess("Interface", fields), Some("interface"));
        assert_eq!(guess("inter_face", fields), Some("interface"));
        assert_eq!(guess("vpi", fields), Some("vip"));
        assert_eq!(guess("colour", fields), None);
        assert_eq!(guess("", fields), None);
        assert_eq!(guess(&"x".repeat(1000), fields), None);
    }

    #[test]
    fn quoting_keeps_to_one_short_line() {
        assert_eq!(quote("it's \"x\""), "`it's \"x\"`");
        assert_eq!(quote("a\n\u{1b}[31m\u{202e}"), "`a\\n\\u{1b}[31m\\u{202e}`");
        assert_eq!(quote(""), "`\"\"`");
        assert_eq!(quote(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }
}
