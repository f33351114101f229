//! What is written into the files of a node and of the client.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::names::{CONTROLLER_PORT, NATS_MONITOR_PORT, NATS_PORT, NodeId};

/// Where the programs live in a node.
pub(crate) const LIB_DIR: &str = "/usr/lib/clusterctl";
/// Where every node has the one folder that all nodes share ([`Lab::shared_dir`](crate::Lab::shared_dir)).
pub const SHARED_DIR: &str = "/srv/lab";
/// Where the product's configuration lives in a node.
pub(crate) const ETC_DIR: &str = "/etc/clusterctl";

/// The facts all generated files are made from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) cluster: String,
    pub(crate) nodes: u8,
    /// The nodes that run a NATS server and a controller.
    pub(crate) servers: Vec<NodeId>,
    /// The lease of Apps that name none.
    pub(crate) lease: Option<Duration>,
}

impl Facts {
    /// One replica per server, up to three: what the number of servers bears.
    fn replicas(&self) -> usize {
        self.servers.len()
    }

    /// The servers' addresses, beginning with the node's own or, on nodes without one, with a different one for each
    /// node: the load is spread and not every node loses its connection with the same server.
    fn rotated(&self, node: NodeId) -> impl Iterator<Item = Ipv4Addr> {
        let start = usize::from(node.number() - 1) % self.servers.len();
        self.servers.iter().cycle().skip(start).take(self.servers.len()).map(|server| server.addr())
    }

    fn nats_section(&self, node: NodeId) -> String {
        let urls: Vec<String> = self.rotated(node).map(|addr| format!("\"nats://{addr}:{NATS_PORT}\"")).collect();
        format!("nats:\n  servers: [{}]\n  replicas: {}\n", urls.join(", "), self.replicas())
    }

    /// `/etc/clusterctl/agent.yaml`.
    pub(crate) fn agent(&self, node: NodeId) -> String {
        let disk = if node.number() % 2 == 1 { ", disk: ssd" } else { "" };
        let Self { cluster, .. } = self;
        let voters: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        let voters = voters.join(", ");
        format!(
            "cluster: {cluster}\nnode: {node}\nvoters: [{voters}]\nlabels: {{ zone: {}{disk} }}\n{}",
            node.zone(),
            self.nats_section(node)
        )
    }

    /// `/etc/clusterctl/controller.yaml`.
    pub(crate) fn controller(&self, node: NodeId) -> String {
        let lease = self.lease.map_or_else(String::new, |lease| format!("lease: {}ms\n", lease.as_millis()));
        let (cluster, nats) = (&self.cluster, self.nats_section(node));
        format!("cluster: {cluster}\nname: {node}\n{nats}{lease}listen: 0.0.0.0:{CONTROLLER_PORT}\ntokenFile: token\n")
    }

    /// `cli.yaml`, for a node or for the client.
    pub(crate) fn cli(&self, token: &Path) -> String {
        let urls: Vec<String> = self.servers.iter().map(|s| format!("\"http://{}:{CONTROLLER_PORT}\"", s.addr())).collect();
        format!("servers: [{}]\ntokenFile: {}\n", urls.join(", "), token.display())
    }

    /// `/etc/hosts`: the nodes know each other by name.
    pub(crate) fn hosts(&self) -> String {
        let nodes = (1..=self.nodes).map(|n| (NodeId::from(n).addr(), NodeId::from(n)));
        let nodes: String = nodes.map(|(addr, node)| format!("{addr} {node}\n")).collect();
        format!("127.0.0.1 localhost\n::1 localhost\n{nodes}")
    }

    /// The configuration of a node's NATS server.
    ///
    /// `sync_interval: always`: acknowledged writes survive a power cut. The ping interval and write deadline between
    /// servers are short, or a cut-off server would be missed for minutes. The system account is there for the lab alone: a
    /// scenario says which server leads.
    pub(crate) fn nats(&self, node: NodeId) -> String {
        let addr = node.addr();
        let mut text = format!(
            "server_name: {node}\nlisten: \"{addr}:{NATS_PORT}\"\nhttp: \"{addr}:{NATS_MONITOR_PORT}\"\n\
             jetstream {{\n  store_dir: /var/lib/nats\n  sync_interval: always\n  max_memory_store: 256MB\n  max_file_store: 4GB\n}}\n\
             accounts {{\n  LAB: {{ jetstream: enabled, users: [ {{ user: lab, password: lab }} ] }}\n  SYS: {{ users: [ {{ user: sys, password: lab }} ] }}\n}}\n\
             system_account: SYS\nno_auth_user: lab\n"
        );
        if self.servers.len() > 1 {
            let routes: Vec<String> = self.servers.iter().map(|s| format!("\"nats://{}:6222\"", s.addr())).collect();
            text.push_str(&format!(
                "cluster {{\n  name: {}\n  listen: \"{addr}:6222\"\n  routes: [{}]\n  ping_interval: \"1s\"\n  write_deadline: \"2s\"\n}}\n",
                self.cluster,
                routes.join(", ")
            ));
        }
        text
    }
}

/// The unit of the lab's NATS servers.
pub(crate) const NATS_UNIT: &str = "\
[Unit]
Description=NATS server of the lab
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/lib/clusterctl/nats-server -c /etc/nats/nats-server.conf
ExecReload=/bin/kill -HUP $MAINPID
StateDirectory=nats
Restart=always
RestartSec=200ms

[Install]
WantedBy=multi-user.target
";

/// The journal survives a power cut, so that a test can ask what a node did before it; nothing is rate-limited away.
pub(crate) const JOURNALD: &str = "[Journal]\nStorage=persistent\nSystemMaxUse=64M\nRateLimitIntervalSec=0\nForwardToConsole=no\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(nodes: u8, servers: u8) -> Facts {
        Facts { cluster: "lab".into(), nodes, servers: (1..=servers).map(NodeId::from).collect(), lease: None }
    }

    #[test]
    fn every_node_prefers_its_own_server_and_others_spread() {
        let facts = facts(5, 3);
        let first = |n: u8| facts.rotated(NodeId::from(n)).next().unwrap();
        assert_eq!((1..=5).map(|n| first(n).octets()[3]).collect::<Vec<_>>(), [11, 12, 13, 11, 12]);
        assert_eq!(facts.rotated(NodeId::from(2)).map(|a| a.octets()[3]).collect::<Vec<_>>(), [12, 13, 11]);
    }

    #[test]
    fn the_agent_file_is_as_documented() {
        let expected = "cluster: lab\nnode: n2\nvoters: [n1, n2, n3]\nlabels: { zone: z2 }\nnats:\n  \
            servers: [\"nats://10.99.0.12:4222\", \"nats://10.99.0.13:4222\", \"nats://10.99.0.11:4222\"]\n  replicas: 3\n";
        assert_eq!(facts(5, 3).agent(NodeId::from(2)), expected);
        assert!(facts(5, 3).agent(NodeId::from(3)).contains("labels: { zone: z3, disk: ssd }"));
    }

    #[test]
    fn a_single_server_has_no_cluster_section() {
        let one = facts(2, 1);
        assert!(!one.nats(NodeId::from(1)).contains("routes"));
        assert!(one.agent(NodeId::from(2)).ends_with("replicas: 1\n"));
        let three = facts(3, 3).nats(NodeId::from(3));
        assert!(three.contains("sync_interval: always") && three.contains("write_deadline: \"2s\""), "{three}");
    }
}
