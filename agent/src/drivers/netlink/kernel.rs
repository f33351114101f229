//! Typed requests to the kernel over rtnetlink: links, addresses, routes. Nothing here decides anything.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::time::Instant;

/// The mark of our addresses: IFA_PROTO, the number in the column `proto` of `ip -d address`. 0 to 3 are the kernel's own; this one has
/// no name in iproute2's tables.
pub const OUR_PROTOCOL: u8 = cluster_fence::ADDRESS_MARK;
/// The kernel's word for "for ever" in lifetimes.
pub(super) const FOREVER: u32 = u32::MAX;
/// How long the kernel may take for one request. It normally answers within microseconds; a lost answer must not hang us.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Most links or addresses read in one go.
const ENTRIES_MAX: usize = 65_536;
/// How often a reading that is refused because another one is under way is tried again, and after what pause.
const BUSY_RETRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for a fresh IPv6 address to work, and the pause between two looks. Also without duplicate detection the kernel makes
/// its local route, and listens for questions about it, in a work item of its own: mostly within a millisecond, some later on a busy
/// machine. A client that was told before that loses its first packet, and with it a second.
const LOCAL_WAIT: Duration = Duration::from_millis(100);
const LOCAL_PAUSE: Duration = Duration::from_millis(1);
/// Metric of the routes we add: higher than what the kernel, networkd or people use for a connected network, so theirs win.
const ROUTE_METRIC: u32 = 50_000;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Switched on.
    pub(super) up: bool,
    /// Has a carrier.
    pub(super) carrier: bool,
    /// Hardware address; empty if it has none.
    pub(super) hardware: Vec<u8>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    pub(super) ours: bool,
    /// Seconds left; [`FOREVER`] without a limit.
    pub(super) valid: u32,
    /// When it was put there, in the kernel's own ticks. Tells an address from a later one that is otherwise equal.
    pub(super) created: u32,
}

/// A connection to the kernel that is made again when it breaks.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    connection: Mutex<Option<Connection>>,
    /// Held while addresses are read: the kernel lets one such reading be under way per connection, and refuses others (EBUSY).
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Connection {
    handle: Handle,
    /// Falls before the streams of unanswered requests end: their end alone looks like a full answer.
    alive: Arc<AtomicBool>,
}

