//! `get`: objects as tables, documents, templates and columns, once or as they change.

use clap::Args;
use cluster_schemas::Assignment;
use cluster_schemas::api::{AppView, NodeView};
use cluster_schemas::watch::WatchKind;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::Format;
use crate::client::{Client, encode};
use crate::error::{CliError, Exit};
use crate::events;
use crate::failovers;
use crate::held::Held;
use crate::history;
use crate::io::Io;
use crate::output::table::Table;
use crate::output::{apps, assignments, document, nodes};
use crate::resource::{self, Kind, Selection};
use crate::ring;
use crate::select::format::{Output, OutputParser};
use crate::select::labels::Selector;
use crate::select::path::{self, Path};
use crate::sets;
use crate::stream::Watched;
use crate::suggest;
use crate::watch::{Change, Known};

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Kinds (apps, nodes, assignments) and names of objects: `apps`, `apps,nodes`, `app database cache`, `app/database node/n1`; or one of
    /// the lists `voters`, `leases`, `failovers`, `events`, `rings`, `sets`, `revisions [APP]`, `audit [KIND/NAME]`
    #[arg(required = true, value_name = "KIND [NAME]... | KIND/NAME")]
    pub(crate) resources: Vec<String>,

    /// How to print
    #[arg(short = 'o', long, value_parser = OutputParser, default_value = "table")]
    pub(crate) output: Output,

    /// Leave the line of column headers away
    #[arg(long)]
    pub(crate) no_headers: bool,

    /// Only objects with such labels: `tier=web,zone in (a,b),!legacy`
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Order by what stands at this path: `.metadata.creationTimestamp`
    #[arg(long, value_name = "PATH")]
    pub(crate) sort_by: Option<String>,

    /// Go on printing what changes, until Ctrl-C
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,

    /// The same, without what is there at first
    #[arg(long)]
    pub(crate) watch_only: bool,
}

/// What is read from the arguments before anything is sent.
struct Choice {
    selector: Option<Selector>,
    sort_by: Option<Path>,
}

impl Choice {
    fn read(args: &GetArgs) -> Result<Self, CliError> {
        let wrong = |what| move |reason| CliError::Select { what, reason };
        Ok(Self {
            selector: args.selector.as_deref().map(Selector::parse).transpose().map_err(wrong("--selector"))?,
            sort_by: args.sort_by.as_deref().map(Path::relaxed).transpose().map_err(wrong("--sort-by"))?,
        })
    }

    /// The path of a list, with the selector for controllers that know it.
    fn folder(&self, kind: Kind) -> String {
        let query = self.selector.as_ref().map(|selector| format!("?labelSelector={}", encode(selector.as_str()))).unwrap_or_default();
        format!("/v1/{}{query}", kind.plural())
    }

    /// Whether objects have to be looked into before they are printed.
    const fn looks(&self) -> bool {
        self.selector.is_some() || self.sort_by.is_some()
    }

    fn selects(&self, item: &Value) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(item))
    }

    fn apply(&self, items: &mut Vec<Value>) {
        items.retain(|item| self.selects(item));
        if let Some(path) = &self.sort_by {
            items.sort_by(|a, b| path::order(path.first(a), path.first(b)));
        }
    }
}

/// Prints the selected objects. Those that do not exist are reported, the others printed.
pub(crate) fn run(args: &GetArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let choice = Choice::read(args)?;
    if let Some(held) = Held::asked(&args.resources) {
        return held.run(args, &connect()?, io);
    }
    if let Some(asked) = events::asked(args) {
        return events::run(&asked, &connect()?, io);
    }
    if let Some(asked) = failovers::asked(args) {
        return failovers::run(&asked, &connect()?, io);
    }
    if let Some(names) = ring::asked(args) {
        return ring::list(names, args, &connect()?, io);
    }
    if let Some((asks, names)) = history::asked(args) {
        return history::run(asks, names, args, &connect()?, io);
    }
    if let Some(names) = sets::asked(args) {
        return sets::run(names, args, &connect()?, io);
    }
    let selections = resource::parse(&args.resources, &[Kind::App, Kind::Node, Kind::Assignment])?;
    check(args, &selections)?;
    let client = connect()?;
    if args.watch || args.watch_only {
        return follow(&selections, &client, args, &choice, io);
    }
    match args.output.plain() {
        Format::Table | Format::Wide => tables(&selections, &client, args, &choice, io),
        Format::Json | Format::Yaml | Format::Name => documents(&selections, &client, args, &choice, io),
    }
}

