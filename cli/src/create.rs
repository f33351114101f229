//! `create`: a manifest of one of the four modes from arguments, to begin with.

use clap::{Args, ValueEnum};
use cluster_schemas::api::Applied;
use cluster_schemas::plan::{Change, PlanRequest};
use cluster_schemas::{App, manifest};
use serde_json::{Value, json};

use crate::args::VersionFormat;
use crate::client::{Client, encode};
use crate::diff;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::document;
use crate::plans::Asked;

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Which pattern
    #[arg(value_enum, ignore_case = true)]
    mode: Pattern,

    /// Name of the App
    name: String,

    /// A unit that is installed on the nodes; or give a command after `--`
    #[arg(long, value_name = "UNIT", conflicts_with = "command")]
    unit: Option<String>,

    /// Floating address with its prefix length, such as 10.0.0.100/24
    #[arg(long, value_name = "ADDRESS", requires = "interface")]
    vip: Option<String>,

    /// Network interface that carries the floating address
    #[arg(long, value_name = "NAME", requires = "vip")]
    interface: Option<String>,

    /// SQLite database that follows a Singleton
    #[arg(long, value_name = "PATH")]
    database: Option<String>,

    /// How many instances, for Replicas
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,

    /// How many partitions, for a Ring
    #[arg(long, value_name = "N")]
    partitions: Option<u16>,

    /// Change nothing: print the manifest (client), or what would be done (server)
    #[arg(long, value_enum, value_name = "WHERE")]
    dry_run: Option<DryRun>,

    /// How to print the manifest with --dry-run
    #[arg(short = 'o', long, value_enum, default_value_t = Form::Yaml)]
    output: Form,

    /// Command that the App runs, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The four patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pattern {
    /// One active instance, standbys ready
    Singleton,
    /// One instance on every eligible node
    Spread,
    /// N instances on distinct nodes
    Replicas,
    /// Partitions with one owner each
    Ring,
}

/// Where nothing is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// Without asking a controller: the manifest is printed
    Client,
    /// A controller says what would be done
    Server,
}

/// How to print a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As YAML
    Yaml,
    /// As JSON
    Json,
}

/// Prints the manifest, or makes the App where there is none of this name.
pub(crate) fn run(args: &CreateArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let app = made(args)?;
    if args.dry_run == Some(DryRun::Client) {
        let text = if args.output == Form::Json { document::json(&app) } else { document::yaml(&app) };
        io.out(&text)?;
        return Ok(Exit::Done);
    }
    let client = connect()?;
    if args.dry_run == Some(DryRun::Server) {
        return plan(args, app, &client, io);
    }
    let path = format!("/v1/apps/{}", encode(&args.name));
    match client.get::<Value>(&path) {
        Ok(_) => return Ok(exists(args, io)),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    // Another may have made it meanwhile: that one stays.
    client.put::<Applied>(&format!("{path}?onlyNew=true"), &app)?;
    io.line(format_args!("app/{} created", args.name))?;
    Ok(Exit::Done)
}

/// Prints what would be done, as `apply --dry-run=server` does.
fn plan(args: &CreateArgs, app: Value, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let app: App = serde_json::from_value(app).map_err(|error| CliError::Usage { message: error.to_string(), hint: None })?;
    let asked = Asked { request: PlanRequest { apps: vec![app], ..PlanRequest::default() }, places: Vec::new() };
    let Some(plan) = diff::ask(client, &asked, io)? else { return Ok(Exit::Failed) };
    if plan.apps.iter().any(|app| app.change != Change::Created) {
        return Ok(exists(args, io));
    }
    let format = if args.output == Form::Json { VersionFormat::Json } else { VersionFormat::Table };
    diff::preview(asked, plan, format, io)
}

fn exists(args: &CreateArgs, io: &mut Io<'_>) -> Exit {
    io.note(format_args!("error: app/{} exists", args.name));
    io.note(format_args!("hint: clusterctl apply -f FILE changes an App; clusterctl get app {} -o yaml prints it", args.name));
    Exit::Failed
}

/// The manifest, with no field that was not asked for; checked as any other.
fn made(args: &CreateArgs) -> Result<Value, CliError> {
    let usage = |message: String, hint: &str| CliError::Usage { message, hint: Some(hint.to_owned()) };
    let mode = match args.mode {
        Pattern::Singleton => "Singleton",
        Pattern::Spread => "Spread",
        Pattern::Replicas => "Replicas",
        Pattern::Ring => "Ring",
    };
    let mut spec = json!({ "mode": mode });
    match (&args.unit, args.command.as_slice()) {
        (Some(unit), _) => spec["unit"] = json!({ "name": unit }),
        (None, []) => {
            let hint = "give a command after --, or an installed unit with --unit: clusterctl create singleton db -- /usr/bin/db --port 80";
            return Err(usage("what shall it run?".to_owned(), hint));
        }
        (None, command) => spec["exec"] = json!({ "command": command }),
    }
    if args.mode == Pattern::Replicas {
        spec["replicas"] = json!(args.replicas.unwrap_or(2));
    } else if let Some(replicas) = args.replicas {
        spec["replicas"] = json!(replicas);
    }
    if args.mode == Pattern::Ring || args.partitions.is_some() {
        spec["ring"] = json!({ "partitions": args.partitions.unwrap_or(256) });
    }
    if let (Some(address), Some(interface)) = (&args.vip, &args.interface) {
        spec["vip"] = json!({ "address": address, "interface": interface });
    }
    if let Some(path) = &args.database {
        spec["database"] = json!({ "path": path });
    }
    let app = json!({ "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": args.name }, "spec": spec });
    let problems = match manifest::from_json(&app) {
        Ok(read) => manifest::validate(&read),
        Err(problems) => problems,
    };
    match problems.first() {
        None => Ok(app),
        Some(first) => {
            let all: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect();
            let hint = first.hint.clone().unwrap_or_else(|| "clusterctl explain app.spec tells the fields".to_owned());
            Err(usage(all.join("\n"), &hint))
        }
    }
}
