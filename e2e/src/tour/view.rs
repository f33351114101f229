//! What the cluster says of itself, by `clusterctl`, and what the processes say of themselves, by HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_schemas::api::{AppView, List, NodeState, NodeView, RingTable};
use cluster_schemas::assignment::Role;
use cluster_schemas::partition::PartitionSet;
use cluster_schemas::status::Instance;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::{CONTROLLER_PORT, NodeId};
use crate::status::Power;

/// A process that lives answers within a millisecond; one on a node without power never does.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);
/// Once connected: longer than a loaded machine keeps a process waiting.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// The demo program's answers are a few hundred bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// What the demo program says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// The node it runs on.
    pub node: String,
    /// The App it belongs to.
    pub app: Option<String>,
    /// Its process id, inside its node.
    pub pid: u32,
    /// When it started: with `pid` this tells one run from the next.
    pub started_at: String,
    /// The role its role file gives it.
    pub role: Option<Role>,
    /// The epoch of that role.
    pub epoch: Option<u64>,
    /// The partitions its partition file gives it.
    pub partitions: Option<PartitionSet>,
}

/// Asks the demo program behind `addr`. Call it on the client's side of the network ([`Lab::as_client`]).
///
/// # Errors
/// Whatever the network says, and an answer that is not the demo program's.
pub fn ask(addr: SocketAddr) -> io::Result<Said> {
    let mut stream = TcpStream::connect_timeout(&addr, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

/// Asks the demo program on a port of each of these nodes; nodes that do not answer are missing.
///
/// # Errors
/// [`LabError`] when the client's namespace cannot be entered.
pub fn ask_nodes(lab: &Lab, nodes: &[NodeId], port: u16) -> Result<BTreeMap<NodeId, Said>> {
    lab.as_client(|| nodes.iter().filter_map(|node| Some((*node, ask((node.service_addr(), port).into()).ok()?))).collect())
}

/// Runs `clusterctl` as the outside client. Controllers that live are asked first, so that no time is lost with the dead.
///
/// # Errors
/// [`LabError::Failed`] with what it wrote to standard error.
pub fn clusterctl(lab: &Lab, args: &[&str]) -> Result<String> {
    let (mut servers, mut off) = (Vec::new(), Vec::new());
    for &node in lab.servers() {
        let url = format!("http://{}:{CONTROLLER_PORT}", node.addr());
        if lab.power(node)? == Power::On { servers.push(url) } else { off.push(url) }
    }
    servers.append(&mut off);
    let mut command = vec!["clusterctl".to_owned(), "--server".to_owned(), servers.join(",")];
    command.extend(args.iter().map(|&arg| arg.to_owned()));
    lab.client(command)?.ok()
}

fn read<T: DeserializeOwned>(lab: &Lab, args: &[&str]) -> Result<T> {
    let text = clusterctl(lab, args)?;
    serde_json::from_str(&text).map_err(|error| LabError::Invalid(format!("clusterctl {}: {error}", args.join(" "))))
}

/// The Apps by name.
///
/// # Errors
/// As [`clusterctl`].
pub fn apps(lab: &Lab) -> Result<BTreeMap<String, AppView>> {
    let list: List<AppView> = read(lab, &["get", "apps", "-o", "json"])?;
    Ok(list.items.into_iter().map(|app| (app.metadata.name.clone(), app)).collect())
}

/// The active instance of a Singleton, if its status tells of exactly one.
///
/// # Errors
/// As [`clusterctl`].
pub fn active(lab: &Lab, app: &str) -> Result<Option<Instance>> {
    let status = apps(lab)?.remove(app).and_then(|app| app.status);
    let mut active = status.into_iter().flat_map(|status| status.instances).filter(|instance| instance.role == Role::Active);
    Ok(active.next().filter(|_| active.next().is_none()))
}

/// All of `names` are there and Ready.
///
/// # Errors
/// What each App says instead, for a wait.
pub fn all_ready(lab: &Lab, names: &[&str]) -> Result<(), String> {
    let apps = apps(lab).map_err(|error| error.chain())?;
    let word = |name: &str| match apps.get(name).map(|app| app.status.as_ref()) {
        None => Some(format!("{name} does not exist")),
        Some(None) => Some(format!("{name} has no status yet")),
        Some(Some(status)) if !status.is_ready() => {
            let why = status.condition("Ready").map_or("", |condition| condition.message.as_str());
            Some(format!("{name} is {}: {why}", status.ready))
        }
        Some(Some(_)) => None,
    };
    let missing: Vec<String> = names.iter().filter_map(|name| word(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

/// The nodes whose state is Ready.
///
/// # Errors
/// As [`clusterctl`].
pub fn ready_nodes(lab: &Lab) -> Result<BTreeSet<String>> {
    let list: List<NodeView> = read(lab, &["get", "nodes", "-o", "json"])?;
    Ok(list.items.into_iter().filter(|view| view.state == NodeState::Ready).map(|view| view.node.name).collect())
}

/// Every node of the lab is Ready.
///
/// # Errors
/// Which are, for a wait.
pub fn all_nodes_ready(lab: &Lab) -> Result<(), String> {
    let ready = ready_nodes(lab).map_err(|error| error.chain())?;
    let all: BTreeSet<String> = lab.nodes().map(|node| node.to_string()).collect();
    if ready == all { Ok(()) } else { Err(format!("Ready are {}", listed(&ready))) }
}

/// The table of a ring's owners, as the controllers have it.
///
/// # Errors
/// As [`clusterctl`].
pub fn ring(lab: &Lab, app: &str) -> Result<RingTable> {
    read(lab, &["ring", "show", app, "-o", "json"])
}

/// Every partition of the table has an owner among `live`, and every owner has confirmed all of its own.
///
/// # Errors
/// What is missing, for a wait.
pub fn confirmed_by(table: &RingTable, live: &BTreeSet<String>) -> Result<(), String> {
    let dead: Vec<&str> = table.owners.iter().map(|owner| owner.node.as_str()).filter(|node| !live.contains(*node)).collect();
    let confirmed: usize = table.owners.iter().map(|owner| owner.confirmed.len()).sum();
    if !dead.is_empty() {
        return Err(format!("{} still owns partitions", dead.join(", ")));
    }
    if !table.unowned.is_empty() || confirmed != usize::from(table.partitions) {
        return Err(format!("{confirmed} of {} partitions are confirmed, {} have no owner", table.partitions, table.unowned.len()));
    }
    Ok(())
}

/// The processes of a ring, asked one by one, have every partition once.
///
/// # Errors
/// Which partitions nobody or more than one says to have, for a wait.
pub fn covered(said: &BTreeMap<NodeId, Said>, partitions: u16) -> Result<(), String> {
    let mut seen = PartitionSet::new();
    for (node, process) in said {
        let own = process.partitions.clone().unwrap_or_default();
        if !seen.is_disjoint(&own) {
            return Err(format!("{node} has partitions {} that another process has as well", seen.intersection(&own)));
        }
        seen = seen.union(&own);
    }
    let missing = PartitionSet::all(partitions).difference(&seen);
    if missing.is_empty() { Ok(()) } else { Err(format!("no process has partitions {missing}")) }
}

/// `n1, n2 and n3`.
#[must_use]
pub fn listed<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    let mut words: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    match words.pop() {
        None => "none".to_owned(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::api::RingOwner;

    fn said(node: u8, partitions: &str) -> (NodeId, Said) {
        let text = format!(
            r#"{{"node":"n{node}","app":"cache","pid":7,"startedAt":"-","role":"Member","epoch":1,"partitions":"{partitions}","reloads":0}}"#
        );
        (NodeId::from(node), serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn processes_cover_a_ring_only_if_each_partition_is_had_once() {
        let covered = |parts: &[(NodeId, Said)]| covered(&parts.iter().cloned().collect(), 4);
        assert_eq!(covered(&[said(1, "0-1"), said(2, "2-3")]), Ok(()));
        assert!(covered(&[said(1, "0-2"), said(2, "2-3")]).unwrap_err().contains("n2 has partitions 2 "));
        assert!(covered(&[said(1, "0-1")]).unwrap_err().contains("2-3"));
    }

    #[test]
    fn a_table_counts_when_live_nodes_confirmed_all_of_it() {
        let set = |text: &str| text.parse::<PartitionSet>().unwrap();
        let owner = |node: &str, confirmed: &str| RingOwner {
            node: node.into(),
            partitions: set("0-1"),
            confirmed: set(confirmed),
            ..RingOwner::default()
        };
        let live = BTreeSet::from(["n2".to_owned()]);
        let table = |owner| RingTable { partitions: 2, owners: vec![owner], ..RingTable::default() };
        assert_eq!(confirmed_by(&table(owner("n2", "0-1")), &live), Ok(()));
        assert!(confirmed_by(&table(owner("n1", "0-1")), &live).unwrap_err().contains("n1 still owns"));
        assert!(confirmed_by(&table(owner("n2", "0")), &live).unwrap_err().contains("1 of 2"));
        let holes = RingTable { unowned: set("0"), ..table(owner("n2", "0-1")) };
        assert!(confirmed_by(&holes, &live).is_err());
    }

    #[test]
    fn names_are_listed_as_people_do() {
        let lists = [listed([""; 0]), listed(["n1"]), listed(["n1", "n2", "n3"])];
        assert_eq!(lists, ["none", "n1", "n1, n2 and n3"]);
    }
}
