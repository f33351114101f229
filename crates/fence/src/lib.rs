//! The fence (protocols B2): the table under /run that agent and guard share, and the guard that acts by it.
//!
//! # Flow
//! The agent makes an entry for each exclusive App ([`Table::add_unit`]: cgroup, addresses) and a word for each slot it may hold
//! ([`Table::word_for`]). It arms a word when a lease is acquired, before any start or address, and extends it with every renewal. The guard
//! fences a word whose deadline passed, removes the addresses and kills the processes that stand for it.
//!
//! # Guarantees
//! - F2: of one extension and one fence at the deadline, exactly one wins.
//! - F5: a gated unit has processes only while its role word is armed, within one [`BEAT`].
//! - A table of another boot, or of another version, is read as fenced everywhere.
//!
//! # Assumptions
//! One agent and any number of guards use the table; nobody truncates the file. The guard runs within F of a deadline: it has a real-time
//! priority, its memory is locked, and it waits for nobody.

mod cgroup;
pub mod clock;
mod guard;
mod hands;
mod layout;
mod map;
mod netlink;
mod table;

pub use guard::{Guard, Round};
pub use hands::{Hands, Machine};
pub use layout::{CGROUP_MAX, NAME_MAX, UNITS_MAX, VIPS_MAX, WORDS_MAX};
pub use map::MapError;
pub use netlink::ADDRESS_MARK;
pub use table::{BEAT, GuardedVip, STALE, Table, TableError, UnitIndex, WordIndex};

/// Where the table is.
pub const TABLE: &str = "fence.table";
