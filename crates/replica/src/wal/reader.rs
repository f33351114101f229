//! From frames to committed transactions, going on where an earlier look ended.

use std::collections::BTreeMap;

use super::format::{FRAME_HEADER, FrameHeader, WAL_HEADER, checksum};
use super::{ReadAt, WalError, WalHeader, WalMark};
use crate::page::PageNo;

/// A committed transaction. Its pages stay in the log; [`WalReader::page`] reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalTransaction {
    /// Pages of the database after it.
    pub commit: PageNo,
    /// Number of the frame that holds each page's last image; pages that the transaction cut off again are left out. 16 bytes or so
    /// for each page it touched: the only thing here that grows with a transaction.
    pub pages: BTreeMap<PageNo, u32>,
    /// The place behind it.
    pub end: WalMark,
}

/// How a log relates to a place remembered from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// There is no log, or none with a whole header: nothing to read yet.
    Empty,
    /// The remembered place is in this log. Go on there.
    Here(WalMark),
    /// The log began anew since: other salts. Whoever held the log back knows that he missed nothing; whoever was away does not.
    Restarted(WalMark),
}

/// Reads one log. Made anew for each look; it keeps nothing but the place.
pub struct WalReader<R> {
    file: R,
    header: WalHeader,
    mark: WalMark,
    frame: Vec<u8>,
}

impl<R: ReadAt> WalReader<R> {
    /// Reads the header. `None` where there is no whole one.
    pub fn open(file: R) -> Result<Option<Self>, WalError> {
        let mut bytes = [0; WAL_HEADER];
        let count = file.read_at(0, &mut bytes).map_err(WalError::Read)?;
        let Some(header) = WalHeader::parse(&bytes[..count])? else { return Ok(None) };
        let frame = vec![0; FRAME_HEADER + header.page_size.bytes()];
        Ok(Some(Self { file, header, mark: header.start(), frame }))
    }

    /// The log's header.
    pub fn header(&self) -> &WalHeader {
        &self.header
    }

    /// All frames up to here are read.
    pub fn mark(&self) -> WalMark {
        self.mark
    }

    /// Goes to a place of before, if it is in this log and the frame in front of it is the one remembered.
    pub fn resume(&mut self, at: WalMark) -> Result<Resume, WalError> {
        if at.salt != self.header.salt {
            return Ok(Resume::Restarted(self.mark));
        }
        let known = if at.frames == 0 {
            at.sum == self.header.sum
        } else {
            let mut bytes = [0; FRAME_HEADER];
            let count = self.file.read_at(self.header.frame_offset(at.frames), &mut bytes).map_err(WalError::Read)?;
            let frame = FrameHeader::parse(&bytes);
            count == FRAME_HEADER && frame.salt == at.salt && frame.sum == at.sum
        };
        if !known {
            return Err(WalError::Frame { frame: at.frames });
        }
        self.mark = at;
        Ok(Resume::Here(at))
    }

    /// The next committed transaction, and the place moves behind it. `committed`: frames that SQLite regards as committed (wal-index);
    /// `None` where no process has the log open, then the first frame that does not fit ends it, as SQLite's recovery has it.
    pub fn next_transaction(&mut self, committed: Option<u32>) -> Result<Option<WalTransaction>, WalError> {
        let mut pages = BTreeMap::new();
        let mut at = self.mark;
        loop {
            let number = at.frames.saturating_add(1);
            if committed.is_some_and(|committed| number > committed) {
                // Frames of a transaction whose last one is not published yet.
                return Ok(None);
            }
            let Some((frame, end)) = self.frame(number, at)? else {
                return if committed.is_some() { Err(WalError::Frame { frame: number }) } else { Ok(None) };
            };
            at = end;
            pages.insert(frame.page, number);
            if frame.commit != 0 {
                self.mark = at;
                pages.retain(|page, _| *page <= frame.commit);
                return Ok(Some(WalTransaction { commit: frame.commit, pages, end: at }));
            }
        }
    }

    /// Frame `number`, checked against the sum before it. `None`: missing, torn, or of an older log.
    fn frame(&mut self, number: u32, before: WalMark) -> Result<Option<(FrameHeader, WalMark)>, WalError> {
        let count = self.file.read_at(self.header.frame_offset(number), &mut self.frame).map_err(WalError::Read)?;
        let Some((head, page)) = self.frame.split_first_chunk::<FRAME_HEADER>() else { return Ok(None) };
        let frame = FrameHeader::parse(head);
        if count < self.frame.len() || frame.salt != self.header.salt || frame.page == 0 {
            return Ok(None);
        }
        let sum = checksum(self.header.big_endian, checksum(self.header.big_endian, before.sum, &head[..8]), page);
        Ok((sum == frame.sum).then_some((frame, WalMark { salt: frame.salt, frames: number, sum })))
    }

    /// Reads the page in frame `number`, which a transaction named, into `into` (one page).
    pub fn page(&self, number: u32, into: &mut [u8]) -> Result<(), WalError> {
        let offset = self.header.frame_offset(number) + FRAME_HEADER as u64;
        let count = self.file.read_at(offset, into).map_err(WalError::Read)?;
        if count < into.len() { Err(WalError::Frame { frame: number }) } else { Ok(()) }
    }
}
