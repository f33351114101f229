//! Has systemd read a text without loading it: `systemd-analyze verify` on a copy in a folder of its own.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::drivers::UnitError;

/// Where the copies go; on a tmpfs, so that what a crash leaves is gone after a boot.
const FOLDER: &str = "/run";
/// How long it may take; a text that cannot be read in time passes, for a slow machine is no mistake of the text's.
const TIME: Duration = Duration::from_secs(5);
/// Most complaints that are read, in bytes, and passed on, in lines.
const OUTPUT_MAX: u64 = 64 * 1024;
const LINES_MAX: usize = 8;

/// An error if systemd would refuse the text or ignore a part of it. The unit's name must have been checked.
pub(super) async fn verify(unit: &str, content: &str) -> Result<(), UnitError> {
    let copy = Copy::make(unit, content).map_err(|source| UnitError::Io { action: "write a copy below", path: FOLDER.into(), source })?;
    let unverified = |why: &str| tracing::warn!(unit, "its text is not verified before it is loaded: {why}");
    match tokio::time::timeout(TIME, run(&copy.file)).await {
        Ok(Ok((true, _))) => {}
        Ok(Ok((false, output))) => match complaints(&output, unit, &copy.file) {
            Some(message) => return Err(UnitError::BadSetting { unit: unit.to_owned(), message }),
            None => unverified("systemd-analyze failed without a word about it"),
        },
        Ok(Err(error)) => unverified(&format!("systemd-analyze cannot be run: {error}")),
        Err(_elapsed) => unverified("systemd-analyze takes too long"),
    }
    Ok(())
}

/// Whether systemd has nothing to complain about, and what it said.
async fn run(file: &Path) -> io::Result<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    // Only mistakes of this unit count, not those of what it needs.
    command.args(["verify", "--man=no", "--recursive-errors=no", "--"]).arg(file);
    command.env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0").env("SYSTEMD_LOG_LEVEL", "warning").env("SYSTEMD_LOG_TARGET", "console");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut output = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(OUTPUT_MAX).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), String::from_utf8_lossy(&output).into_owned()))
}

/// The lines about the unit, with its name for the path of the copy; none if there are none, as when an option is not known.
fn complaints(output: &str, unit: &str, file: &Path) -> Option<String> {
    let file = file.to_string_lossy();
    let about = |line: &&str| line.contains(unit);
    let lines: Vec<_> = output.lines().filter(about).take(LINES_MAX).map(|line| readable(&line.replace(file.as_ref(), unit))).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn readable(line: &str) -> String {
    line.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A copy of the text under the unit's name, which goes with this value.
struct Copy {
    folder: PathBuf,
    file: PathBuf,
}

impl Copy {
    fn make(unit: &str, content: &str) -> io::Result<Self> {
        let folder = Path::new(FOLDER).join(format!("clusterctl-verify-{}", uuid::Uuid::new_v4()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let copy = Self { file: folder.join(unit), folder };
        fs::write(&copy.file, content)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, folder = %self.folder.display(), "a copy was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_about_the_unit_and_name_it() {
        let file = Path::new("/run/x/a.service");
        let output =
            "/run/x/a.service:5: Unknown key 'Restartt' in section [Service], ignoring.\nUnit b.service is bad.\na.service: bad\x1b\n";
        let expected = "a.service:5: Unknown key 'Restartt' in section [Service], ignoring.; a.service: bad\u{fffd}";
        assert_eq!(complaints(output, "a.service", file).as_deref(), Some(expected));
        assert_eq!(complaints("systemd-analyze: unrecognized option '--recursive-errors=no'\n", "a.service", file), None);
        let many = "a.service: x\n".repeat(100);
        assert_eq!(complaints(&many, "a.service", file).unwrap().matches("a.service").count(), LINES_MAX);
    }
}
