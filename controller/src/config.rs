//! The controller's configuration, `/etc/clusterctl/controller.yaml`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_bus::NatsConfig;
use cluster_schemas::access::TokenEntry;
use cluster_schemas::failover::parse_lease;
use cluster_schemas::name::{NameError, check_name};
use serde::Deserialize;
use uuid::Uuid;

use crate::changes::CHANGES_KEPT;

/// Shortest bearer token that is accepted, in bytes.
const TOKEN_MIN: usize = 16;
/// Most entries of the list of tokens: each is looked at with every request.
const TOKENS_MAX: usize = 256;
/// How often a client may ask unless the file says otherwise: one of ours asks a few times a second, and one core answers some thousands.
pub const REQUESTS_PER_SECOND: NonZeroU32 = match NonZeroU32::new(500) {
    Some(requests) => requests,
    None => NonZeroU32::MIN,
};
/// Most changes of a kind that can be kept.
const CHANGES_MAX: usize = 65_536;

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster: the prefix of everything in NATS.
    pub cluster: String,
    /// Identity of the cluster, made by `clusterctl init`: two clusters may have one name. Absent in files written by hand.
    #[serde(default)]
    pub cluster_id: Option<Uuid>,
    /// Name of this controller, unique among them; usually the node's.
    pub name: String,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// Where the HTTP API listens. Anything but loopback needs `tokenFile` or `tokensFile`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// File with the bearer token that every request must carry; a relative path is beside this file.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// File with a list of who may do what ([`TokenEntry`]): name, role, and the hash of their token; a relative path is beside this file.
    #[serde(default)]
    pub tokens_file: Option<PathBuf>,
    /// Certificates: with them the API speaks TLS only.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The lease of Apps that name none in `failover.lease`, `200ms` to `5s`: who dies is followed after about this time, who stands still
    /// for longer loses its place. The same for all controllers of a cluster.
    #[serde(default = "default_lease")]
    pub lease: String,
    /// Changes of each kind that are kept for watches, 1 to 65,536: a watch that falls behind by more begins anew.
    #[serde(default = "default_changes")]
    pub changes_kept: usize,
    /// How many nodes vote on leases where there are enough: 3 or 5 (rule B5.6).
    #[serde(default = "default_voters")]
    pub voters: usize,
    /// How often one client may ask this controller, in requests a second; twice as many at once after a pause.
    #[serde(default = "default_requests")]
    pub requests_per_second: NonZeroU32,
}

/// Files with certificates, in PEM; relative paths are beside the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The controller's certificate, then those of authorities between it and the one that clients know.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Who signs clients' certificates, whose common name is the user and whose organization is the role. Absent: clients have tokens only.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

impl Config {
    /// Whether certificates say who clients are.
    #[must_use]
    pub fn certifies(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
    }
}

fn default_lease() -> String {
    "350ms".to_owned()
}

const fn default_changes() -> usize {
    CHANGES_KEPT
}

const fn default_requests() -> NonZeroU32 {
    REQUESTS_PER_SECOND
}

const fn default_voters() -> usize {
    3
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7070))
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
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
    /// There is no such lease.
    #[error("{path}: lease: {lease} is no time from 200ms to 5s")]
    Lease {
        /// The file.
        path: PathBuf,
        /// What it says.
        lease: String,
    },
    /// There cannot be so many voters.
    #[error("{path}: voters: {voters} nodes cannot vote: 3 or 5 (an even number is no safer than one less)")]
    Voters {
        /// The file.
        path: PathBuf,
        /// What stands there.
        voters: usize,
    },
    /// So many changes cannot be kept.
    #[error("{path}: changesKept: {kept} is not from 1 to {CHANGES_MAX}")]
    Changes {
        /// The file.
        path: PathBuf,
        /// What stands there.
        kept: usize,
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
    /// The API would be open to the network.
    #[error(
        "{path}: listen: {listen} is not loopback, so tokenFile or tokensFile must name a file with tokens (`openssl rand -hex 32` makes one)"
    )]
    OpenToAll {
        /// The file.
        path: PathBuf,
        /// The address.
        listen: SocketAddr,
    },
    /// The certificates cannot be used.
    #[error("{path}: tls: {message}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        message: String,
    },
    /// The list of tokens cannot be used.
    #[error("{path}: {message}")]
    Tokens {
        /// The token file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The token can be guessed.
    #[error("{path}: a token needs at least {TOKEN_MIN} characters (`openssl rand -hex 32` makes one)")]
    ShortToken {
        /// The token file.
        path: PathBuf,
    },
}

