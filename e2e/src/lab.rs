//! A lab from up to down.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::content::Facts;
use crate::error::{Context, LabError, Result};
use crate::names::{Layout, MAX_NODES, MAX_SERVERS, NodeId};
use crate::nats::{self, Meta};
use crate::net;
use crate::rootfs::{Disks, Fill, Payload, make_dir, random_hex, write_file};
use crate::spawn::in_netns;
use crate::wait::wait_until;

/// The nats-server that `scripts/setup` installs by default.
pub const NATS_VERSION: &str = "2.15.1";

/// Units and NATS are ready after a few seconds; the rest is for nine nodes on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Marks a folder as the disks of a lab: without it nothing is ever removed.
const MARKER: &str = ".clusterctl-lab";

/// What kind of lab to start, and from what. Start from [`UpOptions::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The lab's name; two labs of different names run side by side. Default `lab`.
    pub name: String,
    /// How many nodes, 1 to [`MAX_NODES`].
    pub nodes: u8,
    /// The cluster's name. Default `lab`.
    pub cluster: String,
    /// The lease of Apps that name none. Default: what the controllers take by themselves.
    pub lease: Option<Duration>,
    /// Only systemd and NATS, without the product. Default no.
    pub bare: bool,
    /// Only systemd: machines as they are before anything is installed. Default no.
    pub empty: bool,
    /// The folder of the product's programs. Default: that of the running program, as cargo lays them out.
    pub bin_dir: PathBuf,
    /// The repository, for the product's unit files. Default: `$CLUSTERCTL_REPO`, else where this crate was built.
    pub repo: PathBuf,
    /// The NATS server to run. Default: `$CLUSTERCTL_NATS_SERVER`, else the one `scripts/setup` puts in the repository.
    pub nats_server: PathBuf,
    /// Where the nodes' disks are made, in a folder of the lab's name. Default `/var/tmp/clusterctl-lab`.
    pub data_dir: Option<PathBuf>,
    /// Called with a line on each step. Default: silent.
    pub progress: fn(&str),
}

impl UpOptions {
    /// The defaults for a lab of this many nodes.
    #[must_use]
    pub fn new(nodes: u8) -> Self {
        let repo = std::env::var_os("CLUSTERCTL_REPO").map_or_else(default_repo, PathBuf::from);
        let options = Self {
            name: "lab".to_owned(),
            nodes,
            cluster: "lab".to_owned(),
            lease: None,
            bare: false,
            empty: false,
            bin_dir: default_bin_dir(),
            repo: PathBuf::new(),
            nats_server: PathBuf::new(),
            data_dir: None,
            progress: |_| {},
        };
        let options = options.from_repo(repo);
        match std::env::var_os("CLUSTERCTL_NATS_SERVER") {
            Some(path) => Self { nats_server: path.into(), ..options },
            None => options,
        }
    }

    /// The same with the unit files, and the NATS server, of another repository.
    #[must_use]
    pub fn from_repo(mut self, repo: PathBuf) -> Self {
        self.nats_server = repo.join(format!(".tools/nats-server-{NATS_VERSION}/nats-server"));
        self.repo = repo;
        self
    }

    /// The same without the product.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// The same with nothing but systemd on the nodes.
    #[must_use]
    pub fn empty(mut self) -> Self {
        (self.bare, self.empty) = (true, true);
        self
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
}

fn default_repo() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo puts programs into `target/PROFILE` and tests into `target/PROFILE/deps`.
fn default_bin_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("/usr/bin"));
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
}

/// What other processes need to know about a lab; kept in its state folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) nodes: u8,
    pub(crate) cluster: String,
    #[serde(default)]
    pub(crate) lease: Option<Duration>,
    pub(crate) bare: bool,
    #[serde(default)]
    pub(crate) empty: bool,
    pub(crate) data: PathBuf,
    pub(crate) bin_dir: PathBuf,
}

/// A running lab. Cheap to make by [`Lab::attach`]; all state is in the kernel and in files, so several processes and
/// threads may use the same lab. Dropping it changes nothing; see [`ScopedLab`].
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) layout: Layout,
    pub(crate) cgroups: Cgroups,
    pub(crate) disks: Disks,
    pub(crate) facts: Facts,
    pub(crate) config: Config,
}

/// What [`Lab::remove`] found and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Processes that were still running.
    pub processes: usize,
    /// Network namespaces.
    pub namespaces: usize,
}

