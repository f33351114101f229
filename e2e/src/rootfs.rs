//! The nodes' file systems.
//!
//! A node's root is an overlay: below the host's root, so there is nothing to fetch; above it the node's own disk, which
//! outlives a power cut. At its first boot the disk is filled with what makes it a node, and whiteouts that hide what is
//! the host's own affair (its enabled units, its clusterctl). The programs are shared by the nodes in a second, small
//! overlay, so that a node may still replace its own. (One base layer for both would be simpler, but the kernel refuses
//! lower layers of which one lies within the other.)

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::content::{ETC_DIR, Facts, JOURNALD, LIB_DIR, NATS_UNIT};
use crate::error::{Context, LabError, Result};
use crate::names::NodeId;
use crate::spawn::tool;

/// What of the host must not be seen in a node; it is hidden even where the lab puts nothing in its place.
const HIDDEN: [&str; 18] = [
    "/etc/clusterctl",
    "/etc/fstab",
    "/etc/machine-id",
    "/etc/nats",
    "/etc/resolv.conf",
    "/etc/systemd/system",
    "/etc/systemd/system-generators",
    "/data",
    "/usr/bin/clusterctl",
    LIB_DIR,
    "/usr/lib/systemd/system/cluster-agent.service",
    "/usr/lib/systemd/system/cluster-controller.service",
    "/usr/lib/systemd/system/cluster-guard.service",
    "/usr/lib/systemd/system-generators/cluster-gates",
    "/var/lib/clusterctl",
    "/var/lib/nats",
    "/var/log/journal",
    "/var/lib/systemd/linger",
];

/// The units a node starts of those that come with systemd and its friends; the others are masked. Each would cost every
/// boot some time, and most are about hardware, logins or the clock, which the host has and the node has not.
const KEPT_UNITS: [&str; 9] = [
    "dbus.service",
    "dbus.socket",
    "dev-mqueue.mount",
    "systemd-journal-flush.service",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-tmpfiles-setup.service",
    "systemd-user-sessions.service",
];

/// Where units are enabled by the packages that bring them.
const STATIC_WANTS: [&str; 7] = ["basic", "local-fs", "multi-user", "remote-fs", "sockets", "sysinit", "timers"];

/// What is installed in the nodes.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    /// Programs on the host; in the nodes they are in `/usr/lib/clusterctl`.
    programs: Vec<PathBuf>,
    /// Unit files on the host.
    units: Vec<PathBuf>,
    /// Units enabled on every node.
    everywhere: Vec<String>,
    /// Units enabled on the nodes with a NATS server.
    on_servers: Vec<String>,
}

/// The folders of a lab's disks.
#[derive(Debug, Clone)]
pub(crate) struct Disks(pub(crate) PathBuf);

impl Disks {
    fn programs(&self) -> PathBuf {
        self.0.join("programs")
    }

    fn node(&self, node: NodeId) -> PathBuf {
        self.0.join(node.to_string())
    }

    /// Where a node's console goes.
    pub(crate) fn console(&self, node: NodeId) -> PathBuf {
        self.node(node).join("console.log")
    }

