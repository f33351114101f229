//! Pages: their size, their numbers, and the checksum that a whole database's checksum is made of.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// First byte of the page that SQLite never writes: its locks live at this offset of the file.
pub const LOCK_BYTE: u64 = 0x4000_0000;

/// Parts of page 1 that SQLite itself sets whenever it writes that page: change counter (24 to 27), the counter for which the version is
/// valid and the version of the library (92 to 99). They tell who wrote the page, not what is in the database; a replica's own
/// SQLite fills them in for itself. So they are no part of a checksum and compare as equal.
const VOLATILE: [std::ops::Range<usize>; 2] = [24..28, 92..100];

/// A page number, from 1.
pub type PageNo = u32;

/// The size of a database's pages: a power of two from 512 to 65536 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageSize(u32);

impl PageSize {
    /// The size, when SQLite knows it.
    pub fn new(bytes: u32) -> Option<Self> {
        ((512..=65536).contains(&bytes) && bytes.is_power_of_two()).then_some(Self(bytes))
    }

    /// From the two bytes of a database header or wal-index, where 1 stands for 65536.
    pub fn from_header(raw: u16) -> Option<Self> {
        Self::new(if raw == 1 { 65536 } else { u32::from(raw) })
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        self.0 as usize
    }

    /// In bytes, as a 32 bit number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The page over SQLite's lock bytes: it holds no data and is never in a transaction. Exists in files beyond 1 GiB only.
    pub fn lock_page(self) -> PageNo {
        // 2^30 / 512 = 2^21 at most.
        u32::try_from(LOCK_BYTE / u64::from(self.0)).unwrap_or(PageNo::MAX - 1) + 1
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Checksum of one page, its number included. A database's checksum is the XOR of its pages' (0 for none), so a transaction changes it by the
/// pages it touches only. Page 1 counts without the bytes that SQLite keeps for itself.
pub fn page_sum(number: PageNo, data: &[u8]) -> u64 {
    if number != 1 {
        return xxh3_64_with_seed(data, u64::from(number));
    }
    let mut hash = Xxh3::with_seed(1);
    let mut from = 0;
    for range in VOLATILE {
        hash.update(data.get(from..range.start).unwrap_or_default());
        from = range.end;
    }
    hash.update(data.get(from..).unwrap_or_default());
    hash.digest()
}

/// Whether two images of a page hold the same, see [`page_sum`].
pub fn same_page(number: PageNo, left: &[u8], right: &[u8]) -> bool {
    if number != 1 || left.len() != right.len() {
        return left == right;
    }
    left.iter().zip(right).enumerate().all(|(at, (a, b))| a == b || VOLATILE.iter().any(|range| range.contains(&at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_of_sqlite_are_sizes() {
        let sizes: Vec<_> = (0..=70_000).filter_map(PageSize::new).map(PageSize::get).collect();
        assert_eq!(sizes, [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
        assert_eq!(PageSize::from_header(1).map(PageSize::get), Some(65536));
        assert_eq!(PageSize::from_header(0), None);
    }

    #[test]
    fn lock_page_is_the_one_over_the_lock_bytes() {
        assert_eq!(PageSize::new(4096).unwrap().lock_page(), 262_145);
        assert_eq!(PageSize::new(512).unwrap().lock_page(), 2_097_153);
        assert_eq!(PageSize::new(65536).unwrap().lock_page(), 16_385);
    }

    #[test]
    fn sum_depends_on_number_and_content_but_not_on_who_wrote_page_one() {
        let page = vec![7; 512];
        assert_ne!(page_sum(2, &page), page_sum(3, &page));
        for at in 0..512 {
            let mut other = page.clone();
            other[at] ^= 1;
            let volatile = (24..28).contains(&at) || (92..100).contains(&at);
            assert_eq!(page_sum(1, &page) == page_sum(1, &other), volatile, "byte {at} of page 1");
            assert_eq!(same_page(1, &page, &other), volatile, "byte {at} of page 1");
            assert_ne!(page_sum(2, &page), page_sum(2, &other), "byte {at} of page 2");
        }
    }
}
