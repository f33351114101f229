//! What a change would do, by the planner itself.

use std::collections::BTreeMap;

use cluster_planner::preview::{effects, settle};
use cluster_planner::{Input, NodeInput};
use cluster_schemas::app::Standby;
use cluster_schemas::plan::{Effects, InterruptionKind, UnitAction};
use cluster_schemas::{App, Assignment, Mode};

use crate::builders::{away_from, mk_app, mk_node, on_nodes, with_vip};

struct Bench {
    apps: BTreeMap<String, App>,
    nodes: BTreeMap<String, NodeInput>,
    assignments: BTreeMap<String, Assignment>,
}

fn named(apps: impl IntoIterator<Item = App>) -> BTreeMap<String, App> {
    apps.into_iter().map(|app| (app.metadata.name.clone(), app)).collect()
}

impl Bench {
    /// Nodes at rest with these Apps.
    fn at_rest(nodes: usize, apps: impl IntoIterator<Item = App>) -> Self {
        let nodes = (1..=nodes).map(|n| (format!("n{n}"), mk_node(&format!("n{n}")))).collect();
        let mut bench = Self { apps: named(apps), nodes, assignments: BTreeMap::new() };
        let settled = bench.input(|input| settle(&input));
        assert!(settled.steady);
        bench.assignments = settled.assignments;
        bench
    }

