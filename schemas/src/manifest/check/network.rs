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

fn check_address(given: &str) -> Result<(), Refusal> {
    let refuse = |message: String, hint: &str| Err((Rule::VipAddress, message, (!hint.is_empty()).then(|| hint.to_owned())));
    let (ip, prefix) = match given.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (given, None),
    };
    if ip.parse::<Ipv6Addr>().is_ok() {
        let hint = Some("write an IPv4 address such as `10.0.0.100/24`".to_owned());
        return Err((Rule::NotImplemented, "IPv6 is not implemented yet".to_owned(), hint));
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
    let Some(length) = prefix.parse::<u8>().ok().filter(|n| (1..=32).contains(n) && n.to_string() == prefix) else {
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
    let message = format!("`{address}` is {what} in {}", network(address, length));
    Err((Rule::VipAddress, message, Some("choose a free address between the first and the last".to_owned())))
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
        for six in ["fd00::1/64", "::1", "::ffff:10.0.0.1/96"] {
            assert_eq!(check_address(six).map_err(|refusal| refusal.0), Err(Rule::NotImplemented), "{six}");
        }
    }
}
