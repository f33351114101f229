//! Changed content reaches no more instances at a time than `update` allows.

use cluster_schemas::assignment::{AppAssignment, Role, RunSpec};
use cluster_schemas::{App, Mode};

use super::{Report, Rule, Site};

/// Whether an entry of an earlier generation stands as it was because of `update`.
pub(super) fn held_back(app: &App, entry: &AppAssignment, before: Option<&AppAssignment>) -> bool {
    let as_before = before.is_some_and(|b| b.role != Role::Absent && b.run == entry.run && b.generation == entry.generation);
    app.spec.update.is_some() && as_before && !entry.held_back.is_empty() && !is_newest(app, &entry.run)
}

fn is_newest(app: &App, run: &RunSpec) -> bool {
    let spec = &app.spec;
    let commands = (&run.hooks, &run.health) == (&spec.hooks, &spec.health);
    commands && (&run.unit, &run.exec, run.standby, &run.database) == (&spec.unit, &spec.exec, spec.standby, &spec.database)
}

pub(super) fn check(app: &App, at: &[Site<'_>], report: &mut Report) {
    let Some(update) = app.spec.update.filter(|_| app.spec.mode != Mode::Singleton) else { return };
    let name = &app.metadata.name;
    let (mut settling, mut changed) = (0, Vec::new());
    for site in at {
        let Some(entry) = site.entry(name).filter(|e| e.role == Role::Member) else { continue };
        let before = site.entry_before(name).filter(|e| e.role != Role::Absent && e.uid == app.metadata.uid);
        let seen = site.status.and_then(|s| s.apps.get(name));
        let proven = |b: &AppAssignment| seen.is_some_and(|o| o.healthy && o.generation == b.generation);
        let gives = before.is_none_or(|b| b.run != entry.run);
        let must_settle = gives || before.is_some_and(|b| b.settling && !proven(b));
        report.unless(entry.settling || !must_settle, Rule::Update, || format!("App {name} is not settled on {}", site.name));
        settling += usize::from(entry.settling);
        if before.is_some_and(|b| gives && (!b.settling || proven(b))) {
            changed.push(site.name);
        }
    }
    let most = update.max_unavailable as usize;
    report.unless(changed.is_empty() || settling <= most, Rule::Update, || {
        format!("App {name} changes on {}: {settling} would settle at a time, of at most {most}", changed.join(" and "))
    });
}
