//! The second terminal: `kill`, `pause` and `heal` reach the cluster through a socket in its folder, a line of JSON each way.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::args::Word;

/// Name of the socket in the cluster's folder.
pub const SOCKET: &str = "control.sock";
/// Longest line, in bytes.
const LINE_MAX: u64 = 16 * 1024;
/// Longest wait for a line of who connected.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Requests that may wait; then who connects waits.
pub const WAITING: usize = 8;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    pub word: Word,
    /// With which node; empty for all.
    #[serde(default)]
    pub node: String,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// It was done.
    pub done: bool,
    /// What there is to say.
    pub text: String,
}

/// A request with the place for its answer.
pub type Asked = (Request, oneshot::Sender<Answer>);

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no dev cluster runs in {path}")]
    Nobody {
        /// The folder.
        path: PathBuf,
    },
    /// The exchange broke.
    #[error("the dev cluster in {path} does not answer")]
    Broken {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Asks the cluster in `folder`.
///
/// # Errors
/// [`AskError`].
pub fn ask(folder: &Path, request: &Request) -> Result<Answer, AskError> {
    let mut stream = UnixStream::connect(folder.join(SOCKET)).map_err(|_| AskError::Nobody { path: folder.to_owned() })?;
    let exchange = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_MAX)).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    };
    exchange().map_err(|source| AskError::Broken { path: folder.to_owned(), source })
}

/// Takes requests for ever, one after the other.
pub async fn listen(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = tokio::io::BufReader::new(read.take(LINE_MAX));
        let came = tokio::time::timeout(REQUEST_LIMIT, reader.read_line(&mut line)).await;
        let answer = match (came, serde_json::from_str(&line)) {
            (Ok(Ok(_)), Ok(request)) => {
                let (done, answer) = oneshot::channel();
                if requests.send((request, done)).await.is_err() {
                    return;
                }
                answer.await.unwrap_or_else(|_| Answer { done: false, text: "the cluster is ending".to_owned() })
            }
            (_, Err(error)) => Answer { done: false, text: format!("the request cannot be read: {error}") },
            _ => continue,
        };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        // Who asked may be gone.
        let _told = tokio::time::timeout(REQUEST_LIMIT, write.write_all(&text)).await;
    }
}
