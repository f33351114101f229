//! The connection that a lock hangs on: one request over the agent's socket, and an answer that does not end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_schemas::api::Problem;
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

/// Longest line of an answer, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// How much longer than the wait itself an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The agent is not reached.
    #[error("cannot speak with the agent at {}: {source}", path.display())]
    Socket {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The agent says no.
    #[error("{detail}")]
    Refused {
        /// The status.
        status: u16,
        /// The word that programs go by.
        kind: String,
        /// The sentence for people.
        detail: String,
    },
    /// What came is no answer of an agent.
    #[error("cannot understand what the agent answers: {what}")]
    Answer {
        /// What it was.
        what: String,
    },
}

/// What the agent says of the lock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Word {
    /// It is not held any more.
    pub(super) lost: bool,
    /// Rises with each holder.
    pub(super) token: u64,
    /// Which place of a semaphore.
    pub(super) place: u16,
    /// Held until then, by [`boottime`].
    pub(super) until: Duration,
}

#[derive(Deserialize)]
struct Body {
    token: u64,
    place: u16,
    until: f64,
}

/// An open answer. Closing it lets the lock go.
#[derive(Debug)]
pub(super) struct Stream {
    lines: BufReader<UnixStream>,
}

/// The clock of deadlines: it runs on while the machine sleeps.
pub(super) fn boottime() -> Duration {
    // At the end of time everything is lost.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

impl Stream {
    /// Waits for the lock.
    pub(super) fn open(socket: &Path, app: &str, name: &str, wait: Duration, semaphore: Option<u16>) -> Result<(Self, Word), StreamError> {
        let fail = |source| StreamError::Socket { path: socket.to_owned(), source };
        let mut connection = UnixStream::connect(socket).map_err(fail)?;
        connection.set_read_timeout(Some(wait + PATIENCE)).map_err(fail)?;
        let semaphore = semaphore.map(|n| format!("&semaphore={n}")).unwrap_or_default();
        // Of HTTP/1.0, so that the answer is not cut into chunks. Names are labels: nothing to escape.
        let request = format!(
            "POST /v1/locks/{name}?app={app}&wait={}ms{semaphore} HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
            wait.as_millis()
        );
        connection.write_all(request.as_bytes()).map_err(fail)?;
        let mut stream = Self { lines: BufReader::new(connection) };
        let head = stream.line().map_err(fail)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        let Some(status) = status else { return Err(StreamError::Answer { what: head }) };
        while !stream.line().map_err(fail)?.is_empty() {}
        if status != 200 {
            let mut body = Vec::new();
            (&mut stream.lines).take(LINE_MAX).read_to_end(&mut body).map_err(fail)?;
            let problem: Problem = serde_json::from_slice(&body).map_err(|error| StreamError::Answer { what: error.to_string() })?;
            return Err(StreamError::Refused { status, kind: problem.kind, detail: problem.detail });
        }
        let first = stream.next().filter(|word| !word.lost);
        let Some(first) = first else { return Err(StreamError::Answer { what: "no lock, and no reason".to_owned() }) };
        // From here on the deadline tells how long to wait.
        stream.lines.get_ref().set_read_timeout(None).map_err(fail)?;
        Ok((stream, first))
    }

    /// A line without its end; empty at the end of the head.
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        let read = (&mut self.lines).take(LINE_MAX).read_line(&mut line)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next word; none once the agent says nothing any more.
    pub(super) fn next(&mut self) -> Option<Word> {
        let mut lost = false;
        loop {
            let line = self.line().ok()?;
            if let Some(name) = line.strip_prefix("event: ") {
                lost = name == "lost";
            } else if let Some(data) = line.strip_prefix("data: ") {
                let body: Body = serde_json::from_str(data).ok()?;
                let until = Duration::try_from_secs_f64(body.until).ok()?;
                return Some(Word { lost, token: body.token, place: body.place, until });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an agent that answers so says.
    fn open(answer: &'static str) -> (Result<(Stream, Word), StreamError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(socket.try_clone().unwrap()).read_line(&mut asked).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            asked
        });
        let opened = Stream::open(&path, "jobs", "nightly", Duration::from_millis(1500), Some(3));
        (opened, agent.join().unwrap())
    }

    #[test]
    fn a_lock_is_asked_for_and_followed() {
        let (opened, asked) = open(
            "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: granted\ndata: {\"token\":7,\"place\":1,\"until\":12.5}\n\n: \n\n\
             event: held\ndata: {\"token\":7,\"place\":1,\"until\":13.5}\n\nevent: lost\ndata: {\"token\":7,\"place\":1,\"until\":13.5}\n\n",
        );
        assert_eq!(asked, "POST /v1/locks/nightly?app=jobs&wait=1500ms&semaphore=3 HTTP/1.0\r\n");
        let (mut stream, first) = opened.unwrap();
        assert_eq!((first.lost, first.token, first.place, first.until), (false, 7, 1, Duration::from_millis(12_500)));
        assert_eq!(stream.next().map(|word| (word.lost, word.until)), Some((false, Duration::from_millis(13_500))));
        assert_eq!(stream.next().map(|word| word.lost), Some(true));
        assert_eq!(stream.next(), None);
    }

    #[test]
    fn a_refusal_says_why() {
        let (opened, _) = open(
            "HTTP/1.0 409 Conflict\r\n\r\n{\"type\":\"held\",\"title\":\"Conflict\",\"status\":409,\"detail\":\"the lock is held on n2\"}",
        );
        let error = opened.unwrap_err();
        assert!(matches!(&error, StreamError::Refused { status: 409, kind, .. } if kind == "held"), "{error:?}");
        assert_eq!(error.to_string(), "the lock is held on n2");
        assert!(matches!(open("SSH-2.0\r\n").0, Err(StreamError::Answer { .. } | StreamError::Socket { .. })));
    }
}
