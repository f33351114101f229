//! A cgroup for one command, so that the command ends as a whole: `nsenter` stays outside, its child is inside, and killing
//! the one leaves the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Context, LabError, Result};
use crate::spawn::exit_code;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The cgroup of one command, below that of the node (or of the client).
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let dir = parent.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&dir).context(|| format!("create cgroup {}", dir.display()))?;
        Ok(Self(dir))
    }

    pub(crate) fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    pub(crate) fn kill(&self) {
        // It is gone when the node was crashed meanwhile.
        let _gone = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What a command left running in the background keeps its cgroup until the node is switched off.
        let _in_use = fs::remove_dir(&self.0);
    }
}

/// A command that runs beside the test. It is killed, with all it started, when this is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    group: Group,
}

impl Background {
    pub(crate) fn start(mut command: std::process::Command, group: Group) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, group })
    }

    /// The exit code if the command has ended, counted as a shell does.
    ///
    /// # Errors
    /// [`LabError::Io`] when the kernel does not know it.
    pub fn ended(&mut self) -> Result<Option<i32>, LabError> {
        self.child.try_wait().map(|status| status.map(exit_code)).context(|| "look at a command".to_owned())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.group.kill();
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
