//! What an apply would do: pure. `POST /v1/plan` answers with it, and `POST /v1/apply` makes the same one before it writes.

mod claims;
mod effects;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cluster_schemas::App;
use cluster_schemas::api::FieldProblem;
use cluster_schemas::manifest::validate_update;
use cluster_schemas::name::check_name;
use cluster_schemas::placement::PlacementView;
use cluster_schemas::plan::{AppPlan, Basis, Change, Effects, Plan, PlanOptions, PlanRequest, SetView, field_changes, hash, max_delete};

use crate::world::World;

/// Names of Apps that a sentence has at most.
const NAMES_MAX: usize = 8;
/// Longest source revision, in bytes.
const SOURCE_BYTES_MAX: usize = 256;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The Apps were not listed yet.
    #[error("the caches are not complete yet")]
    NotListed,
    /// The request breaks rules; nothing can be said of it as a whole.
    #[error("the request is not valid")]
    Invalid(Vec<FieldProblem>),
    /// Apps are not as the request takes them to be, or belong to others.
    #[error("{detail}")]
    Conflict {
        /// What is in the way.
        detail: String,
        /// One for each App.
        errors: Vec<FieldProblem>,
    },
}

/// The next version of a stored App, as a write makes it: what users write is replaced, what the server sets stays.
#[must_use]
pub fn next_version(old: &App, wanted: App, options: &PlanOptions) -> App {
    let mut new = App { spec: wanted.spec, ..old.clone() };
    new.metadata.labels = wanted.metadata.labels;
    new.metadata.annotations = wanted.metadata.annotations;
    if let Some(set) = &options.set {
        new.metadata.set = Some(set.clone());
    }
    if new == *old {
        // A commit that changes nothing of this App is no revision of it.
        return new;
    }
    new.metadata.source_revision.clone_from(&options.source_revision);
    if new.spec != old.spec {
        new.metadata.generation += 1;
    }
    new
}

/// Why `options` may not change an App that belongs to a set: it is another's.
#[must_use]
pub fn owned_by_another<'a>(old: &'a App, options: &PlanOptions) -> Option<&'a str> {
    let (theirs, mine) = (old.metadata.set.as_deref()?, options.set.as_deref()?);
    (theirs != mine && !options.take_over).then_some(theirs)
}

/// Makes the plan for `request` from the caches. `lease_ms` is the lease of Apps that name none.
///
/// # Errors
/// [`PlanError`], where an apply would write nothing for that reason.
pub fn plan(world: &World, request: &PlanRequest, lease_ms: u64, now: Instant) -> Result<Plan, PlanError> {
    judge(world, request, |wanted| effects::of(world, wanted, lease_ms, now))
}

/// The same without a look at the nodes, for a write that nobody was shown the effects of. Its hash is another.
///
/// # Errors
/// As [`plan`].
pub fn plan_without_effects(world: &World, request: &PlanRequest) -> Result<Plan, PlanError> {
    judge(world, request, |_| Effects::default())
}

fn judge(world: &World, request: &PlanRequest, effects: impl FnOnce(&BTreeMap<String, App>) -> Effects) -> Result<Plan, PlanError> {
    let present = world.apps.as_ref().ok_or(PlanError::NotListed)?;
    check_options(&request.options)?;
    check_apps(present, request)?;
    let options = &request.options;
    let pruned = pruned(present, request);
    let wanted = wanted(present, request, &pruned);
    claims::check(present, &wanted, &request.apps)?;

    let mut plan = Plan::default();
    let names: BTreeSet<&str> = request.apps.iter().map(|app| app.metadata.name.as_str()).collect();
    for name in &names {
        let Some(new) = wanted.get(*name) else { continue };
        let (change, fields) = match present.get(*name) {
            None => (Change::Created, Vec::new()),
            Some(old) if old == new => (Change::Unchanged, Vec::new()),
            Some(old) => (Change::Changed, field_changes(old, new)),
        };
        plan.apps.push(AppPlan { name: (*name).to_owned(), change, fields });
    }
    plan.apps.extend(pruned.iter().map(|name| AppPlan { name: (*name).to_owned(), change: Change::Deleted, fields: Vec::new() }));
    plan.apps.sort_by(|a, b| a.name.cmp(&b.name));

    refuse_too_many(present, options, &pruned, &mut plan)?;
    warn_of_sets(present, options, &mut plan);
    let of_set = |app: &&App| options.set.is_some() && app.metadata.set == options.set;
    plan.basis.revisions =
        names.iter().map(|name| ((*name).to_owned(), present.get(*name).map_or(0, |a| a.metadata.resource_version))).collect();
    plan.basis.revisions.extend(present.values().filter(of_set).map(|a| (a.metadata.name.clone(), a.metadata.resource_version)));
    if plan.changes() {
        plan.effects = effects(&wanted);
    }
    plan.basis.hash = hash(&plan);
    Ok(plan)
}

