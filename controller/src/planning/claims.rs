//! VIPs and units that two Apps would have.

use std::collections::BTreeMap;

use cluster_schemas::App;
use cluster_schemas::api::FieldProblem;

use super::PlanError;

/// Looks whether an App of the request would have what another one has then. What other Apps have among themselves is the planner's.
pub(super) fn check(present: &BTreeMap<String, App>, wanted: &BTreeMap<String, App>, asked: &[App]) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    let all = |of: &dyn Fn(&App) -> Option<String>| {
        let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, app) in wanted.iter().filter(|(_, app)| !app.is_deleted()) {
            if let Some(thing) = of(app) {
                by.entry(thing).or_default().push(name.clone());
            }
        }
        by
    };
    let vip = |app: &App| app.spec.vip.as_ref().map(|vip| vip.ip().to_owned());
    let (vips, units) = (all(&vip), all(&|app| Some(app.unit_name())));
    for (at, app) in asked.iter().enumerate() {
        let name = &app.metadata.name;
        // Two that came together are told once each; one that was there before is not the one at fault.
        let others = |names: Option<&Vec<String>>| names.into_iter().flatten().find(|other| *other != name).cloned();
        if let Some(other) = vip(app).and_then(|ip| others(vips.get(&ip))) {
            let address = app.spec.vip.as_ref().map(|v| v.address.clone()).unwrap_or_default();
            problems.push(FieldProblem {
                pointer: format!("/apps/{at}/spec/vip/address"),
                message: format!("{address} is the VIP of App {other:?}{}", already(present, &other)),
                hint: Some("give this App an address of its own, or delete the other".to_owned()),
            });
        }
        if let Some(other) = others(units.get(&app.unit_name())) {
            problems.push(FieldProblem {
                pointer: format!("/apps/{at}/spec/unit/name"),
                message: format!("{} is run by App {other:?}{}", app.unit_name(), already(present, &other)),
                hint: Some("one unit belongs to one App; a template (name@instance.service) gives each its own".to_owned()),
            });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Invalid(problems)) }
}

fn already(present: &BTreeMap<String, App>, other: &str) -> &'static str {
    if present.contains_key(other) { " already" } else { ", which is in these files, too" }
}
