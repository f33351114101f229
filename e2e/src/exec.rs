//! Running commands: inside a node, and outside as the client.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::machine::PATH;
use crate::names::{NodeId, netns_path};
use crate::nats::{HttpReply, http_get};
use crate::spawn::{Ran, command_in_cgroup, in_netns, run, words};

/// How long [`Lab::exec`] and [`Lab::client`] let a command run.
pub const EXEC_LIMIT: Duration = Duration::from_secs(60);

impl Lab {
    /// A command inside a node: as root, in all of the node's namespaces, with a clean environment, killed together
    /// with the node. Input, output and environment may be changed before it is started.
    ///
    /// # Errors
    /// [`LabError::NodeState`] unless the node is on, booted and not paused.
    pub fn command<S: AsRef<OsStr>>(&self, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Command> {
        let node = self.check(node)?;
        let pid = self.node_pid(node)?;
        if self.cgroups.is_frozen(node) {
            let fix = format!("it runs nothing until 'lab --name {} resume {node}'", self.name());
            return Err(LabError::NodeState { node, state: "paused", fix });
        }
        let mut command = command_in_cgroup(&self.cgroups.node_exec(node), "nsenter")?;
        command.arg(format!("--target={pid}"));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]).args(words(argv)?);
        command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")]);
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
        Ok(command)
    }

    /// Runs a command inside a node to its end, with nothing on its standard input. A non-zero exit code is not an
    /// error here: see [`Ran::ok`].
    ///
    /// # Errors
    /// As [`Lab::command`]; [`LabError::TimedOut`] after [`EXEC_LIMIT`].
    pub fn exec<S: AsRef<OsStr>>(&self, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        self.exec_within(EXEC_LIMIT, node, argv)
    }

    /// [`Lab::exec`] with another limit.
    ///
    /// # Errors
    /// As [`Lab::exec`].
    pub fn exec_within<S: AsRef<OsStr>>(&self, limit: Duration, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        let (node, argv) = (node.into(), words(argv)?);
        run(self.command(node, &argv)?, Some(format!("{node}: {}", shown(&argv))), limit)
    }

    /// A command of the outside client: a process of the host in a network namespace of its own on the lab's network,
    /// with `clusterctl` on its PATH and configured by `CLUSTERCTL_CONFIG`. Folder and environment are the caller's.
    ///
    /// # Errors
    /// [`LabError::Io`] when the lab's cgroup cannot be joined.
    pub fn client_command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = command_in_cgroup(&self.cgroups.outside()?, "nsenter")?;
        command.arg(format!("--net={}", netns_path(&self.layout.client_ns()).display())).arg("--").args(words(argv)?);
        let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
        command.env("PATH", format!("{}:{path}", self.config.bin_dir.display()));
        command.env("CLUSTERCTL_CONFIG", self.layout.client_dir().join("cli.yaml"));
        Ok(command)
    }

    /// Runs a command of the client to its end, with nothing on its standard input.
    ///
    /// # Errors
    /// As [`Lab::client_command`]; [`LabError::TimedOut`] after [`EXEC_LIMIT`].
    pub fn client<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        let argv = words(argv)?;
        run(self.client_command(&argv)?, Some(format!("client: {}", shown(&argv))), EXEC_LIMIT)
    }

    /// Runs `work` in a thread on the client's side of the lab's network: what it connects to is the lab's. Threads it
    /// starts are there as well.
    ///
    /// # Errors
    /// [`LabError::Io`] when the client's namespace cannot be entered.
    pub fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_netns(&netns_path(&self.layout.client_ns()), work)
    }

    /// Runs `work` in a thread on a node's side of the network; its file system stays the host's.
    ///
    /// # Errors
    /// [`LabError::Io`] when the node is off.
    pub fn as_node<T: Send>(&self, node: impl Into<NodeId>, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_netns(&netns_path(&self.layout.node_ns(self.check(node)?)), work)
    }

    /// One HTTP GET by the client: `http_get((addr, 8080).into(), "/path")`.
    ///
    /// # Errors
    /// [`LabError::Io`] when nothing answers within two seconds.
    pub fn http_get(&self, addr: std::net::SocketAddr, path: &str) -> Result<HttpReply> {
        self.as_client(|| http_get(addr, path))?
    }

    /// The host's PID of the process that is PID 1 inside a node. Its files are under `/proc/PID/root`.
    ///
    /// # Errors
    /// [`LabError::NodeState`] when the node is off or still booting.
    pub fn node_pid(&self, node: impl Into<NodeId>) -> Result<u32> {
        let node = self.check(node)?;
        self.init_pid(node).ok_or_else(|| {
            let name = self.name();
            match self.cgroups.is_populated(node) {
                true => LabError::NodeState { node, state: "booting", fix: "wait a moment".to_owned() },
                false => LabError::NodeState { node, state: "off", fix: format!("'lab --name {name} boot {node}' starts it") },
            }
        })
    }

    /// The node's boot id: another one after each boot.
    ///
    /// # Errors
    /// As [`Lab::node_pid`].
    pub fn boot_id(&self, node: impl Into<NodeId>) -> Result<String> {
        self.read(node, "/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
    }

    /// A file of a running node, as text; no process is started. For files whose path has no absolute symbolic link.
    ///
    /// # Errors
    /// As [`Lab::node_pid`]; [`LabError::Io`] when the file cannot be read.
    pub fn read(&self, node: impl Into<NodeId>, path: &str) -> Result<String> {
        use crate::error::Context;
        let node = self.check(node)?;
        let seen = format!("/proc/{}/root{path}", self.node_pid(node)?);
        std::fs::read_to_string(seen).context(|| format!("read {path} of {node}"))
    }

    /// Writes a file of a running node with the given mode; folders above it are made.
    ///
    /// # Errors
    /// As [`Lab::read`].
    pub fn write(&self, node: impl Into<NodeId>, path: &str, text: &str, mode: u32) -> Result<()> {
        let node = self.check(node)?;
        let seen = format!("/proc/{}/root{path}", self.node_pid(node)?);
        crate::rootfs::write_file(seen.as_ref(), text, mode)
    }
}

fn shown(argv: &[std::ffi::OsString]) -> String {
    argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
