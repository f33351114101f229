//! The nouns of clusterctl: App, Node, Assignment, Status, API types; parsing with spans, defaults, validation.
