//! The one error type of the lab.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::NodeId;

/// What went wrong in the lab, with enough context to act on.
///
/// `Debug` prints the whole chain as text too: it is what a test shows that unwraps or returns an error.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The caller is not root.
    #[error("the lab makes namespaces, overlay mounts and cgroups: run it as root")]
    NotRoot,
    /// A name, number or option that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Files that have to be there before a lab can start.
    #[error("missing: {}; {fix}", files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "))]
    Missing {
        /// What was looked for.
        files: Vec<PathBuf>,
        /// How to get it.
        fix: String,
    },
    /// There is no lab of this name.
    #[error("lab {name} is not up; start it with 'lab --name {name} up --nodes 3'")]
    NotUp {
        /// The lab's name.
        name: String,
    },
    /// Another process is bringing this lab up or down.
    #[error("another process is bringing lab {name} up or down (it holds {})", lock.display())]
    Busy {
        /// The lab's name.
        name: String,
        /// The lock file held by the other process.
        lock: PathBuf,
    },
    /// The lab has no node of this number.
    #[error("there is no node {node}: the lab has n1 to n{nodes}")]
    NoSuchNode {
        /// The node asked for.
        node: NodeId,
        /// How many nodes the lab has.
        nodes: u8,
    },
    /// The node is in the wrong state for what was asked.
    #[error("node {node} is {state}; {fix}")]
    NodeState {
        /// The node.
        node: NodeId,
        /// What it is instead.
        state: &'static str,
        /// What to do about it.
        fix: String,
    },
    /// The node's systemd did not come up.
    #[error("node {node} did not boot: {why}\n{console}")]
    Boot {
        /// The node.
        node: NodeId,
        /// What was waited for.
        why: String,
        /// The last lines of the node's console.
        console: String,
    },
    /// A program ended with an error.
    #[error("{command} ended with {code}: {stderr}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// Exit code, or 128 plus the signal's number.
        code: i32,
        /// What it wrote to standard error (or, if nothing, to standard output), trimmed.
        stderr: String,
    },
    /// A condition did not become true in time.
    #[error("waited {waited:.1?} for {what}; last seen: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen at the last look.
        last: String,
    },
    /// An operation on a file, process or namespace failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, as a verb phrase.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl LabError {
    /// The error and its causes in one line; `Display` alone leaves the causes out.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// The result of everything fallible in this crate.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Adds what was tried to an I/O error.
pub(crate) trait Context<T> {
    /// `action` is a verb phrase that follows "cannot".
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| LabError::Io { action: action(), source: error.into() })
    }
}
