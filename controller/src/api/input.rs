//! Bodies and parameters of requests, read so that a mistake is told with its place.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use cluster_schemas::api::FieldProblem;
use cluster_schemas::pointer::join;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::ApiError;

/// A JSON body. No content type is taken for JSON; another one is refused, since a form that looks like JSON is a mistake worth telling.
#[derive(Debug)]
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
            let kind = kind.to_str().unwrap_or_default();
            let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
                let detail = format!("the body is {essence:?}, not application/json: say so with the header content-type");
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail));
            }
        }
        let body = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is larger than this path takes")
            }
            _ => ApiError::bad_request(error.body_text()),
        })?;
        read_json(&body).map(Self)
    }
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() { invalid(pointer, &error) } else { no_json(&error) }
    })?;
    reader.end().map_err(|error| no_json(&error))?;
    Ok(read)
}

fn no_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the body is not JSON: {error}"))
}

fn invalid(pointer: String, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    // The place is told better by the pointer than by "at line 1 column 9".
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    ApiError::invalid("the body", vec![FieldProblem { pointer, message, hint: None }])
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => join(&pointer, key),
        Segment::Unknown => pointer,
    })
}

/// Parameters of the query.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let name = error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        });
        let message = error.into_inner().to_string();
        // What is missing or unknown is named in the message only.
        let name = name.or_else(|| message.split('`').nth(1).map(ToOwned::to_owned)).unwrap_or_default();
        ApiError::bad_query(vec![FieldProblem { pointer: format!("?{name}"), message, hint: None }])
    })
}

#[cfg(test)]
mod tests {
    use cluster_schemas::api::{ForceRequest, SwitchoverRequest};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Query {
        #[serde(default)]
        force: bool,
        key: String,
    }

    fn places(error: ApiError) -> Vec<String> {
        error.into_problem().errors.into_iter().map(|e| e.pointer).collect()
    }

    #[test]
    fn a_wrong_field_is_told_by_its_pointer() {
        assert!(read_json::<SwitchoverRequest>(br#"{"epoch": 3}"#).is_ok());
        assert_eq!(places(read_json::<SwitchoverRequest>(br#"{"epoch": "x"}"#).unwrap_err()), ["/epoch"]);
        assert_eq!(places(read_json::<std::collections::BTreeMap<String, Vec<u8>>>(br#"{"a/b": [1, "x"]}"#).unwrap_err()), ["/a~1b/1"]);
        let error = read_json::<ForceRequest>(b"{").unwrap_err();
        assert!(error.detail().starts_with("the body is not JSON"), "{}", error.detail());
        assert!(read_json::<SwitchoverRequest>(br#"{"epoch": 3} x"#).is_err(), "nothing may follow");
    }

    #[test]
    fn a_wrong_parameter_is_told_by_its_name() {
        assert_eq!(read_query::<Query>("key=a%20b&force=true").expect("a good query"), Query { force: true, key: "a b".to_owned() });
        assert_eq!(places(read_query::<Query>("key=a&force=yes").unwrap_err()), ["?force"]);
        assert_eq!(places(read_query::<Query>("force=true").unwrap_err()), ["?key"]);
        assert_eq!(places(read_query::<Query>("key=a&colour=red").unwrap_err()), ["?colour"]);
        assert_eq!(places(read_query::<Query>("key=a&key=b").unwrap_err()), ["?key"]);
    }
}
