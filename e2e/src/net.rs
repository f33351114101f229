//! The lab's network: a bridge in a namespace of its own, and one cable (veth pair) to each node and to the client.
//!
//! Pairs are made directly between the namespaces: the host's own network never sees an interface of the lab.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Context, LabError, Result};
use crate::names::{CLIENT_ADDR, Layout, MAX_NODES, NETNS_DIR, NodeId, netns_path};
use crate::spawn::{in_netns, tool};

/// The bridge's name inside the switch's namespace.
pub(crate) const BRIDGE: &str = "br0";

/// The client's second address, in the sub-net of the manifests' VIPs.
const CLIENT_SERVICE_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

/// The state of a node's cable, as `cut`, `drop` and `heal` leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Plugged in.
    #[default]
    Up,
    /// The link is down; the node sees that its carrier is lost.
    Cut,
    /// The port left the bridge; the node still sees a carrier, but nothing arrives and nothing gets out.
    Dropped,
}

impl Link {
    /// `up`, `cut` or `dropped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
        }
    }
}

fn ip(ns: &str, args: &[&str]) -> Result<()> {
    tool("ip", ["-n", ns].iter().chain(args)).map(drop)
}

/// Adds a network namespace whose interfaces get their addresses at once: duplicate address detection would make every
/// IPv6 address wait a second or two.
fn add_ns(ns: &str, ipv6: bool) -> Result<()> {
    tool("ip", ["netns", "add", ns])?;
    in_netns(&netns_path(ns), || {
        let settings: &[(&str, &str)] = if ipv6 {
            &[("default/accept_dad", "0"), ("default/dad_transmits", "0"), ("all/accept_ra", "0"), ("default/accept_ra", "0")]
        } else {
            &[("all/disable_ipv6", "1"), ("default/disable_ipv6", "1")]
        };
        for (key, value) in settings {
            match fs::write(format!("/proc/sys/net/ipv6/conf/{key}"), value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("set net.ipv6.conf.{key} in {ns}"));
                }
                _ => {}
            }
        }
        Ok(())
    })?
}

/// Makes the switch. IPv6 is off in it: it must not answer anything by itself, not even on a port outside the bridge.
pub(crate) fn create_switch(layout: &Layout) -> Result<()> {
    let sw = layout.switch_ns();
    add_ns(&sw, false)?;
    ip(&sw, &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"])?;
    ip(&sw, &["link", "set", "dev", BRIDGE, "up"])
}

/// Makes the client's namespace and plugs it in.
pub(crate) fn create_client(layout: &Layout) -> Result<()> {
    create_host(layout, &layout.client_ns(), "client", [0x02, 0x63, 0x6c, 0, 0, 100], [(CLIENT_ADDR, 16), (CLIENT_SERVICE_ADDR, 24)])?;
    set_port(layout, "client", Link::Up)
}

/// Makes a node's namespace with its addresses. The port stays outside the bridge until [`set_port`].
pub(crate) fn create_node(layout: &Layout, node: NodeId) -> Result<()> {
    let addresses = [(node.addr(), 16), (node.service_addr(), 24)];
    create_host(layout, &layout.node_ns(node), &node.to_string(), node.mac(), addresses)
}

fn create_host(layout: &Layout, ns: &str, port: &str, mac: [u8; 6], addresses: [(Ipv4Addr, u8); 2]) -> Result<()> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    add_ns(ns, true)?;
    ip(ns, &["link", "add", "eth0", "address", &mac, "type", "veth", "peer", "name", port, "netns", &layout.switch_ns()])?;
    for (address, prefix) in addresses {
        ip(ns, &["address", "add", &format!("{address}/{prefix}"), "broadcast", "+", "dev", "eth0"])?;
    }
    ip(ns, &["link", "set", "dev", "lo", "up"])?;
    ip(ns, &["link", "set", "dev", "eth0", "up"])
}

/// Puts the switch's end of a cable in the given state.
pub(crate) fn set_port(layout: &Layout, port: &str, link: Link) -> Result<()> {
    let state: &[&str] = match link {
        Link::Up => &["master", BRIDGE, "up"],
        Link::Cut => &["down"],
        Link::Dropped => &["nomaster", "up"],
    };
    ip(&layout.switch_ns(), &[&["link", "set", "dev", port], state].concat())
}

/// Takes a port out of the bridge. When this returns the kernel has let go of it: not one more frame passes.
pub(crate) fn unplug(layout: &Layout, port: &str) -> Result<()> {
    ip(&layout.switch_ns(), &["link", "set", "dev", port, "nomaster"])
}

/// Removes a node's cable and namespace, and with it every address the node had.
///
/// The cable goes first and by name: a namespace lives on while anything still refers to it, a deleted pair does not.
pub(crate) fn remove_node(layout: &Layout, node: NodeId) -> Result<()> {
    let port = node.to_string();
    match ip(&layout.switch_ns(), &["link", "delete", "dev", &port]) {
        Err(LabError::Failed { stderr, .. }) if stderr.contains("Cannot find device") => {}
        other => other?,
    }
    remove_ns(&layout.node_ns(node)).map(drop)
}

fn remove_ns(ns: &str) -> Result<bool> {
    if !netns_path(ns).exists() {
        return Ok(false);
    }
    match tool("ip", ["netns", "delete", ns]) {
        Ok(_) => Ok(true),
        // A file of this name that is not mounted: left by an `ip netns add` that was killed half-way.
        Err(_) => fs::remove_file(netns_path(ns)).map(|()| true).context(|| format!("remove {}", netns_path(ns).display())),
    }
}

/// Removes every namespace a lab of this name can have, the switch last. Says how many there were.
pub(crate) fn destroy(layout: &Layout) -> Result<usize> {
    let mut names: Vec<String> = (1..=MAX_NODES).map(|n| layout.node_ns(n.into())).collect();
    names.extend([layout.client_ns(), layout.switch_ns()]);
    let count = names.iter().try_fold(0, |count, ns| Ok(count + usize::from(remove_ns(ns)?)))?;
    // `ip netns` turns its folder into a mount point at the first use. With the last namespace of the host gone it can go
    // too; where one is left, whoever it belongs to, the kernel refuses.
    if fs::read_dir(NETNS_DIR).is_ok_and(|mut names| names.next().is_none()) {
        let _in_use = nix::mount::umount(NETNS_DIR);
    }
    Ok(count)
}
