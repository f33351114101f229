//! VIPs that are taken for the first time: before that, and only then, the link is asked whether another machine has the address. On a
//! take-over the answer would come from the one that is being replaced.
//!
//! The assignments remember it: a VIP's entries carry [`VipAssignment::probe`] from the first plan that has it until a node that acts on
//! such an entry is seen to have the address. An entry without the mark, on whatever node, means that the VIP is known.

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::App;
use cluster_schemas::app::VipSpec;
use cluster_schemas::assignment::{AppAssignment, VipAssignment};

use crate::claims::reached;
use crate::input::{Input, Liveness, Plan};

/// Marks the VIPs of a plan that nobody was ever seen to have.
pub(crate) fn mark(plan: &mut Plan, input: &Input<'_>) {
    let vips = input.apps.iter().filter_map(|(name, app)| app.spec.vip.as_ref().map(|vip| (name.as_str(), (app, vip))));
    let mut new: BTreeMap<&str, (&App, &VipSpec)> = vips.collect();
    for name in known(input) {
        new.remove(name);
    }
    for entry in plan.assignments.values_mut().flat_map(|a| &mut a.apps) {
        let (name, entry) = entry;
        let spec = new.get(name.as_str()).filter(|(app, _)| app.metadata.uid == entry.uid);
        if let (Some((_, spec)), Some(vip)) = (spec, &mut entry.vip) {
            vip.probe = vip.spec() == **spec;
        }
    }
}

/// Apps whose VIP was held before, as far as the entries last written and the nodes' reports tell.
fn known<'a>(input: &Input<'a>) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (node, assignment) in input.assignments {
        let live = input.nodes.get(node).filter(|n| n.liveness == Liveness::Live && n.node.boot_id == assignment.boot_id);
        let status = live.and_then(|n| n.status.as_ref()).filter(|s| reached(s.assignment.as_ref(), &assignment.order));
        for (name, entry) in &assignment.apps {
            let Some(vip) = of_spec(input, name, entry) else { continue };
            let seen = status.and_then(|s| s.apps.get(name)).filter(|o| o.uid == entry.uid && o.seen >= assignment.order.generation);
            let here = seen.and_then(|o| o.vip.as_ref()).is_some_and(|v| v.present && v.address == vip.address);
            if !vip.probe || here {
                known.insert(name.as_str());
            }
        }
    }
    known
}

/// The VIP of an entry, if it is the one that the App's spec has now.
fn of_spec<'a>(input: &Input<'a>, name: &str, entry: &'a AppAssignment) -> Option<&'a VipAssignment> {
    let vip = entry.vip.as_ref()?;
    let app = input.apps.get(name).filter(|app| app.metadata.uid == entry.uid)?;
    app.spec.vip.as_ref().is_some_and(|spec| spec.address == vip.address && spec.interface == vip.interface).then_some(vip)
}
