//! Encodings of the lease messages: a version, a kind, then compact fields. Bounded, and decoding never panics: what comes off the network
//! is not trusted.
//!
//! Numbers take seven bits a byte, names their length first, partitions of one ring and epoch a list of steps or a bitmap, whichever is
//! shorter: 4,096 partitions of one epoch take about 520 bytes.

use std::collections::BTreeMap;

use cluster_lease::bytes::{BytesError, Reader, Writer};
use cluster_lease::message::{Answer, Ask, Free, Handover, Message, SetAnswer, SetAsk, SetStep, Verdict, Watch, Why};
use cluster_lease::slots::{Bits, Claims, SlotSet};
use cluster_lease::time::Span;
use cluster_lease::types::{ClusterId, Instance, PARTITIONS_MAX, SendNo, SetNo, VoterId};

/// Version of the encoding. One that is not known is refused whole.
pub const VERSION: u8 = 1;
/// Longest encoded message, in bytes.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// Why bytes are no message, or a message cannot be bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MESSAGE_MAX`].
    #[error("a lease message of {0} bytes, at most {MESSAGE_MAX} are allowed")]
    Size(usize),
    /// Written by another version.
    #[error("a lease message of version {0}, this one reads version {VERSION}")]
    Version(u8),
    /// A kind that does not exist.
    #[error("a lease message of unknown kind {0}")]
    Kind(u8),
    /// The fields are not right.
    #[error("a damaged lease message")]
    Fields(#[from] BytesError),
}

/// The bytes of a message.
///
/// # Errors
/// [`WireError::Size`] where it is too long; callers split batches before.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    let mut w = Writer::default();
    w.byte(VERSION);
    match message {
        Message::Acquire(ask) => put_ask(&mut w, 0, ask),
        Message::Renew(ask) => put_ask(&mut w, 1, ask),
        Message::Release(ask) => put_ask(&mut w, 2, ask),
        Message::Answer(answer) => put_answer(&mut w, answer),
        Message::Watch(watch) => {
            w.byte(4);
            w.wide(watch.cluster.0);
            w.wide(watch.voter.0);
            w.text(watch.node.as_str());
            w.number(u64::from(watch.part));
            put_slots(&mut w, &watch.slots);
        }
        Message::Free(free) => {
            w.byte(5);
            w.wide(free.cluster.0);
            w.text(free.from.as_str());
            w.wide(free.voter.0);
            put_claims(&mut w, &free.floors);
        }
        Message::Handover(handover) => {
            w.byte(6);
            w.wide(handover.cluster.0);
            w.text(handover.from.as_str());
            put_claims(&mut w, &handover.released);
        }
        Message::SetAsk(ask) => put_set_ask(&mut w, ask),
        Message::SetAnswer(answer) => put_set_answer(&mut w, answer),
    }
    let bytes = w.into_bytes();
    if bytes.len() > MESSAGE_MAX { Err(WireError::Size(bytes.len())) } else { Ok(bytes) }
}

/// The message in these bytes.
///
/// # Errors
/// [`WireError`] for anything that [`encode`] did not write.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.len() > MESSAGE_MAX {
        return Err(WireError::Size(bytes.len()));
    }
    let mut r = Reader::new(bytes);
    let version = r.byte()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let message = match r.byte()? {
        0 => Message::Acquire(ask(&mut r)?),
        1 => Message::Renew(ask(&mut r)?),
        2 => Message::Release(ask(&mut r)?),
        3 => Message::Answer(answer(&mut r)?),
        4 => Message::Watch(Watch {
            cluster: ClusterId(r.wide()?),
            voter: VoterId(r.wide()?),
            node: r.node_name()?,
            part: u16::try_from(r.number()?).map_err(|_| BytesError::Bad("part"))?,
            slots: slots(&mut r)?,
        }),
        5 => Message::Free(Free {
            cluster: ClusterId(r.wide()?),
            from: r.node_name()?,
            voter: VoterId(r.wide()?),
            floors: claims(&mut r)?,
        }),
        6 => Message::Handover(Handover { cluster: ClusterId(r.wide()?), from: r.node_name()?, released: claims(&mut r)? }),
        7 => Message::SetAsk(set_ask(&mut r)?),
        8 => Message::SetAnswer(set_answer(&mut r)?),
        kind => return Err(WireError::Kind(kind)),
    };
    r.end()?;
    Ok(message)
}

fn put_ask(w: &mut Writer, kind: u8, ask: &Ask) {
    w.byte(kind);
    w.wide(ask.cluster.0);
    w.number(ask.set.0);
    w.wide(ask.voter.0);
    w.node(&ask.node);
    w.number(ask.instance.0);
    w.number(ask.t.0);
    put_send_no(w, ask.send_no);
    put_claims(w, &ask.claims);
}

