//! Completion of the names of objects: what the shell calls while somebody types, so it is silent and short of patience.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Command, CommandFactory, Parser};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use cluster_schemas::api::List;
use serde_json::Value;

use crate::args::{Cli, Connection};
use crate::client::Client;
use crate::config::{self, Environment};
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::resource::Kind;

/// The variable in which shells name themselves when they ask.
const VARIABLE: &str = "CLUSTERCTL_COMPLETE";
/// How long controllers may take: who types does not wait for a dead one.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most names that are offered.
const NAMES_MAX: usize = 1000;
/// Commands whose arguments are kinds and names.
const VERBS: [&str; 5] = ["get", "describe", "delete", "wait", "edit"];
/// What `get` lists besides.
const LISTS: [&str; 8] = ["audit", "events", "failovers", "leases", "revisions", "rings", "sets", "voters"];

/// Answers a shell, where one asks.
pub(crate) fn answer(arguments: &[OsString]) -> bool {
    // Every command begins here: nothing is looked up unless it has to be.
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let folder = std::env::current_dir().ok();
    let asked = clap_complete::CompleteEnv::with_factory(|| completed(Cli::command())).var(VARIABLE);
    asked.try_complete(arguments.iter().cloned(), folder.as_deref()).unwrap_or(false)
}

/// Prints what a shell has to read once to ask us from then on.
pub(crate) fn registration(shell: clap_complete::Shell, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    let known = Shells::builtins();
    let writer =
        known.completer(&shell.to_string()).ok_or_else(|| CliError::Usage { message: format!("{shell} cannot ask us"), hint: None })?;
    writer.write_registration(VARIABLE, "clusterctl", "clusterctl", "clusterctl", &mut script).map_err(CliError::Output)?;
    io.out_bytes(&script)?;
    Ok(Exit::Done)
}

/// The grammar, with those who know names: arguments mean the same thing in all commands that have them.
fn completed(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "app" => argument.add(ArgValueCompleter::new(|typed: &OsStr| offered(typed, |_| of(Kind::App)))),
        "node" | "nodes" | "old" | "new" | "dead" => {
            argument.add(ArgValueCompleter::new(|typed: &OsStr| offered(typed, |_| of(Kind::Node))))
        }
        "resources" => argument.add(ArgValueCompleter::new(|typed: &OsStr| offered(typed, objects))),
        _ => argument,
    });
    command.mut_subcommands(completed)
}

fn offered(typed: &OsStr, names: impl Fn(&str) -> Vec<String>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    names(typed).into_iter().filter(|name| name.starts_with(typed)).take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

/// After a kind its names, `KIND/` with its names, else the kinds.
fn objects(typed: &str) -> Vec<String> {
    if let Some((word, _)) = typed.split_once('/') {
        return Kind::known(word).map(of).unwrap_or_default().into_iter().map(|name| format!("{word}/{name}")).collect();
    }
    let words = before();
    let mut words = words.iter().map(String::as_str).skip_while(|word| !VERBS.contains(word));
    let verb = words.next();
    if let Some(kind) = words.find_map(Kind::known) {
        return of(kind);
    }
    let lists = if verb == Some("get") { &LISTS[..] } else { &[] };
    let kinds = Kind::ALL.into_iter().flat_map(|kind| [kind.singular(), kind.plural()]);
    kinds.chain(lists.iter().copied()).map(ToOwned::to_owned).collect()
}

/// The words of the line that is typed: those that the shell hands over after `--`.
fn before() -> Vec<String> {
    std::env::args().skip_while(|word| word != "--").skip(2).collect()
}

/// Just the flags that say whom to ask, of a line that is not complete yet.
#[derive(Debug, Parser)]
#[command(ignore_errors = true, disable_help_flag = true)]
struct Whom {
    #[command(flatten)]
    connection: Connection,
    #[arg(hide = true)]
    _rest: Vec<String>,
}

/// Names of all objects of a kind; none where nobody answers soon.
fn of(kind: Kind) -> Vec<String> {
    let connection = Whom::try_parse_from(std::iter::once("clusterctl".to_owned()).chain(before())).map(|whom| whom.connection);
    let mut connection = connection.unwrap_or_default();
    connection.request_timeout = PATIENCE;
    let Ok(settings) = config::load(connection, &Environment::from_process()) else { return Vec::new() };
    let list = Client::new(settings).get_within::<List<Value>>(&format!("/v1/{}?limit={NAMES_MAX}", kind.plural()), PATIENCE);
    list.unwrap_or_default().items.iter().filter_map(|item| kind.name_in(item)).map(ToOwned::to_owned).collect()
}
