//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Most nodes of a dev cluster.
pub const NODES_MAX: u8 = 32;

/// A whole cluster on this machine, for trying things out: without root, gone with Ctrl-C.
///
/// Starts a NATS server, a controller and some nodes whose services are ordinary processes of yours. Says what to type to use it, and how it
/// differs from real nodes.
#[derive(Debug, Parser)]
#[command(name = "clusterctl-dev", bin_name = "clusterctl dev", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// How to start it.
    #[command(flatten)]
    pub up: Up,
    /// What to do with one that runs.
    #[command(subcommand)]
    pub command: Option<Play>,
}

/// How to start a cluster.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// How many nodes [default: 5, or as many as were kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u8>,

    /// Its folder [default: clusterctl-dev in $XDG_RUNTIME_DIR, else among temporary files]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,

    /// Keep what is in the folder at the end, and go on from what was kept
    #[arg(long)]
    pub keep: bool,

    /// Port of the API on 127.0.0.1 [default: 7070, or a free one where that is taken]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Lease of Apps that name none, 200ms to 5s. Shorter ones follow a dead node sooner and stand less of a busy machine
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub lease: String,

    /// The NATS server to run [default: nats-server on PATH, else ours beside clusterctl]
    #[arg(long, value_name = "PROGRAM")]
    pub nats_server: Option<PathBuf>,
}

/// What to do with a cluster that runs.
#[derive(Debug, Subcommand)]
pub enum Play {
    /// Take a node's power: it and all it runs end at once
    Kill(Target),
    /// Have a node and all it runs stand still
    Pause(Target),
    /// Have a node go on, or boot it where it has no power
    Heal(Target),
    /// Tell what the nodes do
    Status(Place),
}

/// A node of a cluster.
#[derive(Debug, Args)]
pub struct Target {
    /// The node, such as n1
    pub node: String,
    /// Where it is.
    #[command(flatten)]
    pub place: Place,
}

/// A cluster.
#[derive(Debug, Args)]
pub struct Place {
    /// Folder of the cluster, if it was given one
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// What is asked of a cluster, by its name on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// [`Play::Kill`]
    Kill,
    /// [`Play::Pause`]
    Pause,
    /// [`Play::Heal`]
    Heal,
    /// [`Play::Status`]
    Status,
}
