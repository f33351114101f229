//! Bodies of the HTTP API under `/v1`.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/apps` | | [`List`] of [`AppView`]; with `?watch=true` [`WatchEvent`](crate::watch::WatchEvent)s, so nodes, assignments |
//! | `GET /v1/apps/NAME` | | [`AppView`] |
//! | `PUT /v1/apps/NAME` | [`App`] | [`Applied`] |
//! | `DELETE /v1/apps/NAME[?force=true]` | | [`Deleted`] |
//! | `GET /v1/apps/NAME/placement` | | [`PlacementView`](crate::placement::PlacementView) |
//! | `GET /v1/apps/NAME/revisions` | | [`List`] of [`Revision`](crate::history::Revision)s, the latest last |
//! | `POST /v1/apps/NAME/switchover` | [`SwitchoverRequest`] | [`Switchover`] |
//! | `GET /v1/nodes[/NAME]` | | [`List`] of [`NodeView`], [`NodeView`] |
//! | `DELETE /v1/nodes/NAME[?force=true]` | | [`Removed`] |
//! | `PUT /v1/nodes/NAME/cordon` | [`CordonRequest`] | [`Cordoned`] |
//! | `DELETE /v1/nodes/NAME/cordon` | | [`Cordoned`] |
//! | `GET /v1/assignments[/NODE]` | | [`List`] of [`Assignment`](crate::Assignment), one |
//! | `GET /v1/rings/APP` | | [`RingTable`] |
//! | `GET /v1/rings/APP/locate?key=KEY` | | [`Located`] |
//! | `GET /v1/audit[?for=KIND/NAME&limit=N]` | | [`Audit`](crate::history::Audit) |
//! | `GET /v1/events[?for=KIND/NAME]` | | [`Events`](crate::event::Events) |
//! | `GET /v1/failovers[/APP]` | | [`List`] of [`Failovers`], one |
//! | `POST /v1/voters/replace` | [`ReplaceRequest`] | [`VoterList`], the voters until then |
//! | `POST /v1/voters/force` | [`ForceRequest`] | [`Forced`] |
//! | `POST /v1/plan` | [`PlanRequest`](crate::plan::PlanRequest) | [`Plan`](crate::plan::Plan) |
//! | `POST /v1/apply` | [`PlanRequest`](crate::plan::PlanRequest) | [`AppliedAll`](crate::plan::AppliedAll) |
//! | `GET /v1/revisions[?limit=N]` | | [`List`] of [`Revision`](crate::history::Revision)s of all Apps, the latest last |
//! | `GET /v1/sets` | | [`List`] of [`SetView`](crate::plan::SetView) |
//! | `GET /v1/recovery` | | [`RecoveryView`] |
//! | `POST /v1/recovery` | [`RecoverRequest`] | [`Recovered`] |
//! | `GET /v1/version` | | [`VersionInfo`] |
//!
//! Every error is a [`Problem`] (RFC 9457, `application/problem+json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::assignment::{Order, Role};
use crate::node::{Cordon, InstanceState, Node, NodeStatus, VoterList};
use crate::partition::PartitionSet;
use crate::status::AppStatus;
use crate::takeover::TakeOver;

/// A list of objects, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Where the list stands: a watch with this `resourceVersion` goes on from it, at any controller. Opaque. Empty where the kind cannot
    /// be watched.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// There is more: ask again with this `continue`. Opaque.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> List<T> {
    /// A whole list of a kind that cannot be watched.
    #[must_use]
    pub const fn of(items: Vec<T>) -> Self {
        Self { items, resource_version: String::new(), next: None }
    }
}

/// An App with its status: the fields of [`App`] and `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppView {
    /// Always `cluster/v1`.
    pub api_version: String,
    /// Always `App`.
    pub kind: String,
    /// As stored.
    pub metadata: crate::app::Metadata,
    /// As stored, defaults filled in.
    pub spec: crate::app::AppSpec,
    /// Its status, once the leading controller has computed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AppStatus>,
}

impl AppView {
    /// Puts an App and its status together.
    #[must_use]
    pub fn new(app: App, status: Option<AppStatus>) -> Self {
        Self { api_version: app.api_version, kind: app.kind, metadata: app.metadata, spec: app.spec, status }
    }
}

/// What a write of an App did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// What happened.
    pub outcome: Outcome,
    /// The App as stored now.
    pub app: App,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It did not exist.
    Created,
    /// It was changed.
    Configured,
    /// It was so already; nothing was written.
    Unchanged,
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// True when the App is gone already, false while it is being removed from the nodes.
    pub gone: bool,
    /// With `force`: the nodes on which something may still run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_still_run: Vec<String>,
}

/// What a removal of a node did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// The node. It is gone as soon as the leading controller has forgotten it.
    pub node: String,
    /// Whether its agent was still heard.
    pub alive: bool,
    /// Apps of which something may still run there, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_still_run: Vec<String>,
}

