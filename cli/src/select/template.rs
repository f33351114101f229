//! kubectl's `-o jsonpath=TEMPLATE`: text, `{path}`, `{"text"}`, and `{range path}...{end}`.

use serde_json::Value;

use super::SelectError;
use super::path::{self, Path, TEXT_BYTES_MAX};

/// Deepest ranges within ranges.
const DEPTH_MAX: usize = 16;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// Printed as it is.
    Text(String),
    /// All values, a space between two.
    Path(Path),
    /// Its parts once for each value.
    Range(Path, Vec<Part>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectError> {
        if text.trim().is_empty() {
            return Err(SelectError("the template is empty, it is written like jsonpath='{.metadata.name}'".to_owned()));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(SelectError(format!("the template is longer than {TEXT_BYTES_MAX} bytes")));
        }
        if !text.contains('{') && text.starts_with(['.', '$', '[']) {
            // A bare path: with kubectl it would print itself, which nobody wants.
            return Ok(Self { parts: vec![Part::Path(Path::relaxed(text)?)] });
        }
        let mut rest = text;
        let parts = parts(&mut rest, 0)?;
        Ok(Self { parts })
    }

    /// The text that the template makes of `value`.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render(&self.parts, value, &mut text);
        text
    }
}

fn render(parts: &[Part], value: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => text.push_str(&path.all(value).into_iter().map(path::text).collect::<Vec<_>>().join(" ")),
            Part::Range(path, inner) => path.all(value).into_iter().for_each(|value| render(inner, value, text)),
        }
    }
}

/// Reads parts until the end of `rest`, or of the range that they stand in.
fn parts(rest: &mut &str, depth: usize) -> Result<Vec<Part>, SelectError> {
    if depth > DEPTH_MAX {
        return Err(SelectError(format!("more than {DEPTH_MAX} ranges within each other")));
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (literal, after) = rest.split_once('{').map_or((*rest, None), |(literal, after)| (literal, Some(after)));
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
        let Some(after) = after else {
            *rest = "";
            break;
        };
        let (inner, after) = braces(after)?;
        *rest = after;
        let inner = inner.trim();
        if inner == "end" {
            return if depth > 0 { Ok(parts) } else { Err(SelectError("{end} without {range}".to_owned())) };
        }
        if let Some(path) =
            inner.strip_prefix("range ").or_else(|| inner.strip_prefix("range").filter(|path| path.starts_with(['.', '[', '@'])))
        {
            let path = Path::strict(path.trim())?;
            parts.push(Part::Range(path, self::parts(rest, depth + 1)?));
        } else if inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(unquote(inner)?));
        } else if inner.starts_with(['.', '$', '[', '@']) {
            parts.push(Part::Path(Path::strict(inner)?));
        } else {
            return Err(SelectError(format!("{{{inner}}} makes no sense: a path begins with a dot, text stands in quotation marks")));
        }
    }
    if depth > 0 {
        return Err(SelectError("a {range} has no {end}".to_owned()));
    }
    Ok(parts)
}

/// What stands before the closing brace, and what follows it.
fn braces(text: &str) -> Result<(&str, &str), SelectError> {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '}' => return Ok((&text[..at], &text[at + 1..])),
            '"' | '\'' => {
                let end =
                    path::closing(&text[at + 1..], c).ok_or_else(|| SelectError(format!("the quotation mark {c} has no other one")))?;
                at += end + 2;
            }
            '\\' => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            c => at += c.len_utf8(),
        }
    }
    Err(SelectError("a brace { is not closed".to_owned()))
}

/// `"a\tb\n"` without its quotation marks, escapes resolved.
fn unquote(text: &str) -> Result<String, SelectError> {
    let inner = text
        .strip_prefix(['"', '\''])
        .and_then(|t| t.strip_suffix(['"', '\'']))
        .ok_or_else(|| SelectError(format!("{text} is not closed")))?;
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn apps() -> Value {
        json!({"items": [
            {"metadata": {"name": "api", "generation": 2}, "status": {"instances": [{"node": "n1"}, {"node": "n2"}]}},
            {"metadata": {"name": "db", "generation": 10}, "status": {"instances": []}},
        ]})
    }

    fn rendered(template: &str) -> String {
        Template::parse(template).unwrap_or_else(|e| panic!("{template}: {e}")).render(&apps())
    }

    #[test]
    fn templates_of_kubectl() {
        for (template, text) in [
            ("{.items[*].metadata.name}", "api db"),
            (".items[*].metadata.name", "api db"),
            ("names: {.items[*].metadata.name}!", "names: api db!"),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{.metadata.generation}{"\n"}{end}"#, "api\t2\ndb\t10\n"),
            (r"{range .items[*]}{.metadata.name}:{range .status.instances[*]}{' '}{.node}{end};{end}", "api: n1 n2;db:;"),
            (r#"{.items[?(@.metadata.name=="db")].metadata.generation}"#, "10"),
            (r"{.items[0]['metadata']['name']}", "api"),
            ("{.items[0].metadata}", r#"{"generation":2,"name":"api"}"#),
            ("{.items[0].nothing}", ""),
            ("{'{'}{@.items[1].metadata.name}{'}'}", "{db}"),
            ("{$.items[1].metadata.name}", "db"),
            ("{.items[0].status.instances[*].node}", "n1 n2"),
            ("just text", "just text"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for (template, part) in [
            ("", "empty"),
            ("{.items", "not closed"),
            ("{range .items[*]}{.x}", "has no {end}"),
            ("{end}", "without {range}"),
            ("{items}", "begins with a dot"),
            ("{'x}", "has no other one"),
            ("{.a[}", "not closed"),
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.contains(part), "{template}: {error}");
        }
        let deep = "{range .a}".repeat(DEPTH_MAX + 2);
        assert!(Template::parse(&deep).unwrap_err().to_string().contains("within each other"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[{}.a\\[\\]'\"*?@()=\\\\ $0-9:,é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                template.render(&apps());
            }
        }
    }
}
