//! The agent's configuration, `/etc/clusterctl/agent.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluster_bus::NatsConfig;
use cluster_schemas::name::{NameError, check_name};
use serde::Deserialize;
use uuid::Uuid;

/// Most voters of a cluster (protocols B5.6).
const VOTERS_MAX: usize = 5;

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster: the prefix of everything in NATS.
    pub cluster: String,
    /// Identity of the cluster, made by `clusterctl init`: two clusters may have one name. Absent in files written by hand.
    #[serde(default)]
    pub cluster_id: Option<Uuid>,
    /// Name of this node, unique in the cluster.
    pub node: String,
    /// The first voters (rule B6): one node at `clusterctl init`. Later sets are learnt from the voters themselves.
    #[serde(default)]
    pub voters: Vec<String>,
    /// This node only votes on leases: no App is ever placed on it (protocols B5.6).
    #[serde(default)]
    pub witness: bool,
    /// Labels for `placement.nodeSelector`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Address for `${node.address}`; the first IPv4 address of the node when absent.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// Who may use the socket of the local API, `local.sock` in the runtime folder.
    #[serde(default)]
    pub local_socket: SocketConfig,
    /// A watchdog device, such as `/dev/watchdog`, that the guard tells that it lives; none when absent.
    #[serde(default)]
    pub watchdog: Option<PathBuf>,
    /// What outlives a boot: the journal.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// What does not: role files, partition files, what the agent remembers of this boot.
    #[serde(default = "default_runtime_dir")]
    pub runtime_dir: PathBuf,
}

/// Mode and group of the local API's socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SocketConfig {
    /// Permission bits; who may write to the socket may connect.
    pub mode: FileMode,
    /// Group of the socket, by name or number; the agent's own when absent.
    pub group: Option<String>,
}

/// Permission bits, written in octal as in `0660`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(pub u32);

impl Default for FileMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bits = u32::from_str_radix(&text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or_else(|| format!("{text:?} is no mode: three octal digits, in quotes, such as \"0660\""))
    }
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/clusterctl")
}

fn default_runtime_dir() -> PathBuf {
    PathBuf::from("/run/clusterctl")
}

impl Config {
    /// The cluster's id.
    #[must_use]
    pub fn cluster_uuid(&self) -> u128 {
        self.cluster_id.map_or_else(|| crate::lease::fnv(self.cluster.bytes()), |id| id.as_u128())
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        message: String,
    },
    /// A name is no DNS label.
    #[error("{path}: {field}: {name:?} cannot be a name")]
    Name {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What stands there.
        name: String,
        /// Which rule it breaks.
        source: NameError,
    },
    /// The voters cannot be a set of voters.
    #[error("{path}: voters: {reason}")]
    Voters {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Reads and checks the configuration.
///
/// # Errors
/// What is wrong, where.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config: Config =
        serde_saphyr::from_str(&text).map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
    let voters = config.voters.iter().map(|voter| ("voters", voter));
    for (field, name) in [("cluster", &config.cluster), ("node", &config.node)].into_iter().chain(voters) {
        check_name(name).map_err(|source| ConfigError::Name { path: path.to_owned(), field, name: name.clone(), source })?;
    }
    let distinct: BTreeSet<&String> = config.voters.iter().collect();
    let reason = match config.voters.len() {
        n if n > VOTERS_MAX => Some("at most 5 nodes vote"),
        n if n != distinct.len() => Some("a node is named twice"),
        _ => None,
    };
    match reason {
        Some(reason) => Err(ConfigError::Voters { path: path.to_owned(), reason }),
        None => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_is_enough_and_a_typo_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.yaml");
        let text = "cluster: c\nnode: n1\nlabels: { zone: z1 }\nnats: { servers: [\"nats://127.0.0.1:4222\"] }\n";
        std::fs::write(&path, text).expect("a written file");
        let config = load(&path).expect("a good file");
        assert_eq!((config.node.as_str(), config.nats.replicas), ("n1", 1));
        assert_eq!(config.runtime_dir, PathBuf::from("/run/clusterctl"));
        assert_eq!((config.cluster_id, config.voters.len()), (None, 0));
        std::fs::write(&path, text.replace("labels", "lables")).expect("a written file");
        assert!(matches!(load(&path), Err(ConfigError::Parse { .. })));
        std::fs::write(&path, text.replace("n1", "../n1")).expect("a written file");
        assert!(matches!(load(&path), Err(ConfigError::Name { field: "node", .. })));
    }
    #[test]
    fn cluster_id_and_voters_are_read_and_held_to_their_rules() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.yaml");
        let text = "cluster: c\nclusterId: 6f1c2a34-8b5d-4e6f-9a70-1b2c3d4e5f60\nnode: n1\nvoters: [n1, n2, n3]\nnats: { servers: [\"nats://h\"] }\n";
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a written file");
            load(&path)
        };
        let config = read(text).expect("a good file");
        assert_eq!(
            (config.cluster_id.map(|id| id.to_string().len()), config.voters),
            (Some(36), vec!["n1".to_owned(), "n2".to_owned(), "n3".to_owned()])
        );
        assert!(matches!(read(&text.replace("6f1c2a34-", "")), Err(ConfigError::Parse { .. })));
        assert!(matches!(read(&text.replace("n2, n3", "N2")), Err(ConfigError::Name { field: "voters", .. })));
        assert!(matches!(read(&text.replace("n2, n3", "n1")), Err(ConfigError::Voters { .. })));
        assert!(matches!(read(&text.replace("n2, n3", "a, b, c, d, e")), Err(ConfigError::Voters { .. })));
    }

    /// The example with the settings that it only mentions.
    fn with_all_settings(example: &str) -> String {
        let setting = |rest: &&str| rest.split_once(": ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphabetic()));
        example
            .lines()
            .map(|line| line.strip_prefix("# ").filter(setting).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn the_example_is_a_good_file() {
        let example = include_str!("../dist/agent.yaml");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.yaml");
        std::fs::write(&path, example).expect("a written file");
        let short = load(&path).expect("a good file");
        assert_eq!((short.node.as_str(), short.nats.servers.len(), short.nats.replicas, short.address), ("n1", 3, 3, None));
        std::fs::write(&path, with_all_settings(example)).expect("a written file");
        let long = load(&path).expect("a good file");
        assert_eq!((long.state_dir, long.runtime_dir), (default_state_dir(), default_runtime_dir()));
        assert!(long.address.is_some());
    }
}
