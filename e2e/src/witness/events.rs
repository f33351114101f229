//! Kernel events about addresses and ports, by sockets that live in the namespaces they tell about.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{AddressFamily as Family, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket};

use crate::error::{Context, Result};
use crate::spawn::in_netns;

/// Multicast groups of rtnetlink, as bits.
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 0x10;
/// The kernel sends at most this much at a time.
const BUFFER: usize = 64 << 10;
/// What the kernel keeps for us while we do not look: thousands of events.
const QUEUE: usize = 4 << 20;

/// A socket inside one network namespace.
#[derive(Debug)]
struct Events {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Events {
    /// Subscribes, and asks for all there is now: nothing can fall between the two.
    fn open(namespace: &Path, groups: u32, all: RouteNetlinkMessage) -> Result<Self> {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(Family::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            // Beyond the system's limit where we may; without, the default has to do.
            if setsockopt(&socket, RcvBufForce, &QUEUE).is_err() {
                setsockopt(&socket, RcvBuf, &QUEUE)?;
            }
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok::<_, Errno>(socket)
        };
        let socket = in_netns(namespace, open)?.context(|| format!("listen to the kernel in {}", namespace.display()))?;
        let events = Self { socket, buffer: vec![0; BUFFER] };
        events.ask(all).context(|| format!("ask the kernel in {}", namespace.display()))?;
        Ok(events)
    }

    fn ask(&self, all: RouteNetlinkMessage) -> Result<(), Errno> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(all));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map(drop)
    }

    /// All that has come since the last call; false when the kernel had to drop something.
    fn drain(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> bool {
        let mut complete = true;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => return complete,
                Ok(length) => {
                    let mut rest = self.buffer.get(..length).unwrap_or_default();
                    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                        let taken = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
                        if let NetlinkPayload::InnerMessage(inner) = message.payload {
                            each(inner);
                        }
                        match rest.get(taken..) {
                            Some(more) if taken > 0 && !more.is_empty() => rest = more,
                            _ => break,
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                // ENOBUFS: our queue was full.
                Err(_) => complete = false,
            }
        }
    }
}

/// The IPv4 addresses of one node.
#[derive(Debug)]
pub(super) struct Addresses {
    events: Events,
    /// Each with the interface that has it.
    held: BTreeMap<Ipv4Addr, u32>,
}

impl Addresses {
    pub(super) fn open(namespace: &Path) -> Result<Self> {
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let events = Events::open(namespace, GROUP_IPV4_ADDRESS, RouteNetlinkMessage::GetAddress(all))?;
        let mut addresses = Self { events, held: BTreeMap::new() };
        addresses.update();
        Ok(addresses)
    }

    /// Takes in what has happened; false when something was lost.
    pub(super) fn update(&mut self) -> bool {
        let Self { events, held } = self;
        events.drain(|message| match message {
            // An address that is there already comes again when its lifetime is renewed.
            RouteNetlinkMessage::NewAddress(address) => held.extend(local(&address).map(|ip| (ip, address.header.index))),
            RouteNetlinkMessage::DelAddress(address) => {
                if let Some(ip) = local(&address) {
                    held.remove(&ip);
                }
            }
            _ => {}
        })
    }

    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.held.contains_key(&address)
    }
}

fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

/// The ports of the switch.
#[derive(Debug)]
pub(super) struct Ports {
    events: Events,
    /// By name: whether frames pass.
    open: BTreeMap<String, bool>,
}

impl Ports {
    pub(super) fn open(namespace: &Path) -> Result<Self> {
        let events = Events::open(namespace, GROUP_LINK, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let mut ports = Self { events, open: BTreeMap::new() };
        ports.update();
        Ok(ports)
    }

    /// Takes in what has happened; false when something was lost.
    pub(super) fn update(&mut self) -> bool {
        let Self { events, open } = self;
        events.drain(|message| match message {
            // The bridge tells about its ports in a family of its own, where a deletion means that a port has left.
            RouteNetlinkMessage::NewLink(link) if link.header.interface_family != AddressFamily::Bridge => {
                let plugged =
                    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(master) if *master != 0));
                open.extend(name(&link).map(|port| (port, plugged && link.header.flags.contains(LinkFlags::Up))));
            }
            RouteNetlinkMessage::DelLink(link) if link.header.interface_family != AddressFamily::Bridge => {
                if let Some(port) = name(&link) {
                    open.remove(&port);
                }
            }
            _ => {}
        })
    }

    /// Whether frames pass through this port.
    pub(super) fn is_open(&self, port: &str) -> bool {
        self.open.get(port).copied().unwrap_or(false)
    }
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
