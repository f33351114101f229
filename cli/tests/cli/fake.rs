//! A controller that answers by script, and a way to run the program against it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// One request as the fake saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) request: String,
    /// The header `Authorization`.
    pub(crate) authorization: Option<String>,
    /// The body.
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Script {
    /// Answers in order for each "METHOD path"; the last one stays.
    answers: BTreeMap<String, VecDeque<(u16, String)>>,
    seen: Vec<Seen>,
}

/// A controller on a port of its own. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (script, end) = (Arc::clone(&script), Arc::clone(&end));
            move || {
                for stream in listener.incoming() {
                    if end.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that goes away in the middle is its own affair.
                    serve(&stream.unwrap(), &script).ok();
                }
            }
        });
        Self { address, script, end, thread: Some(thread) }
    }

    /// Answers `request` ("GET /v1/apps") so. Said again, the next answer to the same request.
    pub(crate) fn on(self, request: &str, status: u16, body: &Value) -> Self {
        self.on_text(request, status, &body.to_string())
    }

    /// The same with a body that need not be JSON.
    pub(crate) fn on_text(self, request: &str, status: u16, body: &str) -> Self {
        self.script.lock().unwrap().answers.entry(request.to_owned()).or_default().push_back((status, body.to_owned()));
        self
    }

    /// Refuses `request` with a problem.
    pub(crate) fn refuse(self, request: &str, status: u16, kind: &str, detail: &str) -> Self {
        self.on(request, status, &json!({"type": kind, "title": kind, "status": status, "detail": detail}))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    /// Method and path of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.request).collect()
    }

    /// Runs `clusterctl` against this controller.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        clusterctl(&self.url(), arguments)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed; a second one here would only hide the first.
            thread.join().ok();
        }
    }
}

fn serve(stream: &TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = {
        let mut script = script.lock().unwrap();
        script.seen.push(Seen { request: request.clone(), authorization, body: String::from_utf8(body).unwrap() });
        match script.answers.get_mut(&request) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        }
    };
    let not_found = || {
        let problem = json!({"type": "not-found", "title": "Not Found", "status": 404, "detail": format!("there is no {request}")});
        (404, problem.to_string())
    };
    let (status, body) = answer.unwrap_or_else(not_found);
    if status == 0 {
        // By script: hang up without a word.
        return Ok(());
    }
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// Stdout.
    pub(crate) out: String,
    /// Stderr.
    pub(crate) err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The run ended well, and said nothing but `out`.
    #[track_caller]
    pub(crate) fn prints(&self, out: &str) {
        assert_eq!((self.code, self.err.as_str(), self.out.as_str()), (0, "", out));
    }

    /// The run ended with `code`, and said nothing but `err`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (code, "", err));
    }
}

/// The program with nothing of this machine's configuration.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterctl"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").env("CLUSTERCTL_CONFIG", "/dev/null");
    command
}

/// Runs `clusterctl` with `servers` (separated by commas).
pub(crate) fn clusterctl(servers: &str, arguments: &[&str]) -> Run {
    Run::of(command(arguments).env("CLUSTERCTL_SERVERS", servers).stdin(Stdio::null()).output().unwrap())
}

/// Runs a prepared command.
pub(crate) fn run(command: &mut Command) -> Run {
    Run::of(command.output().unwrap())
}

/// Runs a prepared command with `text` on its stdin.
pub(crate) fn run_with_stdin(command: &mut Command, text: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Run::of(child.wait_with_output().unwrap())
}
