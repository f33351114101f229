//! VIPs as addresses of the kernel, over rtnetlink.
//!
//! # How a VIP sits on its interface
//! - It carries a mark ([`OUR_PROTOCOL`], the kernel's IFA_PROTO, Linux 5.18). What has no such mark is somebody else's and never touched.
//! - It has a lifetime: when nobody refreshes it, the kernel removes it (rule F7).
//! - It is always a host address (`/32`, `/128`), whatever prefix length the App gives. An IPv4 address with the given length would be
//!   *primary* or *secondary* of its subnet, depending on which address came first: a VIP that came before the node's own
//!   address would become the source of the node's connections, and by default removing a primary removes its secondaries. An IPv6 address
//!   with the given length would share the kernel's route to its network with the node's own address. A host
//!   address is independent of all others. Neighbours do not see the difference (except under `arp_ignore=2`).
//! - Where no other address of the interface covers the VIP's network, a route to that network is added, with a high metric, so that an
//!   own address that comes later wins. IPv4: the VIP is its preferred source, so it goes with the VIP (the kernel sees to that). IPv6:
//!   the kernel does not, so it has a lifetime of its own.
//! - IPv6: without duplicate address detection, for a take-over must not wait; and deprecated, so that the node's own
//!   connections do not use it.
//!
//! # Tasks
//! | task | does |
//! |---|---|
//! | monitor | hears of changes of links and addresses; announces again what is held on a link that healed |
//! | conflicts | hears of other machines that claim what is held; reports and announces again |
//! | one per address | the later announcements of a row, while the address is here |

mod conflicts;
mod held;
mod kernel;
mod monitor;
mod wanted;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_schemas::app::VipSpec;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::held::Held as HeldAddresses;
use self::kernel::{Address, FOREVER, Kernel, Link, mask6};
use self::wanted::{Wanted, covers, same_network, whole_seconds};
use super::vips::{CONFLICTS_WAITING, Conflict, Held, HeldVip, VipError, Vips};

pub use self::kernel::OUR_PROTOCOL;

/// Our IPv6 routes are prolonged this often, and outlive the VIP by as much and half again where nobody removes them.
const ROUTE_REFRESH: Duration = Duration::from_secs(10);
const ROUTE_EXTRA_SECONDS: u32 = 15;

/// The driver for VIPs of a real node. Needs CAP_NET_ADMIN and CAP_NET_RAW.
#[derive(Debug)]
pub struct Netlink {
    held: Arc<HeldAddresses>,
    changes: watch::Sender<u64>,
    conflicts: broadcast::Sender<Conflict>,
    /// When our IPv6 routes were last prolonged, by interface and VIP: as many as addresses are held.
    routes: Mutex<BTreeMap<(u32, Ipv6Addr), Instant>>,
    /// Aborted when the driver is dropped.
    _tasks: JoinSet<()>,
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
        let (changes, conflicts) = (watch::Sender::new(0), broadcast::Sender::new(CONFLICTS_WAITING));
        let held = HeldAddresses::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(monitor::run(changes.clone(), Arc::clone(&held)));
        tasks.spawn(conflicts::watch(Arc::clone(&held), conflicts.clone()));
        Self { held, changes, conflicts, routes: Mutex::default(), _tasks: tasks }
    }

    fn kernel(&self) -> &Kernel {
        &self.held.kernel
    }

    /// The interface, if it is there and carries packets.
    async fn usable_link(&self, interface: &str) -> Result<Link, VipError> {
        let link = self
            .kernel()
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
        self.kernel().addresses().await.map_err(refused(|| "read addresses".to_owned()))
    }

    /// Our address for this VIP, if it is on its interface.
    async fn find(&self, vip: &VipSpec) -> Result<Option<Address>, VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.kernel().link_by_name(&vip.interface).await;
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
                self.kernel().delete(other_length).await.map_err(refused(|| format!("remove {}/{}", wanted.ip, other_length.prefix)))?;
                self.put_fresh(wanted, link, valid).await?
            }
            None => self.put_fresh(wanted, link, valid).await?,
        };
        if let Some(prefix) = wanted.network
            && !present.iter().any(|address| !address.ours && address.index == link.index && covers(address, wanted.ip))
        {
            let action = || format!("add the route to the network of {}/{prefix} on {}", wanted.ip, link.name);
            self.route(wanted.ip, prefix, link.index, valid, held).await.map_err(refused(action))?;
        }
        Ok(held)
    }

    /// Sees to the route to the VIP's network.
    async fn route(&self, ip: IpAddr, prefix: u8, index: u32, valid: u32, held: Held) -> io::Result<()> {
        let ip = match ip {
            IpAddr::V4(ip) => return self.kernel().add_route(index, ip, prefix).await,
            IpAddr::V6(ip) => ip,
        };
        let is_recent = self.routes().get(&(index, ip)).is_some_and(|at| at.elapsed() < ROUTE_REFRESH);
        if held == Held::Refreshed && is_recent {
            return Ok(());
        }
        self.kernel().add_route6(index, network6(ip, prefix), prefix, valid.saturating_add(ROUTE_EXTRA_SECONDS)).await?;
        let mut routes = self.routes();
        routes.retain(|_, at| at.elapsed() < ROUTE_REFRESH);
        routes.insert((index, ip), Instant::now());
        Ok(())
    }

    async fn refresh(&self, wanted: &Wanted, link: &Link, valid: u32, seen: &Address) -> Result<Held, VipError> {
        let action = || format!("refresh {} on {}", wanted.ip, link.name);
        self.kernel().add(link.index, wanted.ip, wanted.prefix, valid, true).await.map_err(refused(action))?;
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
        match self.kernel().add(link.index, wanted.ip, wanted.prefix, valid, false).await {
            Err(error) if wanted.ip.is_ipv6() && error.raw_os_error() == Some(libc::EACCES) => {
                return Err(VipError::Ipv6Off { interface: link.name.clone() });
            }
            other => other.map_err(refused(action))?,
        }
        let now = self.addresses().await?;
        match now.iter().find(|address| address.ip == wanted.ip && address.index == link.index) {
            // An old kernel drops the mark without a word; the address could then never be told from somebody else's.
            Some(unmarked) if !unmarked.ours => {
                self.kernel().delete(unmarked).await.map_err(refused(action))?;
                Err(VipError::Unsupported { what: "this kernel does not keep the protocol of addresses: Linux 5.18 is needed" })
            }
            _ => {
                if let IpAddr::V6(ip) = wanted.ip {
                    self.kernel().wait_until_local(ip).await;
                }
                Ok(Held::Fresh)
            }
        }
    }

    async fn in_use(&self, foreign: &Address, asked: &Link) -> VipError {
        let name = if foreign.index == asked.index {
            asked.name.clone()
        } else {
            let other = self.kernel().link_by_index(foreign.index).await.ok().flatten();
            other.map_or_else(|| format!("with index {}", foreign.index), |other| other.name)
        };
        VipError::AddressInUseByHand { address: foreign.ip, interface: name }
    }

    /// Removes our IPv6 route to the VIP's network, unless another VIP of ours needs it. It would go by itself a little later.
    async fn withdraw_route(&self, wanted: &Wanted, interface: &str) -> io::Result<()> {
        let (IpAddr::V6(ip), Some(prefix)) = (wanted.ip, wanted.network) else { return Ok(()) };
        let Some(link) = self.kernel().link_by_name(interface).await? else { return Ok(()) };
        self.routes().remove(&(link.index, ip));
        let others = self.kernel().addresses().await?;
        if others.iter().any(|a| a.ours && a.index == link.index && same_network(a.ip, wanted.ip, prefix)) {
            return Ok(());
        }
        self.kernel().delete_route6(link.index, network6(ip, prefix), prefix).await
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u32, Ipv6Addr), Instant>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.held.end();
    }
}

