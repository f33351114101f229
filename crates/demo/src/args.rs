//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Says over HTTP which node, role, epoch and partitions it has.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub(crate) listen: SocketAddr,

    /// SQLite database of this application, in WAL mode: `POST /notes` writes a note into it, `GET /notes` counts them.
    #[arg(long, value_name = "PATH")]
    pub(crate) db: Option<PathBuf>,

    /// A file that all nodes share: while this instance is Active it appends `EPOCH NODE NUMBER` to it each millisecond.
    #[arg(long, value_name = "PATH")]
    pub(crate) append: Option<PathBuf>,

    /// Address and port on which UDP datagrams are sent back as they came.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) echo: Option<SocketAddr>,

    /// While this file exists, `/healthz` answers 503: to see what an unhealthy instance leads to.
    #[arg(long, value_name = "PATH")]
    pub(crate) sick_file: Option<PathBuf>,

    /// Where the agent says which role this instance has.
    #[arg(long, value_name = "PATH", env = "CLUSTERCTL_ROLE_FILE")]
    pub(crate) role_file: Option<PathBuf>,

    /// Where the agent says which partitions this instance owns.
    #[arg(long, value_name = "PATH", env = "CLUSTERCTL_PARTITIONS_FILE")]
    pub(crate) partitions_file: Option<PathBuf>,

    /// Name of this node; the host's name when not given.
    #[arg(long, value_name = "NAME", env = "CLUSTERCTL_NODE")]
    pub(crate) node: Option<String>,

    /// Name of the App that this instance belongs to.
    #[arg(long, value_name = "NAME", env = "CLUSTERCTL_APP")]
    pub(crate) app: Option<String>,
}
