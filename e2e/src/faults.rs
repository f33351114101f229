//! Faults: cables, power, and machines that stand still.

use std::fs::{self, File};
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::NodeId;
use crate::net::{self, Link};
use crate::rootfs::Fill;

/// When a power cut took effect, by the host's wall clock (that of packet captures).
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// The order was given.
    pub started: SystemTime,
    /// The port had left the bridge: from here on not one frame of the node gets out.
    pub unplugged: SystemTime,
    /// The kernel had been told to kill.
    pub killed: SystemTime,
    /// No process was left.
    pub empty: SystemTime,
}

/// What the kernel does not remember about a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeMemo {
    pub(crate) link: Link,
}

impl Lab {
    /// Takes the link of a node down: the node sees that its carrier is lost.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`]; [`LabError::Failed`] when the port cannot be set.
    pub fn cut(&self, node: impl Into<NodeId>) -> Result<()> {
        self.set_link(self.check(node)?, Link::Cut)
    }

    /// Takes a node's port out of the bridge: the node still sees a carrier, but nothing arrives and nothing gets out.
    ///
    /// # Errors
    /// As [`Lab::cut`].
    pub fn drop_link(&self, node: impl Into<NodeId>) -> Result<()> {
        self.set_link(self.check(node)?, Link::Dropped)
    }

    /// Undoes [`Lab::cut`] and [`Lab::drop_link`].
    ///
    /// # Errors
    /// As [`Lab::cut`].
    pub fn heal(&self, node: impl Into<NodeId>) -> Result<()> {
        self.set_link(self.check(node)?, Link::Up)
    }

    /// A power cut: the port leaves the bridge, then every process of the node is killed, then its addresses go. The
    /// order matters: sockets of killed processes say goodbye, and a machine without power does not.
    ///
    /// # Errors
    /// [`LabError::NodeState`] when the node is off already.
    pub fn crash(&self, node: impl Into<NodeId>) -> Result<Crash> {
        let node = self.check(node)?;
        let _lock = self.lock_node(node)?;
        self.require_on(node)?;
        let started = SystemTime::now();
        net::unplug(&self.layout, &node.to_string())?;
        let unplugged = SystemTime::now();
        self.cgroups.kill_node(node)?;
        let killed = SystemTime::now();
        self.cgroups.wait_empty(node)?;
        let empty = SystemTime::now();
        net::remove_node(&self.layout, node)?;
        self.cgroups.remove_node(node)?;
        Ok(Crash { started, unplugged, killed, empty })
    }

    /// Switches a crashed node on again, with the same disk, and returns when its systemd answers. Whether the units
    /// are up as well is another question: they may wait for servers that are off. See [`Lab::wait_units`].
    ///
    /// # Errors
    /// [`LabError::NodeState`] when the node is on; [`LabError::Boot`] when it does not come up.
    pub fn boot(&self, node: impl Into<NodeId>) -> Result<()> {
        let node = self.check(node)?;
        let _lock = self.lock_node(node)?;
        if self.cgroups.is_populated(node) {
            return Err(LabError::NodeState { node, state: "on", fix: "there is nothing to boot".to_owned() });
        }
        // What a node leaves that switched itself off, or whose boot failed.
        net::remove_node(&self.layout, node)?;
        self.cgroups.remove_node(node)?;
        self.power_on(node, None)
    }

    /// Network, then systemd; the cable is as it was left.
    pub(crate) fn power_on(&self, node: NodeId, fill: Option<Fill<'_>>) -> Result<()> {
        net::create_node(&self.layout, node)?;
        net::set_port(&self.layout, &node.to_string(), self.memo(node)?.link)?;
        self.start_systemd(node, fill)?;
        self.wait_booted(node)
    }

    /// Freezes a whole node, as a hypervisor does: its port leaves the bridge, because the frozen node's kernel, which
    /// is the host's, would still answer on its addresses; then its processes stand still.
    ///
    /// # Errors
    /// [`LabError::NodeState`] when the node is off or paused already.
    pub fn pause(&self, node: impl Into<NodeId>) -> Result<()> {
        let node = self.check(node)?;
        let _lock = self.lock_node(node)?;
        self.require_on(node)?;
        if self.cgroups.is_frozen(node) {
            return Err(LabError::NodeState { node, state: "paused", fix: "there is nothing to pause".to_owned() });
        }
        net::unplug(&self.layout, &node.to_string())?;
        self.cgroups.freeze_node(node, true)
    }

    /// Thaws a paused node. The port comes back first, so that what the node does in its first moment is seen by the
    /// others; the price is some milliseconds in which the kernel answers for the node.
    ///
    /// # Errors
    /// [`LabError::NodeState`] when the node is not paused.
    pub fn resume(&self, node: impl Into<NodeId>) -> Result<()> {
        let node = self.check(node)?;
        let _lock = self.lock_node(node)?;
        if !self.cgroups.is_frozen(node) {
            return Err(LabError::NodeState { node, state: "not paused", fix: "there is nothing to resume".to_owned() });
        }
        net::set_port(&self.layout, &node.to_string(), self.memo(node)?.link)?;
        self.cgroups.freeze_node(node, false)
    }

    /// The state of a node's cable.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`]; [`LabError::Io`] when the lab's state cannot be read.
    pub fn link(&self, node: impl Into<NodeId>) -> Result<Link> {
        Ok(self.memo(self.check(node)?)?.link)
    }

    fn set_link(&self, node: NodeId, link: Link) -> Result<()> {
        let _lock = self.lock_node(node)?;
        // A node that is off has no port, a paused one stays outside; both get the cable as it is now when they return.
        if self.cgroups.is_populated(node) && !self.cgroups.is_frozen(node) {
            net::set_port(&self.layout, &node.to_string(), link)?;
        }
        let text = serde_json::to_vec(&NodeMemo { link }).map_err(io::Error::from);
        let path = self.layout.node_file(node, "json");
        text.and_then(|text| fs::write(&path, text)).context(|| format!("write {}", path.display()))
    }

    fn memo(&self, node: NodeId) -> Result<NodeMemo> {
        let path = self.layout.node_file(node, "json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NodeMemo::default()),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }

    fn require_on(&self, node: NodeId) -> Result<()> {
        if self.cgroups.is_populated(node) {
            return Ok(());
        }
        Err(LabError::NodeState { node, state: "off", fix: format!("'lab --name {} boot {node}' starts it", self.name()) })
    }

    /// One fault at a time per node; another waits.
    fn lock_node(&self, node: NodeId) -> Result<File> {
        let path = self.layout.node_file(node, "lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.context(|| format!("open {}", path.display()))?;
        file.lock().context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }
}
