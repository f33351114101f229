//! The guard process around [`cluster_fence::Guard`] (F1).
//!
//! systemd gives it a real-time priority and restarts it at once; it locks its memory, touches what it needs before the first round, and
//! then only looks, swaps, removes and kills. It links no NATS and no D-Bus.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cluster_fence::{Guard, TABLE, Table, clock};
use cluster_lease::time::Span;
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::identity;
use crate::watchdog::Watchdog;

/// The guard's own watchdog is told this often; systemd kills and restarts a guard that falls silent for a second (F1).
const WATCHDOG: Duration = Duration::from_millis(250);

/// An agent that was silent for longer missed a beat, and is looked for: where its process is gone, systemd is nudged each [`NUDGE`]. It lets timers
/// wait for up to 250 ms unless something wakes it, and so the restart of an agent that has a fraction of that (rule P6).
const AGENT_LATE: Span = Span::from_millis(26);
/// An agent that was silent for longer is not waited for any more.
const AGENT_GONE: Span = Span::from_millis(1_000);
/// Pause between two nudges, and between two looks for a late agent.
const NUDGE: Duration = Duration::from_millis(4);
/// With something that was fenced still there after this long, the watchdog is not told any more.
const KILL_PATIENCE: Span = Span::from_millis(5_000);

/// Runs until told to stop. `config`: the agent's configuration, for its `watchdog`.
#[must_use]
pub fn run(runtime: &Path, config: &Path) -> ExitCode {
    match prepare(runtime) {
        Ok((table, guard, stop)) => {
            let mut watchdog = watchdog(config);
            guard_until(&table, guard, &stop, watchdog.as_mut());
            match watchdog.map_or(Ok(()), Watchdog::stop) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("the watchdog cannot be stopped: {error}")),
            }
        }
        Err(why) => fail(&why),
    }
}

/// The watchdog of the configuration, running. Without one, or with a configuration that cannot be read, deadlines are kept all the same.
fn watchdog(config: &Path) -> Option<Watchdog> {
    let path = match crate::config::load(config) {
        Ok(config) => config.watchdog?,
        Err(error) => {
            say(&format!("no watchdog is told: {}", cluster_telemetry::chain(&error)));
            return None;
        }
    };
    match Watchdog::open(&path) {
        Ok(watchdog) => {
            say(&format!("watchdog {} is told while deadlines are kept", path.display()));
            Some(watchdog)
        }
        Err(error) => {
            say(&format!("watchdog {} cannot be opened, none is told: {error}", path.display()));
            None
        }
    }
}

fn prepare(runtime: &Path) -> Result<(Table, Guard, SignalFd), String> {
    let stop = stop_signals().map_err(|e| format!("cannot listen for signals: {e}"))?;
    std::fs::create_dir_all(runtime).map_err(|e| format!("cannot make {}: {e}", runtime.display()))?;
    let table = Table::open(&runtime.join(TABLE), boot()?).map_err(|e| cluster_telemetry::chain(&e))?;
    let guard = Guard::new().map_err(|e| format!("cannot open a netlink socket: {e}"))?;
    // F1: nothing of the guard may have to come from a disk when a deadline passes.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        say(&format!("memory is not locked, a deadline may be met late under memory pressure: {error}"));
    }
    Ok((table, guard, stop))
}

/// SIGTERM, to be read instead of ending the process: a watchdog has to be stopped first.
fn stop_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn boot() -> Result<u128, String> {
    let text = identity::boot_id().map_err(|e| format!("cannot read the boot id: {e}"))?;
    uuid::Uuid::parse_str(&text).map(|id| id.as_u128()).map_err(|e| format!("boot id {text:?}: {e}"))
}

