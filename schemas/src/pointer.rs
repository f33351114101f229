//! JSON pointers (RFC 6901).

/// `token` as the last part of `pointer`, escaped.
#[must_use]
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}
