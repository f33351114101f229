//! The cgroups of a lab: one per node, so that a power cut and a freeze are one write each.
//!
//! They are made in the unified (v2) hierarchy wherever that is mounted. With hybrid cgroups (the v1 controllers mounted
//! beside it) `systemd-nspawn` adds empty twins in the v1 tree of name `systemd`, which have to be removed as well.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, LabError, Result};
use crate::names::NodeId;
use crate::wait::wait_until;

const ROOT_NAME: &str = "clusterctl-lab";

/// Where exec'd commands go: beside the node's own tree, so that systemd inside never meets a process it does not know.
const EXEC: &str = "exec";

/// How long the kernel may take to kill or freeze a tree. Measured: 4 to 16 ms; the rest is for a loaded machine.
const SETTLE: Duration = Duration::from_secs(20);

/// How long a `down` waits for the host's init to collect the dead. systemd does at once, some container inits every second.
const COLLECT: Duration = Duration::from_secs(10);

/// The cgroups of one lab.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    parent: PathBuf,
    lab: PathBuf,
    v1_lab: Option<PathBuf>,
}

impl Cgroups {
    pub(crate) fn new(lab: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".to_owned())?;
        let Some(unified) = mount_point(&mounts, |fs_type, _| fs_type == "cgroup2") else {
            return Err(LabError::Missing {
                files: vec![PathBuf::from("/sys/fs/cgroup/unified")],
                fix: "mount the unified cgroup hierarchy: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified".to_owned(),
            });
        };
        let named = mount_point(&mounts, |fs_type, options| fs_type == "cgroup" && options.split(',').any(|o| o == "name=systemd"));
        let parent = unified.join(ROOT_NAME);
        Ok(Self { lab: parent.join(lab), parent, v1_lab: named.map(|root| root.join(ROOT_NAME).join(lab)) })
    }

    pub(crate) fn node(&self, node: NodeId) -> PathBuf {
        self.lab.join(node.to_string())
    }

    /// The cgroup for commands inside a node.
    pub(crate) fn node_exec(&self, node: NodeId) -> PathBuf {
        self.node(node).join(EXEC)
    }

    /// The cgroup for commands of the client and for the lab's own helpers.
    pub(crate) fn outside(&self) -> Result<PathBuf> {
        let dir = self.lab.join("outside");
        fs::create_dir_all(&dir).context(|| format!("create cgroup {}", dir.display()))?;
        Ok(dir)
    }

