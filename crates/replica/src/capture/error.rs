//! Why a database cannot be followed: each reason has a name that a condition can show.

use std::io;
use std::path::PathBuf;

use crate::header::HeaderError;
use crate::log::LogError;
use crate::transaction::EncodeError;
use crate::wal::WalError;

/// See the module. Whatever it is: the application is not held up, the capture is dropped, and opening it again (later, with some patience)
/// goes on without a gap or with a resync that names its cause.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no file: the application has not made its database yet.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// There is a file without bytes: the application has not made its first table yet.
    #[error("{0} is empty")]
    Empty(PathBuf),
    /// A directory, a device, a socket.
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    /// Not a database, or an encrypted one.
    #[error("{path} is not an SQLite database")]
    NotSqlite {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        #[source]
        why: HeaderError,
    },
    /// The application has it in rollback mode: there is no log to read.
    #[error("{0} is in rollback-journal mode: the application must say PRAGMA journal_mode=WAL")]
    RollbackJournal(PathBuf),
    /// Another file has taken its name.
    #[error("{0} was replaced by another file")]
    Replaced(PathBuf),
    /// Its name is gone.
    #[error("{0} was deleted")]
    Deleted(PathBuf),
    /// The file or its file system cannot be written, not even for locks.
    #[error("{0} is read-only")]
    ReadOnly(PathBuf),
    /// Permissions, or the disk.
    #[error("{path} could not be opened or read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        why: io::Error,
    },
    /// The application holds its write lock (or an exclusive one) longer than we wait.
    #[error("{0} stayed locked by the application")]
    Locked(PathBuf),
    /// The write-ahead log is damaged where SQLite regards it as committed.
    #[error("the write-ahead log cannot be followed")]
    Wal(#[source] WalError),
    /// No space for the transaction log.
    #[error("no space left for the transaction log")]
    DiskFull(#[source] LogError),
    /// The transaction log could not be written otherwise.
    #[error("the transaction log did not take a transaction")]
    Log(#[source] LogError),
    /// The write-ahead log was restarted although it was held: somebody took the locks away, such as another process of this node that closed
    /// the file. What was missed is found by comparing pages.
    #[error("the write-ahead log of {0} was restarted twice unseen")]
    Missed(PathBuf),
    /// This build's SQLite lacks the table of pages (see `.cargo/config.toml`).
    #[error("this build cannot read pages through SQLite")]
    Build,
    /// Anything else that SQLite says.
    #[error("SQLite refuses to work with {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        #[source]
        why: rusqlite::Error,
    },
    /// A mistake of ours.
    #[error("a transaction could not be encoded")]
    Encode(#[source] EncodeError),
}

impl CaptureError {
    /// The reason as a condition shows it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "DatabaseMissing",
            Self::Empty(_) => "DatabaseEmpty",
            Self::NotAFile(_) => "NotAFile",
            Self::NotSqlite { .. } => "NotSqlite",
            Self::RollbackJournal(_) => "RollbackJournal",
            Self::Replaced(_) => "DatabaseReplaced",
            Self::Deleted(_) => "DatabaseDeleted",
            Self::ReadOnly(_) => "ReadOnly",
            Self::Unreadable { .. } => "Unreadable",
            Self::Locked(_) => "Locked",
            Self::Wal(_) => "WalDamaged",
            Self::DiskFull(_) => "DiskFull",
            Self::Log(_) => "LogFailed",
            Self::Missed(_) => "WalMissed",
            Self::Build | Self::Encode(_) => "Internal",
            Self::Sqlite { .. } => "SqliteError",
        }
    }

    /// From SQLite's words about `path`.
    pub(super) fn sqlite(path: &std::path::Path, why: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match why.sqlite_error_code() {
            Some(Code::ReadOnly) => Self::ReadOnly(path),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked(path),
            Some(Code::NotADatabase) => Self::NotSqlite { path, why: HeaderError::NotSqlite },
            _ if why.to_string().contains("no such table: sqlite_dbpage") => Self::Build,
            _ => Self::Sqlite { path, why },
        }
    }
}

impl From<LogError> for CaptureError {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::Storage(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Self::DiskFull(error)
            }
            _ => Self::Log(error),
        }
    }
}

impl From<WalError> for CaptureError {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl From<EncodeError> for CaptureError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}
