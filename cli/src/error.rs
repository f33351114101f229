//! What can go wrong, what the user is told to do, and the exit codes.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::input::InputError;
use crate::select::SelectError;
use crate::setup::SetupError;

/// How a command ended. The numbers are an interface: scripts test them (README.md of this folder).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All was done.
    Done = 0,
    /// The request failed, in part or whole: refused by the controller, or the object does not exist.
    Failed = 1,
    /// Wrong arguments, configuration or input file; nothing was sent.
    Usage = 2,
    /// No controller could be reached, or none was able to answer.
    Unreachable = 3,
    /// What was waited for did not happen in time.
    Timeout = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Arguments that clap takes and that still make no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// A path, template or selector.
    #[error("{what}: {reason}")]
    Select {
        /// The flag.
        what: &'static str,
        /// What is wrong.
        reason: SelectError,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The manifests.
    #[error(transparent)]
    Input(#[from] InputError),
    /// This machine's configuration cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The request to the controller.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The controller has no such object.
    #[error("{object} does not exist")]
    NotFound {
        /// `app/NAME` and the like.
        object: String,
        /// An object that exists and has a similar name.
        similar: Option<String>,
    },
    /// `clusterctl-dev` is not where it should be.
    #[error("clusterctl-dev is not installed: there is no {}", looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and no "))]
    NoDev {
        /// Where it was looked for.
        looked: Vec<std::path::PathBuf>,
    },
    /// `clusterctl-dev` cannot be executed.
    #[error("cannot execute {}", path.display())]
    Dev {
        /// The program.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Stdout cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
}

impl CliError {
    /// The exit code that goes with it.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Select { .. } | Self::Config(_) | Self::Input(_) | Self::Setup(_) => Exit::Usage,
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            Self::Client(_) | Self::NotFound { .. } | Self::NoDev { .. } | Self::Dev { .. } | Self::Output(_) => Exit::Failed,
        }
    }

    /// What to do, one sentence each.
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Self::Usage { hint, .. } => hint.iter().cloned().collect(),
            Self::Config(error) => error.hint().into_iter().collect(),
            Self::Input(error) => error.hint().into_iter().collect(),
            Self::Setup(error) => error.hint().into_iter().collect(),
            Self::Client(error) => error.hints(),
            Self::NotFound { similar, .. } => similar.iter().map(|name| format!("did you mean {name}?")).collect(),
            Self::NoDev { .. } => {
                vec!["it comes with clusterctl: make install, or cargo build -p cluster-dev in the repository".to_owned()]
            }
            Self::Select { .. } | Self::Dev { .. } | Self::Output(_) => Vec::new(),
        }
    }
}
