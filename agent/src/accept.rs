//! Which assignments an agent takes (rule C3): pure.

use cluster_schemas::Assignment;

/// What to do with an assignment that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Newer than the one held: take it.
    Take,
    /// The one held.
    Same,
    /// Older than the one held: a replay, or the late write of a deposed leader.
    Older,
    /// The same place in the order, but another content: somebody broke a rule. Kept out.
    Contradiction,
    /// Of another store: buckets were deleted and made again. Kept out until an operator says so.
    OtherIncarnation,
    /// Written for another node.
    OtherNode,
}

/// Judges `incoming` by what `node` holds.
#[must_use]
pub fn judge(node: &str, held: Option<&Assignment>, incoming: &Assignment) -> Verdict {
    if incoming.node != node {
        return Verdict::OtherNode;
    }
    // What is left of an earlier name (`--accept-rename`) is of no store.
    let Some(held) = held.filter(|held| !held.order.incarnation.is_empty()) else { return Verdict::Take };
    match incoming.order.newer_than(&held.order) {
        // An operator signed that this store may follow the one of the assignment held.
        None if incoming.recovers.contains(&held.order.incarnation) => Verdict::Take,
        None => Verdict::OtherIncarnation,
        Some(true) => Verdict::Take,
        Some(false) if incoming == held => Verdict::Same,
        Some(false) if incoming.order == held.order => Verdict::Contradiction,
        Some(false) => Verdict::Older,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::assignment::Order;

    fn assignment(incarnation: &str, term: u64, generation: u64, boot: &str) -> Assignment {
        Assignment {
            node: "n1".to_owned(),
            order: Order { incarnation: incarnation.to_owned(), term, generation },
            boot_id: boot.to_owned(),
            ..Assignment::default()
        }
    }

    #[test]
    fn only_newer_assignments_of_the_same_store_are_taken() {
        let held = assignment("a", 2, 5, "b");
        let judge = |incoming: &Assignment| judge("n1", Some(&held), incoming);
        assert_eq!(judge(&assignment("a", 2, 6, "b")), Verdict::Take);
        assert_eq!(judge(&assignment("a", 3, 1, "b")), Verdict::Take);
        assert_eq!(judge(&held), Verdict::Same);
        assert_eq!(judge(&assignment("a", 2, 5, "other")), Verdict::Contradiction);
        assert_eq!(judge(&assignment("a", 2, 4, "b")), Verdict::Older);
        assert_eq!(judge(&assignment("a", 1, 9, "b")), Verdict::Older);
        assert_eq!(judge(&assignment("b", 9, 9, "b")), Verdict::OtherIncarnation);
    }

    #[test]
    fn another_store_is_followed_only_where_an_operator_signed_it() {
        let held = assignment("a", 9, 9, "b");
        let incoming =
            |recovers: &[&str]| Assignment { recovers: recovers.iter().map(|r| (*r).to_owned()).collect(), ..assignment("c", 1, 1, "b") };
        assert_eq!(judge("n1", Some(&held), &incoming(&[])), Verdict::OtherIncarnation);
        assert_eq!(judge("n1", Some(&held), &incoming(&["b"])), Verdict::OtherIncarnation);
        assert_eq!(judge("n1", Some(&held), &incoming(&["a", "b"])), Verdict::Take);
        // Within a store the signature gives nothing away.
        let old = Assignment { recovers: vec!["a".to_owned()], ..assignment("a", 1, 1, "b") };
        assert_eq!(judge("n1", Some(&held), &old), Verdict::Older);
    }

    #[test]
    fn after_a_rename_any_store_is_taken() {
        assert_eq!(judge("n1", Some(&assignment("", 0, 0, "b")), &assignment("a", 1, 1, "b")), Verdict::Take);
    }

    #[test]
    fn the_first_is_taken_and_another_nodes_never() {
        assert_eq!(judge("n1", None, &assignment("a", 1, 1, "b")), Verdict::Take);
        assert_eq!(judge("n2", None, &assignment("a", 1, 1, "b")), Verdict::OtherNode);
    }
}
