//! The two lease connections against real NATS servers on loopback.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_bus::{LeaseLink, Names, NatsConfig};

/// Long enough for pings to be missed, and for the longest pause between two attempts to part.
const SOON: Duration = Duration::from_secs(40);

struct Server {
    child: Option<Child>,
    port: u16,
}

impl Server {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut server = Self { child: None, port };
        server.start();
        server
    }

    fn start(&mut self) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats-server-2.15.1/nats-server");
        assert!(program.exists(), "nats-server is missing: run `make setup` (looked for {})", program.display());
        let started = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(started.expect("a started server"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a killed server");
            child.wait().expect("an ended server");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Both lose their servers one after the other and meet on the last one; when another is back, they part again.
#[tokio::test]
async fn n3_two_connections_that_met_on_one_server_part_when_another_is_there() {
    let mut servers = [Server::new(), Server::new(), Server::new()];
    let urls = servers.iter().map(|server| format!("nats://127.0.0.1:{}", server.port)).collect();
    let link = LeaseLink::connect(&NatsConfig { servers: urls, replicas: 1 }, Names::new("t"), "n1").await.expect("a usable configuration");
    wait_until("each has a server of its own", || link.is_apart()).await;
    for back in [0, 2] {
        for (place, server) in servers.iter_mut().enumerate() {
            if place != 1 {
                server.kill();
            }
        }
        wait_until("both are on the server that is left", || link.connected() == 2 && !link.is_apart()).await;
        if let Some(server) = servers.get_mut(back) {
            server.start();
        }
        wait_until("one has moved", || link.is_apart()).await;
        if let Some(server) = servers.get_mut(2 - back) {
            server.start();
        }
    }
}
