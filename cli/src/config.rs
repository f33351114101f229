//! Which controllers to ask, and with which token.
//!
//! Servers: `--server`, else `CLUSTERCTL_SERVERS`, else the configuration file, else [`DEFAULT_SERVER`]. Token: `--token-file`, else
//! `CLUSTERCTL_TOKEN_FILE`, else `CLUSTERCTL_TOKEN`, else the configuration file. Configuration file: `CLUSTERCTL_CONFIG`, else
//! `~/.config/clusterctl/config.yaml`, else `/etc/clusterctl/cli.yaml`; the first that exists is the only one read. Of its contexts
//! `--context` is meant, else `CLUSTERCTL_CONTEXT`, else its `currentContext`, else what stands outside of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::Uri;
use ureq::tls::TlsConfig;

use crate::args::Connection;
use crate::tls;

/// The controller that is asked where nothing is configured: the one on this machine.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";
/// The port of a server that is given without scheme and port.
const DEFAULT_PORT: u16 = 7070;
/// Most servers that are tried.
const SERVERS_MAX: usize = 16;
/// Longest configuration file or token file, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The configuration file of all users of a machine.
const SYSTEM_CONFIG: &str = "/etc/clusterctl/cli.yaml";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file that was named, or exists, and cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("{place}: {message}")]
    Syntax {
        /// File, line and column.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A server's address.
    #[error("{url:?} is no address of a controller: {reason}")]
    Server {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or key that cannot be used.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No such context.
    #[error("there is no context {0:?} in the configuration")]
    Context(String),
    /// Too many servers.
    #[error("{0} servers are given, at most {SERVERS_MAX} are tried")]
    TooManyServers(usize),
    /// A token that cannot be one.
    #[error("the token in {place} {reason}")]
    Token {
        /// Where it is from.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ConfigError {
    /// What to do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Server { .. } => Some(format!("write it like {DEFAULT_SERVER}")),
            Self::Syntax { .. } => Some(
                "the file may have: servers (list of URLs), tokenFile (path), token, caFile, certFile, keyFile, contexts, currentContext"
                    .to_owned(),
            ),
            Self::Context(_) => Some("clusterctl config get-contexts lists them".to_owned()),
            Self::Read { .. } | Self::TooManyServers(_) | Self::Token { .. } | Self::Tls { .. } => None,
        }
    }
}

/// What the client needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Base URLs without a slash at the end, in the order to try; at least one.
    pub(crate) servers: Vec<String>,
    /// The bearer token.
    pub(crate) token: Option<Token>,
    /// Certificates; none where no server is asked over TLS.
    pub(crate) tls: Option<TlsConfig>,
    /// Longest time for one request over all servers.
    pub(crate) request_timeout: Duration,
}

/// A bearer token; never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    fn new(text: &str, place: impl FnOnce() -> String) -> Result<Self, ConfigError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ConfigError::Token { place: place(), reason: "is empty" });
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Token {
                place: place(),
                reason: "has characters that a token cannot have (spaces, lines, non-ASCII)",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the environment says, gathered so that tests need none.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `CLUSTERCTL_CONFIG`.
    pub(crate) config: Option<PathBuf>,
    /// `CLUSTERCTL_TOKEN`.
    pub(crate) token: Option<String>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// The configuration file of all users.
    pub(crate) system_config: PathBuf,
}

impl Environment {
    /// The file that is the user's to write: the one that is named, else the one below the home folder.
    pub(crate) fn own_config(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config/clusterctl/config.yaml")))
    }

    /// The environment of this process. Empty variables count as absent.
    pub(crate) fn from_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            config: path("CLUSTERCTL_CONFIG"),
            token: std::env::var("CLUSTERCTL_TOKEN").ok().filter(|value| !value.is_empty()),
            home: path("HOME"),
            system_config: PathBuf::from(SYSTEM_CONFIG),
        }
    }
}

/// Whom to ask, and as whom. Relative paths are beside the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Target {
    /// Controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<String>,
    /// File with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Who signed the controllers' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
}

impl Target {
    /// Makes relative paths those beside a file in `folder`.
    pub(crate) fn beside(&mut self, folder: &Path) {
        for path in [&mut self.token_file, &mut self.ca_file, &mut self.cert_file, &mut self.key_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// The configuration file: one target, and others that have names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigFile {
    /// Which of the named ones is meant where none is named; none of them: the one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_context: Option<String>,
    /// Those with names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, Target>,
    /// The one without.
    #[serde(flatten)]
    pub(crate) target: Target,
}

/// The same as it is read: what is flattened cannot refuse unknown fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AsRead {
    #[serde(default)]
    current_context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Target>,
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    cert_file: Option<PathBuf>,
    #[serde(default)]
    key_file: Option<PathBuf>,
}

impl From<AsRead> for ConfigFile {
    fn from(read: AsRead) -> Self {
        let AsRead { current_context, contexts, servers, token_file, token, ca_file, cert_file, key_file } = read;
        Self { current_context, contexts, target: Target { servers, token_file, token, ca_file, cert_file, key_file } }
    }
}

impl ConfigFile {
    /// The target that is meant.
    fn choose(mut self, named: Option<&str>) -> Result<Target, ConfigError> {
        let Some(name) = named.map(ToOwned::to_owned).or(self.current_context) else { return Ok(self.target) };
        self.contexts.remove(&name).ok_or(ConfigError::Context(name))
    }
}

/// What the command line gives for a context.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// `--server`
    pub(crate) servers: Vec<String>,
    /// `--token-file`
    pub(crate) token_file: Option<PathBuf>,
}

