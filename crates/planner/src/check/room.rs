//! Room on nodes for what Apps ask for.

use cluster_schemas::assignment::Role;

use super::{Report, Rule, Site};
use crate::input::{Input, Plan};

pub(super) fn check(input: &Input<'_>, plan: &Plan, report: &mut Report) {
    let asks = |app: &str| input.apps.get(app).map(|a| a.spec.placement.asks()).filter(|ask| !ask.is_zero());
    if !input.apps.keys().any(|app| asks(app).is_some()) {
        return;
    }
    for site in Site::all(input, plan) {
        let (mut cpu, mut memory, mut new) = (0_u128, 0_u128, None);
        for (app, entry) in site.planned.into_iter().flat_map(|a| &a.apps) {
            let Some(ask) = asks(app) else { continue };
            let before = site.entry_before(app);
            if before.is_none() && (entry.role == Role::Absent || site.status.is_some_and(|s| s.apps.contains_key(app))) {
                // It is there though nobody placed it: found, not new.
                continue;
            }
            cpu += u128::from(ask.cpu_millis);
            memory += u128::from(ask.memory_bytes);
            if entry.role != Role::Absent && before.is_none_or(|e| e.role == Role::Absent) {
                new = Some(app);
            }
        }
        let Some(app) = new else { continue };
        let fits = site.node.capacity.is_some_and(|has| cpu <= has.cpu_millis.into() && memory <= has.memory_bytes.into());
        report.unless(fits, Rule::Room, || {
            format!("App {app} is new on {}, where {cpu}m and {memory} bytes are asked of {:?}", site.name, site.node.capacity)
        });
    }
}
