//! Files that are written whole, all or none, and never over others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::SetupError;

/// Longest configuration or join file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewFile {
    /// Its name in the folder.
    pub(crate) name: &'static str,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Its text.
    pub(crate) text: String,
}

/// Those of the files that are in `folder` already.
pub(crate) fn existing(folder: &Path, files: &[NewFile]) -> Vec<PathBuf> {
    files.iter().map(|file| folder.join(file.name)).filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// Writes all files, durably; the folder is made if it does not exist.
///
/// # Errors
/// [`SetupError::Exists`], [`SetupError::Write`]: then none of them is there.
pub(crate) fn write_all(folder: &Path, files: &[NewFile]) -> Result<(), SetupError> {
    let there = existing(folder, files);
    if !there.is_empty() {
        return Err(SetupError::Exists(there));
    }
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| SetupError::Write { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(fail(folder))?;
    let mut written: Vec<PathBuf> = Vec::new();
    for file in files {
        let path = folder.join(file.name);
        if let Err(source) = write_new(folder, file) {
            // What was written a moment ago is ours, and half a configuration is worse than none.
            for path in &written {
                fs::remove_file(path).ok();
            }
            return Err(if source.kind() == io::ErrorKind::AlreadyExists {
                SetupError::Exists(vec![path])
            } else {
                SetupError::Write { path, source }
            });
        }
        written.push(path);
    }
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(fail(folder))
}

/// Gives a finished file its name by a hard link, which fails where the name is taken: nothing is ever replaced.
fn write_new(folder: &Path, file: &NewFile) -> io::Result<()> {
    let temporary = folder.join(format!(".{}.{}", file.name, std::process::id()));
    let fill = || {
        // From the first moment with these bits: a token is at no time readable by others.
        let mut open = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&temporary)?;
        open.set_permissions(fs::Permissions::from_mode(file.mode))?;
        open.write_all(file.text.as_bytes())?;
        open.sync_all()?;
        fs::hard_link(&temporary, folder.join(file.name))
    };
    let result = fill();
    fs::remove_file(&temporary).ok();
    result
}

/// A whole file, or stdin for `-`.
///
/// # Errors
/// [`SetupError::Read`], also for what is too long or no text.
pub(crate) fn read(path: &Path) -> Result<String, SetupError> {
    let stdin = path.as_os_str() == "-";
    let what = if stdin { "stdin".to_owned() } else { path.display().to_string() };
    let text = if stdin { limited(io::stdin()) } else { File::open(path).and_then(limited) };
    text.map_err(|source| SetupError::Read { what, source })
}

fn limited(reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    reader.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &'static str, mode: u32) -> NewFile {
        NewFile { name, mode, text: format!("text of {name}\n") }
    }

    #[test]
    fn files_get_their_bits_and_nothing_else_is_left() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("deep/etc");
        write_all(&folder, &[file("token", 0o600), file("cli.yaml", 0o644)]).unwrap();
        let bits = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((bits("token"), bits("cli.yaml")), (0o600, 0o644));
        assert_eq!(fs::read_to_string(folder.join("token")).unwrap(), "text of token\n");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn what_exists_is_named_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let present = folder.path().join("b");
        std::os::unix::fs::symlink("/nowhere", &present).unwrap();
        let error = write_all(folder.path(), &[file("a", 0o600), file("b", 0o600)]).unwrap_err();
        assert!(matches!(&error, SetupError::Exists(paths) if *paths == [present]), "{error}");
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn a_write_that_fails_takes_the_others_with_it() {
        let folder = tempfile::tempdir().unwrap();
        // A name with a folder that does not exist cannot be written, as on a full disk.
        let error = write_all(folder.path(), &[file("a", 0o600), file("no/such", 0o600)]).unwrap_err();
        assert!(matches!(error, SetupError::Write { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
