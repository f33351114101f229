//! Is a history of reads and writes of one key linearizable? Wing and Gong's search, with the memory of what was tried that Lowe added.

use std::collections::HashSet;

/// What was done to the key. Each value is written at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// Read this value; none where there was none.
    Read(Option<u64>),
    /// Wrote this value.
    Wrote(u64),
    /// Replaced `from` by `to`, or was refused because the key had another value.
    Swapped { from: u64, to: u64, done: bool },
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// When it began.
    pub begun: u64,
    /// When its answer came; none where it is not known whether it happened.
    pub ended: Option<u64>,
    /// What.
    pub did: Did,
}

/// The value after it, where it can happen at `value`.
fn after(did: Did, value: Option<u64>) -> Option<Option<u64>> {
    match did {
        Did::Read(seen) => (seen == value).then_some(value),
        Did::Wrote(new) => Some(Some(new)),
        Did::Swapped { from, to, done: true } => (value == Some(from)).then_some(Some(to)),
        Did::Swapped { from, done: false, .. } => (value != Some(from)).then_some(value),
    }
}

/// Whether there is an order of all that ended, and some of what may have happened, in which each follows those that ended before it began.
pub fn is_linearizable(history: &[Operation]) -> bool {
    let words = history.len().div_ceil(64);
    let mut tried: HashSet<(Vec<u64>, Option<u64>)> = HashSet::new();
    let mut left = vec![(vec![0_u64; words], None)];
    let taken = |set: &[u64], n: usize| set[n / 64] & (1 << (n % 64)) != 0;
    while let Some((set, value)) = left.pop() {
        let open = || history.iter().enumerate().filter(|(n, _)| !taken(&set, *n));
        let Some(first_end) = open().filter_map(|(_, o)| o.ended).min() else { return true };
        for (n, operation) in open().filter(|(_, o)| o.begun < first_end) {
            let Some(next) = after(operation.did, value) else { continue };
            let mut with = set.clone();
            with[n / 64] |= 1 << (n % 64);
            if tried.insert((with.clone(), next)) {
                left.push((with, next));
            }
        }
    }
    history.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(all: &[(u64, u64, Did)]) -> Vec<Operation> {
        // An end of 0 is none.
        all.iter().map(|&(begun, ended, did)| Operation { begun, ended: (ended > 0).then_some(ended), did }).collect()
    }

    #[test]
    fn good_histories_pass() {
        use Did::{Read, Swapped, Wrote};
        assert!(is_linearizable(&[]));
        assert!(is_linearizable(&history(&[(1, 2, Read(None)), (3, 4, Wrote(1)), (5, 6, Read(Some(1)))])));
        // A read beside a write may see either.
        assert!(is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 9, Wrote(2)), (4, 5, Read(Some(1))), (6, 7, Read(Some(2)))])));
        // What is not known to have happened may happen late, or never.
        assert!(is_linearizable(&history(&[(1, 0, Wrote(1)), (2, 3, Read(None)), (4, 5, Read(Some(1)))])));
        assert!(is_linearizable(&history(&[(1, 0, Wrote(1)), (2, 3, Read(None)), (4, 5, Wrote(2)), (6, 7, Read(Some(2)))])));
        let swap = |from, to, done| Swapped { from, to, done };
        assert!(is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 6, swap(1, 2, true)), (4, 7, swap(1, 3, false)), (8, 9, Read(Some(2)))])));
    }

    #[test]
    fn a_planted_stale_read_is_found() {
        use Did::{Read, Swapped, Wrote};
        assert!(!is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 4, Wrote(2)), (5, 6, Read(Some(1)))])));
        // Seen by one reader and not by a later one.
        assert!(!is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 0, Wrote(2)), (4, 5, Read(Some(2))), (6, 7, Read(Some(1)))])));
        // Lost writes, and two winners.
        assert!(!is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 4, Read(None))])));
        let swap = |from, to| Swapped { from, to, done: true };
        assert!(!is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 6, swap(1, 2)), (4, 7, swap(1, 3))])));
        // One that was refused although nobody else had written.
        let refused = Swapped { from: 1, to: 2, done: false };
        assert!(!is_linearizable(&history(&[(1, 2, Wrote(1)), (3, 4, refused), (5, 6, Read(Some(1)))])));
    }
}
