//! Field by field. Lists are written in rising order and read in no other, so that each message has one encoding.

use cluster_lease::bytes::{BytesError, Reader, Writer};
use cluster_lease::message::{Answer, Ask, Free, Handover, Message, SetAnswer, SetAsk, SetStep, SetWord, Verdict, Watch, Why};
use cluster_lease::slots::{Bits, Claims, SlotSet};
use cluster_lease::time::Span;
use cluster_lease::types::{ClusterId, Instance, PARTITIONS_MAX, SendNo, SetNo, VoterId};

type Read<T> = Result<T, BytesError>;

const ORDER: BytesError = BytesError::Bad("order");

pub(super) fn put_message(w: &mut Writer, message: &Message) {
    match message {
        Message::Acquire(ask) => put_ask(w, 1, ask),
        Message::Renew(ask) => put_ask(w, 2, ask),
        Message::Release(ask) => put_ask(w, 3, ask),
        Message::Answer(answer) => put_answer(w, answer),
        Message::Watch(watch) => {
            head(w, 5, watch.cluster);
            w.wide(watch.voter.0);
            w.text(watch.node.as_str());
            w.number(u64::from(watch.part));
            put_slots(w, &watch.slots);
        }
        Message::Free(free) => {
            head(w, 6, free.cluster);
            w.text(free.from.as_str());
            w.wide(free.voter.0);
            put_claims(w, &free.floors);
            w.byte(u8::from(free.ran_out.is_some()));
            if let Some(node) = &free.ran_out {
                w.text(node.as_str());
            }
        }
        Message::Handover(handover) => {
            head(w, 7, handover.cluster);
            w.text(handover.from.as_str());
            put_claims(w, &handover.released);
        }
        Message::SetAsk(ask) => put_set_ask(w, ask),
        Message::SetAnswer(answer) => put_set_answer(w, answer),
    }
}

/// `None`: no such kind.
pub(super) fn take_message(r: &mut Reader<'_>, kind: u8) -> Read<Option<Message>> {
    if !(1..=9).contains(&kind) {
        return Ok(None);
    }
    let cluster = ClusterId(r.wide()?);
    Ok(Some(match kind {
        1 => Message::Acquire(take_ask(r, cluster)?),
        2 => Message::Renew(take_ask(r, cluster)?),
        3 => Message::Release(take_ask(r, cluster)?),
        4 => Message::Answer(take_answer(r, cluster)?),
        5 => Message::Watch(Watch {
            cluster,
            voter: VoterId(r.wide()?),
            node: r.node_name()?,
            part: u16::try_from(r.number()?).map_err(|_| BytesError::Bad("part"))?,
            slots: take_slots(r)?,
        }),
        6 => {
            let (from, voter) = (r.node_name()?, VoterId(r.wide()?));
            let floors = take_claims(r)?;
            let ran_out = match r.byte()? {
                0 => None,
                1 => Some(r.node_name()?),
                _ => return Err(BytesError::Bad("ran out")),
            };
            Message::Free(Free { cluster, from, voter, floors, ran_out })
        }
        7 => Message::Handover(Handover { cluster, from: r.node_name()?, released: take_claims(r)? }),
        8 => Message::SetAsk(take_set_ask(r, cluster)?),
        _ => Message::SetAnswer(take_set_answer(r, cluster)?),
    }))
}

fn head(w: &mut Writer, kind: u8, cluster: ClusterId) {
    w.byte(kind);
    w.wide(cluster.0);
}

fn put_ask(w: &mut Writer, kind: u8, ask: &Ask) {
    head(w, kind, ask.cluster);
    w.number(ask.set.0);
    w.wide(ask.voter.0);
    w.node(&ask.node);
    w.number(ask.instance.0);
    w.number(ask.t.0);
    put_send_no(w, ask.send_no);
    put_claims(w, &ask.claims);
}

fn take_ask(r: &mut Reader<'_>, cluster: ClusterId) -> Read<Ask> {
    Ok(Ask {
        cluster,
        set: SetNo(r.number()?),
        voter: VoterId(r.wide()?),
        node: r.node()?,
        instance: Instance(r.number()?),
        t: Span(r.number()?),
        send_no: take_send_no(r)?,
        claims: take_claims(r)?,
    })
}

fn put_send_no(w: &mut Writer, send_no: SendNo) {
    w.number(send_no.instance.0);
    w.number(send_no.count);
}

fn take_send_no(r: &mut Reader<'_>) -> Read<SendNo> {
    Ok(SendNo { instance: Instance(r.number()?), count: r.number()? })
}

