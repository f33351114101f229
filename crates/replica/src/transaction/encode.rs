//! Records to bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::{CLOSE, CLOSES, Close, Compression, DbId, HEADER, Kind, LZ4, MAGIC, MAX_BODY, MAX_NODE, SEAL, START};
use crate::lineage::Start;
use crate::page::{PageNo, PageSize};

/// What cannot be encoded: a mistake of the caller, nothing that data can cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Pages must ascend, be numbered from 1, and leave the lock page out.
    #[error("page {page} cannot follow page {last} in a transaction")]
    Order {
        /// The page.
        page: PageNo,
        /// The one before it, 0 for none.
        last: PageNo,
    },
    /// A page of another size than the group's.
    #[error("page {page} has {bytes} bytes")]
    PageSize {
        /// The page.
        page: PageNo,
        /// Its length.
        bytes: usize,
    },
    /// More chunks than a number holds.
    #[error("the transaction has too many chunks")]
    TooLarge,
    /// A node's name is one DNS label.
    #[error("a node's name has {0} bytes")]
    Node(usize),
}

struct Head {
    kind: u8,
    flags: u8,
    page_size: u16,
    db: DbId,
    epoch: u64,
    tx: u64,
    index: u32,
    pages: u32,
}

/// Header, closing part, body and seal in one buffer.
fn assemble(head: &Head, raw: usize, close: Option<&Close>, body: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER + CLOSE + body.len() + SEAL);
    out.extend(MAGIC);
    out.extend([head.kind, head.flags]);
    out.extend(head.page_size.to_le_bytes());
    out.extend(head.db.0);
    out.extend(head.epoch.to_le_bytes());
    out.extend(head.tx.to_le_bytes());
    for word in [head.index, head.pages, length(raw), length(body.len())] {
        out.extend(word.to_le_bytes());
    }
    if let Some(close) = close {
        for word in [close.commit, close.chunks, close.pages] {
            out.extend(word.to_le_bytes());
        }
        for long in [close.before, close.after, close.time_ms, close.digest] {
            out.extend(long.to_le_bytes());
        }
    }
    out.extend_from_slice(body);
    let seal = xxh3_64(&out);
    out.extend(seal.to_le_bytes());
    out
}

/// Encodes a start.
pub fn encode_start(db: DbId, start: &Start) -> Result<Vec<u8>, EncodeError> {
    if start.node.is_empty() || start.node.len() > MAX_NODE {
        return Err(EncodeError::Node(start.node.len()));
    }
    let mut body = Vec::with_capacity(24 + MAX_NODE);
    for long in [start.base.epoch, start.base.tx, start.base.checksum] {
        body.extend(long.to_le_bytes());
    }
    body.extend(start.node.bytes());
    let head = Head { kind: START, flags: 0, page_size: 0, db, epoch: start.epoch, tx: start.base.tx, index: 0, pages: 0 };
    Ok(assemble(&head, body.len(), None, &body))
}

/// Writes a group chunk by chunk; holds one chunk's pages at a time.
pub struct GroupWriter {
    head: Head,
    size: PageSize,
    compression: Compression,
    body: Vec<u8>,
    last: PageNo,
    pages: u32,
    digest: u64,
}

impl GroupWriter {
    /// Begins a group.
    pub fn new(db: DbId, epoch: u64, tx: u64, kind: Kind, size: PageSize, compression: Compression) -> Self {
        let page_size = u16::try_from(size.get()).unwrap_or(1);
        let kind = match kind {
            Kind::Change => 1,
            Kind::Snapshot => 2,
        };
        let head = Head { kind, flags: 0, page_size, db, epoch, tx, index: 0, pages: 0 };
        Self { head, size, compression, body: Vec::new(), last: 0, pages: 0, digest: 0 }
    }

    /// Adds a page; gives the chunk that is full, if one is.
    pub fn push(&mut self, page: PageNo, data: &[u8]) -> Result<Option<Vec<u8>>, EncodeError> {
        if page <= self.last || page == self.size.lock_page() {
            return Err(EncodeError::Order { page, last: self.last });
        }
        if data.len() != self.size.bytes() {
            return Err(EncodeError::PageSize { page, bytes: data.len() });
        }
        let full = if self.body.len() + 4 + data.len() > MAX_BODY { Some(self.chunk(None)?) } else { None };
        self.body.extend(page.to_le_bytes());
        self.body.extend_from_slice(data);
        self.last = page;
        self.head.pages += 1;
        self.pages = self.pages.checked_add(1).ok_or(EncodeError::TooLarge)?;
        Ok(full)
    }

    /// Ends the group with its last chunk. `commit`, `before`, `after`, `time_ms` as in [`Close`].
    pub fn finish(mut self, commit: PageNo, before: u64, after: u64, time_ms: u64) -> Result<Vec<u8>, EncodeError> {
        let chunks = self.head.index.checked_add(1).ok_or(EncodeError::TooLarge)?;
        let close = Close { commit, chunks, pages: self.pages, before, after, time_ms, digest: self.digest };
        self.chunk(Some(&close))
    }

    fn chunk(&mut self, close: Option<&Close>) -> Result<Vec<u8>, EncodeError> {
        let packed = match self.compression {
            Compression::None => None,
            Compression::Lz4 => Some(lz4_flex::block::compress(&self.body)).filter(|packed| packed.len() < self.body.len()),
        };
        self.head.flags = if packed.is_some() { LZ4 } else { 0 } | if close.is_some() { CLOSES } else { 0 };
        let out = assemble(&self.head, self.body.len(), close, packed.as_deref().unwrap_or(&self.body));
        let seal = out.last_chunk::<SEAL>().map_or(0, |seal| u64::from_le_bytes(*seal));
        self.digest = super::group::digest(self.digest, seal);
        self.head.index = self.head.index.checked_add(1).ok_or(EncodeError::TooLarge)?;
        self.head.pages = 0;
        self.body.clear();
        Ok(out)
    }
}
