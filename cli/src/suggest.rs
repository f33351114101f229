//! What the user probably meant.

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
