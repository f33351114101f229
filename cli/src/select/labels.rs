//! Label selectors: `app=web,tier!=test,zone in (a,b),!legacy`.
//!
//! They are sent along, so that a controller need not answer with everything, and applied once more here: the answer of a controller that
//! does not know them is then right too.

use std::collections::BTreeMap;

use cluster_schemas::selector;
use serde_json::Value;

use super::SelectError;

/// Longest selector, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// What the controllers make of a selector, and as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    text: String,
    read: selector::Selector,
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
        let read = selector::Selector::parse(text).map_err(|error| SelectError(error.to_string()))?;
        Ok(Self { text: text.to_owned(), read })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an object of the API, an App or a node, has such labels.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").or_else(|| object.pointer("/node/labels")).and_then(Value::as_object);
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        self.read.matches(&labels.into_iter().flatten().filter_map(text).collect::<BTreeMap<_, _>>())
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
