//! The first 100 bytes of a database file.

use crate::page::{PageNo, PageSize};

/// Length of the header.
pub const HEADER_LEN: usize = 100;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseHeader {
    /// Size of the pages.
    pub page_size: PageSize,
    /// Whether the file is in WAL mode. Rollback mode otherwise.
    pub wal: bool,
    /// Counter that rollback mode raises at each change; WAL mode seldom.
    pub change_counter: u32,
    /// Pages of the database, if the last writer kept the field.
    pub pages: Option<PageNo>,
    /// First trunk page of the list of free pages, 0 for none.
    pub first_free: PageNo,
    /// `SQLITE_VERSION_NUMBER` of the library that wrote the header last, such as 3040001; 0 when unknown.
    pub written_by: u32,
}

/// Why the bytes are not the header of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file has no bytes: SQLite makes the header with the first table.
    #[error("the database is empty")]
    Empty,
    /// There are fewer bytes than a header has.
    #[error("the file ends inside the header of a database")]
    Short,
    /// It begins otherwise than a database. An encrypted one does too.
    #[error("the file is not an SQLite database")]
    NotSqlite,
    /// The page size is none that SQLite knows.
    #[error("the header names {0} as size of a page")]
    PageSize(u16),
    /// Read and write versions that no SQLite of today writes.
    #[error("the header names {write} and {read} as versions of the format")]
    Version {
        /// Version needed for writing.
        write: u8,
        /// Version needed for reading.
        read: u8,
    },
}

impl DatabaseHeader {
    /// Reads the header at the beginning of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.is_empty() {
            return Err(HeaderError::Empty);
        }
        let magic = bytes.get(..16).ok_or(HeaderError::Short)?;
        if magic != MAGIC {
            return Err(HeaderError::NotSqlite);
        }
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(HeaderError::Short)?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let raw = u16::from_be_bytes([bytes[16], bytes[17]]);
        let page_size = PageSize::from_header(raw).ok_or(HeaderError::PageSize(raw))?;
        let (write, read) = (bytes[18], bytes[19]);
        let wal = match (write, read) {
            (1, 1) => false,
            (2, 2) => true,
            _ => return Err(HeaderError::Version { write, read }),
        };
        let (change_counter, valid_for) = (word(24), word(92));
        let pages = (change_counter == valid_for && word(28) != 0).then(|| word(28));
        Ok(Self { page_size, wal, change_counter, pages, first_free: word(32), written_by: word(96) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(size: u32, mode: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&format!("PRAGMA page_size={size}; PRAGMA journal_mode={mode}; CREATE TABLE t(a); PRAGMA user_version=1;"))
            .unwrap();
        db.close().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn reads_what_sqlite_writes() {
        for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            let header = DatabaseHeader::parse(&header(size, "wal")).unwrap();
            assert_eq!((header.page_size.get(), header.wal, header.pages), (size, true, Some(2)));
            assert_eq!(i64::from(header.written_by), i64::from(rusqlite::version_number()));
        }
        assert!(!DatabaseHeader::parse(&header(4096, "delete")).unwrap().wal);
    }

    #[test]
    fn names_what_is_wrong() {
        let good = header(4096, "wal");
        assert_eq!(DatabaseHeader::parse(&[]), Err(HeaderError::Empty));
        assert_eq!(DatabaseHeader::parse(&good[..10]), Err(HeaderError::Short));
        assert_eq!(DatabaseHeader::parse(&good[..99]), Err(HeaderError::Short));
        assert_eq!(DatabaseHeader::parse(&[0; 100]), Err(HeaderError::NotSqlite));
        let mut bad = good.clone();
        bad[16..18].copy_from_slice(&[3, 3]);
        assert_eq!(DatabaseHeader::parse(&bad), Err(HeaderError::PageSize(0x303)));
        let mut bad = good;
        bad[19] = 9;
        assert_eq!(DatabaseHeader::parse(&bad), Err(HeaderError::Version { write: 2, read: 9 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let _ = DatabaseHeader::parse(&bytes);
            if let Ok(header) = DatabaseHeader::parse(&with_magic) {
                prop_assert!(PageSize::new(header.page_size.get()).is_some());
            }
        }
    }
}
