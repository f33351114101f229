//! The folder of a dev cluster: one cluster at a time, nothing of others in it, nothing left of an earlier one that runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::Group;

/// The file that marks a folder as ours, and that is locked as long as a cluster runs in it.
pub const LOCK: &str = "clusterctl-dev.lock";
/// The file of [`Kept`].
const KEPT: &str = "cluster.json";
/// Folder of the records of what runs.
pub const RUNNING: &str = "running";
/// What we make in the folder.
const OURS: [&str; 6] = [KEPT, "control.sock", "log", "nats", "nodes", RUNNING];
/// Largest record that is read, in bytes.
const RECORD_MAX: u64 = 64 * 1024;
/// How often it is looked whether what was killed is gone, and how many times.
const LOOK_GONE: (Duration, u32) = (Duration::from_millis(10), 500);

/// What a cluster is across starts with `--keep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Identity of the cluster.
    pub cluster_id: Uuid,
    /// How many nodes it has.
    pub nodes: u8,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another cluster runs there.
    #[error("another dev cluster runs in {path}")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It has something else in it.
    #[error("{path} is not empty and was not made by clusterctl dev ({found} is in it)")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// It belongs to somebody else, who could change what runs.
    #[error("{path} belongs to another user")]
    Owner {
        /// The folder.
        path: PathBuf,
    },
    /// Something in it cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Processes of an earlier cluster cannot be ended.
    #[error("processes of an earlier dev cluster in {path} do not end: {pids:?}")]
    Left {
        /// The folder.
        path: PathBuf,
        /// Which.
        pids: Vec<i32>,
    },
}

impl FolderError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "end it (Ctrl-C where it runs), or give this one another folder with --dir",
            Self::Foreign { .. } | Self::Owner { .. } | Self::File { .. } => "give it a folder of its own with --dir",
            Self::Left { .. } => "end them by hand, or give this one another folder with --dir",
        }
    }
}

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Where a cluster lives that is told nothing: in the user's own folder for what runs, else among temporary files.
#[must_use]
pub fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()) {
        Some(dir) => PathBuf::from(dir).join("clusterctl-dev"),
        None => std::env::temp_dir().join(format!("clusterctl-dev-{}", getuid())),
    }
}

