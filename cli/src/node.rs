//! `node cordon`, `uncordon`, `drain`: sets a node apart; `node remove`: has the cluster forget it.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use cluster_schemas::Assignment;
use cluster_schemas::api::{CordonRequest, Cordoned, NodeView, Removed};

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
    /// Give nodes nothing new; what is there stays, and is the last choice of a fail-over
    Cordon {
        /// Names of the nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Let nodes be given anything again
    Uncordon {
        /// Names of the nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Cordon a node and move away all that is there
    Drain {
        /// Name of the node
        node: String,
        /// Longest time to wait until nothing is left there
        #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration)]
        timeout: Duration,
    },
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
    match &args.command {
        NodeCommand::Cordon { nodes } => each(nodes, io, |node, io| {
            let done = set_apart(client, node, false)?;
            io.line(format_args!("node/{node} {}cordoned", if done.changed { "" } else { "already " }))
        }),
        NodeCommand::Uncordon { nodes } => each(nodes, io, |node, io| {
            let done: Cordoned = client.delete(&cordon_path(node)).map_err(|error| missing(client, node, error))?;
            io.line(format_args!("node/{node} {}uncordoned", if done.changed { "" } else { "already " }))
        }),
        NodeCommand::Drain { node, timeout } => drain(client, node, *timeout, io),
        NodeCommand::Remove { node, force, timeout } => remove(client, node, *force, *timeout, io),
    }
}

/// All of `nodes`; one that fails is reported, and the others are done.
fn each(nodes: &[String], io: &mut Io<'_>, one: impl Fn(&str, &mut Io<'_>) -> Result<(), CliError>) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for node in nodes {
        match one(node, io) {
            Ok(()) => {}
            Err(error @ CliError::Output(_)) => return Err(error),
            Err(error) => exit = exit.max(io.fail(&error)),
        }
    }
    Ok(exit)
}

fn cordon_path(node: &str) -> String {
    format!("/v1/nodes/{}/cordon", encode(node))
}

fn missing(client: &Client, node: &str, error: ClientError) -> CliError {
    if error.is_not_found() { get::not_found(client, Kind::Node, node) } else { error.into() }
}

fn set_apart(client: &Client, node: &str, drain: bool) -> Result<Cordoned, CliError> {
    client.put(&cordon_path(node), &CordonRequest { drain }).map_err(|error| missing(client, node, error))
}

/// Apps with a place or a trace on the node, sorted.
fn left_on(client: &Client, node: &str, end: Instant) -> Result<Vec<String>, ClientError> {
    let budget = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
    let view: NodeView = client.get_within(&format!("/v1/nodes/{}", encode(node)), budget)?;
    let planned: Vec<String> = match client.get_within::<Assignment>(&format!("/v1/assignments/{}", encode(node)), budget) {
        Ok(plan) => plan.apps.into_keys().collect(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let seen = view.status.into_iter().flat_map(|s| s.apps.into_keys());
    Ok(planned.into_iter().chain(seen).collect::<BTreeSet<_>>().into_iter().collect())
}

fn drain(client: &Client, node: &str, timeout: Duration, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let end = Instant::now() + timeout;
    let before = left_on(client, node, end).map_err(|error| missing(client, node, error))?;
    set_apart(client, node, true)?;
    loop {
        match left_on(client, node, end) {
            Ok(left) if left.is_empty() => {
                io.line(format_args!("node/{node} drained"))?;
                if !before.is_empty() {
                    io.remark(format_args!("moved away, or stopped where no other node may run it: {}", before.join(", ")));
                }
                io.remark(format_args!("it stays cordoned until: clusterctl node uncordon {node}"));
                return Ok(Exit::Done);
            }
            // A controller that leads may just be failing over; the order is stored.
            Ok(_) | Err(ClientError::Unreachable { .. }) if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            Ok(left) => {
                io.note(format_args!("error: node/{node} still has {} after {} s", left.join(", "), timeout.as_secs_f32()));
                io.note(format_args!(
                    "hint: it is being drained on; clusterctl describe node {node} says why, clusterctl node uncordon {node} ends it"
                ));
                return Ok(Exit::Timeout);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove(client: &Client, node: &str, force: bool, timeout: Duration, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let path = format!("/v1/nodes/{}", encode(node));
    let query = if force { "?force=true" } else { "" };
    let removed: Removed = client.delete(&format!("{path}{query}")).map_err(|error| missing(client, node, error))?;
    let end = Instant::now() + timeout;
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