impl Kernel {
    fn connection(&self) -> io::Result<Connection> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = slot.as_ref().filter(|connection| connection.alive.load(Ordering::Acquire)) {
            return Ok(connection.clone());
        }
        let (driver, handle, _unsolicited) = rtnetlink::new_connection()?;
        let alive = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&alive);
        // Ends when the last handle is dropped, or on an error of the socket.
        tokio::spawn(async move {
            let mut driver = pin!(driver);
            driver.as_mut().await;
            flag.store(false, Ordering::Release);
        });
        let connection = Connection { handle, alive };
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// One request, with a time limit, and an error if the connection broke before its answer was whole.
    async fn ask<T, F>(&self, request: impl FnOnce(Handle) -> F) -> io::Result<T>
    where
        F: Future<Output = Result<T, rtnetlink::Error>>,
    {
        let connection = self.connection()?;
        let result = match tokio::time::timeout(ANSWER_TIME, request(connection.handle)).await {
            Ok(result) => result.map_err(to_io),
            Err(_elapsed) => {
                // Its answer may still come and must not be taken for another's: this connection is given up.
                connection.alive.store(false, Ordering::Release);
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer over netlink"));
            }
        };
        if result.is_ok() && !connection.alive.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the netlink connection broke"));
        }
        result
    }

    /// The interface with this name; `None` if there is none.
    pub(super) async fn link_by_name(&self, name: &str) -> io::Result<Option<Link>> {
        // The kernel's limit (IFNAMSIZ); a longer name would be an error other than "no such device".
        if name.is_empty() || name.len() > 15 || name.contains(['/', '\0']) || name.contains(char::is_whitespace) {
            return Ok(None);
        }
        let name = name.to_owned();
        absent_is_none(self.ask(|handle| first(handle.link().get().match_name(name).execute())).await)
    }

    /// The interface with this index; `None` if there is none.
    pub(super) async fn link_by_index(&self, index: u32) -> io::Result<Option<Link>> {
        absent_is_none(self.ask(|handle| first(handle.link().get().match_index(index).execute())).await)
    }

    /// All addresses of all interfaces.
    pub(super) async fn addresses(&self) -> io::Result<Vec<Address>> {
        let _alone = self.reading.lock().await;
        let mut refused = 0;
        loop {
            match self.read_addresses().await {
                // One whose reader was dropped in the middle ends when its last answer was taken from the socket.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && refused < BUSY_RETRIES => {
                    refused += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn read_addresses(&self) -> io::Result<Vec<Address>> {
        let found = self
            .ask(async |handle| {
                let mut stream = pin!(handle.address().get().execute());
                let mut found = Vec::new();
                while let Some(message) = stream.next().await {
                    found.extend(address(&message?));
                    if found.len() > ENTRIES_MAX {
                        break;
                    }
                }
                Ok(found)
            })
            .await?;
        if found.len() > ENTRIES_MAX {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("more than {ENTRIES_MAX} addresses")));
        }
        Ok(found)
    }

    /// Puts an address with our mark there, or with `replace` sets the lifetime of the one that is there.
    pub(super) async fn add(&self, index: u32, ip: IpAddr, prefix: u8, valid: u32, replace: bool) -> io::Result<()> {
        let message = message(index, ip, prefix, valid);
        self.ask(|handle| {
            let mut request = handle.address().add(index, ip, prefix);
            *request.message_mut() = message;
            if replace { request.replace().execute() } else { request.execute() }
        })
        .await
    }

    /// Removes an address; already gone is success.
    pub(super) async fn delete(&self, address: &Address) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip);
        message.header.prefix_len = address.prefix;
        message.header.index = address.index;
        message.attributes = vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
        match self.ask(|handle| handle.address().del(message).execute()).await {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Makes the network of `ip` reachable through the interface for as long as `ip` is there: the kernel drops a route with its
    /// preferred source. An equal route that is already there is success.
    pub(super) async fn add_route(&self, index: u32, ip: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let network = Ipv4Addr::from_bits(ip.to_bits() & mask(prefix));
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .output_interface(index)
            .pref_source(ip)
            .priority(ROUTE_METRIC)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::from(OUR_PROTOCOL))
            .build();
        match self.ask(|handle| handle.route().add(route).execute()).await {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Whether packets to the address are taken in here. An IPv6 address is listed a moment before that (see [`LOCAL_WAIT`]).
    async fn is_local(&self, ip: Ipv6Addr) -> bool {
        let asked = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build();
        let answer = self.ask(async |handle| {
            let mut stream = pin!(handle.route().get(asked).execute());
            let mut kind = RouteType::Unspec;
            while let Some(message) = stream.next().await {
                kind = message?.header.kind;
            }
            Ok(kind)
        });
        matches!(answer.await, Ok(RouteType::Local))
    }

    /// Waits until packets to the address are taken in here, for a while.
    pub(super) async fn wait_until_local(&self, ip: Ipv6Addr) {
        let until = Instant::now() + LOCAL_WAIT;
        while !self.is_local(ip).await && Instant::now() < until {
            tokio::time::sleep(LOCAL_PAUSE).await;
        }
    }

    /// Makes the network reachable through the interface for so many seconds, or prolongs that.
    pub(super) async fn add_route6(&self, index: u32, network: Ipv6Addr, prefix: u8, seconds: u32) -> io::Result<()> {
        let mut route = route6(index, network, prefix);
        route.attributes.push(RouteAttribute::Expires(seconds));
        self.ask(|handle| handle.route().add(route).replace().execute()).await
    }

    /// Removes what [`Self::add_route6`] added; already gone is success.
    pub(super) async fn delete_route6(&self, index: u32, network: Ipv6Addr, prefix: u8) -> io::Result<()> {
        match self.ask(|handle| handle.route().del(route6(index, network, prefix)).execute()).await {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }
}

fn route6(index: u32, network: Ipv6Addr, prefix: u8) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(network, prefix)
        .output_interface(index)
        .priority(ROUTE_METRIC)
        .protocol(RouteProtocol::from(OUR_PROTOCOL))
        .build()
}

/// Network mask of an IPv6 prefix length.
pub(super) const fn mask6(prefix: u8) -> u128 {
    match prefix {
        0 => 0,
        1..=127 => u128::MAX << (128 - prefix),
        _ => u128::MAX,
    }
}

/// Network mask of an IPv4 prefix length.
pub(super) const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        1..=31 => u32::MAX << (32 - prefix),
        _ => u32::MAX,
    }
}

const fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn message(index: u32, ip: IpAddr, prefix: u8, valid: u32) -> AddressMessage {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = valid;
    // IPv6: never the source of connections that the node itself opens, since they would break when the VIP moves. (The kernel
    // does not look at this for IPv4; a host address is no candidate there.)
    lifetimes.ifa_preferred = if ip.is_ipv6() { 0 } else { valid };
    // A take-over must not wait for duplicate address detection; and IPv6 host addresses need no route of their own.
    let flags = if ip.is_ipv6() { AddressFlags::Nodad | AddressFlags::Noprefixroute } else { AddressFlags::Nodad };
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(ip),
        AddressAttribute::Address(ip),
        AddressAttribute::Flags(flags),
        AddressAttribute::CacheInfo(lifetimes),
        AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL)),
    ];
    message
}

/// Whether an address message carries our mark.
pub(super) fn is_ours(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL)))
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    let (mut valid, mut created) = (FOREVER, 0);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::CacheInfo(info) => (valid, created) = (info.ifa_valid, info.cstamp),
            _ => {}
        }
    }
    // IPv4 has the address in LOCAL (ADDRESS is the other end of a point-to-point link), IPv6 mostly in ADDRESS alone.
    let ip = local.or(peer)?;
    Some(Address { index: message.header.index, ip, prefix: message.header.prefix_len, ours: is_ours(message), valid, created })
}

/// What a link message says.
pub(super) fn link(message: &LinkMessage) -> Link {
    let (mut name, mut hardware) = (String::new(), Vec::new());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(is) => name.clone_from(is),
            LinkAttribute::Address(is) => hardware.clone_from(is),
            _ => {}
        }
    }
    Link {
        index: message.header.index,
        name,
        hardware,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
    }
}

async fn first(stream: impl Stream<Item = Result<LinkMessage, rtnetlink::Error>>) -> Result<Option<Link>, rtnetlink::Error> {
    let mut stream = pin!(stream);
    let mut found = None;
    // To its end, so that nothing of the answer is left behind.
    while let Some(message) = stream.next().await {
        found.get_or_insert(link(&message?));
    }
    Ok(found)
}

fn absent_is_none<T>(result: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        other => other,
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
