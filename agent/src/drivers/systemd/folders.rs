//! Unit files on disk: ours in the runtime folder, and everybody else's, which are only looked at.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::boot_gates::{self, DROP_IN};
use crate::drivers::unit_text::{MARK_MAX, UNIT_TEXT_MAX, owner};
use crate::drivers::{Gate, Installed, InstalledUnit, UnitError};
use crate::files::{self, Durability};

/// Where the files we write go. Gone after a boot, as they should be: only the agent starts what runs under the cluster.
pub(super) const RUNTIME: &str = "/run/systemd/system";

/// Every other folder that systemd 252 to 258 reads system units from (systemd.unit(5)), also those that come after ours: a file there
/// means that the unit's name is taken, and ours would shadow it.
const OTHERS: [&str; 12] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];
/// What it begins with.
const GATE_HEAD: &str = "# Written by clusterctl: this unit is exclusive and runs only where its lease is held.\n";
/// What the names of units begin with that the agent makes up.
const OUR_UNITS: &str = "clusterctl-";
/// Where the guard is, unless it is beside the agent.
const GUARD: &str = "/usr/lib/clusterctl/cluster-guard";
/// Most entries of the runtime folder that are looked at.
const ENTRIES_MAX: usize = 65_536;

/// The folders that units are read from.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    runtime: PathBuf,
    others: Vec<PathBuf>,
    /// The program that knows what is held.
    guard: PathBuf,
    /// Where drop-ins are kept for the next boot.
    kept: PathBuf,
}

impl Default for Folders {
    fn default() -> Self {
        // Beside the agent, wherever they were installed.
        let beside = std::env::current_exe().ok().and_then(|agent| Some(agent.parent()?.join("cluster-guard")));
        let guard = beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(GUARD));
        let (runtime, kept) = (PathBuf::from(RUNTIME), PathBuf::from(boot_gates::FOLDER));
        Self { runtime, others: OTHERS.iter().map(PathBuf::from).collect(), guard, kept }
    }
}

impl Folders {
    /// Where our file of this unit is, or would be. The name must have been checked.
    pub(super) fn path(&self, unit: &str) -> PathBuf {
        self.runtime.join(unit)
    }

    /// Writes the unit's file, unless there is a unit of that name that is not ours.
    pub(super) fn write(&self, unit: &str, content: &str) -> Result<Installed, UnitError> {
        check_content(unit, content)?;
        for folder in &self.others {
            refuse_foreign(unit, &folder.join(unit))?;
        }
        let path = self.path(unit);
        let present = match mark(&path).map_err(|source| reading(&path, source))? {
            Mark::Missing => None,
            Mark::Ours(_) => Some(files::read_limited(&path, UNIT_TEXT_MAX)),
            Mark::Foreign => return Err(refuse_foreign(unit, &path).err().unwrap_or_else(|| not_ours(unit, &path))),
        };
        let installed = match present {
            None => Installed::New,
            Some(Ok(Some(text))) if text == content.as_bytes() => return Ok(Installed::Unchanged),
            // Too long to be the new text, or gone since.
            Some(_) => Installed::Changed,
        };
        // Readable by all, as unit files are; secrets do not belong there.
        fs::create_dir_all(&self.runtime)
            .and_then(|()| files::write_atomic(&path, content.as_bytes(), 0o644, Durability::Process))
            .map_err(|source| UnitError::Io { action: "write", path, source })?;
        Ok(installed)
    }

    /// Removes the unit's file if it is ours.
    pub(super) fn remove(&self, unit: &str) -> Result<(), UnitError> {
        let path = self.path(unit);
        match mark(&path).map_err(|source| reading(&path, source))? {
            Mark::Ours(_) => files::remove(&path).map(drop).map_err(|source| UnitError::Io { action: "remove", path, source }),
            Mark::Missing | Mark::Foreign => Ok(()),
        }
    }

