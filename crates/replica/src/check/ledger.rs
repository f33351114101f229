//! What really happened: every state that an application committed, and what it was told.

use std::collections::{BTreeMap, BTreeSet};

/// A commit of an application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    /// Checksum of the database before it.
    pub parent: u64,
}

/// Commits by the checksum of the database after them. Each writes its own number, so no two are alike.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    commits: BTreeMap<u64, Commit>,
    /// Checksums that `db sync` promised.
    pub confirmed: BTreeSet<u64>,
    next: u64,
}

impl Ledger {
    pub fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn add(&mut self, parent: u64, after: u64) {
        self.commits.insert(after, Commit { parent });
    }

    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// All states that lead to `checksum`, itself included; `None` when it is none that an application made.
    pub fn history(&self, checksum: u64) -> Option<BTreeSet<u64>> {
        let mut history = BTreeSet::new();
        let mut at = checksum;
        while at != 0 {
            history.insert(at);
            at = self.commits.get(&at)?.parent;
        }
        Some(history)
    }
}
