//! The agent's and the guard's view of the table.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use cluster_lease::time::{Span, Time};
use cluster_lease::types::Epoch;
use cluster_lease::word::SlotWord;

use crate::cgroup;
use crate::clock;
use crate::layout::{
    CGROUP_MAX, Header, Layout, MAGIC, NAME_MAX, UNIT_GATED, UNIT_USED, UNITS_MAX, UnitEntry, VIPS_MAX, VipEntry, WORDS_MAX, WordEntry,
};
use crate::map::{MapError, Mapped};

/// A beat older than this is stale (F4).
pub const STALE: Span = Span::from_millis(60);
/// Agent and guard beat this often (F4).
pub const BEAT: Span = Span::from_millis(20);

/// Why an entry was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// All entries are in use.
    #[error("the fence table is full: {0} at most")]
    Full(usize),
    /// A text does not fit.
    #[error("{what} {text:?} is longer than {max} bytes")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// The text.
        text: String,
        /// The limit.
        max: usize,
    },
}

/// A unit's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitIndex(u32);

/// A word's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WordIndex(u32);

impl WordIndex {
    pub(crate) const fn plus_one(self) -> u32 {
        self.0 + 1
    }
}

/// An address that goes with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardedVip {
    /// The address.
    pub address: IpAddr,
    /// Prefix length as it stands in the kernel.
    pub prefix: u8,
    /// Index of the interface.
    pub interface: u32,
    /// The word that stands for it; none: the unit's role word.
    pub word: Option<WordIndex>,
}

/// The table, mapped.
#[derive(Debug)]
pub struct Table(Mapped);

