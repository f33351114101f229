//! Label selectors, as kubectl writes them: `app=web,tier!=cache,zone in (a,b),zone notin (c),owner,!draft`.

use std::collections::{BTreeMap, BTreeSet};

/// Most requirements in one selector.
pub const REQUIREMENTS_MAX: usize = 32;

/// Requirements that must all be met; none of them is met by everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    /// `key`: the label is there.
    Exists(String),
    /// `!key`: it is not.
    Absent(String),
    /// `key=value`, `key in (a,b)`: it has one of these values.
    In(String, BTreeSet<String>),
    /// `key!=value`, `key notin (a,b)`: it has none of these values, or is not there.
    NotIn(String, BTreeSet<String>),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A requirement without the name of a label.
    #[error("{0:?} names no label")]
    NoKey(String),
    /// Something that is no requirement.
    #[error("{0:?} is no requirement: write key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)")]
    Requirement(String),
    /// A list of values that does not end.
    #[error("{0:?} has a ( without a )")]
    Open(String),
    /// Too many of them.
    #[error("a selector has at most {REQUIREMENTS_MAX} requirements")]
    TooMany,
}

impl Selector {
    /// Reads a selector. An empty text selects everything.
    ///
    /// # Errors
    /// The first part that is no requirement.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split(text)? {
            if requirements.len() == REQUIREMENTS_MAX {
                return Err(SelectorError::TooMany);
            }
            requirements.push(requirement(part.trim())?);
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `labels` meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }
}

/// The parts between commas that stand in no parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut parts, mut start, mut open) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' => open = true,
            ')' => open = false,
            ',' if !open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(SelectorError::Open(text[start..].to_owned()));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or_else(|| SelectorError::Requirement(part.to_owned()))?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(label(key, part)?, values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(label(key, part)?, values)),
            _ => Err(SelectorError::Requirement(part.to_owned())),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(label(key, part)?, value_of(value, part)?));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(label(key, part)?, value_of(value, part)?));
    }
    match part.strip_prefix('!') {
        Some(key) => label(key, part).map(Requirement::Absent),
        None => label(part, part).map(Requirement::Exists),
    }
}

fn value_of(value: &str, part: &str) -> Result<BTreeSet<String>, SelectorError> {
    let value = value.trim();
    if value.contains(['=', '!', '(', ')']) || value.contains(char::is_whitespace) {
        return Err(SelectorError::Requirement(part.to_owned()));
    }
    Ok(BTreeSet::from([value.to_owned()]))
}

fn label(key: &str, part: &str) -> Result<String, SelectorError> {
    let key = key.trim();
    if key.is_empty() {
        return Err(SelectorError::NoKey(part.to_owned()));
    }
    if !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) {
        return Err(SelectorError::Requirement(part.to_owned()));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Selector::parse(selector).expect(selector).matches(&labels)
    }

    #[test]
    fn each_form_selects_what_kubectl_would() {
        let web = [("app", "web"), ("zone", "a")];
        for selector in [
            "",
            " ",
            "app=web",
            "app==web",
            "app = web",
            "tier!=cache",
            "app!=db",
            "zone in (a,b)",
            "zone in ( b , a )",
            "zone notin (b)",
            "tier notin (x)",
            "app",
            "!tier",
            "app=web,zone in (a,b),!tier",
        ] {
            assert!(selects(selector, &web), "{selector}");
        }
        for selector in ["app=db", "app!=web", "zone in (b)", "zone notin (a,b)", "tier", "!app", "app=web,tier", "app="] {
            assert!(!selects(selector, &web), "{selector}");
        }
        assert!(selects("app=", &[("app", "")]), "an empty value is a value");
    }

    #[test]
    fn what_is_none_is_told() {
        for (text, why) in [
            ("=x", "names no label"),
            ("a,,b", "names no label"),
            ("a b", "no requirement"),
            ("a in b", "no requirement"),
            ("a in (b", "without a )"),
            ("a of (b)", "no requirement"),
            ("a=b=c", "no requirement"),
            ("a>3", "no requirement"),
            ("!", "names no label"),
        ] {
            let error = Selector::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(Selector::parse(&["a"; 33].join(",")), Err(SelectorError::TooMany));
    }
}
