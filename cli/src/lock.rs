//! `clusterctl lock`: runs a command while a lock of the cluster is held, and no longer.
//!
//! The lock hangs on a connection to the agent of this node. What counts in the end is the deadline that the agent tells: when it passes, nobody
//! renewed the lease, whatever became of the agent, and the command ends before another node may have the lock.

mod child;
mod stream;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;

use crate::args::duration;
use crate::error::{CliError, Exit};
use crate::io::Io;
use child::Child;
use stream::{Stream, StreamError, Word};

/// What is lost gets so long to end by itself. Rule P3 has 100 ms between a deadline and the next holder.
const GRACE: Duration = Duration::from_millis(50);

/// `lock`.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The App and the name of the lock: `workers/nightly`
    #[arg(value_name = "APP/NAME")]
    name: String,

    /// Longest time to wait for it; 0s: have it at once or not at all
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,

    /// Share it among so many holders, 1 to 64; all have to say the same number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    semaphore: Option<u16>,

    /// Socket of this node's agent
    #[arg(long, value_name = "PATH", env = "CLUSTERCTL_SOCKET", hide_env_values = true, default_value = "/run/clusterctl/local.sock")]
    socket: PathBuf,

    /// Become the command, as a child of this process, and end with it
    #[arg(long, hide = true)]
    child_of: Option<i32>,

    /// What to run while it is held
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// What happens while the command runs.
enum Event {
    /// The agent says something.
    Told(Word),
    /// It says nothing any more.
    Silent,
    /// The command ended.
    Ended,
    /// Somebody wants this program to end.
    Signal(nix::sys::signal::Signal),
}

/// Runs a command under a lock; its exit code is the command's.
pub(crate) fn run(args: &LockArgs, io: &mut Io<'_>) -> Result<ExitCode, CliError> {
    if let Some(parent) = args.child_of {
        io.note(format_args!("error: {}", child::become_command(parent, &args.command)));
        return Ok(ExitCode::from(child::NOT_RUN));
    }
    let Some((app, name)) = args.name.split_once('/').filter(|(app, name)| [app, name].iter().all(|part| is_label(part))) else {
        let message = format!("{:?} names no lock", args.name);
        return Err(usage(message, Some("write APP/NAME, such as workers/nightly: two names of a-z, 0-9 and -".to_owned())));
    };
    let (mut stream, first) = match Stream::open(&args.socket, app, name, args.wait, args.semaphore) {
        Ok(opened) => opened,
        Err(error) => return Ok(refused(&error, args, io)),
    };
    let signals = child::block_signals();
    let mut child = match Child::start(args, &first) {
        Ok(child) => child,
        Err(error) => return Err(usage(format!("cannot run {}: {error}", args.command[0].display()), None)),
    };
    let (sender, events) = channel();
    let (of_child, of_stream, pid) = (sender.clone(), sender.clone(), child.pid());
    // Each of them ends with this program at the latest.
    std::thread::spawn(move || {
        child::wait_for_end(pid);
        of_child.send(Event::Ended).ok();
    });
    std::thread::spawn(move || {
        while let Some(word) = stream.next() {
            if of_stream.send(Event::Told(word)).is_err() {
                return;
            }
        }
        of_stream.send(Event::Silent).ok();
    });
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    let mut until = first.until;
    loop {
        let left = until.saturating_sub(stream::boottime());
        let why = match events.recv_timeout(left) {
            Ok(Event::Ended) => return Ok(child.exit_code()),
            Ok(Event::Signal(signal)) => {
                child.signal(signal);
                continue;
            }
            Ok(Event::Told(word)) if !word.lost => {
                until = until.max(word.until);
                // A deadline that passed before it was moved on is a loss all the same; the next turn finds it.
                continue;
            }
            Ok(Event::Told(_)) => "the cluster says that it is lost",
            Ok(Event::Silent) => "the connection to the agent ended",
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => "it was not renewed in time",
        };
        io.note(format_args!("error: the lock {} is lost, the command is stopped: {why}", args.name));
        child.signal(nix::sys::signal::Signal::SIGTERM);
        let killed_at = stream::boottime() + GRACE;
        while let Some(left) = killed_at.checked_sub(stream::boottime()).filter(|left| !left.is_zero()) {
            match events.recv_timeout(left) {
                Ok(Event::Ended) | Err(_) => break,
                Ok(_) => {}
            }
        }
        // Also what the command started, if it ended without that.
        child.signal(nix::sys::signal::Signal::SIGKILL);
        child.exit_code();
        return Ok(Exit::Failed.into());
    }
}

const fn usage(message: String, hint: Option<String>) -> CliError {
    CliError::Usage { message, hint }
}

fn is_label(text: &str) -> bool {
    cluster_schemas::name::check_name(text).is_ok()
}

fn refused(error: &StreamError, args: &LockArgs, io: &mut Io<'_>) -> ExitCode {
    io.note(format_args!("error: the lock {} is not had: {error}", args.name));
    let exit = match error {
        StreamError::Socket { source, .. } => {
            let hint = match source.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    "is this a node of the cluster? Its agent makes the socket; --socket names another"
                }
                ErrorKind::PermissionDenied => "root may, and the group that agent.yaml gives the socket (docs/local-api.md)",
                _ => "the agent's log may tell more: journalctl -u cluster-agent",
            };
            io.note(format_args!("hint: {hint}"));
            Exit::Unreachable
        }
        StreamError::Refused { status: 503, .. } | StreamError::Answer { .. } => Exit::Unreachable,
        StreamError::Refused { kind, .. } if kind == "held" => Exit::Timeout,
        StreamError::Refused { .. } => Exit::Failed,
    };
    exit.into()
}
