//! What was sent and not forgotten yet (P1), and what is about to be sent.

use crate::message::{Ask, CLAIMS_WEIGHT_MAX, Handover, Message, weight};
use crate::slots::{Claims, SlotSet};
use crate::time::{Span, Time};
use crate::types::{ClusterId, Epoch, Instance, Node, NodeName, SendNo, SetNo, Slot, VoterId};
use std::collections::BTreeMap;

/// Sends remembered at most; the oldest is forgotten first, as if its answer were lost.
pub const SENDS_MAX: usize = 16_384;

/// What an ask is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A new tenure.
    Acquire,
    /// A held one.
    Renew,
    /// An ended one.
    Release,
}

/// An ask that left, or is just about to.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When: read before the first byte left (P1).
    pub at: Time,
    /// Its T.
    pub t: Span,
    /// The set it named.
    pub set: SetNo,
    /// To whom.
    pub voter: VoterId,
    /// What for.
    pub purpose: Purpose,
    /// The slots, with the epoch each had then.
    pub claims: Claims,
    /// From then on its answer means nothing.
    pub forget: Time,
}

/// The memory of sends. `send_no` is unique per instance (P1).
#[derive(Clone, Debug, Default)]
pub struct Sends {
    next: u64,
    open: BTreeMap<u64, Sent>,
}

impl Sends {
    fn put(&mut self, sent: Sent) -> u64 {
        self.next += 1;
        if self.open.len() >= SENDS_MAX {
            self.open.pop_first();
        }
        self.open.insert(self.next, sent);
        self.next
    }

    /// What was sent under this number, if it is remembered.
    #[must_use]
    pub fn get(&self, count: u64) -> Option<&Sent> {
        self.open.get(&count)
    }

    /// The last thing sent to this voter for this purpose; for the planted fault that ignores send numbers.
    pub(super) fn latest(&self, voter: VoterId, purpose: Purpose) -> Option<&Sent> {
        self.open.values().rev().find(|sent| sent.voter == voter && sent.purpose == purpose)
    }

    /// Forgets what cannot count any more. The order of forgetting is nearly that of sending, so the front is enough; an entry kept
    /// too long harms nobody, its e_v has passed.
    pub(super) fn prune(&mut self, now: Time) {
        while self.open.first_key_value().is_some_and(|(_, sent)| sent.forget <= now) {
            self.open.pop_first();
        }
    }
}

/// Collects the claims of one step, so that each voter gets one message per purpose.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    asks: BTreeMap<(Purpose, VoterId, SetNo, Span), Claims>,
    handovers: BTreeMap<NodeName, Claims>,
}

/// Who sends.
pub(super) struct Sender<'a> {
    pub cluster: ClusterId,
    pub node: &'a Node,
    pub instance: Instance,
}

impl Outbox {
    pub(super) fn ask(&mut self, purpose: Purpose, to: (VoterId, SetNo), t: Span, slot: &Slot, epoch: Epoch) {
        self.asks.entry((purpose, to.0, to.1, t)).or_default().insert(slot, epoch);
    }

    pub(super) fn ask_all(&mut self, purpose: Purpose, to: (VoterId, SetNo), t: Span, claims: &Claims) {
        match self.asks.get_mut(&(purpose, to.0, to.1, t)) {
            Some(former) => claims.iter().for_each(|(slot, epoch)| former.insert(&slot, epoch)),
            None => {
                self.asks.insert((purpose, to.0, to.1, t), claims.clone());
            }
        }
    }

    pub(super) fn hand_over(&mut self, to: &NodeName, slot: &Slot, epoch: Epoch) {
        self.handovers.entry(to.clone()).or_default().insert(slot, epoch);
    }

