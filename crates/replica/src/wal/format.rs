//! Layout of header and frames, and their checksum.

use super::WalError;
use crate::page::{PageNo, PageSize};

/// Length of the header at the beginning of the file.
pub const WAL_HEADER: usize = 32;
/// Length of the header of a frame; a page follows.
pub const FRAME_HEADER: usize = 24;

const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// Two running sums, as SQLite keeps them.
pub type Sum = [u32; 2];

/// Reads 32 bits, most significant byte first; 0 beyond the end, which no caller reaches.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Continues `sum` over `bytes` (whole pairs of words; what is left over does not count).
pub fn checksum(big_endian: bool, mut sum: Sum, bytes: &[u8]) -> Sum {
    for pair in bytes.chunks_exact(8) {
        let (first, second) = ([pair[0], pair[1], pair[2], pair[3]], [pair[4], pair[5], pair[6], pair[7]]);
        let [first, second] = if big_endian { [first, second].map(u32::from_be_bytes) } else { [first, second].map(u32::from_le_bytes) };
        sum[0] = sum[0].wrapping_add(first).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(second).wrapping_add(sum[0]);
    }
    sum
}

/// The header of a log. A restart of the log writes another one, with other salts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalHeader {
    /// Byte order of the checksums: that of the machine which began the log.
    pub big_endian: bool,
    /// Size of the pages.
    pub page_size: PageSize,
    /// Restarts so far.
    pub restarts: u32,
    /// Salts: each frame repeats them.
    pub salt: [u32; 2],
    /// Checksum of the header, from which the first frame's goes on.
    pub sum: Sum,
}

impl WalHeader {
    /// Reads a header. `None`: the checksum is wrong or bytes are missing, as in the moment in which SQLite writes it; look again.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, WalError> {
        let Some(bytes) = bytes.get(..WAL_HEADER) else { return Ok(None) };
        let magic = word(bytes, 0);
        if magic & !1 != MAGIC {
            // All zero: the file was made and nothing written yet.
            return if bytes.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(WalError::Header("not a write-ahead log")) };
        }
        let big_endian = magic & 1 == 1;
        let sum = [word(bytes, 24), word(bytes, 28)];
        if checksum(big_endian, [0, 0], &bytes[..24]) != sum {
            return Ok(None);
        }
        if word(bytes, 4) != VERSION {
            return Err(WalError::Header("unknown version"));
        }
        let page_size = PageSize::new(word(bytes, 8)).ok_or(WalError::Header("impossible size of a page"))?;
        Ok(Some(Self { big_endian, page_size, restarts: word(bytes, 12), salt: [word(bytes, 16), word(bytes, 20)], sum }))
    }

    /// Where reading begins: no frame read yet.
    pub fn start(&self) -> WalMark {
        WalMark { salt: self.salt, frames: 0, sum: self.sum }
    }

    /// Offset of frame `number` (from 1) in the file.
    pub fn frame_offset(&self, number: u32) -> u64 {
        WAL_HEADER as u64 + u64::from(number.saturating_sub(1)) * (FRAME_HEADER + self.page_size.bytes()) as u64
    }
}

/// A place in a log: all frames up to it are read. Small and `Copy`; kept with the transaction it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WalMark {
    /// Salts of the log: others mean that the log was restarted since.
    pub salt: [u32; 2],
    /// Frames read.
    pub frames: u32,
    /// Running checksum after them.
    pub sum: Sum,
}

impl WalMark {
    /// Length of [`Self::to_bytes`].
    pub const LEN: usize = 20;

    /// For the transaction log.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (slot, value) in bytes.chunks_exact_mut(4).zip([self.salt[0], self.salt[1], self.frames, self.sum[0], self.sum[1]]) {
            slot.copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    /// Back from [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self { salt: [word(bytes, 0), word(bytes, 4)], frames: word(bytes, 8), sum: [word(bytes, 12), word(bytes, 16)] }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Page in the frame.
    pub page: PageNo,
    /// Size of the database in pages after the transaction, in its last frame; 0 in others.
    pub commit: PageNo,
    /// Salts of the log it belongs to.
    pub salt: [u32; 2],
    /// Running checksum up to the end of this frame.
    pub sum: Sum,
}

impl FrameHeader {
    /// Reads the header of a frame.
    pub fn parse(bytes: &[u8; FRAME_HEADER]) -> Self {
        Self {
            page: word(bytes, 0),
            commit: word(bytes, 4),
            salt: [word(bytes, 8), word(bytes, 12)],
            sum: [word(bytes, 16), word(bytes, 20)],
        }
    }
}