    /// Lays out the programs for all nodes.
    pub(crate) fn prepare(&self, payload: &Payload) -> Result<()> {
        let dir = self.programs();
        make_dir(&dir)?;
        for program in &payload.programs {
            if let Some(name) = program.file_name() {
                link_or_copy(program, &dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Mounts a node's root in the calling thread's mount namespace; `fill` is given at its first boot.
    pub(crate) fn mount_node(&self, node: NodeId, fill: Option<Fill<'_>>) -> Result<PathBuf> {
        let dir = self.node(node);
        let (disk, root) = (dir.join("disk"), dir.join("root"));
        if fill.is_some() {
            make_dir(&disk)?;
            for path in HIDDEN {
                hide(&disk, Path::new(path))?;
            }
        }
        mount_overlay("/".as_ref(), &disk, &dir.join("work"), &root)?;
        if let Some(fill) = fill {
            fill_node(&root, node, &fill)?;
        }
        mount_overlay(&self.programs(), &dir.join("programs"), &dir.join("programs.work"), &inside(&root, LIB_DIR))?;
        Ok(root)
    }
}

/// What a node's disk is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fill<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) payload: &'a Payload,
    /// The API's bearer token.
    pub(crate) token: &'a str,
}

fn mount_overlay(lower: &Path, upper: &Path, work: &Path, merged: &Path) -> Result<()> {
    for dir in [upper, work, merged] {
        make_dir(dir)?;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context(|| format!("mount an overlay ({options}); its upper folder must be on a disk, not on another overlay"))
}

fn fill_node(root: &Path, node: NodeId, fill: &Fill<'_>) -> Result<()> {
    let Fill { facts, payload, token } = *fill;
    mask_units(root)?;
    for dir in ["/var/log/journal", LIB_DIR] {
        make_dir(&inside(root, dir))?;
    }
    let etc = |name: &str| format!("{ETC_DIR}/{name}");
    write(root, "/etc/fstab", "", 0o644)?;
    // Empty: a name that is not in /etc/hosts fails at once instead of after a time-out.
    write(root, "/etc/resolv.conf", "", 0o644)?;
    write(root, "/etc/hosts", &facts.hosts(), 0o644)?;
    write(root, "/etc/hostname", &format!("{node}\n"), 0o644)?;
    write(root, "/etc/machine-id", &format!("{}\n", random_hex()?), 0o444)?;
    write(root, "/etc/systemd/journald.conf.d/lab.conf", JOURNALD, 0o644)?;
    if facts.servers.is_empty() {
        // Nothing is installed here: what a test installs it does itself.
        return Ok(());
    }
    // Where the manifests that come with the product have their databases: agents make no such folder.
    make_dir(&inside(root, "/data"))?;
    write(root, &etc("token"), token, 0o600)?;
    write(root, &etc("cli.yaml"), &facts.cli(&Path::new(ETC_DIR).join("token")), 0o644)?;
    write(root, &etc("agent.yaml"), &facts.agent(node), 0o644)?;
    let generators = inside(root, "/usr/lib/systemd/system-generators");
    make_dir(&generators)?;
    let gates = generators.join("cluster-gates");
    symlink("/usr/lib/clusterctl/cluster-gates", &gates).context(|| format!("link {}", gates.display()))?;
    let clusterctl = inside(root, "/usr/bin/clusterctl");
    symlink("../lib/clusterctl/clusterctl", &clusterctl).context(|| format!("link {}", clusterctl.display()))?;

    let mut enabled = payload.everywhere.clone();
    if facts.servers.contains(&node) {
        write(root, &etc("controller.yaml"), &facts.controller(node), 0o644)?;
        write(root, "/etc/nats/nats-server.conf", &facts.nats(node), 0o644)?;
        write(root, "/etc/systemd/system/nats-server.service", NATS_UNIT, 0o644)?;
        enabled.extend_from_slice(&payload.on_servers);
    }
    for unit in &payload.units {
        let text = fs::read_to_string(unit).context(|| format!("read {}", unit.display()))?;
        write(root, &format!("/usr/lib/systemd/system/{}", file_name(unit)), &text, 0o644)?;
    }
    enable(root, &enabled)
}

/// Leaves only the units a node needs to those that come from outside the lab.
fn mask_units(root: &Path) -> Result<()> {
    let units = inside(root, "/etc/systemd/system");
    let generators = inside(root, "/etc/systemd/system-generators");
    make_dir(&units)?;
    make_dir(&generators)?;
    // Generators make units from the host's fstab, init scripts, partitions and databases.
    for name in names_in(Path::new("/usr/lib/systemd/system-generators")) {
        mask(&generators.join(name))?;
    }
    for target in STATIC_WANTS {
        for name in names_in(&PathBuf::from(format!("/usr/lib/systemd/system/{target}.target.wants"))) {
            if !KEPT_UNITS.contains(&name.as_str()) {
                mask(&units.join(name))?;
            }
        }
    }
    let default = units.join("default.target");
    symlink("/usr/lib/systemd/system/multi-user.target", &default).context(|| format!("link {}", default.display()))
}

/// Enables units as their `[Install]` sections say, as a user would.
fn enable(root: &Path, units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    let root = format!("--root={}", root.display());
    tool("systemctl", [root.as_str(), "--quiet", "enable"].into_iter().chain(units.iter().map(String::as_str))).map(drop)
}

/// A path of a node as the host sees it.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn mask(link: &Path) -> Result<()> {
    match symlink("/dev/null", link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(|| format!("mask {}", link.display())),
    }
}

/// Hides a path of the host by a whiteout, the character device 0:0, in a layer that is not mounted. A folder made over
/// it later starts out empty, however much the host has there.
fn hide(layer: &Path, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let whiteout = layer.join(path.strip_prefix("/").unwrap_or(path));
    make_parents(layer, &whiteout)?;
    mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).context(|| format!("hide {}", path.display()))
}

/// Makes the folders above `path` in a layer, each with the owner and mode it has on the host: in an overlay the upper
/// folder's are the ones that count.
fn make_parents(layer: &Path, path: &Path) -> Result<()> {
    let below = path.strip_prefix(layer).unwrap_or(path);
    let mut ancestors: Vec<&Path> = below.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for dir in ancestors {
        let target = layer.join(dir);
        if target.is_dir() {
            continue;
        }
        make_dir(&target)?;
        if let Ok(host) = fs::metadata(Path::new("/").join(dir)) {
            std::os::unix::fs::chown(&target, Some(host.uid()), Some(host.gid()))
                .and_then(|()| fs::set_permissions(&target, host.permissions()))
                .context(|| format!("set owner and mode of {}", target.display()))?;
        }
    }
    Ok(())
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))
}