    /// Makes messages of all that was collected. `life` says how long an answer to an ask of this length may count.
    pub(super) fn flush(
        &mut self,
        now: Time,
        from: &Sender<'_>,
        sends: &mut Sends,
        life: impl Fn(Purpose, Span) -> Span,
        node_of: impl Fn(VoterId) -> Option<NodeName>,
        mut send: impl FnMut(NodeName, Message),
    ) {
        for ((purpose, voter, set, t), claims) in std::mem::take(&mut self.asks) {
            let Some(to) = node_of(voter) else { continue };
            for claims in split(claims) {
                let forget = now + life(purpose, t);
                let count = sends.put(Sent { at: now, t, set, voter, purpose, claims: claims.clone(), forget });
                let send_no = SendNo { instance: from.instance, count };
                let node = from.node.clone();
                let ask = Ask { cluster: from.cluster, set, voter, node, instance: from.instance, t, send_no, claims };
                let message = match purpose {
                    Purpose::Acquire => Message::Acquire(ask),
                    Purpose::Renew => Message::Renew(ask),
                    Purpose::Release => Message::Release(ask),
                };
                send(to.clone(), message);
            }
        }
        for (to, claims) in std::mem::take(&mut self.handovers) {
            for released in split(claims) {
                let handover = Handover { cluster: from.cluster, from: from.node.name.clone(), released };
                send(to.clone(), Message::Handover(handover));
            }
        }
    }
}

/// Cuts claims into parts that fit a message. One part, untouched, in nearly all cases.
fn split(claims: Claims) -> Vec<Claims> {
    let rings = claims.rings.iter().flat_map(|(ring, by_epoch)| by_epoch.values().map(|bits| ring.as_str().len() + bits.len() * weight(0)));
    let named = claims.named.keys().map(|name| weight(name.as_str().len()));
    if rings.chain(named).sum::<usize>() <= CLAIMS_WEIGHT_MAX {
        return vec![claims];
    }
    let (mut parts, mut part, mut size) = (Vec::new(), Claims::default(), 0);
    for (slot, epoch) in claims.iter() {
        let more = match &slot {
            Slot::Named(name) => weight(name.as_str().len()),
            Slot::Ring { ring, .. } if part.rings.contains_key(ring) => weight(0),
            Slot::Ring { ring, .. } => weight(ring.as_str().len()),
        };
        if size + more > CLAIMS_WEIGHT_MAX {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += more;
        part.insert(&slot, epoch);
    }
    parts.push(part);
    parts
}

/// Cuts a set of slots into parts that fit a message.
pub(super) fn split_set(slots: &SlotSet) -> Vec<SlotSet> {
    let (mut parts, mut part, mut size) = (Vec::new(), SlotSet::default(), 0);
    for name in &slots.named {
        if size + weight(name.as_str().len()) > CLAIMS_WEIGHT_MAX {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += weight(name.as_str().len());
        part.named.insert(name.clone());
    }
    for (ring, bits) in &slots.rings {
        let more = weight(ring.as_str().len()) + bits.words().len() * 10;
        if size + more > CLAIMS_WEIGHT_MAX {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += more;
        part.rings.insert(ring.clone(), bits.clone());
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SlotName;

    #[test]
    fn large_batches_are_cut_and_nothing_is_lost() {
        let mut claims = Claims::default();
        for i in 0..9_000u64 {
            let name = SlotName::new(&format!("lock/api/{i:0100}")).unwrap();
            claims.insert(&Slot::Named(name), Epoch(i));
            let ring = SlotName::new("cache").unwrap();
            claims.insert(&Slot::Ring { ring, partition: (i % 4096) as u16 }, Epoch(i));
        }
        let parts = split(claims.clone());
        assert!(parts.len() > 10);
        let whole: Vec<_> = parts.iter().flat_map(Claims::iter).collect();
        assert_eq!(whole.len(), claims.len());
        assert!(claims.iter().all(|claim| whole.contains(&claim) || matches!(claim.0, Slot::Named(_))));
    }

    #[test]
    fn sends_are_bounded() {
        let mut sends = Sends::default();
        for _ in 0..SENDS_MAX + 5 {
            sends.put(Sent {
                at: Time(0),
                t: Span(1),
                set: SetNo(1),
                voter: VoterId(1),
                purpose: Purpose::Renew,
                claims: Claims::default(),
                forget: Time(9),
            });
        }
        assert_eq!(sends.open.len(), SENDS_MAX);
        sends.prune(Time(9));
        assert!(sends.open.is_empty());
    }
}
