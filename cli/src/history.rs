//! `get revisions`, `get audit`: who wrote what, and when; `undo`: has an App again as it was.

use clap::Args;
use cluster_schemas::App;
use cluster_schemas::api::{AppView, List};
use cluster_schemas::app::Metadata;
use cluster_schemas::history::{Audit, Revision, RevisionChange};
use cluster_schemas::plan::{Change, PlanOptions, PlanRequest};
use jiff::Timestamp;
use serde_json::json;

use crate::apply;
use crate::args::{Format, GetArgs, VersionFormat};
use crate::client::{Client, encode};
use crate::diff;
use crate::error::{CliError, Exit};
use crate::get;
use crate::io::Io;
use crate::listing;
use crate::output::age::age;
use crate::output::table::Table;
use crate::output::{NONE, joined};
use crate::plans::Asked;
use crate::resource::Kind;

/// Revisions of all Apps, or audit records, that are asked for: what a controller gives at most.
const LINES_MAX: usize = 1000;
/// Fields of a change that are named in a line that is wide.
const POINTERS_MAX: usize = 5;

/// What `get` may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Revisions of one App, or of all.
    Revisions,
    /// The audit of one object, or all of it.
    Audit,
}

/// Whether the arguments of `get` ask for revisions or the audit, with the names that follow.
pub(crate) fn asked(args: &GetArgs) -> Option<(Asks, &[String])> {
    let (kind, names) = args.resources.split_first()?;
    match kind.as_str() {
        "revision" | "revisions" => Some((Asks::Revisions, names)),
        "audit" | "audits" => Some((Asks::Audit, names)),
        _ => None,
    }
}

/// Prints them, the latest last, as events are.
pub(crate) fn run(asks: Asks, names: &[String], args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let one = match names {
        [] => None,
        [name] => Some(name.as_str()),
        _ => {
            let (word, example) = match asks {
                Asks::Revisions => ("revisions", "database"),
                Asks::Audit => ("audit", "app/database"),
            };
            let message = "one name at a time".to_owned();
            return Err(CliError::Usage { message, hint: Some(format!("such as: clusterctl get {word} {example}")) });
        }
    };
    match asks {
        Asks::Revisions => revisions(one, args, client, io),
        Asks::Audit => audit(one, args, client, io),
    }
}

fn revisions(app: Option<&str>, args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let list = match app {
        Some(app) => of(client, bare(app))?,
        None => client.get::<List<Revision>>(&format!("/v1/revisions?limit={LINES_MAX}"))?,
    };
    let (wide, now) = (args.output.plain() == Format::Wide, Timestamp::now());
    let table = || {
        let mut columns = vec!["APP", "REVISION", "CHANGE", "WHO", "SOURCE", "AGE"];
        if wide {
            columns.extend(["SET", "ADDRESS", "GENERATION"]);
        }
        let mut table = Table::new(&columns);
        let or_none = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or(NONE).to_owned();
        for one in &list.items {
            let change = one.change.as_str();
            let who = or_none(Some(one.who.shown()));
            let source = or_none(one.source_revision.as_deref());
            let mut row = vec![one.app.clone(), one.revision.to_string(), change.to_owned(), who, source, age(Some(&one.at), now)];
            if wide {
                row.extend([or_none(one.set.as_deref()), or_none(Some(&one.who.address)), one.generation.to_string()]);
            }
            table.row(row);
        }
        table.render(args.no_headers)
    };
    let names = list.items.iter().map(|one| format!("revision/{}/{}\n", one.app, one.revision)).collect();
    listing::print("revisions", &json!({ "items": list.items }), names, table, args, io)
}

fn audit(object: Option<&str>, args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let only = object.map(|object| format!("&for={}", encode(object))).unwrap_or_default();
    let list = client.get::<Audit>(&format!("/v1/audit?limit={LINES_MAX}{only}"))?;
    if list.missed > 0 {
        io.note(format_args!("warning: {} records could not be stored; the log of {} has them", list.missed, client.server()));
    }
    let (wide, now) = (args.output.plain() == Format::Wide, Timestamp::now());
    let table = || {
        let mut columns = vec!["AGE", "WHO", "OBJECT", "REQUEST", "OUTCOME", "STATUS"];
        if wide {
            columns.extend(["ADDRESS", "CONTROLLER", "WHAT"]);
        }
        let mut table = Table::new(&columns);
        for one in &list.items {
            let outcome = one.outcome.as_str();
            let who = one.who.shown().to_owned();
            let mut row =
                vec![age(Some(&one.at), now), who, one.object.clone(), one.request.clone(), outcome.to_owned(), one.status.to_string()];
            if wide {
                let pointers: Vec<&str> = one.changes.iter().map(|change| change.pointer.as_str()).take(POINTERS_MAX).collect();
                let what = if one.detail.is_empty() { joined(&pointers, ",") } else { one.detail.clone() };
                row.extend([one.who.address.clone(), one.controller.clone(), what]);
            }
            table.row(row);
        }
        table.render(args.no_headers)
    };
    let names = list.items.iter().map(|one| format!("audit/{}\n", one.sequence)).collect();
    listing::print("audit", &json!({ "items": list.items, "missed": list.missed }), names, table, args, io)
}

