//! The network between the nodes, as far as VIPs are concerned: who has which address. Two nodes may believe that they have one, as on a
//! real link; packets go to who took it last.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_agent::drivers::{Held, HeldVip, VipError, Vips};
use cluster_schemas::app::VipSpec;
use tokio::sync::watch;

/// The switch that all nodes are connected to.
#[derive(Debug)]
pub struct Switch {
    /// What VIPs are here: an address that begins with these two bytes.
    prefix: [u8; 2],
    held: Mutex<BTreeMap<IpAddr, Vec<Holding>>>,
    changes: watch::Sender<u64>,
}

/// A node that has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holding {
    node: String,
    interface: String,
    until: Instant,
}

impl Switch {
    /// Nobody has anything. VIPs are mapped to addresses that begin with `prefix`.
    #[must_use]
    pub fn new(prefix: [u8; 2]) -> Arc<Self> {
        Arc::new(Self { prefix, held: Mutex::default(), changes: watch::Sender::new(0) })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Vec<Holding>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loopback address by which a VIP is reached on this machine: the switch's prefix, and the VIP's last two bytes.
    #[must_use]
    pub fn local(&self, vip: IpAddr) -> Ipv4Addr {
        let [a, b] = self.prefix;
        let (c, d) = match vip {
            IpAddr::V4(v4) => (v4.octets()[2], v4.octets()[3]),
            IpAddr::V6(v6) => (v6.octets()[14], v6.octets()[15]),
        };
        Ipv4Addr::new(a, b, c, d)
    }

    /// Rises whenever who has an address changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Who has each address now; the last that took it.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<IpAddr, String> {
        let now = Instant::now();
        let mut held = self.held();
        let before = held.values().map(Vec::len).sum::<usize>();
        held.retain(|_, all| {
            all.retain(|holding| holding.until > now);
            !all.is_empty()
        });
        let after = held.values().map(Vec::len).sum::<usize>();
        let holders = held.iter().filter_map(|(vip, all)| Some((*vip, all.last()?.node.clone()))).collect();
        drop(held);
        if before != after {
            self.changes.send_modify(|n| *n += 1);
        }
        holders
    }

    /// Puts the address on the node, for `valid`.
    ///
    /// # Errors
    /// [`VipError::BadAddress`] where another VIP has the same local address.
    pub fn hold(&self, node: &str, interface: &str, vip: IpAddr, valid: Duration) -> Result<Held, VipError> {
        let now = Instant::now();
        let mut held = self.held();
        if held.keys().any(|other| *other != vip && self.local(*other) == self.local(vip)) {
            let reason = "another VIP ends in the same two bytes: on the nodes of clusterctl dev both would be one";
            return Err(VipError::BadAddress { address: vip.to_string(), reason });
        }
        let all = held.entry(vip).or_default();
        if let Some(holding) = all.iter_mut().find(|h| h.node == node && h.until > now) {
            holding.until = now + valid;
            return Ok(Held::Refreshed);
        }
        all.retain(|h| h.node != node);
        all.push(Holding { node: node.to_owned(), interface: interface.to_owned(), until: now + valid });
        drop(held);
        self.changes.send_modify(|n| *n += 1);
        Ok(Held::Fresh)
    }

    /// Takes the address from the node; true if it was there.
    pub fn release(&self, node: &str, vip: IpAddr) -> bool {
        self.release_where(|address, holder| *address == vip && holder == node)
    }

    /// Takes all addresses from the node.
    pub fn release_all(&self, node: &str) {
        self.release_where(|_, holder| holder == node);
    }

    fn release_where(&self, goes: impl Fn(&IpAddr, &str) -> bool) -> bool {
        let mut any = false;
        self.held().retain(|address, all| {
            all.retain(|h| {
                let gone = goes(address, &h.node);
                any |= gone;
                !gone
            });
            !all.is_empty()
        });
        if any {
            self.changes.send_modify(|n| *n += 1);
        }
        any
    }

    fn of(&self, node: &str) -> Vec<HeldVip> {
        let now = Instant::now();
        let held = self.held();
        let mine = held.iter().flat_map(|(vip, all)| all.iter().map(move |h| (vip, h))).filter(|(_, h)| h.node == node && h.until > now);
        mine.map(|(vip, h)| HeldVip {
            address: *vip,
            prefix: if vip.is_ipv4() { 32 } else { 128 },
            interface: h.interface.clone(),
            valid: Some(h.until - now),
        })
        .collect()
    }
}

/// The driver of one node.
#[derive(Debug)]
pub struct Port {
    /// Where it is connected.
    pub switch: Arc<Switch>,
    /// The node.
    pub node: String,
}

fn address(vip: &VipSpec) -> Result<IpAddr, VipError> {
    vip.ip().parse().map_err(|_| VipError::BadAddress { address: vip.address.clone(), reason: "is no address" })
}

impl Vips for Port {
    async fn hold(&self, vip: &VipSpec, valid: Duration) -> Result<Held, VipError> {
        self.switch.hold(&self.node, &vip.interface, address(vip)?, valid)
    }

    async fn release(&self, vip: &VipSpec) -> Result<(), VipError> {
        if let Ok(address) = address(vip) {
            self.switch.release(&self.node, address);
        }
        Ok(())
    }

    /// The switch knows already.
    async fn announce(&self, _vip: &VipSpec) -> Result<(), VipError> {
        Ok(())
    }

    async fn ours(&self) -> Result<Vec<HeldVip>, VipError> {
        Ok(self.switch.of(&self.node))
    }

    async fn present(&self, vip: &VipSpec) -> Result<bool, VipError> {
        let address = address(vip)?;
        Ok(self.switch.of(&self.node).iter().any(|held| held.address == address))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.switch.changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_that_took_it_has_it_until_it_goes() {
        let switch = Switch::new([127, 78]);
        let vip: IpAddr = "10.0.1.100".parse().expect("an address");
        assert_eq!(switch.local(vip), Ipv4Addr::new(127, 78, 1, 100));
        assert_eq!(switch.hold("n1", "eth0", vip, VALID).expect("held"), Held::Fresh);
        assert_eq!(switch.hold("n1", "eth0", vip, VALID).expect("held"), Held::Refreshed);
        assert_eq!(switch.hold("n2", "eth0", vip, VALID).expect("held"), Held::Fresh);
        // A refresh takes nothing back.
        assert_eq!(switch.hold("n1", "eth0", vip, VALID).expect("held"), Held::Refreshed);
        assert_eq!(switch.holders()[&vip], "n2");
        assert!(switch.release("n2", vip) && !switch.release("n2", vip));
        assert_eq!(switch.holders()[&vip], "n1");
        switch.hold("n1", "eth0", vip, Duration::ZERO).expect("held");
        assert!(switch.holders().is_empty(), "it ran out");
    }

    #[test]
    fn two_vips_with_one_local_address_are_refused() {
        let switch = Switch::new([127, 78]);
        let [one, other] = ["10.0.0.100", "fd00::64"].map(|text| text.parse::<IpAddr>().expect("an address"));
        switch.hold("n1", "eth0", one, VALID).expect("held");
        assert!(matches!(switch.hold("n2", "eth0", other, VALID), Err(VipError::BadAddress { .. })));
    }
}
