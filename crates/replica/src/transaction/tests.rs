use proptest::prelude::*;

use super::*;
use crate::lineage::Position;

const DB: DbId = DbId([7; 16]);

fn size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

/// Encodes a change of these pages, each filled from its number.
fn encode(page_size: u32, pages: &[PageNo], compression: Compression, noise: bool) -> Vec<Vec<u8>> {
    let mut writer = GroupWriter::new(DB, 3, 9, Kind::Change, size(page_size), compression);
    let mut out = Vec::new();
    for page in pages {
        out.extend(writer.push(*page, &image(page_size, *page, noise)).unwrap());
    }
    out.push(writer.finish(pages.last().copied().unwrap_or(1), 1, 2, 3).unwrap());
    out
}

fn image(page_size: u32, page: PageNo, noise: bool) -> Vec<u8> {
    let mut state = u64::from(page);
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if noise { state.to_be_bytes()[0] } else { page.to_le_bytes()[0] }
    };
    (0..page_size).map(step).collect()
}

fn chunks(encoded: &[Vec<u8>]) -> Vec<Chunk> {
    let chunk = |bytes: &Vec<u8>| match decode(bytes).unwrap() {
        Record::Chunk(chunk) => chunk,
        Record::Start { .. } => panic!("a start"),
    };
    encoded.iter().map(chunk).collect()
}

#[test]
fn a_large_transaction_becomes_chunks_that_fit_a_message() {
    for (page_size, compression, noise) in
        [(512, Compression::None, true), (4096, Compression::Lz4, true), (65536, Compression::Lz4, true), (4096, Compression::Lz4, false)]
    {
        let pages: Vec<_> = (1..=(3 << 20) / page_size).map(|page| page * 2).collect();
        let encoded = encode(page_size, &pages, compression, noise);
        assert!(encoded.len() >= 7, "{} chunks", encoded.len());
        assert!(encoded.iter().all(|chunk| chunk.len() <= MAX_CHUNK));
        let mut reader = GroupReader::default();
        let chunks = chunks(&encoded);
        let mut read = Vec::new();
        for (place, chunk) in chunks.iter().enumerate() {
            let progress = reader.accept(chunk).unwrap();
            assert_eq!(matches!(progress, Progress::Whole(_)), place + 1 == chunks.len());
            read.extend(chunk.pages().map(|(page, data)| (page, data.to_vec())));
        }
        assert_eq!(read.iter().map(|(page, _)| *page).collect::<Vec<_>>(), pages);
        assert!(read.iter().all(|(page, data)| *data == image(page_size, *page, noise)));
        let bytes: usize = encoded.iter().map(Vec::len).sum();
        assert_eq!(bytes < (3 << 20) / 20, !noise, "what repeats shrinks: {bytes} bytes");
    }
}

#[test]
fn a_group_counts_only_whole_and_in_order() {
    let encoded = encode(65536, &(1..=20).collect::<Vec<_>>(), Compression::None, true);
    let chunks = chunks(&encoded);
    assert_eq!(chunks.len(), 3);
    let feed = |order: &[usize]| {
        let mut reader = GroupReader::default();
        order.iter().map(|at| reader.accept(&chunks[*at])).collect::<Vec<_>>()
    };
    assert!(matches!(feed(&[0, 1, 2])[2], Ok(Progress::Whole(_))));
    assert!(matches!(feed(&[0, 2])[1], Err(GroupError::Sequence { index: 2, .. })));
    assert!(matches!(feed(&[1])[0], Err(GroupError::Sequence { index: 1, .. })));
    assert!(matches!(feed(&[0, 0])[1], Err(GroupError::Sequence { index: 0, .. })));
    // A chunk of another transaction of the same shape, well formed by itself.
    let other = {
        let pages: Vec<PageNo> = (1..=20).collect();
        let mut writer = GroupWriter::new(DB, 3, 9, Kind::Change, size(65536), Compression::None);
        let mut out: Vec<Vec<u8>> = Vec::new();
        for page in &pages {
            out.extend(writer.push(*page, &image(65536, *page + 1, true)).unwrap());
        }
        out
    };
    let Record::Chunk(foreign) = decode(&other[1]).unwrap() else { panic!("a start") };
    let mut reader = GroupReader::default();
    reader.accept(&chunks[0]).unwrap();
    reader.accept(&foreign).unwrap();
    assert_eq!(reader.accept(&chunks[2]), Err(GroupError::Digest { tx: 9 }));
    assert!(!reader.is_open());
}

