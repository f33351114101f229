//! The agent's journal (SQLite): the assignment it holds. An agent that restarts, or a node that boots, with NATS away goes on from it.
//!
//! What belongs to one boot only (tenures given up, what runs) stands under the runtime folder and goes with the boot.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cluster_schemas::Assignment;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Layout of the tables; raised with every change of it.
const LAYOUT: i64 = 1;

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
    /// The stored assignment cannot be read.
    #[error("journal {path}: the stored assignment cannot be read")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
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

/// The open journal.
#[derive(Debug, Clone)]
pub struct Journal {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal, making it if it does not exist.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let fail = |action| move |source| JournalError::Sqlite { path: path.to_owned(), action, source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| JournalError::Folder { path: path.to_owned(), source })?;
        }
        let connection = Connection::open(path).map_err(fail("open it"))?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 2000;")
            .map_err(fail("configure it"))?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail("read its layout"))?;
        if found > LAYOUT {
            return Err(JournalError::Newer { path: path.to_owned(), found });
        }
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS assignment (id INTEGER PRIMARY KEY CHECK (id = 1), content TEXT NOT NULL) STRICT;
                 PRAGMA user_version = {LAYOUT};"
            ))
            .map_err(fail("make its tables"))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: path.to_owned() })
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

    /// Stores the assignment, durably, before anything is done by it.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`], [`JournalError::Content`].
    pub async fn store(&self, assignment: &Assignment) -> Result<(), JournalError> {
        let content = serde_json::to_string(assignment)
            .map_err(|source| JournalError::Content { path: self.path.clone(), source })?;
        let this = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let connection = this.connection.lock().unwrap_or_else(PoisonError::into_inner);
            connection
                .execute(
                    "INSERT INTO assignment (id, content) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET content = excluded.content",
                    params![content],
                )
                .map(|_| ())
        })
        .await;
        match stored {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(JournalError::Sqlite { path: self.path.clone(), action: "store the assignment", source }),
            // The task was cancelled: the runtime is shutting down.
            Err(_) => Err(JournalError::Sqlite {
                path: self.path.clone(),
                action: "store the assignment",
                source: rusqlite::Error::ExecuteReturnedResults,
            }),
        }
    }
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
}
