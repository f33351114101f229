//! The write-ahead log of SQLite, read from outside: what is committed, page by page.
//!
//! A frame counts only when its salts are the header's and its checksum continues that of the frame before it; a transaction only with its
//! last frame. Beside a running application the shared wal-index says in addition how far SQLite itself regards the log as
//! committed ([`index`]): a process that dies between its last frame and that header leaves frames which look committed and are not.

pub mod format;
pub mod index;
mod reader;

pub use format::{WalHeader, WalMark};
pub use index::WalIndex;
pub use reader::{Resume, WalReader, WalTransaction};

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file that is read at places. Memory in tests and in the simulation.
pub trait ReadAt {
    /// Fills `into` from `offset` on; fewer bytes only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match FileExt::read_at(self, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, into)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, into)
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file could not be read.
    #[error("the write-ahead log could not be read")]
    Read(#[source] io::Error),
    /// The header is whole and not one of a write-ahead log that we know.
    #[error("the header of the write-ahead log is damaged: {0}")]
    Header(&'static str),
    /// SQLite regards the frame as committed, and its checksum is wrong: a bit flipped on disk, or somebody else wrote there.
    #[error("frame {frame} of the write-ahead log is damaged")]
    Frame {
        /// Number of the frame, from 1.
        frame: u32,
    },
}

#[cfg(test)]
mod tests;
