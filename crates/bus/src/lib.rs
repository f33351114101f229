//! Typed NATS: every subject and bucket name, encodings, compare-and-set, watches with re-list, connections.
//!
//! Two paths, never mixed (design section 5): the durable one is [`Kv`] over JetStream, for what is desired, planned and observed; the
//! fast one is core NATS, for heartbeats and beats ([`Bus::publish_heartbeat`] and friends), which needs no stream leader.
//!
//! Decisions are read by [`Kv::get`], which asks the stream's leader, or made by compare-and-set (rule C4). What a [`Watch`] delivers is
//! a cache: good for planning, since every write that follows is conditional.

mod apart;
mod beats;
mod config;
mod connection;
mod databases;
mod events;
mod history;
mod kv;
mod lease_link;
pub mod lease_wire;
mod locks;
mod names;
mod records;
mod shared_state;
mod snapshots;
mod streams;
mod watch;

pub use beats::{Beat, Beats, ForceOrder};
pub use config::NatsConfig;
pub use connection::{Bus, ConnectError};
pub use databases::{DatabaseLink, DatabaseMessage, DatabaseMessages, Outgoing};
pub use events::EventReader;
pub use history::{AUDIT_PAGE_MAX, HistoryError};
pub use kv::{KeyState, Kv, KvError, LeaderRecord, Revised};
pub use lease_link::{Arrived, LeaseLink, server_orders};
pub use locks::{LockNote, LockNotes};
pub use names::{Bucket, CORDON_PREFIX, HANDOVER_PREFIX, LEADER_KEY, MARK_KEY, Names, RECOVERY_KEY, REMOVAL_PREFIX, VOTERS_KEY};
pub use records::{CordonOrder, HandoverOrder, RecoveryRecord, Removal, StoreMark, VotersOrder};
pub use shared_state::{
    DELETIONS_KEPT, Expect, Found, STATE_KEY_MAX, STATE_TTL, STATE_VALUE_MAX, SharedState, StateError, check_state_key,
};
pub use snapshots::{SnapshotError, SnapshotStore, StoredSnapshot};
pub use streams::{APPENDS_MAX, Append, Appended, DatabaseStream, StreamError, StreamState};
pub use watch::{Change, Watch};

/// Largest message or stored value, in bytes (rule N6).
pub const PAYLOAD_MAX: usize = 512 * 1024;
