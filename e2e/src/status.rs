//! What the lab looks like now.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::error::Result;
use crate::lab::Lab;
use crate::names::NodeId;
use crate::net::Link;

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Its systemd answers.
    On,
    /// It has processes, but its systemd does not answer yet.
    Booting,
    /// Frozen.
    Paused,
    /// Crashed, and not booted again.
    Off,
}

impl Power {
    /// `on`, `booting`, `paused` or `off`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Booting => "booting",
            Self::Paused => "paused",
            Self::Off => "off",
        }
    }
}

/// One node of a lab.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Which.
    pub node: String,
    /// Its address on the lab's network.
    pub addr: Ipv4Addr,
    /// Whether it runs.
    pub power: Power,
    /// Its cable.
    pub link: Link,
    /// The host's PID of its PID 1.
    pub pid: Option<u32>,
    /// Its present boot.
    pub boot_id: Option<String>,
    /// The lab's and the product's units it has, with systemd's word for the state of each.
    pub units: BTreeMap<String, String>,
}

/// The units a status looks at.
pub(crate) const UNITS: [&str; 4] = ["nats-server", "cluster-controller", "cluster-agent", "cluster-guard"];

impl Lab {
    /// The state of every node, in order.
    ///
    /// # Errors
    /// [`LabError::Io`](crate::LabError::Io) when the lab's state cannot be read.
    pub fn status(&self) -> Result<Vec<NodeStatus>> {
        self.on_all_nodes(|node| {
            let power = self.power(node)?;
            Ok(NodeStatus {
                node: node.to_string(),
                addr: node.addr(),
                power,
                link: self.link(node)?,
                pid: self.node_pid(node).ok(),
                boot_id: self.boot_id(node).ok(),
                units: if power == Power::On { self.units(node)? } else { BTreeMap::new() },
            })
        })
    }

    /// Whether a node runs.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`](crate::LabError::NoSuchNode).
    pub fn power(&self, node: impl Into<NodeId>) -> Result<Power> {
        let node = self.check(node)?;
        Ok(match () {
            () if !self.cgroups.is_populated(node) => Power::Off,
            () if self.cgroups.is_frozen(node) => Power::Paused,
            () if self.node_pid(node).is_err() => Power::Booting,
            () => Power::On,
        })
    }

    fn units(&self, node: NodeId) -> Result<BTreeMap<String, String>> {
        let shown = self.exec(node, ["systemctl", "show", "--property=LoadState,ActiveState"].iter().chain(&UNITS))?.ok()?;
        let states = shown.split("\n\n").map(|block| {
            let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            (value("LoadState") == Some("loaded")).then(|| value("ActiveState").unwrap_or("unknown").to_owned())
        });
        let named = UNITS.iter().zip(states);
        Ok(named.filter_map(|(unit, state)| Some(((*unit).to_owned(), state?))).collect())
    }

    /// What the nodes logged last, for the output of a failed test.
    #[must_use]
    pub fn diagnose(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            let units = UNITS.iter().flat_map(|unit| ["--unit", unit]);
            let journal = ["journalctl", "--no-pager", "--output=short-precise", "--lines=25"].into_iter().chain(units);
            let said = match self.exec(node, journal) {
                Ok(ran) => ran.stdout,
                Err(error) => format!("{}\n", error.chain()),
            };
            text.push_str(&format!("--- {node} of lab {}\n{said}", self.name()));
        }
        text
    }
}
