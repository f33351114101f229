//! The table's layout: fixed, so that the guard needs no allocation and an agent of another version can tell that it is another.
//!
//! ```text
//! Header            one page
//! [UnitEntry]       UNITS_MAX: what to kill and which addresses to remove
//! [WordEntry]       WORDS_MAX: one deadline word per slot, and which unit it stands for
//! ```
//!
//! Who writes what: the agent writes entries and arms words; the guard writes its beat, what it fenced, and what it has not yet seen gone. Everything
//! is atomic, so that a torn view is at worst an old one; an entry's text is guarded by a sequence number (odd while being written).

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use cluster_lease::word::SlotWord;

/// Marks the file, and its version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cfence02");
/// Exclusive Apps of one node at most.
pub const UNITS_MAX: usize = 512;
/// Slots held by one node at most.
pub const WORDS_MAX: usize = 8192;
/// Longest path of a cgroup, terminating zero included.
pub const CGROUP_MAX: usize = 400;
/// Addresses of one App at most.
pub const VIPS_MAX: usize = 2;
/// Longest name of a slot, in bytes; shorter ones end with a zero.
pub const NAME_MAX: usize = 144;

/// The head of the table.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// The boot that the table belongs to.
    pub boot: [AtomicU64; 2],
    /// When the agent last beat (F4), on the clock of leases.
    pub agent_beat: AtomicU64,
    /// When the guard last beat (F4).
    pub guard_beat: AtomicU64,
    /// Units ever used: the guard looks at no more.
    pub units: AtomicU32,
    /// Words ever used.
    pub words: AtomicU32,
    /// How often the guard fenced a word, for the status.
    pub fences: AtomicU64,
    /// Process id of the agent; 0 before the first.
    pub agent_pid: AtomicU64,
    pad: [AtomicU64; 503],
}

/// What an exclusive App is on this node.
#[repr(C)]
#[derive(Debug)]
pub struct UnitEntry {
    /// Odd while the agent writes the text below.
    pub sequence: AtomicU32,
    /// [`UNIT_USED`], [`UNIT_GATED`].
    pub flags: AtomicU32,
    /// Raised by the guard with each kill.
    pub kills: AtomicU64,
    /// Absolute path of the unit's cgroup folder in the unified hierarchy, zero-terminated; empty when not known.
    pub cgroup: [AtomicU8; CGROUP_MAX],
    /// Addresses that go with it.
    pub vips: [VipEntry; VIPS_MAX],
    /// Index of the word that stands for the unit's role, plus one; 0 for none. A gated unit may run only while that word is armed.
    pub role_word: AtomicU32,
    /// What the guard has begun and not yet seen done: 0 nothing, [`KILL`], or the index plus one of the word that it is about to fence. A
    /// guard that starts goes on with it.
    pub pending: AtomicU32,
    pad: [AtomicU32; 2],
}

/// A word of the unit was fenced, and its processes were not yet seen gone.
pub const KILL: u32 = u32::MAX;

/// The entry is in use.
pub const UNIT_USED: u32 = 1;
/// F5: the unit may have processes only while its role word is armed.
pub const UNIT_GATED: u32 = 2;

/// An address that the guard removes.
#[repr(C)]
#[derive(Debug)]
pub struct VipEntry {
    /// 4 or 6; 0 for none.
    pub family: AtomicU32,
    /// Prefix length as it stands in the kernel.
    pub prefix: AtomicU32,
    /// Index of the interface.
    pub interface: AtomicU32,
    /// Index of the word that stands for the address, plus one; 0: the unit's role word.
    pub word: AtomicU32,
    /// The address's bytes, the first four for IPv4.
    pub address: [AtomicU8; 16],
}

/// One slot.
#[repr(C)]
#[derive(Debug)]
pub struct WordEntry {
    /// Deadline and epoch (F2).
    pub word: SlotWord,
    /// Index of the unit it stands for, plus one; 0: the entry is free.
    pub unit: AtomicU32,
    /// Odd while the name is being written.
    pub sequence: AtomicU32,
    /// Text of the slot, such as `app/database`.
    pub name: [AtomicU8; NAME_MAX],
    pad: [AtomicU64; 1],
}

/// The whole table.
#[repr(C)]
#[derive(Debug)]
pub struct Layout {
    /// The head.
    pub header: Header,
    /// The units.
    pub units: [UnitEntry; UNITS_MAX],
    /// The words.
    pub words: [WordEntry; WORDS_MAX],
}