/// Arguments that make no sense together.
fn check(args: &GetArgs, selections: &[Selection]) -> Result<(), CliError> {
    let usage = |message: &str, hint: &str| Err(CliError::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) });
    if args.selector.is_some() && selections.iter().any(|selection| !selection.names.is_empty()) {
        return usage("names and a selector exclude each other", "leave either away");
    }
    if (args.watch || args.watch_only) && selections.len() > 1 {
        return usage("one kind can be watched at a time", "such as: clusterctl get apps --watch");
    }
    Ok(())
}

fn tables(selections: &[Selection], client: &Client, args: &GetArgs, choice: &Choice, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let wide = args.output.plain() == Format::Wide;
    let mut exit = Exit::Done;
    let mut first = true;
    for selection in selections {
        let kind = selection.kind;
        // As kubectl does: with several kinds in one output each name says its own.
        let prefix = if selections.len() > 1 { format!("{}/", kind.singular()) } else { String::new() };
        let now = Timestamp::now();
        let (table, found) = match kind {
            Kind::App => {
                let (all, found) = chosen::<AppView>(client, selection, choice, io)?;
                (apps::table(&all, wide, &prefix, now), found)
            }
            Kind::Node => {
                let (all, found) = chosen::<NodeView>(client, selection, choice, io)?;
                (nodes::table(&all, wide, &prefix, now), found)
            }
            Kind::Assignment => {
                let (all, found) = chosen::<Assignment>(client, selection, choice, io)?;
                (assignments::table(&all, wide, &prefix), found)
            }
        };
        exit = exit.max(found);
        let text = table.render_in(io.colour(), args.no_headers);
        if text.is_empty() {
            if selection.names.is_empty() {
                io.remark(format_args!("No {} found.", kind.plural()));
            }
        } else {
            io.out(&if first { text } else { format!("\n{text}") })?;
            first = false;
        }
    }
    Ok(exit)
}

