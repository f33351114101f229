//! The command that runs under a lock.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getppid};

use super::LockArgs;
use super::stream::Word;

/// The program cannot be run, as shells say it.
pub(super) const NOT_RUN: u8 = 127;

/// A command under way.
pub(super) struct Child {
    process: std::process::Child,
    /// It leads a process group of its own: what it started is told with it.
    group: bool,
}

impl Child {
    /// Starts it, by way of this program: the process that becomes the command is killed when this one is.
    pub(super) fn start(args: &LockArgs, held: &Word) -> std::io::Result<Self> {
        // At a terminal the command must be of the group that may read it.
        let group = !std::io::stdin().is_terminal();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("lock").arg(&args.name).arg("--child-of").arg(std::process::id().to_string()).arg("--").args(&args.command);
        command.env("CLUSTERCTL_LOCK", &args.name);
        command.env("CLUSTERCTL_LOCK_TOKEN", held.token.to_string());
        command.env("CLUSTERCTL_LOCK_PLACE", held.place.to_string());
        if group {
            command.process_group(0);
        }
        Ok(Self { process: command.spawn()?, group })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(i32::MAX))
    }

    /// Signals it, and what it started. It was not reaped yet, so that the number is no other's.
    pub(super) fn signal(&self, signal: Signal) {
        let told = if self.group { killpg(self.pid(), signal) } else { kill(self.pid(), signal) };
        // One that ended meanwhile needs no signal.
        told.ok();
    }

    /// Waits for its end. A signal is 128 and its number, as shells say it.
    pub(super) fn exit_code(&mut self) -> ExitCode {
        self.process.wait().map_or(ExitCode::from(NOT_RUN), |status| code(status).into())
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn ends() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Signals that ask this program to end go to the command instead: the lock is held until that ended.
pub(super) fn block_signals() -> SigSet {
    let signals = ends();
    // Where they cannot be held back they end this program, and the command with it.
    signals.thread_block().ok();
    signals
}

/// Waits until it ended, and leaves it to be reaped.
pub(super) fn wait_for_end(pid: Pid) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
}

/// Becomes the command. Returns only where that fails, with the reason.
pub(super) fn become_command(parent: i32, command: &[OsString]) -> String {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return format!("cannot have the command end with this program: {error}");
    }
    // The parent may have been killed before that was known.
    if getppid() != Pid::from_raw(parent) {
        return "the program that holds the lock is gone".to_owned();
    }
    // What is held back in this program is held back in its children, and the command has to hear it.
    if let Err(error) = ends().thread_unblock() {
        return format!("cannot let signals through: {error}");
    }
    let Some((program, arguments)) = command.split_first() else { return "no command".to_owned() };
    let error = Command::new(program).args(arguments).exec();
    format!("cannot run {}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
