//! F6 over a boot: what keeps the units of exclusive Apps from starting by themselves lies below `/run` and is gone after a boot, while a unit
//! that is enabled starts long before the agent. So the agent keeps a copy of each drop-in, and a generator, which systemd runs
//! before it starts anything, puts the copies back (systemd.generator(7)).
//!
//! A copy goes with its App. Where clusterctl is not installed any more, so is the generator, and nothing keeps a unit from starting.

use std::fs;
use std::io;
use std::path::Path;

use crate::files::{self, Durability};

/// Folder of the copies, a file for each unit.
pub const FOLDER: &str = "/var/lib/clusterctl/gates";
/// Name of the drop-in that has systemd ask the guard; late, so that it is not taken back by another.
pub const DROP_IN: &str = "99-clusterctl-fence.conf";
/// Longest text of a drop-in, in bytes.
const TEXT_MAX: usize = 16 * 1024;
/// Most copies that are put back.
const COPIES_MAX: usize = 4096;

/// Keeps the drop-in of `unit` for the next boot, or forgets it.
///
/// # Errors
/// The file system's.
pub fn keep(folder: &Path, unit: &str, text: Option<&str>) -> io::Result<()> {
    let path = folder.join(unit);
    let Some(text) = text else { return files::remove(&path).map(drop) };
    if files::read_limited(&path, TEXT_MAX).is_ok_and(|present| present.as_deref() == Some(text.as_bytes())) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    files::write_atomic(&path, text.as_bytes(), 0o644, Durability::Power)
}

/// Puts all copies into systemd's folder for generated units. What one of them has against it does not keep the others back.
///
/// # Errors
/// The first error, after all were tried. No folder of copies is none.
pub fn put_back(folder: &Path, generated: &Path) -> io::Result<()> {
    let copies = match fs::read_dir(folder) {
        Ok(copies) => copies,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut outcome = Ok(());
    for copy in copies.take(COPIES_MAX) {
        let done = copy.and_then(|copy| match copy.file_name().to_str().filter(|unit| unit.ends_with(".service")) {
            Some(unit) => put_back_one(&copy.path(), &generated.join(format!("{unit}.d"))),
            // Not ours, or one that was being written when the power went.
            None => Ok(()),
        });
        outcome = outcome.and(done);
    }
    outcome
}

fn put_back_one(copy: &Path, folder: &Path) -> io::Result<()> {
    let Some(text) = files::read_limited(copy, TEXT_MAX)? else { return Ok(()) };
    fs::create_dir_all(folder)?;
    fs::write(folder.join(DROP_IN), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_put_back_and_what_is_forgotten_is_not() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (kept, generated) = (root.path().join("gates"), root.path().join("generated"));
        put_back(&kept, &generated).expect("nothing to put back");
        assert!(!generated.exists());
        let text = "[Service]\nExecCondition=+/usr/lib/clusterctl/cluster-guard check app/web\n";
        for unit in ["nginx.service", "worker@1.service"] {
            keep(&kept, unit, Some(text)).expect("kept");
            keep(&kept, unit, Some(text)).expect("kept already");
        }
        keep(&kept, "worker@1.service", None).expect("forgotten");
        keep(&kept, "worker@1.service", None).expect("forgotten already");
        fs::write(kept.join(".clusterctl-half"), "[Serv").expect("a half one");
        // One that cannot be put back does not keep the others back.
        fs::create_dir(kept.join("folder.service")).expect("a folder");
        assert!(put_back(&kept, &generated).is_err());
        let drop_in = generated.join("nginx.service.d").join(DROP_IN);
        assert_eq!(fs::read_to_string(drop_in).expect("a drop-in"), text);
        assert_eq!(fs::read_dir(&generated).expect("a folder").count(), 1);
    }
}
