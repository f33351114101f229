//! How the voter's memory lies on disk (V7) and under /run (V6).
//!
//! A record has a fixed length, so that the host can keep slot after slot in one mapped file, and ends with a checksum of all before it.
//! A process that dies while writing leaves a record whose checksum does not fit: torn. What it overwrote is lost, so the voter
//! treats the slot, which may be any, as held by unknown (V6).

use super::RELEASED_MAX;
use super::grant::{Grant, Released, SlotState};
use super::state::{Journal, RunHeader};
use crate::bytes::{BytesError, Reader, Writer};
use crate::message::SetWord;
use crate::time::Time;
use crate::types::{BootId, Epoch, Instance, PARTITIONS_MAX, Slot, VoterId};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one slot's record in the file under /run.
pub const RECORD_LEN: usize = 768;
/// Bytes of that file's head.
pub const HEADER_LEN: usize = 128;
/// Bytes of a journal at most.
pub const JOURNAL_MAX: usize = 4096;

const VERSION: u8 = 1;
const HEADER_SEED: u8 = b'H';
const RECORD_SEED: u8 = b'R';
const JOURNAL_SEED: u8 = b'J';

/// Bytes that are not a whole record, head or journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The checksum does not fit: the write was cut short, or the medium is bad.
    #[error("torn: checksum does not fit")]
    Torn,
    /// Written by another version of this program.
    #[error("record version {0} is unknown")]
    Version(u8),
    /// The checksum fits but a field makes no sense.
    #[error("record is whole but senseless")]
    Fields(#[from] BytesError),
}

/// Kind and version first, the checksum over all of it last.
fn seal(kind: u8, body: Writer, len: Option<usize>) -> Vec<u8> {
    let mut bytes = vec![kind, VERSION];
    bytes.extend(body.into_bytes());
    if let Some(len) = len {
        debug_assert!(bytes.len() + 8 <= len, "a record outgrew its place");
        bytes.resize(len - 8, 0);
    }
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn unseal(kind: u8, bytes: &[u8]) -> Result<Reader<'_>, RecordError> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(RecordError::Torn)?;
    if xxh3_64(body).to_le_bytes() != *sum || body.first() != Some(&kind) {
        return Err(RecordError::Torn);
    }
    match body.get(1) {
        Some(&VERSION) => Ok(Reader::new(&body[2..])),
        version => Err(RecordError::Version(version.copied().unwrap_or(0))),
    }
}

/// The record of a slot, [`RECORD_LEN`] bytes.
#[must_use]
pub fn encode_record(slot: &Slot, state: &SlotState) -> Vec<u8> {
    let mut w = Writer::default();
    match slot {
        Slot::Named(name) => {
            w.byte(0);
            w.text(name.as_str());
        }
        Slot::Ring { ring, partition } => {
            w.byte(1);
            w.text(ring.as_str());
            w.number(u64::from(*partition));
        }
    }
    w.number(state.floor.0);
    w.maybe(state.grant.as_ref(), |w, grant| {
        w.tenure(&grant.tenure);
        w.number(grant.expires.0);
    });
    w.count(state.released.len());
    for released in &state.released {
        w.number(released.epoch.0);
        w.node(&released.node);
        w.number(released.instance.0);
    }
    seal(RECORD_SEED, w, Some(RECORD_LEN))
}

/// Reads a record. A place that was never written (all zero) is `None`.
///
/// # Errors
/// [`RecordError`]; count it as torn in [`RunImage`](super::RunImage).
pub fn decode_record(bytes: &[u8]) -> Result<Option<(Slot, SlotState)>, RecordError> {
    if bytes.len() == RECORD_LEN && bytes.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let mut r = unseal(RECORD_SEED, bytes)?;
    let ring = r.flag()?;
    let name = r.slot_name()?;
    let slot = if ring {
        let partition = u16::try_from(r.number()?).ok().filter(|p| *p < PARTITIONS_MAX);
        Slot::Ring { ring: name, partition: partition.ok_or(BytesError::Bad("partition"))? }
    } else {
        Slot::Named(name)
    };
    let floor = r.epoch()?;
    let grant = r.maybe(|r| Ok(Grant { tenure: r.tenure()?, expires: Time(r.number()?) }))?;
    let count = r.count(19)?;
    if count > RELEASED_MAX {
        return Err(BytesError::Bad("release count").into());
    }
    let mut released = Vec::with_capacity(count);
    for _ in 0..count {
        released.push(Released { epoch: r.epoch()?, node: r.node()?, instance: Instance(r.number()?) });
    }
    Ok(Some((slot, SlotState { grant, floor, released })))
}

/// The head of the file under /run, [`HEADER_LEN`] bytes.
#[must_use]
pub fn encode_header(header: &RunHeader) -> Vec<u8> {
    let mut w = Writer::default();
    w.wide(header.boot.0);
    w.wide(header.voter.0);
    w.maybe(header.waiting_until, |w, t| w.number(t.0));
    w.maybe(header.unknown_until, |w, t| w.number(t.0));
    w.number(header.base.0);
    seal(HEADER_SEED, w, Some(HEADER_LEN))
}

/// Reads a head.
///
/// # Errors
/// [`RecordError`]; the file is worth nothing then, and the voter waits (V6).
pub fn decode_header(bytes: &[u8]) -> Result<RunHeader, RecordError> {
    let mut r = unseal(HEADER_SEED, bytes)?;
    Ok(RunHeader {
        boot: BootId(r.wide()?),
        voter: VoterId(r.wide()?),
        waiting_until: r.maybe(|r| r.number().map(Time))?,
        unknown_until: r.maybe(|r| r.number().map(Time))?,
        base: Epoch(r.number()?),
    })
}

