//! `get`.

use cluster_schemas::Assignment;
use cluster_schemas::api::{AppView, List, NodeView};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{Format, GetArgs};
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::failovers;
use crate::held::Held;
use crate::io::Io;
use crate::output::{apps, assignments, document, nodes};
use crate::resource::{self, Kind, Selection};
use crate::suggest;

/// Prints the selected objects. Those that do not exist are reported, the others printed.
pub(crate) fn run(args: &GetArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    if let Some(held) = Held::asked(&args.resources) {
        return held.run(args, &connect()?, io);
    }
    if let Some(asked) = failovers::asked(args) {
        return failovers::run(&asked, &connect()?, io);
    }
    let selections = resource::parse(&args.resources, &[Kind::App, Kind::Node, Kind::Assignment])?;
    let client = connect()?;
    match args.output {
        Format::Table | Format::Wide => tables(&selections, &client, args, io),
        Format::Json | Format::Yaml | Format::Name => documents(&selections, &client, args.output, io),
    }
}

fn tables(selections: &[Selection], client: &Client, args: &GetArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let wide = args.output == Format::Wide;
    let mut exit = Exit::Done;
    let mut first = true;
    for selection in selections {
        let kind = selection.kind;
        // As kubectl does: with several kinds in one output each name says its own.
        let prefix = if selections.len() > 1 { format!("{}/", kind.singular()) } else { String::new() };
        let now = Timestamp::now();
        let (table, found) = match kind {
            Kind::App => {
                let (all, found) = fetch::<AppView>(client, selection, io)?;
                (apps::table(&all, wide, &prefix, now), found)
            }
            Kind::Node => {
                let (all, found) = fetch::<NodeView>(client, selection, io)?;
                (nodes::table(&all, wide, &prefix, now), found)
            }
            Kind::Assignment => {
                let (all, found) = fetch::<Assignment>(client, selection, io)?;
                (assignments::table(&all, wide, &prefix), found)
            }
        };
        exit = exit.max(found);
        let text = table.render(args.no_headers);
        if text.is_empty() {
            if selection.names.is_empty() {
                io.note(format_args!("No {} found.", kind.plural()));
            }
        } else {
            io.out(&if first { text } else { format!("\n{text}") })?;
            first = false;
        }
    }
    Ok(exit)
}

fn documents(selections: &[Selection], client: &Client, format: Format, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    let mut all: Vec<(Kind, Value)> = Vec::new();
    for selection in selections {
        let (items, found) = fetch::<Value>(client, selection, io)?;
        exit = exit.max(found);
        all.extend(items.into_iter().map(|item| (selection.kind, item)));
    }
    if format == Format::Name {
        let lines: String = all.iter().filter_map(|(kind, item)| Some(format!("{}/{}\n", kind.singular(), kind.name_in(item)?))).collect();
        io.out(&lines)?;
        return Ok(exit);
    }
    let asked: usize = selections.iter().map(|selection| selection.names.len()).sum();
    let single = selections.len() == 1 && asked == 1;
    let value = if single {
        // One object was asked for by name: it stands alone, and nothing stands where it does not exist.
        match all.pop() {
            Some((_, item)) => item,
            None => return Ok(exit),
        }
    } else {
        json!({ "items": all.into_iter().map(|(_, item)| item).collect::<Vec<_>>() })
    };
    io.out(&if format == Format::Json { document::json(&value) } else { document::yaml(&value) })?;
    Ok(exit)
}

/// The selected objects. Names that do not exist are reported on the way, and the exit code says so.
pub(crate) fn fetch<T: DeserializeOwned>(client: &Client, selection: &Selection, io: &mut Io<'_>) -> Result<(Vec<T>, Exit), CliError> {
    let folder = format!("/v1/{}", selection.kind.plural());
    if selection.names.is_empty() {
        return Ok((client.get::<List<T>>(&folder)?.items, Exit::Done));
    }
    let (mut items, mut exit) = (Vec::new(), Exit::Done);
    for name in &selection.names {
        match client.get(&format!("{folder}/{}", encode(name))) {
            Ok(item) => items.push(item),
            Err(error) if error.is_not_found() => exit = exit.max(io.fail(&not_found(client, selection.kind, name))),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((items, exit))
}

/// That `name` does not exist, with the name that was probably meant.
pub(crate) fn not_found(client: &Client, kind: Kind, name: &str) -> CliError {
    // Without the list there is no suggestion, and the message stays true.
    let known = client.get::<List<Value>>(&format!("/v1/{}", kind.plural())).unwrap_or_default().items;
    let similar = suggest::similar(name, known.iter().filter_map(|item| kind.name_in(item)));
    let word = kind.singular();
    CliError::NotFound { object: format!("{word}/{name}"), similar: similar.map(|name| format!("{word}/{name}")) }
}
