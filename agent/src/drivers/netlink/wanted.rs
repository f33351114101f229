//! What a VIP's spec asks the kernel for: pure.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cluster_schemas::app::VipSpec;

use super::kernel::{Address, FOREVER, mask, mask6};
use crate::drivers::VipError;

/// What is to be put on the interface: always a host address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ip: IpAddr,
    /// The full length.
    pub(super) prefix: u8,
    /// Prefix length of the network that the App names, unless that is the address alone.
    pub(super) network: Option<u8>,
}

impl Wanted {
    pub(super) fn of(vip: &VipSpec) -> Result<Self, VipError> {
        let bad = |reason| VipError::BadAddress { address: vip.address.clone(), reason };
        let (ip, length) = vip.address.split_once('/').ok_or_else(|| bad("has no prefix length, such as /24"))?;
        let ip: IpAddr = ip.parse().map_err(|_| bad("is no IP address"))?;
        let length: u8 = length.parse().map_err(|_| bad("has a prefix length that is no number"))?;
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(bad("is no address of a single machine"));
        }
        let full = if ip.is_ipv4() { 32 } else { 128 };
        match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(bad("is another address on every link")),
            IpAddr::V4(_) if !(1..=full).contains(&length) => Err(bad("has a prefix length that is not 1 to 32")),
            IpAddr::V6(_) if !(1..=full).contains(&length) => Err(bad("has a prefix length that is not 1 to 128")),
            _ => Ok(Self { ip, prefix: full, network: (length < full).then_some(length) }),
        }
    }
}

/// Whether two addresses are in one network of this length.
pub(super) const fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()) & mask(prefix) == 0,
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()) & mask6(prefix) == 0,
        _ => false,
    }
}

/// Whether the network of an interface's address has `ip` in it. Host addresses have no network.
pub(super) const fn covers(address: &Address, ip: IpAddr) -> bool {
    let full = if address.ip.is_ipv4() { 32 } else { 128 };
    address.prefix < full && same_network(address.ip, ip, address.prefix)
}

/// Rounded up, at least one, and never the kernel's "for ever".
pub(super) fn whole_seconds(valid: Duration) -> u32 {
    let seconds = valid.as_secs() + u64::from(valid.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(FOREVER).clamp(1, FOREVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(address: &str) -> VipSpec {
        VipSpec { address: address.to_owned(), interface: "eth0".to_owned() }
    }

    #[test]
    fn a_vip_is_a_host_address_whatever_its_network() {
        let wanted = |address| Wanted::of(&vip(address)).map(|wanted| (wanted.prefix, wanted.network)).unwrap();
        assert_eq!(wanted("10.0.0.100/24"), (32, Some(24)));
        assert_eq!(wanted("10.0.0.100/32"), (32, None));
        assert_eq!(wanted("fd00::1/64"), (128, Some(64)));
        assert_eq!(wanted("fd00::1/128"), (128, None));
    }

    #[test]
    fn what_is_no_single_address_is_refused() {
        for bad in [
            "10.0.0.1",
            "10.0.0/24",
            "10.0.0.1/33",
            "10.0.0.1/0",
            "10.0.0.1/x",
            "::/64",
            "0.0.0.0/8",
            "224.0.0.1/4",
            "fd00::1/129",
            "fd00::1/0",
            "fd00::1",
            "fe80::1/64",
            "ff02::1/128",
            "",
        ] {
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
        let (v4, v6) = ("10.0.0.100".parse().unwrap(), "fd00::100".parse().unwrap());
        assert!(covers(&own("10.0.0.1", 24), v4));
        assert!(covers(&own("10.9.9.9", 8), v4));
        assert!(!covers(&own("10.0.1.1", 24), v4));
        assert!(!covers(&own("10.0.0.100", 32), v4));
        assert!(!covers(&own("fd00::1", 64), v4));
        assert!(covers(&own("fd00::1", 64), v6));
        assert!(!covers(&own("fd00:0:0:1::1", 64), v6));
        assert!(!covers(&own("fe80::1", 64), v6));
        assert!(!covers(&own("fd00::100", 128), v6));
    }
}
