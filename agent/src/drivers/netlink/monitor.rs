//! Listens to what the kernel says of links and addresses: raises one counter, and has addresses announced again on links that healed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::held::Held;
use super::kernel::{Link, is_ours, link};

/// Pause before a broken subscription is made again.
const RETRY: Duration = Duration::from_secs(1);
/// Most links whose state is remembered; beyond it all are forgotten, which costs an announcement or two too many.
const LINKS_MAX: usize = 4096;

/// Runs for ever; the caller aborts it.
pub(super) async fn run(changes: watch::Sender<u64>, held: Arc<Held>) {
    loop {
        match rtnetlink::new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr]) {
            Ok((connection, _handle, mut messages)) => {
                // Aborts the connection's task when this one ends.
                let mut tasks = JoinSet::new();
                tasks.spawn(connection);
                let mut links = Links::default();
                // Something may have been missed before the subscription stood.
                raise(&changes);
                held.heal(None);
                while let Some((message, _)) = messages.next().await {
                    match links.heard(&message.payload) {
                        Heal::Nothing => {}
                        Heal::Link(index) => drop(held.heal(Some(index))),
                        Heal::All => drop(held.heal(None)),
                    }
                    if matters(&message.payload) {
                        raise(&changes);
                    }
                }
                tracing::warn!("the subscription to the kernel's link and address messages broke, making it again");
            }
            Err(error) => tracing::warn!(%error, "cannot subscribe to the kernel's link and address messages, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn raise(changes: &watch::Sender<u64>) {
    changes.send_modify(|count| *count = count.wrapping_add(1));
}

/// Our own refreshes come by several times a second; everything else is rare. An overrun may have been anything.
fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => !is_ours(message),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::DelAddress(_) | RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_),
        )
        | NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}

/// Where addresses have to be announced again.
#[derive(Debug, PartialEq, Eq)]
enum Heal {
    Nothing,
    Link(u32),
    All,
}

/// What is known of links: whether they carry packets, and under which hardware address, by index.
#[derive(Debug, Default)]
struct Links(BTreeMap<u32, (bool, Vec<u8>)>);

impl Links {
    fn heard(&mut self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> Heal {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => self.now(link(message)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                self.0.remove(&message.header.index);
                Heal::Nothing
            }
            NetlinkPayload::Overrun(_) => Heal::All,
            _ => Heal::Nothing,
        }
    }

    /// Healed is what carries packets now and did not before (or was not known), or has another hardware address than before.
    fn now(&mut self, link: Link) -> Heal {
        if self.0.len() >= LINKS_MAX {
            self.0.clear();
        }
        let carries = link.up && link.carrier;
        let now = (carries, link.hardware);
        let same = self.0.get(&link.index) == Some(&now);
        self.0.insert(link.index, now);
        if carries && !same { Heal::Link(link.index) } else { Heal::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_heals_when_it_comes_up_or_gets_another_hardware_address() {
        let mut links = Links::default();
        let link = |up, carrier, last| Link { index: 7, name: "eth0".to_owned(), up, carrier, hardware: vec![2, 0, 0, 0, 0, last] };
        let mut after = |up, carrier, last| links.now(link(up, carrier, last));
        assert_eq!(after(true, true, 1), Heal::Link(7), "what was not known");
        assert_eq!(after(true, true, 1), Heal::Nothing);
        assert_eq!(after(true, false, 1), Heal::Nothing, "no carrier");
        assert_eq!(after(true, true, 1), Heal::Link(7));
        assert_eq!(after(false, true, 1), Heal::Nothing, "switched off");
        assert_eq!(after(true, true, 1), Heal::Link(7));
        assert_eq!(after(true, true, 2), Heal::Link(7), "another hardware address");
    }

    #[test]
    fn what_was_missed_may_have_been_a_heal_and_memory_is_bounded() {
        let mut links = Links::default();
        assert_eq!(links.heard(&NetlinkPayload::Overrun(Vec::new())), Heal::All);
        for index in 0..10_000 {
            links.now(Link { index, name: String::new(), up: true, carrier: true, hardware: Vec::new() });
        }
        assert!(links.0.len() <= LINKS_MAX);
    }
}
