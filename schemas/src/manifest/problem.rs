//! A problem before it has a place: a JSON pointer, and whether the key or the value is meant.

use std::collections::BTreeSet;

use super::diagnostic::KEPT_MAX;
use super::rule::Rule;
use super::tree::Mark;
use crate::api::FieldProblem;
pub(super) use crate::pointer::join;

/// Which side of `key: value` a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// JSON pointer (RFC 6901) into the document.
    pub(super) pointer: String,
    /// Which side is meant.
    pub(super) side: Side,
    /// Where it is, if that is known already; else the pointer tells.
    pub(super) mark: Option<Mark>,
    /// Which line of a text of several lines is meant, from 1.
    pub(super) line: Option<u32>,
    /// The rule that was broken.
    pub(super) rule: Rule,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) hint: Option<String>,
}

impl From<Problem> for FieldProblem {
    fn from(problem: Problem) -> Self {
        Self { pointer: problem.pointer, message: problem.message, hint: problem.hint }
    }
}

/// The problems of one document: the first [`KEPT_MAX`] are kept, the rest is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds a problem.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.skip();
        } else {
            self.kept.push(problem);
        }
    }

    /// Moves problems to where the fields were written: the first of a pair is where they were taken for.
    pub(super) fn rename(&mut self, renamed: &[(String, String)]) {
        for problem in &mut self.kept {
            // What was renamed deepest tells the place best.
            let places = renamed.iter().filter_map(|(taken, written)| Some((taken.len(), moved(&problem.pointer, taken, written)?)));
            if let Some((_, place)) = places.max() {
                problem.pointer = place;
            }
        }
    }

    /// Whether further problems are only counted.
    pub(super) const fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    /// Counts a problem that is not kept.
    pub(super) const fn skip(&mut self) {
        self.more += 1;
    }

    /// How many problems were only counted.
    pub(super) const fn more(&self) -> usize {
        self.more
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

/// `pointer` with `to` for `from`, where it lies in that.
pub(super) fn moved(pointer: &str, from: &str, to: &str) -> Option<String> {
    let rest = pointer.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    Some(format!("{to}{rest}"))
}

/// The parts of `pointer`, unescaped.
pub(super) fn tokens(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// Fields that are known to be wrong or absent and were replaced by something harmless: nothing more is said about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bad(BTreeSet<String>);

impl Bad {
    /// Adds a field.
    pub(super) fn insert(&mut self, pointer: String) {
        self.0.insert(pointer);
    }

    /// Adds what lies in `from` once more, as lying in `to`.
    pub(super) fn mirror(&mut self, from: &str, to: &str) {
        let more: Vec<String> = self.0.iter().filter_map(|pointer| moved(pointer, from, to)).collect();
        self.0.extend(more);
    }

    /// Whether `pointer`, or something that it lies in, is bad.
    pub(super) fn covers(&self, pointer: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let ends = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]);
        ends.into_iter().any(|end| self.0.contains(&pointer[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_come_back() {
        let pointer = join(&join("", "a/b"), "c~d");
        assert_eq!(pointer, "/a~1b/c~0d");
        assert_eq!(tokens(&pointer).collect::<Vec<_>>(), ["a/b", "c~d"]);
        assert_eq!(tokens("").count(), 0);
    }

    #[test]
    fn bad_covers_what_lies_in_it() {
        let mut bad = Bad::default();
        bad.insert("/spec/vip".to_owned());
        assert!(bad.covers("/spec/vip"));
        assert!(bad.covers("/spec/vip/address"));
        assert!(!bad.covers("/spec/vipx"));
        assert!(!bad.covers("/spec"));
        bad.insert(String::new());
        assert!(bad.covers("/metadata"));
    }
}
