//! Opening a journal that is damaged, or whose disk is full or read-only.
//!
//! An agent must run whatever its disk does: without it a node would stop everything because it cannot write down what it goes on with.
//! - **Damaged**: the file is set aside (`journal.db.damaged`, the newest only), and a new one is rebuilt from the next assignment.
//! - **Cannot be written**: what can still be read is taken into memory, and the agent works with that until the disk takes it again
//!   ([`Journal::store`] tries each time).

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Journal, JournalError, LAYOUT};

/// Opens the file, and sets it aside first if it is damaged.
pub(super) fn file(path: &Path) -> Result<Connection, JournalError> {
    match checked(path) {
        Err(JournalError::Sqlite { source, .. }) if is_damage(&source) => {
            let aside = set_aside(path)?;
            tracing::warn!(
                path = %path.display(), aside = %aside.display(),
                "the journal is damaged ({source}); it is set aside, and rebuilt from the next assignment"
            );
            checked(path)
        }
        other => other,
    }
}

/// What can be read of a journal that cannot be written, in memory.
pub(super) fn memory(path: &Path) -> Result<Connection, JournalError> {
    let fail = |action| move |source| JournalError::Sqlite { path: path.to_owned(), action, source };
    let memory = Connection::open_in_memory().map_err(fail("keep it in memory"))?;
    tables(&memory).map_err(fail("keep it in memory"))?;
    // With what stands beside the file where that can be read, else without.
    if copy(path, false, &memory).is_err()
        && let Err(error) = copy(path, true, &memory)
    {
        tracing::warn!(path = %path.display(), "nothing of the journal can be read: {error}");
    }
    Ok(memory)
}

fn copy(path: &Path, immutable: bool, memory: &Connection) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // In a URI these would have to be escaped.
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'));
    let plain = path.to_string_lossy();
    let disk = if immutable && !plain.bytes().any(odd) {
        Connection::open_with_flags(format!("file:{plain}?immutable=1"), flags)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    let mut rows = disk.prepare("SELECT id, content FROM assignment")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        memory.execute(
            "INSERT OR REPLACE INTO assignment (id, content) VALUES (?1, ?2)",
            (row.get::<_, i64>(0)?, row.get::<_, String>(1)?),
        )?;
    }
    let mut rows = disk.prepare("SELECT id, cluster, cluster_id, node FROM owner")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let owner = (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?);
        memory.execute("INSERT OR REPLACE INTO owner (id, cluster, cluster_id, node) VALUES (?1, ?2, ?3, ?4)", owner)?;
    }
    Ok(())
}

fn checked(path: &Path) -> Result<Connection, JournalError> {
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
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail("check it"))?;
    if verdict != "ok" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(fail("check it")(rusqlite::Error::SqliteFailure(code, Some(verdict))));
    }
    tables(&connection).map_err(fail("make its tables"))?;
    Ok(connection)
}

fn tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS assignment (id INTEGER PRIMARY KEY CHECK (id = 1), content TEXT NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS owner (
             id INTEGER PRIMARY KEY CHECK (id = 1), cluster TEXT NOT NULL, cluster_id TEXT NOT NULL, node TEXT NOT NULL
         ) STRICT;
         PRAGMA user_version = {LAYOUT};"
    ))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Where a damaged journal goes, for a person to look at.
fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let failed = |source| JournalError::Aside { path: path.to_owned(), source };
    let aside = beside(".damaged");
    std::fs::rename(path, &aside).map_err(failed)?;
    // They belong to the damaged one, and would be taken for the new one's.
    for end in ["-wal", "-shm"] {
        crate::files::remove(&beside(end)).map_err(failed)?;
    }
    Ok(aside)
}

