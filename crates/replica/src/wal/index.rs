//! The header of the wal-index (the `-shm` file), which SQLite's processes share: how far the log is committed.

use super::format::checksum;
use super::{ReadAt, WalError};
use crate::page::{PageNo, PageSize};

/// Length of one copy of the header.
const COPY: usize = 48;
/// Both copies, and the checkpoint information behind them.
const LEN: usize = 2 * COPY + 40;
/// `iVersion` of every SQLite so far.
const VERSION: u32 = 3_007_000;

/// What the wal-index said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalIndex {
    /// Salts of the log it is about.
    pub salt: [u32; 2],
    /// Frames committed.
    pub frames: u32,
    /// Pages of the database after them.
    pub pages: PageNo,
    /// Running checksum after them.
    pub sum: [u32; 2],
    /// Size of the pages; `None` while nothing was ever written to the log.
    pub page_size: Option<PageSize>,
    /// Frames that a checkpoint has copied into the database file. A hint: it may have moved on.
    pub backfilled: u32,
}

impl WalIndex {
    /// Reads it. `None`: a process is writing it this moment, or none made it yet; look again.
    pub fn read(file: &impl ReadAt) -> Result<Option<Self>, WalError> {
        let mut bytes = [0; LEN];
        let count = file.read_at(0, &mut bytes).map_err(WalError::Read)?;
        Ok((count == LEN).then(|| Self::parse(&bytes)).flatten())
    }

    fn parse(bytes: &[u8; LEN]) -> Option<Self> {
        // Shared memory of this machine: its own byte order.
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (first, second) = (&bytes[..COPY], &bytes[COPY..2 * COPY]);
        let initialized = bytes[12] != 0;
        let sum = checksum(cfg!(target_endian = "big"), [0, 0], &first[..40]);
        if first != second || !initialized || word(0) != VERSION || sum != [word(40), word(44)] {
            return None;
        }
        let page_size = PageSize::from_header(u16::from_ne_bytes([bytes[14], bytes[15]]));
        // The salts are copied from the log's header as bytes.
        let big = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            salt: [big(32), big(36)],
            frames: word(16),
            pages: word(20),
            sum: [word(24), word(28)],
            page_size,
            backfilled: word(96),
        })
    }
}
