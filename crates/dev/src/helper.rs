//! A service's first steps: this program, started for it, makes itself the leader of a session, ties its life to that of who started it, sets
//! limits, and becomes the service's program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getppid, setsid};

/// The first argument that asks for this.
pub const WORD: &str = "become";
/// Exit code where the folder cannot be entered, as systemd has it.
pub const EXIT_CHDIR: u8 = 200;
/// Exit code where the program cannot be executed.
pub const EXIT_EXEC: u8 = 203;
/// Exit code where a limit cannot be set.
pub const EXIT_LIMITS: u8 = 205;
/// Exit code where the session cannot be made, or nobody waits any more.
pub const EXIT_SESSION: u8 = 220;
/// The exit codes of what comes before the program.
pub const BEFORE: [u8; 4] = [EXIT_CHDIR, EXIT_EXEC, EXIT_LIMITS, EXIT_SESSION];

/// What a service begins with.
#[derive(Debug, Clone, Default)]
pub struct Become {
    /// Folder to start in.
    pub folder: Option<PathBuf>,
    /// Name after `RLIMIT_`, soft and hard limit; none is no limit.
    pub limits: Vec<(String, Option<u64>, Option<u64>)>,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Become {
    /// The arguments that have [`run`] do it, of the process `parent`.
    #[must_use]
    pub fn arguments(&self, parent: u32) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec![WORD.into(), parent.to_string().into()];
        all.push(self.folder.clone().unwrap_or_else(|| PathBuf::from("/")).into());
        let number = |limit: Option<u64>| limit.unwrap_or(RLIM_INFINITY).to_string();
        let limits: Vec<String> =
            self.limits.iter().map(|(name, soft, hard)| format!("{name}:{}:{}", number(*soft), number(*hard))).collect();
        all.push(limits.join(",").into());
        all.extend(self.command.iter().map(Into::into));
        all
    }
}

/// Becomes the program. Returns only where that fails.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (parent, folder, limits) = (arguments.next(), arguments.next(), arguments.next());
    let (Some(parent), Some(folder), Some(limits), Some(program)) = (parent, folder, limits, arguments.next()) else {
        return fail(EXIT_SESSION, "this is how clusterctl-dev starts services; it is of no use by hand");
    };
    if let Err(error) = setsid() {
        return fail(EXIT_SESSION, &format!("cannot make a session: {error}"));
    }
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return fail(EXIT_SESSION, &format!("cannot tie its life to clusterctl-dev: {error}"));
    }
    // Who ended before that call tells nothing any more.
    if parent.to_str().and_then(|p| p.parse().ok()) != Some(getppid().as_raw()) {
        return ExitCode::from(EXIT_SESSION);
    }
    for limit in limits.to_string_lossy().split(',').filter(|l| !l.is_empty()) {
        if let Err(why) = set_limit(limit) {
            return fail(EXIT_LIMITS, &format!("limit {limit}: {why}"));
        }
    }
    if let Err(error) = std::env::set_current_dir(&folder) {
        return fail(EXIT_CHDIR, &format!("cannot enter {}: {error}", folder.display()));
    }
    let error = Command::new(&program).args(arguments).exec();
    fail(EXIT_EXEC, &format!("cannot execute {}: {error}", program.display()))
}

fn set_limit(text: &str) -> Result<(), String> {
    let mut parts = text.split(':');
    let resource = match parts.next() {
        Some("CORE") => Resource::RLIMIT_CORE,
        Some("MEMLOCK") => Resource::RLIMIT_MEMLOCK,
        Some("NOFILE") => Resource::RLIMIT_NOFILE,
        Some("NPROC") => Resource::RLIMIT_NPROC,
        Some("FSIZE") => Resource::RLIMIT_FSIZE,
        Some("DATA") => Resource::RLIMIT_DATA,
        Some("STACK") => Resource::RLIMIT_STACK,
        _ => return Err("is not known".to_owned()),
    };
    let mut number = || parts.next().and_then(|n| n.parse().ok()).ok_or_else(|| "is no number".to_owned());
    setrlimit(resource, number()?, number()?).map_err(|error| error.to_string())
}

#[expect(clippy::print_stderr, reason = "standard error is the service's log")]
fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("clusterctl-dev: {why}");
    ExitCode::from(code)
}
