//! Brings connections to a VIP's local address to the node that has the VIP: TCP, every port on which something listens at that node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::kernel::listening;
use crate::switch::Switch;

/// How often it is looked which ports are listened at.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Connections to one port of a VIP at most; more wait in the kernel.
const CONNECTIONS_MAX: usize = 256;

/// A port of a VIP that connections are taken at, with the node they go to.
#[derive(Debug)]
struct Lane {
    node: String,
    /// Ends with all its connections when dropped.
    _tasks: JoinSet<()>,
}

/// Forwards for ever. `addresses`: the nodes'.
pub async fn run(switch: Arc<Switch>, addresses: BTreeMap<String, Ipv4Addr>) {
    let mut changes = switch.changes();
    let mut lanes: BTreeMap<(IpAddr, u16), Lane> = BTreeMap::new();
    let mut refused: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let mut wanted: BTreeMap<(IpAddr, u16), (String, Ipv4Addr)> = BTreeMap::new();
        for (vip, node) in switch.holders() {
            if let Some(address) = addresses.get(&node) {
                wanted.extend(listening(*address).into_iter().map(|port| ((vip, port), (node.clone(), *address))));
            }
        }
        // An address that moved takes its connections along nowhere: they break, as on a real network.
        lanes.retain(|at, lane| wanted.get(at).is_some_and(|(node, _)| *node == lane.node));
        refused.retain(|at| wanted.contains_key(at));
        for (at, (node, address)) in wanted {
            if lanes.contains_key(&at) {
                continue;
            }
            let local = SocketAddr::from((switch.local(at.0), at.1));
            match TcpListener::bind(local).await {
                Ok(listener) => {
                    info!(vip = %at.0, %local, node, "connections to the VIP go to the node");
                    let mut tasks = JoinSet::new();
                    tasks.spawn(accept(listener, SocketAddr::from((address, at.1))));
                    refused.remove(&at);
                    lanes.insert(at, Lane { node, _tasks: tasks });
                }
                Err(error) if refused.insert(at) => warn!(vip = %at.0, %local, "cannot take connections to the VIP: {error}"),
                Err(_) => {}
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(async move {
                    carry(client, to).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(to).await {
        // Either side may end it at any time.
        let _carried = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