impl Lab {
    fn new(layout: Layout, config: Config) -> Result<Self> {
        let servers = match config.nodes {
            _ if config.empty => 0,
            nodes if nodes < MAX_SERVERS => 1,
            _ => MAX_SERVERS,
        };
        Ok(Self {
            cgroups: Cgroups::new(&layout.name)?,
            disks: Disks(config.data.clone()),
            facts: Facts {
                cluster: config.cluster.clone(),
                nodes: config.nodes,
                servers: (1..=servers).map(NodeId::from).collect(),
                lease: config.lease,
            },
            layout,
            config,
        })
    }

    /// Starts a lab and returns when every node's systemd has started all it had to, and NATS has a JetStream leader.
    /// Whatever an earlier lab of the same name left is removed first.
    ///
    /// After an error what is up stays, for a look; [`Lab::remove`] removes it.
    ///
    /// # Errors
    /// [`LabError::NotRoot`], [`LabError::Invalid`] options, [`LabError::Missing`] programs, [`LabError::Busy`] lab,
    /// [`LabError::Boot`] and [`LabError::TimedOut`] for nodes and servers that do not come up.
    pub fn up(options: &UpOptions) -> Result<Self> {
        require_root()?;
        let started = Instant::now();
        let say = |text: &str| (options.progress)(&format!("{:6.2}s  {text}", started.elapsed().as_secs_f64()));
        let layout = Layout::new(&options.name)?;
        let config = check_options(options, &layout)?;
        let payload = if options.empty {
            Payload::default()
        } else {
            Payload::collect(&options.bin_dir, &options.repo, &options.nats_server, options.bare)?
        };
        let _lock = lock(&layout)?;

        let left = destroy(&layout)?;
        if left != (Removed { processes: 0, namespaces: 0 }) {
            say(&format!("removed what an earlier lab left: {} processes, {} namespaces", left.processes, left.namespaces));
        }
        let lab = Self::new(layout, config)?;
        let token = lab.write_state()?;
        lab.disks.prepare(&payload)?;
        make_dir(&lab.shared_dir())?;
        net::create_switch(&lab.layout)?;
        net::create_client(&lab.layout)?;
        say("network and programs");
        let fill = Fill { facts: &lab.facts, payload: &payload, token: &token };
        lab.on_all_nodes(|node| lab.power_on(node, Some(fill)))?;
        say(&format!("systemd answers on {} nodes", lab.config.nodes));
        if !options.empty {
            lab.wait_nats(READY_LIMIT)?;
            say("NATS has a JetStream leader");
        }
        lab.wait_units(READY_LIMIT)?;
        say("all units started");
        Ok(lab)
    }

    /// Like [`Lab::up`]; the lab goes when the returned value is dropped.
    ///
    /// # Errors
    /// As [`Lab::up`]; then the lab is removed at once.
    pub fn up_scoped(options: &UpOptions) -> Result<ScopedLab> {
        match Self::up(options) {
            Ok(lab) => Ok(ScopedLab(lab)),
            // A lab that another process is working on is not ours to remove.
            Err(error @ (LabError::Busy { .. } | LabError::NotRoot | LabError::Invalid(_) | LabError::Missing { .. })) => Err(error),
            Err(error) => {
                if !keep() {
                    Self::kill(&options.name)?;
                }
                Err(error)
            }
        }
    }

    /// A lab that is already up.
    ///
    /// # Errors
    /// [`LabError::NotUp`] when there is none, [`LabError::NotRoot`].
    pub fn attach(name: &str) -> Result<Self> {
        require_root()?;
        let layout = Layout::new(name)?;
        let config = read_config(&layout)?.ok_or_else(|| LabError::NotUp { name: name.to_owned() })?;
        Self::new(layout, config)
    }

    /// Removes the lab: no process, namespace, mount, cgroup or file of it is left.
    ///
    /// # Errors
    /// [`LabError::Busy`] when another process brings it up or down; [`LabError::Io`] when the kernel refuses.
    pub fn down(&self) -> Result<()> {
        Self::remove(&self.layout.name).map(drop)
    }

    /// [`Lab::down`] by name: also for labs that are half up, lost their state or never were.
    ///
    /// # Errors
    /// As [`Lab::down`].
    pub fn remove(name: &str) -> Result<Removed> {
        let removed = Self::kill(name)?;
        Cgroups::new(name)?.wait_collected();
        Ok(removed)
    }

