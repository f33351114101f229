//! `recover`: what is the matter with a store that the nodes do not know, and the operator's signature under it.

use clap::Args;
use cluster_schemas::api::{RecoverRequest, Recovered, RecoveryNode, RecoveryView};

use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::output::table::Table;
use crate::output::{NONE, joined};

/// Characters of an incarnation that a table shows: enough to tell two apart.
const INCARNATION_CHARS: usize = 8;

/// `recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Sign the store as it is: nodes follow it from then on
    #[arg(long)]
    pub(crate) yes: bool,

    /// Apps that run and are not in the store, and shall be stopped; repeat, or separate with commas
    #[arg(long, value_name = "APP", value_delimiter = ',', requires = "yes")]
    pub(crate) stop: Vec<String>,
}

/// Shows what is the matter, and signs it where asked to.
pub(crate) fn run(args: &RecoverArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let seen: RecoveryView = client.get("/v1/recovery")?;
    io.out(&report(&seen))?;
    if !seen.needed {
        return Ok(Exit::Done);
    }
    if !args.yes {
        hints(&seen, io);
        return Ok(Exit::Done);
    }
    let request = RecoverRequest { incarnation: seen.incarnation.clone().unwrap_or_default(), stop: args.stop.clone() };
    let signed: Recovered = client.post("/v1/recovery", &request)?;
    io.line(format_args!("\nsigned: the nodes follow the store {}", signed.incarnation))?;
    Ok(Exit::Done)
}

/// The whole matter as text.
fn report(seen: &RecoveryView) -> String {
    let mut text = format!("Store: {}\n", seen.incarnation.as_deref().unwrap_or(NONE));
    text.push_str(if seen.needed {
        "The nodes do not follow it, and go on with what they hold:\n"
    } else if seen.reasons.is_empty() {
        "The nodes follow it; there is nothing to recover.\n"
    } else {
        "Nothing to sign; this goes away by itself:\n"
    });
    for reason in &seen.reasons {
        text.push_str(&format!("  - {}\n", crate::output::printable(reason)));
    }
    if !seen.needed {
        return text;
    }
    let mut table = Table::new(&["NODE", "ALIVE", "HOLDS", "FOLLOWS", "APPS"]);
    for node in &seen.nodes {
        table.row(vec![node.node.clone(), yes_no(node.alive), holds(node), yes_no(!node.refuses), apps(node)]);
    }
    text.push('\n');
    text.push_str(&table.render(false));
    text.push_str(&format!(
        "\nApps in the store: {}\nApps that run and are not in it: {}\n",
        joined(&seen.apps, ", "),
        joined(&seen.missing, ", ")
    ));
    text
}

fn hints(seen: &RecoveryView, io: &mut Io<'_>) {
    if !seen.missing.is_empty() {
        io.note(format_args!(
            "hint: apply these again first (clusterctl apply -f FILE): {}; or have them stopped: --stop {}",
            seen.missing.join(", "),
            seen.missing.join(",")
        ));
    }
    io.note("hint: clusterctl recover --yes signs the store as it is; docs/recover.md tells what that means");
}

fn yes_no(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}

fn holds(node: &RecoveryNode) -> String {
    let short = |incarnation: &str| incarnation.chars().take(INCARNATION_CHARS).collect::<String>();
    node.holds.as_ref().map_or_else(|| NONE.to_owned(), |held| format!("{}/{}/{}", short(&held.incarnation), held.term, held.generation))
}

fn apps(node: &RecoveryNode) -> String {
    if !node.known {
        return crate::output::UNKNOWN.to_owned();
    }
    joined(&node.apps.iter().map(|running| format!("{}={}", running.app, running.role.as_str())).collect::<Vec<_>>(), ",")
}
