//! `get voters` and `get leases`: who votes, and who holds what, as the nodes themselves say.

use std::collections::BTreeMap;

use cluster_schemas::api::{NodeState, NodeView};
use cluster_schemas::app::ip;
use serde::Serialize;

use crate::args::GetArgs;
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::io::Io;
use crate::listing;
use crate::output::table::Table;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Who votes on leases.
    Voters,
    /// Who holds what.
    Leases,
}

/// A voter of the newest set that a node knows.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct VoterRow {
    node: String,
    /// State of the node; none where it is not registered any more.
    state: Option<NodeState>,
    id: String,
    /// The node votes under another identity now, or under none: this vote is gone until the set is changed.
    lost: bool,
    /// Number of the set.
    set: u64,
}

/// A lease, or several of one ring with the same holder and epoch.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseRow {
    slot: String,
    node: String,
    epoch: u64,
}

impl Held {
    /// What the words after `get` ask for, if it is one of these.
    pub(crate) fn asked(resources: &[String]) -> Option<Self> {
        match resources {
            [word] if matches!(word.as_str(), "voters" | "voter") => Some(Self::Voters),
            [word] if matches!(word.as_str(), "leases" | "lease") => Some(Self::Leases),
            _ => None,
        }
    }

    /// Prints it.
    pub(crate) fn run(self, args: &GetArgs, client: &Client, io: &mut Io<'_>) -> Result<Exit, CliError> {
        let nodes = client.list::<NodeView>("/v1/nodes")?.items;
        match self {
            Self::Voters => {
                let rows = voters(&nodes);
                let lines = rows.iter().map(|r| {
                    let state = if r.lost { "LostItsMemory" } else { r.state.map_or("Removed", NodeState::as_str) };
                    vec![r.node.clone(), state.to_owned(), r.set.to_string(), r.id.chars().take(8).collect()]
                });
                print("voters", &rows, &["NODE", "STATUS", "SET", "ID"], lines, args, io)
            }
            Self::Leases => {
                let rows = leases(&nodes);
                let lines = rows.iter().map(|r| vec![r.slot.clone(), r.node.clone(), r.epoch.to_string()]);
                print("leases", &rows, &["SLOT", "HOLDER", "EPOCH"], lines, args, io)
            }
        }
    }
}