/// A checked configuration with the token read.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The file's content.
    pub config: Config,
    /// The bearer token; none only on loopback.
    pub token: Option<String>,
    /// Who else has one.
    pub tokens: Vec<TokenEntry>,
    /// What TLS is made of.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The lease of Apps that name none.
    pub lease: Duration,
}

/// Reads and checks the configuration.
///
/// # Errors
/// What is wrong, where.
pub fn load(path: &Path) -> Result<Checked, ConfigError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source });
    let text = read(path)?;
    let config: Config =
        serde_saphyr::from_str(&text).map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
    for (field, name) in [("cluster", &config.cluster), ("name", &config.name)] {
        check_name(name).map_err(|source| ConfigError::Name { path: path.to_owned(), field, name: name.clone(), source })?;
    }
    if !matches!(config.voters, 3 | 5) {
        return Err(ConfigError::Voters { path: path.to_owned(), voters: config.voters });
    }
    if !(1..=CHANGES_MAX).contains(&config.changes_kept) {
        return Err(ConfigError::Changes { path: path.to_owned(), kept: config.changes_kept });
    }
    let lease = parse_lease(&config.lease).ok_or_else(|| ConfigError::Lease { path: path.to_owned(), lease: config.lease.clone() })?;
    // Beside the configuration wherever that is: systemd shows them to a service as credentials, in a folder of its own.
    let beside = |file: &Path| path.parent().unwrap_or(Path::new("/")).join(file);
    let tokens = match &config.tokens_file {
        Some(file) => {
            let file = beside(file);
            let tokens = read_tokens(&read(&file)?);
            tokens.map_err(|message| ConfigError::Tokens { path: file, message })?
        }
        None => Vec::new(),
    };
    let bytes = |file: &Path| {
        let path = beside(file);
        std::fs::read(&path).map_err(|source| ConfigError::Read { path, source })
    };
    let tls = match &config.tls {
        Some(TlsFiles { cert_file, key_file, client_ca_file }) => {
            let clients = client_ca_file.as_deref().map(bytes).transpose()?;
            let made = crate::api::server_config(&bytes(cert_file)?, &bytes(key_file)?, clients.as_deref());
            Some(made.map_err(|message| ConfigError::Tls { path: path.to_owned(), message })?)
        }
        None => None,
    };
    let token = match &config.token_file {
        Some(file) => {
            let file = beside(file);
            let token = read(&file)?.trim().to_owned();
            if token.len() < TOKEN_MIN {
                return Err(ConfigError::ShortToken { path: file });
            }
            Some(token)
        }
        None if config.listen.ip().is_loopback() || !tokens.is_empty() || config.certifies() => None,
        None => return Err(ConfigError::OpenToAll { path: path.to_owned(), listen: config.listen }),
    };
    Ok(Checked { config, token, tokens, tls, lease })
}

