//! Who is at the other end of a connection: from the kernel's word for it to the unit that the process runs in.

use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};

/// The process that connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its process id.
    pub pid: i32,
    /// Its user id.
    pub uid: u32,
    /// The systemd service that it runs in; none where it runs in none.
    pub unit: Option<String>,
}

/// What the kernel knows of the other end. The process is looked at while it is known to live: its number may go to another one when it has
/// ended. `unit_of` tells the unit of a process.
///
/// # Errors
/// The system's; [`io::ErrorKind::NotFound`] where the process has ended.
pub fn peer(socket: &impl AsFd, unit_of: &dyn Fn(i32) -> Option<String>) -> io::Result<Peer> {
    let credentials = getsockopt(socket, PeerCredentials)?;
    let (pid, uid) = (credentials.pid(), credentials.uid());
    // Linux before 6.5 has no SO_PEERPIDFD. There, a process that connected and ended before this line may be taken for who got its number.
    let handle = match getsockopt(socket, PeerPidfd) {
        Ok(handle) => handle,
        Err(nix::errno::Errno::ENOPROTOOPT | nix::errno::Errno::EINVAL) => pidfd_open(pid)?,
        Err(nix::errno::Errno::ESRCH) => return Err(ended()),
        Err(error) => return Err(error.into()),
    };
    let unit = unit_of(pid);
    // A handle that is readable is one of a process that ended, maybe before its number was looked up.
    let mut looked = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    if poll(&mut looked, PollTimeout::ZERO)? != 0 {
        return Err(ended());
    }
    Ok(Peer { pid, uid, unit })
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the process that connected has ended")
}

#[expect(unsafe_code, reason = "nix has no call for pidfd_open; the kernel takes two numbers and returns a new descriptor")]
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call reads no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("no descriptor"))?;
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(if error.raw_os_error() == Some(libc::ESRCH) { ended() } else { error });
    }
    // SAFETY: it is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The systemd service that a process of this machine runs in, by its cgroup.
#[must_use]
pub fn unit_of(pid: i32) -> Option<String> {
    let group = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    service_in(&group(pid)?, &group(1).unwrap_or_default())
}

/// The service in a text of `/proc/PID/cgroup`, where systemd's own is `init`.
fn service_in(text: &str, init: &str) -> Option<String> {
    // In hybrid mode systemd keeps both hierarchies alike; in a container there, it may keep one, and the other says the same of all.
    [":", "name=systemd:"].into_iter().find_map(|hierarchy| {
        let path = |text| path_of(text, hierarchy);
        // In a container without a namespace of its own for cgroups, all paths begin with what systemd itself is in.
        let init = path(init).unwrap_or_default();
        let root = init.strip_suffix("/init.scope").unwrap_or(init).trim_end_matches('/');
        let below = path(text)?.strip_prefix(root)?;
        // The first one: what a service makes below itself, as the manager of a user's services does, is not for others to name.
        let unit = below.split('/').find(|part| part.ends_with(".service") || part.ends_with(".scope"))?;
        unit.ends_with(".service").then(|| unescape(unit))
    })
}

/// The path in a hierarchy: the unified one, or the one of systemd's own.
fn path_of<'a>(text: &'a str, hierarchy: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(hierarchy))
}

/// systemd puts a `_` before names that cgroups would take for their own files.
fn unescape(name: &str) -> String {
    name.strip_prefix('_').unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_service_below_systemd() {
        let unified = |path: &str| service_in(&format!("0::{path}\n"), "0::/init.scope\n1:name=systemd:/init.scope\n");
        assert_eq!(unified("/system.slice/clusterctl-api.service").as_deref(), Some("clusterctl-api.service"));
        assert_eq!(unified("/system.slice/clusterctl-api.service/worker").as_deref(), Some("clusterctl-api.service"));
        assert_eq!(unified("/system.slice/system-worker.slice/worker@1.service").as_deref(), Some("worker@1.service"));
        // A user's own manager names what it likes below itself.
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/clusterctl-api.service";
        assert_eq!(unified(user).as_deref(), Some("user@1000.service"));
        assert_eq!(unified("/user.slice/user-0.slice/session-1.scope/clusterctl-api.service"), None);
        assert_eq!(unified("/"), None);
    }

    #[test]
    fn hybrid_hierarchies_and_containers_are_read() {
        let hybrid = "12:cpuset:/\n1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n";
        assert_eq!(service_in(hybrid, "0::/init.scope\n1:name=systemd:/init.scope\n").as_deref(), Some("nginx.service"));
        let inside = "0::/lab.service/n1/payload/system.slice/nginx.service\n";
        assert_eq!(service_in(inside, "0::/lab.service/n1/payload/init.scope\n").as_deref(), Some("nginx.service"));
        // The hierarchy that systemd of a container does not use says nothing.
        let unused = "1:name=systemd:/\n0::/system.slice/nginx.service\n";
        assert_eq!(service_in(unused, "1:name=systemd:/\n0::/init.scope\n").as_deref(), Some("nginx.service"));
        // What is not below systemd is none of its units.
        assert_eq!(service_in("0::/../outside.service\n", "0::/inner/init.scope\n"), None);
    }

    #[test]
    fn the_other_end_is_known_by_the_kernel() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let known = peer(&one, &|pid| Some(format!("{pid}.service"))).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(known, Peer { pid: own, uid: nix::unistd::getuid().as_raw(), unit: Some(format!("{own}.service")) });
    }

    #[test]
    fn a_process_that_ended_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let code = format!("import socket; s = socket.socket(socket.AF_UNIX); s.connect({path:?})");
        let ran = std::process::Command::new("python3").args(["-c", &code]).status().unwrap();
        assert!(ran.success());
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(peer(&socket, &|_| Some("x.service".to_owned())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
