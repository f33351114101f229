//! Which nodes may run it.

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;

/// Most nodes that `placement.nodes` may name.
pub(super) const NODES_MAX: usize = 1024;
/// Most Apps that `placement.awayFromApps` may name.
pub(super) const AWAY_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn placement(&mut self) {
        let placement = &self.app.spec.placement;
        self.names("/spec/placement/nodes", Rule::PlacementNodes, &placement.nodes, NODES_MAX, "node");
        self.labels("/spec/placement/nodeSelector", &placement.node_selector);
        self.names("/spec/placement/awayFromApps", Rule::PlacementAway, &placement.away_from_apps, AWAY_MAX, "App");
        if !self.sound("/metadata/name") {
            return;
        }
        for (n, app) in placement.away_from_apps.iter().enumerate() {
            if *app == self.app.metadata.name {
                let message = format!("{} cannot keep away from itself", quote(app));
                self.value(&format!("/spec/placement/awayFromApps/{n}"), Rule::PlacementAway, message, "leave it out".to_owned());
            }
        }
    }

    fn names(&mut self, at: &str, rule: Rule, names: &[String], most: usize, noun: &str) {
        self.at_most(at, names.len(), most, noun);
        let mut seen = std::collections::BTreeSet::new();
        for (n, name) in names.iter().enumerate() {
            let pointer = format!("{at}/{n}");
            if !seen.insert(name) {
                self.value(&pointer, rule, format!("{} stands here a second time", quote(name)), "leave one out".to_owned());
            } else {
                self.name(&pointer, rule, name);
            }
        }
    }
}
