//! The desired object: an [`App`] as users write it, with defaults filled in.
//!
//! The spec is flat with a string `mode` and rules across fields, not a tagged union: spans and editors do better with it. Rules across
//! fields live in the validation, not in these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failover::{FailoverSpec, QuorumLoss};
use crate::grants::Grant;
use crate::health::HealthSpec;
use crate::hooks::HooksSpec;
use crate::resources::{Amounts, Resources};
use crate::update::UpdateSpec;

// Patterns for the JSON Schema, so that editors see mistakes early. The rules themselves, with their messages, are in `manifest`; the
// corpus of invalid manifests holds the two together.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const LABEL_KEY_PATTERN: &str = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$";
const LABEL_VALUE_PATTERN: &str = "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$";
pub(crate) const NO_CONTROL_PATTERN: &str = r"^[^\x00-\x08\x0A-\x1F\x7F]*$";
pub(crate) const PROGRAM_PATTERN: &str = r#"^/[^"'\\]*[^"'\\/]$"#;
pub(crate) const ACCOUNT_PATTERN: &str = "^([A-Za-z_][A-Za-z0-9_-]{0,30}|[0-9]{1,10})$";
// The first number is neither 0 nor 127 nor above 223.
const ADDRESS_PATTERN: &str = "^(([1-9]|[1-9][0-9]|1[01][0-9]|12[0-689]|1[3-9][0-9]|2[01][0-9]|22[0-3])\
    ([.]([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}/([1-9]|[12][0-9]|3[0-2])|\
    ([1-9a-f][0-9a-f]{2}|[1-9a-e][0-9a-f]{3}|f[0-9a-d][0-9a-f]{2}|fe[0-7c-f][0-9a-f])\
    ((:(0|[1-9a-f][0-9a-f]{0,3})){7}|(:(0|[1-9a-f][0-9a-f]{0,3})){0,5}::((0|[1-9a-f][0-9a-f]{0,3})(:(0|[1-9a-f][0-9a-f]{0,3})){0,5})?)\
    /([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))$";
const DATABASE_PATTERN: &str = "^(/[^/]+)+$";

/// A highly available application: what runs, in which mode, and where it may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Always `cluster/v1`.
    #[schemars(extend("const" = "cluster/v1"), extend("examples" = ["cluster/v1"]))]
    pub api_version: String,
    /// Always `App`.
    #[schemars(extend("const" = "App"), extend("examples" = ["App"]))]
    pub kind: String,
    /// Name, labels and annotations; the rest is set by the server.
    #[schemars(extend("examples" = [{ "name": "myapp" }]))]
    pub metadata: Metadata,
    /// What the user wants.
    #[schemars(extend("examples" = [{ "unit": { "name": "nginx" } }]))]
    pub spec: AppSpec,
}

