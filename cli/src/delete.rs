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
    /// Its uid, once it was seen in deletion: an App of the same name with another uid is a new one.
    uid: Option<String>,
    /// Looks in a row that did not find it.
    missed: u32,
    /// What was said last, so that only news are printed.
    said: String,
}

impl Waiting {
    /// Takes in what a look found, and says whether the App is gone.
    fn gone(&mut self, found: Option<&AppView>) -> bool {
        let Some(view) = found else {
            self.missed += 1;
            // Controllers read from caches, which may not have heard of an App that was made a moment ago.
            return self.uid.is_some() || self.missed > 1;
        };
        self.missed = 0;
        match &self.uid {
            Some(uid) => *uid != view.metadata.uid,
            None => {
                if view.metadata.deletion_timestamp.is_some() {
                    self.uid = Some(view.metadata.uid.clone());
                }
                false
            }
        }
    }
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
            Ok(true) => io.line(format_args!("app/{name} deleted"))?,
            Ok(false) if !args.wait => io.line(format_args!("app/{name} is being deleted"))?,
            Ok(false) => waiting.push(Waiting { name, uid: None, missed: 0, said: String::new() }),
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

/// Asks for the deletion of one App. Returns whether it is gone already.
fn delete(client: &Client, name: &str, force: bool, io: &mut Io<'_>) -> Result<bool, CliError> {
    let path = format!("/v1/apps/{}", encode(name));
    // Its unit is told to the user below; what is forced may not be readable any more afterwards.
    let unit = if force { client.get::<AppView>(&path).ok().map(|app| unit_name(name, app.spec.unit.as_ref())) } else { None };
    let query = if force { "?force=true" } else { "" };
    let missing = |error: ClientError| if error.is_not_found() { get::not_found(client, Kind::App, name) } else { error.into() };
    let deleted: Deleted = client.delete(&format!("{path}{query}")).map_err(missing)?;
    if !deleted.may_still_run.is_empty() {
        let (nodes, unit) = (deleted.may_still_run.join(", "), unit.as_deref().unwrap_or("its unit"));
        io.note(format_args!("warning: app/{name} may still run on {nodes}; look for {unit} there"));
    }
    Ok(deleted.gone)
}

/// Waits until all are gone, says for whom, and reports those that are not gone at `end`.
fn wait(mut waiting: Vec<Waiting>, client: &Client, end: Instant, args: &DeleteArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    loop {
        let mut left = Vec::new();
        for mut app in waiting {
            // At least one look at each, also with a time-out of zero.
            let budget = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
            let found = match client.get_within::<AppView>(&format!("/v1/apps/{}", encode(&app.name)), budget) {
                Ok(view) => Ok(Some(view)),
                Err(error) if error.is_not_found() => Ok(None),
                // A controller that leads may just be failing over; the deletion is stored and goes on.
                Err(ClientError::Unreachable { .. }) => Err("no controller answers, still waiting".to_owned()),
                Err(error) => return Err(error.into()),
            };
            let news = match found {
                Ok(view) if app.gone(view.as_ref()) => {
                    io.line(format_args!("app/{} deleted", app.name))?;
                    continue;
                }
                Ok(view) => format!("waiting for {}", view.as_ref().map_or_else(|| "the controller".to_owned(), blockers)),
                Err(news) => news,
            };
            if app.said != news {
                io.remark(format_args!("app/{}: {news}", app.name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(uid: &str, deleted: bool) -> AppView {
        let mut value =
            json!({"apiVersion": "cluster/v1", "kind": "App", "metadata": {"name": "x", "uid": uid}, "spec": {"mode": "Spread"}});
        if deleted {
            value["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:00Z");
        }
        serde_json::from_value(value).unwrap()
    }

    fn waiting() -> Waiting {
        Waiting { name: "x".to_owned(), uid: None, missed: 0, said: String::new() }
    }

    #[test]
    fn gone_is_what_was_seen_and_is_not_found_any_more() {
        let mut app = waiting();
        assert!(!app.gone(Some(&view("a", true))));
        assert!(app.gone(None));
    }

    #[test]
    fn a_cache_that_never_had_it_is_asked_twice() {
        let mut app = waiting();
        assert!(!app.gone(None));
        assert!(!app.gone(Some(&view("a", false))), "the cache caught up, and does not know of the deletion yet");
        assert!(!app.gone(None));
        assert!(app.gone(None));
    }

    #[test]
    fn a_new_app_of_the_same_name_does_not_keep_the_old_one_alive() {
        let mut app = waiting();
        assert!(!app.gone(Some(&view("a", true))));
        assert!(app.gone(Some(&view("b", false))));
    }
}
