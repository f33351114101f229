//! Keeps the two lease connections on different servers (rules N1, N3).
//!
//! Each begins at a server of its own, and each takes the next one of its list when it loses a server; so after two losses both can be
//! on the one that is left, and stay there when the others are back. Were that one to fall silent then, nothing would come until its
//! pings are missed, a second and more, and leases would be lost. So whenever a connection was made it is looked whether both ended at
//! the same server, and as long as they do, and another one can be reached, one of them is made anew. The lists run in opposite
//! directions, so with two servers within reach one of the two moves.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ServerAddr};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::info;

/// A new connection is given so long before it is looked where both are.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest wait for a server to accept a connection that asks whether it is there.
const KNOCK: Duration = Duration::from_millis(300);
/// First and longest pause while both are on the same server; it doubles in between.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Longest wait for a connection that is made anew, and pause between two looks at it.
const REMADE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(20));

/// Goes on until `made`, which tells of each connection made, has no sender any more.
pub(crate) async fn keep_apart(clients: [Client; 2], servers: Vec<ServerAddr>, mut made: watch::Receiver<u64>) {
    if servers.len() < 2 {
        return;
    }
    let mut turn = 0_usize;
    while made.changed().await.is_ok() {
        sleep(SETTLE).await;
        let mut pause = PAUSE.0;
        while together(&clients) {
            if within_reach(&servers).await > 1 {
                // The second first: which of the two can move depends on which servers are there.
                let Some(client) = clients.get((turn + 1) % clients.len()) else { return };
                turn += 1;
                info!(server = client.server_info().server_name, "both lease connections are on one server: one is made anew");
                if client.force_reconnect().await.is_err() {
                    return;
                }
                remade(client).await;
                if !together(&clients) {
                    break;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Whether both stand, on the same server.
pub(crate) fn together(clients: &[Client; 2]) -> bool {
    let [a, b] = clients.each_ref().map(|client| (client.connection_state() == State::Connected).then(|| client.server_info().server_id));
    a.is_some() && a == b
}

/// How many of the servers accept a connection.
async fn within_reach(servers: &[ServerAddr]) -> usize {
    let knocks = servers.iter().map(|server| timeout(KNOCK, TcpStream::connect((server.host().to_owned(), server.port()))));
    futures_util::future::join_all(knocks).await.into_iter().filter(|knock| matches!(knock, Ok(Ok(_)))).count()
}

/// Until the connection stands again, on whichever server. It is told a moment later that it is to be made anew.
async fn remade(client: &Client) {
    sleep(REMADE.1).await;
    let stands = async {
        while client.connection_state() != State::Connected {
            sleep(REMADE.1).await;
        }
    };
    let _or_later = timeout(REMADE.0, stands).await;
    sleep(SETTLE).await;
}
