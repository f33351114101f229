//! The command line's grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::apply::ApplyArgs;
use crate::create::CreateArgs;
use crate::db::DbArgs;
use crate::dev;
use crate::diff::DiffArgs;
use crate::events::EventsArgs;
use crate::explain::ExplainArgs;
use crate::failovers::FailoversArgs;
pub(crate) use crate::get::GetArgs;
use crate::kv::KvArgs;
use crate::lock::LockArgs;
use crate::node::NodeArgs;
use crate::recover::RecoverArgs;
use crate::setup;
use crate::switchover::SwitchoverArgs;
use crate::token::TokenArgs;
use crate::voters::VotersArgs;
use crate::wait::WaitArgs;

/// Exit codes as `--help` shows them; README.md of this folder has the same list.
const EXIT_CODES: &str = "\
Exit codes:
  0  all was done
  1  the request failed, in part or whole: refused by the controller, or the object does not exist
  2  wrong arguments, configuration or input file; nothing was sent
  3  no controller could be reached, or none was able to answer
  4  what was waited for did not happen in time";

/// Keeps services highly available: what you write in YAML is what runs.
#[derive(Debug, Parser)]
#[command(name = "clusterctl", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Keep back remarks that are neither data nor errors.
    #[arg(long, short = 'q', global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the controllers.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Controllers to ask, tried in order; repeat, or separate with commas. [default: as configured, else http://127.0.0.1:7070]
    #[arg(long = "server", global = true, value_name = "URL", env = "CLUSTERCTL_SERVERS", value_delimiter = ',', hide_env_values = true)]
    pub(crate) servers: Vec<String>,

    /// Context of the configuration file that is meant instead of its current one.
    #[arg(long, global = true, value_name = "NAME", env = "CLUSTERCTL_CONTEXT", hide_env_values = true)]
    pub(crate) context: Option<String>,

    /// File with the bearer token.
    #[arg(long, global = true, value_name = "FILE", env = "CLUSTERCTL_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,

    /// Longest time for one request, over all controllers that are tried.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) request_timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the cluster be as the files say
    Apply(ApplyArgs),
    /// Show what apply would do: fields, and what becomes of them on the nodes (exit code 0 same, 1 different, 2 failed)
    Diff(DiffArgs),
    /// List objects of the cluster, or watch them
    Get(GetArgs),
    /// Tell everything about an app or node
    Describe(DescribeArgs),
    /// Remove apps from all nodes
    Delete(DeleteArgs),
    /// Make an App from arguments, or print its manifest
    Create(CreateArgs),
    /// Tell what a field of a manifest means
    Explain(ExplainArgs),
    /// Tell what happened
    Events(EventsArgs),
    /// Wait until objects are as asked for
    Wait(WaitArgs),
    /// Look into a ring: who owns which partition
    Ring(RingArgs),
    /// Check files without a cluster
    Validate(FileArgs),
    /// Print files in the canonical form, comments kept, without a cluster
    Fmt(FmtArgs),
    /// Make tokens for people and pipelines
    Token(TokenArgs),
    /// Print the versions of client and controller
    Version(VersionArgs),
    /// Set a node apart, empty it, or forget one that is gone
    Node(NodeArgs),
    /// Have a Singleton be active on another node
    Switchover(SwitchoverArgs),
    /// Change an App in an editor
    Edit(crate::edit::EditArgs),
    /// Have an App again as it was before its last write, or at a revision
    Undo(crate::history::UndoArgs),
    /// Tell how and how fast Singletons were taken over
    Failovers(FailoversArgs),
    /// Look after the database of a Singleton
    Db(DbArgs),
    /// Read and write the shared state of an app
    Kv(KvArgs),
    /// Run a command while a lock of the cluster is held
    Lock(LockArgs),
    /// Change who votes on leases
    Voters(VotersArgs),
    /// Show a store that the nodes do not follow, and sign it
    Recover(RecoverArgs),
    /// Begin a new cluster: write the configuration of its first machine
    Init(setup::InitArgs),
    /// Write the configuration of a machine that joins a cluster
    Join(setup::JoinArgs),
    /// Print what a machine needs to join this machine's cluster
    JoinFile(setup::JoinFileArgs),
    /// Run a whole cluster on this machine, for trying things out
    #[command(disable_help_flag = true)]
    Dev(dev::DevArgs),
    /// Work with several clusters, by name
    Config(crate::contexts::ConfigArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write manual pages into a folder
    Man(crate::man::ManArgs),
}

