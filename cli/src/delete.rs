//! `delete`: asks for the deletion of Apps, and waits until nothing of them is left on any node.

use std::thread;
use std::time::{Duration, Instant};

use cluster_schemas::api::{AppView, Deleted};
use cluster_schemas::app::unit_name;
use cluster_schemas::node::InstanceState;

use crate::args::{DeleteArgs, FileArgs};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::get;
use crate::input;
use crate::io::Io;
use crate::resource::{self, Kind};

/// How often it is asked whether an App is gone.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// An App whose deletion was asked for and that is not gone yet.
struct Waiting {
    name: String,
    /// An App of the same name with another uid is a new one.
    uid: String,
    /// What was said last, so that only news are printed.
    said: String,
}

/// Deletes the Apps that are named, directly or by files.
pub(crate) fn run(args: &DeleteArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let names = names(args)?;
    let client = connect()?;
    let end = Instant::now() + args.timeout;
    let mut exit = Exit::Done;
    let mut waiting = Vec::new();
    for name in names {
        match delete(&client, &name, args.force, io) {
            Ok(None) => io.line(format_args!("app/{name} deleted"))?,
            Ok(Some(_)) if !args.wait => io.line(format_args!("app/{name} is being deleted"))?,
            Ok(Some(uid)) => waiting.push(Waiting { name, uid, said: String::new() }),
            Err(CliError::NotFound { .. }) if args.ignore_not_found => {}
            Err(error @ (CliError::Client(ClientError::Unreachable { .. }) | CliError::Output(_))) => return Err(error),
            Err(error) => exit = exit.max(io.fail(&error)),
        }
    }
    Ok(exit.max(wait(waiting, &client, end, args, io)?))
}

fn names(args: &DeleteArgs) -> Result<Vec<String>, CliError> {
    let mut names = Vec::new();
    let mut add = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    if !args.files.is_empty() {
        let input = FileArgs { files: args.files.clone(), recursive: args.recursive };
        input::read(&input, &mut std::io::stdin())?.into_iter().for_each(|parsed| add(parsed.app.metadata.name));
        return Ok(names);
    }
    for selection in resource::parse(&args.resources, &[Kind::App])? {
        if selection.names.is_empty() {
            return Err(CliError::Usage {
                message: "which app?".to_owned(),
                hint: Some("name them: clusterctl delete app NAME; all Apps at once are not deleted".to_owned()),
            });
        }
        selection.names.into_iter().for_each(&mut add);
    }
    Ok(names)
}

/// Asks for the deletion of one App. Returns its uid while it is not gone.
fn delete(client: &Client, name: &str, force: bool, io: &mut Io<'_>) -> Result<Option<String>, CliError> {
    let path = format!("/v1/apps/{}", encode(name));
    let missing = |error: ClientError| if error.is_not_found() { get::not_found(client, Kind::App, name) } else { error.into() };
    let app: AppView = client.get(&path).map_err(missing)?;
    let query = if force { "?force=true" } else { "" };
    let deleted: Deleted = match client.delete(&format!("{path}{query}")) {
        Ok(deleted) => deleted,
        // It went between the two requests, or the answer to a first try was lost: that is what was asked for.
        Err(error) if error.is_not_found() => Deleted { gone: true, may_still_run: Vec::new() },
        Err(error) => return Err(error.into()),
    };
    if !deleted.may_still_run.is_empty() {
        let (nodes, unit) = (deleted.may_still_run.join(", "), unit_name(name, app.spec.unit.as_ref()));
        io.note(format_args!("warning: app/{name} may still run on {nodes}; stop {unit} there, or start those nodes anew"));
    }
    Ok(if deleted.gone { None } else { Some(app.metadata.uid) })
}

/// Waits until all are gone, says for whom, and reports those that are not gone at `end`.
fn wait(mut waiting: Vec<Waiting>, client: &Client, end: Instant, args: &DeleteArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    loop {
        let mut left = Vec::new();
        for mut app in waiting {
            // At least one look at each, also with a time-out of zero.
            let budget = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
            let news = match client.get_within::<AppView>(&format!("/v1/apps/{}", encode(&app.name)), budget) {
                Ok(view) if view.metadata.uid == app.uid => format!("waiting for {}", blockers(&view)),
                Err(error) if !error.is_not_found() => match error {
                    // A controller that leads may just be failing over; the deletion is stored and goes on.
                    ClientError::Unreachable { .. } => "no controller answers, still waiting".to_owned(),
                    error => return Err(error.into()),
                },
                Ok(_) | Err(_) => {
                    io.line(format_args!("app/{} deleted", app.name))?;
                    continue;
                }
            };
            if app.said != news {
                io.note(format_args!("app/{}: {news}", app.name));
                app.said = news;
            }
            left.push(app);
        }
        if left.is_empty() {
            return Ok(Exit::Done);
        }
        if Instant::now() >= end {
            for app in left {
                io.note(format_args!("error: app/{} is not gone after {} s: {}", app.name, args.timeout.as_secs_f32(), app.said));
            }
            io.note("hint: it goes once these nodes confirm; --force forgets it at once and names the nodes that may still run it");
            return Ok(Exit::Timeout);
        }
        waiting = left;
        thread::sleep(POLL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}

/// The nodes that still have something of the App, and which of them are not heard.
fn blockers(app: &AppView) -> String {
    let instances = app.status.as_ref().map(|status| status.instances.as_slice()).unwrap_or_default();
    if instances.is_empty() {
        return "the controller".to_owned();
    }
    let names: Vec<String> = instances
        .iter()
        .map(
            |instance| {
                if instance.state == InstanceState::Unknown { format!("{} (not heard)", instance.node) } else { instance.node.clone() }
            },
        )
        .collect();
    names.join(", ")
}