    /// Writes or removes the drop-in that has systemd ask the guard (F6), and its copy for the next boot. The copy goes first, since a reload of
    /// systemd puts back what it finds.
    pub(super) fn gate(&self, unit: &str, gate: Option<&Gate>, role_file: &Path) -> Result<(), UnitError> {
        let folder = self.runtime.join(format!("{unit}.d"));
        let path = folder.join(DROP_IN);
        let Some(Gate { slot, hot }) = gate else {
            self.keep(unit, None)?;
            files::remove(&path).map_err(|source| UnitError::Io { action: "remove", path, source })?;
            // Others may have drop-ins there; then the folder stays.
            let _still_used = fs::remove_dir(&folder);
            return Ok(());
        };
        // Nothing that these may be called needs quoting, and nothing else gets in here.
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/' | b'.' | b'_'));
        let (guard, role_file) = (self.guard.to_string_lossy(), role_file.to_string_lossy());
        if ![slot, &*guard, &*role_file].into_iter().all(plain) {
            return Err(UnitError::BadContent {
                unit: unit.to_owned(),
                reason: "its slot or a folder of clusterctl has a name that needs quoting",
            });
        }
        let ask = match hot {
            false => format!("ExecCondition=+{guard} check {slot}"),
            true => format!("ExecStartPre=+{guard} standby {slot} {role_file}"),
        };
        let text = format!("{GATE_HEAD}[Service]\n{ask}\n");
        if !files::read_limited(&path, UNIT_TEXT_MAX).is_ok_and(|present| present.as_deref() == Some(text.as_bytes())) {
            fs::create_dir_all(&folder)
                .and_then(|()| files::write_atomic(&path, text.as_bytes(), 0o644, Durability::Process))
                .map_err(|source| UnitError::Io { action: "write", path, source })?;
        }
        // Units of ours are gone after a boot, and so cannot start by themselves.
        let ours = matches!(mark(&self.path(unit)), Ok(Mark::Ours(_))) || unit.starts_with(OUR_UNITS);
        self.keep(unit, Some(&text).filter(|_| !ours).map(String::as_str))
    }

    fn keep(&self, unit: &str, text: Option<&str>) -> Result<(), UnitError> {
        boot_gates::keep(&self.kept, unit, text).map_err(|source| UnitError::Io { action: "keep", path: self.kept.join(unit), source })
    }

    /// All unit files that carry our mark.
    pub(super) fn ours(&self) -> Result<Vec<InstalledUnit>, UnitError> {
        let failed = |source| reading(&self.runtime, source);
        let entries = match fs::read_dir(&self.runtime) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ours = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            let entry = entry.map_err(failed)?;
            let Ok(unit) = entry.file_name().into_string() else { continue };
            if super::names::check(&unit).is_err() {
                continue;
            }
            let path = entry.path();
            if let Mark::Ours(app) = mark(&path).map_err(|source| reading(&path, source))? {
                ours.push(InstalledUnit { unit, app });
            }
        }
        ours.sort();
        Ok(ours)
    }
}

/// Checks that a text can be one of ours.
pub(super) fn check_content(unit: &str, content: &str) -> Result<(), UnitError> {
    let reason = if owner(content).is_none() {
        "its text does not begin with the mark of clusterctl"
    } else if content.len() > UNIT_TEXT_MAX {
        "its text is too long"
    } else if content.contains('\0') {
        "its text has a NUL character"
    } else {
        return Ok(());
    };
    Err(UnitError::BadContent { unit: unit.to_owned(), reason })
}

/// Whose a unit file is.
enum Mark {
    Missing,
    /// Ours, written for this App.
    Ours(String),
    Foreign,
}

fn mark(path: &Path) -> io::Result<Mark> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::Missing),
        Err(error) => return Err(error),
    };
    // A link, such as that of a masked unit, is never ours.
    if !kind.is_file() {
        return Ok(Mark::Foreign);
    }
    let mut begin = Vec::new();
    match fs::File::open(path) {
        // One more than the mark: the end of its line.
        Ok(file) => file.take(MARK_MAX as u64 + 1).read_to_end(&mut begin)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::Missing),
        Err(error) => return Err(error),
    };
    // Cut inside a character: what comes before is enough, the mark is ASCII.
    let text = String::from_utf8_lossy(&begin);
    Ok(owner(&text).map_or(Mark::Foreign, |app| Mark::Ours(app.to_owned())))
}

/// An error if there is a unit file at `path`, in whatever form.
fn refuse_foreign(unit: &str, path: &Path) -> Result<(), UnitError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            let link = metadata.is_symlink().then(|| fs::read_link(path).ok()).flatten();
            if link.is_some_and(|target| target == Path::new("/dev/null")) {
                return Err(UnitError::Masked { unit: unit.to_owned() });
            }
            Err(not_ours(unit, path))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(reading(path, error)),
    }
}

fn not_ours(unit: &str, path: &Path) -> UnitError {
    UnitError::NotOurs { unit: unit.to_owned(), path: path.to_owned() }
}

