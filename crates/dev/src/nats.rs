//! The NATS server of the cluster, a child process: found, looked at, started, and started again on the same port when it ends.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::helper::Become;
use crate::kernel::{Group, MARK, stat};

/// The oldest version that has what clusterctl needs.
const FLOOR: (u32, u32) = (2, 11);
/// Longest start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it listens.
const LOOK: Duration = Duration::from_millis(10);
/// Longest orderly end.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Lines of its log in an error.
const LOG_LINES: usize = 5;

/// Why there is no NATS server.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// None is installed.
    #[error("there is no nats-server: it was looked for in {looked}")]
    Missing {
        /// Where.
        looked: String,
    },
    /// What is installed is too old, or does not say how old it is.
    #[error("{path} is no nats-server {}.{} or newer: it says {says:?}", FLOOR.0, FLOOR.1)]
    Old {
        /// The program.
        path: PathBuf,
        /// What it says of itself.
        says: String,
    },
    /// A file of it cannot be written.
    #[error("cannot write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It cannot be started.
    #[error("cannot start {path}")]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It ended, or does not listen.
    #[error("{path} does not come up: {log}")]
    Silent {
        /// The program.
        path: PathBuf,
        /// What it logged last.
        log: String,
    },
}

impl NatsError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::Missing { .. } | Self::Old { .. }).then(|| {
            "get one from https://github.com/nats-io/nats-server/releases and put it on PATH, or run scripts/setup in the repository, \
             or name one with --nats-server"
                .to_owned()
        })
    }
}

/// A program that may be a NATS server: the one that is named, else those on PATH, then ours beside this program.
///
/// # Errors
/// [`NatsError::Missing`]; [`NatsError::Old`] of the first, where all are too old.
pub fn find(named: Option<&Path>, search: &OsStr, programs: &Path) -> Result<PathBuf, NatsError> {
    if let Some(path) = named {
        return check(path).map(|()| path.to_owned());
    }
    let mut folders: Vec<PathBuf> = std::env::split_paths(search).collect();
    folders.push(programs.to_owned());
    // Beside a build of the repository: where scripts/setup puts it.
    for root in programs.ancestors().skip(1).take(2) {
        let mut ours: Vec<PathBuf> = fs::read_dir(root.join(".tools")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        ours.sort();
        folders.extend(ours.into_iter().rev());
    }
    let mut first = None;
    for path in folders.iter().map(|folder| folder.join("nats-server")).filter(|path| path.is_file()) {
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| NatsError::Missing { looked: format!("PATH and {}", programs.display()) }))
}

fn check(path: &Path) -> Result<(), NatsError> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|source| NatsError::Start { path: path.to_owned(), source })?;
    let says = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match version(&says) {
        Some(version) if version >= FLOOR => Ok(()),
        _ => Err(NatsError::Old { path: path.to_owned(), says }),
    }
}

/// `nats-server: v2.15.1`.
fn version(says: &str) -> Option<(u32, u32)> {
    let mut numbers = says.strip_prefix("nats-server: v")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A server that runs. To be started by a thread that lives as long as it is to run.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    folder: PathBuf,
    token: String,
    child: Child,
    group: Group,
    port: u16,
}

impl Server {
    /// Starts it on a free port, with what it stored in `folder` before.
    ///
    /// # Errors
    /// [`NatsError`].
    pub fn start(program: &Path, folder: &Path, token: &str) -> Result<Self, NatsError> {
        Self::start_on(program, folder, token, None)
    }

