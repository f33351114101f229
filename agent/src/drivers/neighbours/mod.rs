//! What neighbours on a link are told of addresses, and what they say: ARP for IPv4, neighbour discovery for IPv6.
//!
//! There is no netlink call for either, so the frames are built and read here and go over packet sockets.

mod arp;
mod listener;
mod ndp;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::Mac;

pub(super) use self::listener::Listener;

/// An Ethernet frame, without the padding and the checksum that the interface adds.
type Frame = Vec<u8>;

/// The kernel's number for Ethernet, `ARPHRD_ETHER`.
const LINK_ETHERNET: u16 = 1;

/// What a neighbour says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) address: IpAddr,
    /// Who says so.
    pub(super) mac: Mac,
    /// It does not have the address, but asks whether anybody has, in order to take it.
    pub(super) wanted_only: bool,
}

/// An interface over which neighbours can be told and asked.
#[derive(Debug)]
pub(super) struct Announcer {
    socket: OwnedFd,
    link: LinkAddr,
    mac: Mac,
}

impl Announcer {
    /// For the interface with this index, in the network namespace of the calling thread. `None` if it has no Ethernet addresses or
    /// uses no ARP (loopback, tunnels): there is nobody to tell.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::NotFound`] if there is no such interface.
    pub(super) fn open(index: u32) -> io::Result<Option<Self>> {
        let of_interface = |link: &LinkAddr| u32::try_from(link.ifindex()) == Ok(index);
        let (link, flags) = getifaddrs()?
            .filter_map(|entry| Some((*entry.address?.as_link_addr()?, entry.flags)))
            .find(|(link, _)| of_interface(link))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface with index {index}")))?;
        let Some(mac) = ethernet(&link) else { return Ok(None) };
        if flags.contains(InterfaceFlags::IFF_NOARP) {
            return Ok(None);
        }
        // Protocol 0: the socket only sends, so the kernel queues nothing for it.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        Ok(Some(Self { socket, link, mac }))
    }

    /// Tells everybody on the link, once, that the address is here. Does not wait: a full queue is an error.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(ip) => arp::announcement(self.mac, ip).iter().try_for_each(|frame| self.send(frame)),
            IpAddr::V6(ip) => self.send(&ndp::announcement(self.mac, ip)),
        }
    }

    /// Asks everybody on the link, once, who has the address; says nothing of it being here. Does not wait.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn probe(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(ip) => self.send(&arp::probe(self.mac, ip)),
            IpAddr::V6(ip) => self.send(&ndp::probe(self.mac, ip)),
        }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())?;
        if sent != frame.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the frame was cut short"));
        }
        Ok(())
    }
}

/// The hardware addresses of this machine's interfaces: what comes from one of them is no claim of somebody else. (A machine with two
/// interfaces on one link answers for its addresses by both.)
pub(super) fn own_macs() -> io::Result<BTreeSet<Mac>> {
    Ok(getifaddrs()?.filter_map(|entry| ethernet(entry.address?.as_link_addr()?)).collect())
}

fn ethernet(link: &LinkAddr) -> Option<Mac> {
    link.addr().filter(|_| link.hatype() == LINK_ETHERNET && link.halen() == 6).map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_nobody_to_tell_and_a_missing_interface_is_an_error() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(Announcer::open(loopback).unwrap().is_none());
        assert_eq!(Announcer::open(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
