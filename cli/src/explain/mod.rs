//! `explain`: what a field means, from the JSON Schema that controllers check manifests with; and why an App is where it is.

mod field;

use clap::Args;
use cluster_schemas::schema::app_schema;

use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::placement;
use crate::select::format::{Output, OutputParser};
use field::Field;

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A field: `app`, `app.spec`, `app.spec.vip.address`; or `placement APP`: every node, every rule, and the smallest change that would help
    #[arg(value_name = "FIELD | placement APP", required = true, num_args = 1..=2)]
    what: Vec<String>,

    /// The names of all fields within it, and of those within them
    #[arg(long)]
    recursive: bool,

    /// How to print a placement
    #[arg(short = 'o', long, value_parser = OutputParser, default_value = "table")]
    output: Output,

    /// Leave the line of column headers away
    #[arg(long)]
    no_headers: bool,
}

/// Prints what the schema says of the field, or the controllers of the placement.
pub(crate) fn run(args: &ExplainArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let field = match args.what.as_slice() {
        [word, app] if word == "placement" => return placement::run(app, &args.output, args.no_headers, &connect()?, io),
        [field] => field,
        _ => {
            let message = "one field is explained at a time".to_owned();
            return Err(CliError::Usage {
                message,
                hint: Some("clusterctl explain app.spec.vip, or clusterctl explain placement APP".to_owned()),
            });
        }
    };
    let schema = app_schema();
    let found = Field::find(&schema, field)?;
    io.out(&if args.recursive { found.tree() } else { found.describe() })?;
    Ok(Exit::Done)
}
