//! Partitions of a Ring: the set type with its short text form, and the function from key to partition.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most partitions a Ring may have.
pub const PARTITIONS_MAX: u16 = 4096;

/// The partition that `key` belongs to in a ring of `partitions`: XXH3-64 of the raw key bytes with seed 0, modulo the count.
///
/// `partitions` must not be 0; a ring has at least one.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u16) -> u16 {
    let bounded = xxhash_rust::xxh3::xxh3_64(key) % u64::from(partitions.max(1));
    // The remainder is below `partitions`, which is a u16.
    u16::try_from(bounded).unwrap_or_default()
}

/// A sorted set of partition numbers. Its text form, also in JSON, is a list of numbers and ranges: `0-84,90,100-255`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionSet(BTreeSet<u16>);

/// Why a text is not a [`PartitionSet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionSetError {
    /// A piece that is neither a number nor a range, or beyond [`PARTITIONS_MAX`].
    #[error("{0:?} is not a partition number below {PARTITIONS_MAX} or a range of them")]
    Piece(String),
}

impl PartitionSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// All partitions of a ring with `partitions`.
    #[must_use]
    pub fn all(partitions: u16) -> Self {
        (0..partitions).collect()
    }

    /// Adds `partition`; false if it was there.
    pub fn insert(&mut self, partition: u16) -> bool {
        self.0.insert(partition)
    }

    /// Removes `partition`; false if it was not there.
    pub fn remove(&mut self, partition: u16) -> bool {
        self.0.remove(&partition)
    }

    /// Whether `partition` is in the set.
    #[must_use]
    pub fn contains(&self, partition: u16) -> bool {
        self.0.contains(&partition)
    }

    /// How many partitions the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partitions in rising order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// Partitions in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Partitions of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Partitions in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Whether no partition is in both sets.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }

    /// Whether every partition of this set is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<u16> for PartitionSet {
    fn from_iter<T: IntoIterator<Item = u16>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Extend<u16> for PartitionSet {
    fn extend<T: IntoIterator<Item = u16>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl fmt::Display for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.iter().copied().peekable();
        let mut first = true;
        while let Some(start) = numbers.next() {
            let mut end = start;
            while let Some(next) = numbers.next_if(|n| Some(*n) == end.checked_add(1)) {
                end = next;
            }
            let comma = if first { "" } else { "," };
            first = false;
            if start == end {
                write!(f, "{comma}{start}")?;
            } else {
                write!(f, "{comma}{start}-{end}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for PartitionSet {
    type Err = PartitionSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = BTreeSet::new();
        for piece in text.split(',').filter(|p| !p.is_empty()) {
            let bad = || PartitionSetError::Piece(piece.to_owned());
            let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n < PARTITIONS_MAX).ok_or_else(bad);
            let (start, end) = match piece.split_once('-') {
                Some((start, end)) => (number(start)?, number(end)?),
                None => (number(piece)?, number(piece)?),
            };
            if start > end {
                return Err(bad());
            }
            set.extend(start..=end);
        }
        Ok(Self(set))
    }
}

impl Serialize for PartitionSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for PartitionSet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PartitionSet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Partition numbers and ranges of them, rising, such as 0-84,90.",
            "pattern": "^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$",
        })
    }
}

impl<'de> Deserialize<'de> for PartitionSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form_has_ranges() {
        let set: PartitionSet = [0, 1, 2, 5, 7, 8].into_iter().collect();
        assert_eq!(set.to_string(), "0-2,5,7-8");
        assert_eq!("0-2,5,7-8".parse(), Ok(set));
        assert_eq!("".parse(), Ok(PartitionSet::new()));
    }

    #[test]
    fn bad_text_is_named() {
        for bad in ["x", "5-3", "4096", "1-", "-1", "1-2-3"] {
            assert_eq!(bad.parse::<PartitionSet>(), Err(PartitionSetError::Piece(bad.to_owned())), "{bad}");
        }
    }

    /// Published vectors: other languages check their own XXH3-64 against these (docs/ring.md).
    #[test]
    fn partition_of_key_has_published_vectors() {
        let hash = |k: &[u8]| xxhash_rust::xxh3::xxh3_64(k);
        // These values were made with the reference C implementation (by its Python binding), seed 0.
        assert_eq!(hash(b""), 0x2D06_8005_38D3_94C2);
        let vectors: Vec<(&str, u16)> =
            ["", "a", "user:42", "schlüssel"].into_iter().map(|k| (k, partition_of(k.as_bytes(), 256))).collect();
        assert_eq!(vectors, [("", 194), ("a", 31), ("user:42", 170), ("schlüssel", 222)]);
    }

    proptest! {
        #[test]
        fn text_form_comes_back(numbers in proptest::collection::btree_set(0u16..PARTITIONS_MAX, 0..200)) {
            let set = PartitionSet(numbers);
            prop_assert_eq!(set.to_string().parse::<PartitionSet>(), Ok(set));
        }

        #[test]
        fn every_key_has_a_partition(key in proptest::collection::vec(any::<u8>(), 0..64), n in 1u16..=PARTITIONS_MAX) {
            prop_assert!(partition_of(&key, n) < n);
        }
    }
}
