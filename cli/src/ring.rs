//! `ring show` and `ring locate`.

use cluster_schemas::api::{Located, RingTable};
use cluster_schemas::app::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::{RingArgs, RingCommand, RingFormat};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
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
