//! The HTTP client: one request, several controllers.
//!
//! Every request of ours may be sent twice: a write says what shall be, not what to change. So each goes to the controllers in turn until
//! one answers; only an answer that says "not now" (502, 503, 504) counts as none. The controller that answered last is asked first next
//! time, so that a dead one costs its [`CONNECT_TIMEOUT`] once.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use cluster_schemas::api::{List, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body};

use crate::config::{Settings, Token};

/// How long a controller may take to accept a connection: a dead machine costs the user no more.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a read may take to be answered: it is served from memory, so a controller that needs longer is frozen.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a write may take: the store elects a leader in up to 8 s when the machine of the old one dies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rounds over all controllers before giving up.
const ROUNDS: u32 = 2;
/// Pause between rounds: long enough for a restarted controller to listen again.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// Largest answer, in bytes. 10,000 Apps with their status take about 30 MiB.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Longest part of an answer that is not ours which is shown, in characters.
const FOREIGN_CHARS_MAX: usize = 200;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No controller answered, or none was able to.
    #[error("no controller answered{}", Attempts(attempts))]
    Unreachable {
        /// Each controller that was tried with the reason of the last try, in the order tried.
        attempts: Vec<Attempt>,
    },
    /// A controller answered with an error.
    #[error("{}", refusal(problem))]
    Refused {
        /// The controller.
        server: String,
        /// What it says.
        problem: Box<Problem>,
    },
    /// A controller's answer is not what it should be.
    #[error("cannot understand the answer of {server} to {request}")]
    Answer {
        /// The controller.
        server: String,
        /// Method and path.
        request: String,
        /// Where it stopped making sense.
        source: serde_json::Error,
    },
    /// The request cannot be written down.
    #[error("cannot make the request {request}: {reason}")]
    Request {
        /// Method and path.
        request: String,
        /// Why.
        reason: String,
    },
}

/// A controller that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its URL.
    pub(crate) server: String,
    /// What happened.
    pub(crate) reason: String,
    /// Whether a controller is there, and says that it cannot answer now.
    pub(crate) alive: bool,
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|Attempt { server, reason, .. }| write!(f, "\n  {server}: {reason}"))
    }
}

fn refusal(problem: &Problem) -> String {
    let what = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
    format!("{what} ({}{}{})", problem.status, if problem.kind.is_empty() { "" } else { " " }, problem.kind)
}

impl ClientError {
    /// Whether the controller says that there is no such object. A 404 of something that is no controller does not count.
    pub(crate) fn is_not_found(&self) -> bool {
        self.problem().is_some_and(|problem| problem.status == StatusCode::NOT_FOUND.as_u16() && !problem.kind.is_empty())
    }

    /// What the controller says, where it refused.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// What to do.
    pub(crate) fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Unreachable { attempts } if attempts.iter().any(|attempt| attempt.alive) => {
                "controllers are there and cannot answer now, mostly because they do not reach NATS; their log says why"
            }
            Self::Unreachable { attempts } if attempts.iter().any(|attempt| attempt.reason.contains("certificate")) => {
                "caFile: in the configuration file names who signed the controllers' certificates; certFile: and keyFile: are one's own"
            }
            Self::Unreachable { .. } => {
                "is a controller running there? Name others with --server, CLUSTERCTL_SERVERS or servers: in the configuration file"
            }
            Self::Answer { .. } => "client and controller may be of different versions: clusterctl version",
            Self::Refused { problem, .. } if problem.status == 401 => {
                "give a token with --token-file, CLUSTERCTL_TOKEN_FILE or tokenFile: in the configuration file"
            }
            Self::Refused { .. } | Self::Request { .. } => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

/// Asks controllers.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    servers: Vec<String>,
    token: Option<Token>,
    budget: Duration,
    /// Index of the server to ask first.
    preferred: Cell<usize>,
}

/// What one server made of a request.
enum Outcome<T> {
    Answer(T),
    Refused(Box<Problem>),
    /// Try another one.
    None {
        reason: String,
        alive: bool,
    },
}

