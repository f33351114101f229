//! `describe`.

use cluster_schemas::Assignment;
use cluster_schemas::api::{AppView, NodeView};
use jiff::Timestamp;

use crate::args::DescribeArgs;
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::events;
use crate::get;
use crate::io::Io;
use crate::output::{describe_app, describe_node};
use crate::resource::{self, Kind, Selection};

/// Prints everything about the selected objects, an empty line between two.
pub(crate) fn run(args: &DescribeArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let selections = resource::parse(&args.resources, &[Kind::App, Kind::Node])?;
    let client = connect()?;
    let mut exit = Exit::Done;
    let mut first = true;
    for selection in &selections {
        let (texts, found) = if selection.kind == Kind::App { apps(&client, selection, io)? } else { nodes(&client, selection, io)? };
        exit = exit.max(found);
        for text in texts {
            io.out(&if first { text } else { format!("\n{text}") })?;
            first = false;
        }
    }
    Ok(exit)
}

fn apps(client: &Client, selection: &Selection, io: &mut Io<'_>) -> Result<(Vec<String>, Exit), CliError> {
    let (apps, exit) = get::fetch::<AppView>(client, selection, io)?;
    if apps.is_empty() {
        return Ok((Vec::new(), exit));
    }
    let nodes = match client.list::<NodeView>("/v1/nodes") {
        Ok(list) => list.items,
        Err(error) => {
            io.note(format_args!("warning: the units are not shown: {error}"));
            Vec::new()
        }
    };
    let now = Timestamp::now();
    let with_events = |app: &AppView| {
        let events = events::section(client, &format!("app/{}", app.metadata.name), now);
        format!("{}{events}", describe_app::describe(app, &nodes, now))
    };
    Ok((apps.iter().map(with_events).collect(), exit))
}

fn nodes(client: &Client, selection: &Selection, io: &mut Io<'_>) -> Result<(Vec<String>, Exit), CliError> {
    let (nodes, exit) = get::fetch::<NodeView>(client, selection, io)?;
    let now = Timestamp::now();
    let mut texts = Vec::new();
    for view in &nodes {
        let plan = match client.get::<Assignment>(&format!("/v1/assignments/{}", encode(&view.node.name))) {
            Ok(plan) => Some(plan),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                io.note(format_args!("warning: the plan for node/{} is not shown: {error}", view.node.name));
                None
            }
        };
        let events = events::section(client, &format!("node/{}", view.node.name), now);
        texts.push(format!("{}{events}", describe_node::describe(view, plan.as_ref(), now)));
    }
    Ok((texts, exit))
}
