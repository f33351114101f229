//! Lists that are no objects of their own, in every form of `-o`.

use serde_json::Value;

use crate::args::{Format, GetArgs};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::document;

/// Prints `value`, whose `items` they are, as `args` ask: `names` with `-o name`, the table (empty without rows) for people. `what` they are is said where there
/// are none.
pub(crate) fn print(
    what: &str,
    value: &Value,
    names: String,
    table: impl FnOnce() -> String,
    args: &GetArgs,
    io: &mut Io<'_>,
) -> Result<Exit, CliError> {
    let text = match (args.output.of_paths(value, args.no_headers), args.output.plain()) {
        (Some(text), _) => text,
        (None, Format::Json) => document::json(value),
        (None, Format::Yaml) => document::yaml(value),
        (None, Format::Name) => names,
        (None, Format::Table | Format::Wide) => {
            let text = table();
            if text.is_empty() {
                io.remark(format_args!("No {what} found."));
            }
            text
        }
    };
    io.out(&text)?;
    Ok(Exit::Done)
}