fn reading(path: &Path, source: io::Error) -> UnitError {
    UnitError::Io { action: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::unit_text::owned;
    use std::os::unix::fs::symlink;

    fn folders(root: &Path) -> Folders {
        let others = vec![root.join("etc"), root.join("usr")];
        others.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        Folders { runtime: root.join("run"), others, guard: PathBuf::from(GUARD), kept: root.join("kept") }
    }

    #[test]
    fn a_file_of_ours_is_written_changed_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        assert_eq!(folders.ours().unwrap(), []);
        let text = owned("api", "[Service]\nExecStart=/bin/true");
        assert_eq!(folders.write("api.service", &text).unwrap(), Installed::New);
        assert_eq!(folders.write("api.service", &text).unwrap(), Installed::Unchanged);
        assert_eq!(folders.write("api.service", &owned("api", "[Service]\n")).unwrap(), Installed::Changed);
        fs::write(root.path().join("run/other.service"), "[Unit]\n").unwrap();
        fs::write(root.path().join("run/binary.service"), [0xff; 500]).unwrap();
        assert_eq!(folders.ours().unwrap(), [InstalledUnit { unit: "api.service".to_owned(), app: "api".to_owned() }]);
        folders.remove("api.service").unwrap();
        folders.remove("api.service").unwrap();
        folders.remove("other.service").unwrap();
        assert!(!root.path().join("run/api.service").exists());
        assert!(root.path().join("run/other.service").exists());
    }

    #[test]
    fn f6_a_gate_is_a_drop_in_that_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let path = root.path().join("run/nginx.service.d/99-clusterctl-fence.conf");
        let role = Path::new("/run/clusterctl/web/role.json");
        let gate = |slot: &str, hot| Gate { slot: slot.to_owned(), hot };
        folders.gate("nginx.service", Some(&gate("app/web", false)), role).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("[Service]\nExecCondition=+/usr/lib/clusterctl/cluster-guard check app/web\n"), "{text}");
        folders.gate("nginx.service", Some(&gate("app/web", true)), role).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let asked = "ExecStartPre=+/usr/lib/clusterctl/cluster-guard standby app/web /run/clusterctl/web/role.json\n";
        assert!(text.ends_with(asked) && !text.contains("ExecCondition"), "{text}");
        assert!(folders.gate("nginx.service", Some(&gate("app/web; reboot", false)), role).is_err());
        let kept = root.path().join("kept");
        assert_eq!(fs::read_to_string(kept.join("nginx.service")).unwrap(), text, "for the next boot");
        folders.gate("clusterctl-api.service", Some(&gate("app/api", false)), role).unwrap();
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1, "a unit of ours is gone after a boot");
        folders.gate("nginx.service", None, role).unwrap();
        folders.gate("nginx.service", None, role).unwrap();
        assert!(!kept.join("nginx.service").exists());
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn the_longest_mark_is_read_whole() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let app = "a".repeat(63);
        folders.write("a.service", &owned(&app, "é".repeat(100).as_str())).unwrap();
        assert_eq!(folders.ours().unwrap()[0].app, app);
    }

    #[test]
    fn a_unit_of_somebody_else_is_never_edited_or_shadowed() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let text = owned("api", "[Service]\n");
        for folder in ["etc", "usr", "run"] {
            let path = root.path().join(folder).join("api.service");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "[Unit]\n# mine\n").unwrap();
            let error = folders.write("api.service", &text).unwrap_err();
            assert!(matches!(&error, UnitError::NotOurs { path: found, .. } if *found == path), "{folder}: {error:?}");
            assert!(error.is_permanent());
            assert_eq!(fs::read_to_string(&path).unwrap(), "[Unit]\n# mine\n");
            fs::remove_file(&path).unwrap();

            symlink("/dev/null", &path).unwrap();
            assert!(matches!(folders.write("api.service", &text).unwrap_err(), UnitError::Masked { .. }), "{folder}");
            folders.remove("api.service").unwrap();
            assert!(path.is_symlink(), "{folder}");
            fs::remove_file(&path).unwrap();

            symlink("/nowhere/api.service", &path).unwrap();
            assert!(matches!(folders.write("api.service", &text).unwrap_err(), UnitError::NotOurs { .. }), "{folder}");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(folders.write("api.service", &text).unwrap(), Installed::New);
    }

    #[test]
    fn text_without_our_mark_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        for bad in ["[Service]\n", "", &owned("api", "a\0b"), &owned("api", &"x".repeat(UNIT_TEXT_MAX)), &owned("Not A Name", "")] {
            assert!(matches!(folders.write("api.service", bad).unwrap_err(), UnitError::BadContent { .. }));
        }
        assert!(!root.path().join("run").exists());
    }
}