fn ask(r: &mut Reader<'_>) -> Result<Ask, BytesError> {
    Ok(Ask {
        cluster: ClusterId(r.wide()?),
        set: SetNo(r.number()?),
        voter: VoterId(r.wide()?),
        node: r.node()?,
        instance: Instance(r.number()?),
        t: Span(r.number()?),
        send_no: send_no(r)?,
        claims: claims(r)?,
    })
}

fn put_send_no(w: &mut Writer, send_no: SendNo) {
    w.number(send_no.instance.0);
    w.number(send_no.count);
}

fn send_no(r: &mut Reader<'_>) -> Result<SendNo, BytesError> {
    Ok(SendNo { instance: Instance(r.number()?), count: r.number()? })
}

fn put_answer(w: &mut Writer, answer: &Answer) {
    w.byte(3);
    w.wide(answer.cluster.0);
    w.text(answer.from.as_str());
    w.wide(answer.voter.0);
    w.number(answer.set.0);
    put_send_no(w, answer.send_no);
    match &answer.verdict {
        Verdict::Slots { accepted, refused } => {
            w.byte(0);
            put_slots(w, accepted);
            w.count(refused.len());
            for (why, slots) in refused {
                put_why(w, why);
                put_slots(w, slots);
            }
        }
        Verdict::Refused(why) => {
            w.byte(1);
            put_why(w, why);
        }
    }
}

fn answer(r: &mut Reader<'_>) -> Result<Answer, BytesError> {
    Ok(Answer {
        cluster: ClusterId(r.wide()?),
        from: r.node_name()?,
        voter: VoterId(r.wide()?),
        set: SetNo(r.number()?),
        send_no: send_no(r)?,
        verdict: if r.flag()? {
            Verdict::Refused(why(r)?)
        } else {
            let accepted = slots(r)?;
            let count = r.count(3)?;
            let refused = (0..count).map(|_| Ok((why(r)?, slots(r)?))).collect::<Result<_, BytesError>>()?;
            Verdict::Slots { accepted, refused }
        },
    })
}

fn put_why(w: &mut Writer, why: &Why) {
    match why {
        Why::Held { by, epoch } => {
            w.byte(0);
            w.node(by);
            w.number(epoch.0);
        }
        Why::Epoch(floor) => {
            w.byte(1);
            w.number(floor.0);
        }
        Why::Set(set) => {
            w.byte(2);
            w.set(set);
        }
        Why::Waiting => w.byte(3),
        Why::Released => w.byte(4),
        Why::Length => w.byte(5),
        Why::Cluster => w.byte(6),
        Why::Voter => w.byte(7),
        Why::EpochRange => w.byte(8),
        Why::Full => w.byte(9),
    }
}

fn why(r: &mut Reader<'_>) -> Result<Why, BytesError> {
    Ok(match r.byte()? {
        0 => Why::Held { by: r.node()?, epoch: r.epoch()? },
        1 => Why::Epoch(r.epoch()?),
        2 => Why::Set(r.set()?),
        3 => Why::Waiting,
        4 => Why::Released,
        5 => Why::Length,
        6 => Why::Cluster,
        7 => Why::Voter,
        8 => Why::EpochRange,
        9 => Why::Full,
        _ => return Err(BytesError::Bad("reason")),
    })
}

fn put_claims(w: &mut Writer, claims: &Claims) {
    w.count(claims.named.len());
    for (name, epoch) in &claims.named {
        w.text(name.as_str());
        w.number(epoch.0);
    }
    w.count(claims.rings.len());
    for (ring, by_epoch) in &claims.rings {
        w.text(ring.as_str());
        w.count(by_epoch.len());
        for (epoch, bits) in by_epoch {
            w.number(epoch.0);
            put_bits(w, bits);
        }
    }
}

fn claims(r: &mut Reader<'_>) -> Result<Claims, BytesError> {
    let mut claims = Claims::default();
    for _ in 0..r.count(3)? {
        let name = r.slot_name()?;
        claims.named.insert(name, r.epoch()?);
    }
    for _ in 0..r.count(3)? {
        let ring = r.slot_name()?;
        let mut by_epoch = BTreeMap::new();
        for _ in 0..r.count(3)? {
            let epoch = r.epoch()?;
            by_epoch.insert(epoch, bits(r)?);
        }
        claims.rings.insert(ring, by_epoch);
    }
    Ok(claims)
}

