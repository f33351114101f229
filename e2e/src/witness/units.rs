//! Whether a unit runs on a node, from the host's view of its cgroup.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The file is two short lines.
const EVENTS_MAX: usize = 128;

/// The cgroup of one unit on one node. It comes and goes with the unit.
#[derive(Debug)]
pub(super) struct UnitGroup {
    folder: PathBuf,
    path: PathBuf,
    open: Option<File>,
}

impl UnitGroup {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), path: folder.join("cgroup.events"), open: None }
    }

    /// Whether it has a task that is not frozen.
    pub(super) fn runs(&mut self) -> bool {
        // A folder that was removed and made again is another one: what was open then reads as an error.
        if let Some(found) = self.open.as_ref().and_then(read) {
            return found;
        }
        self.open = File::open(&self.path).ok();
        self.open.as_ref().and_then(read).unwrap_or(false)
    }

    /// Whether one of its tasks is the unit's own: not the guard's gate before it (rule F6), and not a child of systemd's that has not
    /// become a program yet, whose name is in parentheses. Asked only where two seem to run, for it costs more.
    pub(super) fn executes(&self) -> bool {
        let pids = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        pids.lines().any(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| is_own(name.trim_end())))
    }
}

/// The guard's program, and systemd's before and while it becomes the unit's.
const NOT_OWN: [&str; 3] = ["cluster-guard", "systemd", "systemd-executor"];

fn is_own(name: &str) -> bool {
    !(name.starts_with('(') || NOT_OWN.iter().any(|other| other.get(..15).unwrap_or(other) == name))
}

fn read(file: &File) -> Option<bool> {
    let mut bytes = [0; EVENTS_MAX];
    let length = file.read_at(&mut bytes, 0).ok()?;
    runs(std::str::from_utf8(bytes.get(..length)?).ok()?)
}

/// What `cgroup.events` says; `None` when it says nothing.
fn runs(events: &str) -> Option<bool> {
    let value = |key: &str| events.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|value| value == "1");
    Some(value("populated")? && !value("frozen").unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_or_empty_unit_does_not_run() {
        assert_eq!(runs("populated 1\nfrozen 0\n"), Some(true));
        assert_eq!(runs("populated 1\nfrozen 1\n"), Some(false));
        assert_eq!(runs("populated 0\nfrozen 0\n"), Some(false));
        assert_eq!(runs("populated 1\n"), Some(true), "a kernel without a freezer");
        assert_eq!(runs(""), None);
    }

    #[test]
    fn the_gate_and_what_is_not_a_program_yet_are_not_the_unit() {
        assert!(is_own("demo") && is_own("nginx"));
        assert!(!is_own("cluster-guard") && !is_own("(demo)"));
        assert!(!is_own("systemd") && !is_own("systemd-executo"), "the kernel keeps fifteen letters");
    }

    #[test]
    fn a_folder_that_comes_back_is_read_anew() {
        let folder = std::env::temp_dir().join(format!("clusterctl-witness-{}", std::process::id()));
        let mut unit = UnitGroup::new(&folder);
        assert!(!unit.runs());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(unit.runs());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
