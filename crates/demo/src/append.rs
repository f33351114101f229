//! A writer that shows who believes to be active: a line in a shared file each millisecond, so that two writers, or an older epoch after
//! a newer one, are there to be read afterwards.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::server::log;

/// Between two lines.
const PERIOD: Duration = Duration::from_millis(1);

/// The shared file, open for appending.
#[derive(Debug)]
pub(crate) struct Appender {
    file: File,
    lines: u64,
}

impl Appender {
    /// Opens the file, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|e| io::Error::new(e.kind(), format!("cannot append to {}: {e}", path.display())))?;
        Ok(Self { file, lines: 0 })
    }

    /// Appends for as long as this process lives, whenever `tenure` says that it is active.
    pub(crate) async fn run(mut self, tenure: impl Fn() -> Option<(u64, String)>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some((epoch, node)) = tenure()
                && let Err(error) = self.line(epoch, &node)
            {
                log(&format!("cannot append, no more lines are written: {error}"));
                return;
            }
        }
    }

    /// One line in one write: with `O_APPEND` lines of several writers never mix, and stand in the order of the writes.
    fn line(&mut self, epoch: u64, node: &str) -> io::Result<()> {
        self.lines += 1;
        self.file.write_all(format!("{epoch} {node} {}\n", self.lines).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_an_active_instance_appends_and_numbers_its_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let asked = std::cell::Cell::new(0_u64);
        // Standby, then active in epoch 7, then standby again.
        let tenure = || {
            asked.set(asked.get() + 1);
            (3..=5).contains(&asked.get()).then(|| (7, "n1".to_owned()))
        };
        let writer = Appender::open(file.path()).unwrap();
        tokio::time::timeout(Duration::from_millis(20), writer.run(tenure)).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "7 n1 1\n7 n1 2\n7 n1 3\n");
    }
}
