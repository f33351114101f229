//! Every subject and bucket name. All begin with the cluster's name, laid out so that roles are plain permission rules (rule N5).

/// Key of the leader record in [`Bucket::Assignments`].
pub const LEADER_KEY: &str = "leader";

/// Key of an operator's signature ([`RecoveryRecord`](crate::RecoveryRecord)) in [`Bucket::Assignments`].
pub const RECOVERY_KEY: &str = "recovery";
/// Key of the mark ([`StoreMark`](crate::StoreMark)) in [`Bucket::Apps`]. App names have no dot.
pub const MARK_KEY: &str = "meta.store";
/// Keys of node removals ([`Removal`](crate::Removal)) in [`Bucket::Nodes`] begin so; the node's name follows.
pub const REMOVAL_PREFIX: &str = "removal.";

/// Keys of cordons ([`CordonOrder`](crate::CordonOrder)) in [`Bucket::Nodes`] begin so; the node's name follows.
pub const CORDON_PREFIX: &str = "cordon.";
/// Keys of switchovers ([`HandoverOrder`](crate::HandoverOrder)) in [`Bucket::Assignments`] begin so; the App's name follows.
pub const HANDOVER_PREFIX: &str = "switchover.";

/// Key of an operator's order to replace a voter ([`VotersOrder`](crate::VotersOrder)) in [`Bucket::Assignments`].
pub const VOTERS_KEY: &str = "voters";

/// The KV buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Desired: Apps by name. `resourceVersion` is the revision.
    Apps,
    /// Applications' shared state, `APP.KEY`, as raw bytes.
    AppData,
    /// What agents register: nodes by name.
    Nodes,
    /// Observed: `node.N` by the agents, `app.A` by the leading controller, `active.A` by who became active.
    Status,
    /// Planned: `node.N`, and [`LEADER_KEY`].
    Assignments,
}

impl Bucket {
    /// All buckets.
    pub const ALL: [Self; 5] = [Self::Apps, Self::Nodes, Self::Status, Self::Assignments, Self::AppData];

    const fn suffix(self) -> &'static str {
        match self {
            Self::AppData => "app-data",
            Self::Apps => "apps",
            Self::Nodes => "nodes",
            Self::Status => "status",
            Self::Assignments => "assignments",
        }
    }
}

/// Makes the names of one cluster. The cluster's name is one DNS label, checked by whoever reads the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    cluster: String,
}

impl Names {
    /// Names of the cluster called `cluster`.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned() }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Name of a bucket.
    #[must_use]
    pub fn bucket(&self, bucket: Bucket) -> String {
        format!("{}-{}", self.cluster, bucket.suffix())
    }

    /// Subject that a bucket's key is stored under.
    #[must_use]
    pub fn key_subject(&self, bucket: Bucket, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket(bucket))
    }

    /// Subject of a node's heartbeats.
    #[must_use]
    pub fn heartbeat(&self, node: &str) -> String {
        format!("{}.hb.{node}", self.cluster)
    }

    /// Subject of all nodes' heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> String {
        format!("{}.hb.*", self.cluster)
    }

    /// Subject of lease messages from one node to another.
    #[must_use]
    pub fn lease(&self, from: &str, to: &str) -> String {
        format!("{}.lease.{from}.{to}", self.cluster)
    }

    /// Subject of all lease messages to one node.
    #[must_use]
    pub fn lease_to(&self, to: &str) -> String {
        format!("{}.lease.*.{to}", self.cluster)
    }

    /// Subject of what one node tells another of a lock; `*` as `from` for all that is told to `to`.
    #[must_use]
    pub fn lock(&self, from: &str, to: &str) -> String {
        format!("{}.lock.{from}.{to}", self.cluster)
    }

    /// Subject of orders to go on with the voters that are left.
    #[must_use]
    pub fn force_voters(&self) -> String {
        format!("{}.voters.force", self.cluster)
    }

    /// Name of the stream of events.
    #[must_use]
    pub fn events_stream(&self) -> String {
        format!("{}-events", self.cluster)
    }

    /// Subject of all events.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}.events.>", self.cluster)
    }

    /// Subject of the events of one object, such as `app/database`.
    #[must_use]
    pub fn events_of(&self, object: &str) -> String {
        format!("{}.events.{}", self.cluster, object.replace('/', "."))
    }

    /// Name of the stream of Apps' revisions.
    #[must_use]
    pub fn revisions_stream(&self) -> String {
        format!("{}-revisions", self.cluster)
    }

    /// Subject of the revisions of an App; `*` for those of all.
    #[must_use]
    pub fn revisions(&self, app: &str) -> String {
        format!("{}.revisions.{app}", self.cluster)
    }

    /// Name of the stream of writes.
    #[must_use]
    pub fn audit_stream(&self) -> String {
        format!("{}-audit", self.cluster)
    }

    /// Subject of the writes of one object, such as `app/database`, or with `*` for both those of all; those that were refused are apart, so
    /// that they push out nothing else.
    #[must_use]
    pub fn audit(&self, refused: bool, object: &str) -> String {
        let folder = if refused { "refused" } else { "done" };
        format!("{}.audit.{folder}.{}", self.cluster, object.replace('/', "."))
    }

    /// Subject of all writes.
    #[must_use]
    pub fn audits(&self) -> String {
        format!("{}.audit.>", self.cluster)
    }

    /// Subject of the leading controller's beats.
    #[must_use]
    pub fn beat(&self) -> String {
        format!("{}.beat", self.cluster)
    }

    /// Subject of what a database's active says to all that have the App (rule N5).
    #[must_use]
    pub fn database_live(&self, app: &str, from: &str) -> String {
        format!("{}.dblive.{app}.{from}.live", self.cluster)
    }

    /// Subject of what a database's replicas confirm.
    #[must_use]
    pub fn database_confirm(&self, app: &str, from: &str) -> String {
        format!("{}.dblive.{app}.{from}.confirm", self.cluster)
    }

    /// Subject of what one node that has the App asks another; `*` as `from` for all that ask `to`.
    #[must_use]
    pub fn database_ask(&self, app: &str, from: &str, to: &str) -> String {
        format!("{}.dblive.{app}.{from}.ask.{to}", self.cluster)
    }

    /// Subject of what a node appends to the stream of a database; `*` as `from` for all of it.
    #[must_use]
    pub fn database_log(&self, app: &str, from: &str) -> String {
        format!("{}.dblog.{app}.{from}", self.cluster)
    }

    /// Name of the stream of a database.
    #[must_use]
    pub fn database_stream(&self, app: &str) -> String {
        format!("{}-db-{app}", self.cluster)
    }

    /// Subject of what people ask a node about a database, through a controller.
    #[must_use]
    pub fn database_control(&self, app: &str, node: &str) -> String {
        format!("{}.dbctl.{app}.{node}", self.cluster)
    }
}
