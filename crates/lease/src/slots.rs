//! Many slots at once: sets, claims (slot and epoch) and a map, each with the partitions of a ring kept together, so that a
//! node that holds thousands of partitions sends one small message per interval.

use crate::types::{Epoch, PARTITIONS_MAX, Slot, SlotName};
use std::collections::{BTreeMap, BTreeSet};

const WORDS_MAX: usize = PARTITIONS_MAX as usize / 64;

/// A set of partitions of one ring, one bit each. Equal sets compare equal: trailing zero words are never kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Adds a partition; numbers at or above [`PARTITIONS_MAX`] are ignored (no slot has them).
    pub fn insert(&mut self, partition: u16) {
        let (word, bit) = (usize::from(partition / 64), partition % 64);
        if word >= WORDS_MAX {
            return;
        }
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    /// Takes a partition out.
    pub fn remove(&mut self, partition: u16) {
        if let Some(word) = self.0.get_mut(usize::from(partition / 64)) {
            *word &= !(1 << (partition % 64));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Is the partition in it?
    #[must_use]
    pub fn contains(&self, partition: u16) -> bool {
        self.0.get(usize::from(partition / 64)).is_some_and(|word| word >> (partition % 64) & 1 == 1)
    }

    /// How many partitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partitions, rising.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.0).flat_map(|(i, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left = left.checked_sub(1).map(|less| left & less)?;
                u16::try_from(bit).ok().map(|bit| i * 64 + bit)
            })
        })
    }

    /// The words, lowest partitions first; the last one is not zero.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Bits from words; words past the last possible partition are cut off.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>) -> Self {
        words.truncate(WORDS_MAX);
        while words.last() == Some(&0) {
            words.pop();
        }
        Self(words)
    }
}

impl FromIterator<u16> for Bits {
    fn from_iter<I: IntoIterator<Item = u16>>(partitions: I) -> Self {
        let mut bits = Self::default();
        partitions.into_iter().for_each(|p| bits.insert(p));
        bits
    }
}

/// A set of slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotSet {
    /// Slots that are not partitions.
    pub named: BTreeSet<SlotName>,
    /// Partitions by ring.
    pub rings: BTreeMap<SlotName, Bits>,
}

impl SlotSet {
    /// Adds a slot.
    pub fn insert(&mut self, slot: &Slot) {
        match slot {
            Slot::Named(name) => {
                self.named.insert(name.clone());
            }
            Slot::Ring { ring, partition } => self.insert_partition(ring, *partition),
        }
    }

    /// Adds a partition.
    pub fn insert_partition(&mut self, ring: &SlotName, partition: u16) {
        if let Some(bits) = self.rings.get_mut(ring) {
            bits.insert(partition);
        } else {
            self.rings.insert(ring.clone(), Bits::from_iter([partition]));
        }
    }

    /// Is the slot in it?
    #[must_use]
    pub fn contains(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Named(name) => self.named.contains(name),
            Slot::Ring { ring, partition } => self.rings.get(ring).is_some_and(|bits| bits.contains(*partition)),
        }
    }

    /// How many slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len() + self.rings.values().map(Bits::len).sum::<usize>()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.rings.values().all(Bits::is_empty)
    }

    /// The slots, named ones first.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let named = self.named.iter().cloned().map(Slot::Named);
        named.chain(self.rings.iter().flat_map(|(ring, bits)| bits.iter().map(|partition| Slot::Ring { ring: ring.clone(), partition })))
    }
}

impl<'a> FromIterator<&'a Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = &'a Slot>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

/// Slots, each with an epoch. Partitions of one ring in one epoch share a bitmap.
///
/// A bit always comes with its epoch. A bit alone would be unsafe: a voter that missed the loss and the new acquisition of a
/// partition would renew the old tenure, and a late Release of that one would then clear what the new one counts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claims {
    /// Slots that are not partitions.
    pub named: BTreeMap<SlotName, Epoch>,
    /// Partitions by ring and epoch.
    pub rings: BTreeMap<SlotName, BTreeMap<Epoch, Bits>>,
}

impl Claims {
    /// Adds a slot in an epoch.
    pub fn insert(&mut self, slot: &Slot, epoch: Epoch) {
        match slot {
            Slot::Named(name) => {
                self.named.insert(name.clone(), epoch);
            }
            Slot::Ring { ring, partition } => {
                let by_epoch = match self.rings.get_mut(ring) {
                    Some(by_epoch) => by_epoch,
                    None => self.rings.entry(ring.clone()).or_default(),
                };
                by_epoch.entry(epoch).or_default().insert(*partition);
            }
        }
    }

    /// How many slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len() + self.rings.values().flat_map(BTreeMap::values).map(Bits::len).sum::<usize>()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The claims, named slots first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, Epoch)> + '_ {
        let named = self.named.iter().map(|(name, epoch)| (Slot::Named(name.clone()), *epoch));
        named.chain(self.rings.iter().flat_map(|(ring, by_epoch)| {
            by_epoch
                .iter()
                .flat_map(move |(epoch, bits)| bits.iter().map(move |partition| (Slot::Ring { ring: ring.clone(), partition }, *epoch)))
        }))
    }
}

