//! VIPs as addresses of the kernel, over rtnetlink.
//!
//! # How a VIP sits on its interface
//! - It carries a mark ([`OUR_PROTOCOL`], the kernel's IFA_PROTO, Linux 5.18). What has no such mark is somebody else's and never touched.
//! - It has a lifetime: when nobody refreshes it, the kernel removes it (rule F7).
//! - IPv4: always a host address (`/32`), whatever prefix length the App gives. With the given length the kernel would make
//!   it *primary* or *secondary* of its subnet, depending on which address came first: a VIP that came before the node's own
//!   address would become the source of the node's connections, and by default removing a primary removes its secondaries. A host
//!   address is independent of all others. Neighbours do not see the difference (except under `arp_ignore=2`).
//! - IPv4: where no other address of the interface covers the VIP's network, a route to that network is added, with the VIP as its
//!   preferred source and a high metric. So it goes with the VIP (the kernel sees to that), and an own address that comes later wins.
//! - IPv6: with the given prefix length, without duplicate address detection, and deprecated, so that the node's own
//!   connections do not use it.

mod kernel;
mod monitor;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_schemas::app::VipSpec;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::kernel::{Address, FOREVER, Kernel, Link, mask};
use super::arp::Announcer;
use super::vips::{Held, HeldVip, VipError, Vips};

pub use self::kernel::OUR_PROTOCOL;

/// When the later announcements of a burst go out, counted from the first.
const BURST: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// Most bursts under way; beyond it an announcement consists of its first frames.
const BURSTS_MAX: usize = 256;

/// The driver for VIPs of a real node. Needs CAP_NET_ADMIN and CAP_NET_RAW.
#[derive(Debug)]
pub struct Netlink {
    kernel: Arc<Kernel>,
    changes: watch::Sender<u64>,
    /// Bursts under way, by address, so that a release ends them.
    bursts: Mutex<BTreeMap<IpAddr, AbortHandle>>,
    /// Aborted when the driver is dropped.
    _monitor: JoinSet<()>,
}

impl Default for Netlink {
    fn default() -> Self {
        Self::new()
    }
}

