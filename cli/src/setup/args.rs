//! Arguments of `init`, `join` and `join-file`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::FOLDER;

/// What every machine has of its own.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Name of this node [default: the first part of the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// Address of this machine on the cluster's network [default: the agent takes the first one it finds]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,

    /// Label of this node for placement, such as zone=a; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,

    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    pub(crate) dir: PathBuf,

    /// Print the files instead of writing them
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the cluster: a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: String,

    /// NATS servers as all machines reach them; repeat, or separate with commas
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    pub(crate) nats: Vec<String>,

    /// Copies of what the cluster stores [default: 3 with three NATS servers or more, else 1]
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<usize>,

    /// Where this machine's controller listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7070")]
    pub(crate) listen: SocketAddr,

    /// All controllers the cluster will have, as machines and users reach them [default: this machine's]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) controllers: Vec<String>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Join file that clusterctl join-file printed on a machine of the cluster; - reads it from stdin
    #[arg(long, value_name = "FILE|-")]
    pub(crate) from: PathBuf,

    /// This machine runs a controller too
    #[arg(long)]
    pub(crate) controller: bool,

    /// Where this machine's controller listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7070", requires = "controller")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// `join-file`.
#[derive(Debug, Args)]
pub(crate) struct JoinFileArgs {
    /// Folder with this machine's configuration
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    pub(crate) dir: PathBuf,
}
