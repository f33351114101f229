//! A cluster on a laptop: `clusterctl dev` starts this program, which runs a NATS server, a controller and some agents, without root.
//!
//! Controller and agents are the real ones, with their reconcile loop, workers, leases and guard. Only what is at the bottom differs:
//!
//! | on a real node | here |
//! |---|---|
//! | systemd (`Units`) | [`processes`]: processes of ours |
//! | netlink (`Vips`) | [`switch`]: who has which VIP, and [`forward`]: connections to it |
//! | cgroups and addresses in the kernel (`Hands`) | [`guard`] over the two above |
//! | a machine | [`node`]: threads that can end, or stand still ([`freeze`]) |
//!
//! What is started ends with this process: in good order ([`cluster`]), by the kernel ([`helper`]), or by the next start ([`folder`]).

pub mod args;
pub mod cluster;
pub mod control;
pub mod folder;
pub mod forward;
pub mod freeze;
pub mod guard;
pub mod helper;
pub mod kernel;
pub mod nats;
pub mod node;
pub mod processes;
mod say;
pub mod switch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Place, Play, Target, Word};
use control::Request;

/// Exit code for wrong arguments, as clusterctl's.
const USAGE: u8 = 2;

/// Does what the arguments say (the program's name first).
pub fn start(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|word| word == helper::WORD) {
        return helper::run(arguments.drain(2..));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no failure.
            error.print().ok();
            return ExitCode::from(if error.exit_code() == 0 { 0 } else { USAGE });
        }
    };
    let (word, node, place) = match cli.command {
        None => {
            return match cluster::run(&cli.up) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => say::failed(&error, error.hint().as_deref()),
            };
        }
        Some(Play::Kill(Target { node, place })) => (Word::Kill, node, place),
        Some(Play::Pause(Target { node, place })) => (Word::Pause, node, place),
        Some(Play::Heal(Target { node, place })) => (Word::Heal, node, place),
        Some(Play::Status(place)) => (Word::Status, String::new(), place),
    };
    play(&Request { word, node }, place)
}

fn play(request: &Request, place: Place) -> ExitCode {
    let folder = place.dir.unwrap_or_else(folder::default_path);
    match control::ask(&folder, request) {
        Ok(answer) if answer.done => {
            say::out(&answer.text);
            ExitCode::SUCCESS
        }
        Ok(answer) => say::refused(&answer.text),
        Err(error) => say::failed(&error, Some("start one with clusterctl dev, or name its folder with --dir")),
    }
}
