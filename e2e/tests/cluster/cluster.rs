//! The cluster under test: commands of a user, and what is seen of it from outside.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use cluster_bus::{Bucket, Bus, Change, Names, NatsConfig};
use cluster_e2e::{Lab, LabError, NATS_PORT, NodeId, Ran, Result, UpOptions, wait_until};
use cluster_schemas::api::{AppView, List, NodeState, NodeView, RingTable};
use cluster_schemas::assignment::Role;
use cluster_schemas::status::Condition;
use cluster_schemas::{AppStatus, Assignment, NodeStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http;
use crate::observe::{Run, Runs, runs_of};

/// Long enough for everything that takes a moment on a loaded machine.
pub const SOON: Duration = Duration::from_secs(45);
/// Long enough for an election of NATS, a heartbeat time-out and a reconcile on top of each other.
pub const LATER: Duration = Duration::from_secs(100);

/// Name of the lab, and of the cluster in it.
const LAB: &str = "cluster";
/// Set to play on a lab of this name, which stays.
const USE: &str = "CLUSTERCTL_LAB_USE";
/// Longer than the default: what happens is looked at here, how fast it happens in the benchmarks, and a machine that stands still for a
/// third of a second is no fault that a scenario played.
pub const LEASE: Duration = Duration::from_secs(2);
/// Nodes of the lab.
pub const NODES: u8 = 5;

/// The cluster.
pub struct Cluster {
    pub lab: Lab,
    borrowed: bool,
    folder: tempfile::TempDir,
    files: Cell<u32>,
    began: Cell<SystemTime>,
}

/// An error with a text of our own.
pub fn wrong(text: impl Into<String>) -> LabError {
    LabError::Invalid(text.into())
}

/// Fails with a text unless it holds, for use in [`wait_until`].
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(wrong(text())) }
}

impl Cluster {
    /// Starts the lab and waits until all nodes are Ready.
    pub fn start() -> Result<Self> {
        let began = Instant::now();
        let lab = match std::env::var(USE) {
            Ok(name) => Lab::attach(&name)?,
            Err(_) => Lab::up(&UpOptions { lease: Some(LEASE), ..UpOptions::new(NODES).named(LAB) })?,
        };
        let folder = tempfile::tempdir().map_err(|error| wrong(format!("temporary folder: {error}")))?;
        let cluster =
            Self { lab, borrowed: std::env::var_os(USE).is_some(), folder, files: Cell::new(0), began: Cell::new(SystemTime::now()) };
        if let Err(error) = cluster.wait_nodes(LATER).and_then(|()| cluster.wait_planned_for()) {
            eprintln!("{}", cluster.diagnose());
            cluster.down();
            return Err(error);
        }
        eprintln!("  five nodes are Ready {:.1} s after the start of the lab", began.elapsed().as_secs_f64());
        Ok(cluster)
    }

    /// Takes the lab down, unless it was there before.
    pub fn down(&self) {
        if !self.borrowed
            && let Err(error) = self.lab.down()
        {
            eprintln!("lab {}: {}", self.lab.name(), error.chain());
        }
    }

    /// A scenario begins: errors in journals count from here.
    pub fn begin(&self) {
        self.began.set(SystemTime::now());
    }

    /// A scenario ends: all Apps are deleted, and nothing of them may be left anywhere.
    pub fn finish(&self) -> Result<()> {
        let apps: Vec<String> = self.apps()?.into_keys().collect();
        if !apps.is_empty() {
            self.delete(&apps.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.wait_nothing_left()?;
        self.no_errors_logged()
    }

    // ---- what a user does

    /// `clusterctl` as the client.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Ran> {
        self.lab.client(std::iter::once("clusterctl").chain(arguments.iter().copied()))
    }

    fn ctl_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.ctl(arguments)?.ok()?;
        serde_json::from_str(&text).map_err(|error| wrong(format!("clusterctl {arguments:?}: {error}: {text}")))
    }

    /// Writes a manifest into a file and says where.
    pub fn file(&self, yaml: &str) -> String {
        self.files.set(self.files.get() + 1);
        let path = self.folder.path().join(format!("{}.yaml", self.files.get()));
        std::fs::write(&path, yaml).unwrap();
        path.display().to_string()
    }

