//! The VIP driver against a real kernel, in network namespaces of its own, verified with `ip`, TCP connections and packet readers.
//! Needs root.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;
mod vip;

use std::time::{Duration, Instant};

use cluster_agent::drivers::netlink::Netlink;
use cluster_agent::drivers::{Held, VipError, Vips as _};
use cluster_schemas::app::VipSpec;
use common::netns::Netns;
use common::packets::{Kind, listen};

const LONG: Duration = Duration::from_secs(60);
/// Long enough for what comes in a moment, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

fn vip(address: &str, interface: &str) -> VipSpec {
    VipSpec { address: address.to_owned(), interface: interface.to_owned() }
}

fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

#[test]
fn a_vip_is_put_there_marked_and_refreshed_and_released() {
    // A dot in the name, as VLANs have.
    let (a, _b) = Netns::pair("eth0.100");
    a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0.100"]);
    let vip = vip("10.0.0.100/24", "eth0.100");
    a.block_on(async || {
        let driver = Netlink::new();
        assert!(!driver.present(&vip).await.unwrap());
        assert_eq!(driver.hold(&vip, Duration::from_secs(5)).await.unwrap(), Held::Fresh);
        assert!(driver.present(&vip).await.unwrap());

        let seen = &a.addresses("eth0.100")["10.0.0.100"];
        assert_eq!(seen["prefixlen"], 32, "{seen}");
        assert_eq!(a.marks().get(&"10.0.0.100".parse().unwrap()), Some(&0xc7));
        assert_eq!(a.marks().get(&"10.0.0.1".parse().unwrap()), None);
        assert!((3..=5).contains(&seen["valid_life_time"].as_u64().unwrap()), "{seen}");
        assert!(seen["secondary"].is_null() && seen["tentative"].is_null(), "{seen}");

        assert_eq!(driver.hold(&vip, Duration::from_secs(50)).await.unwrap(), Held::Refreshed);
        let seen = &a.addresses("eth0.100")["10.0.0.100"];
        assert!(seen["valid_life_time"].as_u64().unwrap() > 40, "{seen}");
        let ours = driver.ours().await.unwrap();
        assert_eq!(ours.len(), 1, "{ours:?}");
        assert_eq!((ours[0].address.to_string().as_str(), ours[0].interface.as_str()), ("10.0.0.100", "eth0.100"));

        // Released by what `ours` says, as a sweep of orphans does.
        driver.release(&ours[0].spec()).await.unwrap();
        assert_eq!(a.addresses("eth0.100").keys().map(String::as_str).filter(|ip| ip.contains('.')).collect::<Vec<_>>(), ["10.0.0.1"]);
        driver.release(&vip).await.unwrap();
        assert!(!driver.present(&vip).await.unwrap());
        assert_eq!(driver.ours().await.unwrap(), []);
    });
}

