//! Listens to what the kernel says of links and addresses, and raises one counter.

use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::kernel::is_ours;

/// Pause before a broken subscription is made again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs for ever; the caller aborts it.
pub(super) async fn run(changes: watch::Sender<u64>) {
    loop {
        match rtnetlink::new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr]) {
            Ok((connection, _handle, mut messages)) => {
                // Aborts the connection's task when this one ends.
                let mut tasks = JoinSet::new();
                tasks.spawn(connection);
                // Something may have been missed before the subscription stood.
                raise(&changes);
                while let Some((message, _)) = messages.next().await {
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
