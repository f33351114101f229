//! The program as it runs: answers, reload, and end by signal.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running demo; ended when dropped.
struct Demo {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Demo {
    fn start(configure: impl FnOnce(&mut Command)) -> Self {
        Self::start_on("127.0.0.1:0", configure)
    }

    fn start_on(listen: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["--listen", listen]).env_clear().stderr(Stdio::piped());
        configure(&mut command);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the demo ended before it listened");
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                break address.to_owned();
            }
        };
        Self { child, address, log }
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn identity(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/").1).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Asks until `accept`, at most ten seconds: a signal is delivered some time after it was sent.
    fn until(&self, accept: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let identity = self.identity();
            if accept(&identity) {
                return identity;
            }
            assert!(Instant::now() < end, "not reached within 10 s: {identity}");
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn says_who_it_is_and_reads_its_files_again_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let (role, partitions) = (folder.path().join("role.json"), folder.path().join("partitions.json"));
    let database = folder.path().join("app.db");
    let demo = Demo::start(|c| {
        c.arg("--db")
            .arg(&database)
            .env("CLUSTERCTL_NODE", "n1")
            .env("CLUSTERCTL_APP", "database")
            .env("CLUSTERCTL_ROLE_FILE", &role)
            .env("CLUSTERCTL_PARTITIONS_FILE", &partitions);
    });
    let (head, _) = demo.get("/");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    let first = demo.identity();
    assert_eq!((&first["node"], &first["app"], &first["pid"]), (&"n1".into(), &"database".into(), &demo.child.id().into()));
    assert_eq!(first["database"], database.to_str().unwrap());
    let notes: serde_json::Value = serde_json::from_str(&demo.get("/notes").1).unwrap();
    assert_eq!((&notes["count"], &notes["newest"]), (&0.into(), &0.into()));
    assert!(first["role"].is_null() && first["epoch"].is_null() && first["partitions"].is_null() && first["version"].is_null());

    write(&role, r#"{"app":"database","node":"n1","role":"Active","epoch":7,"peers":["n2"]}"#);
    write(&partitions, r#"{"app":"database","node":"n1","version":4,"partitions":256,"own":[{"epoch":7,"partitions":"0-84"}]}"#);
    assert_eq!(demo.identity(), first, "files are read on a reload only");
    demo.signal(Signal::SIGHUP);
    let second = demo.until(|i| i["reloads"] == 1);
    assert_eq!((&second["role"], &second["epoch"]), (&"Active".into(), &7.into()));
    assert_eq!((&second["partitions"], &second["version"]), (&"0-84".into(), &4.into()));
    assert_eq!((&second["pid"], &second["startedAt"]), (&first["pid"], &first["startedAt"]), "a reload is no restart");

    // Files that went bad or away are no reason to end.
    write(&role, "not json");
    std::fs::remove_file(&partitions).unwrap();
    demo.signal(Signal::SIGHUP);
    let third = demo.until(|i| i["reloads"] == 2);
    assert!(third["role"].is_null() && third["partitions"].is_null(), "{third}");
    assert_eq!(demo.get("/healthz").1, "ok\n");
}

#[test]
fn sigterm_ends_it_cleanly_although_a_connection_is_open() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut demo = Demo::start(|_| {});
        // Half a request: the server waits for the rest of it.
        let mut open = TcpStream::connect(&demo.address).unwrap();
        open.write_all(b"GET / HT").unwrap();
        assert_eq!(demo.get("/healthz").1, "ok\n");
        demo.signal(signal);
        let start = Instant::now();
        assert!(demo.child.wait().unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(5), "a fail-over waits for it: {:?}", start.elapsed());
        let mut rest = String::new();
        demo.log.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("panicked"), "{rest}");
        // The port is free at once, whatever became of the connections.
        drop(Demo::start_on(&demo.address, |_| {}));
    }
}

#[test]
fn a_taken_port_is_named() {
    let demo = Demo::start(|_| {});
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).args(["--listen", &demo.address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("cannot listen on {}", demo.address)), "{text}");
}

#[test]
fn systemd_is_told_of_start_reload_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 512];
    let mut said = || {
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut demo = Demo::start(|c| {
        c.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(said(), "READY=1\n");
    demo.signal(Signal::SIGHUP);
    assert!(said().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(said(), "READY=1\n");
    demo.signal(Signal::SIGTERM);
    assert_eq!(said(), "STOPPING=1\n");
    assert!(demo.child.wait().unwrap().success());
}