/// Why a plan that was made before does not hold any more: a sentence.
#[must_use]
pub fn other_than(basis: &Basis, now: &Plan) -> Option<String> {
    if basis.hash == now.basis.hash {
        return None;
    }
    let names: BTreeSet<&String> = basis.revisions.keys().chain(now.basis.revisions.keys()).collect();
    let changed: Vec<&str> = names
        .into_iter()
        .filter(|name| basis.revisions.get(*name).copied().unwrap_or(0) != now.basis.revisions.get(*name).copied().unwrap_or(0))
        .map(String::as_str)
        .collect();
    Some(if changed.is_empty() {
        "the Apps are as they were, and the same change would do something else on the nodes by now".to_owned()
    } else {
        format!("changed since: {}", some(&changed))
    })
}

/// Why the App `name` is where it is, by a plan made now; nothing where it is not placed.
///
/// # Errors
/// Why nothing can be planned.
pub fn placement(world: &World, name: &str, lease_ms: u64, now: Instant) -> Result<Option<PlacementView>, &'static str> {
    effects::with_input(world, lease_ms, now, |input| cluster_planner::explain::placement(input, name))
}

/// The sets that there are, by name.
#[must_use]
pub fn sets(apps: &BTreeMap<String, App>) -> Vec<SetView> {
    let mut sets: BTreeMap<&str, (SetView, u64)> = BTreeMap::new();
    for app in apps.values().filter(|a| !a.is_deleted()) {
        let Some(name) = app.metadata.set.as_deref() else { continue };
        let (set, newest) = sets.entry(name).or_insert_with(|| (SetView { name: name.to_owned(), ..SetView::default() }, 0));
        set.apps.push(app.metadata.name.clone());
        if app.metadata.resource_version >= *newest {
            *newest = app.metadata.resource_version;
            set.source_revision.clone_from(&app.metadata.source_revision);
        }
    }
    sets.into_values().map(|(set, _)| set).collect()
}

fn check_options(options: &PlanOptions) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    let mut bad = |pointer: &str, message: String, hint: &str| {
        problems.push(FieldProblem { pointer: pointer.to_owned(), message, hint: Some(hint.to_owned()) });
    };
    if let Some(Err(error)) = options.set.as_deref().map(check_name) {
        bad(
            "/options/set",
            format!("{:?} is no name of a set: {error}", options.set.as_deref().unwrap_or_default()),
            "write a name like those of Apps",
        );
    }
    if options.prune && options.set.is_none() {
        bad("/options/prune", "nothing can be pruned without a set".to_owned(), "name the set that these Apps are all of");
    }
    let source = options.source_revision.as_deref().unwrap_or_default();
    if source.len() > SOURCE_BYTES_MAX || source.chars().any(char::is_control) {
        bad(
            "/options/sourceRevision",
            format!("it is longer than {SOURCE_BYTES_MAX} bytes, or has control characters"),
            "give a commit, a tag or the like",
        );
    }
    if let Err(problem) = max_delete(options.max_delete.as_deref(), 0) {
        problems.push(problem);
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Invalid(problems)) }
}

/// The Apps of the request, one by one, against those that are stored.
fn check_apps(present: &BTreeMap<String, App>, request: &PlanRequest) -> Result<(), PlanError> {
    let options = &request.options;
    if request.apps.is_empty() && !(options.prune && options.allow_empty) {
        let problem = FieldProblem {
            pointer: "/apps".to_owned(),
            message: "there is no App".to_owned(),
            hint: options.prune.then(|| "with allowEmpty every App of the set goes, as far as maxDelete lets them".to_owned()),
        };
        return Err(PlanError::Invalid(vec![problem]));
    }
    let (mut invalid, mut conflicts) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (at, app) in request.apps.iter().enumerate() {
        let name = &app.metadata.name;
        let place = |pointer: &str| format!("/apps/{at}{pointer}");
        let mut conflict = |pointer: &str, message: String, hint: &str| {
            conflicts.push(FieldProblem { pointer: place(pointer), message, hint: Some(hint.to_owned()) });
        };
        if !seen.insert(name) {
            let message = format!("a second App is called {name:?}");
            invalid.push(FieldProblem { pointer: place("/metadata/name"), message, hint: None });
        }
        let expected = app.metadata.resource_version;
        let Some(old) = present.get(name) else {
            if expected != 0 {
                let message = format!("App {name:?} does not exist, and this write stands on its revision {expected}");
                conflict("/metadata/resourceVersion", message, "leave resourceVersion out to create it");
            }
            continue;
        };
        if old.is_deleted() {
            conflict("/metadata/name", format!("App {name:?} is being deleted"), "apply it again when it is gone");
            continue;
        }
        if expected != 0 && expected != old.metadata.resource_version {
            let message = format!("App {name:?} has revision {}, not {expected} that this write stands on", old.metadata.resource_version);
            conflict("/metadata/resourceVersion", message, "read it again and merge your change");
        }
        if let Some(other) = owned_by_another(old, options) {
            conflict(
                "/metadata/name",
                format!("App {name:?} belongs to the set {other:?}"),
                "take it over with --take-over, or take it out of these files",
            );
        }
        invalid.extend(validate_update(old, app).into_iter().map(|p| FieldProblem { pointer: place(&p.pointer), ..p }));
    }
    if !invalid.is_empty() {
        return Err(PlanError::Invalid(invalid));
    }
    if !conflicts.is_empty() {
        let detail = conflicts.iter().take(NAMES_MAX).map(|c| c.message.as_str()).collect::<Vec<_>>().join("; ");
        return Err(PlanError::Conflict { detail, errors: conflicts });
    }
    Ok(())
}

