//! The last lines of a unit's log, for the report of a failure.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// Most lines.
const LINES_MAX: u32 = 100;
/// Longest line that is passed on, in characters.
const LINE_CHARS_MAX: usize = 500;
/// Most that is read, in bytes.
const OUTPUT_MAX: u64 = 256 * 1024;
/// How long the journal may take to take in what was written to it just now.
const SYNC_TIME: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const READ_TIME: Duration = Duration::from_secs(2);

/// The last `lines` lines that the unit, or systemd about it, logged in this boot. The unit's name must have been checked.
pub(super) async fn tail(unit: &str, lines: u32) -> Vec<String> {
    let lines = lines.min(LINES_MAX);
    if lines == 0 {
        return Vec::new();
    }
    // What a program said just before it ended may still be on its way into the journal. Without this the tail is older, no worse.
    let _ = run(&["--sync"], SYNC_TIME).await;
    let count = format!("--lines={lines}");
    let [own, about, object, core] =
        ["_SYSTEMD_UNIT", "UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT"].map(|field| format!("{field}={unit}"));
    // What `--unit` asks for, but for messages about the unit that are not from PID 1 itself: a child of it that cannot execute the
    // program says why, and is often gone before the journal finds out which unit it belonged to.
    let matches = [&own, "+", &about, "_UID=0", "+", &object, "_UID=0", "+", &core, "_UID=0"];
    let arguments = [&["--boot", "--no-pager", "--quiet", "--output=cat", &count][..], &matches[..]].concat();
    match run(&arguments, READ_TIME).await {
        Some(output) => last_lines(&output, lines),
        None => Vec::new(),
    }
}

async fn run(arguments: &[&str], time: Duration) -> Option<Vec<u8>> {
    let mut command = Command::new("journalctl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let read = async {
        let mut child = command.spawn().ok()?;
        let mut output = Vec::new();
        child.stdout.take()?.take(OUTPUT_MAX).read_to_end(&mut output).await.ok()?;
        // Its output is closed or cut off: either way it ends.
        child.wait().await.ok()?;
        Some(output)
    };
    tokio::time::timeout(time, read).await.ok().flatten()
}

fn last_lines(output: &[u8], lines: u32) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let mut last: Vec<_> = text.lines().rev().take(lines as usize).map(readable).collect();
    last.reverse();
    last
}

/// Terminals and tables must survive what programs log.
fn readable(line: &str) -> String {
    line.trim_end().chars().take(LINE_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order_and_made_harmless() {
        assert_eq!(last_lines(b"one\ntwo\nthree\n", 2), ["two", "three"]);
        assert_eq!(last_lines(b"", 2), Vec::<String>::new());
        assert_eq!(last_lines(b"a\x1b[31mb\xff  \r\n", 9), ["a\u{fffd}[31mb\u{fffd}"]);
        assert_eq!(last_lines(&[b'x'; 2000], 1)[0].len(), LINE_CHARS_MAX);
    }
}
