//! A NATS that answers late.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_e2e::{CLIENT_ADDR, NATS_PORT, NodeId, Result, wait_until};

use crate::cluster::{Cluster, LATER, demo_app, ensure, wrong};

/// How late the server's words arrive. Slower than this it counts as dead: a connection is given one and a half seconds to be made.
const DELAY: Duration = Duration::from_millis(500);
/// How soon a thread of the proxy sees that it is to end.
const TICK: Duration = Duration::from_millis(100);

/// Stands between a node and a server, and passes on late what the server says to the agent's data connection. Its lease connections, which
/// have another name, are left alone.
struct Proxy {
    stop: Arc<AtomicBool>,
    late: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// On the client's side of the network.
    fn start(c: &Cluster, port: u16, server: SocketAddr) -> Result<Self> {
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&late));
        // Threads that are started there stay in its network.
        let acceptor = c.lab.as_client(move || -> std::io::Result<JoinHandle<()>> {
            let listener = TcpListener::bind((CLIENT_ADDR, port))?;
            listener.set_nonblocking(true)?;
            Ok(std::thread::spawn(move || accept(&listener, server, &flag, &count)))
        })?;
        let acceptor = acceptor.map_err(|error| wrong(format!("the proxy: {error}")))?;
        Ok(Self { stop, late, acceptor: Some(acceptor) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            // It ends its own connections; a panic in it was printed.
            let _ended = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, stop: &Arc<AtomicBool>, late: &Arc<AtomicUsize>) {
    let mut pumps = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => pumps.extend(serve(client, server, stop, late).unwrap_or_default()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    for pump in pumps {
        let _ended = pump.join();
    }
}

fn serve(client: TcpStream, server: SocketAddr, stop: &Arc<AtomicBool>, late: &Arc<AtomicUsize>) -> std::io::Result<Vec<JoinHandle<()>>> {
    client.set_nonblocking(false)?;
    let upstream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    let is_data = Arc::new(AtomicBool::new(false));
    let (words, delayed) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (mut to_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    let (marks, knows, count) = (Arc::clone(&is_data), Arc::clone(&is_data), Arc::clone(late));
    let up = pump(client, stop, move |bytes| {
        // The first words of a NATS client name it.
        if bytes.starts_with(b"CONNECT") && bytes.windows(14).any(|w| w == b"\"name\":\"agent ") {
            marks.store(true, Ordering::Relaxed);
        }
        to_server.write_all(bytes)
    })?;
    let down = pump(upstream, stop, move |bytes| {
        let wait = if knows.load(Ordering::Relaxed) { DELAY } else { Duration::ZERO };
        count.fetch_add(usize::from(!wait.is_zero()), Ordering::Relaxed);
        words.send((Instant::now() + wait, bytes.to_vec())).map_err(|_| ErrorKind::BrokenPipe.into())
    })?;
    let stop = Arc::clone(stop);
    let writer = std::thread::spawn(move || {
        while let Ok((due, bytes)) = delayed.recv() {
            while Instant::now() < due && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK.min(due.saturating_duration_since(Instant::now())));
            }
            if to_client.write_all(&bytes).is_err() {
                break;
            }
        }
        let _closed = to_client.shutdown(std::net::Shutdown::Both);
    });
    Ok(vec![up, down, writer])
}

/// Hands on what is read until either side ends.
fn pump(
    mut from: TcpStream,
    stop: &Arc<AtomicBool>,
    mut to: impl FnMut(&[u8]) -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    from.set_read_timeout(Some(TICK))?;
    let stop = Arc::clone(stop);
    Ok(std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while !stop.load(Ordering::Relaxed) {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    if to(buffer.get(..n).unwrap_or_default()).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _closed = from.shutdown(std::net::Shutdown::Both);
    }))
}

/// An agent whose data connection hears everything half a second late: what it holds it keeps, what runs goes on, and it follows changes.
pub fn a_slow_nats_does_no_harm(c: &Cluster) -> Result<()> {
    let node = NodeId::from(4);
    let servers: Vec<NodeId> = c.lab.servers().to_vec();
    let config = c.lab.read(4, "/etc/clusterctl/agent.yaml")?;
    let (mut proxies, mut slow) = (Vec::new(), config.clone());
    for (server, port) in servers.into_iter().zip(4301_u16..) {
        proxies.push(Proxy::start(c, port, SocketAddr::from((server.addr(), NATS_PORT)))?);
        slow = slow.replace(&format!("nats://{}:{NATS_PORT}", server.addr()), &format!("nats://{CLIENT_ADDR}:{port}"));
    }
    ensure(slow != config, || format!("no server of agent.yaml is behind a proxy: {config}"))?;
    c.lab.write(4, "/etc/clusterctl/agent.yaml", &slow, 0o644)?;
    c.systemctl(4, &["restart", "cluster-agent"])?;
    let played = play_slow(c, node, &proxies);
    c.lab.write(4, "/etc/clusterctl/agent.yaml", &config, 0o644)?;
    c.systemctl(4, &["restart", "cluster-agent"])?;
    drop(proxies);
    c.wait_nodes(LATER)?;
    played
}

fn play_slow(c: &Cluster, node: NodeId, proxies: &[Proxy]) -> Result<()> {
    let late = || proxies.iter().map(|p| p.late.load(Ordering::Relaxed)).sum::<usize>();
    let only = format!("placement: {{ nodes: [{node}] }}");
    c.apply(&demo_app("held", "Singleton", 8100, &only))?;
    c.apply(&demo_app("owned", "Ring", 8101, &format!("ring: {{ partitions: 16 }}, {only}")))?;
    c.apply(&demo_app("pooled", "Spread", 8102, ""))?;
    c.wait_ready(&["held", "owned", "pooled"], LATER)?;
    let (runs, active, heard) = (c.runs()?, c.active("held")?, late());
    // Long enough for pings that time out and connections that are made anew.
    std::thread::sleep(Duration::from_secs(6));
    ensure(late() > heard, || "nothing was delayed".to_owned())?;
    ensure(c.active("held")? == active && c.runs()? == runs, || "what was held or ran was disturbed".to_owned())?;
    c.apply(&demo_app("pooled", "Spread", 8103, ""))?;
    wait_until("the change to reach the slow node", LATER, || {
        let (now, before) = (c.runs()?, runs.of("pooled"));
        let changed = now.of("pooled").get(&node).is_some_and(|run| before.get(&node).is_some_and(|old| old.pid != run.pid));
        ensure(changed && c.status("pooled")?.is_ready(), || "it still runs the old one".to_owned())
    })?;
    ensure(c.active("held")? == active && c.runs()?.of("owned") == runs.of("owned"), || "what was held was disturbed".to_owned())
}
