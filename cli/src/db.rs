//! `db`: the database of a Singleton on all nodes that have it.

use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use cluster_schemas::database::{DatabaseDivergence, DatabaseNode, DatabaseStatus, DatabaseSyncRequest, DatabaseSynced, DatabaseVerified};

use crate::args::{RingFormat, duration};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::{databases, document};
use crate::{db_work, suggest};

/// One request waits no longer than this for confirmations; the command asks again.
const ASK_FOR: Duration = Duration::from_secs(2);
/// How often it is asked while nobody can answer.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// `db`.
#[derive(Debug, Args)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    pub(crate) command: DbCommand,
}

/// What to do about a database.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Show where the database is on each node, and how far behind
    Status {
        /// Name of the App
        app: String,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = RingFormat::Table)]
        output: RingFormat,
        /// Leave out the headers
        #[arg(long)]
        no_headers: bool,
    },
    /// Return once all that was committed before is on as many standbys as `confirm` asks for, one at least
    Sync {
        /// Name of the App
        app: String,
        /// Longest time to wait
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
    /// List transactions that an earlier active had and nobody else
    Divergence {
        /// Name of the App
        app: String,
    },
    /// Show what such a file holds
    ShowDivergence {
        /// Name of the App
        app: String,
        /// The node that has it
        node: String,
        /// Name of the file, as `db divergence` lists it
        file: String,
    },
    /// Check the database on each node, and that what is durable can be restored
    ///
    /// Reads the whole database on each node, compares it with its checksums, and has SQLite check the replicas. Then a standby makes it
    /// anew from the newest snapshot and the stream, compares that with its log, has SQLite check it, and removes it again.
    Verify {
        /// Name of the App
        app: String,
        /// Only on this node, and nothing is restored
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// Keep a snapshot of the database in its object store
    Snapshot {
        /// Name of the App
        app: String,
        /// So many of the newest snapshots stay
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        keep: u32,
    },
    /// Make the database anew from its newest snapshot and the stream, as a file on a node
    Restore {
        /// Name of the App
        app: String,
        /// The file to be made, on that node; nothing is written over
        #[arg(long, value_name = "PATH")]
        to: String,
        /// The node, one that has the App; a standby where this is not given
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// Let a promotion go on that `maxLag` or `confirm` holds back: what is on no node that answers is lost. Or let a file count that was put
    /// in the place of the database: all replicas become like it
    AcceptLoss {
        /// Name of the App
        app: String,
        /// Vouch for it; without this nothing is done
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn path(app: &str, rest: &str) -> String {
    format!("/v1/apps/{}/database{rest}", encode(app))
}

/// Does it.
pub(crate) fn run(args: &DbArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    match &args.command {
        DbCommand::Status { app, output, no_headers } => status(app, *output, *no_headers, client, io),
        DbCommand::Sync { app, timeout } => sync(app, *timeout, client, io),
        DbCommand::Divergence { app } => {
            let status = of(client, app)?;
            let text = databases::divergences(&status).render(false);
            if text.is_empty() {
                io.note(format_args!("no node of app/{app} keeps transactions that nobody else had"));
            }
            io.out(&text)?;
            Ok(Exit::Done)
        }
        DbCommand::ShowDivergence { app, node, file } => {
            let rest = format!("/divergences/{}/{}", encode(node), encode(file));
            let shown: DatabaseDivergence = client.get(&path(app, &rest)).map_err(|error| missing(client, app, error))?;
            io.out(&databases::divergence(&shown))?;
            Ok(Exit::Done)
        }
        DbCommand::Verify { app, node } => verify(app, node.as_deref(), client, io),
        DbCommand::Snapshot { app, keep } => db_work::snapshot(app, *keep, client, io),
        DbCommand::Restore { app, to, node } => db_work::restore(app, to, node.as_deref(), client, io),
        DbCommand::AcceptLoss { app, yes } => accept_loss(app, *yes, client, io),
    }
}

pub(crate) fn of(client: &Client, app: &str) -> Result<DatabaseStatus, CliError> {
    client.get(&path(app, "")).map_err(|error| missing(client, app, error))
}

fn status(app: &str, format: RingFormat, no_headers: bool, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let print = match format {
        RingFormat::Table | RingFormat::Wide => {
            let status = of(client, app)?;
            io.out(&databases::status(&status, format == RingFormat::Wide).render(no_headers))?;
            for line in databases::remarks(&status) {
                io.note(line);
            }
            return Ok(Exit::Done);
        }
        RingFormat::Json => document::json,
        RingFormat::Yaml => document::yaml,
    };
    let value = client.get(&path(app, "")).map_err(|error| missing(client, app, error))?;
    io.out(&print(&value))?;
    Ok(Exit::Done)
}

fn sync(app: &str, timeout: Duration, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.min(ASK_FOR).as_millis()).unwrap_or(u64::MAX);
        match client.post::<DatabaseSynced>(&path(app, "/sync"), &DatabaseSyncRequest { timeout_ms }) {
            Ok(synced) => {
                io.line(databases::synced(app, &synced))?;
                return Ok(Exit::Done);
            }
            Err(error) if error.is_not_found() || error.problem().is_none_or(|p| p.status != 409 && p.status != 503) => {
                return Err(missing(client, app, error));
            }
            Err(error) if Instant::now() >= end => {
                let why = error.problem().map(|problem| problem.detail.clone()).unwrap_or_default();
                io.note(format_args!("error: not all that was committed is on the standbys after {} s: {why}", timeout.as_secs_f32()));
                io.note(format_args!("hint: clusterctl db status {app} tells how far each node is"));
                return Ok(Exit::Timeout);
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

fn verify(app: &str, only: Option<&str>, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let all: Vec<DatabaseNode> = of(client, app)?.nodes;
    let nodes = all.iter().map(|node| node.node.as_str()).filter(|node| only.is_none_or(|only| only == *node));
    let mut nodes: Vec<&str> = nodes.collect();
    if let Some(only) = only.filter(|_| nodes.is_empty()) {
        // The controller says it.
        nodes.push(only);
    }
    let mut exit = Exit::Done;
    for node in nodes {
        if only.is_none() && all.iter().any(|known| known.node == node && known.role == "Unknown") {
            exit = Exit::Failed;
            io.note(format_args!("error: {node} does not answer"));
            continue;
        }
        match client.post::<DatabaseVerified>(&path(app, &format!("/verify/{}", encode(node))), &serde_json::json!({})) {
            Ok(verified) => {
                if !verified.wrong.is_empty() {
                    exit = Exit::Failed;
                }
                io.out(&databases::verified(&verified))?;
            }
            Err(error) if error.problem().is_some() && only.is_none() => {
                exit = Exit::Failed;
                io.note(format_args!("error: {error}"));
            }
            Err(error) => return Err(missing(client, app, error)),
        }
    }
    if only.is_some() {
        return Ok(exit);
    }
    let restored = db_work::verify(app, &all, client, io)?;
    Ok(if exit == Exit::Done { restored } else { exit })
}

fn accept_loss(app: &str, yes: bool, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    if !yes {
        io.note(
            "Transactions that are on no node that answers, or that are not in a replaced file, would be lost. Say --yes to vouch for it.",
        );
        return Ok(Exit::Failed);
    }
    let node: DatabaseNode =
        client.post(&path(app, "/accept-loss"), &serde_json::json!({})).map_err(|error| missing(client, app, error))?;
    io.line(format_args!("app/{app}: {} goes on with what it can have", node.node))?;
    Ok(Exit::Done)
}

/// Makes of a "not found" the name that was probably meant, where the App itself is what is missing.
pub(crate) fn missing(client: &Client, app: &str, error: ClientError) -> CliError {
    suggest::missing_app(client, app, error, |known| known.spec.database.is_some())
}
