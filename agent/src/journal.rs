//! The agent's journal (SQLite): the assignment it holds. An agent that restarts, or a node that boots, with NATS away goes on from it.
//!
//! It also remembers whose it is: a machine that is given another name still runs what it was given under the old one.
//!
//! What belongs to one boot only (tenures given up, what runs) stands under the runtime folder and goes with the boot.

mod open;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_schemas::Assignment;
use cluster_schemas::assignment::{Order, Role};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Layout of the tables; raised with every change of it.
const LAYOUT: i64 = 2;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite says no.
    #[error("journal {path}: cannot {action}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The folder cannot be made.
    #[error("journal {path}: cannot make its folder")]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A damaged journal cannot be set aside.
    #[error("journal {path}: it is damaged and cannot be set aside")]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The stored assignment cannot be read.
    #[error("journal {path}: the stored assignment cannot be read")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// This machine was another node.
    #[error(
        "this machine was the node {} and is configured as {} now: set agent.yaml back, or run `cluster-agent --accept-rename` once, \
         which has all stopped that runs here by the old name",
        .found,
        .configured
    )]
    OtherOwner {
        /// Who wrote the journal.
        found: Box<Owner>,
        /// Who reads it.
        configured: Box<Owner>,
    },
    /// Written by a newer agent.
    #[error("journal {path}: layout {found} is newer than this agent's ({LAYOUT}): install the newer agent again")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
}

/// Whose journal it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Name of the cluster.
    pub cluster: String,
    /// Identity of the cluster; empty where none is configured.
    pub cluster_id: String,
    /// Name of the node.
    pub node: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of the cluster {}", self.node, self.cluster)?;
        if self.cluster_id.is_empty() { Ok(()) } else { write!(f, " ({})", self.cluster_id) }
    }
}

impl Owner {
    /// Whether the two can be the same. A configuration that has no identity of the cluster yet, or has one now, is no other cluster.
    fn agrees(&self, other: &Self) -> bool {
        let ids = self.cluster_id == other.cluster_id || self.cluster_id.is_empty() || other.cluster_id.is_empty();
        ids && self.cluster == other.cluster && self.node == other.node
    }
}

/// The open journal.
#[derive(Debug, Clone)]
pub struct Journal {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    /// The disk does not take it.
    in_memory: Arc<AtomicBool>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal, making it if it does not exist. One that is damaged is set aside, and a new one begun.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Ok(Self::with(open::file(path)?, path))
    }

    fn with(connection: Connection, path: &Path) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), path: path.to_owned(), in_memory: Arc::default() }
    }

    /// Makes sure that the journal is `owner`'s; a new one becomes so.
    ///
    /// # Errors
    /// [`JournalError::OtherOwner`], [`JournalError::Sqlite`].
    pub fn claim(&self, owner: &Owner) -> Result<(), JournalError> {
        let found = self.owner()?;
        match found {
            Some(found) if found.agrees(owner) && found.cluster_id == owner.cluster_id => Ok(()),
            Some(found) if !found.agrees(owner) => {
                Err(JournalError::OtherOwner { found: Box::new(found), configured: Box::new(owner.clone()) })
            }
            _ => self.write(owner, None),
        }
    }

    /// Gives the journal to `owner`, whoever had it. What it has of another becomes an assignment of no store by which all of it is to
    /// go, in the same step: the next agent begins with that. Returns who had it, where that was another.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`], [`JournalError::Content`].
    pub fn rename(&self, owner: &Owner) -> Result<Option<Owner>, JournalError> {
        let Some(found) = self.owner()?.filter(|found| !found.agrees(owner)) else {
            self.claim(owner)?;
            return Ok(None);
        };
        // One that cannot be read names nothing to stop; the agent finds units and addresses with our mark by itself.
        let held = self.assignment().ok().flatten();
        self.write(owner, Some(&held.map_or_else(Assignment::default, |held| all_absent(held, &owner.node))))?;
        Ok(Some(found))
    }

    /// Who wrote the journal; before layout 2 only the assignment says so.
    fn owner(&self) -> Result<Option<Owner>, JournalError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .query_row("SELECT cluster, cluster_id, node FROM owner WHERE id = 1", [], |row| {
                Ok(Owner { cluster: row.get(0)?, cluster_id: row.get(1)?, node: row.get(2)? })
            })
            .optional()
            .map_err(|source| JournalError::Sqlite { path: self.path.clone(), action: "read whose it is", source })
    }

    fn write(&self, owner: &Owner, assignment: Option<&Assignment>) -> Result<(), JournalError> {
        let fail = |source| JournalError::Sqlite { path: self.path.clone(), action: "store whose it is", source };
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let step = connection.transaction().map_err(fail)?;
        step.execute(
            "INSERT INTO owner (id, cluster, cluster_id, node) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET cluster = excluded.cluster, cluster_id = excluded.cluster_id, node = excluded.node",
            params![owner.cluster, owner.cluster_id, owner.node],
        )
        .map_err(fail)?;
        if let Some(assignment) = assignment {
            let content = serde_json::to_string(assignment).map_err(|source| JournalError::Content { path: self.path.clone(), source })?;
            step.execute(STORE, params![content]).map_err(fail)?;
        }
        step.commit().map_err(fail)
    }

    /// The assignment stored last.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`], [`JournalError::Content`].
    pub fn assignment(&self) -> Result<Option<Assignment>, JournalError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let content: Option<String> = connection
            .query_row("SELECT content FROM assignment WHERE id = 1", [], |row| row.get(0))
            .optional()
            .map_err(|source| JournalError::Sqlite { path: self.path.clone(), action: "read the assignment", source })?;
        content
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|source| JournalError::Content { path: self.path.clone(), source })
    }

    /// Stores the assignment, durably, before anything is done by it. One that had to be kept in memory goes back to the disk first; as long
    /// as that fails, memory has it.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`], [`JournalError::Content`].
    pub async fn store(&self, assignment: &Assignment) -> Result<(), JournalError> {
        let content = serde_json::to_string(assignment).map_err(|source| JournalError::Content { path: self.path.clone(), source })?;
        let this = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let back = this.back_to_disk();
            let stored = lock(&this.connection).execute(STORE, params![content]);
            back.and(stored.map(|_| ()).map_err(|source| JournalError::Sqlite {
                path: this.path.clone(),
                action: "store the assignment",
                source,
            }))
        })
        .await;
        match stored {
            Ok(stored) => stored,
            // The task was cancelled: the runtime is shutting down.
            Err(_) => Err(JournalError::Sqlite {
                path: self.path.clone(),
                action: "store the assignment",
                source: rusqlite::Error::ExecuteReturnedResults,
            }),
        }
    }
}

