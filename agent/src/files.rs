//! Whole files, replaced in one step: a reader sees the old text or the new one, never a part, and a crash leaves no half file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a write must outlive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a crash of this process only: right for everything under `/run`.
    Process,
    /// Survives a power failure: the text is on disk before the name points to it, and the name is on disk on return.
    Power,
}

/// Begin and end of the names that files have while they are being written; [`sweep`] goes by them.
const TEMPORARY_PREFIX: &str = ".clusterctl-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Tells the temporary files of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Replaces the file at `path` by one with this text and these permission bits (not narrowed by the umask). The text goes to a file
/// beside it first, so the folder must exist and be writable. A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// The system's; the file at `path` is as it was then, and nothing is left beside it.
pub fn write_atomic(path: &Path, text: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", std::process::id()));
    let result = fill(&temporary, text, mode, durability).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        // The first error is the one to report; a file that cannot be removed now is removed by `sweep`.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    if durability == Durability::Power {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn fill(temporary: &Path, text: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    // A process before us with the same id may have left one of this name.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if durability == Durability::Power {
        file.sync_all()?;
    }
    Ok(())
}

/// Writes as [`write_atomic`] does, unless the file has this text already (its permission bits are not looked at then).
/// Returns whether it was written.
///
/// # Errors
/// As [`write_atomic`], and those of reading.
pub fn write_if_changed(path: &Path, text: &[u8], mode: u32, durability: Durability) -> io::Result<bool> {
    match read_limited(path, text.len() + 1) {
        Ok(Some(present)) if present == text => return Ok(false),
        Ok(_) => {}
        // Longer than the new text, so it is another one.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {}
        Err(error) => return Err(error),
    }
    write_atomic(path, text, mode, durability)?;
    Ok(true)
}

/// Reads a whole file of at most `limit` bytes; `None` if there is none.
///
/// # Errors
/// The system's, and [`io::ErrorKind::FileTooLarge`] beyond the limit.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    let read = file.take(limit as u64 + 1).read_to_end(&mut text)?;
    if read > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(Some(text))
}

/// Removes a file; already gone is success. Returns whether it was there.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what interrupted writes of earlier processes left in `folder`. Only for a folder that no other living process writes to
/// by this module. Returns what was removed; a missing folder has nothing.
///
/// # Errors
/// The system's.
pub fn sweep(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let own = format!("{TEMPORARY_PREFIX}{}-", std::process::id());
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let left_over = name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) && !name.starts_with(&own);
        if left_over && remove(&entry.path())? {
            removed.push(entry.path());
        }
    }
    removed.sort();
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("role.json");
        write_atomic(&path, b"a longer text", 0o640, Durability::Power).unwrap();
        write_atomic(&path, b"short", 0o644, Durability::Process).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(names(folder.path()), ["role.json"]);
    }

    #[test]
    fn a_reader_with_the_old_file_open_keeps_the_old_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write_atomic(&path, b"old", 0o600, Durability::Process).unwrap();
        let mut reader = File::open(&path).unwrap();
        write_atomic(&path, b"new", 0o600, Durability::Process).unwrap();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "old", "a write in place would have changed what the reader has open");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        write_atomic(&path, b"text", 0o600, Durability::Process).unwrap_err();
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(names(&path), ["inside"]);
        write_atomic(&folder.path().join("no/such/folder"), b"x", 0o600, Durability::Process).unwrap_err();
    }

    #[test]
    fn an_equal_text_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert!(write_if_changed(&path, b"one", 0o600, Durability::Process).unwrap());
        let inode = fs::metadata(&path).unwrap().ino();
        assert!(!write_if_changed(&path, b"one", 0o600, Durability::Process).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(write_if_changed(&path, b"on", 0o600, Durability::Process).unwrap());
        assert!(write_if_changed(&path, b"one", 0o600, Durability::Process).unwrap());
        assert!(write_if_changed(&path, b"a much longer text", 0o600, Durability::Process).unwrap());
        assert!(write_if_changed(&path, b"o", 0o600, Durability::Process).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"o");
    }

    #[test]
    fn reading_is_bounded_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(read_limited(&path, 4).unwrap(), None);
        fs::write(&path, "four").unwrap();
        assert_eq!(read_limited(&path, 4).unwrap().unwrap(), b"four");
        assert_eq!(read_limited(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn sweep_takes_what_others_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let own = format!(".clusterctl-{}-7.tmp", std::process::id());
        for name in [".clusterctl-0-1.tmp", "unit.service", own.as_str(), ".other.tmp"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep(folder.path()).unwrap(), [folder.path().join(".clusterctl-0-1.tmp")]);
        let mut left = [own, ".other.tmp".to_owned(), "unit.service".to_owned()];
        left.sort();
        assert_eq!(names(folder.path()), left);
        assert_eq!(sweep(&folder.path().join("missing")).unwrap(), Vec::<PathBuf>::new());
        assert!(remove(&folder.path().join("unit.service")).unwrap());
        assert!(!remove(&folder.path().join("unit.service")).unwrap());
    }
}
