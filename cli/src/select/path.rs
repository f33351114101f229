//! Paths into objects as kubectl writes them, on top of JSONPath (RFC 9535).
//!
//! kubectl's paths need no `$`, take `-` in the names of fields, and escape dots with a backslash (`.metadata.labels.example\.org/zone`).
//! All that is brought into the form of the RFC, which then means what kubectl's means: wildcards, slices, lists, filters, `..`.

use std::cmp::Ordering;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::SelectError;

/// Longest path or template, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 8 * 1024;

/// A path that can be asked for its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    path: JsonPath,
}

impl Path {
    /// Reads `.metadata.name`, `{.metadata.name}`, `metadata.name` or `$.metadata.name`.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn relaxed(text: &str) -> Result<Self, SelectError> {
        let inner = text.trim();
        let inner = match inner.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or_else(|| SelectError(format!("{text:?} has no closing brace")))?,
            None => inner,
        };
        let inner = inner.trim();
        match inner.chars().next() {
            None => Err(SelectError("the path is empty, it is written like .metadata.name".to_owned())),
            Some('.' | '$' | '[' | '@') => Self::strict(inner),
            Some(_) => Self::strict(&format!(".{inner}")),
        }
    }

    /// Reads what stands between the braces of a template.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn strict(text: &str) -> Result<Self, SelectError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SelectError(format!("the path is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let rfc = to_rfc(text)?;
        let path = JsonPath::parse(&rfc).map_err(|error| {
            let at = error.position();
            SelectError(format!(
                "{text:?} is no path: {}{}",
                error.message(),
                if at > 0 { format!(" (at character {at})") } else { String::new() }
            ))
        })?;
        Ok(Self { path })
    }

    /// Everything the path leads to in `value`.
    pub(crate) fn all<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.path.query(value).all()
    }

    /// The first value the path leads to.
    pub(crate) fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.path.query(value).first()
    }
}

/// A value as templates and columns print it: text as it is, anything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Order for `--sort-by`: what is absent first, numbers by size, all else as text, digits within it by the number they are.
pub(crate) fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ordering::Equal,
        (None | Some(Value::Null), _) => Ordering::Less,
        (_, None | Some(Value::Null)) => Ordering::Greater,
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64().unwrap_or(f64::NAN).total_cmp(&b.as_f64().unwrap_or(f64::NAN)),
        (Some(a), Some(b)) => natural(&text(a), &text(b)),
    }
}

/// `n2` before `n10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (a_digits, b_digits) = (digits(left), digits(right));
        if a_digits > 0 && b_digits > 0 {
            let ((a_number, a_rest), (b_number, b_rest)) = (left.split_at(a_digits), right.split_at(b_digits));
            let (a_number, b_number) = (a_number.trim_start_matches('0'), b_number.trim_start_matches('0'));
            match a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number)) {
                Ordering::Equal => (left, right) = (a_rest, b_rest),
                unequal => return unequal,
            }
            continue;
        }
        let (mut a_chars, mut b_chars) = (left.chars(), right.chars());
        match (a_chars.next(), b_chars.next()) {
            (None, None) => return a.cmp(b),
            (a_char, b_char) if a_char == b_char => (left, right) = (a_chars.as_str(), b_chars.as_str()),
            (a_char, b_char) => return a_char.cmp(&b_char),
        }
    }
}

/// kubectl's path as one of the RFC.
fn to_rfc(text: &str) -> Result<String, SelectError> {
    let mut rest = text.trim();
    let mut rfc = String::from("$");
    // `@` outside of a filter is the object itself.
    if let Some(after) = rest.strip_prefix('$').or_else(|| rest.strip_prefix('@')) {
        rest = after;
    }
    segments(&mut rest, &mut rfc, false)?;
    if !rest.is_empty() {
        return Err(SelectError(format!("{text:?} is no path: it makes no sense from {rest:?} on")));
    }
    Ok(rfc)
}

/// Takes `.name`, `..name`, `[...]` from `rest` as long as there are any.
fn segments(rest: &mut &str, rfc: &mut String, in_filter: bool) -> Result<(), SelectError> {
    loop {
        if let Some(after) = rest.strip_prefix('.') {
            let (deep, after) = after.strip_prefix('.').map_or(("", after), |after| ("..", after));
            if let Some(after) = after.strip_prefix('*') {
                rfc.push_str(&format!("{deep}[*]"));
                *rest = after;
            } else if after.starts_with('[') {
                // `.[0]` and `..[0]`
                rfc.push_str(deep);
                *rest = after;
            } else {
                let (name, after) = field(after, in_filter);
                // A dot alone is the object itself.
                if !name.is_empty() {
                    rfc.push_str(&format!("{deep}[{}]", Value::from(name)));
                } else if !deep.is_empty() {
                    return Err(SelectError("a name is missing after ..".to_owned()));
                }
                *rest = after;
            }
        } else if rest.starts_with('[') {
            bracket(rest, rfc)?;
        } else {
            return Ok(());
        }
    }
}

