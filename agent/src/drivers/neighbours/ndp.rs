//! Neighbour discovery, for IPv6 (RFC 4861, RFC 4862): the frames that are sent, and those that are of interest. Pure.

use std::net::Ipv6Addr;

use super::{Claim, Frame};
use crate::drivers::Mac;

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub(super) const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// "Replace what you have": the flag of an advertisement that a take-over needs.
const OVERRIDE: u8 = 0x20;
const OPTION_TARGET_MAC: u8 = 2;
/// Where things stand in the frame: the kind of what follows the IPv6 header, its hop limit, its source, the ICMPv6 message, its target,
/// its options.
pub(super) const NEXT_HEADER: usize = 20;
const HOPS: usize = 21;
const SOURCE: usize = 22;
pub(super) const MESSAGE: usize = 54;
pub(super) const TARGET: usize = 62;
const OPTIONS: usize = 78;
/// Most options of a message that are looked at.
const OPTIONS_MAX: usize = 16;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The frame that says "`address` is at `mac`" to everybody on the link: an advertisement that nobody asked for (RFC 4861, section 7.2.6).
pub(super) fn announcement(mac: Mac, address: Ipv6Addr) -> Frame {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // The length of an option counts in units of 8 bytes.
    message.extend([OPTION_TARGET_MAC, 1]);
    message.extend(mac.0);
    frame(mac, address, ALL_NODES, message)
}

/// The frame that asks who has `address`, from nobody: duplicate address detection, for everybody who hears it (RFC 4862, section 5.4.2).
pub(super) fn probe(mac: Mac, address: Ipv6Addr) -> Frame {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    frame(mac, Ipv6Addr::UNSPECIFIED, solicited_node(address), message)
}

/// The group that the holder of an address listens to.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn frame(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Frame {
    let [.., a, b, c, d] = to.octets();
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let sum = checksum(from, to, &message).to_be_bytes();
    message.splice(2..4, sum);
    let parts: [&[u8]; 9] = [
        // Ethernet, to the hardware address of the group
        &[0x33, 0x33, a, b, c, d],
        &mac.0,
        &ETHERTYPE_IPV6,
        // IPv6: version, then traffic class and flow, length
        &[0x60, 0, 0, 0],
        &length,
        &[ICMPV6, HOP_LIMIT],
        &from.octets(),
        &to.octets(),
        &message,
    ];
    parts.concat()
}

