//! The texts: configuration files and the join file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::SetupError;
use super::address::host;

/// What all machines of a cluster have in common: the join file, without comments.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JoinFile {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Identity of the cluster.
    pub(crate) cluster_id: Uuid,
    /// The first voters (protocols B6).
    pub(crate) voters: Vec<String>,
    /// How to reach NATS.
    pub(crate) nats: Nats,
    /// URLs of the controllers.
    pub(crate) controllers: Vec<String>,
    /// The bearer token of the API.
    pub(crate) token: String,
}

impl std::fmt::Debug for JoinFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is left out, and so are the passwords that NATS URLs may have.
        f.debug_struct("JoinFile").field("cluster", &self.cluster).field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

/// The `nats` block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Nats {
    /// URLs, tried in this order.
    pub(crate) servers: Vec<String>,
    /// Replicas of every bucket.
    pub(crate) replicas: usize,
}

/// What `join-file` reads of `agent.yaml`; the rest is the machine's own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentFile {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Identity of the cluster.
    pub(crate) cluster_id: Option<Uuid>,
    /// The first voters.
    #[serde(default)]
    pub(crate) voters: Vec<String>,
    /// How to reach NATS.
    pub(crate) nats: Nats,
}

/// What `join-file` reads of `cli.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CliFile {
    /// URLs of the controllers.
    pub(crate) servers: Vec<String>,
}

/// Reads a text of ours.
///
/// # Errors
/// [`SetupError::Syntax`] with the place.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, SetupError> {
    serde_saphyr::from_str(text).map_err(|error| SetupError::Syntax {
        what: match error.location() {
            Some(at) => format!("{what}:{}:{}", at.line(), at.column()),
            None => what.to_owned(),
        },
        message: error.without_snippet().to_string(),
    })
}

/// What [`parse`] calls a file: stdin has no path.
pub(crate) fn called(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

impl JoinFile {
    /// As printed.
    pub(crate) fn text(&self) -> String {
        let Self { cluster, cluster_id, voters, nats, controllers, token } = self;
        format!(
            "# Join file of the cluster {cluster}, for: clusterctl join --from FILE\n\
             # It has the token of the API: who has it governs the cluster. Keep it nowhere.\n\
             cluster: {}\nclusterId: {cluster_id}\nvoters: {}\n{}controllers: {}\ntoken: {}\n",
            scalar(cluster),
            flow(voters),
            nats.text(),
            flow(controllers),
            quoted(token),
        )
    }
}

impl Nats {
    fn text(&self) -> String {
        format!("nats:\n  servers: {}\n  replicas: {}\n", flow(&self.servers), self.replicas)
    }
}

/// `agent.yaml`.
pub(crate) fn agent(by: &str, join: &JoinFile, node: &str, address: Option<&str>, labels: &BTreeMap<String, String>) -> String {
    let nats = Nats { servers: nearest_first(&join.nats.servers, node, address), ..join.nats.clone() }.text();
    let address = address.map(|address| format!("address: {}\n", quoted(address))).unwrap_or_default();
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("labels: {{ {} }}\n", labels.join(", ")) };
    let JoinFile { cluster, cluster_id, voters, .. } = join;
    let (cluster, node, voters) = (scalar(cluster), scalar(node), flow(voters));
    format!(
        "# Made by clusterctl {by}.\ncluster: {cluster}\nclusterId: {cluster_id}\nnode: {node}\n{address}{labels}voters: {voters}\n{nats}"
    )
}

/// `controller.yaml`.
pub(crate) fn controller(by: &str, join: &JoinFile, node: &str, address: Option<&str>, listen: std::net::SocketAddr) -> String {
    let nats = Nats { servers: nearest_first(&join.nats.servers, node, address), ..join.nats.clone() }.text();
    let (cluster, name) = (scalar(&join.cluster), scalar(node));
    format!(
        "# Made by clusterctl {by}.\ncluster: {cluster}\nclusterId: {}\nname: {name}\n{nats}listen: {}\n\
         # Beside this file, or where systemd shows both to the service.\ntokenFile: token\n",
        join.cluster_id,
        quoted(&listen.to_string())
    )
}

/// `cli.yaml`.
pub(crate) fn cli(by: &str, controllers: &[String]) -> String {
    format!("# Made by clusterctl {by}.\nservers: {}\ntokenFile: token\n", flow(controllers))
}

/// The server on this machine first, else another order for each node: the load is spread, and not every node loses its connection
/// with the same server.
fn nearest_first(servers: &[String], node: &str, address: Option<&str>) -> Vec<String> {
    let own = servers.iter().position(|server| Some(host(server)) == address);
    let sum: usize = node.bytes().map(usize::from).sum();
    let mut servers = servers.to_vec();
    let count = servers.len().max(1);
    servers.rotate_left(own.unwrap_or(sum % count));
    servers
}

fn flow(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| scalar(item)).collect::<Vec<_>>().join(", "))
}

/// A name as it stands where YAML cannot take it for anything but text, else in quotes.
fn scalar(text: &str) -> String {
    const NOT_TEXT: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && !NOT_TEXT.contains(&text) { text.to_owned() } else { quoted(text) }
}

/// JSON's strings are YAML's as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> JoinFile {
        JoinFile {
            cluster: "prod".to_owned(),
            cluster_id: Uuid::nil(),
            voters: vec!["m1".to_owned()],
            nats: Nats { servers: ["a", "b", "c"].map(|h| format!("nats://{h}:4222")).to_vec(), replicas: 3 },
            controllers: vec!["http://a:7070".to_owned()],
            token: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn a_join_file_reads_as_it_was_written_whatever_the_names_look_like() {
        for name in ["m1", "123", "null", "1e3", "yes", "0x10", "on"] {
            let file =
                JoinFile { cluster: name.to_owned(), voters: vec![name.to_owned()], token: "12345678901234567".to_owned(), ..sample() };
            assert_eq!(parse::<JoinFile>("x", &file.text()).unwrap(), file, "{}", file.text());
        }
    }

    #[test]
    fn a_typo_in_a_join_file_is_told_with_its_place() {
        let error = parse::<JoinFile>("join.yaml", &sample().text().replace("voters", "votes")).unwrap_err().to_string();
        assert!(error.starts_with("join.yaml:5:1: ") && error.contains("votes"), "{error}");
    }

    #[test]
    fn nodes_begin_with_different_servers() {
        let first = |node: &str| nearest_first(&sample().nats.servers, node, Some("elsewhere")).swap_remove(0);
        let firsts: std::collections::BTreeSet<String> = ["m1", "m2", "m3"].map(first).into();
        assert_eq!(firsts.len(), 3);
        assert_eq!(nearest_first(&sample().nats.servers, "m1", Some("b"))[0], "nats://b:4222");
        assert!(nearest_first(&[], "m1", None).is_empty());
    }

    #[test]
    fn tokens_are_not_in_debug_output() {
        assert!(!format!("{:?}", sample()).contains("0123456789"));
    }
}
