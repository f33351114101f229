//! A unit's cgroup: whether anything is in it, and the end of everything in it (F3). No allocation.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use crate::layout::CGROUP_MAX;

/// Longest name appended to the path.
const NAME_MAX: usize = 16;

/// Whether any process is in the cgroup or below it. A cgroup that is not there is empty; one that cannot be read counts as populated.
pub(crate) fn is_populated(path: &[u8]) -> bool {
    let mut full = [0_u8; CGROUP_MAX + NAME_MAX];
    let Some(name) = join(path, b"/cgroup.events", &mut full) else { return false };
    let file = match open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENODEV) => return false,
        Err(_) => return true,
    };
    let mut text = [0_u8; 128];
    match read(&file, &mut text) {
        Ok(length) => !contains(text.get(..length).unwrap_or(&[]), b"populated 0"),
        // The cgroup went away between the two calls.
        Err(nix::errno::Errno::ENODEV) => false,
        Err(_) => true,
    }
}

/// Kills everything in the cgroup and below it, frozen or not. True if the kernel took the order.
pub(crate) fn kill(path: &[u8]) -> bool {
    let mut full = [0_u8; CGROUP_MAX + NAME_MAX];
    let Some(name) = join(path, b"/cgroup.kill", &mut full) else { return false };
    let Ok(file) = open(name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) else { return false };
    write(&file, b"1").is_ok()
}

/// The path with a name behind it; none where the path is empty.
fn join<'a>(path: &[u8], name: &[u8], full: &'a mut [u8; CGROUP_MAX + NAME_MAX]) -> Option<&'a std::ffi::CStr> {
    let length = Some(path.len()).filter(|l| (1..CGROUP_MAX).contains(l))?;
    full.get_mut(..length)?.copy_from_slice(path);
    full.get_mut(length..length + name.len())?.copy_from_slice(name);
    std::ffi::CStr::from_bytes_until_nul(full).ok()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|w| w == wanted)
}
