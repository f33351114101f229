//! Nothing left behind, however a run ends: the work is done by a child, and its parent cleans up after it.
//!
//! One process alone could not: a lab that is just coming up holds its lock, and a signal or a panic in the middle of
//! that would have to undo what the same process is still doing. The parent kills the child first, and then nobody is.

use std::env;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getppid;

use super::left::left_of;
use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::wait::wait_until;

/// Set, to the parent's process id, for the child that does the work.
const CHILD: &str = "CLUSTERCTL_SUPERVISED_BY";

/// See [`clean_up`]. A fork takes milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Runs `work` in a child of this program and removes the lab of this name when it fails, panics or is interrupted. Call
/// it first thing in `main`, before any thread is started; it is called again in the child and runs `work` there.
///
/// # Errors
/// [`LabError::Busy`] while another run uses the same name, [`LabError::NotRoot`], [`LabError::Io`].
pub fn supervised(name: &str, work: impl FnOnce() -> ExitCode) -> Result<ExitCode> {
    if let Ok(parent) = env::var(CHILD) {
        // Without a parent nobody would clean up: then end at once, and the next run removes what is there.
        prctl::set_pdeathsig(Signal::SIGKILL).context(|| "ask to end with the parent".to_owned())?;
        return Ok(if getppid().to_string() == parent { work() } else { ExitCode::FAILURE });
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let _only = only_run(name)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context(|| "block signals".to_owned())?;
    let mut child = start()?;
    let code = wait(&mut child, &signals)?;
    if code != 0 {
        clean_up(name)?;
    }
    Ok(ExitCode::from(code))
}

/// The child is gone, but what it was forking at that moment may hold the lab's lock until it has become another program.
fn clean_up(name: &str) -> Result<()> {
    wait_until("the lab's lock", LOCK_LIMIT, || match Lab::remove(name) {
        Err(error @ LabError::Busy { .. }) => Err(error),
        done => Ok(done),
    })??;
    let left = left_of(name)?;
    if left.is_empty() { Ok(()) } else { Err(LabError::Invalid(format!("left behind: {}", left.join(", ")))) }
}

/// Two runs of one name would take each other's lab down. An abstract socket is nobody's once its process has ended.
fn only_run(name: &str) -> Result<UnixListener> {
    let socket = format!("clusterctl-lab-run-{name}");
    let bound = SocketAddr::from_abstract_name(&socket).and_then(|addr| UnixListener::bind_addr(&addr));
    bound.map_err(|_in_use| LabError::Busy { name: name.to_owned(), lock: format!("@{socket}").into() })
}

/// The child has a process group of its own: what a terminal sends on Ctrl-C goes to the parent alone, which decides. The
/// standard library gives it an empty signal mask.
fn start() -> Result<Child> {
    let this = env::current_exe().context(|| "find this program".to_owned())?;
    let mut command = Command::new(this);
    command.args(env::args_os().skip(1)).env(CHILD, std::process::id().to_string()).stdin(Stdio::null()).process_group(0);
    command.spawn().context(|| "start the child".to_owned())
}

/// The child's exit code, or 128 plus the number of the signal that ended the run.
fn wait(child: &mut Child, signals: &SigSet) -> Result<u8> {
    let action = || "wait for the child".to_owned();
    loop {
        match signals.wait().context(action)? {
            Signal::SIGCHLD => {
                if let Some(status) = child.try_wait().context(action)? {
                    return Ok(u8::try_from(crate::spawn::exit_code(status)).unwrap_or(1));
                }
            }
            signal => {
                child.kill().context(action)?;
                child.wait().context(action)?;
                let _closed = writeln!(io::stderr(), "\n{signal}: everything is taken down");
                return Ok(128 + u8::try_from(signal as i32).unwrap_or(0));
            }
        }
    }
}
