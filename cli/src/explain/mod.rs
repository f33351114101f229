//! `explain`: what a field means, from the JSON Schema that controllers check manifests with.

mod field;

use clap::Args;
use cluster_schemas::schema::app_schema;

use crate::error::{CliError, Exit};
use crate::io::Io;
use field::Field;

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A field: `app`, `app.spec`, `app.spec.vip.address`
    #[arg(value_name = "FIELD")]
    field: String,

    /// The names of all fields within it, and of those within them
    #[arg(long)]
    recursive: bool,
}

/// Prints what the schema says of the field.
pub(crate) fn run(args: &ExplainArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let schema = app_schema();
    let found = Field::find(&schema, &args.field)?;
    io.out(&if args.recursive { found.tree() } else { found.describe() })?;
    Ok(Exit::Done)
}
