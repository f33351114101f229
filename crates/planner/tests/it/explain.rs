//! Every node and every rule of a placement.

use std::collections::BTreeMap;

use cluster_planner::explain::placement;
use cluster_planner::{Cordon, Input, Liveness, NodeInput};
use cluster_schemas::assignment::Role;
use cluster_schemas::placement::{NodePlacement, PlacementView};
use cluster_schemas::resources::{Amounts, Resources};
use cluster_schemas::{App, Mode};

use crate::builders::{labelled, mk_app, mk_node, selecting};

fn explained(app: App, nodes: Vec<NodeInput>) -> PlacementView {
    let nodes: BTreeMap<String, NodeInput> = nodes.into_iter().map(|n| (n.node.name.clone(), n)).collect();
    let name = app.metadata.name.clone();
    let apps = BTreeMap::from([(name.clone(), app)]);
    let (none, floors, handovers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let input = Input {
        incarnation: "i",
        term: 1,
        apps: &apps,
        nodes: &nodes,
        assignments: &none,
        lease_ms: 350,
        epoch_floors: &floors,
        handovers: &handovers,
    };
    assert_eq!(placement(&input, "other"), None);
    placement(&input, &name).unwrap()
}

fn failing(node: &NodePlacement) -> Vec<&str> {
    node.rules.iter().filter(|r| !r.pass).map(|r| r.rule.as_str()).collect()
}

#[test]
fn each_node_has_each_rule_and_the_smallest_change_is_named() {
    let ssd = |name: &str| labelled(mk_node(name), "disk", "ssd");
    let mut lost = ssd("n3");
    lost.liveness = Liveness::Lost;
    let mut cordoned = mk_node("n4");
    cordoned.cordon = Cordon::Cordoned;
    let view = explained(selecting(mk_app("api", Mode::Spread), "disk", "ssd"), vec![ssd("n1"), mk_node("n2"), lost, cordoned]);
    let [n1, n2, n3, n4] = view.nodes.as_slice() else { panic!("{view:?}") };
    assert_eq!((n1.role, n1.fits, failing(n1), n1.change.as_str()), (Some(Role::Member), true, vec![], ""));
    assert!(n1.rules.iter().any(|r| r.rule == "nodeSelector disk=ssd" && r.pass));
    assert_eq!((n2.role, failing(n2)), (None, vec!["nodeSelector disk=ssd"]));
    assert_eq!((failing(n3), n3.change.as_str()), (vec!["heard"], "bring n3 back"));
    assert_eq!(failing(n4), ["not cordoned", "nodeSelector disk=ssd"]);
    assert_eq!(view.smallest_change, "label n2 with disk=ssd");
    assert!(view.nodes.iter().all(|n| n.rules.len() == n1.rules.len()), "every rule on every node");
}

#[test]
fn resources_are_told_with_numbers_and_a_node_that_fits_how_to_get_it() {
    let sized = |name: &str, memory_bytes: u64| {
        let mut node = mk_node(name);
        node.node.capacity = Some(Amounts { cpu_millis: 4000, memory_bytes });
        node
    };
    let mut app = mk_app("db", Mode::Singleton);
    app.spec.placement.resources = Some(Resources { cpu: None, memory: Some("1Gi".to_owned()) });
    let view = explained(app, vec![sized("n1", 2 << 30), sized("n2", 2 << 30), sized("n3", 1 << 29)]);
    assert_eq!((view.nodes[0].role, view.nodes[1].role, view.nodes[2].role), (Some(Role::Active), Some(Role::Standby), None));
    let memory = view.nodes[2].rules.iter().find(|r| r.rule == "resources memory").unwrap();
    assert_eq!((memory.pass, memory.detail.as_str()), (false, "memory 0 of 512Mi reserved, 1Gi asked"));
    assert_eq!(view.smallest_change, "it stands by: clusterctl switchover db --to n2");
}
