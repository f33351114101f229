//! Gratuitous ARP: tells every machine on the link which hardware address an IPv4 address has now (RFC 5227, section 3).
//!
//! There is no netlink call for it, so the frames are built here and sent over a packet socket.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

/// Hardware address of an Ethernet interface.
pub type Mac = [u8; 6];

/// Length of an Ethernet frame with an ARP packet in it, without padding (the interface adds that).
pub const FRAME_LEN: usize = 42;

const BROADCAST: Mac = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const HARDWARE_ETHERNET: [u8; 2] = [0, 1];
/// The same number as the kernel gives it, `ARPHRD_ETHER`.
const LINK_ETHERNET: u16 = 1;

/// The two forms of gratuitous ARP. Some machines heed only one of them, so both are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A request for the address itself; its target hardware address is empty.
    Request,
    /// An answer that nobody asked for; its target hardware address is the sender's (Linux wants that).
    Reply,
}

/// The frame that says "`address` is at `mac`" to everybody on the link.
#[must_use]
pub fn gratuitous(form: Form, mac: Mac, address: Ipv4Addr) -> [u8; FRAME_LEN] {
    let (operation, target): ([u8; 2], Mac) = match form {
        Form::Request => ([0, 1], [0; 6]),
        Form::Reply => ([0, 2], mac),
    };
    let ip = address.octets();
    let parts: [&[u8]; 11] = [
        // Ethernet
        &BROADCAST,
        &mac,
        &ETHERTYPE_ARP,
        // ARP: what is mapped to what, lengths of both, operation
        &HARDWARE_ETHERNET,
        &ETHERTYPE_IPV4,
        &[6, 4],
        &operation,
        // Sender, target
        &mac,
        &ip,
        &target,
        &ip,
    ];
    let mut frame = [0; FRAME_LEN];
    let bytes = parts.iter().flat_map(|part| part.iter());
    frame.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    frame
}

/// An interface on which an address can be announced, with a socket to do so.
#[derive(Debug)]
pub struct Announcer {
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
    pub fn open(index: u32) -> io::Result<Option<Self>> {
        let of_interface = |link: &LinkAddr| u32::try_from(link.ifindex()) == Ok(index);
        let (link, flags) = getifaddrs()?
            .filter_map(|entry| Some((*entry.address?.as_link_addr()?, entry.flags)))
            .find(|(link, _)| of_interface(link))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface with index {index}")))?;
        let Some(mac) = link.addr().filter(|_| link.hatype() == LINK_ETHERNET && link.halen() == 6) else { return Ok(None) };
        if flags.contains(InterfaceFlags::IFF_NOARP) {
            return Ok(None);
        }
        // Protocol 0: the socket only sends, so the kernel queues nothing for it.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        Ok(Some(Self { socket, link, mac }))
    }

    /// Sends both forms once. Does not wait: a full queue is an error.
    ///
    /// # Errors
    /// The system's.
    pub fn announce(&self, address: Ipv4Addr) -> io::Result<()> {
        for form in [Form::Request, Form::Reply] {
            let frame = gratuitous(form, self.mac, address);
            let sent = sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty())?;
            if sent != frame.len() {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the frame was cut short"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpOperation, EtherType, LinkSlice, NetSlice, SlicedPacket};

    const MAC: Mac = [0x02, 0x42, 0x0a, 0x00, 0x00, 0x07];
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    #[test]
    fn both_forms_read_as_gratuitous_arp() {
        for (form, operation, target) in [(Form::Request, ArpOperation::REQUEST, [0; 6]), (Form::Reply, ArpOperation::REPLY, MAC)] {
            let frame = gratuitous(form, MAC, VIP);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("{form:?}: no Ethernet frame") };
            assert_eq!(ethernet.destination(), [0xff; 6], "{form:?}");
            assert_eq!(ethernet.source(), MAC, "{form:?}");
            assert_eq!(ethernet.ether_type(), EtherType::ARP, "{form:?}");
            let Some(NetSlice::Arp(arp)) = packet.net else { panic!("{form:?}: no ARP in it") };
            assert_eq!(arp.operation(), operation, "{form:?}");
            assert_eq!(arp.hw_addr_size(), 6);
            assert_eq!(arp.proto_addr_size(), 4);
            assert_eq!(arp.proto_addr_type(), EtherType::IPV4);
            assert_eq!(arp.sender_hw_addr(), MAC, "{form:?}");
            assert_eq!(arp.sender_protocol_addr(), VIP.octets(), "{form:?}");
            assert_eq!(arp.target_hw_addr(), target, "{form:?}");
            assert_eq!(arp.target_protocol_addr(), VIP.octets(), "{form:?}");
        }
    }

    #[test]
    fn loopback_has_nobody_to_tell_and_a_missing_interface_is_an_error() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(Announcer::open(loopback).unwrap().is_none());
        assert_eq!(Announcer::open(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
