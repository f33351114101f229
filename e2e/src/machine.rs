//! Booting a node: systemd as PID 1 in a container of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::content::SHARED_DIR;
use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::{NodeId, netns_path};
use crate::rootfs::{Fill, make_dir};
use crate::spawn::{command_in_cgroup, with_private_mounts};
use crate::wait::wait_until;

/// `systemd-nspawn` drops CAP_NET_ADMIN even when it is given a network namespace. The others are for the agent (raw ARP),
/// and the guard (locked memory, real-time priority).
const CAPABILITIES: &str = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_IPC_LOCK,CAP_SYS_NICE";

/// A node answers after 0.2 s on an idle machine; the rest is for nine at once on a loaded one.
const BOOT_LIMIT: Duration = Duration::from_secs(30);

/// How much of a node's console a failure shows.
const CONSOLE_LINES: usize = 30;

/// The search path inside nodes and for the lab's own tools.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Lab {
    /// Starts a node's systemd; it runs on when the caller ends. `fill` is given at the node's first boot.
    pub(crate) fn start_systemd(&self, node: NodeId, fill: Option<Fill<'_>>) -> Result<()> {
        let procs = self.cgroups.create_node(node)?;
        with_private_mounts(|| {
            // nspawn keeps locks and sockets in /run/systemd; on its own file system they go with the node.
            let run_systemd = Path::new("/run/systemd");
            make_dir(run_systemd)?;
            mount(Some("tmpfs"), run_systemd, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=1m"))
                .context(|| "mount a tmpfs on /run/systemd".to_owned())?;
            let root = self.disks.mount_node(node, fill)?;
            let console = File::options().create(true).append(true).open(self.disks.console(node));
            let console = console.context(|| format!("open the console of {node}"))?;
            let errors = console.try_clone().context(|| format!("open the console of {node}"))?;

            // Forked off by setsid, the supervisor belongs to no terminal and to no test runner.
            let mut command = command_in_cgroup(&procs, "setsid")?;
            command.args(["--fork", "systemd-nspawn"]).args(self.nspawn_args(node, &root));
            command.env_clear().envs([
                ("PATH", PATH),
                // The unified hierarchy inside, as a Debian machine has it, even where the host's cgroups are hybrid.
                ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1"),
                // The node's own network settings may be changed from inside, the host's other settings may not.
                ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network"),
            ]);
            let status = command.stdin(Stdio::null()).stdout(console).stderr(errors).status();
            match status.context(|| format!("start systemd-nspawn for {node}"))? {
                status if status.success() => Ok(()),
                status => Err(self.boot_error(node, format!("setsid ended with {status}"))),
            }
        })
    }

    fn nspawn_args(&self, node: NodeId, root: &Path) -> Vec<OsString> {
        let ns = self.layout.node_ns(node);
        let options = [
            "--quiet".to_owned(),
            "--register=no".to_owned(),
            "--keep-unit".to_owned(),
            "--settings=no".to_owned(),
            format!("--machine={ns}"),
            format!("--hostname={node}"),
            format!("--network-namespace-path={}", netns_path(&ns).display()),
            format!("--capability={CAPABILITIES}"),
            "--resolv-conf=off".to_owned(),
            "--timezone=off".to_owned(),
            "--link-journal=no".to_owned(),
            "--console=read-only".to_owned(),
            // The nodes' disks are there on the host; seen through the overlay they would be a loop.
            "--tmpfs=/var/tmp".to_owned(),
            "--setenv=SYSTEMD_COLORS=0".to_owned(),
            format!("--bind={}:{SHARED_DIR}", self.shared_dir().display()),
        ];
        let mut args: Vec<OsString> = options.into_iter().map(OsString::from).collect();
        args.extend(["--directory".into(), root.as_os_str().to_owned(), "--boot".into()]);
        args
    }

    /// The node's PID 1 once its systemd answers.
    pub(crate) fn init_pid(&self, node: NodeId) -> Option<u32> {
        let pid = self.cgroups.init_of(node)?;
        let answers = ["run/systemd/private", "run/dbus/system_bus_socket"];
        answers.iter().all(|socket| Path::new(&format!("/proc/{pid}/root")).join(socket).exists()).then_some(pid)
    }

    /// Waits until a started node's systemd answers.
    pub(crate) fn wait_booted(&self, node: NodeId) -> Result<()> {
        let booted = wait_until(&format!("systemd in {node}"), BOOT_LIMIT, || match self.init_pid(node) {
            Some(_) => Ok(Ok(())),
            None if self.cgroups.is_populated(node) => Err("processes, but no answer"),
            None => Ok(Err(self.boot_error(node, "systemd-nspawn ended".to_owned()))),
        });
        booted.map_err(|error| self.boot_error(node, error.to_string()))?
    }

    fn boot_error(&self, node: NodeId, why: String) -> LabError {
        let text = fs::read(self.disks.console(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        LabError::Boot { node, why, console: lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n") }
    }

    /// Asks the node's systemd whether all it had to start has started, waiting for the answer.
    pub(crate) fn wait_node_units(&self, node: NodeId, limit: Duration) -> Result<()> {
        let state = match self.exec_within(limit, node, ["systemctl", "is-system-running", "--wait"]) {
            Ok(ran) if ran.stdout.trim() == "running" => return Ok(()),
            Ok(ran) => ran.stdout.trim().to_owned(),
            Err(LabError::TimedOut { waited, .. }) => format!("still starting after {waited:.0?}"),
            Err(error) => return Err(error),
        };
        let failed = self.exec(node, ["systemctl", "list-units", "--failed", "--no-legend", "--plain", "--no-pager"])?.stdout;
        let jobs = self.exec(node, ["systemctl", "list-jobs", "--no-legend", "--no-pager"])?.stdout;
        let journal = self.exec(node, ["journalctl", "-b", "-p", "warning", "-n", "20", "--no-pager", "-o", "short-monotonic"])?.stdout;
        let console = format!("failed units:\n{failed}waiting jobs:\n{jobs}warnings in the journal:\n{journal}");
        Err(LabError::Boot { node, why: format!("its systemd is {state}"), console })
    }
}
