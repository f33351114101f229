//! Encodings of the lease messages: compact, bounded, versioned.
//!
//! The first byte is the [version](VERSION), the second the kind of message; numbers are of variable length, partitions a bitmap or a list,
//! whichever is shorter. 4096 partitions in one epoch take some 600 bytes. Each message has exactly one encoding. Decoding never panics and
//! never allocates more than a small multiple of what it was given.
//!
//! Between versions: a reader refuses what it does not know by name ([`WireError::Version`]), which amounts to a lost message (N4). A new
//! version is sent only once all agents read it.

mod fields;

use cluster_lease::bytes::{BytesError, Reader, Writer};
use cluster_lease::message::Message;

/// The version written, and the only one read.
pub const VERSION: u8 = 1;

/// Longest encoded message in bytes; senders cut batches well below it
/// ([`CLAIMS_WEIGHT_MAX`](cluster_lease::message::CLAIMS_WEIGHT_MAX)).
pub const MESSAGE_MAX: usize = 160 * 1024;

/// Bytes that are no message of ours, or a message that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MESSAGE_MAX`].
    #[error("lease message has {0} bytes, may have {MESSAGE_MAX}")]
    TooLong(usize),
    /// From an agent of another version.
    #[error("lease message has version {0}, this agent reads version {VERSION}")]
    Version(u8),
    /// A kind that version 1 does not have.
    #[error("lease message has unknown kind {0}")]
    Kind(u8),
    /// Damaged.
    #[error("lease message is damaged")]
    Bytes(#[from] BytesError),
}

/// The bytes of a message.
///
/// # Errors
/// [`WireError::TooLong`]; a [`Holder`](cluster_lease::holder::Holder) or [`Voter`](cluster_lease::voter::Voter) makes no such message.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    let mut w = Writer::default();
    w.byte(VERSION);
    fields::put_message(&mut w, message);
    let bytes = w.into_bytes();
    if bytes.len() > MESSAGE_MAX { Err(WireError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// The message in these bytes.
///
/// # Errors
/// [`WireError`]. Whoever receives such bytes drops them and counts.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.len() > MESSAGE_MAX {
        return Err(WireError::TooLong(bytes.len()));
    }
    let mut r = Reader::new(bytes);
    let version = r.byte()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let kind = r.byte()?;
    let message = fields::take_message(&mut r, kind)?.ok_or(WireError::Kind(kind))?;
    r.end()?;
    Ok(message)
}
