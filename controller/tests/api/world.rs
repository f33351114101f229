//! A NATS server, controllers in this process, and a client that sees every byte.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_controller::config;
use cluster_controller::run::serve;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use ureq::http::Request;

/// Generous: the machine may be busy with other tests.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Polls until `found` finds something.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "it took too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A NATS server of its own.
pub struct Nats {
    child: Child,
    pub url: String,
    folder: tempfile::TempDir,
}

fn program() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools");
    let folders = std::fs::read_dir(&tools).into_iter().flatten().flatten().map(|entry| entry.path().join("nats-server"));
    folders.filter(|path| path.is_file()).max().unwrap_or_else(|| panic!("run scripts/setup: no nats-server in {}", tools.display()))
}

impl Nats {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("nats.conf");
        let text = json!({ "host": "127.0.0.1", "port": -1, "ports_file_dir": folder.path(), "jetstream": { "store_dir": folder.path() } });
        std::fs::write(&config, text.to_string()).expect("a written file");
        let mut command = Command::new(program());
        let child = command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a started server");
        let url = until("NATS to listen", || {
            let ports = folder.path().read_dir().ok()?.flatten().find(|e| e.file_name().to_string_lossy().ends_with(".ports"))?;
            let ports: Value = serde_json::from_str(&std::fs::read_to_string(ports.path()).ok()?).ok()?;
            ports["nats"][0].as_str().map(ToOwned::to_owned)
        });
        Self { child, url, folder }
    }

    /// A folder that goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A controller in a thread of this process. Dropped, it is told to stop and waited for.
pub struct Controller {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Controller {
    /// Starts one, with more lines in its configuration.
    pub fn start(nats: &Nats, name: &str, more: &str) -> Self {
        let file = nats.folder().join(format!("{name}.yaml"));
        let text = format!("cluster: c\nname: {name}\nnats: {{ servers: [\"{}\"] }}\nlisten: 127.0.0.1:0\n{more}", nats.url);
        std::fs::write(&file, text).expect("a written file");
        let checked = config::load(&file).expect("a good configuration");
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(checked.config.listen).await.expect("a free port");
                address.send(listener.local_addr().expect("an address")).expect("a test");
                let stop = async {
                    // Dropped counts as told.
                    let _told = stopped.await;
                };
                Box::pin(serve(checked, listener, stop)).await.expect("an orderly end");
            });
        });
        let address = listening.recv().expect("an address");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// The same, ready to answer.
    pub fn ready(nats: &Nats, name: &str, more: &str) -> Self {
        let controller = Self::start(nats, name, more);
        until("the controller to be ready", || (controller.plain("/readyz").0 == 200).then_some(()));
        until("a leader", || {
            matches!(controller.plain("/v1/version"), (status, text) if status == 401 || text.contains("leader")).then_some(())
        });
        controller
    }

    fn plain(&self, path: &str) -> (u16, String) {
        let mut answer = agent().get(format!("http://{}{path}", self.address)).call().expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a text"))
    }

    /// One request: method, path, token, body.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let answer = match body {
            Some(body) => agent().run(request.header("content-type", "application/json").body(body.to_string()).expect("a request")),
            None => agent().run(request.body(()).expect("a request")),
        };
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The status of a request with a token.
    pub fn status(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        agent().run(request.body(()).expect("a request")).expect("an answer").status().as_u16()
    }

    /// An answer that must be a good one.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Writes an App that no node runs.
    pub fn apply(&self, name: &str, replicas: u32) -> Value {
        let (status, body) = self.ask("PUT", &format!("/v1/apps/{name}"), Some(&app(name, replicas)));
        assert!(status == 200 || status == 201, "{name}: {body}");
        body
    }

    /// Opens a watch.
    pub fn watch(&self, path: &str) -> Events {
        let answer = agent().get(format!("http://{}{path}", self.address)).call().expect("an answer");
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        assert!(status == 200, "{path}: {status} {}", body.read_to_string().unwrap_or_default());
        Events(BufReader::new(Box::new(body.into_reader())))
    }

    /// Tells it to stop, and waits until it did.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the controller's thread panicked");
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Redirects and statuses are answers like others.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).build().new_agent()
}

/// An App that no node runs, with its name as a label.
pub fn app(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": name, "labels": { "called": name } },
        "spec": { "mode": "Replicas", "replicas": replicas, "exec": { "command": ["/bin/true"] }, "placement": { "nodes": ["nowhere"] } }
    })
}

/// Events of a watch.
pub struct Events(BufReader<Box<dyn Read + Send>>);

impl Iterator for Events {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("a stream that is not broken off") == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data:") {
                return Some(serde_json::from_str(data.trim()).expect("an event"));
            }
        }
    }
}

impl Events {
    /// The next event that is about an object, as its type and name, and what it says.
    pub fn change(&mut self) -> (String, Value) {
        let event = self.find(|event| event["type"] != "BOOKMARK").expect("another event");
        (format!("{} {}", event["type"].as_str().unwrap_or("?"), event["name"].as_str().unwrap_or("?")), event)
    }

    /// The first event of that type and name.
    pub fn until(&mut self, what: &str) -> Value {
        loop {
            let (seen, event) = self.change();
            if seen == what {
                return event;
            }
        }
    }

    /// All up to the next bookmark, as types and names; and its revision.
    pub fn begin(&mut self) -> (Vec<String>, String) {
        let mut seen = Vec::new();
        loop {
            let event = self.next().expect("a bookmark");
            if event["type"] == "BOOKMARK" {
                return (seen, event["resourceVersion"].as_str().expect("a revision").to_owned());
            }
            seen.push(format!("{} {}", event["type"].as_str().unwrap_or("?"), event["name"].as_str().unwrap_or("?")));
        }
    }
}
