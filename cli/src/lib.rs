//! `clusterctl`, the command line: it reads manifests, speaks HTTP with a controller, and prints.
//!
//! It has no runtime and no threads: one request after the other, so that it starts within milliseconds. It knows nothing of NATS.
//! Data goes to stdout, everything else to stderr; README.md of this folder lists the exit codes.

mod apply;
mod args;
mod client;
mod config;
mod contexts;
mod create;
mod db;
mod db_work;
mod delete;
mod describe;
mod dev;
mod diff;
mod edit;
mod error;
mod events;
mod explain;
mod failovers;
mod fmt;
mod get;
mod habits;
mod held;
mod history;
mod input;
mod io;
mod kv;
mod listing;
mod lock;
mod man;
mod names;
mod node;
mod output;
mod placement;
mod plans;
mod recover;
mod resource;
mod ring;
mod select;
mod sets;
mod setup;
mod stream;
mod suggest;
mod switchover;
mod tls;
mod token;
mod version;
mod voters;
mod wait;
mod watch;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use client::Client;
use config::Environment;
use error::{CliError, Exit};
use io::Io;

/// Whether the arguments (the program's name first) are ones that are taken, without doing anything.
///
/// # Errors
/// What is wrong with them, as the user would see it; asked for help is none.
pub fn check<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    match Cli::try_parse_from(arguments) {
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err("a subcommand is required".to_owned()),
        Err(error) if error.exit_code() != 0 => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Runs one command with `arguments` (the program's name first), and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if names::answer(&arguments) {
        return ExitCode::from(Exit::Done);
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, mistakes to stderr with code 2; a closed pipe is no failure.
            error.print().ok();
            if let Some(hint) = habits::hint(&arguments, error.kind()) {
                Io::new(out, err).note(format_args!("hint: {hint}"));
            }
            return ExitCode::from(if error.exit_code() == 0 { Exit::Done } else { Exit::Usage });
        }
    };
    let mut io = Io::new(out, err).with(cli.quiet, output::paint::wanted(std::io::stdout().is_terminal()));
    if let Command::Lock(args) = &cli.command {
        // Its exit code is the command's.
        return lock::run(args, &mut io).unwrap_or_else(|error| io.fail(&error).into());
    }
    let exit = match dispatch(cli, &mut io) {
        Ok(exit) => exit,
        Err(error) => io.fail(&error),
    };
    ExitCode::from(exit)
}

fn dispatch(cli: Cli, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let Cli { connection, quiet: _, command } = cli;
    if let Command::Config(args) = command {
        let given = config::Given { servers: connection.servers, token_file: connection.token_file };
        return contexts::run(args, given, &Environment::from_process(), io);
    }
    let connect = || -> Result<Client, CliError> { Ok(Client::new(config::load(connection, &Environment::from_process())?)) };
    match command {
        Command::Apply(args) => apply::run(&args, connect, io),
        Command::Diff(args) => Ok(diff::run(&args, connect, io)),
        Command::Get(args) => get::run(&args, connect, io),
        Command::Describe(args) => describe::run(&args, connect, io),
        Command::Delete(args) => delete::run(&args, connect, io),
        Command::Ring(args) => ring::run(&args, &connect()?, io),
        Command::Validate(args) => apply::validate(&args, io),
        Command::Fmt(args) => fmt::run(&args, io),
        Command::Token(args) => token::run(&args, io),
        Command::Version(args) => version::run(&args, connect, io),
        Command::Node(args) => node::run(&args, &connect()?, io),
        Command::Switchover(args) => switchover::run(&args, &connect()?, io),
        Command::Edit(args) => edit::run(&args, connect, io),
        Command::Undo(args) => history::undo(&args, &connect()?, io),
        Command::Failovers(args) => failovers::run(&args, &connect()?, io),
        Command::Db(args) => db::run(&args, &connect()?, io),
        Command::Kv(args) => kv::run(&args, &connect()?, io),
        Command::Voters(args) => voters::run(&args, &connect()?, io),
        Command::Wait(args) => wait::run(&args, connect, io),
        Command::Create(args) => create::run(&args, connect, io),
        Command::Explain(args) => explain::run(&args, connect, io),
        Command::Events(args) => events::run(&args, &connect()?, io),
        Command::Recover(args) => recover::run(&args, &connect()?, io),
        Command::Init(args) => setup::init(&args, io),
        Command::Join(args) => setup::join(&args, io),
        Command::JoinFile(args) => setup::join_file(&args, io),
        Command::Dev(args) => dev::run(args),
        // `run` had it.
        Command::Lock(_) => Ok(Exit::Done),
        // Dealt with above: it asks nobody.
        Command::Config(_) => Ok(Exit::Done),
        Command::Completion(args) => names::registration(args.shell, io),
        Command::Man(args) => man::run(&args, io),
    }
}
