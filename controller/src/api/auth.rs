//! Who asks: bearer tokens, and what their role allows.

use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cluster_schemas::access::{Role, TokenEntry};
use cluster_schemas::history::Actor;
use sha2::{Digest, Sha256};

use super::roles::least;
use super::tls::Peer;
use super::{Api, ApiError, audit};

/// Name of who has the one token of `tokenFile`.
const ADMIN: &str = "admin";

/// Who may use the API. Without any token everybody may, which the configuration allows on loopback only.
#[derive(Debug, Clone, Default)]
pub struct Access {
    entries: Vec<TokenEntry>,
    /// Whether certificates say who somebody is.
    certificates: bool,
}

impl Access {
    /// The one token that may do everything, those of the token file, and whether clients may have certificates.
    #[must_use]
    pub fn new(token: Option<&str>, entries: Vec<TokenEntry>, certificates: bool) -> Self {
        let admin = token.map(|token| TokenEntry { name: ADMIN.to_owned(), role: Role::Admin, sha256: digest(token) });
        Self { entries: admin.into_iter().chain(entries).collect(), certificates }
    }

    /// Whether everybody may do everything.
    const fn is_open(&self) -> bool {
        self.entries.is_empty() && !self.certificates
    }

    /// Who has this token.
    fn who(&self, token: &str) -> Option<&TokenEntry> {
        let digest = digest(token);
        // All of them, whichever it is.
        self.entries.iter().fold(None, |found, entry| if same(entry.sha256.as_bytes(), digest.as_bytes()) { Some(entry) } else { found })
    }
}

fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets a request through whose token has a role that may do this, or any where no token is configured. Writes are recorded, those that are
/// refused here too; but not what comes without a good token or too often, or it could push the others out.
pub async fn require_role(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|from| from.0.clone());
    let address = peer.as_ref().map(|peer| peer.address.ip().to_canonical());
    let mut actor = Actor { address: address.map(|address| address.to_string()).unwrap_or_default(), ..Actor::default() };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    // A plan is sent, and is a look all the same.
    let looks = matches!(request.method().as_str(), "GET" | "HEAD") || path == "/v1/plan";
    let mut forbidden = None;
    if api.access.is_open() {
        if let Err(error) = api.limits.address(address) {
            return error.into_response();
        }
    } else {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        // A token that is given is what counts: who sends a wrong one is not let in by something else.
        let who = match given {
            Some(given) => api.access.who(given).map(|entry| (entry.name.clone(), Some(entry.role))),
            None => peer.and_then(|peer| peer.certified).map(|certified| (certified.name, certified.role)),
        };
        let Some((name, role)) = who else {
            return api.limits.address(address).err().unwrap_or_else(ApiError::unauthorized).into_response();
        };
        if let Err(error) = api.limits.known(&name) {
            return error.into_response();
        }
        let least = least(request.method().as_str(), &path);
        if role.is_none_or(|role| role < least) {
            forbidden = Some(ApiError::forbidden(&name, role, least));
        }
        (actor.name, actor.role) = (name, role);
    }
    match forbidden {
        Some(error) if looks => error.into_response(),
        None if looks => next.run(request).await,
        forbidden => {
            let line = format!("{} {}", request.method(), request.uri().path());
            let answer = async move {
                match forbidden {
                    Some(error) => error.into_response(),
                    None => next.run(request).await,
                }
            };
            audit::recorded(api, actor, line, answer).await
        }
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_tokens_are_the_same() {
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!same(b"abc", other));
        }
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        // sha256sum of "abc", as everybody has it.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        let entry = TokenEntry { name: "ci".to_owned(), role: Role::Deployer, sha256 };
        let access = Access::new(Some("0123456789abcdef"), vec![entry.clone()], false);
        assert_eq!(access.who("abc"), Some(&entry));
        assert_eq!(access.who("0123456789abcdef").map(|entry| entry.role), Some(Role::Admin));
        assert_eq!((access.who("abd"), access.who(""), access.who(&entry.sha256)), (None, None, None), "a hash opens nothing");
    }
}
