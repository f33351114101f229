//! `switchover`: has a Singleton be active on another node, by a hand-over in good order.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use cluster_schemas::api::{Failovers, NodeView, Switchover, SwitchoverRequest};

use crate::args::duration;
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::failovers;
use crate::get;
use crate::io::Io;
use crate::resource::Kind;

/// How often it is asked who is active.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The times of a take-over are stored a moment after it; without them the rest is told all the same.
const TIMES_WAIT: Duration = Duration::from_secs(5);

/// `switchover`.
#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// Name of the App
    pub(crate) app: String,

    /// The node that shall take over; the best of the standbys when absent
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,

    /// Longest time to wait until another node is active and healthy
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Who has the lease, with which epoch, and whether the instance is healthy.
fn holder(nodes: &[NodeView], app: &str) -> Option<(String, u64, bool)> {
    let seen = nodes.iter().filter_map(|n| n.status.as_ref()?.apps.get(app).map(|o| (n.node.name.clone(), o.leased, o.healthy)));
    seen.filter(|(_, epoch, _)| *epoch > 0).max_by_key(|(_, epoch, _)| *epoch)
}

/// Asks for it, waits for it, and tells who is active and how long it took.
pub(crate) fn run(args: &SwitchoverArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let SwitchoverArgs { app, to, timeout } = args;
    let end = Instant::now() + *timeout;
    let nodes = client.list::<NodeView>("/v1/nodes")?.items;
    // The controller says it better why nobody is active, or that there is no such App.
    let epoch = holder(&nodes, app).map_or(0, |(_, epoch, _)| epoch);
    let request = SwitchoverRequest { epoch, to: to.clone() };
    let asked = client.post::<Switchover>(&format!("/v1/apps/{}/switchover", encode(app)), &request);
    let asked = asked.map_err(|error| match error {
        error if !error.is_not_found() => error.into(),
        _ if to.as_ref().is_some_and(|to| !nodes.iter().any(|n| n.node.name == *to))
            && client.get::<serde_json::Value>(&format!("/v1/apps/{}", encode(app))).is_ok() =>
        {
            get::not_found(client, Kind::Node, to.as_deref().unwrap_or_default())
        }
        _ => get::not_found(client, Kind::App, app),
    })?;
    loop {
        let budget = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
        let now = match client.list_within::<NodeView>("/v1/nodes", budget) {
            Ok(nodes) => holder(&nodes.items, app),
            Err(ClientError::Unreachable { .. }) if Instant::now() < end => None,
            Err(error) => return Err(error.into()),
        };
        match now {
            Some((node, now, true)) if now > asked.epoch => return told(&asked, &node, now, args, client, io),
            _ if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            other => return late(&asked, other, *timeout, io),
        }
    }
}

fn told(asked: &Switchover, node: &str, epoch: u64, args: &SwitchoverArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let app = &asked.app;
    io.line(format_args!("app/{app} switched over: {} (epoch {}) -> {node} (epoch {epoch})", asked.from, asked.epoch))?;
    let end = Instant::now() + TIMES_WAIT;
    loop {
        let known = client.get_within::<Failovers>(&format!("/v1/failovers/{}", encode(app)), TIMES_WAIT).unwrap_or_default();
        if let Some(this) = known.takeovers.iter().find(|t| t.epoch == epoch) {
            io.line(failovers::times(this))?;
            break;
        }
        if Instant::now() >= end {
            break;
        }
        thread::sleep(POLL_INTERVAL);
    }
    if args.to.as_ref().is_some_and(|to| to != node) {
        let wanted = args.to.as_deref().unwrap_or_default();
        io.note(format_args!("error: {wanted} did not take over in time, so {node} did"));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

fn late(asked: &Switchover, now: Option<(String, u64, bool)>, timeout: Duration, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let how = match now {
        Some((node, epoch, _)) if epoch > asked.epoch => format!("{node} is active (epoch {epoch}), and not healthy yet"),
        Some((node, ..)) => format!("{node} is still active"),
        None => format!("{} lets go, and nobody is active yet", asked.from),
    };
    io.note(format_args!("error: app/{} is not switched over after {} s: {how}", asked.app, timeout.as_secs_f32()));
    io.note(format_args!("hint: clusterctl describe app {} says why", asked.app));
    Ok(Exit::Timeout)
}
