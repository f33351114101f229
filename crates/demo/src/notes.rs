//! A database as applications have it: one table, WAL mode, one connection. Nothing here knows that it is replicated.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

/// Longest wait for a lock: a replicator holds one for milliseconds at a time.
const BUSY: Duration = Duration::from_secs(5);

/// The notes. Opened with the first request: a standby that is never asked never touches the file.
#[derive(Debug)]
pub(crate) struct Notes {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Counted {
    /// Notes in the database.
    count: i64,
    /// Number of the newest; 0 without any.
    newest: i64,
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A write is answered when it is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)")?;
    Ok(connection)
}

impl Notes {
    /// Notes in the database at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None) }
    }

    /// Opens, or makes, the database now.
    ///
    /// # Errors
    /// As SQLite says.
    pub(crate) fn prepare(&self) -> rusqlite::Result<()> {
        self.with(|_| Ok(()))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.is_none() {
            *connection = Some(open(&self.path)?);
        }
        match connection.as_ref() {
            Some(connection) => work(connection),
            None => Err(rusqlite::Error::InvalidQuery),
        }
    }

    fn write(&self, text: &str) -> rusqlite::Result<i64> {
        self.with(|connection| connection.execute("INSERT INTO notes (text) VALUES (?1)", [text]).map(|_| connection.last_insert_rowid()))
    }

    fn read(&self, number: i64) -> rusqlite::Result<Option<String>> {
        self.with(|connection| connection.query_row("SELECT text FROM notes WHERE id = ?1", [number], |row| row.get(0)).optional())
    }

    fn count(&self) -> rusqlite::Result<Counted> {
        let counted = |row: &rusqlite::Row<'_>| Ok(Counted { count: row.get(0)?, newest: row.get(1)? });
        self.with(|connection| connection.query_row("SELECT count(*), coalesce(max(id), 0) FROM notes", [], counted))
    }

    fn texts(&self) -> rusqlite::Result<String> {
        self.with(|connection| {
            let mut statement = connection.prepare("SELECT text FROM notes ORDER BY id")?;
            let texts: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(texts.into_iter().fold(String::new(), |all, text| all + &text + "\n"))
        })
    }
}

/// `POST /notes` with a text answers its number once it is committed; `GET /notes` counts; `GET /notes/all` has all texts, a line each;
/// `GET /notes/NUMBER` one.
pub(crate) fn routes(notes: Arc<Notes>) -> Router {
    Router::new().route("/notes", post(write).get(count)).route("/notes/all", get(all)).route("/notes/{number}", get(one)).with_state(notes)
}

type Answer = (StatusCode, String);

async fn blocking<T: Send + 'static>(
    notes: Arc<Notes>,
    work: impl FnOnce(&Notes) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Answer> {
    let done = tokio::task::spawn_blocking(move || work(&notes)).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

async fn write(State(notes): State<Arc<Notes>>, text: String) -> Result<Answer, Answer> {
    let number = blocking(notes, move |notes| notes.write(text.trim_end())).await?;
    Ok((StatusCode::CREATED, format!("{number}\n")))
}

async fn count(State(notes): State<Arc<Notes>>) -> Result<axum::Json<Counted>, Answer> {
    blocking(notes, Notes::count).await.map(axum::Json)
}

async fn all(State(notes): State<Arc<Notes>>) -> Result<Answer, Answer> {
    blocking(notes, Notes::texts).await.map(|texts| (StatusCode::OK, texts))
}

async fn one(State(notes): State<Arc<Notes>>, Segment(number): Segment<i64>) -> Result<Answer, Answer> {
    let text = blocking(notes, move |notes| notes.read(number)).await?;
    Ok(text.map_or_else(|| (StatusCode::NOT_FOUND, format!("there is no note {number}\n")), |text| (StatusCode::OK, text + "\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_for_the_next_process_in_wal_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let notes = Notes::new(path.clone());
        notes.prepare().unwrap();
        assert_eq!((notes.write("one").unwrap(), notes.write("two").unwrap()), (1, 2));
        drop(notes);
        let notes = Notes::new(path);
        assert_eq!(notes.count().unwrap(), Counted { count: 2, newest: 2 });
        assert_eq!((notes.read(2).unwrap().as_deref(), notes.read(3).unwrap()), (Some("two"), None));
        assert_eq!(notes.texts().unwrap(), "one\ntwo\n");
        let mode: String = notes.with(|c| c.query_row("PRAGMA journal_mode", [], |row| row.get(0))).unwrap();
        assert_eq!(mode, "wal");
    }
}
