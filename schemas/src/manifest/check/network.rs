//! The floating address.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;

/// Longest name of a network interface, in bytes: the kernel's IFNAMSIZ without its final NUL.
pub(super) const INTERFACE_BYTES_MAX: usize = 15;

impl Checker<'_> {
    pub(super) fn vip(&mut self) {
        let Some(vip) = &self.app.spec.vip else { return };
        if let Err((rule, message, hint)) = check_address(&vip.address) {
            self.value("/spec/vip/address", rule, message, hint);
        }
        let name = vip.interface.as_str();
        let bad = name.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '/' | ':'));
        let message = if name.is_empty() || name == "." || name == ".." {
            format!("{} is no name of an interface", quote(name))
        } else if name.len() > INTERFACE_BYTES_MAX {
            format!("the name of an interface has at most {INTERFACE_BYTES_MAX} characters, {} has {}", quote(name), name.len())
        } else if let Some(bad) = bad {
            format!("{} cannot stand in the name of an interface", quote(&bad.to_string()))
        } else {
            return;
        };
        self.value("/spec/vip/interface", Rule::VipInterface, message, "such as `eth0`, `bond0` or `eth0.100`".to_owned());
    }
}

type Refusal = (Rule, String, Option<String>);

fn refuse(message: String, hint: &str) -> Result<(), Refusal> {
    Err((Rule::VipAddress, message, (!hint.is_empty()).then(|| hint.to_owned())))
}

fn check_address(given: &str) -> Result<(), Refusal> {
    let (ip, prefix) = match given.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (given, None),
    };
    if ip.contains(':') {
        return check_ipv6(given, ip, prefix);
    }
    let Ok(address) = ip.parse::<Ipv4Addr>() else {
        return refuse(
            format!("{} is no IPv4 address", quote(ip)),
            "write four numbers from 0 to 255 and the prefix length, such as `10.0.0.100/24`",
        );
    };
    let Some(prefix) = prefix else {
        return refuse(
            format!("{} has no prefix length", quote(given)),
            &format!("write `{address}/24` if the network is {}", network(address, 24)),
        );
    };
    let Some(length) = prefix_length(prefix, 32) else {
        return refuse(format!("{} is no prefix length", quote(prefix)), "write a number from 1 to 32");
    };
    let why = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.is_broadcast() {
        "the broadcast address"
    } else if matches!(address.octets()[0], 0 | 240..) {
        "a reserved address"
    } else {
        return check_host(address, length);
    };
    refuse(format!("{} is {why}: no machine can have it", quote(ip)), "")
}

/// A network of two addresses or one has neither a network address nor a broadcast address.
fn check_host(address: Ipv4Addr, length: u8) -> Result<(), Refusal> {
    if length > 30 {
        return Ok(());
    }
    let host = u32::from(address) & (u32::MAX >> length);
    let what = if host == 0 {
        "the address of the network itself"
    } else if host == u32::MAX >> length {
        "the broadcast address"
    } else {
        return Ok(());
    };
    refuse(format!("`{address}` is {what} in {}", network(address, length)), "choose a free address between the first and the last")
}

fn prefix_length(text: &str, longest: u8) -> Option<u8> {
    text.parse::<u8>().ok().filter(|n| (1..=longest).contains(n) && n.to_string() == text)
}

fn check_ipv6(given: &str, ip: &str, prefix: Option<&str>) -> Result<(), Refusal> {
    let Ok(address) = ip.parse::<Ipv6Addr>() else {
        let hint = "write eight groups of hexadecimal digits, the longest row of zeros as `::`, such as `fd00::100/64`";
        return refuse(format!("{} is no IPv6 address", quote(ip)), hint);
    };
    let Some(prefix) = prefix else {
        let hint = format!("write `{address}/64` if the network is {}", network6(address, 64));
        return refuse(format!("{} has no prefix length", quote(given)), &hint);
    };
    let Some(length) = prefix_length(prefix, 128) else {
        return refuse(format!("{} is no prefix length", quote(prefix)), "write a number from 1 to 128");
    };
    if let Some(v4) = address.to_ipv4_mapped() {
        return refuse(format!("{} is an IPv4 address written as IPv6", quote(ip)), &format!("write `{v4}` and its prefix length"));
    }
    if address.is_unicast_link_local() {
        let hint = "choose one of the network that its users are routed to, such as `fd00::100/64`";
        return refuse(format!("{} is a link-local address: it means another machine on every link", quote(ip)), hint);
    }
    let why = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.octets()[0] == 0 {
        "a reserved address"
    } else if address.to_string() != ip {
        // VIPs are told apart by their text everywhere else.
        return refuse(format!("{} is not how this address is written (RFC 5952)", quote(ip)), &format!("write `{address}/{length}`"));
    } else if length < 127 && host6(address, length) == 0 {
        let message = format!("`{address}` is the address of the network itself in {}", network6(address, length));
        return refuse(message, "choose another address of the network: this one means any of its routers");
    } else {
        return Ok(());
    };
    refuse(format!("{} is {why}: no machine can have it", quote(ip)), "")
}

/// The part of the address behind the network's.
fn host6(address: Ipv6Addr, length: u8) -> u128 {
    u128::from(address) & u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

fn network6(address: Ipv6Addr, length: u8) -> String {
    format!("`{}/{length}`", Ipv6Addr::from(u128::from(address) ^ host6(address, length)))
}

fn network(address: Ipv4Addr, length: u8) -> String {
    let mask = u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
    format!("`{}/{length}`", Ipv4Addr::from(u32::from(address) & mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_hosts_pass() {
        for good in ["10.0.0.100/24", "192.168.1.1/32", "10.0.0.0/31", "10.0.0.1/31", "172.16.0.1/1", "169.254.1.1/16", "10.0.1.0/16"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for good in ["fd00::100/64", "2001:db8::1/128", "2001:db8:0:1:2:3:4:5/48", "fd00::/127", "fd00::/128", "fdff:ffff::1/1"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0.1/024",
            "10.0.0.1/+8",
            "10.0.0.01/24",
            "10.0.0/24",
            "10.0.0.256/24",
            "10.0.0.1/24/24",
            " 10.0.0.1/24",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.0.0.3/30",
            "127.0.0.1/8",
            "0.0.0.0/24",
            "0.1.2.3/24",
            "224.0.0.1/24",
            "255.255.255.255/32",
            "240.0.0.1/24",
            "host/24",
        ] {
            assert_eq!(check_address(bad).map_err(|refusal| refusal.0), Err(Rule::VipAddress), "{bad}");
        }
        for six in [
            "fd00::1",
            "fd00::1/",
            "fd00::1/0",
            "fd00::1/129",
            "fd00::1/064",
            "fd00::g/64",
            "fd00::1%eth0/64",
            "[fd00::1]/64",
            "fd00::1::2/64",
            "FD00::1/64",
            "fd00:0::1/64",
            "fd00:0:0:0:0:0:0:1/64",
            "fd00::0001/64",
            "fd00::/64",
            "2001:db8:1::/48",
            "::/64",
            "::1/128",
            "::ffff:10.0.0.1/96",
            "::10.0.0.1/96",
            "64:ff9b::1/96",
            "fe80::1/64",
            "febf::1/64",
            "ff02::1/64",
        ] {
            assert_eq!(check_address(six).map_err(|refusal| refusal.0), Err(Rule::VipAddress), "{six}");
        }
    }
}
