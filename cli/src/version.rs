//! `version`.

use cluster_schemas::api::VersionInfo;
use serde_json::{Value, json};

use crate::args::{VersionArgs, VersionFormat};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::sections::Sections;
use crate::output::{NONE, document};

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version of this program and, unless told otherwise, of the controller that answers. Without one the own version is
/// printed all the same.
pub(crate) fn run(args: &VersionArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let server = if args.client { Ok(None) } else { ask(connect).map(Some) };
    let known = server.as_ref().ok().and_then(Option::as_ref);
    let print: fn(&Value) -> String = match args.output {
        VersionFormat::Table => {
            let mut out = Sections::default();
            out.fields(&fields(known));
            io.out(&out.finish())?;
            return server.map(|_| Exit::Done);
        }
        VersionFormat::Json => document::json,
        VersionFormat::Yaml => document::yaml,
    };
    let mut value = json!({ "client": { "version": VERSION } });
    if let Some((_, info)) = known {
        value["server"] = json!(info);
    }
    io.out(&print(&value))?;
    server.map(|_| Exit::Done)
}

fn ask(connect: impl FnOnce() -> Result<Client, CliError>) -> Result<(String, VersionInfo), CliError> {
    let client = connect()?;
    let info = client.get("/v1/version")?;
    Ok((client.server().to_owned(), info))
}

fn fields(server: Option<&(String, VersionInfo)>) -> Vec<(&'static str, String)> {
    let mut fields = vec![("Client", VERSION.to_owned())];
    if let Some((url, info)) = server {
        fields.push(("Server", format!("{} at {url}", info.version)));
        fields.push(("Cluster", info.cluster.clone()));
        fields.push(("Controller", info.controller.clone()));
        fields.push(("Leader", info.leader.clone().unwrap_or_else(|| NONE.to_owned())));
        fields.push(("Term", info.term.to_string()));
    }
    fields
}