    fn input<T>(&self, with: impl FnOnce(Input<'_>) -> T) -> T {
        let (floors, handovers) = (BTreeMap::new(), BTreeMap::new());
        with(Input {
            incarnation: "i",
            term: 1,
            apps: &self.apps,
            nodes: &self.nodes,
            assignments: &self.assignments,
            lease_ms: 350,
            epoch_floors: &floors,
            handovers: &handovers,
        })
    }

    fn becomes(&self, change: impl FnOnce(&mut BTreeMap<String, App>)) -> Effects {
        let mut wanted = self.apps.clone();
        change(&mut wanted);
        for (name, app) in &mut wanted {
            if self.apps.get(name).is_some_and(|old| old.spec != app.spec) {
                app.metadata.generation += 1;
            }
        }
        let effects = self.input(|input| effects(&input, &wanted));
        assert_eq!(effects.unknown, "");
        effects
    }
}

fn units(effects: &Effects) -> Vec<(&str, &str, UnitAction)> {
    effects.units.iter().map(|u| (u.app.as_str(), u.node.as_str(), u.action)).collect()
}

#[test]
fn what_does_not_change_does_nothing() {
    let bench = Bench::at_rest(
        3,
        [mk_app("api", Mode::Spread), with_vip(mk_app("db", Mode::Singleton), "10.0.0.9/24"), mk_app("ring", Mode::Ring)],
    );
    assert_eq!(bench.becomes(|_| {}), Effects::default());
    assert_eq!(
        bench.becomes(|apps| {
            apps.get_mut("api").unwrap().metadata.labels.insert("a".into(), "b".into());
        }),
        Effects::default()
    );
}

#[test]
fn more_replicas_are_started_and_fewer_stopped() {
    let bench = Bench::at_rest(5, [mk_app("workers", Mode::Replicas)]);
    let more = bench.becomes(|apps| apps.get_mut("workers").unwrap().spec.replicas = Some(5));
    assert_eq!(units(&more), [("workers", "n4", UnitAction::Started), ("workers", "n5", UnitAction::Started)]);
    let fewer = bench.becomes(|apps| apps.get_mut("workers").unwrap().spec.replicas = Some(1));
    assert_eq!(fewer.units.iter().filter(|u| u.action == UnitAction::Stopped).count(), 2);
    assert_eq!(fewer.units.len(), 2);
}

#[test]
fn a_new_command_restarts_where_it_is_even_where_update_would_pace_it() {
    let mut app = mk_app("api", Mode::Spread);
    app.spec.update = Some(cluster_schemas::update::UpdateSpec::default());
    let bench = Bench::at_rest(3, [app]);
    let changed = bench.becomes(|apps| apps.get_mut("api").unwrap().spec.exec.as_mut().unwrap().command.push("-v".into()));
    assert_eq!(units(&changed), ["n1", "n2", "n3"].map(|n| ("api", n, UnitAction::Restarted)));
    let paced = bench.becomes(|apps| apps.get_mut("api").unwrap().spec.update = None);
    assert_eq!(paced.units, []);
}

#[test]
fn a_singleton_that_has_to_move_is_a_switchover_with_its_address() {
    let bench = Bench::at_rest(3, [with_vip(mk_app("db", Mode::Singleton), "10.0.0.9/24")]);
    let moved = bench.becomes(|apps| {
        let app = apps.remove("db").unwrap();
        apps.insert("db".into(), on_nodes(app, &["n2", "n3"]));
    });
    assert_eq!(units(&moved), [("db", "n1", UnitAction::Stopped), ("db", "n2", UnitAction::Started)]);
    assert_eq!((moved.vips[0].from.as_deref(), moved.vips[0].to.as_deref()), (Some("n1"), Some("n2")));
    assert_eq!(moved.interruptions[0].kind, InterruptionKind::ColdSwitchover);
    assert_eq!(moved.interruptions[0].message, "moves from n1 to n2: stopped here, then started there");
    let restarted = bench.becomes(|apps| apps.get_mut("db").unwrap().spec.exec.as_mut().unwrap().command.push("-v".into()));
    assert_eq!(restarted.interruptions[0].kind, InterruptionKind::Restart);
    let calm = bench.becomes(|apps| {
        let app = apps.remove("db").unwrap();
        apps.insert("db".into(), on_nodes(app, &["n1", "n2"]));
    });
    assert_eq!(calm.interruptions[0].message, "stays on n1, its process goes on");
    assert_eq!((calm.units.len(), calm.vips.len()), (0, 0));
    let ends = bench.becomes(|apps| apps.get_mut("db").unwrap().metadata.deletion_timestamp = Some("now".into()));
    assert_eq!((ends.interruptions[0].kind, units(&ends)), (InterruptionKind::Ends, vec![("db", "n1", UnitAction::Stopped)]));
}

#[test]
fn a_hot_standby_goes_on_where_it_runs() {
    let mut app = mk_app("db", Mode::Singleton);
    app.spec.standby = Standby::Hot;
    let bench = Bench::at_rest(2, [app]);
    let moved = bench.becomes(|apps| {
        let app = apps.remove("db").unwrap();
        apps.insert("db".into(), on_nodes(app, &["n2"]));
    });
    assert_eq!(units(&moved), [("db", "n1", UnitAction::Stopped), ("db", "n2", UnitAction::Reloaded)]);
    assert_eq!(moved.interruptions[0].kind, InterruptionKind::HotSwitchover);
}

#[test]
fn one_app_can_push_another() {
    let bench =
        Bench::at_rest(2, [mk_app("db", Mode::Singleton), away_from(on_nodes(mk_app("web", Mode::Singleton), &["n1", "n2"]), &["db"])]);
    let pushed = bench.becomes(|apps| {
        let app = apps.remove("db").unwrap();
        apps.insert("db".into(), on_nodes(app, &["n2"]));
    });
    let kinds: Vec<_> = pushed.interruptions.iter().map(|i| (i.app.as_str(), i.kind)).collect();
    assert_eq!(kinds, [("db", InterruptionKind::ColdSwitchover), ("web", InterruptionKind::ColdSwitchover)]);
}

#[test]
fn partitions_are_counted_by_where_they_go() {
    let bench = Bench::at_rest(4, [on_nodes(mk_app("ring", Mode::Ring), &["n1", "n2"])]);
    let grown = bench.becomes(|apps| apps.get_mut("ring").unwrap().spec.placement.nodes.push("n3".into()));
    let moved: u32 = grown.partitions.iter().map(|p| p.count).sum();
    assert_eq!(moved, 5, "16 over three: no more than must");
    assert!(grown.partitions.iter().all(|p| p.to.as_deref() == Some("n3") && p.from.is_some()));
    let actions: Vec<_> = units(&grown);
    assert_eq!(actions, [("ring", "n1", UnitAction::Reloaded), ("ring", "n2", UnitAction::Reloaded), ("ring", "n3", UnitAction::Started)]);
    let gone = bench.becomes(|apps| apps.get_mut("ring").unwrap().metadata.deletion_timestamp = Some("now".into()));
    assert_eq!(gone.partitions.iter().map(|p| (p.to.as_deref(), p.count)).collect::<Vec<_>>(), [(None, 8), (None, 8)]);
}
