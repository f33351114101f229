//! The command line of `lab`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use cluster_e2e::{Lab, LabError, NodeId, Result, UpOptions};

/// Real nodes on one machine: systemd, NATS and clusterctl in containers on a network of their own. Needs root.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// The lab's name; labs of different names run side by side
    #[arg(long, global = true, default_value = "lab", env = "CLUSTERCTL_LAB")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the lab; what an earlier one of this name left is removed first
    Up(Up),
    /// Show the nodes
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command inside a node; its exit code is passed on
    Exec {
        /// The node, n1 to n9
        node: NodeId,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<OsString>,
    },
    /// Run a command as the outside client, with clusterctl on PATH and configured
    Client {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<OsString>,
    },
    /// Take a node's link down
    Cut(Node),
    /// Let a node's port leave the bridge; its carrier stays
    Drop(Node),
    /// Undo cut and drop
    Heal(Node),
    /// Cut a node's power
    Crash(Node),
    /// Switch a crashed node on again, with the same disk
    Boot(Node),
    /// Freeze a node
    Pause(Node),
    /// Thaw a paused node
    Resume(Node),
    /// Remove the lab, whatever state it is in
    Down,
}

#[derive(Debug, Clone, Copy, Args)]
struct Node {
    /// The node, n1 to n9
    node: NodeId,
}

#[derive(Debug, Args)]
struct Up {
    /// How many nodes, 1 to 9; the first three run NATS and a controller (with fewer, the first)
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// The lease of Apps that name none, in milliseconds [default: the controllers']
    #[arg(long)]
    lease_ms: Option<u64>,
    /// Only systemd and NATS, without clusterctl
    #[arg(long)]
    bare: bool,
    /// The cluster's name
    #[arg(long, default_value = "lab")]
    cluster: String,
    /// The folder of the programs to install [default: that of this program]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// The repository with the unit files [default: where this program was built]
    #[arg(long)]
    repo: Option<PathBuf>,
    /// The NATS server to run [default: .tools/nats-server-VERSION/nats-server in the repository]
    #[arg(long, env = "CLUSTERCTL_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// Where the nodes' disks are made [default: /var/tmp/clusterctl-lab]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked. `exec` and `client` do not return when they succeed: this process becomes the command.
    pub(crate) fn run(self) -> Result<()> {
        let started = Instant::now();
        let lab = || Lab::attach(&self.name);
        let did = match self.command {
            Command::Exec { node, argv } => return become_command(lab()?.command(node, argv)?),
            Command::Client { argv } => return become_command(lab()?.client_command(argv)?),
            Command::Status { json } => return show_status(&lab()?, json),
            Command::Up(up) => up.run(&self.name)?,
            Command::Down => {
                let removed = Lab::remove(&self.name)?;
                format!("lab {} is down: {} processes, {} namespaces removed", self.name, removed.processes, removed.namespaces)
            }
            Command::Cut(Node { node }) => lab()?.cut(node).map(|()| format!("{node}: link down"))?,
            Command::Drop(Node { node }) => lab()?.drop_link(node).map(|()| format!("{node}: port out of the bridge"))?,
            Command::Heal(Node { node }) => lab()?.heal(node).map(|()| format!("{node}: link up"))?,
            Command::Crash(Node { node }) => lab()?.crash(node).map(|_| format!("{node}: power cut"))?,
            Command::Boot(Node { node }) => lab()?.boot(node).map(|()| format!("{node}: booted"))?,
            Command::Pause(Node { node }) => lab()?.pause(node).map(|()| format!("{node}: frozen"))?,
            Command::Resume(Node { node }) => lab()?.resume(node).map(|()| format!("{node}: thawed"))?,
        };
        say(&format!("{:6.2}s  {did}", started.elapsed().as_secs_f64()));
        Ok(())
    }
}

impl Up {
    fn run(self, name: &str) -> Result<String> {
        let mut options = UpOptions::new(self.nodes).named(name);
        options.bare = self.bare;
        options.lease = self.lease_ms.map(Duration::from_millis);
        options.cluster = self.cluster;
        options.data_dir = self.data_dir;
        options.progress = say;
        if let Some(repo) = self.repo {
            options = options.from_repo(repo);
        }
        if let Some(dir) = self.bin_dir {
            options.bin_dir = dir;
        }
        if let Some(path) = self.nats_server {
            options.nats_server = path;
        }
        let lab = Lab::up(&options)?;
        Ok(format!("lab {} is up: {} nodes", lab.name(), lab.nodes().count()))
    }
}

fn become_command(mut command: std::process::Command) -> Result<()> {
    let source = command.exec();
    Err(LabError::Io { action: "start nsenter".to_owned(), source })
}

fn show_status(lab: &Lab, json: bool) -> Result<()> {
    let nodes = lab.status()?;
    let mut text = String::new();
    if json {
        let action = || "encode the status".to_owned();
        text = serde_json::to_string_pretty(&nodes).map_err(|error| LabError::Io { action: action(), source: error.into() })?;
        text.push('\n');
    } else {
        let row =
            |cells: [&str; 6]| format!("{:<5} {:<12} {:<8} {:<8} {:<8} {}\n", cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]);
        text.push_str(&row(["NODE", "ADDRESS", "POWER", "LINK", "PID", "UNITS"]));
        for node in nodes {
            let units: Vec<String> = node.units.iter().map(|(unit, state)| format!("{unit}={state}")).collect();
            let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            text.push_str(&row([&node.node, &node.addr.to_string(), node.power.as_str(), node.link.as_str(), &pid, &units.join(" ")]));
        }
        let leader = lab.nats_leader()?.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        text.push_str(&format!("JetStream leader: {leader}\n"));
    }
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|source| LabError::Io { action: "write the status".to_owned(), source })
}

/// A line for whoever looks on; where nobody can (standard error is closed) it is lost.
fn say(text: &str) {
    let _closed = writeln!(io::stderr(), "{text}");
}