/// Puts flags, environment and configuration file together.
///
/// # Errors
/// A file that cannot be read or understood, a server or token that cannot be one.
pub(crate) fn load(connection: Connection, environment: &Environment) -> Result<Settings, ConfigError> {
    let (file, path) = read_config(environment)?;
    let named = connection.context.as_deref().filter(|name| !name.is_empty());
    let mut file = file.choose(named)?;
    // A relative path in a file means beside that file, from wherever the command is run.
    file.beside(path.parent().unwrap_or(Path::new("/")));
    let given: Vec<String> = connection.servers.into_iter().filter(|server| !server.trim().is_empty()).collect();
    let mut servers = Vec::new();
    for server in if given.is_empty() { &file.servers } else { &given } {
        let server = server_url(server)?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        servers.push(DEFAULT_SERVER.to_owned());
    }
    if servers.len() > SERVERS_MAX {
        return Err(ConfigError::TooManyServers(servers.len()));
    }

    // Reading them takes a moment that plain HTTP need not wait for.
    let tls = if servers.iter().any(|server| server.starts_with("https:")) { Some(tls::load(&file)?) } else { None };

    let flag = connection.token_file.filter(|path| !path.as_os_str().is_empty());
    let token = match (flag, &environment.token, file.token_file, file.token) {
        (Some(path), ..) => Some(token_from(&path)?),
        (None, Some(token), ..) => Some(Token::new(token, || "CLUSTERCTL_TOKEN".to_owned())?),
        (None, None, Some(token), _) => Some(token_from(&token)?),
        (None, None, None, Some(token)) => Some(Token::new(&token, || path.display().to_string())?),
        (None, None, None, None) => None,
    };
    Ok(Settings { servers, token, tls, request_timeout: connection.request_timeout })
}

fn token_from(path: &Path) -> Result<Token, ConfigError> {
    let text = read_file(path).map_err(|source| ConfigError::Read { what: "the token file", path: path.to_owned(), source })?;
    Token::new(&text, || path.display().to_string())
}

/// The configuration file that applies, and its path; an empty one where there is none.
pub(crate) fn read_config(environment: &Environment) -> Result<(ConfigFile, PathBuf), ConfigError> {
    let candidates = match environment.config.clone() {
        Some(path) => vec![(path, true)],
        None => environment.own_config().into_iter().chain([environment.system_config.clone()]).map(|path| (path, false)).collect(),
    };
    for (path, must_exist) in candidates {
        match read_file(&path) {
            Ok(text) => return Ok((parse_config(&path, &text)?, path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Err(source) => return Err(ConfigError::Read { what: "the configuration file", path, source }),
        }
    }
    Ok((ConfigFile::default(), PathBuf::new()))
}

fn parse_config(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    // A file with comments only configures nothing.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(ConfigFile::default());
    }
    serde_saphyr::from_str::<AsRead>(text).map(ConfigFile::from).map_err(|error| ConfigError::Syntax {
        place: match error.location() {
            Some(at) => format!("{}:{}:{}", path.display(), at.line(), at.column()),
            None => path.display().to_string(),
        },
        message: error.without_snippet().to_string(),
    })
}

fn read_file(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path, FILE_BYTES_MAX)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text (UTF-8)"))
}