/// The Apps of the set that the request does not name.
fn pruned<'w>(present: &'w BTreeMap<String, App>, request: &PlanRequest) -> Vec<&'w str> {
    let Some(set) = request.options.set.as_deref().filter(|_| request.options.prune) else { return Vec::new() };
    let named: BTreeSet<&str> = request.apps.iter().map(|app| app.metadata.name.as_str()).collect();
    let of_set = present.values().filter(|a| !a.is_deleted() && a.metadata.set.as_deref() == Some(set));
    of_set.map(|a| a.metadata.name.as_str()).filter(|name| !named.contains(name)).collect()
}

/// All Apps as they would be.
fn wanted(present: &BTreeMap<String, App>, request: &PlanRequest, pruned: &[&str]) -> BTreeMap<String, App> {
    let mut wanted = present.clone();
    for app in &request.apps {
        let name = &app.metadata.name;
        let new = match present.get(name) {
            Some(old) => next_version(old, app.clone(), &request.options),
            None => {
                let mut new = app.clone();
                // Younger than all others: whoever has an address or a unit already keeps it.
                new.metadata.creation_timestamp = Some("9999-12-31T23:59:59Z".to_owned());
                (new.metadata.uid, new.metadata.generation) = (format!("planned-{name}"), 1);
                new.metadata.set.clone_from(&request.options.set);
                new
            }
        };
        wanted.insert(name.clone(), new);
    }
    for name in pruned {
        if let Some(app) = wanted.get_mut(*name) {
            app.metadata.deletion_timestamp = Some("9999-12-31T23:59:59Z".to_owned());
        }
    }
    wanted
}

fn refuse_too_many(present: &BTreeMap<String, App>, options: &PlanOptions, pruned: &[&str], plan: &mut Plan) -> Result<(), PlanError> {
    let Some(set) = options.set.as_deref().filter(|_| options.prune) else { return Ok(()) };
    let size = present.values().filter(|a| !a.is_deleted() && a.metadata.set.as_deref() == Some(set)).count();
    let most = max_delete(options.max_delete.as_deref(), size).map_err(|problem| PlanError::Invalid(vec![problem]))?;
    if pruned.len() > most {
        plan.refusals.push(format!(
            "{} of the {size} Apps of the set {set:?} would be deleted ({}), and at most {most} may be: raise --max-delete if it is meant so",
            pruned.len(),
            some(pruned)
        ));
    }
    Ok(())
}

/// One sentence for each set whose Apps are changed without it.
fn warn_of_sets(present: &BTreeMap<String, App>, options: &PlanOptions, plan: &mut Plan) {
    if options.set.is_some() {
        return;
    }
    let mut sets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for app in plan.apps.iter().filter(|a| a.change == Change::Changed) {
        if let Some(set) = present.get(&app.name).and_then(|old| old.metadata.set.as_deref()) {
            sets.entry(set).or_default().push(&app.name);
        }
    }
    let sentences = sets.into_iter().map(|(set, apps)| format!("Apps of the set {set:?}, whose next apply may undo this: {}", some(&apps)));
    plan.warnings = sentences.collect();
}

/// Names for a sentence.
fn some(names: &[&str]) -> String {
    let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX { format!("{shown} and {} more", names.len() - NAMES_MAX) } else { shown }
}

/// Effects that are not known, and why.
fn unknown(why: impl Into<String>) -> Effects {
    Effects { unknown: why.into(), ..Effects::default() }
}

#[cfg(test)]
mod tests;