/// Asks that a Singleton be active elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchoverRequest {
    /// Epoch of the tenure to end, as the client saw it: a request that is sent twice does not move it twice.
    pub epoch: u64,
    /// Who shall follow; the best candidate where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A switchover that was taken on; it is done when a tenure with a higher epoch is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// The App.
    pub app: String,
    /// Who is active.
    pub from: String,
    /// Epoch of the tenure that ends.
    pub epoch: u64,
    /// Who shall follow; absent where the best candidate shall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The take-overs of one App.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failovers {
    /// The App.
    pub app: String,
    /// The latest first.
    pub takeovers: Vec<TakeOver>,
}

/// Has one node vote instead of another (rules B5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplaceRequest {
    /// The voter that goes.
    pub old: String,
    /// The node that comes.
    pub new: String,
}

/// Vouches that voters are dead, where a majority of them is gone for good (rule B5.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForceRequest {
    /// The voters that are dead.
    pub dead: Vec<String>,
    /// Number of the set that the operator saw, which signs it; without it nothing is done, and the answer says what would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
}

/// What a force does, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forced {
    /// Number of the set until then.
    pub set: u64,
    /// The voters that are left, and the number they go on under.
    pub next: VoterList,
}

/// Sets a node apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CordonRequest {
    /// Also move away what is there.
    #[serde(default)]
    pub drain: bool,
}

/// Whether a node is set apart now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cordoned {
    /// How it stands now.
    pub cordon: Cordon,
    /// Whether the request changed that.
    pub changed: bool,
}

/// Whether the store is the one that the nodes know (rule C3), and what a recovery would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryView {
    /// Identity of the store as it is now; absent while no controller has led in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Whether the leading controller waits for an operator's signature before it plans anything.
    pub needed: bool,
    /// What is the matter, one sentence each; also what goes away by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// All nodes that are registered or heard, sorted.
    pub nodes: Vec<RecoveryNode>,
    /// Apps in the store, sorted.
    pub apps: Vec<String>,
    /// Apps that nodes run and the store does not have, sorted: a signature has them stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One node as a recovery finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryNode {
    /// Name of the node.
    pub node: String,
    /// Whether its agent is heard.
    pub alive: bool,
    /// Whether it is registered in the store as it is now.
    pub registered: bool,
    /// The assignment that its agent holds; absent where it holds none, or is not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Order>,
    /// Whether it refuses what this store says.
    pub refuses: bool,
    /// Whether what runs there is known: the agent stored its status in this store.
    pub known: bool,
    /// What runs there, sorted by App.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<RunningApp>,
}

/// An App on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningApp {
    /// Name of the App.
    pub app: String,
    /// What the node is for it.
    pub role: Role,
    /// How the instance is.
    pub state: InstanceState,
}

/// An operator's signature under the store as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverRequest {
    /// Incarnation that the operator saw; another one is refused.
    pub incarnation: String,
    /// Apps that the operator knows to be stopped by it: all of [`RecoveryView::missing`] have to be among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

/// What a signature did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// Identity of the store that was signed.
    pub incarnation: String,
    /// Incarnations that the nodes hold and that this store may now follow, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovers: Vec<String>,
}

/// A node as the controllers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// What its agent registered.
    pub node: Node,
    /// `Ready`, `NotReady` (no heartbeat) or `NoQuorum` (it hears fewer than a majority).
    pub state: NodeState,
    /// Whether an operator set it apart.
    #[serde(default, skip_serializing_if = "Cordon::is_none")]
    pub cordon: Cordon,
    /// Milliseconds since its last heartbeat; absent when none was heard since this controller started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_age_ms: Option<u64>,
    /// One-minute load average times 100, from its last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u32>,
    /// What its agent observes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

/// Whether a node can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// Heartbeats come.
    Ready,
    /// No heartbeat for the heartbeat time-out.
    NotReady,
    /// Heartbeats come, but the node hears fewer than a majority and holds nothing exclusive.
    NoQuorum,
}

impl NodeState {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::NoQuorum => "NoQuorum",
        }
    }
}

/// Who owns which partition of a ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingTable {
    /// Name of the App.
    pub app: String,
    /// How many partitions.
    pub partitions: u16,
    /// Rises whenever an owner changes.
    pub version: u64,
    /// The owners, sorted by node.
    pub owners: Vec<RingOwner>,
    /// Partitions without an owner at the moment: moving, failing over, or no node fits.
    pub unowned: PartitionSet,
}

/// One node's part of a ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingOwner {
    /// The node.
    pub node: String,
    /// Its first registered address without prefix length; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Partitions it is planned to own.
    pub partitions: PartitionSet,
    /// Those of them that it confirmed.
    pub confirmed: PartitionSet,
}

/// Where a key lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Located {
    /// Name of the App.
    pub app: String,
    /// The key.
    pub key: String,
    /// Its partition.
    pub partition: u16,
    /// Version of the table.
    pub version: u64,
    /// The owner; absent while the partition has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The owner's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Epoch of the owner's tenure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// Version of the controller.
    pub version: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this controller.
    pub controller: String,
    /// Name of the leading controller, if one is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The leader's term.
    #[serde(default)]
    pub term: u64,
}

/// An error, as RFC 9457 shapes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind: `about:blank`, or a word such as `conflict`, `invalid`, `not-found`, `unavailable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What failed, and what to do.
    pub detail: String,
    /// One per wrong field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) into the body, such as `/spec/vip/address`.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
