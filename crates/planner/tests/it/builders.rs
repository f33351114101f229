//! Small builders for Apps, nodes and statuses.

use std::collections::BTreeMap;

use cluster_planner::{Cordon, Liveness, NodeInput};
use cluster_schemas::app::{ExecSpec, RingSpec, VipSpec};
use cluster_schemas::{App, AppSpec, Assignment, Metadata, Mode, Node, NodeStatus};

/// An App that runs a command; three replicas, 16 partitions, where the mode has them.
pub(crate) fn mk_app(name: &str, mode: Mode) -> App {
    App {
        api_version: cluster_schemas::API_VERSION.to_owned(),
        kind: "App".to_owned(),
        metadata: Metadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            generation: 1,
            creation_timestamp: Some("2026-11-01T00:00:00Z".to_owned()),
            ..Metadata::default()
        },
        spec: AppSpec {
            mode,
            exec: Some(ExecSpec {
                command: vec!["/usr/bin/demo".to_owned()],
                environment: BTreeMap::new(),
                user: None,
                group: None,
                working_directory: None,
                limits: BTreeMap::new(),
            }),
            replicas: (mode == Mode::Replicas).then_some(3),
            ring: (mode == Mode::Ring).then_some(RingSpec { partitions: 16 }),
            ..AppSpec::default()
        },
    }
}

/// The same App with a VIP.
pub(crate) fn with_vip(mut app: App, address: &str) -> App {
    app.spec.vip = Some(VipSpec { address: address.to_owned(), interface: "eth0".to_owned() });
    app
}

/// The same App kept away from others.
pub(crate) fn away_from(mut app: App, others: &[&str]) -> App {
    app.spec.placement.away_from_apps = others.iter().map(|o| (*o).to_owned()).collect();
    app
}

/// The same App beside others only.
pub(crate) fn with_apps(mut app: App, others: &[&str]) -> App {
    app.spec.placement.with_apps = others.iter().map(|o| (*o).to_owned()).collect();
    app
}

/// The same App with a node selector.
pub(crate) fn selecting(mut app: App, key: &str, value: &str) -> App {
    app.spec.placement.node_selector.insert(key.to_owned(), value.to_owned());
    app
}

/// The same App on these nodes only.
pub(crate) fn on_nodes(mut app: App, nodes: &[&str]) -> App {
    app.spec.placement.nodes = nodes.iter().map(|n| (*n).to_owned()).collect();
    app
}

/// A Live node in its first boot, with a status that says it hears a majority.
pub(crate) fn mk_node(name: &str) -> NodeInput {
    let boot_id = format!("{name}-boot-1");
    NodeInput {
        node: Node {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            addresses: BTreeMap::new(),
            boot_id: boot_id.clone(),
            agent_version: "0.1.0".to_owned(),
            capacity: None,
            witness: false,
            registered_at: None,
        },
        liveness: Liveness::Live,
        status: Some(NodeStatus { node: name.to_owned(), boot_id, quorum: true, ..NodeStatus::default() }),
        cordon: Cordon::None,
    }
}

/// The same node with a label.
pub(crate) fn labelled(mut node: NodeInput, key: &str, value: &str) -> NodeInput {
    node.node.labels.insert(key.to_owned(), value.to_owned());
    node
}

/// Entries that differ between two sets of assignments, short enough to read.
pub(crate) fn difference(a: &BTreeMap<String, Assignment>, b: &BTreeMap<String, Assignment>) -> String {
    let mut lines = Vec::new();
    for (node, x) in a {
        let y = &b[node];
        for app in x.apps.keys().chain(y.apps.keys()).collect::<std::collections::BTreeSet<_>>() {
            let show = |e: Option<&cluster_schemas::AppAssignment>| {
                e.map(|e| {
                    let (role, epoch, releasing, vip, ring, reason) = (e.role, e.epoch, e.releasing, &e.vip, &e.ring, &e.reason.message);
                    let (peers, candidates, successor) = (&e.peers, &e.candidates, &e.successor);
                    let (generation, settling, held_back) = (e.generation, e.settling, &e.held_back);
                    format!("{role:?} {epoch} of {generation} settling {settling} {held_back:?} releasing {releasing:?} to {successor:?} of {candidates:?} {vip:?} {ring:?} peers {peers:?} {reason}")
                })
            };
            if x.apps.get(app) != y.apps.get(app) {
                lines.push(format!("{node} {app}:\n  {:?}\n  {:?}", show(x.apps.get(app)), show(y.apps.get(app))));
            }
        }
    }
    lines.join("\n")
}
