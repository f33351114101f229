//! Bytes of a stranger to records. Nothing is believed before its checksum, and nothing is allocated beyond [`MAX_CHUNK`].

use xxhash_rust::xxh3::xxh3_64;

use super::{CLOSE, CLOSES, Chunk, Close, DbId, HEADER, Kind, LZ4, MAGIC, MAX_BODY, MAX_CHUNK, MAX_NODE, Record, SEAL, START};
use crate::lineage::{Position, Start};
use crate::page::{PageNo, PageSize};

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than it must have, or more.
    #[error("a record of {0} bytes cannot be")]
    Length(usize),
    /// Another format, or a version of it that this build does not know.
    #[error("not a record of a version known here")]
    Magic,
    /// Something changed on the way or on disk.
    #[error("the checksum of the record is wrong")]
    Checksum,
    /// The checksum is right and the content impossible.
    #[error("impossible record: {0}")]
    Content(&'static str),
}

/// Takes numbers off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Content("ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn word(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Bytes of the record that `bytes` begin with, by its head, and the rest. Only [`decode`] says whether it is one.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let long = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|four| u32::from_le_bytes(*four) as usize);
    let (Some(&flags), Some(body)) = (bytes.get(5), long(HEADER - 4)) else { return Err(DecodeError::Length(bytes.len())) };
    let close = if flags & CLOSES == 0 { 0 } else { CLOSE };
    let length = HEADER + close + body.min(MAX_CHUNK) + SEAL;
    bytes.split_at_checked(length).ok_or(DecodeError::Length(bytes.len()))
}

/// Decodes records that stand one after the other, as in a message of the stream; ends with the first that is none.
pub fn decode_all(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], Record), DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let next = split(bytes).and_then(|(first, rest)| Ok((first, rest, decode(first)?)));
        Some(match next {
            Ok((first, rest, record)) => {
                bytes = rest;
                Ok((first, record))
            }
            Err(error) => {
                bytes = &[];
                Err(error)
            }
        })
    })
}

/// Decodes a record.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    if !(HEADER + SEAL..=MAX_CHUNK).contains(&bytes.len()) {
        return Err(DecodeError::Length(bytes.len()));
    }
    let (content, seal) = bytes.split_last_chunk::<SEAL>().ok_or(DecodeError::Length(bytes.len()))?;
    let mut cursor = Cursor(content);
    if cursor.take::<4>()? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let seal = u64::from_le_bytes(*seal);
    if xxh3_64(content) != seal {
        return Err(DecodeError::Checksum);
    }
    let [kind, flags] = cursor.take()?;
    let page_size = u16::from_le_bytes(cursor.take()?);
    let db = DbId(cursor.take()?);
    let (epoch, tx) = (cursor.long()?, cursor.long()?);
    let (index, count, raw, stored) = (cursor.word()?, cursor.word()?, cursor.word()? as usize, cursor.word()? as usize);
    if kind == START {
        return start(db, epoch, tx, cursor.0);
    }
    let kind = match kind {
        1 => Kind::Change,
        2 => Kind::Snapshot,
        _ => return Err(DecodeError::Content("unknown kind")),
    };
    if flags & !(LZ4 | CLOSES) != 0 {
        return Err(DecodeError::Content("unknown flags"));
    }
    let page_size = PageSize::from_header(page_size).ok_or(DecodeError::Content("impossible size of a page"))?;
    let close = if flags & CLOSES == 0 { None } else { Some(close(&mut cursor)?) };
    let body = cursor.0;
    let entry = 4 + page_size.bytes();
    if body.len() != stored || raw > MAX_BODY || (count as usize).checked_mul(entry) != Some(raw) {
        return Err(DecodeError::Content("lengths do not agree"));
    }
    let body = if flags & LZ4 == 0 {
        if raw != stored {
            return Err(DecodeError::Content("lengths do not agree"));
        }
        body.to_vec()
    } else {
        let mut pages = vec![0; raw];
        let count = lz4_flex::block::decompress_into(body, &mut pages).map_err(|_| DecodeError::Content("damaged compression"))?;
        if count != raw {
            return Err(DecodeError::Content("lengths do not agree"));
        }
        pages
    };
    if tx == 0 || epoch == 0 {
        return Err(DecodeError::Content("epochs and transactions count from 1"));
    }
    let chunk = Chunk { db, epoch, tx, kind, index, page_size, close, seal, body };
    check(&chunk)?;
    Ok(Record::Chunk(chunk))
}

fn close(cursor: &mut Cursor<'_>) -> Result<Close, DecodeError> {
    debug_assert_eq!(CLOSE, 3 * 4 + 4 * 8);
    Ok(Close {
        commit: cursor.word()?,
        chunks: cursor.word()?,
        pages: cursor.word()?,
        before: cursor.long()?,
        after: cursor.long()?,
        time_ms: cursor.long()?,
        digest: cursor.long()?,
    })
}

/// What each chunk must hold for itself.
fn check(chunk: &Chunk) -> Result<(), DecodeError> {
    let lock = chunk.page_size.lock_page();
    let mut last: PageNo = 0;
    for (page, _) in chunk.pages() {
        if page <= last || page == lock {
            return Err(DecodeError::Content("pages out of order"));
        }
        last = page;
    }
    let Some(close) = chunk.close else { return Ok(()) };
    if last > close.commit || close.commit == 0 {
        return Err(DecodeError::Content("a page beyond the end of the database"));
    }
    if close.chunks != chunk.index.saturating_add(1) {
        return Err(DecodeError::Content("the closing chunk is not the last"));
    }
    if chunk.kind == Kind::Snapshot && close.before != 0 {
        return Err(DecodeError::Content("a snapshot begins from nothing"));
    }
    Ok(())
}

fn start(db: DbId, epoch: u64, tx: u64, body: &[u8]) -> Result<Record, DecodeError> {
    let mut cursor = Cursor(body);
    let base = Position { epoch: cursor.long()?, tx: cursor.long()?, checksum: cursor.long()? };
    let node = cursor.0;
    if node.is_empty() || node.len() > MAX_NODE || !node.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return Err(DecodeError::Content("not a node's name"));
    }
    if epoch <= base.epoch || tx != base.tx {
        return Err(DecodeError::Content("an epoch that begins before its base"));
    }
    Ok(Record::Start { db, start: Start { epoch, base, node: String::from_utf8_lossy(node).into_owned() } })
}
