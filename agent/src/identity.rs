//! Who this node is: boot id, addresses, load.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use cluster_schemas::resources::Amounts;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The kernel's random id of this boot.
///
/// # Errors
/// The system's, where /proc cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Addresses with prefix length by interface, without loopback, link-local IPv6 and those in `vips`.
#[must_use]
pub fn addresses(vips: &[IpAddr]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Ok(all) = getifaddrs() else { return found };
    for interface in all {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = interface.address.as_ref().and_then(ip_of) else { continue };
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if link_local || vips.contains(&address) {
            continue;
        }
        let prefix = interface.netmask.as_ref().and_then(ip_of).map_or(0, prefix_length);
        found.entry(interface.interface_name).or_default().push(format!("{address}/{prefix}"));
    }
    for list in found.values_mut() {
        list.sort();
    }
    found
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(v4) => u32::from(v4).count_ones(),
        IpAddr::V6(v6) => u128::from(v6).count_ones(),
    }
}

/// The first IPv4 address of those, without prefix length.
#[must_use]
pub fn first_address(addresses: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let plain = |a: &String| a.split('/').next().map(ToOwned::to_owned);
    let all = || addresses.values().flatten();
    all().find(|a| !a.contains(':')).or_else(|| all().next()).and_then(plain)
}

/// One-minute load average times 100; 0 where it cannot be read.
#[must_use]
pub fn load_percent() -> u32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let Some((whole, rest)) = text.split_once('.') else { return 0 };
    let hundredths = rest.get(..2).and_then(|h| h.parse::<u32>().ok()).unwrap_or(0);
    whole.parse::<u32>().unwrap_or(0).saturating_mul(100).saturating_add(hundredths)
}

/// What this machine has for Apps: its processors, and its memory; `None` where that cannot be told.
#[must_use]
pub fn capacity() -> Option<Amounts> {
    let processors = std::thread::available_parallelism().ok()?.get();
    let memory_bytes = memory_total(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(Amounts { cpu_millis: u64::try_from(processors).ok()?.checked_mul(1000)?, memory_bytes })
}

/// `MemTotal` of /proc/meminfo in bytes.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_ipv4_where_there_is_one() {
        let one = |list: &[&str]| BTreeMap::from([("eth0".to_owned(), list.iter().map(ToString::to_string).collect())]);
        assert_eq!(first_address(&one(&["fd00::1/64", "10.0.0.1/24"])).as_deref(), Some("10.0.0.1"));
        assert_eq!(first_address(&one(&["fd00::1/64"])).as_deref(), Some("fd00::1"));
        assert_eq!(first_address(&BTreeMap::new()), None);
    }

    #[test]
    fn the_machine_has_processors_and_memory() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!((memory_total(""), memory_total("MemTotal: lots\n")), (None, None));
        let all = capacity().expect("a kernel with /proc");
        assert!(all.cpu_millis >= 1000 && all.memory_bytes > 1 << 20, "{all}");
    }

    #[test]
    fn the_boot_has_an_id() {
        assert_eq!(boot_id().expect("a kernel with /proc").len(), 36);
    }
}