impl Folder {
    /// Takes the folder, and ends what an earlier cluster left running in it. `keep`: what it stored stays.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn take(path: &Path, keep: bool) -> Result<Self, FolderError> {
        let fail = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::File { action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail("make", path))?;
        let path = path.canonicalize().map_err(fail("find", path))?;
        if fs::metadata(&path).map_err(fail("look at", &path))?.uid() != getuid().as_raw() {
            return Err(FolderError::Owner { path });
        }
        let lock_path = path.join(LOCK);
        if !lock_path.exists()
            && let Some(found) = fs::read_dir(&path).map_err(fail("read", &path))?.flatten().next()
        {
            return Err(FolderError::Foreign { path, found: found.file_name().to_string_lossy().into_owned() });
        }
        let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(fail("write", &lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| FolderError::InUse { path: path.clone() })?;
        let folder = Self { path, _lock: lock };
        folder.end_leftovers()?;
        if !keep {
            folder.clear()?;
        }
        let running = folder.path.join(RUNNING);
        fs::create_dir_all(&running).map_err(fail("make", &running))?;
        let nats = folder.path.join("nats");
        fs::create_dir_all(&nats).map_err(fail("make", &nats))?;
        Ok(folder)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends what an earlier cluster, killed before it could, left running.
    fn end_leftovers(&self) -> Result<(), FolderError> {
        let records = fs::read_dir(self.path.join(RUNNING)).into_iter().flatten().flatten();
        let read = |path: &Path| {
            let small = fs::metadata(path).is_ok_and(|m| m.len() <= RECORD_MAX);
            small.then(|| serde_json::from_slice::<Group>(&fs::read(path).ok()?).ok())?
        };
        for record in records.map(|entry| entry.path()) {
            // A record that cannot be read is of a process that was just being started: it ended with its parent.
            if let Some(group) = read(&record) {
                let mut left = group.members();
                for _ in 0..LOOK_GONE.1 {
                    if left.is_empty() {
                        break;
                    }
                    group.signal(Signal::SIGKILL);
                    std::thread::sleep(LOOK_GONE.0);
                    left = group.members();
                }
                if !left.is_empty() {
                    return Err(FolderError::Left { path: self.path.clone(), pids: left });
                }
            }
            fs::remove_file(&record).map_err(|source| FolderError::File { action: "remove", path: record, source })?;
        }
        Ok(())
    }

    /// Removes all that we made in it.
    fn clear(&self) -> Result<(), FolderError> {
        for name in OURS {
            let path = self.path.join(name);
            let mut tries = 0;
            loop {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                match removed {
                    // A thread that is about to end (of leases, of a database) wrote something meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < LOOK_GONE.1 => {
                        tries += 1;
                        std::thread::sleep(LOOK_GONE.0);
                    }
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(FolderError::File { action: "remove", path, source });
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// What an earlier cluster was; none where there is none to be kept.
    ///
    /// # Errors
    /// [`FolderError::File`].
    pub fn kept(&self) -> Result<Option<Kept>, FolderError> {
        let path = self.path.join(KEPT);
        let fail = |source| FolderError::File { action: "read", path: path.clone(), source };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| fail(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// Writes down what this cluster is.
    ///
    /// # Errors
    /// [`FolderError::File`].
    pub fn keep(&self, kept: &Kept) -> Result<(), FolderError> {
        let path = self.path.join(KEPT);
        let text = serde_json::to_vec(kept).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text)).map_err(|source| FolderError::File { action: "write", path, source })
    }

    /// Writes down that something runs, for who comes after a sudden end.
    ///
    /// # Errors
    /// [`FolderError::File`].
    pub fn record(&self, name: &str, group: &Group) -> Result<(), FolderError> {
        let path = self.path.join(RUNNING).join(name);
        let text = serde_json::to_vec(group).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text)).map_err(|source| FolderError::File { action: "write", path, source })
    }

    /// Gives the folder up: empty, and gone where nobody else put something into it.
    ///
    /// # Errors
    /// [`FolderError::File`].
    pub fn leave(self, keep: bool) -> Result<(), FolderError> {
        if keep {
            return Ok(());
        }
        self.clear()?;
        let lock = self.path.join(LOCK);
        fs::remove_file(&lock).map_err(|source| FolderError::File { action: "remove", path: lock, source })?;
        // Somebody else's files stay, and so does what holds them.
        let _kept = fs::remove_dir(&self.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_others_is_not_touched() {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::write(home.path().join("thesis.tex"), "years of work").expect("a written file");
        let refused = Folder::take(home.path(), false).expect_err("it has something in it");
        assert!(matches!(&refused, FolderError::Foreign { found, .. } if found == "thesis.tex"), "{refused}");
        assert!(!home.path().join(LOCK).exists());
    }

    #[test]
    fn it_is_one_clusters_at_a_time_and_gone_afterwards() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let path = home.path().join("dev");
        let first = Folder::take(&path, false).expect("a folder");
        assert!(matches!(Folder::take(&path, false), Err(FolderError::InUse { .. })));
        let kept = Kept { cluster_id: Uuid::from_u128(7), nodes: 3 };
        first.keep(&kept).expect("kept");
        first.leave(true).expect("left");
        let second = Folder::take(&path, true).expect("a folder");
        assert_eq!(second.kept().expect("read"), Some(kept));
        drop(second);
        let third = Folder::take(&path, false).expect("a folder");
        assert_eq!(third.kept().expect("read"), None, "without --keep it begins anew");
        third.leave(false).expect("left");
        assert!(!path.exists());
    }
}