/// Reads and checks the list of tokens.
fn read_tokens(text: &str) -> Result<Vec<TokenEntry>, String> {
    let tokens: Vec<TokenEntry> = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    if tokens.is_empty() {
        return Err("there is no token in it (clusterctl token create NAME --role ROLE makes one)".to_owned());
    }
    if tokens.len() > TOKENS_MAX {
        return Err(format!("it has {} tokens, at most {TOKENS_MAX} are taken", tokens.len()));
    }
    let mut hashes = std::collections::BTreeSet::new();
    for TokenEntry { name, sha256, .. } in &tokens {
        check_name(name).map_err(|error| format!("{name:?} cannot be a name: {error}"))?;
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!("sha256 of {name} is not 64 hexadecimal digits in lower case"));
        }
        if !hashes.insert(sha256) {
            return Err(format!("the token of {name} is that of another entry too"));
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("controller.yaml");
        std::fs::write(&path, text).expect("a written file");
        (dir, path)
    }

    const NATS: &str = "cluster: c\nname: n1\nnats: { servers: [\"nats://127.0.0.1:4222\"] }\n";

    #[test]
    fn loopback_is_the_default_and_needs_no_token() {
        let (_dir, path) = written(NATS);
        let checked = load(&path).expect("a good file");
        assert!(checked.config.listen.ip().is_loopback());
        assert_eq!(checked.token, None);
    }

    #[test]
    fn another_bind_needs_a_token_of_some_length() {
        let (dir, path) = written(&format!("{NATS}listen: 0.0.0.0:7070\n"));
        assert!(matches!(load(&path), Err(ConfigError::OpenToAll { .. })));
        let token = dir.path().join("token");
        std::fs::write(&path, format!("{NATS}listen: 0.0.0.0:7070\ntokenFile: {}\n", token.display())).expect("a written file");
        std::fs::write(&token, "short\n").expect("a written file");
        assert!(matches!(load(&path), Err(ConfigError::ShortToken { .. })));
        std::fs::write(&token, "0123456789abcdef\n").expect("a written file");
        assert_eq!(load(&path).expect("a good file").token.as_deref(), Some("0123456789abcdef"));
        std::fs::write(&path, format!("{NATS}listen: 0.0.0.0:7070\ntokenFile: token\n")).expect("a written file");
        assert_eq!(load(&path).expect("a token beside the file").token.as_deref(), Some("0123456789abcdef"));
    }

    #[test]
    fn a_list_of_tokens_opens_the_bind_if_it_has_any() {
        let (dir, path) = written(&format!("{NATS}listen: 0.0.0.0:7070\ntokensFile: tokens\n"));
        let hash = "0".repeat(64);
        let with = |list: &str| {
            std::fs::write(dir.path().join("tokens"), list).expect("a written file");
            load(&path).map(|checked| checked.tokens.len())
        };
        assert_eq!(with(&format!("- {{ name: ci, role: deployer, sha256: '{hash}' }}\n")).expect("a good list"), 1);
        for (list, why) in [
            ("[]", "no token in it"),
            ("- { name: ci, role: king, sha256: x }", "king"),
            ("- { name: ci, role: viewer, sha256: abc }", "64 hexadecimal"),
            ("- { name: C I, role: viewer, sha256: abc }", "cannot be a name"),
        ] {
            let error = with(list).expect_err(list).to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
        let twice = format!("[{{ name: a, role: viewer, sha256: '{hash}' }}, {{ name: b, role: admin, sha256: '{hash}' }}]");
        assert!(with(&twice).expect_err("one token, two roles").to_string().contains("another entry"));
    }

    #[test]
    fn unknown_fields_and_bad_names_are_refused() {
        let (_dir, path) = written(&format!("{NATS}lisen: 0.0.0.0:7070\n"));
        assert!(matches!(load(&path), Err(ConfigError::Parse { .. })));
        let (_dir, path) = written(&NATS.replace("n1", "N_1"));
        assert!(matches!(load(&path), Err(ConfigError::Name { field: "name", .. })));
    }

    #[test]
    fn a_lease_is_between_200_ms_and_5_s() {
        let lease = |text: &str| {
            let (_dir, path) = written(&format!("{NATS}{text}"));
            load(&path).map(|checked| checked.lease)
        };
        assert_eq!(lease("").expect("a default"), Duration::from_millis(350));
        assert_eq!(lease("lease: 1s\n").expect("a good file"), Duration::from_secs(1));
        assert!(matches!(lease("lease: 6s\n"), Err(ConfigError::Lease { .. })));
    }

    #[test]
    fn a_client_may_ask_at_least_once_a_second() {
        let limit = |text: &str| {
            let (_dir, path) = written(&format!("{NATS}{text}"));
            load(&path).map(|checked| checked.config.requests_per_second.get())
        };
        assert_eq!(limit("").expect("a default"), 500);
        assert_eq!(limit("requestsPerSecond: 7\n").expect("a good file"), 7);
        assert!(matches!(limit("requestsPerSecond: 0\n"), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn b5_three_or_five_nodes_vote() {
        let (_dir, path) = written(&format!("{NATS}voters: 4\n"));
        assert!(matches!(load(&path), Err(ConfigError::Voters { voters: 4, .. })));
        let (_dir, path) = written(&format!("{NATS}voters: 5\n"));
        assert_eq!(load(&path).expect("a good file").config.voters, 5);
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
        let example = include_str!("../dist/controller.yaml");
        let (_dir, path) = written(example);
        assert!(load(&path).expect("a good file").token.is_none());
        let (dir, path) = written(&with_all_settings(example));
        std::fs::write(dir.path().join("token"), "0123456789abcdef").expect("a written file");
        let list = format!("- {{ name: ci, role: viewer, sha256: '{}' }}", "0".repeat(64));
        std::fs::write(dir.path().join("tokens"), list).expect("a written file");
        let made = rcgen::generate_simple_self_signed(vec!["n1".to_owned()]).expect("a certificate");
        for (name, text) in
            [("controller.crt", made.cert.pem()), ("controller.key", made.signing_key.serialize_pem()), ("clients.crt", made.cert.pem())]
        {
            std::fs::write(dir.path().join(name), text).expect("a written file");
        }
        let open = load(&path).expect("a good file");
        assert!(open.tls.is_some());
        assert!(!open.config.listen.ip().is_loopback() && open.token.is_some());
    }
}