/// `app/NAME` and `NAME` mean the same here.
fn bare(app: &str) -> &str {
    app.strip_prefix("app/").unwrap_or(app)
}

/// The revisions of one App, in their order.
fn of(client: &Client, app: &str) -> Result<List<Revision>, CliError> {
    let mut list = match client.get::<List<Revision>>(&format!("/v1/apps/{}/revisions", encode(app))) {
        Ok(list) => list,
        Err(error) if error.is_not_found() => return Err(get::not_found(client, Kind::App, app)),
        Err(error) => return Err(error.into()),
    };
    list.items.sort_by_key(|one| one.revision);
    Ok(list)
}

/// `undo`.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Name of the App; it may have been deleted
    #[arg(value_name = "APP | app/APP")]
    pub(crate) app: String,

    /// The revision to have again, as `get revisions APP` numbers them; the one before the last write when absent
    #[arg(long, value_name = "N")]
    pub(crate) to_revision: Option<u64>,

    /// Print what would be done, as `diff` does, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Writes an App as it was at a revision: spec, labels and annotations. That is a revision too.
pub(crate) fn undo(args: &UndoArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let name = bare(&args.app);
    let list = of(client, name)?;
    let present = match client.get::<AppView>(&format!("/v1/apps/{}", encode(name))) {
        Ok(app) => Some(app.metadata),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let target = choose(&list.items, args.to_revision, present.is_some(), name)?;
    let metadata = Metadata {
        name: name.to_owned(),
        labels: target.labels.clone(),
        annotations: target.annotations.clone(),
        // Somebody else may write meanwhile.
        resource_version: present.as_ref().map_or(0, |metadata| metadata.resource_version),
        ..Metadata::default()
    };
    let app = App { api_version: cluster_schemas::API_VERSION.to_owned(), kind: "App".to_owned(), metadata, spec: target.spec.clone() };
    // One that is there stays in the set that it is in.
    let set = if present.is_some() { None } else { target.set.clone() };
    let options = PlanOptions { set, source_revision: target.source_revision.clone(), ..PlanOptions::default() };
    let mut asked = Asked { request: PlanRequest { apps: vec![app], options, basis: None }, places: Vec::new() };
    let Some(plan) = diff::ask(client, &asked, io)? else { return Ok(Exit::Failed) };
    if present.is_none() && plan.apps.iter().any(|app| app.change != Change::Created) {
        io.note(format_args!("error: app/{name} was made anew meanwhile; nothing was written"));
        return Ok(Exit::Failed);
    }
    if args.dry_run {
        return diff::preview(asked, plan, VersionFormat::Table, io);
    }
    asked.request.basis = Some(plan.basis);
    let exit = apply::send(client, &asked, io)?.map_or(Exit::Failed, |(exit, _)| exit);
    if exit == Exit::Done {
        io.remark(format_args!("app/{name} is what it was at revision {}", target.revision));
    }
    Ok(exit)
}

/// The revision to have again. `list` is in order.
fn choose<'r>(list: &'r [Revision], wanted: Option<u64>, exists: bool, name: &str) -> Result<&'r Revision, CliError> {
    let usage = |message: String| CliError::Usage { message, hint: Some(format!("what there is: clusterctl get revisions {name}")) };
    if let Some(wanted) = wanted {
        let found = list.iter().find(|one| one.revision == wanted);
        return found.ok_or_else(|| usage(format!("app/{name} has no revision {wanted}, or not any more")));
    }
    // The record of a deletion has what went; without it, what the App was last.
    let back = usize::from(exists) + 1;
    let found = list.len().checked_sub(back).and_then(|index| list.get(index));
    // One that came after a deletion goes back to nothing; who wants what was before says so by its number.
    match found {
        Some(found) if !exists || found.change != RevisionChange::Deleted => Ok(found),
        _ => Err(usage(format!("app/{name} has nothing to go back to: its only write made it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(changes: &[RevisionChange]) -> Vec<Revision> {
        (7..).zip(changes).map(|(revision, change)| Revision { revision, change: *change, ..Revision::default() }).collect()
    }

    #[test]
    fn the_one_before_the_last_write_is_meant() {
        use RevisionChange::{Changed, Created, Deleted};
        let chosen =
            |changes: &[RevisionChange], wanted, exists| choose(&revisions(changes), wanted, exists, "x").map(|one| one.revision).ok();
        assert_eq!(chosen(&[Created, Changed, Changed], None, true), Some(8));
        assert_eq!(chosen(&[Created, Changed, Deleted], None, false), Some(9), "a deletion has what went");
        assert_eq!(chosen(&[Created, Changed, Deleted], Some(7), false), Some(7));
        assert_eq!(chosen(&[Created, Deleted, Created], None, true), None, "that was another App");
        assert_eq!((chosen(&[Created], None, true), chosen(&[], None, false), chosen(&[Created], Some(6), true)), (None, None, None));
    }
}
