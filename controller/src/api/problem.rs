//! Errors of the API, as RFC 9457 shapes them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cluster_bus::KvError;
use cluster_schemas::access::Role;
use cluster_schemas::api::{FieldProblem, Problem};

use super::audit::Refusal;

/// An error on its way to the user.
#[derive(Debug)]
pub struct ApiError(Problem);

impl ApiError {
    /// An error of any status; `kind` is the word that programs go by.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self(Problem {
            kind: kind.to_owned(),
            title: status.canonical_reason().unwrap_or("error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        })
    }

    /// The body or a parameter cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// Parameters of the query are wrong, each with its name (`?limit`) as the pointer.
    pub fn bad_query(errors: Vec<FieldProblem>) -> Self {
        let list = errors.iter().map(|e| format!("{}: {}", e.pointer, e.message)).collect::<Vec<_>>().join("; ");
        let mut error = Self::bad_request(format!("the query is not valid: {list}"));
        error.0.errors = errors;
        error
    }

    /// What the request goes on from is not known any more.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// This controller has not seen yet what the request goes on from.
    pub fn behind(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "behind", detail)
    }

    /// As it goes into an event of a watch.
    pub fn into_problem(self) -> Problem {
        self.0
    }

    /// The object breaks rules.
    pub fn invalid(what: &str, errors: Vec<FieldProblem>) -> Self {
        let list = errors.iter().map(|e| format!("{}: {}", e.pointer, e.message)).collect::<Vec<_>>().join("; ");
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{what} is not valid: {list}"));
        error.0.errors = errors;
        error
    }

    /// No such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// Another write came between, or the state of things forbids it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// The state of things forbids it, in the places named.
    pub fn conflict_at(detail: impl Into<String>, errors: Vec<FieldProblem>) -> Self {
        let mut error = Self::conflict(detail);
        error.0.errors = errors;
        error
    }

    /// Whether it is worth to try again, here or elsewhere.
    pub fn is_unavailable(&self) -> bool {
        self.0.status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }

    /// The same, while it is on its way.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the user reads.
    pub fn into_detail(self) -> String {
        self.0.detail
    }

    /// Try again, here or elsewhere.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// The token is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "send the token of this cluster as `Authorization: Bearer TOKEN`")
    }

    /// The role is too small.
    pub fn forbidden(name: &str, has: Option<Role>, least: Role) -> Self {
        let has = has.map_or("no role (a certificate names one as its organization)", Role::as_str);
        let detail = format!("{name} has {}{has}, this needs {}", if has.starts_with("no ") { "" } else { "the role " }, least.as_str());
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The path is right, the method is not.
    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take that method")
    }
}

/// Largest text of a framework's own refusal that is passed on, in bytes.
const TEXT_MAX: usize = 4096;

/// Gives the framework's own refusals (a path that is no UTF-8, a body that breaks off) the shape of all others.
pub async fn shaped(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !(status.is_client_error() || status.is_server_error()) || kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"text/plain")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, TEXT_MAX).await.unwrap_or_default();
    let kind = match status {
        StatusCode::BAD_REQUEST => "bad-request",
        StatusCode::NOT_FOUND => "not-found",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "refused",
    };
    let mut shaped = ApiError::new(status, kind, String::from_utf8_lossy(&text).trim_end().to_owned()).into_response();
    for (name, value) in &parts.headers {
        if !shaped.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Conflict { .. } => Self::conflict(error.to_string()),
            KvError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", error.to_string()),
            KvError::Unavailable { .. } => Self::unavailable(error.to_string()),
            KvError::Encoding { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let why = Refusal(self.0.detail.clone());
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.extensions_mut().insert(why);
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
