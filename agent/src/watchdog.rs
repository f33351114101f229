//! A hardware or software watchdog, `/dev/watchdog` (rule F8): the only answer to a node on which agent and guard both stand still, or cannot end
//! what they fence. It is told by the guard's loop, and only while that does its work; silent for the device's own time, the machine is
//! reset by it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// The device is told this often. Devices wait for 10 s and more.
const EVERY: Duration = Duration::from_secs(1);
/// The magic close: a device that is closed after this stops, one that is closed without it resets the machine.
const MAGIC: &[u8] = b"V";

/// An open device: from now on it waits to be told.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    told: Option<Instant>,
}

impl Watchdog {
    /// Opens the device, which starts it.
    ///
    /// # Errors
    /// The system's: none is there, or another process has it, such as systemd with `RuntimeWatchdogSec=`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let device = File::options().write(true).open(path)?;
        Ok(Self { device, told: None })
    }

    /// Tells the device that all is well, if it is, and if it was not told so a moment ago.
    ///
    /// # Errors
    /// The device's; it is told again next time.
    pub fn tell(&mut self, now: Instant, well: bool) -> io::Result<()> {
        if !well || self.told.is_some_and(|at| now.duration_since(at) < EVERY) {
            return Ok(());
        }
        self.device.write_all(&[0])?;
        self.told = Some(now);
        Ok(())
    }

    /// Stops the device: the guard ends in good order.
    ///
    /// # Errors
    /// The device's. It may reset the machine then; so does one that was built or configured never to stop.
    pub fn stop(mut self) -> io::Result<()> {
        self.device.write_all(MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f8_it_is_told_while_all_is_well_and_stopped_by_its_word() {
        let file = tempfile::NamedTempFile::new().expect("a stand-in");
        let said = || std::fs::read(file.path()).expect("what was said");
        let mut watchdog = Watchdog::open(file.path()).expect("a device");
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        watchdog.tell(at(0), true).expect("told");
        watchdog.tell(at(999), true).expect("not yet due");
        assert_eq!(said(), [0]);
        watchdog.tell(at(1000), true).expect("told");
        assert_eq!(said(), [0, 0]);
        watchdog.tell(at(5000), false).expect("nothing said");
        assert_eq!(said(), [0, 0], "not while something is wrong");
        watchdog.tell(at(5001), true).expect("told");
        watchdog.stop().expect("stopped");
        assert_eq!(said(), [0, 0, 0, b'V']);
        // One that is only dropped, as by a guard that was killed, goes on.
        drop(Watchdog::open(file.path()).expect("a device"));
        assert!(Watchdog::open(Path::new("/nowhere/watchdog")).is_err());
    }
}
