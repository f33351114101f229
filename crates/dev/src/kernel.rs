//! What /proc says of processes and sockets, and the end of processes.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getuid};
use serde::{Deserialize, Serialize};

/// Name of the environment variable by which processes of a service are known, whatever session they moved to.
pub const MARK: &str = "CLUSTERCTL_DEV_UNIT";
/// Most bytes of an environment that are looked at.
const ENVIRONMENT_MAX: usize = 256 * 1024;

/// A group of processes that one service started: a session, and what carries its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Process id of the first, which is the session's too.
    pub leader: i32,
    /// When the first started, in ticks since the machine's boot: it tells a process from a later one with its number.
    pub started: u64,
    /// Value of [`MARK`] in its environment.
    pub mark: String,
}

/// A process, as `/proc/PID/stat` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter; `Z` and `X` do not execute any more.
    pub state: char,
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in ticks since the machine's boot.
    pub started: u64,
}

impl Stat {
    /// Whether it may still execute.
    #[must_use]
    pub const fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// What is said of a process; none where there is no such process.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name may have spaces and parentheses: the fields are counted from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    let number = |at: usize| fields.get(at)?.parse().ok();
    Some(Stat { state, parent: number(1)?, session: number(3)?, started: fields.get(19)?.parse().ok()? })
}

impl Group {
    /// Processes of the group that may still execute. Where the number of its session went to somebody else meanwhile, only what carries
    /// the mark counts.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let session_is_ours = stat(self.leader).is_none_or(|leader| leader.started == self.started);
        let mine = getuid().as_raw();
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = all.flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            (entry.metadata().ok()?.uid() == mine).then_some(pid)
        });
        pids.filter(|pid| {
            let Some(stat) = stat(*pid).filter(Stat::lives) else { return false };
            session_is_ours && stat.session == self.leader && stat.started >= self.started || is_marked(*pid, &self.mark)
        })
        .collect()
    }

    /// Whether the session has a process, be it one that ended and was not asked after. Cheap: one call.
    #[must_use]
    pub fn has_session(&self) -> bool {
        killpg(Pid::from_raw(self.leader), None).is_ok()
    }

    /// Sends a signal to all of it. How many took it.
    pub fn signal(&self, signal: Signal) -> usize {
        // First the session's first group, at once and as a whole; then who left it, again until nobody new is found.
        let whole = stat(self.leader).is_none_or(|leader| leader.started == self.started);
        let mut reached = usize::from(whole && killpg(Pid::from_raw(self.leader), signal).is_ok());
        let mut told = BTreeSet::new();
        for _ in 0..ROUNDS {
            let new: Vec<i32> = self.members().into_iter().filter(|pid| told.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            reached += new.iter().filter(|pid| kill(Pid::from_raw(**pid), signal).is_ok()).count();
        }
        reached
    }
}

/// Rounds in which processes that are being started meanwhile are looked for.
const ROUNDS: usize = 16;

/// The mark in the environment that a process began with.
#[must_use]
pub fn mark(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let found = environment.get(..ENVIRONMENT_MAX.min(environment.len()))?.split(|b| *b == 0).find_map(|entry| {
        let text = std::str::from_utf8(entry).ok()?;
        text.strip_prefix(MARK)?.strip_prefix('=')
    });
    found.map(ToOwned::to_owned)
}

fn is_marked(pid: i32, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARK}={mark}");
    environment.get(..ENVIRONMENT_MAX.min(environment.len())).unwrap_or(&[]).split(|b| *b == 0).any(|entry| entry == wanted.as_bytes())
}

/// Ports on which something listens at this address (TCP).
#[must_use]
pub fn listening(address: Ipv4Addr) -> BTreeSet<u16> {
    listening_in(&fs::read_to_string("/proc/net/tcp").unwrap_or_default(), address)
}

fn listening_in(table: &str, address: Ipv4Addr) -> BTreeSet<u16> {
    const LISTEN: &str = "0A";
    // The kernel prints the address as a number of this machine.
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (at, port) = local.split_once(':')?;
        (at == wanted && state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_whatever_its_name() {
        let text = "42 (a) b (c) S 1 42 41 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', parent: 1, session: 41, started: 98765 }));
        assert_eq!(parse_stat("42 (a"), None);
        let own = stat(i32::try_from(std::process::id()).expect("a small number")).expect("this process");
        assert!(own.lives() && own.started > 0);
    }

    #[test]
    fn listeners_of_one_address_are_found() {
        let table = "  sl  local_address rem_address   st\n\
            0: 02004D7F:1F90 00000000:0000 0A 0\n\
            1: 02004D7F:1F91 0100007F:0001 01 0\n\
            2: 03004D7F:1F92 00000000:0000 0A 0\n";
        let expected = if cfg!(target_endian = "little") { vec![8080] } else { vec![] };
        assert_eq!(listening_in(table, Ipv4Addr::new(127, 77, 0, 2)).into_iter().collect::<Vec<_>>(), expected);
        let listener = std::net::TcpListener::bind("127.0.0.9:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        assert!(listening(Ipv4Addr::new(127, 0, 0, 9)).contains(&port));
    }
}
