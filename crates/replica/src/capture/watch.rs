//! Waiting for the application to write: the kernel's file notification, with a poll behind it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Longest wait without looking, whatever the kernel says: some file systems notify nobody.
pub const POLL: Duration = Duration::from_millis(100);

/// Wakes when a file is written. SQLite writes frames first and publishes them in shared memory afterwards, after an fsync at times, which
/// notifies nobody: so after a wake without a new transaction look again after [`SETTLE`], some times.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<Inotify>,
}

/// Wait between looks after a wake that brought nothing.
pub const SETTLE: Duration = Duration::from_micros(500);

impl Watch {
    /// Watches `path`. Where the kernel has no watches left (or the file system none), waiting is polling: [`Self::is_polling`].
    pub fn new(path: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        let inotify = inotify.filter(|inotify| inotify.add_watch(path, AddWatchFlags::IN_MODIFY).is_ok());
        Self { inotify }
    }

    /// One that polls only.
    pub fn polling() -> Self {
        Self { inotify: None }
    }

    /// Whether the kernel does not notify.
    pub fn is_polling(&self) -> bool {
        self.inotify.is_none()
    }

    /// Readable once the file was written; [`Self::wait`] without a limit takes that in. `None` where waiting is polling.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// Waits until the file is written, at most `limit` and at most [`POLL`]. Whether it was.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = limit.min(POLL);
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(limit);
            return Ok(false);
        };
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // All that is there, so that one wake stands for many writes.
        loop {
            match inotify.read_events() {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