/// The checksum of an ICMPv6 message whose own field for it is zero (RFC 4443, section 2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let mut covered = [from.octets(), to.octets()].concat();
    covered.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(message);
    let words = covered.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while let (high @ 1.., low) = (sum >> 16, sum & 0xffff) {
        sum = high + low;
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What a frame says of who has an address, or wants it. None if it is none of those messages, or one that no machine of this link sent.
///
/// Checksums are not looked at: packets of this machine's own bridges may come by before theirs is filled in.
pub(super) fn read(frame: &[u8]) -> Option<Claim> {
    let is_message = frame.get(12..14) == Some(&ETHERTYPE_IPV6)
        && frame.get(NEXT_HEADER) == Some(&ICMPV6)
        && frame.get(HOPS) == Some(&HOP_LIMIT)
        && frame.get(MESSAGE + 1) == Some(&0);
    if !is_message {
        return None;
    }
    let address = |at: usize| frame.get(at..at + 16).and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(Ipv6Addr::from);
    let mac_at = |at: usize| frame.get(at..at + 6).and_then(|mac| mac.try_into().ok()).map(Mac);
    let target = address(TARGET)?;
    let sender = mac_at(6)?;
    match frame.get(MESSAGE) {
        Some(&ADVERTISEMENT) => {
            // Without the option it is the sender's own address that is meant.
            let mac = option(frame.get(OPTIONS..).unwrap_or_default(), OPTION_TARGET_MAC).unwrap_or(sender);
            Some(Claim { address: target.into(), mac, wanted_only: false })
        }
        Some(&SOLICITATION) if address(SOURCE)?.is_unspecified() => Some(Claim { address: target.into(), mac: sender, wanted_only: true }),
        _ => None,
    }
}

/// The hardware address in the first option of this kind.
fn option(mut options: &[u8], kind: u8) -> Option<Mac> {
    for _ in 0..OPTIONS_MAX {
        let [this, units, rest @ ..] = options else { return None };
        if *this == kind && *units == 1 {
            return rest.get(..6).and_then(|mac| mac.try_into().ok()).map(Mac);
        }
        // One of length 0 would never end.
        options = options.get(usize::from((*units).max(1)) * 8..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Slice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};

    const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x00, 0x00, 0x07]);

    fn vip() -> Ipv6Addr {
        "fd00::1:100".parse().unwrap()
    }

    /// Reads a frame with a parser that is not ours, which checks lengths, and has it reckon the checksum anew.
    fn with_message(frame: &[u8], from: Ipv6Addr, to: Ipv6Addr, group: [u8; 6], check: impl FnOnce(&Icmpv6Slice<'_>)) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet frame") };
        assert_eq!((ethernet.destination(), ethernet.source()), (group, MAC.0));
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6 in it") };
        let header = ip.header();
        assert_eq!((header.source_addr(), header.destination_addr(), header.hop_limit()), (from, to, 255));
        let Some(TransportSlice::Icmpv6(message)) = &packet.transport else { panic!("no ICMPv6 in it") };
        assert!(message.is_checksum_valid(header.source(), header.destination()));
        check(message);
    }

    #[test]
    fn an_announcement_reads_as_an_unsolicited_advertisement_that_overrides() {
        let frame = announcement(MAC, vip());
        with_message(&frame, vip(), ALL_NODES, [0x33, 0x33, 0, 0, 0, 1], |message| {
            assert_eq!((message.type_u8(), message.code_u8()), (136, 0));
            let [flags, ..] = message.bytes5to8();
            assert_eq!(flags, 0x20, "override, and neither router nor solicited");
            let expected = [&vip().octets()[..], &[2, 1], &MAC.0].concat();
            assert_eq!(message.payload(), expected);
        });
        assert_eq!(read(&frame), Some(Claim { address: vip().into(), mac: MAC, wanted_only: false }));
    }

    #[test]
    fn a_probe_reads_as_duplicate_address_detection() {
        let frame = probe(MAC, vip());
        let group = "ff02::1:ff01:100".parse().unwrap();
        with_message(&frame, Ipv6Addr::UNSPECIFIED, group, [0x33, 0x33, 0xff, 1, 1, 0], |message| {
            assert_eq!((message.type_u8(), message.code_u8()), (135, 0));
            // An option with the sender's address must not be there.
            assert_eq!(message.payload(), vip().octets());
        });
        assert_eq!(read(&frame), Some(Claim { address: vip().into(), mac: MAC, wanted_only: true }));
    }

    #[test]
    fn the_target_is_where_the_option_says_or_else_the_sender() {
        let other = Mac([2, 9, 9, 9, 9, 9]);
        let mut frame = announcement(other, vip());
        // As if another machine spoke for it.
        frame.splice(6..12, MAC.0);
        assert_eq!(read(&frame).unwrap().mac, other);
        let unknown_first = [&frame[..OPTIONS], &[14, 1, 0, 0, 0, 0, 0, 0], &frame[OPTIONS..]].concat();
        assert_eq!(read(&unknown_first).unwrap().mac, other);
        assert_eq!(read(&frame[..OPTIONS]).unwrap().mac, MAC);
        let endless = [&frame[..OPTIONS], &[0; 256]].concat();
        assert_eq!(read(&endless).unwrap().mac, MAC);
    }

    #[test]
    fn what_comes_from_elsewhere_is_not_read() {
        let good = announcement(MAC, vip());
        for (at, value) in [(12, 8), (NEXT_HEADER, 17), (HOPS, 64), (MESSAGE, 128), (MESSAGE + 1, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&bad), None, "{at}");
        }
        for length in 0..OPTIONS {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
        let mut asks = probe(MAC, vip());
        asks[SOURCE] = 0xfd;
        assert_eq!(read(&asks), None, "who asks to reach the address has no claim to it");
    }
}
