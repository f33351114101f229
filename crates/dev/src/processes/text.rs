//! A unit's text as this driver reads it: systemd.syntax(7) and the settings of systemd.service(5) that a process supervised without
//! systemd can have. What it cannot have and what would change the meaning is refused; what only bounds resources is named.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_agent::drivers::unit_change::logical_lines;
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getuid};

/// Longest span of time that is understood; `infinity` is this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    No,
    /// Whenever it ended by itself.
    Always,
    /// After a clean end.
    OnSuccess,
    /// After anything but a clean end.
    OnFailure,
    /// After a signal.
    OnAbnormal,
}

impl Restart {
    /// Whether it starts again after an end: clean or not, by a signal or not.
    #[must_use]
    pub const fn follows(self, clean: bool, signalled: bool) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::OnSuccess => clean,
            Self::OnFailure => !clean,
            Self::OnAbnormal => signalled && !clean,
        }
    }
}

/// How a service reads its files again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// A signal to its main process.
    Signal(Signal),
    /// A command; `$MAINPID` in its arguments is the main process.
    Command(Vec<String>),
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment, later ones over earlier ones.
    pub environment: BTreeMap<String, String>,
    /// Where it starts.
    pub folder: Option<PathBuf>,
    /// How it reads its files again; none where it does not.
    pub reload: Option<Reload>,
    /// When it is started again.
    pub restart: Restart,
    /// Pause before that.
    pub restart_after: Duration,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// Only its main process is asked; all are killed (`KillMode=mixed`).
    pub stop_main_only: bool,
    /// How long it has to end.
    pub stop_timeout: Duration,
    /// So many starts within that time, and it is left failed.
    pub start_limit: (usize, Duration),
    /// What the kernel bounds: name after `RLIMIT_`, soft and hard limit (none is no limit).
    pub limits: Vec<(String, Option<u64>, Option<u64>)>,
    /// Settings that are not kept here.
    pub not_kept: Vec<String>,
}

/// Settings that bound resources or rights and are left out here.
const NOT_KEPT: [&str; 11] = [
    "CPUQuota",
    "CPUWeight",
    "IOWeight",
    "MemoryHigh",
    "MemoryMax",
    "MemorySwapMax",
    "Nice",
    "TasksMax",
    "User",
    "Group",
    "AmbientCapabilities",
];
/// Limits that the kernel keeps for a process.
const LIMITS: [&str; 7] = ["CORE", "MEMLOCK", "NOFILE", "NPROC", "FSIZE", "DATA", "STACK"];

/// Where a service is to run.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The node's address: what a program that listens on all addresses of its node listens on.
    pub address: IpAddr,
    /// Folder of clusterctl's own programs.
    pub programs: &'a Path,
}

/// Reads a unit's text.
///
/// # Errors
/// What of it cannot be had without systemd, in a sentence.
pub fn parse(text: &str, here: Here<'_>) -> Result<Service, String> {
    let mut service = Service {
        command: Vec::new(),
        environment: BTreeMap::new(),
        folder: None,
        reload: None,
        restart: Restart::No,
        restart_after: Duration::from_millis(100),
        stop_signal: Signal::SIGTERM,
        stop_main_only: false,
        stop_timeout: Duration::from_secs(90),
        start_limit: (5, Duration::from_secs(10)),
        limits: Vec::new(),
        not_kept: Vec::new(),
    };
    let mut section = String::new();
    for line in logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { return Err(format!("{line:?} is no setting")) };
        let (key, value) = (key.trim(), value.trim());
        match section.as_str() {
            "Unit" => unit_setting(&mut service, key, value)?,
            "Service" => service_setting(&mut service, key, value)?,
            _ => {}
        }
    }
    if service.command.is_empty() {
        return Err("it has no ExecStart=".to_owned());
    }
    service.adapt(here);
    Ok(service)
}

fn unit_setting(service: &mut Service, key: &str, value: &str) -> Result<(), String> {
    match key {
        "StartLimitIntervalSec" => service.start_limit.1 = span(value)?,
        "StartLimitBurst" => service.start_limit.0 = value.parse().map_err(|_| format!("{key}={value} is no number"))?,
        _ => {}
    }
    Ok(())
}