impl Table {
    /// Maps the table at `path` for the boot `boot`. A table of another boot, or of another version, is emptied: everything fenced.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn open(path: &Path, boot: u128) -> Result<Self, MapError> {
        let table = Self(Mapped::open(path)?);
        let header = table.header();
        let [high, low] = halves(boot);
        let [have_high, have_low] = &header.boot;
        let same = header.magic.load(Ordering::Acquire) == MAGIC
            && have_high.load(Ordering::Acquire) == high
            && have_low.load(Ordering::Acquire) == low;
        if !same {
            table.clear();
            have_high.store(high, Ordering::Release);
            have_low.store(low, Ordering::Release);
            header.magic.store(MAGIC, Ordering::Release);
        }
        Ok(table)
    }

    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    /// The head.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.layout().header
    }

    fn clear(&self) {
        for entry in &self.layout().words {
            entry.word.fence();
            entry.unit.store(0, Ordering::Release);
        }
        for unit in &self.layout().units {
            unit.flags.store(0, Ordering::Release);
            unit.role_word.store(0, Ordering::Release);
            unit.pending.store(0, Ordering::Release);
            write_text(&unit.cgroup, "");
        }
        self.header().units.store(0, Ordering::Release);
        self.header().words.store(0, Ordering::Release);
        self.header().agent_beat.store(0, Ordering::Release);
        self.header().agent_pid.store(0, Ordering::Release);
        self.header().guard_beat.store(0, Ordering::Release);
    }

    /// F4: the agent lives.
    pub fn agent_beats(&self) {
        self.header().agent_beat.store(clock::now().0, Ordering::Release);
    }

    /// This process is the agent.
    pub fn agent_is(&self, pid: u32) {
        self.header().agent_pid.store(u64::from(pid), Ordering::Release);
    }

    /// Process id of the agent; none before the first.
    #[must_use]
    pub fn agent_pid(&self) -> Option<u32> {
        u32::try_from(self.header().agent_pid.load(Ordering::Acquire)).ok().filter(|pid| *pid != 0)
    }

    /// F4: the guard lives.
    pub fn guard_beats(&self) {
        self.header().guard_beat.store(clock::now().0, Ordering::Release);
    }

    /// How long the agent has been silent at `now`; very long before its first beat.
    #[must_use]
    pub fn agent_silence(&self, now: Time) -> Span {
        now - Time(self.header().agent_beat.load(Ordering::Acquire))
    }

    /// How long the guard has been silent at `now`.
    #[must_use]
    pub fn guard_silence(&self, now: Time) -> Span {
        now - Time(self.header().guard_beat.load(Ordering::Acquire))
    }

    /// Says whether the unit may run only while the word of its role is armed (F5).
    pub fn set_gated(&self, index: UnitIndex, gated: bool) {
        self.unit(index).flags.store(UNIT_USED | if gated { UNIT_GATED } else { 0 }, Ordering::Release);
    }

    /// Makes an entry for a unit. `gated`: it may run only while the word of its role is armed (F5).
    ///
    /// # Errors
    /// [`TableError`].
    pub fn add_unit(&self, gated: bool) -> Result<UnitIndex, TableError> {
        let free = self.layout().units.iter().position(|u| u.flags.load(Ordering::Acquire) & UNIT_USED == 0);
        let index = free.and_then(|i| u32::try_from(i).ok()).ok_or(TableError::Full(UNITS_MAX))?;
        let unit = self.unit(UnitIndex(index));
        unit.role_word.store(0, Ordering::Release);
        unit.pending.store(0, Ordering::Release);
        for vip in &unit.vips {
            vip.family.store(0, Ordering::Release);
        }
        write_text(&unit.cgroup, "");
        unit.flags.store(UNIT_USED | if gated { UNIT_GATED } else { 0 }, Ordering::Release);
        self.header().units.fetch_max(index + 1, Ordering::AcqRel);
        Ok(UnitIndex(index))
    }

    /// Frees a unit's entry and its words. Nothing of it may run any more.
    pub fn remove_unit(&self, index: UnitIndex) {
        for (_, entry) in self.used_words().filter(|(_, e)| e.unit.load(Ordering::Acquire) == index.0 + 1) {
            entry.word.fence();
            entry.unit.store(0, Ordering::Release);
        }
        self.unit(index).flags.store(0, Ordering::Release);
    }

    /// Says which cgroup the unit's processes are in, by its absolute path in the unified hierarchy.
    ///
    /// # Errors
    /// [`TableError::TooLong`].
    pub fn set_cgroup(&self, index: UnitIndex, path: &str) -> Result<(), TableError> {
        if path.len() >= CGROUP_MAX {
            return Err(TableError::TooLong { what: "cgroup path", text: path.to_owned(), max: CGROUP_MAX - 1 });
        }
        let unit = self.unit(index);
        unit.sequence.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        write_text(&unit.cgroup, path);
        fence(Ordering::SeqCst);
        unit.sequence.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Says which addresses go with the unit; at most [`VIPS_MAX`] count.
    pub fn set_vips(&self, index: UnitIndex, vips: &[GuardedVip]) {
        let unit = self.unit(index);
        unit.sequence.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        for (i, place) in unit.vips.iter().enumerate() {
            place.family.store(0, Ordering::Release);
            if let Some(vip) = vips.get(i) {
                write_vip(place, vip);
            }
        }
        fence(Ordering::SeqCst);
        unit.sequence.fetch_add(1, Ordering::AcqRel);
    }

    /// The word of a slot that stands for the unit; made if it is not there. `role`: it is the word of the unit's role.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn word_for(&self, slot: &str, unit: UnitIndex, role: bool) -> Result<WordIndex, TableError> {
        if slot.len() >= NAME_MAX {
            return Err(TableError::TooLong { what: "slot", text: slot.to_owned(), max: NAME_MAX - 1 });
        }
        let index = match self.find_word(slot) {
            Some(found) => found,
            None => self.new_word(slot)?,
        };
        self.entry(index).unit.store(unit.0 + 1, Ordering::Release);
        if role {
            self.unit(unit).role_word.store(index.0 + 1, Ordering::Release);
        }
        Ok(index)
    }

    fn new_word(&self, slot: &str) -> Result<WordIndex, TableError> {
        // A word keeps its epoch for its slot as long as the boot lasts: only a higher one arms it again. So an entry is never given to
        // another slot.
        let free = self.layout().words.iter().position(|e| e.name[0].load(Ordering::Acquire) == 0);
        let index = free.and_then(|i| u32::try_from(i).ok()).ok_or(TableError::Full(WORDS_MAX))?;
        let entry = self.entry(WordIndex(index));
        entry.sequence.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        write_text(&entry.name, slot);
        fence(Ordering::SeqCst);
        entry.sequence.fetch_add(1, Ordering::AcqRel);
        self.header().words.fetch_max(index + 1, Ordering::AcqRel);
        Ok(WordIndex(index))
    }

    /// The word of a slot.
    #[must_use]
    pub fn find_word(&self, slot: &str) -> Option<WordIndex> {
        let used = usize::try_from(self.header().words.load(Ordering::Acquire)).unwrap_or(WORDS_MAX).min(WORDS_MAX);
        let place = self.layout().words.iter().take(used).position(|e| text_is(&e.name, slot))?;
        u32::try_from(place).ok().map(WordIndex)
    }

    /// The word itself.
    #[must_use]
    pub fn word(&self, index: WordIndex) -> &SlotWord {
        &self.entry(index).word
    }

    /// Whether `slot` is held at `now`: its word is armed.
    #[must_use]
    pub fn holds(&self, slot: &str, now: Time) -> bool {
        self.find_word(slot).is_some_and(|word| self.word(word).armed(now).is_some())
    }

    /// P6: slots whose tenure is armed with a deadline after `now`, with epoch and deadline.
    #[must_use]
    pub fn armed(&self, now: Time) -> Vec<(String, Epoch, Time)> {
        self.used_words()
            .filter_map(|(_, e)| {
                let (epoch, deadline) = e.word.armed(now)?;
                Some((read_text::<NAME_MAX>(&e.name), epoch, deadline))
            })
            .collect()
    }

    /// Slots whose word is fenced, while the unit that it is the role of still has processes, with the epoch they run in.
    #[must_use]
    pub fn leftovers(&self, now: Time) -> Vec<(String, Epoch)> {
        let fenced = |e: &WordEntry| e.word.armed(now).is_none();
        self.used_words()
            .filter(|(_, e)| fenced(e))
            .filter_map(|(index, e)| {
                let unit = e.unit.load(Ordering::Acquire).checked_sub(1).map(UnitIndex)?;
                let copy = copy_unit(self.unit(unit));
                let role = copy.gated && copy.role_word == index.0 + 1;
                (role && cgroup::is_populated(copy.cgroup())).then(|| (read_text::<NAME_MAX>(&e.name), e.word.epoch()))
            })
            .collect()
    }

    /// Entries of an earlier agent of this boot, with the paths of their cgroups.
    #[must_use]
    pub fn units(&self) -> Vec<(UnitIndex, String)> {
        self.used_units().map(|(index, unit)| (index, read_text::<CGROUP_MAX>(&unit.cgroup))).collect()
    }

    /// How often the guard killed the unit.
    #[must_use]
    pub fn kills(&self, index: UnitIndex) -> u64 {
        self.unit(index).kills.load(Ordering::Acquire)
    }

    pub(crate) fn used_words(&self) -> impl Iterator<Item = (WordIndex, &WordEntry)> {
        let used = usize::try_from(self.header().words.load(Ordering::Acquire)).unwrap_or(WORDS_MAX).min(WORDS_MAX);
        (0_u32..).map(WordIndex).zip(self.layout().words.iter().take(used))
    }

    pub(crate) fn used_units(&self) -> impl Iterator<Item = (UnitIndex, &UnitEntry)> {
        let used = usize::try_from(self.header().units.load(Ordering::Acquire)).unwrap_or(UNITS_MAX).min(UNITS_MAX);
        (0_u32..)
            .map(UnitIndex)
            .zip(self.layout().units.iter().take(used))
            .filter(|(_, u)| u.flags.load(Ordering::Acquire) & UNIT_USED != 0)
    }

    /// The unit that a word stands for.
    pub(crate) fn unit_of(&self, word: &WordEntry) -> Option<&UnitEntry> {
        word.unit.load(Ordering::Acquire).checked_sub(1).map(|index| self.unit(UnitIndex(index)))
    }

    /// Whether a word given as index plus one is fenced.
    pub(crate) fn is_fenced(&self, index_plus_one: u32) -> bool {
        index_plus_one.checked_sub(1).is_some_and(|i| self.entry(WordIndex(i)).word.deadline().is_none())
    }

    /// Whether a word given as index plus one (0: none) is armed at `now`.
    pub(crate) fn is_armed(&self, index_plus_one: u32, now: Time) -> bool {
        index_plus_one.checked_sub(1).is_some_and(|i| self.entry(WordIndex(i)).word.armed(now).is_some())
    }

    fn unit(&self, index: UnitIndex) -> &UnitEntry {
        &self.layout().units[usize::try_from(index.0).unwrap_or(0).min(UNITS_MAX - 1)]
    }

    fn entry(&self, index: WordIndex) -> &WordEntry {
        &self.layout().words[usize::try_from(index.0).unwrap_or(0).min(WORDS_MAX - 1)]
    }
}

