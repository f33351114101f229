//! Names, addresses and paths: everything that follows from a lab's name and a node's number.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// The largest number of nodes in a lab; one digit keeps names and addresses plain.
pub const MAX_NODES: u8 = 9;

/// How many nodes at most run a NATS server and a controller.
pub const MAX_SERVERS: u8 = 3;

/// The outside client's address on the lab's network.
pub const CLIENT_ADDR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);

/// Where NATS clients connect.
pub const NATS_PORT: u16 = 4222;

/// Where a NATS server tells about itself over HTTP.
pub const NATS_MONITOR_PORT: u16 = 8222;

/// Where a controller serves its API.
pub const CONTROLLER_PORT: u16 = 7070;

/// A node of a lab, `n1` to `n9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u8);

impl NodeId {
    /// The node's number, from 1.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The node's address on the lab's network, `10.99.0.1K/16`.
    #[must_use]
    pub fn addr(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 10 + self.0)
    }

    /// The node's address in the sub-net of the manifests' VIPs, `10.0.0.1K/24`.
    #[must_use]
    pub fn service_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, 10 + self.0)
    }

    /// The hardware address of the node's `eth0`. It stays the same over a reboot, as a real card's does: a new one
    /// would leave the others with stale neighbour entries and slow every rejoin.
    #[must_use]
    pub fn mac(self) -> [u8; 6] {
        [0x02, 0x63, 0x6c, 0, 0, self.0]
    }

    /// The zone label of the node: z1, z2, z3, z1, ...
    #[must_use]
    pub fn zone(self) -> String {
        format!("z{}", (self.0 - 1) % 3 + 1)
    }
}

impl From<u8> for NodeId {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl From<&NodeId> for NodeId {
    fn from(node: &NodeId) -> Self {
        *node
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix('n').unwrap_or(text).parse() {
            Ok(number) if (1..=MAX_NODES).contains(&number) => Ok(Self(number)),
            _ => Err(LabError::Invalid(format!("'{text}' is not a node; nodes are n1 to n{MAX_NODES}"))),
        }
    }
}

/// The longest lab name; names of namespaces, cgroups and machines are made from it.
const MAX_NAME: usize = 32;

/// Where the things of one lab are: all paths and kernel names derive from its name, so two labs never meet.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) name: String,
    base: PathBuf,
}

impl Layout {
    /// Runtime state lives under `$CLUSTERCTL_LAB_DIR`, by default under `/run`: a reboot of the host clears it together
    /// with the namespaces it describes.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(label) || name.starts_with('-') || name.ends_with('-') {
            return Err(LabError::Invalid(format!("'{name}' is no lab name: use 1 to {MAX_NAME} of a-z, 0-9 and '-', not at the ends")));
        }
        let base = std::env::var_os("CLUSTERCTL_LAB_DIR").map_or_else(|| PathBuf::from("/run/clusterctl-lab"), PathBuf::from);
        Ok(Self { name: name.to_owned(), base })
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.base.join(format!("{}.lock", self.name))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.state().join("lab.json")
    }

    pub(crate) fn node_file(&self, node: NodeId, extension: &str) -> PathBuf {
        self.state().join(format!("{node}.{extension}"))
    }

    pub(crate) fn client_dir(&self) -> PathBuf {
        self.state().join("client")
    }

    /// The folder for the nodes' disks unless another is asked for. `/var/tmp` is on a disk on Debian: fsync costs
    /// there what it costs in production.
    pub(crate) fn default_data(&self) -> PathBuf {
        Path::new(DATA_ROOT).join(&self.name)
    }

    pub(crate) fn switch_ns(&self) -> String {
        format!("{}-sw", self.name)
    }

    pub(crate) fn client_ns(&self) -> String {
        format!("{}-client", self.name)
    }

    pub(crate) fn node_ns(&self, node: NodeId) -> String {
        format!("{}-{node}", self.name)
    }
}

/// See [`Layout::default_data`].
pub(crate) const DATA_ROOT: &str = "/var/tmp/clusterctl-lab";

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The file through which `ip netns` names a network namespace.
pub(crate) fn netns_path(ns: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_parse_and_print() {
        let node: NodeId = "n3".parse().unwrap();
        assert_eq!((node.to_string().as_str(), node.number()), ("n3", 3));
        assert_eq!("3".parse::<NodeId>().unwrap(), node);
        assert_eq!(node.addr(), Ipv4Addr::new(10, 99, 0, 13));
        for bad in ["", "n", "n0", "n10", "x1", "nn1", "-1"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lab_names_are_labels() {
        for bad in ["", "-a", "a-", "A", "a/b", "a.b", "a b", &"x".repeat(MAX_NAME + 1)] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
        let (one, two) = (Layout::new("lab").unwrap(), Layout::new("lab2").unwrap());
        assert_ne!(one.node_ns(NodeId(1)), two.node_ns(NodeId(1)));
        assert_ne!(one.default_data(), two.default_data());
    }

    #[test]
    fn zones_go_round() {
        let zones: Vec<String> = (1..=4).map(|n| NodeId(n).zone()).collect();
        assert_eq!(zones, ["z1", "z2", "z3", "z1"]);
    }
}