fn service_setting(service: &mut Service, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Type" if matches!(value, "simple" | "exec") => {}
        "Type" => return Err(format!("Type={value} needs systemd; clusterctl dev knows simple and exec")),
        "ExecStart" if value.is_empty() => service.command.clear(),
        "ExecStart" if !service.command.is_empty() => return Err("it has more than one ExecStart=".to_owned()),
        "ExecStart" => service.command = command(value)?,
        "ExecReload" => service.reload = reload(value)?,
        "Environment" if value.is_empty() => service.environment.clear(),
        "Environment" => {
            for word in words(value)? {
                let (name, value) = word.split_once('=').ok_or_else(|| format!("Environment={word} has no value"))?;
                service.environment.insert(name.to_owned(), value.to_owned());
            }
        }
        "WorkingDirectory" => service.folder = Some(PathBuf::from(percent(value)?)),
        "Restart" => {
            service.restart = match value {
                "no" => Restart::No,
                "always" => Restart::Always,
                "on-success" => Restart::OnSuccess,
                "on-failure" => Restart::OnFailure,
                "on-abnormal" | "on-abort" | "on-watchdog" => Restart::OnAbnormal,
                _ => return Err(format!("Restart={value} is not known")),
            }
        }
        "RestartSec" => service.restart_after = span(value)?,
        "TimeoutStopSec" | "TimeoutSec" => service.stop_timeout = span(value)?,
        "KillSignal" => service.stop_signal = value.parse().map_err(|_| format!("KillSignal={value} is no signal"))?,
        "KillMode" => service.stop_main_only = matches!(value, "mixed" | "process"),
        // Anything else that runs something: without it the service would not be what its text says.
        _ if key.starts_with("Exec") || matches!(key, "EnvironmentFile" | "PIDFile" | "BusName" | "Sockets") => {
            return Err(format!("{key}= needs systemd; clusterctl dev does not know it"));
        }
        _ => match key.strip_prefix("Limit").filter(|name| LIMITS.contains(name)) {
            Some(name) => {
                let (soft, hard) = value.split_once(':').unwrap_or((value, value));
                service.limits.push((name.to_owned(), amount(soft)?, amount(hard)?));
            }
            // The agent's own, in the place of whom the App names.
            None if matches!(key, "User" | "Group") && [getuid().to_string(), getgid().to_string()].iter().any(|own| own == value) => {}
            None if NOT_KEPT.contains(&key) => service.not_kept.push(format!("{key}={value}")),
            None => {}
        },
    }
    Ok(())
}

impl Service {
    /// Puts in the place of what all nodes of a real cluster have each for itself what this node has: its address for all addresses, our
    /// own programs where they are.
    fn adapt(&mut self, here: Here<'_>) {
        adapt(&mut self.command, here);
        for text in self.environment.values_mut() {
            *text = on_node_address(text, here.address);
        }
    }
}

/// The same for the words of a command.
pub fn adapt(command: &mut [String], here: Here<'_>) {
    for word in command {
        *word = match own_file(word, here.programs) {
            Some(own) => own.to_string_lossy().into_owned(),
            None => on_node_address(word, here.address),
        };
    }
}

/// A file of clusterctl's own, which is below `/usr/lib/clusterctl` on real nodes: beside this program, or in the repository that it was
/// built in.
fn own_file(word: &str, programs: &Path) -> Option<PathBuf> {
    let name = Path::new(word).strip_prefix("/usr/lib/clusterctl").ok()?;
    let repository = programs.ancestors().skip(1).take(2).map(|root| root.join("manifests").join(name));
    std::iter::once(programs.join(name)).chain(repository).find(|path| path.is_file())
}

