//! The agent's configuration, `/etc/clusterctl/agent.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cluster_bus::NatsConfig;
use cluster_schemas::name::{NameError, check_name};
use serde::Deserialize;

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster: the prefix of everything in NATS.
    pub cluster: String,
    /// Name of this node, unique in the cluster.
    pub node: String,
    /// Identity of the cluster, made by `clusterctl init`; derived from the name when absent.
    #[serde(default)]
    pub cluster_id: Option<uuid::Uuid>,
    /// The first voter list (protocols B6): the node that founds the cluster names itself here, nobody else names anybody.
    #[serde(default)]
    pub voters: Vec<String>,
    /// Labels for `placement.nodeSelector`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Address for `${node.address}`; the first IPv4 address of the node when absent.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// What outlives a boot: the journal.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// What does not: role files, partition files, what the agent remembers of this boot.
    #[serde(default = "default_runtime_dir")]
    pub runtime_dir: PathBuf,
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
}

/// Reads and checks the configuration.
///
/// # Errors
/// What is wrong, where.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config: Config = serde_saphyr::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
    for (field, name) in [("cluster", &config.cluster), ("node", &config.node)] {
        check_name(name).map_err(|source| ConfigError::Name { path: path.to_owned(), field, name: name.clone(), source })?;
    }
    Ok(config)
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
        std::fs::write(&path, text.replace("labels", "lables")).expect("a written file");
        assert!(matches!(load(&path), Err(ConfigError::Parse { .. })));
        std::fs::write(&path, text.replace("n1", "../n1")).expect("a written file");
        assert!(matches!(load(&path), Err(ConfigError::Name { field: "node", .. })));
    }
}
