//! `clusterctl dev`: hands over to `clusterctl-dev`, which has all that a cluster on a laptop needs and this program does not.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::error::CliError;

/// Name of the program.
const PROGRAM: &str = "clusterctl-dev";

/// `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Options and subcommands: see `clusterctl dev --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<OsString>,
}

/// Becomes the other program. Returns only where that fails.
pub(crate) fn run(args: DevArgs) -> Result<crate::error::Exit, CliError> {
    let own = std::env::current_exe().unwrap_or_default();
    let looked = places(&own);
    let program = looked.iter().find(|path| path.is_file());
    let Some(program) = program else { return Err(CliError::NoDev { looked }) };
    let source = Command::new(program).args(args.arguments).exec();
    Err(CliError::Dev { path: program.clone(), source })
}

/// Where the program may be: beside this one, as in a build, or where it is installed.
fn places(own: &Path) -> Vec<PathBuf> {
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let installed = beside.parent().map(|prefix| prefix.join("lib/clusterctl")).unwrap_or_default();
    vec![beside.join(PROGRAM), installed.join(PROGRAM)]
}
