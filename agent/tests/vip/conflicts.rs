//! Other machines on the link: asked before the first activation, listened to afterwards, told again after every heal.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cluster_agent::drivers::netlink::Netlink;
use cluster_agent::drivers::{Conflict, Held, Mac, VipError, Vips as _};
use cluster_schemas::app::VipSpec;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::common::netns::Netns;
use crate::common::packets::{Heard, Kind, claim, listen};
use crate::{LONG, vip};

pub(super) const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// One of each family.
pub(super) fn both(interface: &str) -> [VipSpec; 2] {
    [vip("10.0.0.100/24", interface), vip("fd00::100/64", interface)]
}

pub(super) fn ip(vip: &VipSpec) -> IpAddr {
    vip.ip().parse().unwrap()
}

pub(super) async fn next(conflicts: &mut Receiver<Conflict>) -> Conflict {
    tokio::time::timeout(Duration::from_secs(10), conflicts.recv()).await.expect("a conflict is reported").unwrap()
}

/// What is heard at the other end of the cable while `body` runs in `a`, and for `time` from its beginning at least.
pub(super) fn heard_while(a: &Netns, b: &Netns, time: Duration, body: impl AsyncFnOnce() + Send) -> Vec<Heard> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| b.run(|| listen(time, &ready)));
        is_ready.recv().unwrap();
        let start = Instant::now();
        a.block_on(async || {
            body().await;
            tokio::time::sleep(time.saturating_sub(start.elapsed())).await;
        });
        reader.join().unwrap()
    })
}

/// The announcements of an address among what was heard, but for the stranger's: each has two frames for IPv4 and one for IPv6.
pub(super) fn announced<'a>(heard: &'a [Heard], vip: &VipSpec) -> Vec<&'a Heard> {
    let stranger = Mac(STRANGER).to_string();
    let is_one = |frame: &&Heard| matches!(frame.kind, Kind::ArpReply | Kind::Advertisement) && frame.from != stranger;
    heard.iter().filter(|frame| frame.address == ip(vip)).filter(is_one).collect()
}

#[test]
fn a_probe_finds_the_machine_that_has_the_address_and_tells_nobody_anything() {
    let (a, b) = Netns::pair("eth0");
    b.ip(&["address", "add", "10.0.0.100/24", "dev", "b0"]);
    b.ip(&["address", "add", "fd00::100/64", "dev", "b0", "nodad"]);
    let theirs = b.mac("b0");
    let heard = heard_while(&a, &b, Duration::from_millis(700), async || {
        let driver = Netlink::new();
        for vip in both("eth0") {
            let start = Instant::now();
            let error = driver.probe(&vip).await.unwrap_err();
            let took = start.elapsed();
            // Without an answer a probe takes 400 ms; what was heard below tells that one question was asked.
            assert!(took < Duration::from_millis(350), "it answers to the first question: {took:?}");
            let VipError::Taken { address, interface, mac } = &error else { panic!("{error:?}") };
            assert_eq!((*address, interface.as_str(), mac.to_string()), (ip(&vip), "eth0", theirs.clone()));
            let expected =
                format!("address {} is in use on the link of interface eth0, by the machine with the hardware address {theirs}", vip.ip());
            assert_eq!((error.to_string(), error.reason(), error.is_permanent()), (expected, "VipTaken", false));
        }
        assert_eq!(driver.ours().await.unwrap(), [], "a question puts nothing there");
    });
    // Nothing but questions, and nobody learns from them that the address is here.
    for vip in both("eth0") {
        let about: Vec<_> = heard.iter().filter(|frame| frame.address == ip(&vip)).map(|frame| frame.kind).collect();
        assert_eq!(about, [Kind::Probe], "{heard:?}");
        assert_eq!(b.ip_json(&["neighbour", "show", vip.ip()]), serde_json::json!([]));
    }
}

#[test]
fn a_probe_of_a_free_address_asks_three_times_and_ends() {
    let (a, b) = Netns::pair("eth0");
    let mine = vip("10.0.0.101/24", "eth0");
    let heard = heard_while(&a, &b, Duration::from_millis(1100), async || {
        let driver = Netlink::new();
        for vip in both("eth0") {
            let start = Instant::now();
            driver.probe(&vip).await.unwrap();
            let took = start.elapsed();
            assert!((400..900).contains(&took.as_millis()), "{took:?}");
        }
        // Where it is already, nobody needs to be asked.
        driver.hold(&mine, LONG).await.unwrap();
        let start = Instant::now();
        driver.probe(&mine).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(350), "nobody is asked");
        assert!(matches!(driver.probe(&vip("10.0.0.100/24", "eth7")).await.unwrap_err(), VipError::InterfaceMissing { .. }));
        a.ip(&["link", "set", "lo", "up"]);
        driver.probe(&vip("10.0.0.100/24", "lo")).await.unwrap();
    });
    for vip in both("eth0") {
        let asked: Vec<_> = heard.iter().filter(|frame| frame.address == ip(&vip) && frame.kind == Kind::Probe).collect();
        assert_eq!(asked.len(), 3, "one question may be lost: {heard:?}");
    }
    b.ip(&["link", "set", "b0", "down"]);
    a.block_on(async || {
        let error = Netlink::new().probe(&vip("10.0.0.100/24", "eth0")).await.unwrap_err();
        assert!(matches!(error, VipError::InterfaceDown { .. }), "{error:?}");
    });
}