/// A map by slot; the partitions of a ring lie side by side.
#[derive(Clone, Debug)]
pub struct SlotMap<V> {
    named: BTreeMap<SlotName, V>,
    rings: BTreeMap<SlotName, Vec<Option<V>>>,
    len: usize,
}

impl<V> Default for SlotMap<V> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), rings: BTreeMap::new(), len: 0 }
    }
}

impl<V> SlotMap<V> {
    /// How many slots.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// None at all?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a slot.
    #[must_use]
    pub fn get(&self, slot: &Slot) -> Option<&V> {
        match slot {
            Slot::Named(name) => self.named.get(name),
            Slot::Ring { ring, partition } => self.rings.get(ring)?.get(usize::from(*partition))?.as_ref(),
        }
    }

    /// The value of a slot, to change.
    pub fn get_mut(&mut self, slot: &Slot) -> Option<&mut V> {
        match slot {
            Slot::Named(name) => self.named.get_mut(name),
            Slot::Ring { ring, partition } => self.rings.get_mut(ring)?.get_mut(usize::from(*partition))?.as_mut(),
        }
    }

    /// Puts a value; returns the former one.
    pub fn insert(&mut self, slot: &Slot, value: V) -> Option<V> {
        let former = match slot {
            Slot::Named(name) => self.named.insert(name.clone(), value),
            Slot::Ring { ring, partition } => {
                if !self.rings.contains_key(ring) {
                    self.rings.insert(ring.clone(), Vec::new());
                }
                let cells = self.rings.get_mut(ring)?;
                let at = usize::from(*partition);
                if cells.len() <= at {
                    cells.resize_with(at + 1, || None);
                }
                cells[at].replace(value)
            }
        };
        self.len += usize::from(former.is_none());
        former
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: &Slot) -> Option<V> {
        let former = match slot {
            Slot::Named(name) => self.named.remove(name),
            Slot::Ring { ring, partition } => {
                let cells = self.rings.get_mut(ring)?;
                let former = cells.get_mut(usize::from(*partition))?.take();
                if cells.iter().all(Option::is_none) {
                    self.rings.remove(ring);
                }
                former
            }
        };
        self.len -= usize::from(former.is_some());
        former
    }

    /// All slots, named ones first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &V)> {
        let named = self.named.iter().map(|(name, value)| (Slot::Named(name.clone()), value));
        named.chain(self.rings.iter().flat_map(|(ring, cells)| {
            (0u16..)
                .zip(cells)
                .filter_map(move |(partition, cell)| cell.as_ref().map(|value| (Slot::Ring { ring: ring.clone(), partition }, value)))
        }))
    }

    /// The values alone, in the same order; does not make slots.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.named.values().chain(self.rings.values().flatten().flatten())
    }

    /// The values of one ring.
    pub fn ring_values(&self, ring: &SlotName) -> impl Iterator<Item = &V> {
        self.rings.get(ring).into_iter().flatten().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots() -> impl Strategy<Value = Vec<Slot>> {
        let slot = prop_oneof![
            "[ab]".prop_map(|name| Slot::Named(SlotName::new(&name).unwrap())),
            ("[rs]", 0u16..200).prop_map(|(ring, partition)| Slot::Ring { ring: SlotName::new(&ring).unwrap(), partition }),
        ];
        proptest::collection::vec(slot, 0..40)
    }

    proptest! {
        #[test]
        fn sets_and_maps_behave_like_btree(inserted in slots(), removed in slots()) {
            let mut map = SlotMap::default();
            let mut plain = BTreeMap::new();
            for (i, slot) in inserted.iter().enumerate() {
                prop_assert_eq!(map.insert(slot, i), plain.insert(slot.clone(), i));
            }
            for slot in &removed {
                prop_assert_eq!(map.remove(slot), plain.remove(slot));
            }
            prop_assert_eq!(map.len(), plain.len());
            let seen: Vec<_> = map.iter().map(|(slot, v)| (slot, *v)).collect();
            prop_assert_eq!(seen, plain.into_iter().collect::<Vec<_>>());
            let set: SlotSet = inserted.iter().collect();
            let plain: BTreeSet<_> = inserted.iter().cloned().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.iter().cloned().collect::<Vec<_>>());
            prop_assert!(removed.iter().all(|slot| set.contains(slot) == plain.contains(slot)));
        }

        #[test]
        fn bits_keep_partitions(mut partitions in proptest::collection::btree_set(0u16..PARTITIONS_MAX, 0..50)) {
            let mut bits: Bits = partitions.iter().copied().collect();
            prop_assert_eq!(bits.iter().collect::<BTreeSet<_>>(), partitions.clone());
            prop_assert_eq!(bits.len(), partitions.len());
            if let Some(last) = partitions.pop_last() {
                bits.remove(last);
            }
            prop_assert_eq!(Bits::from_words(bits.words().to_vec()), partitions.iter().copied().collect::<Bits>());
        }
    }
}
