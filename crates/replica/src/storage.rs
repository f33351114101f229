//! Where logs and side files live: a directory, or the simulation's disk that forgets what was not synced.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::wal::ReadAt;

/// Files by name, in one directory. What was appended is durable after [`Storage::sync`] only, and a crash may tear it anywhere.
pub trait Storage {
    /// Names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Length of a file, `None` when there is none.
    fn len(&self, name: &str) -> io::Result<Option<u64>>;
    /// Fills `into` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Puts bytes at the end of a file, which is made when it is not there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file. Durable with the next sync.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's content, length and existence durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Removes a file, durably; none there is well.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Puts `bytes` in the place of a file's content: afterwards, whatever happens, it is either the old or the new one, and durable
    /// when this returns.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// A whole file, `None` when there is none. `limit`: the most bytes it may have.
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(len) = self.len(name)? else { return Ok(None) };
        if len > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} has {len} bytes, more than {limit}")));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let count = self.read_at(name, 0, &mut bytes)?;
        bytes.truncate(count);
        Ok(Some(bytes))
    }
}

/// Most files kept open at once.
const OPEN_FILES: usize = 64;

/// A directory. Files are readable by their owner only: they hold the application's data.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

impl Directory {
    /// Takes the directory, which is made when it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), open: Mutex::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(name) {
            return Ok(Arc::clone(file));
        }
        let file = OpenOptions::new().read(true).append(true).create(create).mode(0o600).open(self.path.join(name))?;
        if open.len() >= OPEN_FILES {
            open.pop_first();
        }
        let file = Arc::new(file);
        open.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn forget(&self, name: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        match self.file(name, false) {
            Ok(file) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        ReadAt::read_at(&*self.file(name, false)?, offset, into)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (&*self.file(name, true)?).write_all(bytes)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name, false)?.set_len(len)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name, false)?.sync_all()?;
        self.sync_directory()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_directory(),
        }
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.forget(name);
        std::fs::rename(new, self.path.join(name))?;
        self.sync_directory()
    }
}
