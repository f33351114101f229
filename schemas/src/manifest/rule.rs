//! The rules that a manifest is checked against, each with a stable word that stands in every problem.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident => $word:literal,)+) => {
        /// A rule of the manifests. Its word is stable: tools may match on it, and the corpus of invalid manifests has a file for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The rule's word, such as `unknown-field`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

rules! {
    /// The text is not YAML.
    Syntax => "syntax",
    /// The file is larger than [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX).
    FileTooLarge => "file-too-large",
    /// Nested deeper than [`DEPTH_MAX`](super::DEPTH_MAX).
    TooDeep => "too-deep",
    /// More keys and values than [`VALUES_MAX`](super::VALUES_MAX), aliases counted as often as they stand.
    TooManyValues => "too-many-values",
    /// More aliases than [`ALIASES_MAX`](super::ALIASES_MAX).
    TooManyAliases => "too-many-aliases",
    /// More documents than [`DOCUMENTS_MAX`](super::DOCUMENTS_MAX).
    TooManyDocuments => "too-many-documents",
    /// A tag such as `!secret`.
    Tag => "tag",
    /// A merge key, `<<`.
    MergeKey => "merge-key",
    /// A key that is a list or a mapping.
    ComplexKey => "complex-key",
    /// The same key twice in one mapping.
    DuplicateKey => "duplicate-key",
    /// A key that has no meaning there.
    UnknownField => "unknown-field",
    /// A field that the design has and this version does not.
    NotImplemented => "not-implemented",
    /// A field without which the object means nothing.
    MissingField => "missing-field",
    /// A list where a text is expected, and so on.
    WrongType => "wrong-type",
    /// A number outside its range.
    OutOfRange => "out-of-range",
    /// A word that is none of those allowed.
    UnknownWord => "unknown-word",
    /// `apiVersion` is another than `cluster/v1`.
    ApiVersion => "api-version",
    /// `kind` is another than `App`.
    Kind => "kind",
    /// A name that is no DNS label.
    Name => "name",
    /// Two Apps of one name in one apply.
    DuplicateApp => "duplicate-app",
    /// A label, or a part of a node selector, with characters that none may have.
    Label => "label",
    /// An annotation with a key that none may have.
    Annotation => "annotation",
    /// More of something, or longer, than any use needs.
    TooLong => "too-long",
    /// NUL, a line break or another control character where none can be.
    ControlCharacter => "control-character",
    /// `Replicas` without `replicas`.
    ReplicasMissing => "replicas-missing",
    /// `replicas` with a mode that does not count instances.
    ReplicasRefused => "replicas-refused",
    /// `ring` with a mode that has no partitions.
    RingRefused => "ring-refused",
    /// `standby: Hot` with a mode that has no standbys.
    StandbyRefused => "standby-refused",
    /// No lease, or one that is too short or too long.
    FailoverLease => "failover-lease",
    /// `failback` without a node to go back to.
    FailbackRefused => "failback-refused",
    /// `onQuorumLoss: Keep` with something that must stay exclusive.
    QuorumLossRefused => "quorum-loss-refused",
    /// `database` with a mode that has no single writer.
    DatabaseRefused => "database-refused",
    /// Neither `unit` nor `exec`.
    NothingRuns => "nothing-runs",
    /// Both `unit` and `exec`.
    TwoRun => "two-run",
    /// An empty command.
    CommandEmpty => "command-empty",
    /// A program without an absolute path.
    CommandPath => "command-path",
    /// A placeholder that does not exist, or that is not closed.
    Placeholder => "placeholder",
    /// `${database.path}` in an App without a database.
    PlaceholderDatabase => "placeholder-database",
    /// The name of an environment variable.
    EnvironmentName => "environment-name",
    /// A user or group that no system has.
    Account => "account",
    /// A working directory that is not absolute.
    WorkingDirectory => "working-directory",
    /// A resource limit that does not exist or cannot be set.
    LimitName => "limit-name",
    /// A value that the resource limit does not take.
    LimitValue => "limit-value",
    /// Not a name of a systemd service.
    UnitName => "unit-name",
    /// A unit that clusterctl writes itself, or that a machine needs to live.
    UnitReserved => "unit-reserved",
    /// A unit text that systemd would not load as a service.
    UnitContent => "unit-content",
    /// A oneshot service that ends as soon as it began.
    UnitOneshot => "unit-oneshot",
    /// Not an address with prefix length, or one that no machine can have.
    VipAddress => "vip-address",
    /// Not a name of a network interface.
    VipInterface => "vip-interface",
    /// A node that cannot exist, or one that stands there twice.
    PlacementNodes => "placement-nodes",
    /// An App that cannot exist, that stands there twice, or this one.
    PlacementAway => "placement-away",
    /// A label that `nodeSelector` asks for and `avoidLabels` refuses.
    PlacementAvoid => "placement-avoid",
    /// A preference that says nothing, stands there twice, or that the mode has no use for.
    PlacementPrefer => "placement-prefer",
    /// An App that cannot exist, that stands there twice, that has to be kept apart, or this one.
    PlacementWith => "placement-with",
    /// Not the key of a label, or a mode that has nothing to spread.
    PlacementSpread => "placement-spread",
    /// No amount of processor time or memory.
    PlacementResources => "placement-resources",
    /// An order of update that no systemd unit can have.
    UpdateOrder => "update-order",
    /// More instances down at a time than the mode has.
    UpdateUnavailable => "update-unavailable",
    /// `hooks` with a mode that has no partitions.
    HooksRefused => "hooks-refused",
    /// A time-out that cannot be read, or one that is too long.
    HookTimeout => "hook-timeout",
    /// A grant to an App that cannot exist, that stands there twice, or to itself; or one without rights, or with one twice.
    Grants => "grants",
    /// `health` without a check, or with several.
    HealthCheck => "health-check",
    /// A time of `health` that cannot be read, or is out of its range.
    HealthTime => "health-time",
    /// A path, a status or a sub-state that no check can have.
    HealthValue => "health-value",
    /// A database path that is not absolute and normalised, or lies where nothing is kept.
    DatabasePath => "database-path",
}
