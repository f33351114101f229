//! `ring show` and `ring locate`; `get rings`.

use cluster_schemas::api::{AppView, Located, RingTable};
use cluster_schemas::app::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{GetArgs, RingArgs, RingCommand, RingFormat};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::listing;
use crate::output::table::Table;
use crate::output::{document, rings};
use crate::suggest;

/// Prints a ring, or where a key lives in it.
pub(crate) fn run(args: &RingArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    match &args.command {
        RingCommand::Show { app, output, no_headers } => {
            let path = format!("/v1/rings/{}", encode(app));
            if let Some(ring) = fetch::<RingTable>(client, app, &path, *output, io)? {
                let mut text = rings::table(&ring, *output == RingFormat::Wide).render(*no_headers);
                if !no_headers {
                    text.push_str(&format!("\n{}\n", rings::summary(&ring)));
                }
                io.out(text.trim_start_matches('\n'))?;
            }
        }
        RingCommand::Locate { app, key, output, no_headers } => {
            let path = format!("/v1/rings/{}/locate?key={}", encode(app), encode(key));
            if let Some(located) = fetch::<Located>(client, app, &path, *output, io)? {
                io.out(&rings::located(&located).render(*no_headers))?;
                if located.node.is_none() {
                    io.remark(format_args!("partition {} has no owner at the moment: clusterctl describe app {app}", located.partition));
                }
            }
        }
    }
    Ok(Exit::Done)
}

/// Whether the arguments of `get` ask for rings, with the names of those that are asked for.
pub(crate) fn asked(args: &GetArgs) -> Option<&[String]> {
    args.resources.split_first().filter(|(kind, _)| ["ring", "rings"].contains(&kind.as_str())).map(|(_, names)| names)
}

/// Prints rings, a line each.
pub(crate) fn list(names: &[String], args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let names = if names.is_empty() {
        let apps = client.list::<AppView>("/v1/apps")?.items;
        apps.into_iter().filter(|app| app.spec.mode == Mode::Ring).map(|app| app.metadata.name).collect()
    } else {
        names.to_vec()
    };
    let (mut all, mut exit) = (Vec::new(), Exit::Done);
    for name in &names {
        match client.get::<RingTable>(&format!("/v1/rings/{}", encode(name))) {
            Ok(ring) => all.push(ring),
            // The others are printed all the same.
            Err(error) if error.is_not_found() => exit = io.fail(&missing(client, name, error)),
            Err(error) => return Err(error.into()),
        }
    }
    let table = || {
        let mut table = Table::new(&["NAME", "PARTITIONS", "CONFIRMED", "UNOWNED", "MEMBERS", "VERSION"]);
        for ring in &all {
            let confirmed: usize = ring.owners.iter().map(|owner| owner.confirmed.len()).sum();
            let cells = [ring.partitions.to_string(), confirmed.to_string(), ring.unowned.len().to_string(), ring.owners.len().to_string()];
            table.row([ring.app.clone()].into_iter().chain(cells).chain([ring.version.to_string()]).collect());
        }
        table.render(args.no_headers)
    };
    let words = all.iter().map(|ring| format!("ring/{}\n", ring.app)).collect();
    listing::print("rings", &json!({ "items": all }), words, table, args, io)?;
    Ok(exit)
}

/// The answer for a table; `None` where it was printed as a document already.
fn fetch<T: DeserializeOwned + Serialize>(
    client: &Client,
    app: &str,
    path: &str,
    format: RingFormat,
    io: &mut Io<'_>,
) -> Result<Option<T>, CliError> {
    let explain = |error| missing(client, app, error);
    let print: fn(&Value) -> String = match format {
        RingFormat::Table | RingFormat::Wide => return client.get(path).map(Some).map_err(explain),
        RingFormat::Json => document::json,
        RingFormat::Yaml => document::yaml,
    };
    let value: Value = client.get(path).map_err(explain)?;
    io.out(&print(&value))?;
    Ok(None)
}

/// Makes of a "not found" the name that was probably meant, where the App itself is what is missing.
fn missing(client: &Client, app: &str, error: ClientError) -> CliError {
    suggest::missing_app(client, app, error, |known| known.spec.mode == Mode::Ring)
}