    /// Makes the cgroups of a node and returns the `cgroup.procs` its supervisor has to join.
    pub(crate) fn create_node(&self, node: NodeId) -> Result<PathBuf> {
        let dir = self.node(node);
        fs::create_dir_all(dir.join(EXEC)).context(|| format!("create cgroup {}", dir.display()))?;
        // On a purely unified host this is what lets units inside have limits; with hybrid cgroups there is nothing
        // to enable, and the node works as well without.
        for dir in [&self.parent, &self.lab] {
            let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            for controller in available.split_whitespace() {
                let _unavailable = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        Ok(dir.join("cgroup.procs"))
    }

    /// The process that is PID 1 inside the node, if the node is on.
    pub(crate) fn init_of(&self, node: NodeId) -> Option<u32> {
        let payload = self.node(node).join("payload");
        // systemd starts in `payload` and moves itself to `init.scope`, where helpers of its own may be for a moment.
        let candidates = [payload.join("init.scope"), payload];
        candidates.iter().flat_map(|dir| pids(dir)).find(|pid| pid_inside(*pid) == Some(1))
    }

    /// The processes of one of the node's services, by the host's numbers.
    pub(crate) fn service(&self, node: NodeId, unit: &str) -> Vec<u32> {
        pids(&self.node(node).join("payload/system.slice").join(unit))
    }

    /// Whether any process of the node is left.
    pub(crate) fn is_populated(&self, node: NodeId) -> bool {
        event(&self.node(node), "populated") == Some(true)
    }

    /// Whether the node's processes are frozen.
    pub(crate) fn is_frozen(&self, node: NodeId) -> bool {
        fs::read_to_string(self.node(node).join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// Kills every process of the node; returns when the kernel has taken the order, not when they are gone.
    pub(crate) fn kill_node(&self, node: NodeId) -> Result<()> {
        kill(&self.node(node))
    }

    /// Waits until the node has no process left.
    pub(crate) fn wait_empty(&self, node: NodeId) -> Result<()> {
        wait_event(&self.node(node), "populated", false)
    }

    /// Freezes or thaws all processes of the node and waits until that is so.
    pub(crate) fn freeze_node(&self, node: NodeId, frozen: bool) -> Result<()> {
        let dir = self.node(node);
        let text = if frozen { "1" } else { "0" };
        fs::write(dir.join("cgroup.freeze"), text).context(|| format!("write {}/cgroup.freeze", dir.display()))?;
        wait_event(&dir, "frozen", frozen)
    }

    /// Removes the cgroups of a node that has no process left, so that the next boot starts with fresh ones.
    pub(crate) fn remove_node(&self, node: NodeId) -> Result<()> {
        remove_tree(&self.node(node))?;
        self.v1_lab.as_ref().map_or(Ok(()), |dir| remove_tree(&dir.join(node.to_string())))
    }

    /// Kills everything of the lab and removes its cgroups. Says how many processes there were.
    pub(crate) fn destroy(&self) -> Result<usize> {
        let mut count = 0;
        if self.lab.exists() {
            count = tree(&self.lab).iter().map(|dir| pids(dir).len()).sum();
            kill(&self.lab)?;
            wait_event(&self.lab, "populated", false)?;
            remove_tree(&self.lab)?;
        }
        if let Some(dir) = &self.v1_lab {
            remove_tree(dir)?;
        }
        // The parents serve other labs too; they go with the last.
        for dir in std::iter::once(&self.parent).chain(self.v1_lab.as_deref().and_then(Path::parent).map(Path::to_path_buf).as_ref()) {
            let _in_use = fs::remove_dir(dir);
        }
        Ok(count)
    }

    /// Waits until the host's init has collected all processes that were ever killed here. They hold nothing any more, but
    /// are in the process table; an init that takes its time is not our error.
    pub(crate) fn wait_collected(&self) {
        // The kernel names the cgroup of the dead even after it was removed.
        let Some(name) = self.lab.file_name().and_then(|name| name.to_str()) else { return };
        let ours = format!("0::/{ROOT_NAME}/{name}/");
        let is_ours = |pid: &Path| fs::read_to_string(pid.join("cgroup")).is_ok_and(|text| text.contains(&ours));
        let _slow_init = wait_until("init to collect the dead", COLLECT, || {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
            let left = processes.filter(|process| is_ours(process)).count();
            if left == 0 { Ok(()) } else { Err(left) }
        });
    }
}

/// The first mount of `mountinfo` whose file system type and super options please `wanted`.
fn mount_point(mountinfo: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let (fs_type, _source, options) = (rest.next()?, rest.next()?, rest.next()?);
        wanted(fs_type, options).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn pids(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The PID of a process as seen in its own PID namespace.
fn pid_inside(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

fn event(dir: &Path, key: &str) -> Option<bool> {
    let text = fs::read_to_string(dir.join("cgroup.events")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|value| value == "1")
}

fn wait_event(dir: &Path, key: &str, value: bool) -> Result<()> {
    wait_until(&format!("{key}={value} of {}", dir.display()), SETTLE, || match event(dir, key) {
        Some(now) if now == value => Ok(()),
        None if !dir.exists() => Ok(()),
        now => Err(format!("{now:?}")),
    })
}

fn kill(dir: &Path) -> Result<()> {
    fs::write(dir.join("cgroup.kill"), "1").context(|| format!("write {}/cgroup.kill", dir.display()))
}

/// A cgroup and all below it, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = found.get(next) {
        let below = fs::read_dir(dir).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = below.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// Removes an empty tree. The kernel lets go of the last dead process a moment after it reports the tree empty.
fn remove_tree(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    for dir in tree(dir).iter().rev() {
        loop {
            match fs::remove_dir(dir) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(|| format!("remove cgroup {}", dir.display()));
                }
                Err(_busy) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn both_hierarchies_are_found_on_a_hybrid_host() {
        let unified = mount_point(HYBRID, |fs_type, _| fs_type == "cgroup2");
        assert_eq!(unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let named = mount_point(HYBRID, |_, options| options.split(',').any(|o| o == "name=systemd"));
        assert_eq!(named.as_deref(), Some(Path::new("/sys/fs/cgroup/systemd")));
        assert_eq!(mount_point("1 2 0:3 / / rw - ext4 /dev/vda rw\n", |fs_type, _| fs_type == "cgroup2"), None);
    }

    #[test]
    fn the_pid_inside_is_the_innermost() {
        let own = std::process::id();
        assert!(pid_inside(own).is_some());
        assert_eq!(pid_inside(u32::MAX), None);
    }
}
