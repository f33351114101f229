//! What the user probably meant.

use cluster_schemas::api::AppView;

use crate::client::{Client, ClientError};
use crate::error::CliError;

/// How alike two words must be: 1 is equal, 0 has nothing in common.
const SIMILARITY_MIN: f64 = 0.8;

/// The one of `known` most like `word`; none where nothing is like it. Of equals the first.
pub(crate) fn similar<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let similarity = strsim::jaro_winkler(word, candidate);
        if similarity >= SIMILARITY_MIN && best.is_none_or(|(other, _)| similarity > other) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Makes of a "not found" about a part of an App the name that was probably meant, of those that have such a part, where the App itself is
/// what is missing.
pub(crate) fn missing_app(client: &Client, app: &str, error: ClientError, has_it: impl Fn(&AppView) -> bool) -> CliError {
    if !error.is_not_found() {
        return error.into();
    }
    let Ok(apps) = client.list::<AppView>("/v1/apps") else { return error.into() };
    if apps.items.iter().any(|known| known.metadata.name == app) {
        return error.into();
    }
    let names = apps.items.iter().filter(|known| has_it(known)).map(|known| known.metadata.name.as_str());
    CliError::NotFound { object: format!("app/{app}"), similar: similar(app, names).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_alike_is_suggested() {
        let known = ["api", "cache", "database", "workers"];
        assert_eq!(similar("databse", known), Some("database"));
        assert_eq!(similar("worker", known), Some("workers"));
        assert_eq!(similar("nginx", known), None);
        assert_eq!(similar("", known), None);
    }
}
