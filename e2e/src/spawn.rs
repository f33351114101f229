//! Starting processes: in a cgroup, in a namespace, within a time limit.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, LabError, Result};

/// What a finished program left behind.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 plus the signal's number, as a shell counts.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Ran {
    /// Whether the exit code is zero.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output of a program that succeeded.
    ///
    /// # Errors
    /// [`LabError::Failed`] with what it wrote to standard error.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { self.stdout } else { self.stderr };
        Err(LabError::Failed { command: self.command, code: self.code, stderr: said.trim().to_owned() })
    }
}

/// Exit code as a shell counts: 128 plus the signal's number for a killed program.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Runs a command to its end with nothing on standard input. After `limit` it is ended by `kill`, by default [`kill_pid`].
pub(crate) fn run(mut command: Command, label: &str, limit: Duration, kill: impl FnOnce(Pid)) -> Result<Ran> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let child = command.spawn().context(|| format!("start {label}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let (sender, receiver) = mpsc::sync_channel(1);
    // The waiting thread owns the child, so the pid stays its own until the result has been sent.
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(limit) else {
        kill(pid);
        return Err(LabError::TimedOut { what: label.to_owned(), waited: limit, last: "still running; killed".to_owned() });
    };
    let Output { status, stdout, stderr } = output.context(|| format!("wait for {label}"))?;
    Ok(Ran {
        command: label.to_owned(),
        code: exit_code(status),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// Kills one process, with no regard to what it started.
fn kill_pid(pid: Pid) {
    // The only error is that it has ended by itself just now.
    let _ended = kill(pid, Signal::SIGKILL);
}

/// No tool of the host that the lab uses takes this long unless something is wrong.
const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// Runs one of the host's own tools (`ip`, `systemctl`) and returns its output.
pub(crate) fn tool<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    let label = line(&command);
    run(command, &label, TOOL_LIMIT, kill_pid)?.ok()
}

/// Runs `work` in a thread of its own that has entered the network namespace behind `path`.
///
/// Namespaces belong to threads: sockets opened and programs started by `work` are inside, the caller stays outside.
pub(crate) fn in_netns<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let ns = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
    in_thread(move || {
        setns(&ns, CloneFlags::CLONE_NEWNET).context(|| format!("enter network namespace {}", path.display()))?;
        Ok(work())
    })
}

/// Runs `work` in a thread of its own with a private copy of the mounts. What it mounts is seen by itself and by the
/// programs it starts, and goes when the last of them has ended: nothing to clean up, whatever happens.
pub(crate) fn with_private_mounts<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS).context(|| "make a mount namespace".to_owned())?;
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context(|| "make the mounts private".to_owned())?;
        work()
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// A command that moves itself into the cgroup behind `procs` before its program starts, so that no child of it can
/// ever be outside.
pub(crate) fn command_in_cgroup(procs: &Path, program: impl AsRef<OsStr>) -> Result<Command> {
    let file = File::options().write(true).open(procs).context(|| format!("open {}", procs.display()))?;
    let mut command = Command::new(program);
    pre_exec::join(&mut command, file);
    Ok(command)
}

#[expect(unsafe_code, reason = "std offers no safe way to run code between fork and exec; see the note at the call")]
mod pre_exec {
    use super::{Command, File, io};
    use std::io::Write;
    use std::os::unix::process::CommandExt;

    pub(super) fn join(command: &mut Command, file: File) {
        // SAFETY: after the fork only async-signal-safe calls are allowed. This closure makes one write(2) on a
        // descriptor that was opened before; it neither allocates nor takes a lock, and its error is a bare errno.
        unsafe {
            command.pre_exec(move || match (&file).write(b"0") {
                Ok(_) => Ok(()),
                Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0))),
            });
        }
    }
}

/// A program and its arguments as owned strings, whatever kind of strings they came as.
pub(crate) fn words<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Result<Vec<OsString>> {
    let words: Vec<OsString> = argv.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if words.is_empty() {
        return Err(LabError::Invalid("no command given".to_owned()));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn exit_codes_and_output_are_reported() {
        let ran = run(bash("echo out; echo err >&2; exit 7"), "it", TOOL_LIMIT, kill_pid).unwrap();
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
        let error = ran.ok().unwrap_err();
        assert!(matches!(&error, LabError::Failed { code: 7, stderr, .. } if stderr == "err"), "{error}");
        assert_eq!(run(bash("kill -TERM $$"), "it", TOOL_LIMIT, kill_pid).unwrap().code, 143);
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let error = run(bash("exec sleep 600"), "it", Duration::from_millis(50), kill_pid).unwrap_err();
        assert!(matches!(error, LabError::TimedOut { .. }), "{error}");
    }
}
