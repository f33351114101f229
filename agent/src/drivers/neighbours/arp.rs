//! ARP, for IPv4 (RFC 826, RFC 5227): the frames that are sent, and those that are of interest. Pure.

use std::net::Ipv4Addr;

use super::{Claim, Frame};
use crate::drivers::Mac;

/// Length of an Ethernet frame with an ARP packet in it, without padding (the interface adds that).
const FRAME_LEN: usize = 42;
/// Where the sender's hardware address, the sender's and the target's IPv4 address stand in the frame.
const SENDER_MAC: usize = 22;
pub(super) const SENDER_IP: usize = 28;
pub(super) const TARGET_IP: usize = 38;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const HARDWARE_ETHERNET: [u8; 2] = [0, 1];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// The frames that say "`address` is at `mac`" to everybody on the link: a request for the address itself, and an answer that nobody
/// asked for. Some machines heed only one of the two.
pub(super) fn announcement(mac: Mac, address: Ipv4Addr) -> Vec<Frame> {
    // The target's hardware address is empty in the request; in the answer it is the sender's (Linux wants that).
    vec![frame(REQUEST, mac, address, Mac::NONE, address), frame(REPLY, mac, address, mac, address)]
}

/// The frame that asks who has `address`, without saying that we do: nobody's table changes by it (RFC 5227, section 2.1.1).
pub(super) fn probe(mac: Mac, address: Ipv4Addr) -> Frame {
    frame(REQUEST, mac, Ipv4Addr::UNSPECIFIED, Mac::NONE, address)
}

fn frame(operation: [u8; 2], mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Frame {
    let parts: [&[u8]; 11] = [
        // Ethernet
        &Mac::BROADCAST.0,
        &mac.0,
        &ETHERTYPE_ARP,
        // ARP: what is mapped to what, lengths of both, operation
        &HARDWARE_ETHERNET,
        &ETHERTYPE_IPV4,
        &[6, 4],
        &operation,
        // Sender, target
        &mac.0,
        &sender.octets(),
        &target_mac.0,
        &target.octets(),
    ];
    parts.concat()
}

/// What a frame says of who has an address, or wants it. None if it is no ARP of Ethernet and IPv4.
pub(super) fn read(frame: &[u8]) -> Option<Claim> {
    let mut begin = ETHERTYPE_ARP.to_vec();
    begin.extend([HARDWARE_ETHERNET, ETHERTYPE_IPV4, [6, 4]].concat());
    if frame.len() < FRAME_LEN || frame.get(12..20) != Some(&begin) {
        return None;
    }
    let ip = |at: usize| frame.get(at..at + 4).and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(Ipv4Addr::from);
    let mac = Mac(frame.get(SENDER_MAC..SENDER_MAC + 6)?.try_into().ok()?);
    let (sender, target) = (ip(SENDER_IP)?, ip(TARGET_IP)?);
    Some(match sender.is_unspecified() {
        true => Claim { address: target.into(), mac, wanted_only: true },
        false => Claim { address: sender.into(), mac, wanted_only: false },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpOperation, ArpPacketSlice, EtherType, LinkSlice, NetSlice, SlicedPacket};

    const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x00, 0x00, 0x07]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    /// Reads a frame with a parser that is not ours.
    fn with_arp(frame: &[u8], check: impl FnOnce(&ArpPacketSlice<'_>)) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet frame") };
        assert_eq!(ethernet.destination(), [0xff; 6]);
        assert_eq!(ethernet.source(), MAC.0);
        assert_eq!(ethernet.ether_type(), EtherType::ARP);
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP in it") };
        assert_eq!((arp.hw_addr_size(), arp.proto_addr_size(), arp.proto_addr_type()), (6, 4, EtherType::IPV4));
        assert_eq!(arp.sender_hw_addr(), MAC.0);
        assert_eq!(arp.target_protocol_addr(), VIP.octets());
        check(&arp);
    }

    #[test]
    fn both_forms_read_as_gratuitous_arp() {
        let frames = announcement(MAC, VIP);
        for (frame, operation, target) in [(&frames[0], ArpOperation::REQUEST, [0; 6]), (&frames[1], ArpOperation::REPLY, MAC.0)] {
            with_arp(frame, |arp| {
                assert_eq!((arp.operation(), arp.target_hw_addr()), (operation, target.as_slice()));
                assert_eq!(arp.sender_protocol_addr(), VIP.octets());
            });
            assert_eq!(read(frame), Some(Claim { address: VIP.into(), mac: MAC, wanted_only: false }));
        }
    }

    #[test]
    fn a_probe_claims_nothing() {
        let frame = probe(MAC, VIP);
        with_arp(&frame, |arp| {
            assert_eq!(arp.operation(), ArpOperation::REQUEST);
            assert_eq!((arp.sender_protocol_addr(), arp.target_hw_addr()), ([0; 4].as_slice(), [0; 6].as_slice()));
        });
        assert_eq!(read(&frame), Some(Claim { address: VIP.into(), mac: MAC, wanted_only: true }));
    }

    #[test]
    fn what_is_no_arp_is_not_read() {
        let good = probe(MAC, VIP);
        for at in 12..20 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad), None, "{at}");
        }
        for length in 0..FRAME_LEN {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
        assert!(read(&[&good[..], &[0; 18]].concat()).is_some(), "with the padding of the wire");
    }
}
