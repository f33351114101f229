//! Manifests from files, folders and stdin: all are read and checked before anything is sent.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cluster_schemas::manifest::{self, Diagnostics, FILE_BYTES_MAX, ParsedApp};

use crate::args::FileArgs;

/// Most files that are read.
const FILES_MAX: usize = 10_000;
/// Deepest folder that `--recursive` reads.
const FOLDER_DEPTH_MAX: usize = 32;
/// What stdin is called in messages.
pub(crate) const STDIN_NAME: &str = "stdin";

/// Why the input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Some files cannot be read; all of them are named.
    #[error("{}", .0.join("\n"))]
    Read(Vec<String>),
    /// A folder, or all files together, have too much in them.
    #[error("{0}")]
    TooMuch(String),
    /// A folder has no manifests.
    #[error("no *.yaml, *.yml or *.json in the folder {}", .0.display())]
    EmptyFolder(PathBuf),
    /// The files have no App.
    #[error("no App in {0}")]
    Empty(String),
    /// Stdin is named twice.
    #[error("stdin (-) can be read once only")]
    StdinTwice,
    /// Files that cannot be brought into the canonical form.
    #[error("{0}")]
    Unformattable(String),
    /// Apps that are wrong.
    #[error("{0}")]
    Invalid(Diagnostics),
}

impl InputError {
    /// What to do.
    pub(crate) fn hint(&self) -> Option<String> {
        matches!(self, Self::EmptyFolder(_)).then(|| "-R reads the folders within it too".to_owned())
    }
}

/// All Apps of the input in the order of the arguments, the files of a folder sorted by name.
///
/// # Errors
/// Every file that cannot be read, else everything that is wrong in any of them.
pub(crate) fn read(args: &FileArgs, stdin: &mut dyn Read) -> Result<Vec<ParsedApp>, InputError> {
    let sources = sources(args, stdin)?;
    let mut apps = Vec::new();
    let mut problems = Diagnostics::default();
    for (name, text) in &sources {
        match manifest::parse(name, text) {
            Ok(parsed) => apps.extend(parsed),
            Err(found) => problems.merge(found),
        }
    }
    problems.merge(manifest::check_duplicates(&apps));
    problems.into_result().map_err(InputError::Invalid)?;
    if apps.is_empty() {
        let names: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
        return Err(InputError::Empty(names.join(", ")));
    }
    Ok(apps)
}

/// Name and text of every file, in the order of the arguments.
///
/// # Errors
/// Every file that cannot be read.
pub(crate) fn sources(args: &FileArgs, stdin: &mut dyn Read) -> Result<Vec<(String, String)>, InputError> {
    let mut sources: Vec<(String, String)> = Vec::new();
    let mut unreadable = Vec::new();
    let mut take = |name: String, text: io::Result<String>| match text {
        Ok(text) => sources.push((name, text)),
        Err(error) => unreadable.push(format!("cannot read {name}: {error}")),
    };
    let mut stdin_read = false;
    let mut count = 0;
    for path in &args.files {
        if path.as_os_str() == "-" {
            if std::mem::replace(&mut stdin_read, true) {
                return Err(InputError::StdinTwice);
            }
            take(STDIN_NAME.to_owned(), limited(&mut *stdin));
            continue;
        }
        for file in expand(path, args.recursive)? {
            count += 1;
            if count > FILES_MAX {
                return Err(InputError::TooMuch(format!("more than {FILES_MAX} files")));
            }
            take(file.display().to_string(), File::open(&file).and_then(limited));
        }
    }
    if !unreadable.is_empty() {
        return Err(InputError::Read(unreadable));
    }
    Ok(sources)
}

/// The files that `path` means: itself, or the manifests of the folder.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, InputError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, recursive, 0, &mut files)?;
    if files.is_empty() {
        return Err(InputError::EmptyFolder(path.to_owned()));
    }
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, recursive: bool, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
    if depth > FOLDER_DEPTH_MAX {
        return Err(InputError::TooMuch(format!("folders are nested more than {FOLDER_DEPTH_MAX} deep at {}", folder.display())));
    }
    let unreadable = |error: io::Error| InputError::Read(vec![format!("cannot read the folder {}: {error}", folder.display())]);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        // Links to folders are not followed (they may lead in circles); links to files are.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if recursive {
                collect(&path, recursive, depth + 1, files)?;
            }
        } else if path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)) && !path.is_dir() {
            if files.len() >= FILES_MAX {
                return Err(InputError::TooMuch(format!("more than {FILES_MAX} files in {}", folder.display())));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// The whole text, if it is text and no longer than a manifest may be.
fn limited(reader: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text from byte {at} on"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "apiVersion: cluster/v1\nkind: App\nmetadata: {name: NAME}\nspec: {mode: Spread, exec: {command: [/bin/true]}}\n";

    fn app(name: &str) -> String {
        ONE.replace("NAME", name)
    }

    fn args(files: &[&Path], recursive: bool) -> FileArgs {
        FileArgs { files: files.iter().map(|f| (*f).to_owned()).collect(), recursive }
    }

    fn names(apps: &[ParsedApp]) -> Vec<&str> {
        apps.iter().map(|p| p.app.metadata.name.as_str()).collect()
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names_and_deeper_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("b")).unwrap();
        for (file, name) in [("c.yml", "three"), ("a.yaml", "one"), ("b/x.json", "two"), ("notes.txt", "never")] {
            fs::write(root.join(file), app(name)).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/circle.yaml")).unwrap();
        assert_eq!(names(&read(&args(&[root], false), &mut io::empty()).unwrap()), ["one", "three"]);
        assert_eq!(names(&read(&args(&[root], true), &mut io::empty()).unwrap()), ["one", "two", "three"]);
    }

    #[test]
    fn stdin_is_a_file_like_another_but_only_once() {
        let dash = Path::new("-");
        let parsed = read(&args(&[dash], false), &mut app("piped").as_bytes()).unwrap();
        assert_eq!((names(&parsed), parsed[0].file.as_str()), (vec!["piped"], "stdin"));
        assert!(matches!(read(&args(&[dash, dash], false), &mut io::empty()), Err(InputError::StdinTwice)));
    }

    #[test]
    fn everything_that_cannot_be_read_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary.yaml");
        fs::write(&binary, b"a: \xff\xfe").unwrap();
        let missing = folder.path().join("missing.yaml");
        let error = read(&args(&[&missing, &binary], false), &mut io::empty()).unwrap_err().to_string();
        assert!(
            error.contains("missing.yaml: No such file") && error.contains("binary.yaml: it is not UTF-8 text from byte 3 on"),
            "{error}"
        );
    }

    #[test]
    fn nothing_to_do_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(&args(&[folder.path()], false), &mut io::empty()), Err(InputError::EmptyFolder(_))));
        let error = read(&args(&[Path::new("-")], false), &mut "# nothing\n".as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "no App in stdin");
    }

    #[test]
    fn too_long_a_file_is_refused() {
        let text = "#".repeat(FILE_BYTES_MAX + 1);
        let error = read(&args(&[Path::new("-")], false), &mut text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("stdin: it is longer than 1048576 bytes"), "{error}");
    }

    #[test]
    fn one_name_in_two_files_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), app("twin")).unwrap();
        fs::write(folder.path().join("b.yaml"), app("twin")).unwrap();
        let error = read(&args(&[folder.path()], false), &mut io::empty()).unwrap_err().to_string();
        assert!(error.contains("twin") && error.contains("a.yaml") && error.contains("b.yaml"), "{error}");
    }
}
