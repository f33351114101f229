//! Watching the wire: a packet capture on the lab's switch.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::{NodeId, netns_path};
use crate::rootfs::{make_dir, random_hex};
use crate::spawn::{command_in_cgroup, exit_code};

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// On the switch's port of a node: what goes to that node and what comes from it.
    Port(NodeId),
    /// On the switch's port of the client.
    Client,
}

/// One frame as it was on the wire, from the Ethernet header on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the switch saw it, by the host's wall clock.
    pub time: SystemTime,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Frame {
    /// Whether the frame was sent by a node, whatever address it claims to speak for.
    #[must_use]
    pub fn is_from(&self, node: impl Into<NodeId>) -> bool {
        self.data.get(6..12) == Some(&node.into().mac())
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Lab {
    /// Starts to record frames; from the return on everything that matches `filter` (as for tcpdump, may be empty) is
    /// seen.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`]; [`LabError::Failed`] with tcpdump's complaint, for instance about the filter.
    pub fn capture(&self, tap: Tap, filter: &str) -> Result<Capture> {
        let port = match tap {
            Tap::Port(node) => self.check(node)?.to_string(),
            Tap::Client => "client".to_owned(),
        };
        let dir = self.layout.state().join("captures");
        make_dir(&dir)?;
        let file = dir.join(format!("{port}-{}.pcap", &random_hex()?[..8]));
        let mut command = command_in_cgroup(&self.cgroups.outside()?.join("cgroup.procs"), "nsenter")?;
        command.arg(format!("--net={}", netns_path(&self.layout.switch_ns()).display()));
        command.args(["--", "tcpdump", "--immediate-mode", "--packet-buffered", "--time-stamp-precision=nano", "-n", "-Z", "root"]);
        command.args(["--interface", &port, "-w"]).arg(&file);
        if !filter.is_empty() {
            command.arg(filter);
        }
        let mut tcpdump =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context(|| "start tcpdump".to_owned())?;
        let mut said = String::new();
        if let Some(stderr) = tcpdump.stderr.take() {
            let mut stderr = BufReader::new(stderr);
            // It says "listening on" when the socket is open, or why it ends.
            while stderr.read_line(&mut said).context(|| "read from tcpdump".to_owned())? > 0 {
                if said.contains("listening on") {
                    // Kept open: tcpdump writes its counters there when it ends.
                    tcpdump.stderr = Some(stderr.into_inner());
                    return Ok(Capture { tcpdump, file });
                }
            }
        }
        let status = tcpdump.wait().context(|| "wait for tcpdump".to_owned())?;
        Err(LabError::Failed { command: "tcpdump".to_owned(), code: exit_code(status), stderr: said.trim().to_owned() })
    }
}

impl Capture {
    /// Ends the capture and returns what was recorded, in order of time.
    ///
    /// # Errors
    /// [`LabError::Io`] when tcpdump or its file is gone (a [`Lab::down`] takes both).
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        // Packets reach tcpdump at once, but it may not have been scheduled since.
        std::thread::sleep(Duration::from_millis(20));
        let pid = Pid::from_raw(i32::try_from(self.tcpdump.id()).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGINT).context(|| "stop tcpdump".to_owned())?;
        self.tcpdump.wait().context(|| "wait for tcpdump".to_owned())?;
        let bytes = fs::read(&self.file).context(|| format!("read {}", self.file.display()))?;
        parse(&bytes).ok_or_else(|| LabError::Invalid(format!("{} is not a packet capture", self.file.display())))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Already ended after `stop`.
        let _ended = self.tcpdump.kill();
        let _reaped = self.tcpdump.wait();
        let _gone = fs::remove_file(&self.file);
    }
}

/// The magic number of a capture file with times in nanoseconds, as this machine writes it.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Reads the classic format of libpcap: a header, then records of seconds, nanoseconds, stored and true length, bytes.
/// A record cut short at the end is left out.
fn parse(bytes: &[u8]) -> Option<Vec<Frame>> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    if word(0)? != MAGIC_NANOSECONDS {
        return None;
    }
    let mut frames = Vec::new();
    let mut at = FILE_HEADER;
    while let (Some(seconds), Some(nanos), Some(stored)) = (word(at), word(at + 4), word(at + 8)) {
        let from = at + RECORD_HEADER;
        let Some(data) = usize::try_from(stored).ok().and_then(|len| bytes.get(from..from.checked_add(len)?)) else { break };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()) + Duration::from_nanos(nanos.into());
        frames.push(Frame { time, data: data.to_vec() });
        at = from + data.len();
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = [MAGIC_NANOSECONDS, 0, 0, 0, 0, 1].map(u32::to_ne_bytes).concat();
        for (seconds, nanos, data) in records {
            let length = u32::try_from(data.len()).unwrap();
            bytes.extend([*seconds, *nanos, length, length].map(u32::to_ne_bytes).concat());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn records_are_read_with_their_times() {
        let frames = parse(&file(&[(1, 5, b"abc"), (2, 0, b"")])).unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].data, b"abc");
        assert_eq!(frames[0].time, SystemTime::UNIX_EPOCH + Duration::new(1, 5));
    }

    #[test]
    fn damaged_files_do_not_panic() {
        let whole = file(&[(1, 5, b"abcdef")]);
        for end in 0..whole.len() {
            let frames = parse(&whole[..end]);
            assert!(frames.is_none_or(|frames| frames.is_empty()), "cut at {end}");
        }
        let mut huge = file(&[(1, 5, b"abc")]);
        huge[FILE_HEADER + 8..FILE_HEADER + 12].fill(0xff);
        assert_eq!(parse(&huge), Some(vec![]));
        assert_eq!(parse(b"not a capture file at all"), None);
    }

    #[test]
    fn a_sender_is_known_by_its_hardware_address() {
        let mut data = vec![0xff; 6];
        data.extend(NodeId::from(2).mac());
        let frame = Frame { time: SystemTime::UNIX_EPOCH, data };
        assert!(frame.is_from(2) && !frame.is_from(1));
    }
}
