//! `node remove`: has the cluster forget a node.

use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use cluster_schemas::api::{NodeView, Removed};

use crate::args::duration;
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::get;
use crate::io::Io;
use crate::resource::Kind;

/// How often it is asked whether the node is forgotten.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// `node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Forget a node whose machine is gone or whose agent is stopped
    Remove {
        /// Name of the node
        node: String,
        /// Also while its agent is heard; what runs there may go on
        #[arg(long)]
        force: bool,
        /// Longest time to wait until it is forgotten
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

/// Does it.
pub(crate) fn run(args: &NodeArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let NodeCommand::Remove { node, force, timeout } = &args.command;
    let path = format!("/v1/nodes/{}", encode(node));
    let query = if *force { "?force=true" } else { "" };
    let missing = |error: ClientError| if error.is_not_found() { get::not_found(client, Kind::Node, node) } else { error.into() };
    let removed: Removed = client.delete(&format!("{path}{query}")).map_err(missing)?;
    let end = Instant::now() + *timeout;
    loop {
        match client.get_within::<NodeView>(&path, end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL)) {
            Err(error) if error.is_not_found() => break,
            // A controller that leads may just be failing over; the order is stored.
            Ok(_) | Err(ClientError::Unreachable { .. }) if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            Ok(_) | Err(ClientError::Unreachable { .. }) => {
                io.note(format_args!("error: node/{node} is not forgotten after {} s", timeout.as_secs_f32()));
                io.note("hint: the leading controller does it as soon as it can write; clusterctl version says who leads");
                return Ok(Exit::Timeout);
            }
            Err(error) => return Err(error.into()),
        }
    }
    io.line(format_args!("node/{node} removed"))?;
    if !removed.may_still_run.is_empty() {
        io.note(format_args!("warning: {node} may still run {}; look there with: systemctl list-units", removed.may_still_run.join(", ")));
    }
    if removed.alive {
        io.note(format_args!(
            "warning: its agent was heard a moment ago. It gives up what is exclusive once it hears of this, and joins again when it is \
             started again: systemctl disable --now cluster-agent"
        ));
    }
    Ok(Exit::Done)
}