impl Journal {
    /// Opens the journal; where its disk does not take it, what can be read of it is kept in memory, with the reason.
    ///
    /// # Errors
    /// [`JournalError::Newer`], or memory that is not there.
    pub fn open_or_memory(path: &Path) -> Result<(Self, Option<JournalError>), JournalError> {
        match Self::open(path) {
            Ok(journal) => Ok((journal, None)),
            Err(error @ JournalError::Newer { .. }) => Err(error),
            Err(error) => {
                let journal = Self::with(memory(path)?, path);
                journal.in_memory.store(true, Ordering::Relaxed);
                Ok((journal, Some(error)))
            }
        }
    }

    /// Goes back to the disk, with whose journal it is. Does nothing where it is on disk.
    ///
    /// # Errors
    /// What keeps it from there.
    pub fn back_to_disk(&self) -> Result<(), JournalError> {
        if !self.in_memory.load(Ordering::Relaxed) {
            return Ok(());
        }
        let owner = self.owner()?;
        let disk = Self::open(&self.path)?;
        if let Some(owner) = owner {
            disk.claim(&owner)?;
        }
        std::mem::swap(&mut *super::lock(&self.connection), &mut *super::lock(&disk.connection));
        self.in_memory.store(false, Ordering::Relaxed);
        tracing::info!(path = %self.path.display(), "the journal is on disk again");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Owner;
    use cluster_schemas::Assignment;
    use cluster_schemas::assignment::Order;

    fn assignment(generation: u64) -> Assignment {
        let order = Order { incarnation: "i".to_owned(), term: 1, generation };
        Assignment { node: "n1".to_owned(), order, ..Assignment::default() }
    }

    fn owner() -> Owner {
        Owner { cluster: "c".to_owned(), cluster_id: String::new(), node: "n1".to_owned() }
    }

    async fn written(path: &Path) {
        let journal = Journal::open(path).unwrap();
        journal.claim(&owner()).unwrap();
        journal.store(&assignment(1)).await.unwrap();
        // Moves what stands beside the file into it.
        super::super::lock(&journal.connection).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    }

    /// Whatever the damage, the agent starts, takes the next assignment, and the damaged file is there for a look.
    #[tokio::test]
    async fn a_damaged_journal_is_set_aside_and_rebuilt_from_the_next_assignment() {
        let harms: [fn(&mut Vec<u8>); 3] = [|bytes| bytes.fill(b'x'), |bytes| bytes[4096..].fill(0xff), |bytes| bytes.truncate(5000)];
        for harm in harms {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.db");
            written(&path).await;
            let mut bytes = std::fs::read(&path).unwrap();
            harm(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(journal.assignment().unwrap(), None);
            assert!(folder.path().join("journal.db.damaged").exists());
            journal.claim(&owner()).unwrap();
            journal.store(&assignment(2)).await.unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().assignment().unwrap(), Some(assignment(2)));
        }
    }

    /// A folder that takes nothing: the agent goes on with what it can read, and the next store finds the disk again.
    #[tokio::test]
    async fn a_journal_that_cannot_be_written_is_kept_in_memory_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("state");
        std::fs::write(&place, "no folder").unwrap();
        let path = place.join("journal.db");
        let (journal, why) = Journal::open_or_memory(&path).unwrap();
        assert!(matches!(why, Some(JournalError::Folder { .. })), "{why:?}");
        journal.claim(&owner()).unwrap();
        assert!(journal.store(&assignment(3)).await.is_err(), "it is not durable");
        assert_eq!(journal.assignment().unwrap(), Some(assignment(3)));
        std::fs::remove_file(&place).unwrap();
        journal.store(&assignment(3)).await.unwrap();
        drop(journal);
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.assignment().unwrap(), Some(assignment(3)));
        assert!(again.claim(&Owner { node: "n2".to_owned(), ..owner() }).is_err(), "whose it is went along");
    }

    #[tokio::test]
    async fn what_a_read_only_disk_has_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        written(&path).await;
        let memory = memory(&path).unwrap();
        let journal = Journal::with(memory, &path);
        assert_eq!(journal.assignment().unwrap(), Some(assignment(1)));
        journal.claim(&owner()).unwrap();
    }
}
