//! The files of a database: held open for life, and looked at for whether they are still those.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::CaptureError;
use crate::header::{DatabaseHeader, HEADER_LEN, HeaderError};
use crate::wal::ReadAt as _;

/// Name of a file beside the database.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// An open file and the name it was opened by.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    pub file: File,
    inode: (u64, u64),
}

/// What a file is on this machine while it is open: another one under its name has another.
pub fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Held {
    pub fn open(path: PathBuf) -> Result<Self, CaptureError> {
        let unreadable = |why| CaptureError::Unreadable { path: path.clone(), why };
        let file = File::open(&path).map_err(unreadable)?;
        let inode = inode(&file.metadata().map_err(unreadable)?);
        Ok(Self { path, file, inode })
    }

    /// Whether its name still means it.
    pub fn check(&self) -> Result<(), CaptureError> {
        match std::fs::metadata(&self.path) {
            Ok(now) if inode(&now) == self.inode => Ok(()),
            Ok(_) => Err(CaptureError::Replaced(self.path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CaptureError::Deleted(self.path.clone())),
            Err(why) => Err(CaptureError::Unreadable { path: self.path.clone(), why }),
        }
    }
}

/// Opens the database file and reads its header. The descriptor must outlive every connection of this process to the file: closing one
/// drops SQLite's locks.
pub(super) fn open_database(path: &Path) -> Result<(Held, DatabaseHeader), CaptureError> {
    let named = || path.to_owned();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(CaptureError::NotAFile(named())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CaptureError::Missing(named())),
        _ => {}
    }
    let held = Held::open(named())?;
    let mut bytes = [0; HEADER_LEN];
    let count = held.file.read_at(0, &mut bytes).map_err(|why| CaptureError::Unreadable { path: named(), why })?;
    match DatabaseHeader::parse(&bytes[..count]) {
        Ok(header) if !header.wal => Err(CaptureError::RollbackJournal(named())),
        Ok(header) => Ok((held, header)),
        Err(HeaderError::Empty) => Err(CaptureError::Empty(named())),
        Err(why) => Err(CaptureError::NotSqlite { path: named(), why }),
    }
}