fn put_slots(w: &mut Writer, slots: &SlotSet) {
    w.count(slots.named.len());
    for name in &slots.named {
        w.text(name.as_str());
    }
    w.count(slots.rings.len());
    for (ring, bits) in &slots.rings {
        w.text(ring.as_str());
        put_bits(w, bits);
    }
}

fn slots(r: &mut Reader<'_>) -> Result<SlotSet, BytesError> {
    let mut slots = SlotSet::default();
    for _ in 0..r.count(2)? {
        slots.named.insert(r.slot_name()?);
    }
    for _ in 0..r.count(3)? {
        let ring = r.slot_name()?;
        slots.rings.insert(ring, bits(r)?);
    }
    Ok(slots)
}

/// Words of a bitmap of all partitions.
const WORDS_MAX: usize = PARTITIONS_MAX as usize / 64;

fn put_bits(w: &mut Writer, bits: &Bits) {
    let words = bits.words();
    if bits.len() * 2 < words.len() * 8 {
        w.byte(0);
        w.count(bits.len());
        let mut last = 0;
        for partition in bits.iter() {
            w.number(u64::from(partition - last));
            last = partition;
        }
    } else {
        w.byte(1);
        w.count(words.len());
        for word in words {
            w.raw(&word.to_le_bytes());
        }
    }
}

fn bits(r: &mut Reader<'_>) -> Result<Bits, BytesError> {
    if r.flag()? {
        let count = r.count(8)?;
        if count > WORDS_MAX {
            return Err(BytesError::Bad("bitmap"));
        }
        let words = (0..count).map(|_| r.fixed()).collect::<Result<Vec<u64>, BytesError>>()?;
        return Ok(Bits::from_words(words));
    }
    let mut bits = Bits::default();
    let mut last = 0_u64;
    for _ in 0..r.count(1)? {
        last = last.saturating_add(r.number()?);
        match u16::try_from(last) {
            Ok(partition) if partition < PARTITIONS_MAX => bits.insert(partition),
            _ => return Err(BytesError::Bad("partition")),
        }
    }
    Ok(bits)
}

fn put_set_ask(w: &mut Writer, ask: &SetAsk) {
    w.byte(7);
    w.wide(ask.cluster.0);
    w.wide(ask.voter.0);
    w.text(ask.reply_to.as_str());
    match &ask.step {
        SetStep::Report => w.byte(0),
        SetStep::Prepare(set) => {
            w.byte(1);
            w.set(set);
        }
        SetStep::Install(set) => {
            w.byte(2);
            w.set(set);
        }
        SetStep::Floor(set, epoch) => {
            w.byte(3);
            w.number(set.0);
            w.number(epoch.0);
        }
        SetStep::Commit(set) => {
            w.byte(4);
            w.number(set.0);
        }
        SetStep::Force(set) => {
            w.byte(5);
            w.set(set);
        }
    }
}

fn set_ask(r: &mut Reader<'_>) -> Result<SetAsk, BytesError> {
    Ok(SetAsk {
        cluster: ClusterId(r.wide()?),
        voter: VoterId(r.wide()?),
        reply_to: r.node_name()?,
        step: match r.byte()? {
            0 => SetStep::Report,
            1 => SetStep::Prepare(r.set()?),
            2 => SetStep::Install(r.set()?),
            3 => SetStep::Floor(SetNo(r.number()?), r.epoch()?),
            4 => SetStep::Commit(SetNo(r.number()?)),
            5 => SetStep::Force(r.set()?),
            _ => return Err(BytesError::Bad("step")),
        },
    })
}

fn put_set_answer(w: &mut Writer, answer: &SetAnswer) {
    w.byte(8);
    w.wide(answer.cluster.0);
    w.text(answer.from.as_str());
    w.wide(answer.voter.0);
    w.maybe(answer.installed.as_ref(), Writer::set);
    w.maybe(answer.former.as_ref(), Writer::set);
    w.byte(u8::from(answer.committed));
    w.maybe(answer.prepared.as_ref(), Writer::set);
    w.number(answer.high.0);
    w.number(answer.base.0);
}

fn set_answer(r: &mut Reader<'_>) -> Result<SetAnswer, BytesError> {
    Ok(SetAnswer {
        cluster: ClusterId(r.wide()?),
        from: r.node_name()?,
        voter: VoterId(r.wide()?),
        installed: r.maybe(Reader::set)?,
        former: r.maybe(Reader::set)?,
        committed: r.flag()?,
        prepared: r.maybe(Reader::set)?,
        high: r.epoch()?,
        base: r.epoch()?,
    })
}