#[test]
fn of_two_that_want_the_same_address_at_once_one_goes_on_at_most() {
    let (a, b) = Netns::pair("eth0");
    for (here, there) in both("eth0").iter().zip(both("b0")) {
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| b.block_on(async || Netlink::new().probe(&there).await));
            let one = a.block_on(async || Netlink::new().probe(here).await);
            (one, other.join().unwrap())
        });
        // One that heard of the other asks no more, so the other may not hear of it.
        let found: Vec<_> = [(one, b.mac("b0")), (other, a.mac("eth0"))]
            .into_iter()
            .filter_map(|(result, theirs)| Some((result.err()?, theirs)))
            .inspect(|(error, theirs)| assert!(matches!(error, VipError::Taken { mac, .. } if mac.to_string() == *theirs), "{error:?}"))
            .collect();
        assert!(!found.is_empty(), "both would take {}", here.address);
    }
}

#[test]
fn a_conflict_is_reported_with_the_others_hardware_address_and_the_last_word_is_ours() {
    let (a, b) = Netns::pair("eth0");
    b.ip(&["address", "add", "10.0.0.2/24", "dev", "b0"]);
    b.ip(&["address", "add", "fd00::2/64", "dev", "b0", "nodad"]);
    for vip in both("eth0") {
        let mac = a.mac("eth0");
        let mut times = 0;
        let heard = heard_while(&a, &b, Duration::from_millis(3500), async || {
            let driver = Netlink::new();
            let mut conflicts = driver.conflicts();
            assert_eq!(driver.hold(&vip, LONG).await.unwrap(), Held::Fresh);
            driver.announce(&vip).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert_eq!(conflicts.try_recv(), Err(TryRecvError::Empty), "our own announcements are no conflict");

            // For half a second another machine says again and again that it has the address.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                b.run(|| claim(ip(&vip), STRANGER));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let expected = Conflict { address: ip(&vip), interface: "eth0".to_owned(), mac: Mac(STRANGER) };
            assert_eq!(next(&mut conflicts).await, expected);
            assert_eq!(next(&mut conflicts).await, expected);
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
            let neighbour = || b.ip_json(&["neighbour", "show", vip.ip()])[0]["lladdr"].as_str().map(str::to_owned);
            let start = Instant::now();
            while neighbour().as_deref().is_some_and(|now| now != mac) {
                assert!(start.elapsed() < Duration::from_secs(1), "the other's word stands: {:?}", neighbour());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(1200)).await;
            assert_eq!(conflicts.try_recv(), Err(TryRecvError::Empty), "one per second at most");
            times = 2;
        });
        assert_eq!(times, 2);
        // Three of the take-over, and one for each report.
        assert_eq!(announced(&heard, &vip).len(), 3 + times, "{}: {heard:?}", vip.address);
        a.block_on(async || Netlink::new().release(&vip).await).unwrap();
    }
}

#[test]
fn what_is_not_held_any_more_is_no_conflict() {
    let (a, b) = Netns::pair("eth0");
    for vip in both("eth0") {
        a.block_on(async || {
            let driver = Netlink::new();
            let mut conflicts = driver.conflicts();
            // The watch begins to listen after a hold, and ends after a release.
            let settle = || tokio::time::sleep(Duration::from_millis(50));
            let claims = async |what: &str, conflicts: &mut Receiver<Conflict>| {
                settle().await;
                b.run(|| claim(ip(&vip), STRANGER));
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(conflicts.try_recv(), Err(TryRecvError::Empty), "{what}: {}", vip.address);
            };
            claims("never held", &mut conflicts).await;
            driver.hold(&vip, LONG).await.unwrap();
            settle().await;
            driver.release(&vip).await.unwrap();
            claims("released", &mut conflicts).await;
            driver.hold(&vip, LONG).await.unwrap();
            settle().await;
            let full = if ip(&vip).is_ipv4() { 32 } else { 128 };
            a.ip(&["address", "del", &format!("{}/{full}", vip.ip()), "dev", "eth0"]);
            claims("removed by others, as the guard does", &mut conflicts).await;
            driver.hold(&vip, LONG).await.unwrap();
            settle().await;
            let other = if ip(&vip).is_ipv4() { "10.0.0.101" } else { "fd00:0:0:1::100" };
            b.run(|| claim(other.parse().unwrap(), STRANGER));
            claims_nothing("another address", &mut conflicts).await;
            // A frame of ours that comes back, as over a bridge with a loop, or by another interface of this node.
            let own: Vec<u8> = a.mac("eth0").split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            b.run(|| claim(ip(&vip), own.clone().try_into().unwrap()));
            claims_nothing("this node's own hardware address", &mut conflicts).await;
            // And with it held, the watch hears.
            tokio::time::sleep(Duration::from_secs(1)).await;
            b.run(|| claim(ip(&vip), STRANGER));
            assert_eq!(next(&mut conflicts).await.address, ip(&vip));
            driver.release(&vip).await.unwrap();
        });
    }
}

async fn claims_nothing(what: &str, conflicts: &mut Receiver<Conflict>) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(conflicts.try_recv(), Err(TryRecvError::Empty), "{what}");
}

#[test]
fn two_nodes_that_hold_one_address_both_learn_of_it() {
    let (a, b) = Netns::pair("eth0");
    for (here, there) in both("eth0").iter().zip(both("b0")) {
        let (theirs, ours) = (b.mac("b0"), a.mac("eth0"));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                b.block_on(async || {
                    let driver = Netlink::new();
                    let mut conflicts = driver.conflicts();
                    driver.hold(&there, LONG).await.unwrap();
                    assert_eq!(next(&mut conflicts).await.mac.to_string(), ours);
                    driver.release(&there).await.unwrap();
                });
            });
            a.block_on(async || {
                let driver = Netlink::new();
                let mut conflicts = driver.conflicts();
                driver.hold(here, LONG).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
                // Whoever announces, the other answers.
                driver.announce(here).await.unwrap();
                assert_eq!(next(&mut conflicts).await.mac.to_string(), theirs);
                driver.release(here).await.unwrap();
            });
            other.join().unwrap();
        });
    }
}