#[test]
fn pages_out_of_order_and_the_lock_page_are_refused() {
    let mut writer = GroupWriter::new(DB, 1, 1, Kind::Change, size(512), Compression::Lz4);
    assert!(matches!(writer.push(0, &[0; 512]), Err(EncodeError::Order { .. })));
    writer.push(5, &[0; 512]).unwrap();
    assert_eq!(writer.push(5, &[0; 512]), Err(EncodeError::Order { page: 5, last: 5 }));
    assert_eq!(writer.push(6, &[0; 511]), Err(EncodeError::PageSize { page: 6, bytes: 511 }));
    let lock = size(512).lock_page();
    assert!(matches!(writer.push(lock, &[0; 512]), Err(EncodeError::Order { .. })));
    writer.push(lock + 1, &[0; 512]).unwrap();
}

#[test]
fn a_start_is_carried() {
    let start = Start { epoch: 8, base: Position { epoch: 5, tx: 100, checksum: 77 }, node: "n-3".to_owned() };
    let bytes = encode_start(DB, &start).unwrap();
    assert_eq!(decode(&bytes), Ok(Record::Start { db: DB, start: start.clone() }));
    let long = Start { node: "n".repeat(64), ..start };
    assert_eq!(encode_start(DB, &long), Err(EncodeError::Node(64)));
    let back = Start { epoch: 5, node: "n-3".to_owned(), base: Position { epoch: 5, tx: 100, checksum: 77 } };
    assert!(matches!(decode(&encode_start(DB, &back).unwrap()), Err(DecodeError::Content(_))));
}

/// Puts a right checksum under changed bytes, as a peer with a mistake would send them.
fn reseal(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - SEAL);
    let seal = xxhash_rust::xxh3::xxh3_64(bytes);
    bytes.extend(seal.to_le_bytes());
}

proptest! {
    #[test]
    fn what_was_written_is_read(pages in prop::collection::btree_set(1..5000_u32, 0..40), lz4: bool, noise: bool) {
        let pages: Vec<_> = pages.into_iter().collect();
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let chunks = chunks(&encode(1024, &pages, compression, noise));
        let read: Vec<_> = chunks.iter().flat_map(|chunk| chunk.pages().map(|(page, data)| (page, data.to_vec()))).collect();
        prop_assert_eq!(read, pages.iter().map(|page| (*page, image(1024, *page, noise))).collect::<Vec<_>>());
    }

    #[test]
    fn any_flipped_bit_is_found(at: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index) {
        let mut bytes = encode(512, &[1, 2, 9], Compression::Lz4, false).remove(0);
        let cut = cut.index(bytes.len());
        prop_assert!(decode(&bytes[..cut]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }

    /// Even with a right checksum nothing panics, and what is taken is in order and in bounds.
    #[test]
    fn any_content_is_answered(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), lz4: bool) {
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let mut bytes = encode(512, &[1, 2, 9], compression, false).remove(0);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(Record::Chunk(chunk)) = decode(&bytes) {
            let numbers: Vec<_> = chunk.pages().map(|(page, _)| page).collect();
            prop_assert!(numbers.is_sorted() && numbers.iter().all(|page| *page > 0));
            let _ = GroupReader::default().accept(&chunk);
        }
        let _ = decode(&bytes[4..]);
    }
}
