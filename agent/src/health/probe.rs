//! One check of one instance: a request, a connection, a command, or what systemd says. Bounded in time, in bytes and in processes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use cluster_schemas::health::{CheckHost, HealthSpec};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Group, Pid, Uid, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::drivers::unit_text::{self, Values};

/// Most bytes of an answer's head that are read, and of its body: then the connection is closed.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 128;
/// Bytes of a command's output that are kept for the message.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Longest part of a command's output in a message, in characters.
const OUTPUT_SHOWN_MAX: usize = 200;
/// Where programs of a check that name no path look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is asked of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET.
    Http {
        /// Where.
        to: SocketAddr,
        /// Path and query.
        path: String,
        /// What passes.
        statuses: RangeInclusive<u16>,
    },
    /// A connection.
    Tcp {
        /// Where.
        to: SocketAddr,
    },
    /// A command.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
        /// All of its environment.
        environment: Vec<(String, String)>,
        /// User to run as; root when absent.
        user: Option<String>,
        /// Group to run as; the user's own when absent.
        group: Option<String>,
    },
    /// What systemd said when it was last looked at.
    Systemd {
        /// The unit's sub-state.
        sub_state: String,
        /// Those that pass.
        passes: Vec<String>,
    },
    /// It cannot be asked on this node, and that is why.
    Impossible(String),
}

impl Probe {
    /// What `spec` asks of App `app` on this node. A command of it has user, group and environment of the App's own, `exec`.
    #[must_use]
    pub fn of(app: &str, spec: &HealthSpec, exec: Option<&cluster_schemas::app::ExecSpec>, values: &Values<'_>, sub_state: &str) -> Self {
        let address = values.node_address.and_then(|a| a.parse::<IpAddr>().ok());
        let at = |host: CheckHost, port: u16| match host {
            // A node whose own address is a loopback one shares this machine's with others, as on a laptop.
            CheckHost::Loopback => {
                let own = address.filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                Ok(SocketAddr::from((own, port)))
            }
            CheckHost::Node => address.map(|a| SocketAddr::from((a, port))).ok_or_else(|| "${node.address} has no value here".to_owned()),
        };
        let made = if let Some(http) = &spec.http {
            let statuses = http.statuses().unwrap_or(200..=399);
            at(http.host, http.port).map(|to| Self::Http { to, path: http.path.clone(), statuses })
        } else if let Some(tcp) = &spec.tcp {
            at(tcp.host, tcp.port).map(|to| Self::Tcp { to })
        } else if let Some(check) = &spec.exec {
            unit_text::process(app, &check.command, exec, values).map_err(|e| cluster_telemetry::chain(&e)).map(|(command, environment)| {
                let of_app = exec.and_then(|e| e.user.clone());
                let group = if check.user.is_none() { exec.and_then(|e| e.group.clone()) } else { None };
                Self::Exec { command, environment, user: check.user.clone().or(of_app), group }
            })
        } else {
            let passes = spec.systemd.clone().unwrap_or_default().sub_states;
            Ok(Self::Systemd { sub_state: sub_state.to_owned(), passes })
        };
        made.unwrap_or_else(Self::Impossible)
    }

    /// Whether answers to `other` say the same as answers to this: what systemd says changes, the question does not.
    #[must_use]
    pub fn same_question(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Systemd { passes, .. }, Self::Systemd { passes: others, .. }) => passes == others,
            _ => self == other,
        }
    }

    /// Asks, and waits no longer than `timeout`.
    ///
    /// # Errors
    /// Why it did not pass, in a sentence.
    pub async fn ask(&self, timeout: Duration) -> Result<(), String> {
        let answer = async {
            match self {
                Self::Http { to, path, statuses } => http(*to, path, statuses).await,
                Self::Tcp { to } => connect(*to).await.map(drop),
                Self::Exec { command, environment, user, group } => exec(command, environment, user.as_deref(), group.as_deref()).await,
                Self::Systemd { sub_state, passes } if passes.contains(sub_state) => Ok(()),
                Self::Systemd { sub_state, passes } => {
                    Err(format!("systemd says that the unit is {sub_state}, and not {}", passes.join(" or ")))
                }
                Self::Impossible(why) => Err(why.clone()),
            }
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(|why| format!("{}: {why}", self.name())),
            Err(_) => Err(format!("{}: no answer within {} ms", self.name(), timeout.as_millis())),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Http { to, path, .. } => format!("GET http://{to}{path}"),
            Self::Tcp { to } => format!("connection to {to}"),
            Self::Exec { command, .. } => command.first().cloned().unwrap_or_default(),
            Self::Systemd { .. } | Self::Impossible(_) => "health check".to_owned(),
        }
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(to).await.map_err(|error| format!("cannot connect: {}", reason(&error)))
}