impl Vips for Netlink {
    async fn hold(&self, vip: &VipSpec, valid: Duration) -> Result<Held, VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.usable_link(&vip.interface).await?;
        let put = match self.put(&wanted, &link, whole_seconds(valid)).await {
            // Somebody put the same address there between the look and the attempt: a second look tells who.
            Err(VipError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                self.put(&wanted, &link, whole_seconds(valid)).await
            }
            other => other,
        };
        match &put {
            Ok(_) => self.held.note(wanted.ip, link.index),
            Err(VipError::AddressInUseByHand { .. }) => self.held.forget(wanted.ip),
            // It may still be there.
            Err(_) => {}
        }
        put
    }

    async fn release(&self, vip: &VipSpec) -> Result<(), VipError> {
        let wanted = Wanted::of(vip)?;
        self.held.forget(wanted.ip);
        // A second look, because one that runs while others change addresses may miss some.
        for _ in 0..2 {
            if let Some(ours) = self.find(vip).await? {
                self.kernel().delete(&ours).await.map_err(refused(|| format!("remove {} from {}", ours.ip, vip.interface)))?;
            }
        }
        if self.find(vip).await?.is_some() {
            let source = io::Error::new(io::ErrorKind::ResourceBusy, "it is put back by somebody");
            return Err(VipError::Kernel { action: format!("remove {} from {}", vip.address, vip.interface), source });
        }
        if let Err(error) = self.withdraw_route(&wanted, &vip.interface).await {
            tracing::debug!(%error, vip = vip.address, "its route was not removed and goes by itself");
        }
        Ok(())
    }

    async fn announce(&self, vip: &VipSpec) -> Result<(), VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.usable_link(&vip.interface).await?;
        self.held.announce(wanted.ip, link.index).map_err(refused(|| format!("announce {} on {}", wanted.ip, link.name)))
    }

    async fn ours(&self) -> Result<Vec<HeldVip>, VipError> {
        let mut held = Vec::new();
        for address in self.addresses().await?.into_iter().filter(|address| address.ours) {
            let link = self.kernel().link_by_index(address.index).await;
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

    async fn probe(&self, vip: &VipSpec) -> Result<(), VipError> {
        let wanted = Wanted::of(vip)?;
        let link = self.usable_link(&vip.interface).await?;
        match self.addresses().await?.iter().find(|address| address.ip == wanted.ip) {
            Some(ours) if ours.ours => return Ok(()),
            Some(foreign) => return Err(self.in_use(foreign, &link).await),
            None => {}
        }
        let action = || format!("ask for {} on {}", wanted.ip, link.name);
        match conflicts::probe(wanted.ip, link.index).await.map_err(refused(action))? {
            Some(mac) => Err(VipError::Taken { address: wanted.ip, interface: link.name, mac }),
            None => Ok(()),
        }
    }

    fn announce_held(&self) -> usize {
        self.held.heal(None)
    }

    fn conflicts(&self) -> broadcast::Receiver<Conflict> {
        self.conflicts.subscribe()
    }
}

fn network6(ip: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & mask6(prefix))
}

fn refused(action: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> VipError {
    |source| VipError::Kernel { action: action(), source }
}