/// Who an object is. Users write `name`, `labels` and `annotations`; the server sets the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// One DNS label (a-z, 0-9, `-`, at most 63 characters), unique in the cluster.
    #[schemars(regex(pattern = NAME_PATTERN), extend("examples" = ["myapp"]))]
    pub name: String,
    /// Free key/value pairs to select by.
    #[schemars(extend("propertyNames" = { "pattern": LABEL_KEY_PATTERN }, "maxProperties" = 64))]
    #[schemars(inner(regex(pattern = LABEL_VALUE_PATTERN)))]
    #[schemars(extend("examples" = [{ "team": "payments" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free key/value pairs for tools and people.
    #[schemars(extend("propertyNames" = { "pattern": LABEL_KEY_PATTERN }, "maxProperties" = 64))]
    #[schemars(extend("examples" = [{ "example.com/owner": "Ada, room 12" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Set by the server: tells this object from a later one of the same name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Set by the server: version of the spec, rises by one with each change of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Set by the server: revision of the stored object. Sent back with a write, that write is refused if another came between.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resource_version: u64,
    /// Set by the server, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set by the server when deletion was asked for, RFC 3339. The object goes once nothing of it is left on any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Set by the server: the apply set that it belongs to. Changed by an apply with `--set` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Set by the server: what its file was a state of when it was written last, such as a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What the user wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = [
    { "oneOf": [{ "required": ["unit"] }, { "required": ["exec"] }] },
    { "if": { "properties": { "mode": { "const": "Replicas" } }, "required": ["mode"] }, "then": { "required": ["replicas"] } },
    { "if": { "required": ["replicas"] }, "then": { "properties": { "mode": { "enum": ["Replicas", "Ring"] } }, "required": ["mode"] } },
    { "if": { "required": ["ring"] }, "then": { "properties": { "mode": { "const": "Ring" } }, "required": ["mode"] } },
    {
        "if": { "properties": { "failover": { "properties": { "onQuorumLoss": { "const": "Keep" } }, "required": ["onQuorumLoss"] } }, "required": ["failover"] },
        "then": { "properties": { "mode": { "not": { "const": "Ring" } }, "database": false } },
    },
    { "if": { "required": ["hooks"] }, "then": { "properties": { "mode": { "const": "Ring" } }, "required": ["mode"] } },
    {
        "if": { "properties": { "mode": { "const": "Singleton" } } },
        "then": { "properties": { "update": { "properties": { "maxUnavailable": { "maximum": 1 } } } } },
    },
    {
        "if": { "properties": { "standby": { "const": "Hot" } }, "required": ["standby"] },
        "then": { "properties": { "mode": { "const": "Singleton" } } },
    },
    { "if": { "required": ["database"] }, "then": { "properties": { "mode": { "const": "Singleton" } } } },
    {
        "if": { "properties": { "mode": { "const": "Spread" } }, "required": ["mode"] },
        "then": { "properties": { "placement": { "properties": { "prefer": { "maxItems": 0 }, "spreadBy": false } } } },
    },
]))]
pub struct AppSpec {
    /// How many instances are active, and where.
    #[serde(default)]
    pub mode: Mode,
    /// An installed systemd unit, or one whose text is given. Either this or `exec`.
    #[schemars(extend("examples" = [{ "name": "nginx" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitSpec>,
    /// A command that the agent writes a unit for. Either this or `unit`.
    #[schemars(extend("examples" = [{ "command": ["/usr/bin/myapp", "--listen", "0.0.0.0:8080"] }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecSpec>,
    /// What a Singleton's standbys do.
    #[serde(default)]
    pub standby: Standby,
    /// `Replicas`: how many instances. `Ring`: caps the members.
    #[schemars(range(min = 1, max = 1000), extend("examples" = [3]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `Ring` only: its partitions.
    #[schemars(extend("examples" = [{ "partitions": 256 }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingSpec>,
    /// A floating address. A Singleton's follows its active instance, another mode's is held by one healthy member.
    #[schemars(extend("examples" = [{ "address": "10.0.0.100/24", "interface": "eth0" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipSpec>,
    /// `Singleton` only: a SQLite database that follows the active instance.
    #[schemars(extend("examples" = [{ "path": "/data/app.db" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// `Ring` only: commands to run when partitions come and go.
    #[schemars(extend("examples" = [{ "onOwn": { "command": ["/usr/bin/myapp", "warm-up"] } }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksSpec>,
    /// How it is found out whether an instance can serve; when absent, it can while its unit is active.
    #[schemars(extend("examples" = [{ "http": { "port": 8080, "path": "/healthz" } }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// How fast an exclusive thing fails over; for modes and VIPs that hold one.
    #[schemars(extend("examples" = [{ "lease": "350ms" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverSpec>,
    /// How a change of what runs reaches the instances; all at once when absent.
    #[schemars(extend("examples" = [{ "maxUnavailable": 1 }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateSpec>,
    /// What other Apps may do with its shared state, locks and messages; nothing when absent.
    #[schemars(length(max = 64), extend("examples" = [[{ "app": "reports", "rights": ["StateRead"] }]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Which nodes may run it, and which it prefers.
    #[schemars(extend("examples" = [{ "nodeSelector": { "disk": "ssd" } }]))]
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
}

/// How many instances of an App are active, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// At most one active instance at any time; the other eligible nodes stand by.
    #[default]
    Singleton,
    /// One instance on every eligible node.
    Spread,
    /// A number of instances on distinct eligible nodes.
    Replicas,
    /// Partitions spread evenly over the members, each owned by at most one at any time.
    Ring,
}

impl Mode {
    /// The word users write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Singleton => "Singleton",
            Self::Spread => "Spread",
            Self::Replicas => "Replicas",
            Self::Ring => "Ring",
        }
    }
}