#[test]
fn f7_a_vip_that_nobody_refreshes_goes_by_itself_and_one_that_is_refreshed_stays() {
    let (a, _b) = Netns::pair("eth0");
    a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0"]);
    let (left, kept) = (vip("10.0.0.100/24", "eth0"), vip("10.0.0.101/24", "eth0"));
    a.block_on(async || {
        let driver = Netlink::new();
        driver.hold(&left, Duration::from_millis(350)).await.unwrap();
        driver.hold(&kept, Duration::from_millis(350)).await.unwrap();
        let start = Instant::now();
        let mut gone_after = None;
        while start.elapsed() < Duration::from_secs(4) {
            assert_eq!(driver.hold(&kept, Duration::from_millis(350)).await.unwrap(), Held::Refreshed, "after {:?}", start.elapsed());
            if gone_after.is_none() && !a.addresses("eth0").contains_key("10.0.0.100") {
                gone_after = Some(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let gone_after = gone_after.expect("the address never went");
        assert!((900..3900).contains(&gone_after.as_millis()), "gone after {gone_after:?}");
        assert!(a.addresses("eth0").contains_key("10.0.0.101"));
        // Gone by itself, so this is a take-over again.
        assert_eq!(driver.hold(&left, LONG).await.unwrap(), Held::Fresh);
    });
}

#[test]
fn an_address_that_somebody_else_put_there_is_never_touched() {
    let (a, _b) = Netns::pair("eth0");
    a.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth2"]);
    a.ip(&["link", "set", "eth1", "up"]);
    a.ip(&["link", "set", "eth2", "up"]);
    a.ip(&["address", "add", "10.0.0.100/24", "dev", "eth0"]);
    // IPv6 addresses come by themselves when a link comes up.
    let addresses = || ["eth0", "eth1"].map(|name| a.addresses(name).into_iter().filter(|(ip, _)| ip.contains('.')).collect::<Vec<_>>());
    let before = addresses();
    assert_eq!((before[0].len(), before[1].len()), (1, 0));
    let (here, elsewhere) = (vip("10.0.0.100/24", "eth0"), vip("10.0.0.100/24", "eth1"));
    a.block_on(async || {
        let driver = Netlink::new();
        for spec in [&here, &elsewhere] {
            let error = driver.hold(spec, LONG).await.unwrap_err();
            let VipError::AddressInUseByHand { address, interface } = &error else { panic!("{error:?}") };
            assert_eq!((address.to_string().as_str(), interface.as_str()), ("10.0.0.100", "eth0"));
            assert!(error.is_permanent() && error.reason() == "VipConfiguredByHand");
            let message = "address 10.0.0.100 is already on interface eth0 and was not put there by clusterctl";
            assert_eq!(error.to_string(), message);
            assert_eq!(driver.probe(spec).await.unwrap_err().to_string(), message, "no question to the link is needed");
            assert!(!driver.present(spec).await.unwrap());
            driver.release(spec).await.unwrap();
        }
        assert_eq!(driver.ours().await.unwrap(), []);
    });
    assert_eq!(addresses(), before);
}

#[test]
fn a_missing_or_down_interface_is_told_apart() {
    let (a, b) = Netns::pair("eth0");
    let vip_here = vip("10.0.0.100/24", "eth0");
    a.block_on(async || {
        let driver = Netlink::new();
        for name in ["eth7", "a-name-that-is-too-long", "", "a b"] {
            let missing = vip("10.0.0.100/24", name);
            let error = driver.hold(&missing, LONG).await.unwrap_err();
            assert!(matches!(&error, VipError::InterfaceMissing { interface } if interface == name), "{name:?}: {error:?}");
            assert!(!error.is_permanent() && error.reason() == "InterfaceMissing");
            assert_eq!(error.to_string(), format!("interface {name} does not exist on this node"));
            assert!(matches!(driver.announce(&missing).await.unwrap_err(), VipError::InterfaceMissing { .. }), "{name:?}");
            driver.release(&missing).await.unwrap();
            assert!(!driver.present(&missing).await.unwrap());
        }
        driver.hold(&vip_here, LONG).await.unwrap();

        b.ip(&["link", "set", "b0", "down"]);
        let error = driver.hold(&vip_here, LONG).await.unwrap_err();
        assert!(matches!(error, VipError::InterfaceDown { reason: "it has no carrier", .. }), "{error:?}");
        assert_eq!((error.reason(), error.to_string().as_str()), ("InterfaceDown", "interface eth0 is down: it has no carrier"));
        assert!(matches!(driver.announce(&vip_here).await.unwrap_err(), VipError::InterfaceDown { .. }));
        b.ip(&["link", "set", "b0", "up"]);
        assert_eq!(driver.hold(&vip_here, LONG).await.unwrap(), Held::Refreshed);

        a.ip(&["link", "set", "eth0", "down"]);
        let error = driver.hold(&vip_here, LONG).await.unwrap_err();
        assert!(matches!(error, VipError::InterfaceDown { reason: "it is switched off", .. }), "{error:?}");
        // Still on the interface, so it is still to be taken away.
        driver.release(&vip_here).await.unwrap();
        assert!(!a.addresses("eth0").contains_key("10.0.0.100"));

        a.ip(&["link", "set", "eth0", "up"]);
        driver.hold(&vip_here, LONG).await.unwrap();
        a.ip(&["link", "set", "eth0", "name", "bond0"]);
        assert!(!driver.present(&vip_here).await.unwrap());
        assert_eq!(driver.ours().await.unwrap()[0].interface, "bond0");
        // The same address, asked for under the interface's new name.
        assert_eq!(driver.hold(&vip("10.0.0.100/24", "bond0"), LONG).await.unwrap(), Held::Refreshed);
        a.ip(&["link", "delete", "bond0"]);
        driver.release(&vip_here).await.unwrap();
        assert_eq!(driver.ours().await.unwrap(), []);
    });
}

#[test]
fn neighbours_hear_three_announcements_in_both_forms_and_follow() {
    let (a, b) = Netns::pair("eth0");
    a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0"]);
    b.ip(&["address", "add", "10.0.0.2/24", "dev", "b0"]);
    // Where the address was before the take-over.
    b.ip(&["neighbour", "replace", "10.0.0.100", "lladdr", "02:00:00:00:00:99", "dev", "b0", "nud", "reachable"]);
    let lladdr = || b.ip_json(&["neighbour", "show", "10.0.0.100"])[0]["lladdr"].as_str().map(str::to_owned);
    assert_eq!(lladdr().as_deref(), Some("02:00:00:00:00:99"));
    let vip = vip("10.0.0.100/24", "eth0");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let heard = std::thread::scope(|scope| {
        let reader = scope.spawn(|| b.run(|| listen(Duration::from_millis(1500), &ready)));
        is_ready.recv().unwrap();
        a.block_on(async || {
            let driver = Netlink::new();
            driver.hold(&vip, LONG).await.unwrap();
            let start = Instant::now();
            driver.announce(&vip).await.unwrap();
            let took = start.elapsed();
            // The burst is over after 200 ms.
            assert!(took < Duration::from_millis(180), "announce took {took:?}: it must not wait for the whole burst");
            wait_until("the neighbour's table follows", SOON, || lladdr().as_deref() == Some(a.mac("eth0").as_str()));
            tokio::time::sleep(Duration::from_millis(1300)).await;
        });
        reader.join().unwrap()
    });
    let kinds: Vec<_> = heard.iter().map(|arp| arp.kind).collect();
    assert_eq!(kinds, [Kind::ArpRequest, Kind::ArpReply].repeat(3), "{heard:?}");
    assert!(heard.iter().all(|arp| arp.from == a.mac("eth0") && arp.address.to_string() == "10.0.0.100"), "{heard:?}");
    let gap = |from: usize, to: usize| (heard[to].after - heard[from].after).as_millis();
    assert!(gap(0, 2) >= 40 && gap(0, 4) >= 180, "{heard:?}");
    let server = a.serve();
    assert!(b.reaches("10.0.0.100", server.local_addr().unwrap().port()));
}

#[test]
fn nothing_is_announced_once_the_address_is_gone() {
    for gone_by_hand in [false, true] {
        let (a, b) = Netns::pair("eth0");
        let vip = vip("10.0.0.100/24", "eth0");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let heard = std::thread::scope(|scope| {
            let reader = scope.spawn(|| b.run(|| listen(Duration::from_millis(450), &ready)));
            is_ready.recv().unwrap();
            a.block_on(async || {
                let driver = Netlink::new();
                driver.hold(&vip, LONG).await.unwrap();
                driver.announce(&vip).await.unwrap();
                if gone_by_hand {
                    a.ip(&["address", "del", "10.0.0.100/32", "dev", "eth0"]);
                } else {
                    driver.release(&vip).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            });
            reader.join().unwrap()
        });
        assert_eq!(heard.len(), 2, "by hand {gone_by_hand}: {heard:?}");
    }
}

#[test]
fn a_vip_and_the_nodes_own_address_do_not_depend_on_each_other() {
    let (a, _b) = Netns::pair("eth0");
    let vip = vip("10.0.0.100/24", "eth0");
    let own = |of: &Netns| of.addresses("eth0").get("10.0.0.1").cloned();
    let source = || a.ip_json(&["route", "get", "10.0.0.2"])[0]["prefsrc"].as_str().map(str::to_owned);
    a.block_on(async || {
        let driver = Netlink::new();
        // The VIP first, as after a boot: the own address must not become a secondary of it.
        driver.hold(&vip, LONG).await.unwrap();
        a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0"]);
        assert!(own(&a).unwrap()["secondary"].is_null());
        assert_eq!(source().as_deref(), Some("10.0.0.1"), "the node's own connections come from its own address");
        driver.release(&vip).await.unwrap();
        assert!(own(&a).is_some(), "the own address went with the VIP");
        assert_eq!(source().as_deref(), Some("10.0.0.1"));

        driver.hold(&vip, LONG).await.unwrap();
        a.ip(&["address", "del", "10.0.0.1/24", "dev", "eth0"]);
        assert!(driver.present(&vip).await.unwrap(), "the VIP went with the own address");
        assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Refreshed);
        assert_eq!(source().as_deref(), Some("10.0.0.100"), "without the own address the network is reached from the VIP");
    });
}

#[test]
fn a_vip_of_another_network_is_reachable_and_its_route_goes_with_it() {
    let (a, b) = Netns::pair("eth0");
    a.ip(&["address", "add", "10.0.0.1/24", "dev", "eth0"]);
    b.ip(&["address", "add", "192.168.7.2/24", "dev", "b0"]);
    let (one, two) = (vip("192.168.7.100/24", "eth0"), vip("192.168.7.101/24", "eth0"));
    let route = || a.ip(&["route", "show", "192.168.7.0/24"]);
    let server = a.serve();
    a.block_on(async || {
        let driver = Netlink::new();
        driver.hold(&one, LONG).await.unwrap();
        driver.hold(&two, LONG).await.unwrap();
        for address in ["192.168.7.100", "192.168.7.101"] {
            assert!(b.reaches(address, server.local_addr().unwrap().port()), "{address}");
        }
        driver.release(&one).await.unwrap();
        assert!(driver.present(&two).await.unwrap(), "one VIP went with the other");
        assert_eq!(driver.hold(&two, Duration::from_secs(1)).await.unwrap(), Held::Refreshed);
        assert!(route().contains("192.168.7.101"), "{}", route());
        wait_until("the route goes with the address that nobody refreshes", Duration::from_secs(4), || route().is_empty());
    });
}

#[test]
fn an_ipv6_vip_is_there_at_once_and_not_used_for_own_connections() {
    let (a, b) = Netns::pair("eth0");
    a.ip(&["address", "add", "fd00::1/64", "dev", "eth0", "nodad"]);
    b.ip(&["address", "add", "fd00::2/64", "dev", "b0", "nodad"]);
    // Where the address was before the take-over.
    b.ip(&["neighbour", "replace", "fd00::100", "lladdr", "02:00:00:00:00:99", "dev", "b0", "nud", "reachable"]);
    let lladdr = || b.ip_json(&["neighbour", "show", "fd00::100"])[0]["lladdr"].as_str().map(str::to_owned);
    let vip = vip("fd00::100/64", "eth0");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let heard = std::thread::scope(|scope| {
        let reader = scope.spawn(|| b.run(|| listen(Duration::from_millis(1500), &ready)));
        is_ready.recv().unwrap();
        a.block_on(async || {
            let driver = Netlink::new();
            let start = Instant::now();
            assert_eq!(driver.hold(&vip, Duration::from_secs(5)).await.unwrap(), Held::Fresh);
            assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
            // With duplicate detection it would be tentative for a second and more.
            let seen = &a.addresses("eth0")["fd00::100"];
            assert!(seen["tentative"].is_null() && seen["deprecated"] == true, "{seen}");
            assert_eq!(seen["prefixlen"], 128, "{seen}");
            assert!((3..=5).contains(&seen["valid_life_time"].as_u64().unwrap()), "{seen}");
            assert_eq!(a.marks().get(&"fd00::100".parse().unwrap()), Some(&0xc7));
            let source = a.ip_json(&["-6", "route", "get", "fd00::2"])[0]["prefsrc"].clone();
            assert_eq!(source, "fd00::1");

            driver.announce(&vip).await.unwrap();
            wait_until("the neighbour's table follows", SOON, || lladdr().as_deref() == Some(a.mac("eth0").as_str()));
            assert_eq!(driver.hold(&vip, Duration::from_secs(5)).await.unwrap(), Held::Refreshed);
            tokio::time::sleep(Duration::from_millis(1300)).await;
        });
        reader.join().unwrap()
    });
    let ours: Vec<_> = heard.iter().filter(|frame| frame.address.to_string() == "fd00::100").collect();
    assert_eq!(ours.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [Kind::Advertisement; 3], "{heard:?}");
    assert!(ours.iter().all(|frame| frame.from == a.mac("eth0")), "{heard:?}");
    let gap = |to: usize| (ours[to].after - ours[0].after).as_millis();
    assert!(gap(1) >= 40 && gap(2) >= 180, "{heard:?}");
    let server = a.serve();
    assert!(b.reaches("fd00::100", server.local_addr().unwrap().port()));
}

#[test]
fn f7_an_ipv6_vip_goes_by_itself_and_leaves_the_nodes_own_network_alone() {
    let (a, _b) = Netns::pair("eth0");
    a.ip(&["address", "add", "fd00::1/64", "dev", "eth0", "nodad"]);
    let vip = vip("fd00::100/64", "eth0");
    let own_route = || a.ip_json(&["-6", "route", "show", "fd00::/64"]);
    let before = own_route();
    assert_eq!(before.as_array().unwrap().len(), 1, "{before}");
    a.block_on(async || {
        let driver = Netlink::new();
        for _ in 0..3 {
            driver.hold(&vip, Duration::from_secs(1)).await.unwrap();
        }
        assert_eq!(own_route(), before, "the node's own route has nothing to do with the VIP");
        wait_until("it goes by itself", Duration::from_secs(4), || !a.addresses("eth0").contains_key("fd00::100"));
        assert_eq!(own_route(), before);
        assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh);
        driver.release(&vip).await.unwrap();
        assert_eq!(driver.ours().await.unwrap(), []);
        assert_eq!(own_route(), before);
    });
}

#[test]
fn an_ipv6_vip_of_another_network_is_reachable_and_its_route_goes_with_the_last() {
    let (a, b) = Netns::pair("eth0");
    a.ip(&["address", "add", "fd00::1/64", "dev", "eth0", "nodad"]);
    b.ip(&["address", "add", "fd07::2/64", "dev", "b0", "nodad"]);
    let (one, two) = (vip("fd07::100/64", "eth0"), vip("fd07::101/64", "eth0"));
    let route = || a.ip_json(&["-6", "route", "show", "fd07::/64"]).as_array().cloned().unwrap_or_default();
    let server = a.serve();
    a.block_on(async || {
        let driver = Netlink::new();
        driver.hold(&one, LONG).await.unwrap();
        driver.hold(&two, LONG).await.unwrap();
        for address in ["fd07::100", "fd07::101"] {
            assert!(b.reaches(address, server.local_addr().unwrap().port()), "{address}");
        }
        assert!(route()[0]["expires"].as_u64().is_some_and(|seconds| (60..=75).contains(&seconds)), "{:?}", route());
        driver.release(&one).await.unwrap();
        assert_eq!(route().len(), 1, "the other VIP needs it");
        // Somebody took the route away: it is back with the address at the latest.
        a.ip(&["address", "del", "fd07::101/128", "dev", "eth0"]);
        a.ip(&["-6", "route", "del", "fd07::/64", "dev", "eth0"]);
        assert_eq!(driver.hold(&two, LONG).await.unwrap(), Held::Fresh);
        assert!(b.reaches("fd07::101", server.local_addr().unwrap().port()));
        driver.release(&two).await.unwrap();
        assert_eq!(route(), [] as [serde_json::Value; 0]);
    });
}

#[test]
fn changes_are_told_but_not_our_own_refreshes() {
    let (a, b) = Netns::pair("eth0");
    let vip = vip("10.0.0.100/24", "eth0");
    a.block_on(async || {
        let driver = Netlink::new();
        let mut changes = driver.changes();
        // Interfaces that come up settle first, IPv6 addresses included.
        while tokio::time::timeout(Duration::from_secs(2), changes.changed()).await.is_ok() {}
        for _ in 0..20 {
            driver.hold(&vip, LONG).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!changes.has_changed().unwrap(), "our own refreshes would wake everybody several times a second");

        a.ip(&["address", "del", "10.0.0.100/32", "dev", "eth0"]);
        tokio::time::timeout(SOON, changes.changed()).await.expect("somebody deleted the address").unwrap();
        assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh);

        changes.mark_unchanged();
        b.ip(&["link", "set", "b0", "down"]);
        tokio::time::timeout(SOON, changes.changed()).await.expect("the carrier is gone").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        changes.mark_unchanged();
        b.ip(&["link", "set", "b0", "up"]);
        tokio::time::timeout(SOON, changes.changed()).await.expect("the carrier is back").unwrap();
    });
}
