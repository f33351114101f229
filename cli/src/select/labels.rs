//! Label selectors: `app=web,tier!=test,zone in (a,b),!legacy`.
//!
//! They are sent along, so that a controller need not answer with everything, and applied once more here: the answer of a controller that
//! does not know them is then right too.

use serde_json::Value;

use super::SelectError;

/// Longest selector, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    /// Objects without the label too, as with kubectl.
    NotIn(String, Vec<String>),
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectError> {
        if text.trim().is_empty() {
            return Err(SelectError("the selector is empty, it is written like tier=web,zone in (a,b)".to_owned()));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(SelectError(format!("the selector is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let mut terms = Vec::new();
        let (mut start, mut depth) = (0, 0i32);
        for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 || at == text.len() => {
                    terms.push(term(text[start..at].trim())?);
                    start = at + 1;
                }
                _ => {}
            }
        }
        Ok(Self { text: text.to_owned(), terms })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an object of the API, an App or a node, has such labels.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").or_else(|| object.pointer("/node/labels"));
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.terms.iter().all(|term| match term {
            Term::Exists(key) => label(key).is_some(),
            Term::Absent(key) => label(key).is_none(),
            Term::In(key, values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Term::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|v| v != value)),
        })
    }
}

fn term(text: &str) -> Result<Term, SelectError> {
    let key = |key: &str| {
        let key = key.trim();
        let good = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if good {
            Ok(key.to_owned())
        } else {
            Err(SelectError(format!("{text:?} is no part of a selector: {key:?} is no name of a label")))
        }
    };
    let value = |value: &str| {
        let value = value.trim();
        if value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            Ok(value.to_owned())
        } else {
            Err(SelectError(format!("{text:?} is no part of a selector: {value:?} is no value of a label")))
        }
    };
    if let Some((left, right)) = text.split_once("!=") {
        return Ok(Term::NotIn(key(left)?, vec![value(right)?]));
    }
    if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Term::In(key(left)?, vec![value(right)?]));
    }
    if let Some(list) = text.strip_suffix(')')
        && let Some((left, list)) = list.split_once('(')
    {
        let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let words: Vec<&str> = left.split_whitespace().collect();
        return match words.as_slice() {
            [name, "in"] => Ok(Term::In(key(name)?, values)),
            [name, "notin"] => Ok(Term::NotIn(key(name)?, values)),
            _ => Err(SelectError(format!("{text:?} is no part of a selector: sets are written like zone in (a,b) and zone notin (a,b)"))),
        };
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Term::Absent(key(name)?)),
        None => Ok(Term::Exists(key(text)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_kubectl() {
        let app = json!({"metadata": {"labels": {"tier": "web", "zone": "a", "example.org/x": ""}}});
        let node = json!({"node": {"labels": {"zone": "b"}}});
        for (text, of_app, of_node) in [
            ("tier=web", true, false),
            ("tier==web", true, false),
            ("tier = web , zone=a", true, false),
            ("tier!=web", false, true),
            ("zone in (a,c)", true, false),
            ("zone in (a, b),tier", true, false),
            ("zone notin (a)", false, true),
            ("tier", true, false),
            ("!tier", false, true),
            ("example.org/x=", true, false),
        ] {
            let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((selector.matches(&app), selector.matches(&node)), (of_app, of_node), "{text}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["", " ", "=a", "a=b,", "a b", "a in b", "a within (b)", "a=b c", "a in (b", "!", "a=(b)", "tier>3"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
