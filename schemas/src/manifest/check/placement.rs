//! Which nodes may run it.

use super::super::problem::join;
use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;
use crate::app::Mode;
use crate::name::check_label_key;
use crate::resources::{cpu_millis, memory_bytes};

/// Most nodes that `placement.nodes` may name.
pub(super) const NODES_MAX: usize = 1024;
/// Most Apps that `placement.awayFromApps` may name.
pub(super) const AWAY_MAX: usize = 64;

/// Most Apps that `placement.withApps` may name.
pub(super) const WITH_MAX: usize = 64;
/// Most entries of `placement.prefer`.
pub(super) const PREFER_MAX: usize = 64;
/// Most that one entry of `placement.prefer` may count.
pub(super) const WEIGHT_MAX: u8 = 100;

impl Checker<'_> {
    pub(super) fn placement(&mut self) {
        let placement = &self.app.spec.placement;
        self.names("/spec/placement/nodes", Rule::PlacementNodes, &placement.nodes, NODES_MAX, "node");
        self.labels("/spec/placement/nodeSelector", &placement.node_selector);
        self.avoid();
        self.prefer();
        self.names("/spec/placement/withApps", Rule::PlacementWith, &placement.with_apps, WITH_MAX, "App");
        self.names("/spec/placement/awayFromApps", Rule::PlacementAway, &placement.away_from_apps, AWAY_MAX, "App");
        self.spread_by();
        self.resources();
        for (n, app) in placement.with_apps.iter().enumerate().filter(|(_, app)| placement.away_from_apps.contains(app)) {
            let message = format!("{} stands in `awayFromApps` too", quote(app));
            self.value(&format!("/spec/placement/withApps/{n}"), Rule::PlacementWith, message, "leave out one of the two".to_owned());
        }
        if !self.sound("/metadata/name") {
            return;
        }
        self.not_itself("/spec/placement/withApps", Rule::PlacementWith, &placement.with_apps, "run beside");
        self.not_itself("/spec/placement/awayFromApps", Rule::PlacementAway, &placement.away_from_apps, "keep away from");
    }

    fn not_itself(&mut self, at: &str, rule: Rule, apps: &[String], what: &str) {
        for (n, app) in apps.iter().enumerate().filter(|(_, app)| **app == self.app.metadata.name) {
            self.value(&format!("{at}/{n}"), rule, format!("{} cannot {what} itself", quote(app)), "leave it out".to_owned());
        }
    }

    fn avoid(&mut self) {
        let placement = &self.app.spec.placement;
        self.labels("/spec/placement/avoidLabels", &placement.avoid_labels);
        for (key, value) in placement.avoid_labels.iter().filter(|(key, value)| placement.node_selector.get(*key) == Some(value)) {
            let pointer = join("/spec/placement/avoidLabels", key);
            if self.sound(&join("/spec/placement/nodeSelector", key)) {
                let message = format!("`nodeSelector` asks for {}, so that no node is left", quote(&format!("{key}: {value}")));
                self.value(&pointer, Rule::PlacementAvoid, message, "leave out one of the two".to_owned());
            }
        }
    }

    fn prefer(&mut self) {
        let entries = &self.app.spec.placement.prefer;
        if self.spreads() && !entries.is_empty() {
            let message = "mode `Spread` runs on every eligible node, and has none to prefer";
            let hint = "leave it out, or restrict the nodes with `nodeSelector`".to_owned();
            self.key("/spec/placement/prefer", Rule::PlacementPrefer, message, hint);
        }
        self.at_most("/spec/placement/prefer", entries.len(), PREFER_MAX, "entry");
        for (n, entry) in entries.iter().enumerate() {
            let pointer = format!("/spec/placement/prefer/{n}");
            let labels = format!("{pointer}/labels");
            if !(1..=WEIGHT_MAX).contains(&entry.weight) {
                let message = format!("`weight` is not between 1 and {WEIGHT_MAX}");
                self.value(&format!("{pointer}/weight"), Rule::OutOfRange, message, None);
            }
            if entry.labels.is_empty() {
                let message = "without labels every node matches, and none is preferred";
                self.value(&labels, Rule::PlacementPrefer, message, "write a label such as `{disk: nvme}`".to_owned());
            } else if entries.iter().take(n).any(|before| before.labels == entry.labels) {
                let message = "an entry before has the same labels";
                self.value(&labels, Rule::PlacementPrefer, message, "leave one out, or add their weights".to_owned());
            }
            self.labels(&labels, &entry.labels);
        }
    }

    fn spread_by(&mut self) {
        let Some(key) = &self.app.spec.placement.spread_by else { return };
        if let Err(error) = check_label_key(key) {
            self.value("/spec/placement/spreadBy", Rule::PlacementSpread, format!("{}: {error}", quote(key)), None);
        }
        if self.spreads() {
            let message = "mode `Spread` runs on every eligible node, and has nothing to choose";
            self.key("/spec/placement/spreadBy", Rule::PlacementSpread, message, "leave it out".to_owned());
        }
    }

    fn resources(&mut self) {
        let Some(asked) = &self.app.spec.placement.resources else { return };
        let cpu = ("cpu", asked.cpu.as_deref(), cpu_millis as fn(&str) -> Option<u64>, "`500m` or `0.5` of a core, at most 9999");
        let memory = ("memory", asked.memory.as_deref(), memory_bytes as _, "bytes, or such as `256Mi` or `1.5Gi`");
        for (name, given, read, right) in [cpu, memory] {
            let Some(given) = given else { continue };
            let pointer = format!("/spec/placement/resources/{name}");
            match read(given) {
                Some(0) => {
                    let message = format!("{} asks for nothing", quote(given));
                    self.value(&pointer, Rule::PlacementResources, message, "leave it out, or ask for some".to_owned());
                }
                Some(_) => {}
                None => {
                    let message = format!("{} is no amount of {}", quote(given), if name == "cpu" { "processor time" } else { name });
                    // Units of a thousand are those of systemd to some and those of Kubernetes to others: neither is guessed.
                    let number = given.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                    let unit = given[number.len()..].chars().next().map(|c| format!("{number}{}i", c.to_ascii_uppercase()));
                    let hint = match unit.filter(|text| name == "memory" && memory_bytes(text).is_some()) {
                        Some(text) => format!("units are those of 1024: write {}", quote(&text)),
                        None => format!("write {right}"),
                    };
                    self.value(&pointer, Rule::PlacementResources, message, hint);
                }
            }
        }
    }

    fn spreads(&self) -> bool {
        self.sound("/spec/mode") && self.app.spec.mode == Mode::Spread
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