    /// Applies a manifest; it has to be taken.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.persist(&["apply", "-f", &self.file(yaml)])
    }

    /// A command that has to be carried out. While JetStream elects a leader nothing can be stored (exit code 3), so a user does it again.
    fn persist(&self, arguments: &[&str]) -> Result<()> {
        const UNAVAILABLE: i32 = 3;
        let ran = wait_until("the store to take what is asked", LATER, || {
            let ran = self.ctl(arguments)?;
            if ran.code == UNAVAILABLE { Err(wrong(ran.stderr)) } else { Ok(ran) }
        })?;
        ran.ok().map(drop)
    }

    /// Applies one of the manifests that come with the product.
    pub fn apply_shipped(&self, name: &str) -> Result<()> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(name);
        self.persist(&["apply", "-f", &path.display().to_string()])
    }

    /// Deletes Apps and waits until they are gone.
    pub fn delete(&self, apps: &[&str]) -> Result<()> {
        let arguments: Vec<&str> =
            ["delete", "app"].iter().chain(apps).copied().chain(["--ignore-not-found", "--timeout", "40s"]).collect();
        self.persist(&arguments)
    }

    // ---- what the API says

    /// All Apps by name.
    pub fn apps(&self) -> Result<BTreeMap<String, AppView>> {
        let list: List<AppView> = self.ctl_json(&["get", "apps", "-o", "json"])?;
        Ok(list.items.into_iter().map(|app| (app.metadata.name.clone(), app)).collect())
    }

    /// One App.
    pub fn app(&self, name: &str) -> Result<AppView> {
        self.ctl_json(&["get", "app", name, "-o", "json"])
    }

    /// The status of one App, once it is about the newest spec.
    pub fn status(&self, name: &str) -> Result<AppStatus> {
        let app = self.app(name)?;
        let newest = app.status.filter(|status| status.observed_generation == app.metadata.generation);
        newest.ok_or_else(|| wrong(format!("{name} has no status of generation {}", app.metadata.generation)))
    }

    /// All assignments by node.
    pub fn assignments(&self) -> Result<BTreeMap<String, Assignment>> {
        let list: List<Assignment> = self.ctl_json(&["get", "assignments", "-o", "json"])?;
        Ok(list.items.into_iter().map(|one| (one.node.clone(), one)).collect())
    }

    /// All nodes by name.
    pub fn nodes(&self) -> Result<BTreeMap<String, NodeView>> {
        let list: List<NodeView> = self.ctl_json(&["get", "nodes", "-o", "json"])?;
        Ok(list.items.into_iter().map(|one| (one.node.name.clone(), one)).collect())
    }

    /// The table of a ring.
    pub fn ring(&self, app: &str) -> Result<RingTable> {
        self.ctl_json(&["ring", "show", app, "-o", "json"])
    }

    /// Name and term of the leading controller.
    pub fn leader(&self) -> Result<(String, u64)> {
        let version: Value = self.ctl_json(&["version", "-o", "json"])?;
        let server = &version["server"];
        let leader = server["leader"].as_str().ok_or_else(|| wrong("no controller leads"))?;
        Ok((leader.to_owned(), server["term"].as_u64().unwrap_or(0)))
    }

    /// Where a Singleton is active, and with which epoch.
    pub fn active(&self, app: &str) -> Result<(NodeId, u64)> {
        let status = self.status(app)?;
        let active = status.instances.iter().find(|instance| instance.role == Role::Active);
        let active = active.ok_or_else(|| wrong(format!("nobody is active for {app}: {}", explain(&status))))?;
        Ok((active.node.parse()?, active.epoch.unwrap_or(0)))
    }

    // ---- waiting

    /// Waits until all nodes are Ready.
    pub fn wait_nodes(&self, limit: Duration) -> Result<()> {
        wait_until("all nodes to be Ready", limit, || {
            let nodes = self.nodes()?;
            let bad: Vec<_> = nodes.values().filter(|n| n.state != NodeState::Ready).map(|n| (&n.node.name, n.state)).collect();
            ensure(nodes.len() == usize::from(NODES) && bad.is_empty(), || format!("{} nodes, not Ready: {bad:?}", nodes.len()))
        })
    }

    /// Waits until every node holds an assignment: before that a new cluster may be planned for fewer nodes.
    fn wait_planned_for(&self) -> Result<()> {
        wait_until("all nodes to hold an assignment", LATER, || {
            let held = |node: &NodeView| node.status.as_ref().is_some_and(|status| status.assignment.is_some());
            let nodes = self.nodes()?;
            let without: Vec<_> = nodes.iter().filter(|(_, node)| !held(node)).map(|(name, _)| name).collect();
            ensure(without.is_empty(), || format!("{without:?} hold none"))
        })
    }

    /// Waits until all these Apps are Ready, by their newest specs.
    pub fn wait_ready(&self, apps: &[&str], limit: Duration) -> Result<()> {
        wait_until(&format!("{} to be Ready", apps.join(", ")), limit, || {
            for app in apps {
                let status = self.status(app)?;
                ensure(status.is_ready(), || format!("{app} is not: {}", explain(&status)))?;
            }
            Ok::<_, LabError>(())
        })
    }

    /// Waits until the App has a condition for which `holds`.
    pub fn wait_condition(&self, app: &str, kind: &str, holds: impl Fn(&Condition) -> bool) -> Result<Condition> {
        wait_until(&format!("{app} to have the condition {kind}"), SOON, || {
            let status = self.status(app)?;
            let found = status.condition(kind).filter(|condition| holds(condition)).cloned();
            found.ok_or_else(|| wrong(explain(&status)))
        })
    }

    // ---- what is seen on the nodes

    /// Nodes that are on and not paused.
    pub fn awake(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.lab.nodes().filter(|node| matches!(self.lab.power(node), Ok(cluster_e2e::Power::On)))
    }

    /// What runs on one node.
    pub fn runs_on(&self, node: NodeId) -> Result<BTreeMap<String, Run>> {
        let properties = "--property=Id,ActiveState,MainPID,ActiveEnterTimestampMonotonic";
        let shown = self.lab.exec(node, ["systemctl", "show", properties, "clusterctl-*", "own-*", "nginx.service"])?.ok()?;
        Ok(runs_of(&shown))
    }

    /// What runs on all nodes that are on.
    pub fn runs(&self) -> Result<Runs> {
        let mut runs = Runs::default();
        for node in self.awake() {
            runs.0.extend(self.runs_on(node)?.into_iter().map(|(unit, run)| ((node, unit), run)));
        }
        Ok(runs)
    }

    /// IPv4 addresses of a node beside its own.
    pub fn vips_on(&self, node: NodeId) -> Result<BTreeSet<Ipv4Addr>> {
        crate::observe::vips_on(&self.lab, node)
    }

    /// Nodes that have this address.
    pub fn holders(&self, address: Ipv4Addr) -> Result<Vec<NodeId>> {
        let mut holders = Vec::new();
        for node in self.lab.nodes().filter(|node| self.lab.node_pid(node).is_ok()) {
            if self.vips_on(node)?.contains(&address) {
                holders.push(node);
            }
        }
        Ok(holders)
    }

    /// A file of an App on a node, as the process reads it.
    pub fn app_file(&self, node: NodeId, app: &str, file: &str) -> Result<Value> {
        let path = format!("/run/clusterctl/{app}/{file}");
        let text = self.lab.read(node, &path)?;
        serde_json::from_str(&text).map_err(|error| wrong(format!("{path} of {node}: {error}: {text}")))
    }

    /// What the demo program says of itself.
    pub fn demo(&self, address: Ipv4Addr, port: u16) -> Result<Value> {
        let reply = self.get(address, port, "/")?;
        Ok(reply.json())
    }

    /// One GET by the client.
    pub fn get(&self, address: Ipv4Addr, port: u16, path: &str) -> Result<http::Reply> {
        let addr = SocketAddr::from((address, port));
        let reply = self.lab.as_client(|| http::request(addr, "GET", path, &[], "", Duration::from_secs(1)))?;
        reply.map_err(|error| wrong(format!("http://{addr}{path}: {error}")))
    }

    /// Lines that a unit of the product logged on a node since the scenario began.
    pub fn journal(&self, node: NodeId, unit: &str) -> Result<Vec<String>> {
        let since = format!("--since=@{}", unix(self.began.get()));
        let text = self.lab.exec(node, ["journalctl", "--quiet", "--output=cat", &since, "--unit", unit])?.ok()?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    /// Waits until a unit of the product logs this on a node.
    pub fn wait_logged(&self, node: NodeId, unit: &str, text: &str, limit: Duration) -> Result<()> {
        wait_until(&format!("{unit} of {node} to log {text:?}"), limit, || {
            let lines = self.journal(node, unit)?;
            ensure(lines.iter().any(|line| line.contains(text)), || format!("its last line is {:?}", lines.last()))
        })
    }

    /// Work on the cluster's NATS, as somebody with access to it.
    pub fn with_bus<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce(Bus) -> F + Send) -> Result<T> {
        let servers = self.lab.servers().iter().map(|server| format!("nats://{}:{NATS_PORT}", server.addr())).collect();
        let config = NatsConfig { servers, replicas: 3 };
        self.lab.as_client(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(Bus::connect(&config, Names::new("lab"), "test").await.unwrap()).await })
        })
    }

    /// systemctl on a node.
    pub fn systemctl(&self, node: impl Into<NodeId>, arguments: &[&str]) -> Result<()> {
        self.lab.exec(node, std::iter::once("systemctl").chain(arguments.iter().copied()))?.ok().map(drop)
    }

    // ---- the end of a scenario

    /// Waits a moment, for a service manager forgets units when it pleases; then nothing of any App may be left.
    fn wait_nothing_left(&self) -> Result<()> {
        wait_until("nothing to be left of any App", SOON, || {
            let mut left = Vec::new();
            for node in self.lab.nodes() {
                left.extend(self.lab.exec(node, ["sh", "-c", LEFT])?.ok()?.lines().map(|line| format!("{node}: {line}")));
                left.extend(self.vips_on(node)?.iter().map(|address| format!("{node}: address {address}")));
            }
            for (node, assignment) in self.assignments()? {
                left.extend(assignment.apps.keys().map(|app| format!("{node}: assignment of {app}")));
            }
            left.extend(self.keys_left()?);
            ensure(left.is_empty(), || left.join("\n"))
        })
    }

    /// Records of Apps in the store, and Apps in the status of nodes.
    fn keys_left(&self) -> Result<Vec<String>> {
        self.with_bus(async |bus| {
            let mut left = Vec::new();
            let status = bus.open::<Value>(Bucket::Status).await;
            for filter in ["app.*", "active.*"] {
                if let Some(Change::Listed(all)) = status.watch(filter).next().await {
                    left.extend(all.into_keys().map(|key| format!("status key {key}")));
                }
            }
            let nodes = bus.open::<NodeStatus>(Bucket::Status).await;
            if let Some(Change::Listed(all)) = nodes.watch("node.*").next().await {
                left.extend(all.values().flat_map(|s| s.value.apps.keys().map(|app| format!("status of {} has {app}", s.value.node))));
            }
            left
        })
    }

    fn no_errors_logged(&self) -> Result<()> {
        let since = format!("--since=@{}", unix(self.began.get()));
        // What the processes say themselves; systemd has its own opinion of those that a scenario kills.
        let own = ["_SYSTEMD_UNIT=cluster-agent.service", "+", "_SYSTEMD_UNIT=cluster-controller.service"];
        let mut lines = Vec::new();
        for node in self.lab.nodes() {
            let shown = ["journalctl", "--quiet", "--output=json", "--output-fields=MESSAGE,PRIORITY,TARGET", &since];
            let text = self.lab.exec(node, shown.iter().chain(&own))?.ok()?;
            for line in text.lines() {
                let entry: Value = serde_json::from_str(line).map_err(|error| wrong(format!("journal of {node}: {error}: {line}")))?;
                let field = |name: &str| entry[name].as_str().unwrap_or_default();
                // The NATS client calls it an error when a server goes; that is what scenarios do.
                let error = matches!(field("PRIORITY"), "0" | "1" | "2" | "3") && !field("TARGET").starts_with("async_nats");
                if error || field("MESSAGE").contains("panicked at") {
                    lines.push(format!("{node}: {}", field("MESSAGE")));
                }
            }
        }
        ensure(lines.is_empty(), || format!("errors were logged:\n{}", lines.join("\n")))
    }

    /// What a failed scenario prints.
    pub fn diagnose(&self) -> String {
        let mut text = self.lab.diagnose();
        let commands: [&[&str]; 4] =
            [&["get", "apps", "-o", "wide"], &["get", "nodes"], &["get", "assignments", "-o", "wide"], &["describe", "app"]];
        for arguments in commands {
            text.push_str(&format!("--- clusterctl {}\n", arguments.join(" ")));
            match self.ctl(arguments) {
                Ok(ran) => text.push_str(&format!("{}{}", ran.stdout, ran.stderr)),
                Err(error) => text.push_str(&format!("{}\n", error.chain())),
            }
        }
        text
    }
}

/// Says what is left of Apps on a node; addresses are looked at from outside.
const LEFT: &str = "\
    systemctl list-units --all --no-legend --plain 'clusterctl-*' 'own-*' | sed 's/^/unit /'; \
    find /run/systemd/system /etc/systemd/system -maxdepth 1 \\( -name 'clusterctl-*' -o -name 'own-*' \\) -printf 'unit file %p\\n'; \
    find /run/clusterctl -mindepth 1 -maxdepth 1 -type d -printf 'folder %p\\n'; \
    pgrep -a -x demo | sed 's/^/process /'; pgrep -a -x nginx | sed 's/^/process /'";

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A status in a line, for messages.
pub fn explain(status: &AppStatus) -> String {
    let conditions = status.conditions.iter().map(|c| format!("{}={} ({}: {})", c.kind, c.status.as_str(), c.reason, c.message));
    format!("{}; {}", status.ready, conditions.collect::<Vec<_>>().join("; "))
}

/// A manifest whose App runs the demo program on a port; `more` is what else stands in the spec, in flow style.
pub fn demo_app(name: &str, mode: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: {name} }}\nspec: {{ mode: {mode}, exec: {{ command: \
         [/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:{port}\"] }}, {more} }}\n---\n"
    )
}