const fn halves(boot: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
    [(boot >> 64) as u64, boot as u64]
}

fn write_vip(place: &VipEntry, vip: &GuardedVip) {
    let mut bytes = [0_u8; 16];
    let family = match vip.address {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            bytes = v6.octets();
            6
        }
    };
    for (to, from) in place.address.iter().zip(bytes) {
        to.store(from, Ordering::Relaxed);
    }
    place.prefix.store(u32::from(vip.prefix), Ordering::Relaxed);
    place.interface.store(vip.interface, Ordering::Relaxed);
    place.word.store(vip.word.map_or(0, |w| w.0 + 1), Ordering::Relaxed);
    place.family.store(family, Ordering::Release);
}

fn write_text(place: &[AtomicU8], text: &str) {
    let bytes = text.bytes().chain(std::iter::repeat(0));
    for (to, from) in place.iter().zip(bytes) {
        to.store(from, Ordering::Relaxed);
    }
}

fn text_is(place: &[AtomicU8], text: &str) -> bool {
    let bytes = place.iter().map(|b| b.load(Ordering::Relaxed)).take_while(|b| *b != 0);
    bytes.eq(text.bytes())
}

fn read_text<const N: usize>(place: &[AtomicU8; N]) -> String {
    let bytes: Vec<u8> = place.iter().map(|b| b.load(Ordering::Relaxed)).take_while(|b| *b != 0).collect();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Copies of what the guard needs of a unit, taken whole: no allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnitCopy {
    pub(crate) cgroup: [u8; CGROUP_MAX],
    pub(crate) vips: [Option<(GuardedVip, u32)>; VIPS_MAX],
    pub(crate) gated: bool,
    pub(crate) role_word: u32,
}

impl UnitCopy {
    /// The path of the cgroup; empty when not known.
    pub(crate) fn cgroup(&self) -> &[u8] {
        let length = self.cgroup.iter().position(|b| *b == 0).unwrap_or(0);
        self.cgroup.get(..length).unwrap_or(&[])
    }
}

/// Reads a unit's entry until no write came in between; a writer that died in the middle is not waited for.
pub(crate) fn copy_unit(unit: &UnitEntry) -> UnitCopy {
    const TRIES: usize = 64;
    let mut copy = copy_once(unit);
    for _ in 0..TRIES {
        let before = unit.sequence.load(Ordering::Acquire);
        copy = copy_once(unit);
        fence(Ordering::SeqCst);
        if before.is_multiple_of(2) && unit.sequence.load(Ordering::Acquire) == before {
            break;
        }
        std::hint::spin_loop();
    }
    copy
}

fn copy_once(unit: &UnitEntry) -> UnitCopy {
    let mut cgroup = [0; CGROUP_MAX];
    for (to, from) in cgroup.iter_mut().zip(&unit.cgroup) {
        *to = from.load(Ordering::Relaxed);
    }
    cgroup[CGROUP_MAX - 1] = 0;
    let vips = std::array::from_fn(|i| unit.vips.get(i).and_then(copy_vip));
    let gated = unit.flags.load(Ordering::Acquire) & UNIT_GATED != 0;
    UnitCopy { cgroup, vips, gated, role_word: unit.role_word.load(Ordering::Acquire) }
}

fn copy_vip(place: &VipEntry) -> Option<(GuardedVip, u32)> {
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(&place.address) {
        *to = from.load(Ordering::Relaxed);
    }
    let address = match place.family.load(Ordering::Acquire) {
        4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        6 => IpAddr::from(bytes),
        _ => return None,
    };
    let prefix = u8::try_from(place.prefix.load(Ordering::Relaxed)).ok()?;
    let word = place.word.load(Ordering::Relaxed);
    Some((GuardedVip { address, prefix, interface: place.interface.load(Ordering::Relaxed), word: None }, word))
}
