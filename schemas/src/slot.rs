//! Slots: the exclusive things, each held by at most one node at a time.

use std::fmt;

/// One exclusive thing. The text form (`app/NAME`, `ring/APP/N`, `vip/ADDRESS`) stands in logs and statuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The active role of a Singleton, with its VIP and database.
    App {
        /// Name of the App.
        app: String,
    },
    /// One partition of a Ring.
    Ring {
        /// Name of the App.
        app: String,
        /// The partition's number, from 0.
        partition: u16,
    },
    /// The VIP of a pool or ring.
    Vip {
        /// The address without its prefix length.
        address: String,
    },
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { app } => write!(f, "app/{app}"),
            Self::Ring { app, partition } => write!(f, "ring/{app}/{partition}"),
            Self::Vip { address } => write!(f, "vip/{address}"),
        }
    }
}