/// The kernel's word without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

async fn http(to: SocketAddr, path: &str, statuses: &RangeInclusive<u16>) -> Result<(), String> {
    let mut stream = connect(to).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: clusterctl-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let broke = |error: io::Error| format!("the connection broke: {}", reason(&error));
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    let mut answer = Vec::with_capacity(1024);
    let status = loop {
        if let Some(status) = status_of(&answer)? {
            break status;
        }
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes without an end of its head"));
        }
        if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
            return Err("the connection was closed before an answer".to_owned());
        }
    };
    // The body is read so that the server can send it, though not for ever; what it says is not looked at, nor whether it comes whole.
    let mut rest = [0; 4096];
    let mut read = 0;
    while read < ANSWER_BYTES_MAX {
        match stream.read(&mut rest).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => read += bytes,
        }
    }
    if statuses.contains(&status) { Ok(()) } else { Err(format!("answered {status}")) }
}

/// The status of an answer; none while its head is not whole.
fn status_of(answer: &[u8]) -> Result<Option<u16>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(_)) => Ok(response.code),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("what was answered is not HTTP: {error}")),
    }
}

/// Ends everything that a command started, whatever becomes of the task that waits for it.
struct Processes(Option<Pid>);

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nothing left is what is wanted.
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn exec(command: &[String], environment: &[(String, String)], user: Option<&str>, group: Option<&str>) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Err("the command is empty".to_owned()) };
    let mut process = Command::new(program);
    process.args(arguments).env_clear().env("PATH", PATH).envs(environment.iter().map(|(k, v)| (k, v)));
    process.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let (user, group) = (user.map(ToOwned::to_owned), group.map(ToOwned::to_owned));
    // Users may be kept on another machine, and the look-up may wait for it.
    let account = tokio::task::spawn_blocking(move || account(user.as_deref(), group.as_deref()));
    let (uid, gid) = account.await.map_err(|error| error.to_string())??;
    // Without the user's further groups: those of the agent are given up, as the standard library does it.
    if let Some(gid) = gid {
        process.gid(gid.as_raw());
    }
    if let Some(uid) = uid {
        process.uid(uid.as_raw());
    }
    let mut child = process.spawn().map_err(|error| format!("cannot be started: {}", reason(&error)))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let processes = Processes(group);
    let mut output = Vec::new();
    let status = child_output(&mut child, &mut output).await.map_err(|error| reason(&error))?;
    // What it left behind has nothing to do any more.
    drop(processes);
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    let text = String::from_utf8_lossy(&output);
    let line: String =
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().chars().take(OUTPUT_SHOWN_MAX).collect();
    Err(if line.is_empty() { how } else { format!("{how}: {line}") })
}

/// Reads what the command says, keeps the first part of it, and waits for its end. What it started may go on holding its output: only its own
/// end counts.
async fn child_output(child: &mut Child, output: &mut Vec<u8>) -> io::Result<std::process::ExitStatus> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut first, mut second) = ([0; 1024], [0; 1024]);
    loop {
        let (read, of_stdout) = tokio::select! {
            biased;
            read = read_some(stdout.as_mut(), &mut first) => (read, true),
            read = read_some(stderr.as_mut(), &mut second) => (read, false),
            status = child.wait() => return status,
        };
        let bytes = if of_stdout { &first } else { &second };
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..read.min(room)]);
        match (read, of_stdout) {
            (0, true) => stdout = None,
            (0, false) => stderr = None,
            _ => {}
        }
    }
}

async fn read_some(from: Option<&mut (impl tokio::io::AsyncRead + Unpin)>, into: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(into).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

fn account(user: Option<&str>, group: Option<&str>) -> Result<(Option<Uid>, Option<Gid>), String> {
    let mut found = (None, None);
    if let Some(name) = user {
        let entry = match name.parse() {
            Ok(id) => User::from_uid(Uid::from_raw(id)),
            Err(_) => User::from_name(name),
        };
        match (entry.map_err(|error| format!("cannot look user {name} up: {error}"))?, name.parse()) {
            (Some(user), _) => found = (Some(user.uid), Some(user.gid)),
            (None, Ok(id)) => found = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id))),
            (None, Err(_)) => return Err(format!("there is no user {name} on this node")),
        }
    }
    if let Some(name) = group {
        found.1 = match name.parse() {
            Ok(id) => Some(Gid::from_raw(id)),
            Err(_) => match Group::from_name(name).map_err(|error| format!("cannot look group {name} up: {error}"))? {
                Some(group) => Some(group.gid),
                None => return Err(format!("there is no group {name} on this node")),
            },
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