/// What a Singleton's standbys do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Standby {
    /// The unit runs on the active node only.
    #[default]
    Cold,
    /// The unit runs on standbys too and learns its role from its role file.
    Hot,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitSpec {
    /// Name of the unit; `myapp` means `myapp.service`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9:_.\\@-]{1,247}([.]service)?$"), extend("examples" = ["nginx"]))]
    pub name: String,
    /// Text of the unit file. With it the agent writes the file (runtime folder); without it the unit must be installed.
    #[schemars(length(min = 1, max = 65536), extend("examples" = ["[Service]\nExecStart=/usr/bin/myapp\n"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl UnitSpec {
    /// The unit's full name, with its type.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.name.ends_with(".service") { self.name.clone() } else { format!("{}.service", self.name) }
    }
}

/// A command run as a systemd service that the agent writes. Never a shell line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecSpec {
    /// The program (absolute path) and its arguments. `${database.path}` and `${node.address}` are filled in by the agent;
    /// `$${` stands for a plain `${`.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(regex(pattern = NO_CONTROL_PATTERN)))]
    #[schemars(extend("examples" = [["/usr/bin/myapp", "--listen", "0.0.0.0:8080"]]))]
    #[schemars(extend("allOf" = [{ "prefixItems": [{ "pattern": PROGRAM_PATTERN, "not": { "pattern": "/[.]{2}(/|$)" } }] }]))]
    pub command: Vec<String>,
    /// Environment variables. Placeholders are filled in as in the command.
    #[schemars(extend("propertyNames" = { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }, "maxProperties" = 256))]
    #[schemars(inner(regex(pattern = NO_CONTROL_PATTERN)))]
    #[schemars(extend("examples" = [{ "RUST_LOG": "info" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// User to run as; root when absent.
    #[schemars(regex(pattern = ACCOUNT_PATTERN), extend("examples" = ["www-data"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group to run as; the user's own when absent.
    #[schemars(regex(pattern = ACCOUNT_PATTERN), extend("examples" = ["www-data"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Working directory (absolute path); `/` when absent.
    #[schemars(regex(pattern = r"^/"), length(max = 4095), extend("examples" = ["/var/lib/myapp"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Resource limits, named as systemd names them, such as `MemoryMax: 512M`; see [`LIMIT_NAMES`].
    #[schemars(extend("examples" = [{ "MemoryMax": "512M" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

/// The names that [`ExecSpec::limits`] takes: systemd's own, from systemd.resource-control(5) and systemd.exec(5).
pub const LIMIT_NAMES: [&str; 12] = [
    "CPUQuota",
    "CPUWeight",
    "IOWeight",
    "LimitCORE",
    "LimitMEMLOCK",
    "LimitNOFILE",
    "LimitNPROC",
    "MemoryHigh",
    "MemoryMax",
    "MemorySwapMax",
    "Nice",
    "TasksMax",
];

/// Partitions of a Ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingSpec {
    /// How many partitions, 1 to 4096. Cannot be changed later.
    #[serde(default = "default_partitions")]
    #[schemars(range(min = 1, max = 4096), extend("examples" = [256]))]
    pub partitions: u16,
}

const fn default_partitions() -> u16 {
    256
}

impl Default for RingSpec {
    fn default() -> Self {
        Self { partitions: default_partitions() }
    }
}

/// A floating address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VipSpec {
    /// IPv4 or IPv6 address with prefix length, such as `10.0.0.100/24` or `fd00::100/64` (IPv6 as RFC 5952 writes it).
    #[schemars(regex(pattern = ADDRESS_PATTERN), extend("examples" = ["10.0.0.100/24", "fd00::100/64"]))]
    pub address: String,
    /// Network interface that carries it, such as `eth0`.
    #[schemars(regex(pattern = r"^[!-.0-9;-~]{1,15}$"), extend("not" = { "enum": [".", ".."] }), extend("examples" = ["eth0"]))]
    pub interface: String,
}

impl VipSpec {
    /// The address without its prefix length.
    #[must_use]
    pub fn ip(&self) -> &str {
        ip(&self.address)
    }
}

/// An address without its prefix length.
#[must_use]
pub fn ip(address: &str) -> &str {
    address.split_once('/').map_or(address, |(ip, _)| ip)
}

/// A SQLite database that follows its Singleton.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSpec {
    /// Absolute path of the database file, the same on every node.
    #[schemars(regex(pattern = DATABASE_PATTERN), length(max = 4095), extend("examples" = ["/data/app.db"]))]
    pub path: String,
    /// Most transactions that a standby may be behind and still take over; unlimited when absent.
    #[schemars(extend("examples" = [100]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<u64>,
    /// A write counts as confirmed once this many standbys have it.
    #[schemars(range(min = 1, max = 100), extend("examples" = [1]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<u32>,
}

