//! A dev cluster of a test's own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything: a busy machine is no failure.
pub const LIMIT: Duration = Duration::from_secs(90);

pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_clusterctl-dev")).parent().expect("a folder").to_owned()
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn clusterctl() -> PathBuf {
    let path = programs().join("clusterctl");
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// What `look` finds; none where that takes longer than `limit`.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begun.elapsed() >= limit {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A cluster that is ended with the test, whatever becomes of the test.
pub struct Dev {
    pub child: Child,
    pub folder: PathBuf,
    pub servers: String,
    /// First two bytes of the VIPs here.
    pub vips: String,
    pub out: Option<BufReader<ChildStdout>>,
}

pub fn command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(clusterctl());
    command.arg("dev").arg("--dir").arg(folder).args(more).stdin(Stdio::null());
    command
}

impl Dev {
    /// Starts one in `folder`, and waits until all its nodes are Ready.
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        let mut arguments = vec!["--port", "0"];
        arguments.extend(more);
        let mut child = command(folder, &arguments).stdout(Stdio::piped()).spawn().expect("a started cluster");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let (mut servers, mut vips, mut said) = (String::new(), String::new(), String::new());
        while !said.contains("are Ready after") {
            let mut line = String::new();
            let read = out.read_line(&mut line).expect("its output");
            assert!(read > 0, "it ended: {:?}\n{said}\n{}", child.wait(), log(folder));
            if let Some(rest) = line.trim().strip_prefix("export CLUSTERCTL_SERVERS=") {
                rest.clone_into(&mut servers);
            }
            if let Some((_, rest)) = line.split_once("A VIP a.b.C.D is ") {
                vips = rest.split_once(".C.D").expect("the VIPs' place").0.to_owned();
            }
            said.push_str(&line);
        }
        Self { child, folder: folder.to_owned(), servers, vips, out: Some(out) }
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(clusterctl());
        command.args(arguments).env("CLUSTERCTL_SERVERS", &self.servers).stdin(Stdio::null());
        command.output().expect("clusterctl runs")
    }

    /// What a command says, which must end well.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}\n{}", log(&self.folder));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `clusterctl dev kill n1` and the like.
    pub fn play(&self, word: &str, node: &str) -> String {
        self.ok(&["dev", word, node, "--dir", &self.folder.to_string_lossy()])
    }

    pub fn status(&self) -> String {
        self.ok(&["dev", "status", "--dir", &self.folder.to_string_lossy()])
    }

    pub fn apply(&self, manifest: &Path) {
        self.ok(&["apply", "-f", &manifest.to_string_lossy()]);
    }

    /// Applies an App whose command is a shell's.
    pub fn apply_shell(&self, name: &str, mode: &str, script: &str) {
        let app = serde_json::json!({
            "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": name },
            "spec": { "mode": mode, "exec": { "command": ["/bin/sh", "-c", script] } },
        });
        let path = self.folder.with_extension(format!("{name}.json"));
        fs::write(&path, app.to_string()).expect("a written manifest");
        self.apply(&path);
    }

    /// What a command says that may fail for a moment, as while leaders change: nothing then.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() }
    }

    /// The App, as the API tells it; null while it does not.
    pub fn app(&self, name: &str) -> Value {
        serde_json::from_str(&self.says(&["get", "app", name, "-o", "json"])).unwrap_or_default()
    }

    /// Whether the App is as it should be.
    pub fn is_ready(&self, name: &str) -> Option<()> {
        let app = self.app(name);
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        app["status"]["conditions"].as_array()?.iter().any(ready).then_some(())
    }

    /// Address of a node.
    pub fn address(&self, node: &str) -> String {
        let status = self.status();
        let line = status.lines().find(|line| line.starts_with(node)).expect("the node");
        line.split_whitespace().nth(1).expect("its address").to_owned()
    }

    /// Nodes where the App runs in this role.
    pub fn running(&self, name: &str, role: &str) -> Vec<String> {
        let app = self.app(name);
        let instances = app["status"]["instances"].as_array().cloned().unwrap_or_default();
        let runs = |i: &&Value| i["role"] == role && i["state"] == "Running";
        instances.iter().filter(runs).map(|i| i["node"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        let found = poll(LIMIT, look);
        assert!(found.is_some(), "{what}: not within {LIMIT:?}\n{}\n{}", self.says(&["describe", "app"]), log(&self.folder));
        found.expect("what was found")
    }

    /// The address of a VIP here, by its last two bytes.
    pub fn vip(&self, end: &str) -> String {
        format!("{}.{end}", self.vips)
    }

    /// Signals it and waits for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a signal");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end\n{}", log(&self.folder));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A cluster that ended already is what is wanted.
        if let Ok(None) = self.child.try_wait() {
            let _asked = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0)), Signal::SIGTERM);
        }
        let _reaped = self.child.wait();
        for pid in processes_of(&self.folder) {
            let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The last lines of a cluster's log.
pub fn log(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(60).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Processes that have to do with the cluster in `folder`: it is in their arguments or their environment.
pub fn processes_of(folder: &Path) -> BTreeSet<i32> {
    let folder = folder.to_string_lossy().into_owned();
    let own = i32::try_from(std::process::id()).expect("a process id");
    let pids = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let names = |pid: i32| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&folder)
        })
    };
    pids.filter(|pid| *pid != own && names(*pid)).collect()
}

/// What an HTTP server answers; none while it does not.
pub fn get(url: &str) -> Option<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    agent.get(url).call().ok()?.body_mut().read_json().ok()
}
