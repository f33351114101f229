//! The nouns: who, what and which.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest node name in bytes (one DNS label).
pub const NODE_NAME_MAX: usize = 63;
/// Longest slot or ring name in bytes; `lock/APP/NAME` with two DNS labels needs 132.
pub const SLOT_NAME_MAX: usize = 136;
/// Partitions of one ring at most.
pub const PARTITIONS_MAX: u16 = 4096;
/// Epochs stay below this (they must survive JSON readers).
pub const EPOCH_END: Epoch = Epoch(1 << 53);

/// A name or slot that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than the limit.
    #[error("name has {len} bytes, must have 1 to {max}")]
    Length {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A byte that is not printable ASCII.
    #[error("name has a byte {byte:#04x}, must be printable ascii without blanks")]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// A partition number that no ring has.
    #[error("partition {0:?} is not a number below {PARTITIONS_MAX}")]
    Partition(String),
}

fn checked(text: &str, max: usize) -> Result<Arc<str>, NameError> {
    if text.is_empty() || text.len() > max {
        return Err(NameError::Length { len: text.len(), max });
    }
    match text.bytes().find(|b| !b.is_ascii_graphic()) {
        Some(byte) => Err(NameError::Byte { byte }),
        None => Ok(Arc::from(text)),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and bytes.
            ///
            /// # Errors
            /// [`NameError`] if empty, too long, or not printable ASCII.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text, $max).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A node's name.
    NodeName,
    NODE_NAME_MAX
);
name_type!(
    /// The name of a slot that is not a partition (`app/NAME`, `vip/ADDRESS`, `lock/APP/NAME`), or of a ring.
    SlotName,
    SLOT_NAME_MAX
);

macro_rules! number_type {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $show:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $show, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $show, self.0)
            }
        }
    )*};
}

number_type! {
    /// Number of one tenure of a slot; rises with each acquisition.
    Epoch(u64), "{}";
    /// Number of a voter set.
    SetNo(u64), "{}";
    /// Random per agent start, so that two lives of one agent in one boot are told apart.
    Instance(u64), "{:x}";
    /// The kernel's boot id.
    BootId(u128), "{:x}";
    /// The cluster's id, made by `init`.
    ClusterId(u128), "{:x}";
    /// Identity of one voter's durable memory. New memory, new id: what a lost disk knew must not be counted again.
    VoterId(u128), "{:x}";
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A machine in one boot. After a reboot it is another node to the voters: it cannot hold what it held.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Which boot.
    pub boot: BootId,
    /// Which machine.
    pub name: NodeName,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.name, self.boot.0)
    }
}

/// One holding of a slot, from acquisition to loss or release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenure {
    /// Its number.
    pub epoch: Epoch,
    /// The holder.
    pub node: Node,
    /// The agent's life that acquired or adopted it.
    pub instance: Instance,
}

/// Names one message of one agent's life; the answer repeats it (P1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendNo {
    /// The sender's instance. A restarted agent counts from zero again: without this an answer to its former life would be taken
    /// for an answer to the present one.
    pub instance: Instance,
    /// Counts up within the instance.
    pub count: u64,
}

/// One exclusive thing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// An App's role, an address or a lock.
    Named(SlotName),
    /// One partition of a ring.
    Ring {
        /// The App whose ring it is.
        ring: SlotName,
        /// Which partition, below [`PARTITIONS_MAX`].
        partition: u16,
    },
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{name}"),
            Self::Ring { ring, partition } => write!(f, "ring/{ring}/{partition}"),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Slot {
    type Err = NameError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((ring, number)) = text.strip_prefix("ring/").and_then(|rest| rest.rsplit_once('/')) else {
            return SlotName::new(text).map(Self::Named);
        };
        match number.parse::<u16>() {
            Ok(partition) if partition < PARTITIONS_MAX => Ok(Self::Ring { ring: SlotName::new(ring)?, partition }),
            _ => Err(NameError::Partition(number.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_read_what_they_write() {
        for text in ["app/database", "ring/cache/17", "vip/10.0.0.100", "lock/api/nightly"] {
            assert_eq!(text.parse::<Slot>().unwrap().to_string(), text);
        }
        assert_eq!("ring/cache/4096".parse::<Slot>(), Err(NameError::Partition("4096".into())));
        assert_eq!(SlotName::new(""), Err(NameError::Length { len: 0, max: SLOT_NAME_MAX }));
        assert_eq!(NodeName::new("a b"), Err(NameError::Byte { byte: b' ' }));
        assert!(NodeName::new(&"n".repeat(64)).is_err());
    }
}