fn print<T: Serialize>(
    what: &str,
    rows: &[T],
    headers: &[&'static str],
    lines: impl Iterator<Item = Vec<String>>,
    args: &GetArgs,
    io: &mut Io<'_>,
) -> Result<Exit, CliError> {
    let lines: Vec<Vec<String>> = lines.collect();
    let names = lines.iter().filter_map(|line| line.first().map(|name| format!("{name}\n"))).collect();
    let colour = io.colour();
    let table = || {
        let mut table = Table::new(headers);
        lines.into_iter().for_each(|line| table.row(line));
        table.render_in(colour, args.no_headers)
    };
    listing::print(what, &serde_json::json!({ "items": rows }), names, table, args, io)
}

/// The newest set of voters, by node.
fn voters(nodes: &[NodeView]) -> Vec<VoterRow> {
    let known = nodes.iter().filter_map(|n| n.status.as_ref()?.voters.as_ref());
    let Some(newest) = known.max_by_key(|list| list.number) else { return Vec::new() };
    let mut rows: Vec<VoterRow> = newest
        .voters
        .iter()
        .map(|voter| {
            let node = nodes.iter().find(|n| n.node.name == voter.node);
            let id = node.and_then(|n| n.status.as_ref()).map(|s| s.voter_id.as_str());
            let lost = id.is_some_and(|id| !id.is_empty() && id != voter.id);
            VoterRow { node: voter.node.clone(), state: node.map(|n| n.state), id: voter.id.clone(), lost, set: newest.number }
        })
        .collect();
    rows.sort_by(|a, b| a.node.cmp(&b.node));
    rows
}

/// Leases of nodes that are heard: those of others are over. The higher epoch is the later word on a slot.
fn leases(nodes: &[NodeView]) -> Vec<LeaseRow> {
    let mut held: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut hold = |slot: String, epoch: u64, node: &str| {
        let later = held.get(&slot).is_none_or(|(known, _)| *known < epoch);
        if epoch > 0 && later {
            held.insert(slot, (epoch, node.to_owned()));
        }
    };
    for view in nodes.iter().filter(|n| n.state != NodeState::NotReady) {
        let node = view.node.name.as_str();
        for (app, seen) in view.status.iter().flat_map(|s| &s.apps) {
            hold(format!("app/{app}"), seen.leased, node);
            if let Some(vip) = &seen.vip {
                hold(format!("vip/{}", ip(&vip.address)), vip.leased, node);
            }
            for group in seen.ring.iter().flat_map(|r| &r.leased) {
                hold(format!("ring/{app}/{}", group.partitions), group.epoch, node);
            }
        }
    }
    held.into_iter().map(|(slot, (epoch, node))| LeaseRow { slot, node, epoch }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn view(name: &str, state: &str, status: Value) -> NodeView {
        let mut all = json!({ "node": name, "bootId": "b", "instance": "i", "assignment": null, "quorum": true, "apps": {} });
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), status) {
            all.extend(more);
        }
        let node = json!({ "name": name, "labels": {}, "addresses": {}, "bootId": "b", "agentVersion": "0", "registeredAt": null });
        serde_json::from_value(json!({ "node": node, "state": state, "heartbeatAgeMs": 1, "loadPercent": 1, "status": all }))
            .expect("a view")
    }

    fn app(leased: u64, more: Value) -> Value {
        let mut app = json!({ "uid": "u", "generation": 1, "seen": 1, "role": "Active", "state": "Running", "healthy": true, "holds": true, "leased": leased });
        if let (Some(app), Value::Object(more)) = (app.as_object_mut(), more) {
            app.extend(more);
        }
        app
    }

    #[test]
    fn the_newest_set_counts_and_a_lost_memory_is_named() {
        let list = |number: u64, nodes: &[&str]| {
            let voters: Vec<Value> = nodes.iter().map(|n| json!({ "node": n, "id": format!("id-{n}") })).collect();
            json!({ "number": number, "voters": voters })
        };
        let nodes = [
            view("n1", "Ready", json!({ "voterId": "id-n1", "voters": list(3, &["n1", "n2", "n4"]) })),
            view("n2", "Ready", json!({ "voterId": "other", "voters": list(1, &["n1"]) })),
        ];
        let rows: Vec<(String, Option<NodeState>, bool, u64)> =
            voters(&nodes).into_iter().map(|r| (r.node, r.state, r.lost, r.set)).collect();
        let expected = [
            ("n1".to_owned(), Some(NodeState::Ready), false, 3),
            ("n2".to_owned(), Some(NodeState::Ready), true, 3),
            ("n4".to_owned(), None, false, 3),
        ];
        assert_eq!(rows, expected);
        assert_eq!(voters(&[]), []);
    }

    #[test]
    fn leases_are_of_nodes_that_are_heard_and_the_higher_epoch_counts() {
        let ring = json!({ "ring": { "held": "0-3", "confirmed": "0-3", "leased": [{ "epoch": 5, "partitions": "0-3" }] } });
        let vip = json!({ "vip": { "address": "10.0.0.9/24", "present": true, "epoch": 4, "leased": 4 } });
        let nodes = [
            view("n1", "NotReady", json!({ "apps": { "db": app(9, json!({})) } })),
            view("n2", "Ready", json!({ "apps": { "db": app(8, json!({})), "cache": app(0, ring) } })),
            view("n3", "Ready", json!({ "apps": { "db": app(7, json!({})), "api": app(0, vip) } })),
        ];
        let rows: Vec<String> = leases(&nodes).into_iter().map(|r| format!("{} {} {}", r.slot, r.node, r.epoch)).collect();
        assert_eq!(rows, ["app/db n2 8", "ring/cache/0-3 n2 5", "vip/10.0.0.9 n3 4"]);
    }
}