/// The name at the start of `text`, and what follows it.
fn field(text: &str, in_filter: bool) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                if let Some((_, escaped)) = chars.next() {
                    name.push(escaped);
                }
            }
            '.' | '[' => return (name, &text[at..]),
            c if in_filter && !(c.is_alphanumeric() || "_-/".contains(c)) => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Takes `[...]` from `rest`; paths within a filter are brought into the RFC's form too.
fn bracket(rest: &mut &str, rfc: &mut String) -> Result<(), SelectError> {
    let mut depth = 0usize;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' | '"' => {
                let end = closing(after, c).ok_or_else(|| SelectError(format!("the quotation mark {c} has no other one")))?;
                rfc.push_str(&rest[..end + 2]);
                *rest = &after[end + 1..];
                continue;
            }
            '[' => depth += 1,
            ']' => depth -= 1,
            '@' => {
                rfc.push('@');
                *rest = after;
                segments(rest, rfc, true)?;
                continue;
            }
            _ => {}
        }
        rfc.push(c);
        *rest = after;
        if depth == 0 {
            return Ok(());
        }
    }
    Err(SelectError("a bracket [ is not closed".to_owned()))
}

/// Where the quotation that began before `text` ends.
pub(crate) fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(path: &str) -> Vec<String> {
        let value = json!({
            "metadata": {"name": "db", "labels": {"example.org/zone": "a", "on-call": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Degraded", "status": "False", "my-count": 3}]},
        });
        Path::relaxed(path).unwrap_or_else(|e| panic!("{path}: {e}")).all(&value).into_iter().map(text).collect()
    }

    #[test]
    fn paths_of_kubectl_lead_where_they_lead_there() {
        for (path, found) in [
            (".metadata.name", &["db"][..]),
            ("metadata.name", &["db"]),
            ("{.metadata.name}", &["db"]),
            ("$.metadata.name", &["db"]),
            ("['metadata']['name']", &["db"]),
            (".metadata['name']", &["db"]),
            (r".metadata.labels.example\.org/zone", &["a"]),
            (".metadata.labels.on-call", &["x"]),
            (".status.conditions[*].type", &["Ready", "Degraded"]),
            (".status.conditions[-1].type", &["Degraded"]),
            (".status.conditions[0:1].type", &["Ready"]),
            (".status.conditions[0,1].type", &["Ready", "Degraded"]),
            (r#".status.conditions[?(@.type=="Ready")].status"#, &["True"]),
            (".status.conditions[?(@.type!='Ready')].status", &["False"]),
            (".status.conditions[?(@.my-count > 2)].type", &["Degraded"]),
            (".status.conditions[?(@.my-count)].type", &["Degraded"]),
            (
                "..status",
                &[
                    "{\"conditions\":[{\"status\":\"True\",\"type\":\"Ready\"},{\"my-count\":3,\"status\":\"False\",\"type\":\"Degraded\"}]}",
                    "True",
                    "False",
                ],
            ),
            (".metadata.labels.*", &["a", "x"]),
            (".nothing.here", &[]),
        ] {
            assert_eq!(find(path), found, "{path}");
        }
        assert_eq!(find(".").len(), 1, "the object itself");
    }

    #[test]
    fn nonsense_is_told() {
        for (path, part) in [
            ("", "empty"),
            ("{.a", "no closing brace"),
            (".a[0", "not closed"),
            (".a['x]", "has no other one"),
            (".a[?(@.x=]", "no path"),
            ("..", "missing after .."),
        ] {
            let error = Path::relaxed(path).unwrap_err().to_string();
            assert!(error.contains(part), "{path}: {error}");
        }
        assert!(Path::relaxed(&".a".repeat(TEXT_BYTES_MAX)).is_err());
    }

    #[test]
    fn n2_comes_before_n10_and_what_is_absent_first() {
        let mut words = vec![json!("n10"), json!("n2"), json!("a"), json!("n02"), json!("n2b")];
        words.sort_by(|a, b| order(Some(a), Some(b)));
        assert_eq!(words, [json!("a"), json!("n02"), json!("n2"), json!("n2b"), json!("n10")]);
        assert_eq!(order(None, Some(&json!(1))), Ordering::Less);
        assert_eq!(order(Some(&json!(10)), Some(&json!(9))), Ordering::Greater);
    }
}
