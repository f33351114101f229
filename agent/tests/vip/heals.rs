//! What happens to a node's network while it holds addresses: links and interfaces that go and come, addresses that somebody removes or
//! put there, and what an earlier agent left.

use std::time::{Duration, Instant};

use cluster_agent::drivers::netlink::Netlink;
use cluster_agent::drivers::{Held, VipError, Vips as _};

use super::conflicts::{STRANGER, announced, both, heard_while, ip, next};
use crate::common::netns::Netns;
use crate::common::packets::{claim, claim_over};
use crate::{LONG, SOON, vip};

#[test]
fn a_link_that_comes_up_again_is_told_again() {
    let (a, b) = Netns::pair("eth0");
    let heard = heard_while(&a, &b, Duration::from_millis(2500), async || {
        let driver = Netlink::new();
        for vip in both("eth0") {
            driver.hold(&vip, LONG).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // The other end of the cable.
        b.ip(&["link", "set", "b0", "down"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        b.ip(&["link", "set", "b0", "up"]);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for vip in both("eth0") {
            assert!(driver.present(&vip).await.unwrap(), "{}", vip.address);
        }
    });
    let since = heard.iter().map(|frame| frame.after).find(|after| *after > Duration::from_millis(290));
    for vip in both("eth0") {
        let told = announced(&heard, &vip).into_iter().filter(|frame| Some(frame.after) >= since).count();
        assert!(told >= 3, "{}: {told} {heard:?}", vip.address);
    }
}

#[test]
fn a_reconnect_and_another_hardware_address_are_told_too() {
    let (a, b) = Netns::pair("eth0");
    let (mut reconnected, mut changed) = (Duration::ZERO, Duration::ZERO);
    let heard = heard_while(&a, &b, Duration::from_millis(7500), async || {
        let start = Instant::now();
        let driver = Netlink::new();
        assert_eq!(driver.announce_held(), 0);
        for vip in both("eth0") {
            driver.hold(&vip, LONG).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(3600)).await;
        reconnected = start.elapsed();
        for _ in 0..15 {
            // One who calls it in a loop makes no flood of it.
            assert_eq!(driver.announce_held(), 2);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(3300)).await;
        changed = start.elapsed();
        a.ip(&["link", "set", "eth0", "address", "02:00:00:00:00:07"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    for vip in both("eth0") {
        let all = announced(&heard, &vip);
        let row = all.iter().filter(|frame| (reconnected..changed).contains(&frame.after)).count();
        assert_eq!(row, 4, "{}: {heard:?}", vip.address);
        let moved: Vec<_> = all.iter().filter(|frame| frame.after >= changed).collect();
        assert!(!moved.is_empty() && moved.iter().all(|frame| frame.from == "02:00:00:00:00:07"), "{}: {moved:?}", vip.address);
    }
}

#[test]
fn a_vip_that_somebody_deletes_is_noticed_and_put_back() {
    let (a, b) = Netns::pair("eth0");
    let server = a.serve();
    b.ip(&["address", "add", "10.0.0.2/24", "dev", "b0"]);
    b.ip(&["address", "add", "fd00::2/64", "dev", "b0", "nodad"]);
    a.block_on(async || {
        let driver = Netlink::new();
        let mut changes = driver.changes();
        // Interfaces that come up settle first.
        while tokio::time::timeout(Duration::from_secs(2), changes.changed()).await.is_ok() {}
        for (vip, command) in both("eth0").iter().zip([
            ["address", "del", "10.0.0.100/32", "dev", "eth0"].as_slice(),
            // As networkd does with what it does not know.
            ["address", "flush", "dev", "eth0", "scope", "global"].as_slice(),
        ]) {
            driver.hold(vip, LONG).await.unwrap();
            changes.mark_unchanged();
            a.ip(command);
            let start = Instant::now();
            tokio::time::timeout(SOON, changes.changed()).await.expect("somebody deleted the address").unwrap();
            assert!(!driver.present(vip).await.unwrap(), "{}", vip.address);
            // What the worker does about it.
            assert_eq!(driver.hold(vip, LONG).await.unwrap(), Held::Fresh);
            driver.announce(vip).await.unwrap();
            println!("{} is back after {:?}", vip.address, start.elapsed());
            assert!(b.reaches(vip.ip(), server.local_addr().unwrap().port()), "{}", vip.address);
        }
    });
}

#[test]
fn an_interface_that_is_switched_off_and_on_has_its_vips_again() {
    let (a, b) = Netns::pair("eth0");
    let server = a.serve();
    b.ip(&["address", "add", "10.0.0.2/24", "dev", "b0"]);
    b.ip(&["address", "add", "fd00::2/64", "dev", "b0", "nodad"]);
    a.block_on(async || {
        let driver = Netlink::new();
        let mut changes = driver.changes();
        for vip in both("eth0") {
            driver.hold(&vip, LONG).await.unwrap();
            driver.announce(&vip).await.unwrap();
            assert!(b.reaches(vip.ip(), server.local_addr().unwrap().port()), "{}", vip.address);
        }
        a.ip(&["link", "set", "eth0", "down"]);
        for vip in both("eth0") {
            let error = driver.hold(&vip, LONG).await.unwrap_err();
            assert!(matches!(error, VipError::InterfaceDown { reason: "it is switched off", .. }), "{error:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        changes.mark_unchanged();
        a.ip(&["link", "set", "eth0", "up"]);
        tokio::time::timeout(SOON, changes.changed()).await.expect("the link is up again").unwrap();
        for vip in both("eth0") {
            // The kernel kept the one and dropped the other; the networks of both are gone.
            let found = driver.hold(&vip, LONG).await.unwrap();
            assert_eq!(found, if ip(&vip).is_ipv4() { Held::Refreshed } else { Held::Fresh });
            driver.announce(&vip).await.unwrap();
            assert!(b.reaches(vip.ip(), server.local_addr().unwrap().port()), "{}", vip.address);
        }
    });
}

#[test]
fn an_interface_that_is_made_anew_gets_its_vips_anew() {
    let (a, b) = Netns::pair("eth0");
    a.block_on(async || {
        let driver = Netlink::new();
        for vip in both("eth0") {
            driver.hold(&vip, LONG).await.unwrap();
        }
        a.ip(&["link", "delete", "eth0"]);
        for vip in both("eth0") {
            let error = driver.hold(&vip, LONG).await.unwrap_err();
            assert!(matches!(error, VipError::InterfaceMissing { .. }), "{error:?}");
        }
        // Another one, with another index and hardware address, of the same name.
        let mut changes = driver.changes();
        a.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other"]);
        a.ip(&["link", "set", "other", "up"]);
        a.ip(&["link", "set", "eth0", "up"]);
        tokio::time::timeout(SOON, changes.changed()).await.expect("there is a new link").unwrap();
        let mut conflicts = driver.conflicts();
        for vip in both("eth0") {
            assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh);
            driver.announce(&vip).await.unwrap();
        }
        // Watched on the new one.
        tokio::time::sleep(Duration::from_millis(100)).await;
        a.run(|| claim_over("other", ip(&both("eth0")[0]), STRANGER));
        assert_eq!(next(&mut conflicts).await.interface, "eth0");
    });
    drop(b);
}

#[test]
fn bonds_and_vlans_are_interfaces_like_any_other() {
    for name in ["bond0", "eth0.100", "br-lan", "enp0s31f6"] {
        let (a, b) = Netns::pair("t0");
        a.ip(&["link", "set", "t0", "down"]);
        a.ip(&["link", "set", "t0", "name", name]);
        a.ip(&["link", "set", name, "up"]);
        let heard = heard_while(&a, &b, Duration::from_millis(300), async || {
            let driver = Netlink::new();
            for vip in both(name) {
                assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh, "{name}");
                driver.announce(&vip).await.unwrap();
                assert!(driver.present(&vip).await.unwrap(), "{name}");
            }
            let mut conflicts = driver.conflicts();
            tokio::time::sleep(Duration::from_millis(50)).await;
            b.run(|| claim("10.0.0.100".parse().unwrap(), STRANGER));
            assert_eq!(next(&mut conflicts).await.interface, name);
            assert!(driver.ours().await.unwrap().iter().all(|held| held.interface == name));
            for vip in both(name) {
                driver.release(&vip).await.unwrap();
            }
        });
        for vip in both(name) {
            assert!(!announced(&heard, &vip).is_empty(), "{name}: {heard:?}");
        }
    }
}

#[test]
fn an_interface_without_ipv6_and_an_ipv6_vip_by_hand_are_told_apart() {
    let (a, _b) = Netns::pair("eth0");
    let [_, vip] = both("eth0");
    a.block_on(async || {
        let driver = Netlink::new();
        a.ip(&["address", "add", "fd00::100/64", "dev", "eth0", "nodad"]);
        let error = driver.hold(&vip, LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "address fd00::100 is already on interface eth0 and was not put there by clusterctl");
        driver.release(&vip).await.unwrap();
        assert_eq!(a.addresses("eth0")["fd00::100"]["prefixlen"], 64, "it is not touched");

        a.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
        let error = driver.hold(&vip, LONG).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.reason(), error.is_permanent()),
            ("IPv6 is switched off on interface eth0 (sysctl disable_ipv6)", "Ipv6Off", true)
        );
        a.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
        assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh);
    });
}

#[test]
fn orphans_are_known_by_their_mark_and_others_are_left() {
    let (a, _b) = Netns::pair("eth0");
    a.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth2"]);
    for name in ["eth1", "eth2"] {
        a.ip(&["link", "set", name, "up"]);
    }
    a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0"]);
    a.ip(&["address", "add", "10.0.0.3/32", "dev", "eth0", "valid_lft", "60", "preferred_lft", "60"]);
    a.ip(&["address", "add", "fd00::1/64", "dev", "eth0", "nodad"]);
    a.ip(&["address", "add", "fd00::3/128", "dev", "eth1", "nodad"]);
    let orphans = [vip("10.0.0.100/24", "eth0"), vip("10.1.0.100/24", "eth1"), vip("fd00::100/64", "eth0")];
    let by_hand = ["10.0.0.1", "10.0.0.3", "fd00::1", "fd00::3"];
    let all = || {
        let names = ["eth0", "eth1"].iter().flat_map(|name| a.addresses(name).into_keys());
        names.filter(|ip| !ip.starts_with("fe80")).collect::<std::collections::BTreeSet<_>>()
    };
    a.block_on(async || {
        let earlier = Netlink::new();
        for vip in &orphans {
            earlier.hold(vip, LONG).await.unwrap();
        }
        drop(earlier);
        assert_eq!(all().len(), by_hand.len() + orphans.len());
        // As an agent does at its start.
        let driver = Netlink::new();
        let found = driver.ours().await.unwrap();
        assert_eq!(found.iter().map(|held| held.address.to_string()).collect::<Vec<_>>(), ["10.0.0.100", "10.1.0.100", "fd00::100"]);
        for held in found {
            driver.release(&held.spec()).await.unwrap();
        }
        assert_eq!(all(), by_hand.iter().map(|ip| (*ip).to_owned()).collect());
    });
}
