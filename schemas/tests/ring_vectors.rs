//! The function from key to partition against the vectors that docs/ring.md publishes. They come from another implementation.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use cluster_schemas::partition::partition_of;

/// The bytes that a cell of the table means: hex digits, or `78 × 128` for one byte many times.
fn bytes(cell: &str) -> Vec<u8> {
    let hex = |text: &str| -> Vec<u8> { (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect() };
    match cell.split_once(" × ") {
        Some((byte, times)) => hex(byte).repeat(times.parse().unwrap()),
        None => hex(cell),
    }
}

#[test]
fn published_vectors_hold() {
    let page = include_str!("../../docs/ring.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| key"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 13);
    for row in rows {
        let [text, key, hash, of_3, of_256, of_4096] = row.as_slice() else { panic!("{row:?}") };
        let key = bytes(key);
        if let Some(text) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            assert_eq!(text.as_bytes(), key, "the two columns of the key");
        }
        let hash = u64::from_str_radix(hash, 16).unwrap();
        for (partitions, column) in [(3, of_3), (256, of_256), (4096, of_4096)] {
            let partition: u16 = column.parse().unwrap();
            assert_eq!(hash % u64::from(partitions), u64::from(partition), "{text}: the columns of the table");
            assert_eq!(partition_of(&key, partitions), partition, "{text} of {partitions}");
        }
        assert_eq!(partition_of(&key, 1), 0);
    }
}