/// The journal. The host writes it to a new file, fsyncs, renames it over the old one and fsyncs the folder.
#[must_use]
pub fn encode_journal(journal: &Journal) -> Vec<u8> {
    let mut w = Writer::default();
    w.wide(journal.voter.0);
    w.byte(u8::from(journal.may_have_acked));
    w.maybe(journal.set.as_ref(), Writer::set);
    w.maybe(journal.former.as_ref(), Writer::set);
    w.byte(u8::from(journal.committed));
    w.maybe(journal.prepared.as_ref().map(|word| &word.set), Writer::set);
    w.number(journal.mark.0);
    w.round_of(journal.prepared.as_ref());
    seal(JOURNAL_SEED, w, None)
}

/// Reads a journal.
///
/// # Errors
/// [`RecordError`]. A voter whose journal is gone or bad must not start under its old id: it gets a new one, and the set is changed.
pub fn decode_journal(bytes: &[u8]) -> Result<Journal, RecordError> {
    let mut r = unseal(JOURNAL_SEED, bytes)?;
    let mut journal = Journal {
        voter: VoterId(r.wide()?),
        may_have_acked: r.flag()?,
        set: r.maybe(Reader::set)?,
        former: r.maybe(Reader::set)?,
        committed: r.flag()?,
        prepared: r.maybe(Reader::set)?.map(SetWord::first),
        mark: r.epoch()?,
    };
    r.round_into(journal.prepared.as_mut())?;
    r.end()?;
    Ok(journal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::{Member, VOTERS_MAX, VoterSet};
    use crate::types::{NODE_NAME_MAX, Node, NodeName, SLOT_NAME_MAX, SetNo, SlotName, Tenure};
    use proptest::prelude::*;

    /// The longest of everything.
    fn largest() -> (Slot, SlotState) {
        let node =
            |i: usize| Node { boot: BootId(u128::MAX), name: NodeName::new(&format!("{i}{}", "n".repeat(NODE_NAME_MAX - 1))).unwrap() };
        let tenure = Tenure { epoch: Epoch(u64::MAX), node: node(0), instance: Instance(u64::MAX) };
        let released =
            (0..RELEASED_MAX).map(|i| Released { node: node(i), epoch: Epoch(u64::MAX), instance: Instance(u64::MAX) }).collect();
        let slot = Slot::Ring { ring: SlotName::new(&"r".repeat(SLOT_NAME_MAX)).unwrap(), partition: PARTITIONS_MAX - 1 };
        let grant = Some(Grant { tenure, expires: Time(u64::MAX) });
        (slot, SlotState { grant, floor: Epoch(u64::MAX), released })
    }

    fn largest_journal() -> Journal {
        let members = (0..VOTERS_MAX as u128)
            .map(|i| Member { id: VoterId(u128::MAX - i), node: NodeName::new(&format!("{i}{}", "n".repeat(NODE_NAME_MAX - 1))).unwrap() });
        let set = Some(VoterSet::new(SetNo(u64::MAX), members.collect()).unwrap());
        Journal {
            voter: VoterId(u128::MAX),
            may_have_acked: true,
            set: set.clone(),
            former: set.clone(),
            committed: true,
            prepared: set.map(|set| SetWord { round: u32::MAX, set }),
            mark: Epoch(u64::MAX),
        }
    }

    #[test]
    fn the_largest_fit_and_come_back() {
        let (slot, state) = largest();
        let bytes = encode_record(&slot, &state);
        assert_eq!(bytes.len(), RECORD_LEN);
        assert_eq!(decode_record(&bytes), Ok(Some((slot, state))));
        let header = RunHeader {
            boot: BootId(u128::MAX),
            voter: VoterId(1),
            waiting_until: Some(Time(u64::MAX)),
            unknown_until: Some(Time(u64::MAX)),
            base: Epoch(u64::MAX),
        };
        let bytes = encode_header(&header);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(decode_header(&bytes), Ok(header));
        let bytes = encode_journal(&largest_journal());
        assert!(bytes.len() <= JOURNAL_MAX, "{}", bytes.len());
        assert_eq!(decode_journal(&bytes), Ok(largest_journal()));
    }

    /// V6: a write cut off at any byte is seen, whatever was there before.
    #[test]
    fn v6_every_torn_write_is_seen() {
        let (slot, state) = largest();
        let old = encode_record(&slot, &state);
        let newer = SlotState { floor: Epoch(7), grant: None, ..state };
        let new = encode_record(&slot, &newer);
        for cut in 1..RECORD_LEN {
            let torn: Vec<u8> = new[..cut].iter().chain(&old[cut..]).copied().collect();
            if torn != old && torn != new {
                assert_eq!(decode_record(&torn), Err(RecordError::Torn), "cut at {cut}");
            }
            let first: Vec<u8> = new[..cut].iter().copied().chain(std::iter::repeat_n(0, RECORD_LEN - cut)).collect();
            assert_eq!(decode_record(&first), Err(RecordError::Torn), "first write cut at {cut}");
        }
        assert_eq!(decode_record(&[0; RECORD_LEN]), Ok(None));
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut bytes = vec![JOURNAL_SEED, 9, 1, 2, 3];
        let sum = xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        assert_eq!(decode_journal(&bytes), Err(RecordError::Version(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900), kind in 0u8..3) {
            // With a good checksum, so that the fields are reached.
            let mut sealed = vec![[HEADER_SEED, RECORD_SEED, JOURNAL_SEED][usize::from(kind)], VERSION];
            sealed.extend(&bytes);
            let sum = xxh3_64(&sealed);
            sealed.extend(sum.to_le_bytes());
            for bytes in [&bytes, &sealed] {
                let _ = decode_record(bytes);
                let _ = decode_header(bytes);
                let _ = decode_journal(bytes);
            }
        }
    }
}
