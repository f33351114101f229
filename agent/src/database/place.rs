//! Where a database lies on this node: its folder, its owner, the folder of its log.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

/// Why there can be no database at its path.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder is the operator's to make: a disk that is not mounted must not be taken for an empty database.
    #[error("folder {0} does not exist on this node: make it, or mount its disk")]
    Folder(PathBuf),
    /// A file where the folder should be.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// The application's user.
    #[error("there is no {kind} {name} on this node")]
    Nobody {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The file cannot be made or looked at.
    #[error("{path} cannot be made or given to its user")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        why: io::Error,
    },
}

impl PlaceError {
    /// In a word, for a condition.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Folder(_) => "FolderMissing",
            Self::NotAFolder(_) => "NotAFolder",
            Self::Nobody { .. } => "UserMissing",
            Self::File { .. } => "Unreadable",
        }
    }
}

/// Who the database belongs to, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The unit's user; none where it is not known: then the file belongs to whom its folder belongs to.
    pub user: Option<String>,
    /// The unit's group.
    pub group: Option<String>,
}

/// Sees that the database's folder is there, and makes the file, empty, for its user, where there is none. To be called while nobody has the
/// file open in this process: closing it drops SQLite's locks.
pub(super) fn prepare(path: &Path, owner: &Owner) -> Result<(), PlaceError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let metadata = std::fs::metadata(folder).map_err(|_| PlaceError::Folder(folder.to_owned()))?;
    if !metadata.is_dir() {
        return Err(PlaceError::NotAFolder(folder.to_owned()));
    }
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let ids = ids(owner, &metadata)?;
    let failed = |why| PlaceError::File { path: path.to_owned(), why };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path).map_err(failed)?;
    let mine = file.metadata().map_err(failed)?;
    // Who is not root runs applications as itself.
    if ids == (mine.uid(), mine.gid()) || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    fchown(&file, Some(ids.0), Some(ids.1)).map_err(failed)
}

fn ids(owner: &Owner, folder: &std::fs::Metadata) -> Result<(u32, u32), PlaceError> {
    let Some(name) = &owner.user else { return Ok((folder.uid(), folder.gid())) };
    let nobody = |kind, name: &str| PlaceError::Nobody { kind, name: name.to_owned() };
    let user = match name.parse::<u32>() {
        Ok(id) => User::from_uid(id.into()),
        Err(_) => User::from_name(name),
    };
    let user = user.ok().flatten().ok_or_else(|| nobody("user", name))?;
    let Some(group) = &owner.group else { return Ok((user.uid.as_raw(), user.gid.as_raw())) };
    let found = match group.parse::<u32>() {
        Ok(id) => Group::from_gid(id.into()),
        Err(_) => Group::from_name(group),
    };
    let found = found.ok().flatten().ok_or_else(|| nobody("group", group))?;
    Ok((user.uid.as_raw(), found.gid.as_raw()))
}

/// Where log and lineage of a database are: an App that is deleted and made again has another one.
pub(super) fn state_folder(state_dir: &Path, app: &str, uid: &str) -> PathBuf {
    state_dir.join("databases").join(app).join(uid)
}

/// Removes what Apps of this name left that are no more, but for transactions that nobody else had: those are people's to remove.
pub(super) fn sweep(folder: &Path) {
    let Some(all) = folder.parent() else { return };
    let folders = std::fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path());
    for old in folders.filter(|other| other != folder) {
        let mut names = std::fs::read_dir(&old).into_iter().flatten().flatten().map(|entry| entry.file_name());
        if names.any(|name| name.as_encoded_bytes().starts_with(b"divergence-")) {
            continue;
        }
        if let Err(error) = std::fs::remove_dir_all(&old) {
            tracing::warn!(folder = %old.display(), "the log of a database that is no more cannot be removed: {error}");
        }
    }
}

/// The id of a database: that of its App, in other bytes.
pub(super) fn id(uid: &str) -> [u8; 16] {
    match uuid::Uuid::parse_str(uid) {
        Ok(uuid) => uuid.into_bytes(),
        Err(_) => crate::lease::fnv(uid.bytes()).to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_told_and_never_made() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("data/app.db");
        let error = prepare(&path, &Owner::default()).expect_err("there is no folder");
        assert_eq!(error.reason(), "FolderMissing");
        assert!(!dir.path().join("data").exists());
        std::fs::write(dir.path().join("data"), "").expect("a file");
        assert_eq!(prepare(&path, &Owner::default()).expect_err("a file").reason(), "NotAFolder");
    }

    #[test]
    fn the_file_is_made_once_and_left_alone_afterwards() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("app.db");
        prepare(&path, &Owner::default()).expect("a file");
        std::fs::write(&path, "kept").expect("a write");
        prepare(&path, &Owner::default()).expect("the same file");
        assert_eq!(std::fs::read(&path).expect("a read"), b"kept");
        let nobody = Owner { user: Some("no-such-user-here".to_owned()), group: None };
        assert_eq!(prepare(&dir.path().join("b.db"), &nobody).expect_err("no such user").reason(), "UserMissing");
    }

    #[test]
    fn what_earlier_apps_left_goes_but_for_divergence() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let of = |uid: &str| state_folder(state.path(), "db", uid);
        for uid in ["now", "old", "kept"] {
            std::fs::create_dir_all(of(uid)).expect("a folder");
            std::fs::write(of(uid).join("log-1"), "x").expect("a file");
        }
        std::fs::write(of("kept").join("divergence-e1-t5-t7"), "x").expect("a file");
        sweep(&of("now"));
        assert_eq!(["now", "old", "kept"].map(|uid| of(uid).exists()), [true, false, true]);
    }

    #[test]
    fn ids_of_apps_are_told_apart() {
        assert_ne!(id("6f1c2a34-8b5d-4e6f-9a70-1b2c3d4e5f60"), id("6f1c2a34-8b5d-4e6f-9a70-1b2c3d4e5f61"));
        assert_ne!(id("u"), id("v"));
    }
}
