//! `get sets`: the apply sets, with what their files were a state of.

use cluster_schemas::api::List;
use cluster_schemas::plan::SetView;

use crate::args::{Format, GetArgs};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::{document, joined, shortened, table::Table};

/// Names of Apps in a line that is not wide.
const NAMES_MAX: usize = 5;

/// Whether the arguments of `get` ask for sets, with the names of those that are asked for.
pub(crate) fn asked(args: &GetArgs) -> Option<&[String]> {
    args.resources.split_first().filter(|(kind, _)| ["set", "sets"].contains(&kind.as_str())).map(|(_, names)| names)
}

/// Prints the sets.
pub(crate) fn run(names: &[String], args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let mut sets = client.get::<List<SetView>>("/v1/sets")?;
    let mut exit = Exit::Done;
    for name in names.iter().filter(|name| !sets.items.iter().any(|set| set.name == **name)) {
        exit = io.fail(&CliError::NotFound { object: format!("set/{name}"), similar: None });
    }
    sets.items.retain(|set| names.is_empty() || names.contains(&set.name));
    let value = || serde_json::to_value(&sets).unwrap_or_default();
    let of_paths = args.output.of_paths(&value(), args.no_headers);
    let text = match args.output.plain() {
        _ if of_paths.is_some() => of_paths.unwrap_or_default(),
        Format::Json => document::json(&value()),
        Format::Yaml => document::yaml(&value()),
        Format::Name => sets.items.iter().map(|set| format!("set/{}\n", set.name)).collect(),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["NAME", "COUNT", "SOURCE", "APPS"]);
            for set in &sets.items {
                let apps: Vec<&str> = set.apps.iter().map(String::as_str).collect();
                let shown = if args.output.plain() == Format::Wide { joined(&apps, ",") } else { shortened(&apps, NAMES_MAX) };
                let source = set.source_revision.clone().unwrap_or_else(|| crate::output::NONE.to_owned());
                table.row(vec![set.name.clone(), apps.len().to_string(), source, shown]);
            }
            table.render(args.no_headers)
        }
    };
    if text.is_empty() && names.is_empty() {
        io.remark("No sets found.");
    }
    io.out(&text)?;
    Ok(exit)
}