/// `0.0.0.0` and `[::]`, as words of their own, are the node's address.
fn on_node_address(text: &str, address: IpAddr) -> String {
    const ALL: &str = "0.0.0.0";
    let in_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ALL) {
        let (before, after) = (&rest[..at], &rest[at + ALL.len()..]);
        done.push_str(before);
        let alone = !before.ends_with(in_number) && !after.starts_with(in_number);
        if alone {
            done.push_str(&address.to_string())
        } else {
            done.push_str(ALL)
        }
        rest = after;
    }
    done.push_str(rest);
    done.replace("[::]:", &format!("{address}:"))
}

/// The command of `ExecStart=`, without the signs that only systemd has a meaning for.
fn command(value: &str) -> Result<Vec<String>, String> {
    let mut all = words(value)?;
    if let Some(program) = all.first_mut() {
        let bare = program.trim_start_matches([':', '-', '+', '!']);
        *program = bare.to_owned();
    }
    match all.first() {
        Some(program) if program.starts_with('/') => Ok(all),
        _ => Err(format!("{value:?} does not begin with the absolute path of a program")),
    }
}

fn reload(value: &str) -> Result<Option<Reload>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let all = command(value)?;
    if let [program, signal, target] = all.as_slice()
        && program.ends_with("/kill")
        && target == "$MAINPID"
        && let Some(name) = signal.strip_prefix('-')
        && let Ok(signal) = format!("SIG{}", name.trim_start_matches("SIG")).parse()
    {
        return Ok(Some(Reload::Signal(signal)));
    }
    Ok(Some(Reload::Command(all)))
}

/// Splits a line into words: quotes, C escapes, `%%`.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut chars = line.chars();
    let push = |word: &mut Option<Vec<u8>>, c: char| {
        let mut bytes = [0; 4];
        word.get_or_insert_default().extend_from_slice(c.encode_utf8(&mut bytes).as_bytes());
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().ok_or_else(|| format!("{line:?} ends with a backslash"))?;
                match escaped {
                    'n' => push(&mut word, '\n'),
                    't' => push(&mut word, '\t'),
                    'r' => push(&mut word, '\r'),
                    's' => push(&mut word, ' '),
                    'x' => {
                        let digits: String = chars.by_ref().take(2).collect();
                        let byte = u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no byte"))?;
                        word.get_or_insert_default().push(byte);
                    }
                    other => push(&mut word, other),
                }
            }
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && quote.is_none() => all.extend(word.take()),
            c => push(&mut word, c),
        }
    }
    if quote.is_some() {
        return Err(format!("{line:?} has a quote without an end"));
    }
    all.extend(word);
    let text = |word: Vec<u8>| String::from_utf8(word).map_err(|_| format!("{line:?} is no UTF-8")).and_then(|w| percent(&w));
    all.into_iter().map(text).collect()
}

/// `%%` is a percent sign; what else begins with one only systemd can tell.
fn percent(text: &str) -> Result<String, String> {
    if text.replace("%%", "").contains('%') {
        return Err(format!("{text:?} has a specifier of systemd's"));
    }
    Ok(text.replace("%%", "%"))
}

/// A span of time: `10`, `500ms`, `1min 30s`, `infinity`.
fn span(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time");
    if text == "infinity" {
        return Ok(FOREVER);
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest.get(..digits).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        rest = rest.get(digits..).unwrap_or_default();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let millis = match rest.get(..letters).unwrap_or_default() {
            "ms" | "msec" => 1,
            "" | "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000,
            _ => return Err(bad()),
        };
        total += Duration::from_millis(number.checked_mul(millis).ok_or_else(bad)?);
        rest = rest.get(letters..).unwrap_or_default().trim_start();
    }
    Ok(total.min(FOREVER))
}

/// A limit: a number with `K`, `M`, `G`, `T` (of 1024), or `infinity`.
fn amount(text: &str) -> Result<Option<u64>, String> {
    if text == "infinity" {
        return Ok(None);
    }
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, c)) if c.is_ascii_alphabetic() => text.split_at(at),
        _ => (text, ""),
    };
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("{text:?} is no amount")),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    number.map(Some).ok_or_else(|| format!("{text:?} is no amount"))
}

#[cfg(test)]
mod tests;
