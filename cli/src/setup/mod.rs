//! `init`, `join` and `join-file`: a machine's configuration. They ask nobody and start nothing; what they write they write whole or
//! not at all, and never over what is there.

mod address;
mod args;
mod files;
mod init;
mod join;
mod machine;
mod text;

use std::path::PathBuf;

pub(crate) use args::{InitArgs, JoinArgs, JoinFileArgs};
pub(crate) use init::run as init;
pub(crate) use join::{join, join_file};

/// Where a machine's configuration is.
const FOLDER: &str = "/etc/clusterctl";

/// Why a machine's configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A value of the command line or of the join file.
    #[error("{what}: {reason}")]
    Value {
        /// The option or field.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Files that would be written are there already.
    #[error("this machine is configured already: {} {}", list(.0), if .0.len() == 1 { "exists" } else { "exist" })]
    Exists(Vec<PathBuf>),
    /// A file cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// The file.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{what}: {message}")]
    Syntax {
        /// The file, with line and column where they are known.
        what: String,
        /// What is wrong.
        message: String,
    },
    /// A file cannot be written; none of the others was, or stays.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SetupError {
    /// What to do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("nothing was written; remove them to begin anew, --dry-run shows what would be in them".to_owned()),
            Self::Write { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run it as root, or name another folder with --dir".to_owned())
            }
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("clusterctl join-file on a machine of the cluster prints a join file".to_owned())
            }
            Self::Value { .. } | Self::Read { .. } | Self::Syntax { .. } | Self::Write { .. } => None,
        }
    }

    fn value(what: &str, reason: impl Into<String>) -> Self {
        Self::Value { what: what.to_owned(), reason: reason.into() }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