    fn start_on(program: &Path, folder: &Path, token: &str, port: Option<u16>) -> Result<Self, NatsError> {
        let file = |path: &Path, source| NatsError::File { path: path.to_owned(), source };
        let (ports, store, config, log) = (folder.join("ports"), folder.join("store"), folder.join("nats.conf"), folder.join("log"));
        match fs::remove_dir_all(&ports) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file(&ports, source)),
            _ => {}
        }
        fs::create_dir_all(&ports).map_err(|source| file(&ports, source))?;
        // JSON is a form of its configuration, and quotes paths as they need it.
        let text = serde_json::json!({
            "host": "127.0.0.1",
            "port": port.map_or(-1, i32::from),
            "ports_file_dir": ports,
            "jetstream": { "store_dir": store },
            "max_payload": 1024 * 1024,
        });
        fs::write(&config, text.to_string()).map_err(|source| file(&config, source))?;
        let out = fs::File::create(&log).map_err(|source| file(&log, source))?;
        let mark = format!("{token}/nats");
        let arguments = [program.as_os_str(), OsStr::new("-c"), config.as_os_str()];
        let first = Become { command: arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect(), ..Become::default() };
        let start = |source| NatsError::Start { path: program.to_owned(), source };
        let mut command = Command::new("/proc/self/exe");
        command.args(first.arguments(std::process::id())).env(MARK, &mark).stdin(Stdio::null());
        let child = command.stdout(out.try_clone().map_err(start)?).stderr(out).spawn().map_err(start)?;
        let leader = i32::try_from(child.id()).unwrap_or(0);
        let group = Group { leader, started: stat(leader).map_or(0, |s| s.started), mark };
        let mut server =
            Self { program: program.to_owned(), folder: folder.to_owned(), token: token.to_owned(), child, group, port: port.unwrap_or(0) };
        match server.wait_until_it_listens(&ports) {
            Some(port) => {
                server.port = port;
                Ok(server)
            }
            None => {
                server.stop();
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
                let log = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
                Err(NatsError::Silent { path: program.to_owned(), log })
            }
        }
    }

    fn wait_until_it_listens(&mut self, ports: &Path) -> Option<u16> {
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT && matches!(self.child.try_wait(), Ok(None)) {
            let port = fs::read_dir(ports).ok()?.flatten().find_map(|entry| port_in(&fs::read_to_string(entry.path()).ok()?));
            if let Some(port) = port
                && std::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
            {
                return Some(port);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// What stands for it.
    #[must_use]
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// Starts it again, on the same port, where it ended. Whether it had.
    ///
    /// # Errors
    /// [`NatsError`]: it may be tried again.
    pub fn keep(&mut self) -> Result<bool, NatsError> {
        if matches!(self.child.try_wait(), Ok(None)) {
            return Ok(false);
        }
        *self = Self::start_on(&self.program, &self.folder, &self.token, Some(self.port))?;
        Ok(true)
    }

    /// Ends it, in good order if it takes not too long.
    pub fn stop(&mut self) {
        // Already gone is what is wanted, here and below.
        let _gone = kill(Pid::from_raw(self.group.leader), Signal::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_LIMIT {
            std::thread::sleep(LOOK);
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The client port in a ports file.
fn port_in(text: &str) -> Option<u16> {
    let all: serde_json::Value = serde_json::from_str(text).ok()?;
    all.get("nats")?.get(0)?.as_str()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_none_is_it_says_how_to_get_one() {
        let empty = tempfile::tempdir().expect("a temporary folder");
        let programs = empty.path().join("target/debug");
        let missing = find(None, empty.path().as_os_str(), &programs).expect_err("there is none");
        assert!(missing.to_string().starts_with("there is no nats-server"), "{missing}");
        assert!(missing.hint().is_some_and(|hint| hint.contains("scripts/setup") && hint.contains("--nats-server")));
    }

    /// One that is too old does not hide ours.
    #[test]
    fn the_first_that_is_new_enough_is_taken() {
        let home = tempfile::tempdir().expect("a temporary folder");
        for (folder, version) in [("old", "2.9.1"), ("programs", "2.11.0")] {
            let path = home.path().join(folder).join("nats-server");
            fs::create_dir_all(home.path().join(folder)).expect("a folder");
            // A shell writes it: what this process had open for writing may be busy when it is to be executed.
            let write = format!("printf '#!/bin/sh\\necho nats-server: v{version}\\n' > \"$0\" && chmod 755 \"$0\"");
            assert!(Command::new("/bin/sh").args(["-c", &write]).arg(&path).status().expect("a shell").success());
        }
        let (old, programs) = (home.path().join("old"), home.path().join("programs"));
        assert_eq!(find(None, old.as_os_str(), &programs).expect("ours"), programs.join("nats-server"));
        let only_old = find(None, old.as_os_str(), &home.path().join("none"));
        assert!(matches!(&only_old, Err(NatsError::Old { says, .. }) if says.contains("2.9.1")), "{only_old:?}");
    }

    #[test]
    fn versions_and_ports_are_read_as_the_server_writes_them() {
        assert_eq!(version("nats-server: v2.15.1"), Some((2, 15)));
        assert_eq!(version("nats-server: v2.9.0-beta.1"), Some((2, 9)));
        assert_eq!(version("bash: no such thing"), None);
        assert_eq!(port_in(r#"{"nats": ["nats://127.0.0.1:41234"], "monitoring": null}"#), Some(41234));
        assert_eq!(port_in("{\"nats\": ["), None);
    }
}
