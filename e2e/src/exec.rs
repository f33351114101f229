//! Running commands: inside a node, and outside as the client.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Context, LabError, Result};
use crate::group::{Background, Group};
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
        self.command_in(node, &self.cgroups.node_exec(node).join("cgroup.procs"), &words(argv)?)
    }

    fn command_in(&self, node: NodeId, procs: &Path, argv: &[OsString]) -> Result<Command> {
        let pid = self.node_pid(node)?;
        if self.cgroups.is_frozen(node) {
            let fix = format!("it runs nothing until 'lab --name {} resume {node}'", self.name());
            return Err(LabError::NodeState { node, state: "paused", fix });
        }
        let mut command = command_in_cgroup(procs, "nsenter")?;
        command.arg(format!("--target={pid}"));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]).args(argv);
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
    /// As [`Lab::command`]; [`LabError::TimedOut`] after [`EXEC_LIMIT`], when the command and all it started is killed.
    pub fn exec<S: AsRef<OsStr>>(&self, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        self.exec_within(EXEC_LIMIT, node, argv)
    }

    /// [`Lab::exec`] with another limit.
    ///
    /// # Errors
    /// As [`Lab::exec`].
    pub fn exec_within<S: AsRef<OsStr>>(&self, limit: Duration, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        let (node, argv) = (self.check(node)?, words(argv)?);
        let group = self.node_group(node)?;
        let command = self.command_in(node, &group.procs(), &argv)?;
        run(command, &format!("{node}: {}", shown(&argv)), limit, |_| group.kill())
    }

    /// Starts a command inside a node that goes on beside the caller.
    ///
    /// # Errors
    /// As [`Lab::command`].
    pub fn start<S: AsRef<OsStr>>(&self, node: impl Into<NodeId>, argv: impl IntoIterator<Item = S>) -> Result<Background> {
        let node = self.check(node)?;
        let group = self.node_group(node)?;
        Background::start(self.command_in(node, &group.procs(), &words(argv)?)?, group)
    }

    /// The node's state is looked at first: a cgroup made for a node that is off would be in the way of its boot.
    fn node_group(&self, node: NodeId) -> Result<Group> {
        self.node_pid(node)?;
        Group::new(&self.cgroups.node_exec(node))
    }

    /// A command of the outside client: a process of the host in a network namespace of its own on the lab's network,
    /// with `clusterctl` on its PATH and configured by `CLUSTERCTL_CONFIG`. Folder and environment are the caller's.
    ///
    /// # Errors
    /// [`LabError::Io`] when the lab's cgroup cannot be joined.
    pub fn client_command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Command> {
        self.client_command_in(&self.cgroups.outside()?.join("cgroup.procs"), &words(argv)?)
    }

    fn client_command_in(&self, procs: &Path, argv: &[OsString]) -> Result<Command> {
        let mut command = command_in_cgroup(procs, "nsenter")?;
        command.arg(format!("--net={}", netns_path(&self.layout.client_ns()).display())).arg("--").args(argv);
        let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
        command.env("PATH", format!("{}:{path}", self.config.bin_dir.display()));
        command.env("CLUSTERCTL_CONFIG", self.layout.client_dir().join("cli.yaml"));
        Ok(command)
    }

    /// Runs a command of the client to its end, with nothing on its standard input.
    ///
    /// # Errors
    /// As [`Lab::client_command`]; [`LabError::TimedOut`] after [`EXEC_LIMIT`], when the command and all it started is
    /// killed.
    pub fn client<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Ran> {
        let argv = words(argv)?;
        let group = Group::new(&self.cgroups.outside()?)?;
        let command = self.client_command_in(&group.procs(), &argv)?;
        run(command, &format!("client: {}", shown(&argv)), EXEC_LIMIT, |_| group.kill())
    }

    /// Starts a command of the client that goes on beside the caller.
    ///
    /// # Errors
    /// As [`Lab::client_command`].
    pub fn start_client<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Background> {
        let group = Group::new(&self.cgroups.outside()?)?;
        Background::start(self.client_command_in(&group.procs(), &words(argv)?)?, group)
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

fn shown(argv: &[OsString]) -> String {
    argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