/// Stores the assignment.
const STORE: &str = "INSERT INTO assignment (id, content) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET content = excluded.content";

/// The same Apps, of which nothing may be left, for `node`, in the order of no store.
fn all_absent(mut assignment: Assignment, node: &str) -> Assignment {
    for entry in assignment.apps.values_mut() {
        entry.role = Role::Absent;
        entry.candidates.clear();
        entry.successor.clear();
        entry.peers.clear();
        if let Some(vip) = &mut entry.vip {
            vip.releasing = vip.hold.then_some(vip.epoch).or(vip.releasing);
            vip.hold = false;
            vip.candidates.clear();
        }
        if let Some(ring) = &mut entry.ring {
            ring.release = ring.release.union(&ring.owned());
            ring.own.clear();
            ring.candidates.clear();
        }
    }
    Assignment { node: node.to_owned(), order: Order::default(), members: Arc::default(), recovers: Vec::new(), ..assignment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/journal.db");
        let journal = Journal::open(&path).expect("a new journal");
        assert_eq!(journal.assignment().expect("a readable journal"), None);
        let assignment = Assignment { node: "n1".to_owned(), ..Assignment::default() };
        journal.store(&assignment).await.expect("a stored assignment");
        drop(journal);
        let journal = Journal::open(&path).expect("the same journal");
        assert_eq!(journal.assignment().expect("a readable journal"), Some(assignment));
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("journal.db");
        Connection::open(&path).and_then(|c| c.execute_batch("PRAGMA user_version = 99")).expect("a made file");
        assert!(matches!(Journal::open(&path), Err(JournalError::Newer { found: 99, .. })));
    }

    fn owner(node: &str, cluster_id: &str) -> Owner {
        Owner { cluster: "c".to_owned(), cluster_id: cluster_id.to_owned(), node: node.to_owned() }
    }

    #[test]
    fn a_journal_belongs_to_one_node_of_one_cluster() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(&dir.path().join("journal.db")).expect("a new journal");
        journal.claim(&owner("n1", "")).expect("nobody's yet");
        journal.claim(&owner("n1", "id")).expect("the cluster got an identity");
        journal.claim(&owner("n1", "id")).expect("the same");
        for other in [owner("n2", "id"), owner("n1", "other"), Owner { cluster: "d".to_owned(), ..owner("n1", "id") }] {
            let refused = journal.claim(&other).expect_err("another node's journal");
            assert!(
                refused.to_string().starts_with("this machine was the node n1 of the cluster c (id) and is configured as n"),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn after_a_rename_everything_is_to_go_and_nothing_of_an_order_is_left() {
        use cluster_schemas::assignment::{AppAssignment, VipAssignment};
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("journal.db");
        let journal = Journal::open(&path).expect("a new journal");
        assert_eq!(journal.rename(&owner("n1", "id")).expect("nobody's yet"), None);
        let vip = VipAssignment { address: "10.0.0.1/24".to_owned(), hold: true, epoch: 7, ..VipAssignment::default() };
        let entry = AppAssignment { uid: "u".to_owned(), role: Role::Active, epoch: 7, vip: Some(vip), ..AppAssignment::default() };
        let order = Order { incarnation: "i".to_owned(), term: 3, generation: 4 };
        let held = Assignment { node: "n1".to_owned(), order, apps: [("db".to_owned(), entry)].into(), ..Assignment::default() };
        journal.store(&held).await.expect("a stored assignment");
        assert_eq!(journal.rename(&owner("n2", "id")).expect("a renamed journal"), Some(owner("n1", "id")));
        drop(journal);
        let journal = Journal::open(&path).expect("the same journal");
        journal.claim(&owner("n2", "id")).expect("its new owner");
        let left = journal.assignment().expect("a readable journal").expect("an assignment");
        assert_eq!((left.node.as_str(), &left.order), ("n2", &Order::default()));
        let entry = &left.apps["db"];
        assert_eq!(
            (entry.role, entry.uid.as_str(), entry.vip.as_ref().map(|v| (v.hold, v.releasing))),
            (Role::Absent, "u", Some((false, Some(7))))
        );
    }
}
