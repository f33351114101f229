//! `config`: the clusters that a user works with, by name.
//!
//! The file is read by [`crate::config`]; here it is changed. It is written anew as a whole, in place of the old one and with bits for its
//! owner only: comments in it are lost, as kubectl loses them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cluster_schemas::manifest::to_yaml_value;
use cluster_schemas::name::check_name;

use crate::config::{self, ConfigFile, Environment};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::NONE;
use crate::output::table::Table;
use crate::suggest;

/// Most contexts in a file.
const CONTEXTS_MAX: usize = 256;

/// `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List the contexts; the current one is marked
    GetContexts {
        /// Leave the line of column headers away
        #[arg(long)]
        no_headers: bool,
    },
    /// Print the name of the current context
    CurrentContext,
    /// Use a context from now on
    UseContext {
        /// Its name
        name: String,
    },
    /// Make a context, or change what is given of it; servers and token are those of --server and --token-file
    SetContext {
        /// Its name
        name: String,
        /// Who signed the controllers' certificates
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// A certificate of one's own
        #[arg(long, value_name = "FILE", requires = "key_file")]
        cert_file: Option<PathBuf>,
        /// Its key
        #[arg(long, value_name = "FILE", requires = "cert_file")]
        key_file: Option<PathBuf>,
    },
    /// Forget a context
    DeleteContext {
        /// Its name
        name: String,
    },
    /// Print the configuration; tokens are left out
    View,
}

/// Runs one of them. No controller is asked.
pub(crate) fn run(args: ConfigArgs, given: config::Given, environment: &Environment, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let (mut file, path) = config::read_config(environment)?;
    match args.command {
        ConfigCommand::GetContexts { no_headers } => {
            if file.contexts.is_empty() {
                io.remark("No contexts found.");
                return Ok(Exit::Done);
            }
            let mut table = Table::new(&["CURRENT", "NAME", "SERVERS"]);
            for (name, target) in &file.contexts {
                let mark = if file.current_context.as_ref() == Some(name) { "*" } else { "" };
                let servers = if target.servers.is_empty() { NONE.to_owned() } else { target.servers.join(",") };
                table.row(vec![mark.to_owned(), name.clone(), servers]);
            }
            io.out(&table.render(no_headers))?;
        }
        ConfigCommand::CurrentContext => match &file.current_context {
            Some(name) => io.line(name)?,
            None => return Err(usage("no context is the current one".to_owned(), Some("clusterctl config use-context NAME".to_owned()))),
        },
        ConfigCommand::View => {
            for target in file.contexts.values_mut().chain([&mut file.target]) {
                if let Some(token) = &mut target.token {
                    "REDACTED".clone_into(token);
                }
            }
            io.out(&yaml(&file))?;
        }
        ConfigCommand::UseContext { name } => {
            known(&file, &name)?;
            file.current_context = Some(name.clone());
            write(file, &path, environment)?;
            io.line(format_args!("context {name} is used from now on"))?;
        }
        ConfigCommand::DeleteContext { name } => {
            known(&file, &name)?;
            file.contexts.remove(&name);
            let was_current = file.current_context.as_ref() == Some(&name);
            file.current_context = file.current_context.filter(|_| !was_current);
            write(file, &path, environment)?;
            io.line(format_args!("context {name} is deleted"))?;
            if was_current {
                io.note("warning: it was the current one, none is now");
            }
        }
        ConfigCommand::SetContext { name, ca_file, cert_file, key_file } => {
            check_name(&name).map_err(|error| usage(format!("{name:?} cannot be a name: {error}"), None))?;
            for server in &given.servers {
                config::server_url(server)?;
            }
            let new = !file.contexts.contains_key(&name);
            if new && file.contexts.len() >= CONTEXTS_MAX {
                return Err(usage(format!("there are {CONTEXTS_MAX} contexts already"), None));
            }
            let target = file.contexts.entry(name.clone()).or_default();
            if !given.servers.is_empty() {
                target.servers = given.servers;
            }
            // Written so that they mean the same from everywhere.
            for (field, path) in [
                (&mut target.token_file, given.token_file),
                (&mut target.ca_file, ca_file),
                (&mut target.cert_file, cert_file),
                (&mut target.key_file, key_file),
            ] {
                if let Some(path) = path {
                    let whole = std::path::absolute(&path).map_err(|error| usage(format!("{}: {error}", path.display()), None))?;
                    *field = Some(whole);
                }
            }
            write(file, &path, environment)?;
            io.line(format_args!("context {name} {}", if new { "created" } else { "changed" }))?;
        }
    }
    Ok(Exit::Done)
}

fn known(file: &ConfigFile, name: &str) -> Result<(), CliError> {
    if file.contexts.contains_key(name) {
        return Ok(());
    }
    let similar = suggest::similar(name, file.contexts.keys().map(String::as_str)).map(|name| format!("did you mean {name}?"));
    Err(usage(format!("there is no context {name:?}"), similar.or_else(|| Some("clusterctl config get-contexts lists them".to_owned()))))
}

fn yaml(file: &ConfigFile) -> String {
    let text = to_yaml_value(file);
    if text.trim() == "{}" { String::new() } else { format!("{}\n", text.trim_end()) }
}

/// Writes the user's own file. What came from the machine's, which is not ours to change, is taken along.
fn write(mut file: ConfigFile, from: &Path, environment: &Environment) -> Result<(), CliError> {
    let own = environment
        .own_config()
        .ok_or_else(|| usage("there is no home folder".to_owned(), Some("CLUSTERCTL_CONFIG names a file".to_owned())))?;
    if own != from {
        let folder = from.parent().unwrap_or(Path::new("/")).to_owned();
        for target in file.contexts.values_mut().chain([&mut file.target]) {
            target.beside(&folder);
        }
    }
    let failed = |error: std::io::Error| usage(format!("cannot write {}: {error}", own.display()), None);
    let folder = own.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Beside it, and then in its place: nobody reads half a file. Its bits are for the owner only: it may have tokens.
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    new.write_all(yaml(&file).as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
    new.persist(&own).map_err(|error| failed(error.error))?;
    Ok(())
}

fn usage(message: String, hint: Option<String>) -> CliError {
    CliError::Usage { message, hint }
}
