//! Parameters of lists and watches.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cluster_schemas::api::FieldProblem;
use cluster_schemas::name::check_name;
use cluster_schemas::selector::Selector;

use super::ApiError;
use super::input::Parameters;

/// Most objects in one answer: the page where no `limit` is given, and the largest `limit`. Of Apps with statuses about 3 MiB.
pub const PAGE_MAX: usize = 1000;
/// Longest parameter, in bytes.
const VALUE_MAX: usize = 4096;
/// Parts a `continue` has, in this order: where the first page stood, and the name that was the last.
const CONTINUE_SEPARATOR: char = '~';

/// What a list or watch was asked for.
#[derive(Debug, Default)]
pub struct ListQuery {
    /// `watch=true`: events instead of a list.
    pub watch: bool,
    /// `resourceVersion`: a watch begins after this.
    pub since: Option<String>,
    /// `atLeast`: answer only when the cache is there.
    pub at_least: Option<String>,
    /// `labelSelector`.
    pub selector: Selector,
    /// `limit`, at most [`PAGE_MAX`].
    pub limit: Option<usize>,
    /// `continue`: where the first page stood, and the last name of the page before.
    pub after: Option<(String, String)>,
}

impl ListQuery {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        let (mut query, mut wrong) = (Self::default(), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in pairs {
            if let Err((message, hint)) = query.take(&name, value, !seen.insert(name.clone())) {
                wrong.push(FieldProblem { pointer: format!("?{name}"), message, hint });
            }
        }
        if query.watch && (query.limit.is_some() || query.after.is_some()) {
            let message = "a watch has no pages".to_owned();
            wrong.push(FieldProblem { pointer: "?watch".to_owned(), message, hint: Some("list with limit, then watch".to_owned()) });
        }
        if !query.watch && query.since.is_some() {
            let message = "only a watch begins after a revision".to_owned();
            let hint = Some("add watch=true, or say atLeast".to_owned());
            wrong.push(FieldProblem { pointer: "?resourceVersion".to_owned(), message, hint });
        }
        if wrong.is_empty() { Ok(query) } else { Err(ApiError::bad_query(wrong)) }
    }

    fn take(&mut self, name: &str, value: String, again: bool) -> Result<(), (String, Option<String>)> {
        let wrong = |message: String| Err((message, None));
        if again {
            return wrong("is given twice".to_owned());
        }
        if value.len() > VALUE_MAX {
            return wrong(format!("is longer than {VALUE_MAX} bytes"));
        }
        match name {
            "watch" => match value.as_str() {
                "true" | "1" => self.watch = true,
                "false" | "0" => self.watch = false,
                _ => return Err((format!("{value:?} is neither true nor false"), None)),
            },
            // Empty means the same as absent, as clients send it that have nothing to say.
            "resourceVersion" => self.since = Some(value).filter(|value| !value.is_empty()),
            "atLeast" => self.at_least = Some(value).filter(|value| !value.is_empty()),
            "labelSelector" => self.selector = Selector::parse(&value).map_err(|error| (error.to_string(), None))?,
            "limit" => match value.parse() {
                Ok(limit @ 1..=PAGE_MAX) => self.limit = Some(limit),
                _ => return wrong(format!("{value:?} is no number from 1 to {PAGE_MAX}")),
            },
            "continue" => match value.split_once(CONTINUE_SEPARATOR) {
                Some((point, name)) if check_name(name).is_ok() => self.after = Some((point.to_owned(), name.to_owned())),
                _ => return wrong("is not what a list gave".to_owned()),
            },
            _ => {
                let known = "known here: watch, resourceVersion, atLeast, labelSelector, limit, continue";
                return Err(("there is no such parameter".to_owned(), Some(known.to_owned())));
            }
        }
        Ok(())
    }

    /// The `continue` of a page.
    pub fn next(point: &str, name: &str) -> String {
        format!("{point}{CONTINUE_SEPARATOR}{name}")
    }
}

/// The parameters that [`ListQuery`] reads, for the document.
pub fn list_parameters(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "properties": {
        "watch": { "type": "boolean", "description": "Server-sent events instead of a list." },
        "resourceVersion": { "type": "string", "description": "A watch begins after this, not with all there is." },
        "atLeast": { "type": "string", "description": "Answer only when this controller has seen this revision (504 after 2 s)." },
        "labelSelector": { "type": "string", "description": "Such as `tier=front,zone in (a, b),!old`; of lists." },
        "limit": { "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "description": "Most objects in one page; of lists." },
        "continue": { "type": "string", "description": "What the page before said." },
    } })
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Parameters(pairs) = Parameters::from_request_parts(parts, state).await?;
        Self::read(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ListQuery, Vec<String>> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ListQuery::read(pairs).map_err(|error| error.into_problem().errors.into_iter().map(|e| e.pointer).collect())
    }

    #[test]
    fn what_lists_and_watches_take() {
        let list = read(&[("limit", "1000"), ("labelSelector", "a=b"), ("continue", "x.1.2~n1"), ("atLeast", "7")]).expect("a good query");
        assert_eq!((list.limit, list.at_least.as_deref()), (Some(1000), Some("7")));
        assert_eq!(list.after, Some(("x.1.2".to_owned(), "n1".to_owned())));
        assert_eq!(ListQuery::next("x.1.2", "n1"), "x.1.2~n1");
        let watch = read(&[("watch", "true"), ("resourceVersion", "x.1.2")]).expect("a good query");
        assert!(watch.watch && watch.since.is_some());
        assert!(read(&[("watch", "1"), ("resourceVersion", "")]).expect("a good query").since.is_none());
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let wrong = read(&[("limit", "0"), ("watch", "yes"), ("labelSelector", "="), ("colour", "red"), ("continue", "x")]).unwrap_err();
        assert_eq!(wrong, ["?limit", "?watch", "?labelSelector", "?colour", "?continue"]);
        assert_eq!(read(&[("limit", "1001")]).unwrap_err(), ["?limit"]);
        assert_eq!(read(&[("watch", "true"), ("limit", "1")]).unwrap_err(), ["?watch"]);
        assert_eq!(read(&[("resourceVersion", "1")]).unwrap_err(), ["?resourceVersion"]);
        assert_eq!(read(&[("limit", "1"), ("limit", "1")]).unwrap_err(), ["?limit"]);
    }
}