    /// [`Lab::remove`] without waiting for the host's init.
    fn kill(name: &str) -> Result<Removed> {
        require_root()?;
        let layout = Layout::new(name)?;
        let lock = lock(&layout)?;
        let removed = destroy(&layout)?;
        fs::remove_file(&lock.path).context(|| format!("remove {}", lock.path.display()))?;
        // Other labs may be in there.
        let _in_use = fs::remove_dir(layout.base());
        Ok(removed)
    }

    fn write_state(&self) -> Result<String> {
        let token = random_hex()? + &random_hex()?;
        let config = serde_json::to_string_pretty(&self.config).map_err(io::Error::from);
        let config = config.context(|| "encode lab.json".to_owned())?;
        make_dir(&self.config.data)?;
        write_file(&self.config.data.join(MARKER), "", 0o644)?;
        let client = self.layout.client_dir();
        write_file(&client.join("token"), &format!("{token}\n"), 0o600)?;
        write_file(&client.join("cli.yaml"), &self.facts.cli(&client.join("token")), 0o644)?;
        write_file(&self.layout.config(), &config, 0o644)?;
        Ok(format!("{token}\n"))
    }

    /// Runs `work` for all nodes at once; the first error in node order counts.
    pub(crate) fn on_all_nodes<T: Send>(&self, work: impl Fn(NodeId) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> = self.nodes().map(|node| scope.spawn(move || work(node))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// Waits until every node that is on has started all units it had to start.
    ///
    /// # Errors
    /// [`LabError::Boot`] with failed units and warnings.
    pub fn wait_units(&self, limit: Duration) -> Result<()> {
        self.on_all_nodes(|node| if self.cgroups.is_populated(node) { self.wait_node_units(node, limit) } else { Ok(()) }).map(drop)
    }

    /// Waits until all NATS servers are healthy and agree on a JetStream leader, and returns that.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] with what the servers say.
    pub fn wait_nats(&self, limit: Duration) -> Result<NodeId> {
        wait_until("a JetStream leader", limit, || {
            let mut leaders = Vec::new();
            for &server in &self.facts.servers {
                match self.ask_nats(server)? {
                    Meta::Led(leader) => leaders.push(leader),
                    Meta::Waiting(seen) => return Err(LabError::Invalid(seen)),
                }
            }
            match leaders.as_slice() {
                [first, rest @ ..] if rest.iter().all(|leader| leader == first) => Ok(*first),
                _ => Err(LabError::Invalid(format!("servers disagree: {leaders:?}"))),
            }
        })
    }

    /// The server that leads JetStream as far as the servers that answer know; `None` while there is no leader.
    ///
    /// # Errors
    /// [`LabError::Io`] when the lab's network cannot be entered.
    pub fn nats_leader(&self) -> Result<Option<NodeId>> {
        for &server in self.facts.servers.iter().filter(|server| self.cgroups.is_populated(**server)) {
            if let Meta::Led(leader) = self.ask_nats(server)? {
                return Ok(Some(leader));
            }
        }
        Ok(None)
    }

    fn ask_nats(&self, server: NodeId) -> Result<Meta> {
        let servers = self.facts.servers.len();
        in_netns(&crate::names::netns_path(&self.layout.client_ns()), || nats::ask(server, servers))
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// All nodes, on or off, in order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (1..=self.config.nodes).map(NodeId::from)
    }

    /// The nodes that run a NATS server and, in a lab with the product, a controller.
    #[must_use]
    pub fn servers(&self) -> &[NodeId] {
        &self.facts.servers
    }

    /// A node's address on the lab's network.
    #[must_use]
    pub fn addr(&self, node: impl Into<NodeId>) -> Ipv4Addr {
        node.into().addr()
    }

    /// The folder a node's disk lives in, on the host: what is written in the node shows under `disk` there.
    #[must_use]
    pub fn node_dir(&self, node: impl Into<NodeId>) -> PathBuf {
        self.config.data.join(node.into().to_string())
    }

    /// The folder, on the host, that all nodes have at [`SHARED_DIR`](crate::SHARED_DIR): one disk for all, as no cluster of ours needs it,
    /// but a witness does.
    #[must_use]
    pub fn shared_dir(&self) -> PathBuf {
        self.config.data.join("shared")
    }

    pub(crate) fn check(&self, node: impl Into<NodeId>) -> Result<NodeId> {
        let node = node.into();
        if (1..=self.config.nodes).contains(&node.number()) {
            return Ok(node);
        }
        Err(LabError::NoSuchNode { node, nodes: self.config.nodes })
    }
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

fn check_options(options: &UpOptions, layout: &Layout) -> Result<Config> {
    let invalid = |text: String| Err(LabError::Invalid(text));
    if !(1..=MAX_NODES).contains(&options.nodes) {
        return invalid(format!("a lab has 1 to {MAX_NODES} nodes, not {}", options.nodes));
    }
    if Layout::new(&options.cluster).is_err() {
        return invalid(format!("'{}' is no cluster name: use a-z, 0-9 and '-'", options.cluster));
    }
    let data = options.data_dir.as_ref().map_or_else(|| layout.default_data(), |dir| dir.join(&layout.name));
    // Overlay options are separated by commas, layers by colons.
    if !data.is_absolute() || data.to_str().is_none_or(|text| text.contains([',', ':', '\\'])) {
        return invalid(format!("{} cannot hold the nodes' disks: use an absolute path without ',', ':' and '\\'", data.display()));
    }
    if data.exists() && !data.join(MARKER).exists() {
        return invalid(format!("{} exists and is not a lab's; name another folder or remove it", data.display()));
    }
    Ok(Config {
        nodes: options.nodes,
        cluster: options.cluster.clone(),
        lease: options.lease,
        bare: options.bare,
        empty: options.empty,
        data,
        bin_dir: options.bin_dir.clone(),
    })
}

fn read_config(layout: &Layout) -> Result<Option<Config>> {
    match fs::read(layout.config()) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", layout.config().display())),
    }
}

/// Removes everything of a lab but its lock. Each part is found by its name, so nothing has to be remembered but a
/// folder for the disks that is not the default.
fn destroy(layout: &Layout) -> Result<Removed> {
    let config = read_config(layout)?;
    let processes = Cgroups::new(&layout.name)?.destroy()?;
    let namespaces = net::destroy(layout)?;
    let disks = [Some(layout.default_data()), config.map(|config| config.data)];
    for data in disks.into_iter().flatten().filter(|data| data.join(MARKER).exists()) {
        fs::remove_dir_all(&data).context(|| format!("remove {}", data.display()))?;
        if let Some(parent) = data.parent().filter(|parent| *parent == Path::new(crate::names::DATA_ROOT)) {
            let _in_use = fs::remove_dir(parent);
        }
    }
    match fs::remove_dir_all(layout.state()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(|| format!("remove {}", layout.state().display())),
        _ => Ok(Removed { processes, namespaces }),
    }
}

struct Lock {
    path: PathBuf,
    _file: File,
}

/// Takes the lab's lock or fails at once: two commands that bring the same lab up or down must not meet.
fn lock(layout: &Layout) -> Result<Lock> {
    let path = layout.lock();
    make_dir(layout.base())?;
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LabError::Busy { name: layout.name.clone(), lock: path }),
            Err(TryLockError::Error(error)) => return Err(error).context(|| format!("lock {}", path.display())),
        }
        // A `down` removes the file while it holds the lock; then this is the lock of nobody.
        let mine = file.metadata().context(|| format!("look at {}", path.display()))?.ino();
        if fs::metadata(&path).is_ok_and(|now| now.ino() == mine) {
            return Ok(Lock { path, _file: file });
        }
    }
}

/// Set to keep labs of failed tests for a look.
const KEEP: &str = "CLUSTERCTL_LAB_KEEP";

fn keep() -> bool {
    std::env::var_os(KEEP).is_some()
}

/// A lab that is removed when this is dropped; for tests. When the test is failing, what the nodes logged last is
/// written to standard error first, and with `CLUSTERCTL_LAB_KEEP` in the environment the lab stays.
#[derive(Debug)]
pub struct ScopedLab(Lab);

impl Deref for ScopedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for ScopedLab {
    #[expect(clippy::print_stderr, reason = "the only place where a failing test's nodes can be heard")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.diagnose());
            if keep() {
                eprintln!("lab {} is kept; 'lab --name {} down' removes it", self.0.name(), self.0.name());
                return;
            }
        }
        if let Err(error) = Lab::kill(self.0.name()) {
            eprintln!("lab {}: {}", self.0.name(), error.chain());
        }
    }
}