impl Netlink {
    /// Works in the network namespace of the process. To be called within a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        let changes = watch::Sender::new(0);
        let mut monitor = JoinSet::new();
        monitor.spawn(monitor::run(changes.clone()));
        Self { kernel: Arc::default(), changes, bursts: Mutex::default(), _monitor: monitor }
    }

    /// The interface, if it is there and carries packets.
    async fn usable_link(&self, interface: &str) -> Result<Link, VipError> {
        let link = self
            .kernel
            .link_by_name(interface)
            .await
            .map_err(refused(|| format!("look up interface {interface}")))?
            .ok_or_else(|| VipError::InterfaceMissing { interface: interface.to_owned() })?;
        let reason = match (link.up, link.carrier) {
            (true, true) => return Ok(link),
            (false, _) => "it is switched off",
            (true, false) => "it has no carrier",
        };
        Err(VipError::InterfaceDown { interface: interface.to_owned(), reason })
    }

    async fn addresses(&self) -> Result<Vec<Address>, VipError> {
        self.kernel.addresses().await.map_err(refused(|| "read addresses".to_owned()))
    }

    /// Our address for this VIP, if it is on its interface.
    async fn find(&self, vip: &VipSpec) -> Result<Option<Address>, VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.kernel.link_by_name(&vip.interface).await;
        let Some(link) = link.map_err(refused(|| format!("look up interface {}", vip.interface)))? else { return Ok(None) };
        Ok(self.addresses().await?.into_iter().find(|address| address.ours && address.ip == wanted.ip && address.index == link.index))
    }

    async fn put(&self, wanted: &Wanted, link: &Link, valid: u32) -> Result<Held, VipError> {
        let present = self.addresses().await?;
        if let Some(foreign) = present.iter().find(|address| address.ip == wanted.ip && !address.ours) {
            return Err(self.in_use(foreign, link).await);
        }
        let ours = present.iter().find(|address| address.ip == wanted.ip && address.index == link.index);
        let held = match ours {
            Some(ours) if ours.prefix == wanted.prefix => self.refresh(wanted, link, valid, ours).await?,
            Some(other_length) => {
                self.kernel.delete(other_length).await.map_err(refused(|| format!("remove {}/{}", wanted.ip, other_length.prefix)))?;
                self.put_fresh(wanted, link, valid).await?
            }
            None => self.put_fresh(wanted, link, valid).await?,
        };
        if let Some((ip, prefix)) = wanted.network
            && !present.iter().any(|address| !address.ours && address.index == link.index && covers(address, ip))
        {
            let action = || format!("add the route to the network of {}/{prefix} on {}", wanted.ip, link.name);
            self.kernel.add_route(link.index, ip, prefix).await.map_err(refused(action))?;
        }
        Ok(held)
    }

    async fn refresh(&self, wanted: &Wanted, link: &Link, valid: u32, seen: &Address) -> Result<Held, VipError> {
        let action = || format!("refresh {} on {}", wanted.ip, link.name);
        self.kernel.add(link.index, wanted.ip, wanted.prefix, valid, true).await.map_err(refused(action))?;
        // Close to its end the address may have gone between the look and the refresh, which then put a new one there.
        if seen.valid <= 1 {
            let now = self.addresses().await?;
            let same = now.iter().any(|now| now.ip == seen.ip && now.index == seen.index && now.created == seen.created);
            if !same {
                return Ok(Held::Fresh);
            }
        }
        Ok(Held::Refreshed)
    }

    async fn put_fresh(&self, wanted: &Wanted, link: &Link, valid: u32) -> Result<Held, VipError> {
        let action = || format!("put {} on {}", wanted.ip, link.name);
        self.kernel.add(link.index, wanted.ip, wanted.prefix, valid, false).await.map_err(refused(action))?;
        let now = self.addresses().await?;
        match now.iter().find(|address| address.ip == wanted.ip && address.index == link.index) {
            // An old kernel drops the mark without a word; the address could then never be told from somebody else's.
            Some(unmarked) if !unmarked.ours => {
                self.kernel.delete(unmarked).await.map_err(refused(action))?;
                Err(VipError::Unsupported { what: "this kernel does not keep the protocol of addresses: Linux 5.18 is needed" })
            }
            _ => Ok(Held::Fresh),
        }
    }

    async fn in_use(&self, foreign: &Address, asked: &Link) -> VipError {
        let name = if foreign.index == asked.index {
            asked.name.clone()
        } else {
            let other = self.kernel.link_by_index(foreign.index).await.ok().flatten();
            other.map_or_else(|| format!("with index {}", foreign.index), |other| other.name)
        };
        VipError::AddressInUseByHand { address: foreign.ip, interface: name }
    }

    fn end_burst(&self, ip: IpAddr) {
        if let Some(burst) = self.bursts().remove(&ip) {
            burst.abort();
        }
    }

    fn bursts(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, AbortHandle>> {
        self.bursts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the later frames of a burst, while the address is still here.
    fn start_burst(&self, announcer: Announcer, ip: Ipv4Addr, index: u32) {
        let kernel = Arc::clone(&self.kernel);
        let mut bursts = self.bursts();
        bursts.retain(|_, burst| !burst.is_finished());
        if bursts.len() >= BURSTS_MAX {
            return;
        }
        let task = tokio::spawn(async move {
            let start = tokio::time::Instant::now();
            for at in BURST {
                tokio::time::sleep_until(start + at).await;
                let here = kernel.addresses().await.is_ok_and(|all| all.iter().any(|a| a.ours && a.ip == ip && a.index == index));
                if !here {
                    return;
                }
                if let Err(error) = announcer.announce(ip) {
                    tracing::debug!(%error, %ip, "a later announcement was not sent");
                }
            }
        });
        if let Some(earlier) = bursts.insert(IpAddr::V4(ip), task.abort_handle()) {
            earlier.abort();
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        for burst in self.bursts().values() {
            burst.abort();
        }
    }
}

impl Vips for Netlink {
    async fn hold(&self, vip: &VipSpec, valid: Duration) -> Result<Held, VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.usable_link(&vip.interface).await?;
        match self.put(&wanted, &link, whole_seconds(valid)).await {
            // Somebody put the same address there between the look and the attempt: a second look tells who.
            Err(VipError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                self.put(&wanted, &link, whole_seconds(valid)).await
            }
            other => other,
        }
    }

    async fn release(&self, vip: &VipSpec) -> Result<(), VipError> {
        self.end_burst(Wanted::of(vip)?.ip);
        // A second look, because one that runs while others change addresses may miss some.
        for _ in 0..2 {
            if let Some(ours) = self.find(vip).await? {
                self.kernel.delete(&ours).await.map_err(refused(|| format!("remove {} from {}", ours.ip, vip.interface)))?;
            }
        }
        if self.find(vip).await?.is_some() {
            let source = io::Error::new(io::ErrorKind::ResourceBusy, "it is put back by somebody");
            return Err(VipError::Kernel { action: format!("remove {} from {}", vip.address, vip.interface), source });
        }
        Ok(())
    }

    async fn announce(&self, vip: &VipSpec) -> Result<(), VipError> {
        let IpAddr::V4(ip) = Wanted::of(vip)?.ip else {
            return Err(VipError::Unsupported { what: "IPv6 addresses cannot be announced yet" });
        };
        let link = self.usable_link(&vip.interface).await?;
        let action = || format!("announce {ip} on {}", link.name);
        let Some(announcer) = Announcer::open(link.index).map_err(refused(action))? else { return Ok(()) };
        announcer.announce(ip).map_err(refused(action))?;
        self.start_burst(announcer, ip, link.index);
        Ok(())
    }

    async fn ours(&self) -> Result<Vec<HeldVip>, VipError> {
        let mut held = Vec::new();
        for address in self.addresses().await?.into_iter().filter(|address| address.ours) {
            let link = self.kernel.link_by_index(address.index).await;
            // An interface that went meanwhile took its addresses with it.
            let Some(link) = link.map_err(refused(|| "look up an interface".to_owned()))? else { continue };
            let valid = (address.valid != FOREVER).then(|| Duration::from_secs(u64::from(address.valid)));
            held.push(HeldVip { address: address.ip, prefix: address.prefix, interface: link.name, valid });
        }
        held.sort();
        Ok(held)
    }

    async fn present(&self, vip: &VipSpec) -> Result<bool, VipError> {
        Ok(self.find(vip).await?.is_some())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// What is to be put on the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    ip: IpAddr,
    prefix: u8,
    /// IPv4: the network that the App's prefix length names, unless it is the address alone.
    network: Option<(Ipv4Addr, u8)>,
}

impl Wanted {
    fn of(vip: &VipSpec) -> Result<Self, VipError> {
        let bad = |reason| VipError::BadAddress { address: vip.address.clone(), reason };
        let (ip, length) = vip.address.split_once('/').ok_or_else(|| bad("has no prefix length, such as /24"))?;
        let ip: IpAddr = ip.parse().map_err(|_| bad("is no IP address"))?;
        let length: u8 = length.parse().map_err(|_| bad("has a prefix length that is no number"))?;
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(bad("is no address of a single machine"));
        }
        match ip {
            IpAddr::V4(_) if !(1..=32).contains(&length) => Err(bad("has a prefix length that is not 1 to 32")),
            IpAddr::V4(v4) => Ok(Self { ip, prefix: 32, network: (length < 32).then_some((v4, length)) }),
            IpAddr::V6(_) if !(1..=128).contains(&length) => Err(bad("has a prefix length that is not 1 to 128")),
            IpAddr::V6(_) => Ok(Self { ip, prefix: length, network: None }),
        }
    }
}

/// Whether the network of an interface's address has `ip` in it. Host addresses have no network.
const fn covers(address: &Address, ip: Ipv4Addr) -> bool {
    match address.ip {
        IpAddr::V4(own) => address.prefix < 32 && (own.to_bits() ^ ip.to_bits()) & mask(address.prefix) == 0,
        IpAddr::V6(_) => false,
    }
}

/// Rounded up, at least one, and never the kernel's "for ever".
fn whole_seconds(valid: Duration) -> u32 {
    let seconds = valid.as_secs() + u64::from(valid.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(FOREVER).clamp(1, FOREVER - 1)
}

fn refused(action: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> VipError {
    |source| VipError::Kernel { action: action(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(address: &str) -> VipSpec {
        VipSpec { address: address.to_owned(), interface: "eth0".to_owned() }
    }

    #[test]
    fn ipv4_is_a_host_address_and_ipv6_keeps_its_length() {
        let wanted = Wanted::of(&vip("10.0.0.100/24")).unwrap();
        assert_eq!((wanted.prefix, wanted.network), (32, Some((Ipv4Addr::new(10, 0, 0, 100), 24))));
        assert_eq!(Wanted::of(&vip("10.0.0.100/32")).unwrap().network, None);
        assert_eq!(Wanted::of(&vip("fd00::1/64")).unwrap().prefix, 64);
    }

    #[test]
    fn what_is_no_single_address_is_refused() {
        for bad in
            ["10.0.0.1", "10.0.0/24", "10.0.0.1/33", "10.0.0.1/0", "10.0.0.1/x", "::/64", "0.0.0.0/8", "224.0.0.1/4", "fd00::1/129", ""]
        {
            let error = Wanted::of(&vip(bad)).unwrap_err();
            assert!(matches!(error, VipError::BadAddress { .. }) && error.is_permanent(), "{bad}: {error}");
        }
    }

    #[test]
    fn lifetimes_are_rounded_up_and_never_for_ever() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(350)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
        assert_eq!(whole_seconds(Duration::MAX - Duration::from_secs(1)), FOREVER - 1);
    }

    #[test]
    fn only_an_address_with_a_network_around_the_vip_covers_it() {
        let own = |ip: &str, prefix| Address { index: 1, ip: ip.parse().unwrap(), prefix, ours: false, valid: FOREVER, created: 0 };
        let vip = Ipv4Addr::new(10, 0, 0, 100);
        assert!(covers(&own("10.0.0.1", 24), vip));
        assert!(covers(&own("10.9.9.9", 8), vip));
        assert!(!covers(&own("10.0.1.1", 24), vip));
        assert!(!covers(&own("10.0.0.100", 32), vip));
        assert!(!covers(&own("fd00::1", 64), vip));
    }
}
