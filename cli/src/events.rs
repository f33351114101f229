//! `events`: what happened, the latest last.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use clap::Args;
use cluster_schemas::event::{Event, Events};
use jiff::Timestamp;

use crate::args::{Format, GetArgs};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::age::age;
use crate::output::document;
use crate::output::table::Table;
use crate::resource::{self, Kind};
use crate::select::format::{Output, OutputParser};

/// How often a watch looks: a look costs a controller one copy of its list.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Events of an object that `describe` shows.
const DESCRIBED_MAX: usize = 10;

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only those about this object: `app/database`, `node/n1`
    #[arg(long = "for", value_name = "KIND/NAME")]
    object: Option<String>,

    /// Go on printing what happens, until Ctrl-C
    #[arg(short = 'w', long)]
    watch: bool,

    /// How to print
    #[arg(short = 'o', long, value_parser = OutputParser, default_value = "table")]
    output: Output,

    /// Leave the line of column headers away
    #[arg(long)]
    no_headers: bool,
}

/// What `get events` asks for, if it asks for that.
pub(crate) fn asked(args: &GetArgs) -> Option<EventsArgs> {
    matches!(args.resources.as_slice(), [word] if matches!(word.as_str(), "events" | "event" | "ev")).then(|| EventsArgs {
        object: None,
        watch: args.watch || args.watch_only,
        output: args.output.clone(),
        no_headers: args.no_headers,
    })
}

/// Prints them.
pub(crate) fn run(args: &EventsArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let path = path(args.object.as_deref())?;
    let mut known: BTreeMap<(String, String, String, String), u64> = BTreeMap::new();
    let mut first = true;
    loop {
        let items = match client.get::<Events>(&path) {
            Ok(events) => events.items,
            // A watch outlives the controllers.
            Err(ClientError::Unreachable { .. }) if args.watch && !first => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let news: Vec<Event> = items.into_iter().filter(|event| known.insert(key(event), event.count) != Some(event.count)).collect();
        if first || !news.is_empty() {
            print(&news, args, first, io)?;
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        first = false;
        thread::sleep(POLL_INTERVAL);
    }
}

fn key(event: &Event) -> (String, String, String, String) {
    (event.object.clone(), event.reason.clone(), event.message.clone(), event.first_seen.clone())
}

fn path(object: Option<&str>) -> Result<String, CliError> {
    let Some(object) = object else { return Ok("/v1/events".to_owned()) };
    let selections = resource::parse(&[object.to_owned()], &[Kind::App, Kind::Node])?;
    match selections.as_slice() {
        [one] if one.names.len() == 1 => {
            let name = format!("{}/{}", one.kind.singular(), one.names.join(""));
            Ok(format!("/v1/events?for={}", encode(&name)))
        }
        _ => Err(CliError::Usage { message: format!("{object:?} has no name"), hint: Some("such as --for app/database".to_owned()) }),
    }
}

fn print(events: &[Event], args: &EventsArgs, first: bool, io: &mut Io<'_>) -> Result<(), CliError> {
    let items = serde_json::json!({ "items": events });
    if let Some(text) = args.output.of_paths(&items, args.no_headers || !first) {
        return io.out(&text);
    }
    match args.output.plain() {
        Format::Json => io.out(&document::json(&items)),
        Format::Yaml => io.out(&document::yaml(&items)),
        Format::Name => io.out(&events.iter().map(|event| format!("{}\n", event.object)).collect::<String>()),
        Format::Table | Format::Wide => {
            if events.is_empty() {
                io.remark("No events found.");
            }
            io.out(&table(events, true, Timestamp::now()).render_in(io.colour(), args.no_headers || !first))
        }
    }
}

fn table(events: &[Event], object: bool, now: Timestamp) -> Table {
    let mut headers = vec!["AGE", "TYPE", "REASON", "MESSAGE"];
    if object {
        headers.insert(1, "OBJECT");
    }
    let mut table = Table::new(&headers);
    for event in events {
        let last = age(Some(&event.last_seen), now);
        let times = if event.count > 1 { format!("{last} (x{} over {})", event.count, age(Some(&event.first_seen), now)) } else { last };
        let mut row = vec![times, event.kind.as_str().to_owned(), event.reason.clone(), event.message.clone()];
        if object {
            row.insert(1, event.object.clone());
        }
        table.row(row);
    }
    table
}

/// The last events of `object` as a part of its description; nothing where there are none, or the controller does not know them.
pub(crate) fn section(client: &Client, object: &str, now: Timestamp) -> String {
    let Ok(Events { items }) = client.get::<Events>(&format!("/v1/events?for={}", encode(object))) else { return String::new() };
    let last = items.get(items.len().saturating_sub(DESCRIBED_MAX)..).unwrap_or_default();
    if last.is_empty() {
        return String::new();
    }
    let lines: String = table(last, false, now).render(false).lines().map(|line| format!("  {line}\n")).collect();
    format!("Events:\n{lines}")
}
