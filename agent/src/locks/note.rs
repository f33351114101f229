//! What nodes tell each other of locks, read with suspicion.

use cluster_bus::LockNote as Wire;
use cluster_lease::types::NodeName;

use super::core::Id;
use super::{CLAIMS_PER_LOCK_MAX, QUEUE_MAX};

/// A claim in a lock's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) node: NodeName,
    pub(super) claim: Id,
}

/// See [`cluster_bus::LockNote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LockNote {
    Waiting { slot: String, claims: Vec<Id> },
    Queue { slot: String, queue: Vec<Told> },
}

impl From<LockNote> for Wire {
    fn from(note: LockNote) -> Self {
        match note {
            LockNote::Waiting { slot, claims } => Self::Waiting { slot, claims },
            LockNote::Queue { slot, queue } => {
                Self::Queue { slot, queue: queue.into_iter().map(|told| (told.node.to_string(), told.claim)).collect() }
            }
        }
    }
}

impl From<Wire> for LockNote {
    /// What is longer than it may be is cut, and names that are none are left out.
    fn from(note: Wire) -> Self {
        match note {
            Wire::Waiting { slot, mut claims } => {
                claims.truncate(CLAIMS_PER_LOCK_MAX);
                Self::Waiting { slot, claims }
            }
            Wire::Queue { slot, queue } => {
                let told = |(node, claim): (String, Id)| Some(Told { node: NodeName::new(&node).ok()?, claim });
                Self::Queue { slot, queue: queue.into_iter().take(QUEUE_MAX).filter_map(told).collect() }
            }
        }
    }
}
