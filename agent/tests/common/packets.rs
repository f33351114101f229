//! What goes over the wire, read and written by means other than the driver's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use etherparse::{ArpOperation, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt};

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// "I have it", as a request and as an answer of ARP.
    ArpRequest,
    ArpReply,
    /// "Who has it?", from nobody.
    Probe,
    /// An IPv6 advertisement to all that overrides.
    Advertisement,
}

/// A frame as a reader on the other end of the cable saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) kind: Kind,
    pub(crate) address: IpAddr,
    pub(crate) from: String,
    pub(crate) after: Duration,
}

/// Reads announcements and probes for `time`, in the namespace of the calling thread, sent by others.
pub(crate) fn listen(time: Duration, ready: &Sender<()>) -> Vec<Heard> {
    let reader = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).expect("a packet socket");
    setsockopt(&reader, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 20_000)).unwrap();
    ready.send(()).unwrap();
    let own: Vec<_> = getifaddrs().unwrap().filter_map(|entry| entry.address?.as_link_addr()?.addr()).collect();
    let (start, mut heard, mut buffer) = (Instant::now(), Vec::new(), [0; 2048]);
    while start.elapsed() < time {
        let Ok(length) = recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
        let Some((kind, address, mac)) = read(&buffer[..length]) else { continue };
        // Machines look after their link-local addresses by themselves.
        if own.contains(&mac) || matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            continue;
        }
        let from = mac.map(|byte| format!("{byte:02x}")).join(":");
        heard.push(Heard { kind, address, from, after: start.elapsed() });
    }
    heard
}

fn read(frame: &[u8]) -> Option<(Kind, IpAddr, [u8; 6])> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Arp(arp)), _) => {
            let ip = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
            let (sender, target) = (ip(arp.sender_protocol_addr()), ip(arp.target_protocol_addr()));
            let kind = match arp.operation() {
                ArpOperation::REQUEST if sender.is_unspecified() => Kind::Probe,
                ArpOperation::REQUEST if sender == target => Kind::ArpRequest,
                ArpOperation::REPLY if sender == target => Kind::ArpReply,
                _ => return None,
            };
            Some((kind, target.into(), arp.sender_hw_addr().try_into().ok()?))
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(message))) => {
            let target = Ipv6Addr::from(<[u8; 16]>::try_from(message.payload().get(..16)?).ok()?);
            let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
            let kind = match message.type_u8() {
                135 if ip.header().source_addr().is_unspecified() => Kind::Probe,
                136 if ip.header().destination_addr() == all_nodes && message.bytes5to8()[0] & 0x20 != 0 => Kind::Advertisement,
                _ => return None,
            };
            assert!(message.is_checksum_valid(ip.header().source(), ip.header().destination()));
            let mac = match kind {
                Kind::Advertisement => message.payload().get(18..24)?,
                _ => &frame[6..12],
            };
            Some((kind, target.into(), mac.try_into().ok()?))
        }
        _ => None,
    }
}

/// Says on the only Ethernet interface of the calling thread's namespace that the machine `mac` has the address.
pub(crate) fn claim(address: IpAddr, mac: [u8; 6]) {
    let is_ethernet = |entry: &InterfaceAddress| {
        entry.address.and_then(|address| address.as_link_addr().copied()).is_some_and(|link| link.hatype() == 1 && link.halen() == 6)
    };
    let found = getifaddrs().unwrap().find(is_ethernet).expect("an Ethernet interface");
    claim_over(&found.interface_name, address, mac);
}

/// The same over a certain interface.
pub(crate) fn claim_over(interface: &str, address: IpAddr, mac: [u8; 6]) {
    let mut frame = Vec::new();
    match address {
        IpAddr::V4(ip) => {
            for part in [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &ip.octets(), &[0; 6], &ip.octets()] {
                frame.extend(part);
            }
        }
        IpAddr::V6(ip) => {
            let all_nodes = "ff02::1".parse::<Ipv6Addr>().unwrap().octets();
            let payload = [&ip.octets()[..], &[2, 1], &mac].concat();
            PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 1])
                .ipv6(ip.octets(), all_nodes, 255)
                .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
                .write(&mut frame, &payload)
                .unwrap();
        }
    }
    let of_interface = |entry: InterfaceAddress| entry.address?.as_link_addr().copied().filter(|_| entry.interface_name == interface);
    let link = getifaddrs().unwrap().find_map(of_interface).expect("the interface");
    let writer = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
    sendto(writer.as_raw_fd(), &frame, &link, MsgFlags::empty()).expect("a frame on the wire");
}