impl Client {
    /// A client for the controllers of `settings`. Nothing is sent yet.
    pub(crate) fn new(settings: Settings) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Controllers do not redirect, and a token must not follow one.
            .max_redirects(0)
            // Controllers are inside the network; the proxy of the environment is for the way out.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("clusterctl/", env!("CARGO_PKG_VERSION")));
        let agent = match settings.tls {
            Some(tls) => agent.tls_config(tls),
            None => agent,
        };
        let agent = agent.build().new_agent();
        Self { agent, servers: settings.servers, token: settings.token, budget: settings.request_timeout, preferred: Cell::new(0) }
    }

    /// The controller that answered last.
    pub(crate) fn server(&self) -> &str {
        self.servers.get(self.preferred.get()).map_or("", String::as_str)
    }

    /// `GET path`, such as `/v1/apps`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_within(path, self.budget)
    }

    /// The same, in no more time than `budget`.
    pub(crate) fn get_within<T: DeserializeOwned>(&self, path: &str, budget: Duration) -> Result<T, ClientError> {
        self.request(&Method::GET, path, None, budget.min(self.budget))
    }

    /// `PUT path` with `body` as JSON.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(&Method::PUT, path, body)
    }

    fn send<T: DeserializeOwned>(&self, method: &Method, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Request { request: format!("{method} {path}"), reason: error.to_string() })?;
        self.request(method, path, Some(&body), self.budget)
    }

    /// `POST path` with `body` as JSON.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(&Method::POST, path, body)
    }

    /// `DELETE path`.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(&Method::DELETE, path, None, self.budget)
    }

    fn request<T: DeserializeOwned>(&self, method: &Method, path: &str, body: Option<&[u8]>, budget: Duration) -> Result<T, ClientError> {
        let end = Instant::now() + budget;
        let bytes = self.try_all(end, |server, left| self.try_one(server, method, path, body, left))?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Answer {
            server: self.server().to_owned(),
            request: format!("{method} {path}"),
            source,
        })
    }

    /// A list that may have several pages, such as `/v1/apps`; a query in `path` must not have `continue`.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<List<T>, ClientError> {
        self.list_within(path, self.budget)
    }

    /// The same, in no more time than `budget`.
    pub(crate) fn list_within<T: DeserializeOwned>(&self, path: &str, budget: Duration) -> Result<List<T>, ClientError> {
        let end = Instant::now() + budget.min(self.budget);
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut list: List<T> = self.get_within(path, budget)?;
        while let Some(next) = list.next.take() {
            let left = end.saturating_duration_since(Instant::now());
            let page: List<T> = self.get_within(&format!("{path}{separator}continue={}", encode(&next)), left)?;
            list.items.extend(page.items);
            list.next = page.next;
        }
        Ok(list)
    }

    /// Opens a stream of events. It lasts for `patience` at most; a controller has `READ_TIMEOUT` to begin it.
    pub(crate) fn open(&self, path: &str, patience: Duration, end: Instant) -> Result<Body, ClientError> {
        self.try_all(end, |server, left| {
            let request = self.head(server, &Method::GET, path, "text/event-stream").body(());
            let request = request.map_err(|error| unfit(&Method::GET, path, &error))?;
            let limits = self.agent.configure_request(request).timeout_recv_response(Some(READ_TIMEOUT.min(left)));
            match self.agent.run(limits.timeout_recv_body(Some(patience)).build()) {
                Ok(response) if response.status().is_success() => Ok(Outcome::Answer(response.into_body())),
                Ok(response) => Ok(refused(response)),
                Err(error) => Ok(Outcome::None { reason: reason(&error), alive: false }),
            }
        })
    }

    fn try_all<T>(&self, end: Instant, try_one: impl Fn(&str, Duration) -> Result<Outcome<T>, ClientError>) -> Result<T, ClientError> {
        let mut attempts: Vec<Attempt> = Vec::new();
        for round in 0..ROUNDS {
            if round > 0 {
                std::thread::sleep(ROUND_PAUSE.min(end.saturating_duration_since(Instant::now())));
            }
            let first = self.preferred.get();
            for index in (0..self.servers.len()).map(|offset| (first + offset) % self.servers.len()) {
                let Some(server) = self.servers.get(index) else { continue };
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    // Those tried already keep their reasons; those that were not are named too.
                    if !attempts.iter().any(|attempt| attempt.server == *server) {
                        let reason = "not tried, the time for the request was over".to_owned();
                        attempts.push(Attempt { server: server.clone(), reason, alive: false });
                    }
                    continue;
                }
                match try_one(server, left)? {
                    Outcome::Answer(answer) => {
                        self.preferred.set(index);
                        return Ok(answer);
                    }
                    Outcome::Refused(problem) => {
                        self.preferred.set(index);
                        return Err(ClientError::Refused { server: server.clone(), problem });
                    }
                    Outcome::None { reason, alive } => {
                        // The last reason of each counts: the first may be that it was just starting.
                        attempts.retain(|attempt| attempt.server != *server);
                        attempts.push(Attempt { server: server.clone(), reason, alive });
                    }
                }
            }
        }
        Err(ClientError::Unreachable { attempts })
    }

    fn head(&self, server: &str, method: &Method, path: &str, accept: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{server}{path}")).header("accept", accept);
        match &self.token {
            Some(token) => request.header("authorization", token.header()),
            None => request,
        }
    }

    /// Sends the request to one server.
    fn try_one(
        &self,
        server: &str,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        left: Duration,
    ) -> Result<Outcome<Vec<u8>>, ClientError> {
        let request = self.head(server, method, path, "application/json");
        let bad = |error: ureq::http::Error| unfit(method, path, &error);
        let patience = if *method == Method::GET { READ_TIMEOUT } else { WRITE_TIMEOUT };
        let answer = match body {
            Some(bytes) => {
                let request = request.header("content-type", "application/json").body(bytes).map_err(bad)?;
                self.agent
                    .run(self.agent.configure_request(request).timeout_recv_response(Some(patience)).timeout_global(Some(left)).build())
            }
            None => {
                let request = request.body(()).map_err(bad)?;
                self.agent
                    .run(self.agent.configure_request(request).timeout_recv_response(Some(patience)).timeout_global(Some(left)).build())
            }
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => return Ok(Outcome::None { reason: reason(&error), alive: false }),
        };
        if !response.status().is_success() {
            return Ok(refused(response));
        }
        Ok(match response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec() {
            Ok(bytes) => Outcome::Answer(bytes),
            Err(error) => Outcome::None { reason: format!("the answer broke off: {}", reason(&error)), alive: false },
        })
    }
}