/// Which files to read.
#[derive(Debug, Default, Args)]
pub(crate) struct FileArgs {
    /// File, folder (its *.yaml, *.yml and *.json), or - for stdin; repeatable
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Also read the folders within folders
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// `fmt`.
#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    #[command(flatten)]
    pub(crate) input: FileArgs,

    /// Write the files back instead of printing them
    #[arg(short, long, conflicts_with = "check")]
    pub(crate) write: bool,

    /// Only name the files that are not in the canonical form, with exit code 1 if there are any
    #[arg(long)]
    pub(crate) check: bool,
}

/// How to print objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// The answer of the API
    Json,
    /// The same as YAML
    Yaml,
    /// kind/name, one a line
    Name,
}

/// `describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Kind (app, node) and names of objects, all of the kind without a name: `app database`, `node/n1`
    #[arg(required = true, value_name = "KIND [NAME]... | KIND/NAME")]
    pub(crate) resources: Vec<String>,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Apps to delete: `app database cache`, `app/database`
    #[arg(required_unless_present = "files", conflicts_with = "files", value_name = "app NAME... | app/NAME")]
    pub(crate) resources: Vec<String>,

    /// Delete the Apps that these files name
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,

    /// Also read the folders within folders
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,

    /// Forget the Apps although nodes that cannot be reached may still run them
    #[arg(long)]
    pub(crate) force: bool,

    /// An App that does not exist is no failure
    #[arg(long)]
    pub(crate) ignore_not_found: bool,

    /// Wait until nothing of them is left on any node
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub(crate) wait: bool,

    /// Longest time to wait, for all of them together
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// `ring`.
#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    #[command(subcommand)]
    pub(crate) command: RingCommand,
}

/// What to look up in a ring.
#[derive(Debug, Subcommand)]
pub(crate) enum RingCommand {
    /// Show which node owns which partitions
    Show {
        /// Name of the App
        app: String,
        /// How to print
        #[arg(short = 'o', long, value_enum, default_value_t = RingFormat::Table)]
        output: RingFormat,
        /// Leave the column headers and the last line away
        #[arg(long)]
        no_headers: bool,
    },
    /// Tell where a key lives
    Locate {
        /// Name of the App
        app: String,
        /// The key; its bytes are hashed as they are
        key: String,
        /// How to print
        #[arg(short = 'o', long, value_enum, default_value_t = RingFormat::Table)]
        output: RingFormat,
        /// Leave the line of column headers away
        #[arg(long)]
        no_headers: bool,
    },
}

/// How to print a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingFormat {
    /// Columns
    Table,
    /// Columns with every partition
    Wide,
    /// The answer of the API
    Json,
    /// The same as YAML
    Yaml,
}

/// `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Ask no controller
    #[arg(long)]
    pub(crate) client: bool,

    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = VersionFormat::Table)]
    pub(crate) output: VersionFormat,
}

/// How to print versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VersionFormat {
    /// Lines for people
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell: `source <(clusterctl completion bash)`
    #[arg(value_parser = clap::builder::EnumValueParser::<clap_complete::Shell>::new())]
    pub(crate) shell: clap_complete::Shell,
}

/// Reads `500ms`, `30s`, `2m`, `1h`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let number: u64 = number.parse().map_err(|_| "a number and a unit such as 500ms, 30s, 2m or 1h".to_owned())?;
    let millis_per_unit = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{unit:?} is no unit of time: ms, s, m or h")),
    };
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(|| "that long a time cannot be told".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wait_is_on_unless_told_otherwise() {
        let wait = |arguments: &[&str]| match Cli::parse_from(["clusterctl", "delete", "app", "x"].iter().chain(arguments)).command {
            Command::Delete(args) => args.wait,
            other => panic!("{other:?}"),
        };
        assert!(wait(&[]) && wait(&["--wait"]) && wait(&["--wait=true"]) && !wait(&["--wait=false"]));
    }
}