fn put_answer(w: &mut Writer, answer: &Answer) {
    head(w, 4, answer.cluster);
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

fn take_answer(r: &mut Reader<'_>, cluster: ClusterId) -> Read<Answer> {
    let (from, voter, set, send_no) = (r.node_name()?, VoterId(r.wide()?), SetNo(r.number()?), take_send_no(r)?);
    let verdict = if r.flag()? {
        Verdict::Refused(take_why(r)?)
    } else {
        let accepted = take_slots(r)?;
        let refused = (0..r.count(3)?).map(|_| Ok((take_why(r)?, take_slots(r)?))).collect::<Read<Vec<_>>>()?;
        if !refused.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(ORDER);
        }
        Verdict::Slots { accepted, refused }
    };
    Ok(Answer { cluster, from, voter, set, send_no, verdict })
}

fn put_why(w: &mut Writer, why: &Why) {
    match why {
        Why::Held { by, epoch } => {
            w.byte(0);
            w.node(by);
            w.number(epoch.0);
        }
        Why::Epoch(epoch) => {
            w.byte(1);
            w.number(epoch.0);
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

fn take_why(r: &mut Reader<'_>) -> Read<Why> {
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

fn put_set_ask(w: &mut Writer, ask: &SetAsk) {
    head(w, 8, ask.cluster);
    w.wide(ask.voter.0);
    w.text(ask.reply_to.as_str());
    match &ask.step {
        SetStep::Report => w.byte(0),
        SetStep::Prepare(word) => {
            w.byte(1);
            w.set(&word.set);
            w.round_of(Some(word));
        }
        SetStep::Install(set) => {
            w.byte(2);
            w.set(set);
        }
        SetStep::Floor(number, floor) => {
            w.byte(3);
            w.number(number.0);
            w.number(floor.0);
        }
        SetStep::Commit(number) => {
            w.byte(4);
            w.number(number.0);
        }
        SetStep::Force(set) => {
            w.byte(5);
            w.set(set);
        }
    }
}

fn take_set_ask(r: &mut Reader<'_>, cluster: ClusterId) -> Read<SetAsk> {
    let (voter, reply_to) = (VoterId(r.wide()?), r.node_name()?);
    let step = match r.byte()? {
        0 => SetStep::Report,
        1 => {
            let mut word = SetWord::first(r.set()?);
            r.round_into(Some(&mut word))?;
            SetStep::Prepare(word)
        }
        2 => SetStep::Install(r.set()?),
        3 => SetStep::Floor(SetNo(r.number()?), r.epoch()?),
        4 => SetStep::Commit(SetNo(r.number()?)),
        5 => SetStep::Force(r.set()?),
        _ => return Err(BytesError::Bad("step")),
    };
    Ok(SetAsk { cluster, voter, reply_to, step })
}

fn put_set_answer(w: &mut Writer, answer: &SetAnswer) {
    head(w, 9, answer.cluster);
    w.text(answer.from.as_str());
    w.wide(answer.voter.0);
    w.maybe(answer.installed.as_ref(), Writer::set);
    w.maybe(answer.former.as_ref(), Writer::set);
    w.byte(u8::from(answer.committed));
    w.maybe(answer.prepared.as_ref().map(|word| &word.set), Writer::set);
    w.number(answer.high.0);
    w.number(answer.base.0);
    w.byte(u8::from(answer.waiting));
    w.round_of(answer.prepared.as_ref());
}

fn take_set_answer(r: &mut Reader<'_>, cluster: ClusterId) -> Read<SetAnswer> {
    let mut answer = SetAnswer {
        cluster,
        from: r.node_name()?,
        voter: VoterId(r.wide()?),
        installed: r.maybe(Reader::set)?,
        former: r.maybe(Reader::set)?,
        committed: r.flag()?,
        prepared: r.maybe(Reader::set)?.map(SetWord::first),
        high: r.epoch()?,
        base: r.epoch()?,
        waiting: r.flag()?,
    };
    r.round_into(answer.prepared.as_mut())?;
    Ok(answer)
}

fn put_slots(w: &mut Writer, slots: &SlotSet) {
    w.count(slots.named.len());
    slots.named.iter().for_each(|name| w.text(name.as_str()));
    let rings = slots.rings.iter().filter(|(_, bits)| !bits.is_empty());
    w.count(rings.clone().count());
    for (ring, bits) in rings {
        w.text(ring.as_str());
        put_bits(w, bits);
    }
}

fn take_slots(r: &mut Reader<'_>) -> Read<SlotSet> {
    let mut slots = SlotSet::default();
    for _ in 0..r.count(2)? {
        let name = r.slot_name()?;
        if slots.named.last().is_some_and(|last| *last >= name) {
            return Err(ORDER);
        }
        slots.named.insert(name);
    }
    for _ in 0..r.count(4)? {
        let ring = r.slot_name()?;
        if slots.rings.last_key_value().is_some_and(|(last, _)| *last >= ring) {
            return Err(ORDER);
        }
        slots.rings.insert(ring, take_bits(r)?);
    }
    Ok(slots)
}

fn put_claims(w: &mut Writer, claims: &Claims) {
    w.count(claims.named.len());
    for (name, epoch) in &claims.named {
        w.text(name.as_str());
        w.number(epoch.0);
    }
    let rings = claims.rings.iter().filter(|(_, by_epoch)| by_epoch.values().any(|bits| !bits.is_empty()));
    w.count(rings.clone().count());
    for (ring, by_epoch) in rings {
        w.text(ring.as_str());
        let groups = by_epoch.iter().filter(|(_, bits)| !bits.is_empty());
        w.count(groups.clone().count());
        for (epoch, bits) in groups {
            w.number(epoch.0);
            put_bits(w, bits);
        }
    }
}

fn take_claims(r: &mut Reader<'_>) -> Read<Claims> {
    let mut claims = Claims::default();
    for _ in 0..r.count(3)? {
        let (name, epoch) = (r.slot_name()?, r.epoch()?);
        if claims.named.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(ORDER);
        }
        claims.named.insert(name, epoch);
    }
    for _ in 0..r.count(6)? {
        let ring = r.slot_name()?;
        if claims.rings.last_key_value().is_some_and(|(last, _)| *last >= ring) {
            return Err(ORDER);
        }
        let by_epoch = claims.rings.entry(ring).or_default();
        // A ring without partitions has no encoding, so that there is one for each message.
        let groups = r.count(3)?;
        if groups == 0 {
            return Err(BytesError::Bad("ring"));
        }
        for _ in 0..groups {
            let epoch = r.epoch()?;
            if by_epoch.last_key_value().is_some_and(|(last, _)| *last >= epoch) {
                return Err(ORDER);
            }
            by_epoch.insert(epoch, take_bits(r)?);
        }
    }
    Ok(claims)
}

/// As a list: the count, then the gaps. As words: zero, the first word's index, how many, the words. The shorter one; a list if equal.
fn put_bits(w: &mut Writer, bits: &Bits) {
    let words = trimmed(bits);
    if list_len(bits) <= words_len(words.1) {
        w.count(bits.len());
        let mut next = 0;
        for partition in bits.iter() {
            w.number(u64::from(partition - next));
            next = partition + 1;
        }
    } else {
        w.number(0);
        w.count(words.0);
        w.count(words.1.len());
        words.1.iter().for_each(|word| w.raw(&word.to_le_bytes()));
    }
}

fn trimmed(bits: &Bits) -> (usize, &[u64]) {
    let first = bits.words().iter().position(|word| *word != 0).unwrap_or(0);
    (first, bits.words().get(first..).unwrap_or_default())
}

/// Bytes of the gaps.
fn list_len(bits: &Bits) -> usize {
    let mut next = 0;
    bits.iter()
        .map(|partition| {
            let gap = partition - std::mem::replace(&mut next, partition + 1);
            if gap < 0x80 { 1 } else { 2 }
        })
        .sum()
}

const fn words_len(words: &[u64]) -> usize {
    2 + 8 * words.len()
}

fn take_bits(r: &mut Reader<'_>) -> Read<Bits> {
    const BAD: BytesError = BytesError::Bad("partitions");
    let limit = u64::from(PARTITIONS_MAX);
    let count = r.number()?;
    if count > limit {
        return Err(BAD);
    }
    if count > 0 {
        let (mut bits, mut next) = (Bits::default(), 0u64);
        for _ in 0..count {
            let gap = r.number()?;
            let partition = next.checked_add(gap).filter(|p| *p < limit).and_then(|p| u16::try_from(p).ok()).ok_or(BAD)?;
            bits.insert(partition);
            next = u64::from(partition) + 1;
        }
        let shortest = list_len(&bits) <= words_len(trimmed(&bits).1);
        return if shortest { Ok(bits) } else { Err(BAD) };
    }
    let (first, len) = (r.number()?, r.count(8)?);
    let most = limit / 64;
    if len == 0 || first >= most || len as u64 > most - first {
        return Err(BAD);
    }
    let mut words = vec![0; usize::try_from(first).map_err(|_| BAD)?];
    for _ in 0..len {
        words.push(r.fixed()?);
    }
    let (start, all) = (words.len() - len, words.len());
    let bits = Bits::from_words(words);
    let tight = bits.words().len() == all && bits.words()[start] != 0;
    let shortest = list_len(&bits) > words_len(trimmed(&bits).1);
    if tight && shortest { Ok(bits) } else { Err(BAD) }
}
