//! `kv`: the shared state of an App.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use cluster_schemas::state::{StateEntry, StateList, StatePut, StateWritten};

use crate::args::duration;
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::table::Table;
use crate::suggest;

/// Largest value, in bytes; the controllers say so, too.
const VALUE_MAX: u64 = 256 * 1024;

/// `kv`.
#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    pub(crate) command: KvCommand,
}

/// What to do with shared state.
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print the value of a key, as it is
    Get {
        /// Name of the App
        app: String,
        /// The key
        key: String,
        /// Print the revision instead, for `put --revision`
        #[arg(long)]
        revision: bool,
    },
    /// Write a key, and print its revision
    Put {
        /// Name of the App
        app: String,
        /// The key
        key: String,
        /// The value; - for stdin
        value: String,
        /// Only where the key has no value
        #[arg(long, conflicts_with = "revision")]
        create: bool,
        /// Only where the key still has this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
        /// Let the key go by itself after this time
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Delete a key
    Delete {
        /// Name of the App
        app: String,
        /// The key
        key: String,
        /// Only where the key still has this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// List keys
    List {
        /// Name of the App
        app: String,
        /// Only keys that begin so
        #[arg(default_value = "")]
        prefix: String,
        /// Leave out the headers
        #[arg(long)]
        no_headers: bool,
    },
}

fn path(app: &str, key: &str) -> String {
    format!("/v1/apps/{}/kv/{}", encode(app), encode(key))
}

/// Does it.
pub(crate) fn run(args: &KvArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    match &args.command {
        KvCommand::Get { app, key, revision } => {
            let entry: StateEntry = client.get(&path(app, key)).map_err(|error| missing(client, app, error))?;
            if *revision {
                io.line(entry.revision)?;
            } else {
                io.out(&entry.value.unwrap_or_default())?;
            }
        }
        KvCommand::Put { app, key, value, create, revision, ttl } => {
            if ttl.is_some_and(|ttl| ttl.as_secs() == 0 || ttl.subsec_nanos() != 0) {
                return Err(CliError::Usage { message: "--ttl: give whole seconds, one at least".to_owned(), hint: None });
            }
            let put = StatePut { value: given(value)?, create: *create, revision: *revision, ttl_seconds: ttl.map(|ttl| ttl.as_secs()) };
            let written: StateWritten = client.put(&path(app, key), &put).map_err(|error| missing(client, app, error))?;
            io.line(written.revision)?;
        }
        KvCommand::Delete { app, key, revision } => {
            let query = revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
            let _: StateWritten = client.delete(&format!("{}{query}", path(app, key))).map_err(|error| missing(client, app, error))?;
        }
        KvCommand::List { app, prefix, no_headers } => list(app, prefix, *no_headers, client, io)?,
    }
    Ok(Exit::Done)
}

fn given(value: &str) -> Result<String, CliError> {
    if value != "-" {
        return Ok(value.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(VALUE_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(_) if text.len() as u64 <= VALUE_MAX => Ok(text),
        Ok(_) => Err(CliError::Usage { message: format!("a value has at most {VALUE_MAX} bytes"), hint: None }),
        Err(error) => Err(CliError::Usage { message: format!("the value on stdin cannot be read as text: {error}"), hint: None }),
    }
}

fn list(app: &str, prefix: &str, no_headers: bool, client: &Client, io: &mut Io<'_>) -> Result<(), CliError> {
    let mut table = Table::new(&["KEY", "REVISION", "SIZE"]);
    let mut after = String::new();
    loop {
        let path = format!("/v1/apps/{}/kv?prefix={}&after={}", encode(app), encode(prefix), encode(&after));
        let page: StateList = client.get(&path).map_err(|error| missing(client, app, error))?;
        for item in &page.items {
            table.row(vec![item.key.clone(), item.revision.to_string(), item.size.to_string()]);
        }
        match page.items.last().filter(|_| page.more) {
            Some(last) => after.clone_from(&last.key),
            None => break,
        }
    }
    io.out(&table.render(no_headers))
}

fn missing(client: &Client, app: &str, error: ClientError) -> CliError {
    suggest::missing_app(client, app, error, |_| true)
}
