//! `db snapshot`, `db restore`, and the part of `db verify` that restores: long work that an agent does, and how far it is.

use std::thread;
use std::time::{Duration, Instant};

use cluster_schemas::database::{DatabaseJob, DatabaseNode, DatabaseWork, WorkState};

use crate::client::{Client, ClientError, encode};
use crate::db::{missing, of, path};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::databases;

/// How often it is asked how far it is...
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// ...and how often that is said.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// A node that does not say how far it is for so long is given up.
const SILENT: Duration = Duration::from_secs(30);

/// The active puts a snapshot into the object store.
pub(crate) fn snapshot(app: &str, keep: u32, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let nodes = of(client, app)?.nodes;
    let Some(active) = nodes.iter().find(|node| node.role == "Active") else {
        io.note(format_args!("error: no node is active for app/{app}"));
        return Ok(Exit::Failed);
    };
    run(app, &active.node, &DatabaseJob::Snapshot { keep }, client, io)
}

/// A node makes the database anew.
pub(crate) fn restore(app: &str, to: &str, node: Option<&str>, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let nodes = of(client, app)?.nodes;
    let Some(node) = node.or_else(|| apart(&nodes)) else {
        io.note(format_args!("error: no node of app/{app} answers"));
        return Ok(Exit::Failed);
    };
    run(app, node, &DatabaseJob::Restore { to: to.to_owned() }, client, io)
}

/// A node makes it anew and compares it.
pub(crate) fn verify(app: &str, nodes: &[DatabaseNode], client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    match apart(nodes) {
        Some(node) => run(app, node, &DatabaseJob::Verify, client, io),
        None => Ok(Exit::Done),
    }
}

/// A standby; else whoever answers.
fn apart(nodes: &[DatabaseNode]) -> Option<&str> {
    let there = |node: &&DatabaseNode| node.role != "Unknown";
    let found = nodes.iter().find(|node| node.role == "Standby").or_else(|| nodes.iter().find(there));
    found.map(|node| node.node.as_str())
}

fn run(app: &str, node: &str, job: &DatabaseJob, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let path = path(app, &format!("/work/{}", encode(node)));
    let failed = |error: ClientError| missing(client, app, error);
    let mut work: DatabaseWork = client.post(&path, job).map_err(failed)?;
    let (id, mut told, mut heard) = (work.id, Instant::now(), Instant::now());
    while work.state == WorkState::Running {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            io.note(databases::progress(&work));
        }
        thread::sleep(POLL_INTERVAL);
        match client.get::<DatabaseWork>(&path) {
            Ok(now) => (work, heard) = (now, Instant::now()),
            // A controller or a node may be away for a moment.
            Err(error) if heard.elapsed() > SILENT => return Err(failed(error)),
            Err(_) => {}
        }
        if work.id != id {
            io.note(format_args!("error: {node} does not know how it ended: it does something else now"));
            return Ok(Exit::Failed);
        }
    }
    for remark in &work.remarks {
        io.note(format_args!("error: {node}: {remark}"));
    }
    if work.state == WorkState::Failed {
        io.note(format_args!("error: {node}: {}", work.message));
        return Ok(Exit::Failed);
    }
    io.line(format_args!("{node}: {}", work.message))?;
    Ok(if work.remarks.is_empty() { Exit::Done } else { Exit::Failed })
}