fn guard_until(table: &Table, mut guard: Guard, stop: &SignalFd, mut watchdog: Option<&mut Watchdog>) {
    // Past deadlines are fenced in the very first round, the rest is kept (F4).
    let (mut told, mut trouble) = (None, false);
    while !matches!(stop.read_signal(), Ok(Some(_))) {
        let round = guard.round(table);
        if let Some(watchdog) = &mut watchdog {
            let outcome = watchdog.tell(Instant::now(), guard.kills_for(clock::now()) < KILL_PATIENCE);
            if let Err(error) = &outcome
                && !trouble
            {
                say(&format!("the watchdog cannot be told: {error}"));
            }
            trouble = outcome.is_err();
        }
        if told.is_none() {
            let _nobody_listens = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
        let silence = table.agent_silence(clock::now());
        let late = (AGENT_LATE..AGENT_GONE).contains(&silence);
        // A nudge is a word that systemd has to read anyway.
        if late && is_gone(table) || told.is_none_or(|at: Instant| at.elapsed() >= WATCHDOG) {
            told = Some(Instant::now());
            let _nobody_listens = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
        if !round.is_quiet() {
            // After the deed: a log line may wait, a deadline may not.
            let late_us = round.lateness.0 / 1_000;
            say(&format!(
                "fenced {} slots ({late_us} us late), killed {} units, removed {} addresses",
                round.fenced, round.killed, round.removed
            ));
        }
        let until_late = Duration::from_nanos(AGENT_LATE.0.saturating_sub(silence.0));
        let soon = if late || until_late.is_zero() { NUDGE } else { until_late };
        let pause = guard.pause(table);
        std::thread::sleep(if silence < AGENT_GONE { pause.min(soon) } else { pause });
    }
}

/// Whether the agent ended, and systemd has seen it: only then it waits to start the next one.
fn is_gone(table: &Table) -> bool {
    let pid = table.agent_pid().and_then(|pid| i32::try_from(pid).ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// F6: exit code 0 if the slot is armed, 1 if it is not: an `ExecCondition=` of the unit.
#[must_use]
pub fn check(runtime: &Path, slot: &str) -> ExitCode {
    match is_held(runtime, slot) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say(&format!("{slot} is not held by this node, so its unit does not start here"));
            ExitCode::from(1)
        }
        Err(why) => fail(&why),
    }
}

fn is_held(runtime: &Path, slot: &str) -> Result<bool, String> {
    let table = Table::open(&runtime.join(TABLE), boot()?).map_err(|e| cluster_telemetry::chain(&e))?;
    Ok(table.holds(slot, clock::now()))
}

/// F6 for hot units: they may run unarmed, but not as the active one. Where the slot is not armed, the role file is made to say so before
/// the process reads it: the agent that should have may be stopped. An `ExecStartPre=` of the unit.
#[must_use]
pub fn standby(runtime: &Path, slot: &str, role_file: &Path) -> ExitCode {
    let held = match is_held(runtime, slot) {
        Ok(held) => held,
        Err(why) => return fail(&why),
    };
    if held {
        return ExitCode::SUCCESS;
    }
    match demote(role_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("{}: {why}", role_file.display())),
    }
}

/// Has a role file say Standby. One that is not there says nothing, and one that cannot be read is removed.
///
/// # Errors
/// The system's, where it cannot be read, written or removed.
pub fn demote(path: &Path) -> std::io::Result<()> {
    const ROLE_MAX: usize = 64 * 1024;
    let Some(bytes) = crate::files::read_limited(path, ROLE_MAX)? else { return Ok(()) };
    let Ok(mut role) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) else {
        return std::fs::remove_file(path);
    };
    role.insert("role".to_owned(), "Standby".into());
    role.insert("epoch".to_owned(), 0.into());
    let mut text = serde_json::to_vec_pretty(&role).map_err(std::io::Error::other)?;
    text.push(b'\n');
    crate::files::write_atomic(path, &text, 0o644, crate::files::Durability::Process)
}

/// What may be said on the command line.
#[must_use]
pub fn usage() -> ExitCode {
    fail("usage: cluster-guard | cluster-guard check SLOT | cluster-guard standby SLOT ROLE_FILE")
}

#[expect(clippy::print_stderr, reason = "its log: systemd takes standard error to the journal")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn fail(why: &str) -> ExitCode {
    say(&format!("error: {why}"));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_a_role_file_is_demoted_and_keeps_the_rest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("role.json");
        demote(&path).expect("nothing is there");
        std::fs::write(&path, r#"{"app":"a","node":"n1","role":"Active","epoch":7,"peers":["n2"]}"#).expect("a written file");
        demote(&path).expect("a demoted file");
        let role: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("json");
        assert_eq!((&role["role"], &role["epoch"], &role["peers"][0]), (&"Standby".into(), &0.into(), &"n2".into()));
        std::fs::write(&path, "torn {").expect("a written file");
        demote(&path).expect("a removed file");
        assert!(!path.exists());
    }

    #[test]
    fn p6_an_agent_is_gone_only_when_its_process_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let table = Table::open(&folder.path().join(TABLE), 1).expect("a table");
        assert!(!is_gone(&table), "there was none yet");
        table.agent_is(std::process::id());
        assert!(!is_gone(&table), "late, and alive");
        let mut child = std::process::Command::new("/bin/true").spawn().expect("a process");
        table.agent_is(child.id());
        // Until somebody asked how it ended, it is not.
        assert!(!is_gone(&table));
        child.wait().expect("it ended");
        assert!(is_gone(&table));
    }
}
