//! `voters replace` and `voters force`: who votes on leases, by an operator's word (docs/voters.md).

use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use cluster_schemas::api::{ForceRequest, Forced, NodeView, ReplaceRequest};
use cluster_schemas::node::VoterList;

use crate::args::duration;
use crate::client::{Client, ClientError};
use crate::error::{CliError, Exit};
use crate::io::Io;

/// How often it is asked who votes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Leases are not granted for so long after a force: the longest that one granted by the dead may last.
const WAITS_S: u64 = 5;

/// `voters`.
#[derive(Debug, Args)]
pub(crate) struct VotersArgs {
    #[command(subcommand)]
    pub(crate) command: VotersCommand,
}

/// What to do about the voters; `get voters` shows them.
#[derive(Debug, Subcommand)]
pub(crate) enum VotersCommand {
    /// Have one node vote instead of another; a majority of the voters has to be there
    Replace {
        /// The voter that goes
        old: String,
        /// The node that comes
        new: String,
        /// Longest time to wait until it is so
        #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
        timeout: Duration,
    },
    /// Go on with the voters that are left, where a majority is gone for good
    Force {
        /// All voters that are dead, and will never again be started as they are; repeat, or separate with commas
        #[arg(long, value_name = "NODE", value_delimiter = ',', required = true)]
        dead: Vec<String>,
        /// Vouch for it; without this only what would be done is shown
        #[arg(long)]
        yes: bool,
        /// Longest time to wait until those that are left have taken it
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

/// Does it.
pub(crate) fn run(args: &VotersArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    match &args.command {
        VotersCommand::Replace { old, new, timeout } => replace(old, new, *timeout, client, io),
        VotersCommand::Force { dead, yes, timeout } => force(dead, *yes, *timeout, client, io),
    }
}

fn names(list: &VoterList) -> String {
    list.voters.iter().map(|v| v.node.as_str()).collect::<Vec<_>>().join(", ")
}

/// The newest voters that any node knows.
fn newest(client: &Client, end: Instant) -> Result<Option<VoterList>, ClientError> {
    let budget = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
    let nodes = client.list_within::<NodeView>("/v1/nodes", budget)?.items;
    Ok(nodes.into_iter().filter_map(|n| n.status?.voters).max_by_key(|list| list.number))
}

/// Waits until the newest voters are as `done` says.
fn wait(client: &Client, end: Instant, done: impl Fn(&VoterList) -> bool) -> Result<Option<VoterList>, CliError> {
    loop {
        match newest(client, end) {
            Ok(Some(list)) if done(&list) => return Ok(Some(list)),
            // The controllers may not reach their store for a moment.
            Ok(_) | Err(ClientError::Unreachable { .. }) if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            Ok(_) | Err(ClientError::Unreachable { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn replace(old: &str, new: &str, timeout: Duration, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let end = Instant::now() + timeout;
    let before: VoterList = client.post("/v1/voters/replace", &ReplaceRequest { old: old.to_owned(), new: new.to_owned() })?;
    io.remark(format_args!("{new} joins the voters {}, then {old} leaves: each step takes some {WAITS_S} s", names(&before)));
    let votes = |list: &VoterList, node: &str| list.voters.iter().any(|v| v.node == node);
    match wait(client, end, |list| votes(list, new) && !votes(list, old))? {
        Some(now) => {
            io.line(format_args!("voters: {} (set {})", names(&now), now.number))?;
            Ok(Exit::Done)
        }
        None => {
            io.note(format_args!("error: {old} is not replaced after {} s", timeout.as_secs_f32()));
            io.note("hint: the order stands, and the voters carry it out when a majority of them and the new one are there: clusterctl get voters");
            Ok(Exit::Timeout)
        }
    }
}

fn force(dead: &[String], yes: bool, timeout: Duration, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let end = Instant::now() + timeout;
    let request = ForceRequest { dead: dead.to_vec(), set: None };
    let plan: Forced = client.post("/v1/voters/force", &request)?;
    io.line(format_args!("Dead, by your word: {}\nLeft, and alone to vote from now on: {}", dead.join(", "), names(&plan.next)))?;
    io.line(format_args!(
        "No lease is granted for {WAITS_S} s, then epochs go on far above all that the dead can have granted.\n\
         If one of the dead runs, only cut off from here, it may go on granting leases with the others that are: then two nodes are active\n\
         at once, and both write. Switch them off first. One that starts again asks the others and the store before it votes; where it can\n\
         reach neither, remove its {} before.",
        "/var/lib/clusterctl/voter.journal"
    ))?;
    if !yes {
        io.note("hint: nothing was done; --yes vouches for it");
        return Ok(Exit::Done);
    }
    let signed: Forced = client.post("/v1/voters/force", &ForceRequest { set: Some(plan.set), ..request })?;
    match wait(client, end, |list| list.number >= signed.next.number)? {
        Some(now) => {
            io.line(format_args!("\nvoters: {} (set {})", names(&now), now.number))?;
            io.remark("others that are heard join by themselves, one after the other: clusterctl get voters");
            Ok(Exit::Done)
        }
        None => {
            io.note(format_args!("error: those that are left are not seen to have taken it after {} s", timeout.as_secs_f32()));
            io.note(
                "hint: what they say is stored in NATS, which may have lost its majority too; their logs tell: journalctl -u cluster-agent",
            );
            Ok(Exit::Timeout)
        }
    }
}