fn unfit(method: &Method, path: &str, error: &ureq::http::Error) -> ClientError {
    ClientError::Request { request: format!("{method} {path}"), reason: error.to_string() }
}

/// What an answer that is no success means.
fn refused<T>(mut response: Response<Body>) -> Outcome<T> {
    let status = response.status();
    let bytes = match response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec() {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::None { reason: format!("the answer broke off: {}", reason(&error)), alive: false },
    };
    let problem = problem(status, &bytes);
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::None { reason: refusal(&problem), alive: true }
        }
        _ => Outcome::Refused(Box::new(problem)),
    }
}

/// What happened, in words for people.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis()),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
            _ => error.to_string(),
        },
        ureq::Error::HostNotFound => "the host name is not known".to_owned(),
        other => other.to_string(),
    }
}

/// The problem that a controller reports; one made up from the status where the body is none of ours.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    match serde_json::from_slice::<Problem>(body) {
        Ok(mut problem) => {
            problem.status = status.as_u16();
            problem
        }
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(FOREIGN_CHARS_MAX).collect();
            let says = if text.is_empty() { "with nothing".to_owned() } else { format!("with {text:?}") };
            let name = status.canonical_reason().unwrap_or("an error");
            Problem {
                title: name.to_owned(),
                status: status.as_u16(),
                detail: format!("answered {name} {says}; is that a clusterctl controller?"),
                ..Problem::default()
            }
        }
    }
}

/// `text` as one segment of a path or value of a query (RFC 3986: everything but unreserved characters percent-encoded).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(encode("a-b.c_d~9"), "a-b.c_d~9");
        assert_eq!(encode("../x?y=1&z#ä /"), "..%2Fx%3Fy%3D1%26z%23%C3%A4%20%2F");
    }

    #[test]
    fn a_foreign_answer_is_shown_but_not_in_full() {
        let made_up = problem(StatusCode::NOT_FOUND, &b"<html>\x1b[31mnginx".repeat(100));
        assert_eq!(made_up.status, 404);
        assert!(made_up.detail.contains("is that a clusterctl controller?") && !made_up.detail.contains('\x1b'), "{}", made_up.detail);
        assert!(made_up.detail.len() < 2_000);
        assert!(problem(StatusCode::NOT_FOUND, b"").detail.contains("with nothing"));
    }

    #[test]
    fn the_status_of_the_answer_counts_not_that_of_its_body() {
        let said = problem(StatusCode::CONFLICT, br#"{"type":"conflict","title":"Conflict","status":200,"detail":"changed meanwhile"}"#);
        assert_eq!(refusal(&said), "changed meanwhile (409 conflict)");
    }
}