/// Writes a file of a mounted root, making the folders above it.
fn write(root: &Path, path: &str, text: &str, mode: u32) -> Result<()> {
    write_file(&inside(root, path), text, mode)
}

/// Writes a file with the given mode from the start: a token is at no time readable by others.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    remove_if_there(path)?;
    let file = fs::File::options().write(true).create_new(true).mode(mode).open(path);
    let file = file.context(|| format!("create {}", path.display()))?;
    // The umask of whoever starts the lab must not show in a node.
    file.set_permissions(fs::Permissions::from_mode(mode)).context(|| format!("set the mode of {}", path.display()))?;
    io::Write::write_all(&mut &file, text.as_bytes()).context(|| format!("write {}", path.display()))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(|| format!("replace {}", path.display())),
        _ => Ok(()),
    }
}

/// Links a program into a layer, or copies it when the layer is on another file system. Nobody writes through the link:
/// nodes copy up, and linkers replace.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    let from = from.canonicalize().context(|| format!("find {}", from.display()))?;
    // There may be a whiteout.
    remove_if_there(to)?;
    if fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    fs::copy(&from, to).map(drop).context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// 128 random bits as 32 hexadecimal digits.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0; 16];
    let mut source = fs::File::open("/dev/urandom").context(|| "open /dev/urandom".to_owned())?;
    source.read_exact(&mut bytes).context(|| "read /dev/urandom".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The product's programs.
const PROGRAMS: [&str; 5] = ["cluster-agent", "cluster-controller", "cluster-gates", "demo", "clusterctl"];
/// The product's unit files in the repository, and whether they are enabled on every node or with the NATS servers.
const UNITS: [(&str, bool); 2] = [("agent/dist/cluster-agent.service", true), ("controller/dist/cluster-controller.service", false)];
/// The guard's program and unit file: both or none.
const GUARD: (&str, (&str, bool)) = ("cluster-guard", ("agent/dist/cluster-guard.service", true));

impl Payload {
    /// Collects what goes into the nodes and says everything that is missing at once.
    pub(crate) fn collect(bin_dir: &Path, repo: &Path, nats_server: &Path, bare: bool) -> Result<Self> {
        if !nats_server.is_file() {
            return Err(LabError::Missing { files: vec![nats_server.into()], fix: "run scripts/setup".to_owned() });
        }
        let on_servers = vec!["nats-server.service".to_owned()];
        let mut payload = Self { programs: vec![nats_server.to_path_buf()], on_servers, ..Self::default() };
        if bare {
            return Ok(payload);
        }
        let (guard, guard_unit) = GUARD;
        let with_guard = bin_dir.join(guard).exists() || repo.join(guard_unit.0).exists();
        for (unit, everywhere) in UNITS.into_iter().chain(with_guard.then_some(guard_unit)) {
            let path = repo.join(unit);
            let list = if everywhere { &mut payload.everywhere } else { &mut payload.on_servers };
            list.push(file_name(&path));
            payload.units.push(path);
        }
        payload.programs.extend(PROGRAMS.into_iter().chain(with_guard.then_some(guard)).map(|name| bin_dir.join(name)));
        let files: Vec<PathBuf> = payload.programs.iter().chain(&payload.units).filter(|path| !path.is_file()).cloned().collect();
        if files.is_empty() {
            return Ok(payload);
        }
        let fix = "build the workspace ('cargo build'), name the folder with --bin-dir, or start without the product by --bare";
        Err(LabError::Missing { files, fix: fix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        write_file(path, "", 0o644).unwrap();
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let dir = std::env::temp_dir().join(format!("clusterctl-lab-test-{}", random_hex().unwrap()));
        let (bin, nats) = (dir.join("bin"), dir.join("nats-server"));
        let collect = |bare| Payload::collect(&bin, &dir, &nats, bare);
        assert!(matches!(collect(true), Err(LabError::Missing { files, .. }) if files == std::slice::from_ref(&nats)));
        touch(&nats);
        assert_eq!(collect(true).unwrap().programs, std::slice::from_ref(&nats));
        assert!(matches!(collect(false), Err(LabError::Missing { files, .. }) if files.len() == PROGRAMS.len() + UNITS.len()));
        for name in PROGRAMS {
            touch(&bin.join(name));
        }
        for (unit, _) in UNITS {
            touch(&dir.join(unit));
        }
        assert_eq!(collect(false).unwrap().everywhere, ["cluster-agent.service"]);
        // Half a guard is a mistake, not a lab without a guard.
        touch(&bin.join("cluster-guard"));
        assert!(matches!(collect(false), Err(LabError::Missing { files, .. }) if files == [dir.join(GUARD.1.0)]));
        fs::remove_dir_all(dir).unwrap();
    }
}
