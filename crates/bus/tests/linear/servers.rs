//! Three NATS servers on loopback, which can be killed, paused and started again.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Servers {
    children: Vec<Option<Child>>,
    ports: Vec<u16>,
    routes: Vec<u16>,
    folder: tempfile::TempDir,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|l| l.local_addr().expect("an address").port()).collect()
}

impl Servers {
    pub fn new() -> Self {
        let ports = free_ports(6);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut servers = Self { children: vec![None, None, None], ports: ports[..3].to_vec(), routes: ports[3..].to_vec(), folder };
        (0..3).for_each(|n| servers.start(n));
        servers
    }

    pub fn start(&mut self, n: usize) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats-server-2.15.1/nats-server");
        assert!(program.exists(), "nats-server is missing: run `make setup`");
        let routes: Vec<String> = self.routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let child = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", &self.ports[n].to_string(), "--name", &format!("s{n}"), "--jetstream", "--store_dir"])
            .arg(self.folder.path().join(n.to_string()))
            .args(["--cluster_name", "c", "--cluster", &format!("nats://127.0.0.1:{}", self.routes[n]), "--routes", &routes.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.children[n] = Some(child.expect("a started server"));
    }

    /// URLs, the one of server `first` first.
    pub fn urls(&self, first: usize) -> Vec<String> {
        (0..3).map(|n| format!("nats://127.0.0.1:{}", self.ports[(first + n) % 3])).collect()
    }

    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.children[n].take() {
            child.kill().expect("a killed server");
            child.wait().expect("an ended server");
        }
    }

    pub fn signal(&self, n: usize, signal: &str) {
        let child = self.children[n].as_ref().expect("a running server");
        let sent = Command::new("/bin/kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