fn documents(selections: &[Selection], client: &Client, args: &GetArgs, choice: &Choice, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    let mut all: Vec<(Kind, Value)> = Vec::new();
    for selection in selections {
        let (items, found) = chosen::<Value>(client, selection, choice, io)?;
        exit = exit.max(found);
        all.extend(items.into_iter().map(|item| (selection.kind, item)));
    }
    if args.output.plain() == Format::Name {
        let lines: String = all.iter().filter_map(|(kind, item)| name_line(*kind, item)).collect();
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
    io.out(&document_text(&value, args))?;
    Ok(exit)
}

fn name_line(kind: Kind, item: &Value) -> Option<String> {
    Some(format!("{}/{}\n", kind.singular(), kind.name_in(item)?))
}

fn document_text(value: &Value, args: &GetArgs) -> String {
    args.output
        .of_paths(value, args.no_headers)
        .unwrap_or_else(|| if args.output.plain() == Format::Yaml { document::yaml(value) } else { document::json(value) })
}

/// Prints a list, then each object again that changes.
fn follow(selections: &[Selection], client: &Client, args: &GetArgs, choice: &Choice, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let Some(selection) = selections.first() else { return Ok(Exit::Done) };
    let kind = selection.kind;
    let wanted = |item: &Value| {
        let named = |name: &str| selection.names.is_empty() || selection.names.iter().any(|n| n == name);
        kind.name_in(item).is_some_and(named)
    };
    let path = choice.folder(kind);
    let list = client.list::<Value>(&path)?;
    let mut items = list.items;
    items.retain(wanted);
    choice.apply(&mut items);
    if let Some(missing) = selection.names.iter().find(|name| !items.iter().any(|item| kind.name_in(item) == Some(name.as_str()))) {
        return Err(not_found(client, kind, missing));
    }
    let (mut known, mut shown) = (Known::default(), Vec::new());
    let first = known.update(kind, items);
    if !args.watch_only {
        print_changes(kind, &first, &mut shown, args, io)?;
    }
    let mut watch = client.watch::<Value>(&path, Some(&list.resource_version), None);
    // What is there, while a watch that had to begin anew tells it.
    let mut anew: Option<Vec<Value>> = None;
    while let Some(watched) = watch.next()? {
        let event = match watched {
            Watched::Event(event) => event,
            Watched::Anew => {
                anew = Some(Vec::new());
                continue;
            }
        };
        let object = event.object.filter(|object| wanted(object) && choice.selects(object));
        let changes = match (event.kind, object, &mut anew) {
            (WatchKind::Bookmark, _, all) => all.take().map(|items| known.update(kind, items)).unwrap_or_default(),
            (WatchKind::Added | WatchKind::Modified, Some(object), Some(all)) => {
                all.push(object);
                Vec::new()
            }
            (WatchKind::Added | WatchKind::Modified, Some(object), None) => known.put(kind, object).into_iter().collect(),
            (WatchKind::Deleted, ..) => known.remove(&event.name).into_iter().collect(),
            _ => Vec::new(),
        };
        print_changes(kind, &changes, &mut shown, args, io)?;
    }
    Ok(Exit::Done)
}

fn print_changes(kind: Kind, changes: &[Change], shown: &mut Vec<Value>, args: &GetArgs, io: &mut Io<'_>) -> Result<(), CliError> {
    if changes.is_empty() {
        return Ok(());
    }
    for change in changes {
        if let Change::Gone(object) = change {
            io.remark(format_args!("{}/{} is gone", kind.singular(), kind.name_in(object).unwrap_or_default()));
        }
    }
    let objects = changes.iter().filter_map(|change| if let Change::Now(object) = change { Some(object) } else { None });
    match args.output.plain() {
        Format::Table | Format::Wide => {
            // Rows that stand already decide how wide columns are; the headers are printed once.
            let before = shown.len();
            shown.extend(objects.cloned());
            let table = table(kind, shown, args.output.plain() == Format::Wide)?;
            let text = table.render_in(io.colour(), args.no_headers);
            let skip = if before == 0 { 0 } else { before + usize::from(!args.no_headers) };
            let lines: String = text.lines().skip(skip).map(|line| format!("{line}\n")).collect();
            let surplus = shown.len().saturating_sub(SHOWN_MAX);
            shown.drain(..surplus);
            io.out(&lines)
        }
        Format::Name => io.out(&objects.filter_map(|object| name_line(kind, object)).collect::<String>()),
        Format::Json | Format::Yaml if matches!(args.output, Output::Columns(_)) => {
            let items = json!({ "items": objects.collect::<Vec<_>>() });
            let text = args.output.of_paths(&items, args.no_headers || !shown.is_empty()).unwrap_or_default();
            // Headers once: something was shown.
            shown.resize(1, Value::Null);
            io.out(&text)
        }
        Format::Json | Format::Yaml => {
            for object in objects {
                let text = document_text(object, args);
                let text = match &args.output {
                    Output::Plain(Format::Yaml) => format!("---\n{text}"),
                    Output::JsonPath(_) if !text.ends_with('\n') => format!("{text}\n"),
                    _ => text,
                };
                io.out(&text)?;
            }
            Ok(())
        }
    }
}

/// Most rows that a watch keeps for the width of its columns.
const SHOWN_MAX: usize = 1_000;

fn table(kind: Kind, items: &[Value], wide: bool) -> Result<Table, CliError> {
    let now = Timestamp::now();
    Ok(match kind {
        Kind::App => apps::table(&typed::<AppView>(items.to_vec())?, wide, "", now),
        Kind::Node => nodes::table(&typed::<NodeView>(items.to_vec())?, wide, "", now),
        Kind::Assignment => assignments::table(&typed::<Assignment>(items.to_vec())?, wide, ""),
    })
}

fn typed<T: DeserializeOwned>(items: Vec<Value>) -> Result<Vec<T>, CliError> {
    let wrong = |source| crate::client::ClientError::Answer { server: "the controller".to_owned(), request: "GET".to_owned(), source };
    Ok(serde_json::from_value(Value::Array(items)).map_err(wrong)?)
}

/// The selected objects that are chosen, in the order that is asked for.
fn chosen<T: DeserializeOwned>(
    client: &Client,
    selection: &Selection,
    choice: &Choice,
    io: &mut Io<'_>,
) -> Result<(Vec<T>, Exit), CliError> {
    if !choice.looks() {
        return fetch(client, selection, io);
    }
    let (mut items, exit) = if selection.names.is_empty() {
        (client.list::<Value>(&choice.folder(selection.kind))?.items, Exit::Done)
    } else {
        fetch::<Value>(client, selection, io)?
    };
    choice.apply(&mut items);
    Ok((typed(items)?, exit))
}

/// The selected objects. Names that do not exist are reported on the way, and the exit code says so.
pub(crate) fn fetch<T: DeserializeOwned>(client: &Client, selection: &Selection, io: &mut Io<'_>) -> Result<(Vec<T>, Exit), CliError> {
    let folder = format!("/v1/{}", selection.kind.plural());
    if selection.names.is_empty() {
        return Ok((client.list::<T>(&folder)?.items, Exit::Done));
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
    let known = client.list::<Value>(&format!("/v1/{}", kind.plural())).unwrap_or_default().items;
    let similar = suggest::similar(name, known.iter().filter_map(|item| kind.name_in(item)));
    let word = kind.singular();
    CliError::NotFound { object: format!("{word}/{name}"), similar: similar.map(|name| format!("{word}/{name}")) }
}