/// What is in a file of at most `max` bytes.
pub(crate) fn read_bytes(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

/// The base URL that `given` means: `http://HOST:PORT` or `https://HOST:PORT`, with the usual port where neither scheme nor port is given.
pub(crate) fn server_url(given: &str) -> Result<String, ConfigError> {
    let bad = |reason| ConfigError::Server { url: given.to_owned(), reason };
    let text = given.trim();
    let bare = !text.contains("://");
    let full = if bare { format!("http://{text}") } else { text.to_owned() };
    if full.ends_with("://") {
        return Err(bad("it has no host"));
    }
    let full = full.trim_end_matches('/').to_owned();
    let uri: Uri = full.parse().map_err(|_| bad("it is no URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(bad("its scheme is neither http nor https")),
    }
    let authority = uri.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| bad("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("it has a user name; a token goes into a token file"));
    }
    if uri.query().is_some() {
        return Err(bad("it has a query"));
    }
    if bare && authority.port().is_none() {
        return Ok(format!("http://{authority}:{DEFAULT_PORT}{}", uri.path().trim_end_matches('/')));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(servers: &[&str]) -> Connection {
        Connection { servers: servers.iter().map(|s| (*s).to_owned()).collect(), ..Connection::default() }
    }

    /// A home folder with the given configuration, and the environment that has it.
    fn home(config: &str) -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/clusterctl");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.yaml"), config).unwrap();
        let environment =
            Environment { home: Some(home.path().to_owned()), system_config: home.path().join("absent"), ..Environment::default() };
        (home, environment)
    }

    #[test]
    fn servers_come_from_flag_then_file_then_default() {
        let (_home, environment) = home("servers: [10.0.0.1, 'http://10.0.0.2:8000/']\n");
        let servers = |given: &[&str], environment: &Environment| load(connection(given), environment).unwrap().servers;
        assert_eq!(servers(&["http://a:1", "b", "http://a:1/"], &environment), ["http://a:1", "http://b:7070"]);
        assert_eq!(servers(&[""], &environment), ["http://10.0.0.1:7070", "http://10.0.0.2:8000"]);
        assert_eq!(servers(&[], &Environment::default()), [DEFAULT_SERVER]);
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_with_the_reason() {
        for (url, reason) in [
            ("ftp://a", "scheme is neither http nor https"),
            ("http://", "no host"),
            ("http://u:p@a", "user name"),
            ("http://a?x", "query"),
            ("a b", "no URL"),
        ] {
            let error = server_url(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        assert_eq!(server_url("[::1]").unwrap(), "http://[::1]:7070");
        assert_eq!(server_url("https://a:7070/").unwrap(), "https://a:7070");
        assert_eq!(server_url("http://proxy/cluster/").unwrap(), "http://proxy/cluster");
    }

    #[test]
    fn the_named_file_is_the_only_one_and_must_exist() {
        let (home, mut environment) = home("servers: [mine]\n");
        let named = home.path().join("named.yaml");
        environment.config = Some(named.clone());
        let error = load(connection(&[]), &environment).unwrap_err();
        assert!(error.to_string().contains("cannot read the configuration file") && error.to_string().contains("named.yaml"), "{error}");
        std::fs::write(&named, "# nothing yet\n").unwrap();
        assert_eq!(load(connection(&[]), &environment).unwrap().servers, [DEFAULT_SERVER]);
    }

    #[test]
    fn the_system_file_serves_those_without_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let system_config = folder.path().join("cli.yaml");
        std::fs::write(&system_config, "servers: [shared]\n").unwrap();
        let environment = Environment { home: Some(folder.path().to_owned()), system_config, ..Environment::default() };
        assert_eq!(load(connection(&[]), &environment).unwrap().servers, ["http://shared:7070"]);
    }

    #[test]
    fn a_wrong_file_is_told_with_its_place() {
        for (text, place) in [("server: [a]\n", ":1:"), ("servers: [a]\ntoken: {}\n", ":2:"), ("servers: [a\n", "config.yaml")] {
            let (_home, environment) = home(text);
            let error = load(connection(&[]), &environment).unwrap_err();
            assert!(matches!(error, ConfigError::Syntax { .. }), "{text}: {error}");
            assert!(error.to_string().contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn tokens_have_an_order_and_are_never_shown() {
        let (home, mut environment) = home("tokenFile: secret\n");
        std::fs::write(home.path().join(".config/clusterctl/secret"), "beside-the-config\n").unwrap();
        let flag = home.path().join("flag");
        std::fs::write(&flag, "from-flag").unwrap();
        let token = |token_file: Option<&Path>, environment: &Environment| {
            load(Connection { token_file: token_file.map(Path::to_owned), ..Connection::default() }, environment)
        };
        let header = |settings: Result<Settings, ConfigError>| settings.unwrap().token.unwrap().header();
        assert_eq!(header(token(None, &environment)), "Bearer beside-the-config");
        environment.token = Some("from-environment".to_owned());
        assert_eq!(header(token(None, &environment)), "Bearer from-environment");
        assert_eq!(header(token(Some(&flag), &environment)), "Bearer from-flag");
        assert!(!format!("{:?}", token(Some(&flag), &environment).unwrap()).contains("from-flag"));

        std::fs::write(&flag, " \n").unwrap();
        assert!(token(Some(&flag), &environment).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&flag, "two\nlines").unwrap();
        let error = token(Some(&flag), &environment).unwrap_err().to_string();
        assert!(error.contains("cannot have") && !error.contains("two"), "{error}");
        std::fs::write(&flag, "x".repeat(70_000)).unwrap();
        assert!(matches!(token(Some(&flag), &environment).unwrap_err(), ConfigError::Read { .. }));
    }

    #[test]
    fn the_example_is_a_good_file() {
        let example = include_str!("../dist/cli.yaml");
        let (_home, environment) = home(example);
        let settings = load(connection(&[]), &environment).unwrap();
        assert_eq!((settings.servers.len(), settings.token.is_some()), (3, false));
        let (home, environment) = home(&example.replace("# tokenFile", "tokenFile"));
        std::fs::write(home.path().join(".config/clusterctl/token"), "secret\n").unwrap();
        assert!(load(connection(&[]), &environment).unwrap().token.is_some());
    }
}