/// Which nodes may run an App, and which it prefers. Absent or empty means no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// Only these nodes.
    #[schemars(length(max = 1024))]
    #[schemars(inner(regex(pattern = NAME_PATTERN)))]
    #[schemars(extend("uniqueItems" = true))]
    #[schemars(extend("examples" = [["n1", "n2", "n3"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Only nodes that have all these labels.
    #[schemars(extend("propertyNames" = { "pattern": LABEL_KEY_PATTERN }, "maxProperties" = 64))]
    #[schemars(inner(regex(pattern = LABEL_VALUE_PATTERN)))]
    #[schemars(extend("examples" = [{ "disk": "ssd" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// No node that has any of these labels with this value.
    #[schemars(extend("propertyNames" = { "pattern": LABEL_KEY_PATTERN }, "maxProperties" = 64))]
    #[schemars(inner(regex(pattern = LABEL_VALUE_PATTERN)))]
    #[schemars(extend("examples" = [{ "disk": "hdd" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub avoid_labels: BTreeMap<String, String>,
    /// Where a new instance goes first: to the node with the highest sum of weights. Nothing that runs moves for it. Not for `Spread`,
    /// which runs on every eligible node anyway.
    #[schemars(length(max = 64), extend("examples" = [[{ "labels": { "disk": "nvme" }, "weight": 50 }]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// Only beside an active instance of each of these Apps. Of Apps that name each other in a circle, the first by name leads and the
    /// others follow it.
    #[schemars(length(max = 64), inner(regex(pattern = NAME_PATTERN)), extend("uniqueItems" = true), extend("examples" = [["cache"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with_apps: Vec<String>,
    /// Never beside an active instance of these Apps.
    #[schemars(length(max = 64), inner(regex(pattern = NAME_PATTERN)), extend("uniqueItems" = true), extend("examples" = [["database"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away_from_apps: Vec<String>,
    /// Key of a label. New instances and standbys go to nodes with different values of it, as evenly as the eligible nodes allow; nodes
    /// without the label count as one value. Comes before `prefer`. Nothing that runs moves for it. Not for `Spread`.
    #[schemars(regex(pattern = LABEL_KEY_PATTERN), extend("examples" = ["rack"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_by: Option<String>,
    /// Only nodes where this much is not set apart for others yet. Looked at where an instance is newly placed; nothing that runs moves
    /// for it.
    #[schemars(extend("examples" = [{ "cpu": "500m", "memory": "256Mi" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// A kind of node that an App would rather run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preference {
    /// Counts for nodes that have all these labels.
    #[schemars(extend("propertyNames" = { "pattern": LABEL_KEY_PATTERN }, "minProperties" = 1, "maxProperties" = 64))]
    #[schemars(inner(regex(pattern = LABEL_VALUE_PATTERN)))]
    #[schemars(extend("examples" = [{ "disk": "nvme" }]))]
    pub labels: BTreeMap<String, String>,
    /// How much it counts, 1 to 100. A node's sum is that of all entries that it matches.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 100), extend("examples" = [50]))]
    pub weight: u8,
}

const fn default_weight() -> u8 {
    1
}

impl Placement {
    /// What each instance asks of its node.
    #[must_use]
    pub fn asks(&self) -> Amounts {
        self.resources.as_ref().map(Resources::amounts).unwrap_or_default()
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl App {
    /// Partitions of this App's ring; 0 where it is no Ring.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        match self.spec.mode {
            Mode::Ring => self.spec.ring.unwrap_or_default().partitions,
            _ => 0,
        }
    }

    /// Whether it goes on without a majority of the voters, and so is not exclusive. Never so with a database or partitions.
    #[must_use]
    pub fn keeps(&self) -> bool {
        let spec = &self.spec;
        let asked = spec.failover.as_ref().is_some_and(|f| f.on_quorum_loss == QuorumLoss::Keep);
        asked && spec.mode != Mode::Ring && spec.database.is_none()
    }

    /// The systemd unit that runs this App: the one named in `spec.unit`, else the one that the agent writes.
    #[must_use]
    pub fn unit_name(&self) -> String {
        unit_name(&self.metadata.name, self.spec.unit.as_ref())
    }

    /// Whether deletion was asked for.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// The systemd unit that runs App `app` with `unit` as its `spec.unit`.
#[must_use]
pub fn unit_name(app: &str, unit: Option<&UnitSpec>) -> String {
    unit.map_or_else(|| format!("clusterctl-{app}.service"), UnitSpec::full_name)
}
