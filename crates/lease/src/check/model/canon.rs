//! When two states are the same: they differ only by the time that has passed, by the numbers of messages, or by which of two
//! like voters is which. The hash is over such a form, so that each class is explored once.
//!
//! Every message has exactly one voter at one end, so a state is a part that no voter has to do with and one part per voter. The parts
//! are hashed apart and sorted.

use super::state::{Envelope, NodeState, Party, State, slot};
use crate::holder::{Phase, Purpose, Sent};
use crate::message::{Answer, Ask, Message, Verdict, Why};
use crate::time::Time;
use crate::types::{SendNo, VoterId};
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::Xxh3Default;

/// The send an answer would be counted for, if any.
pub(super) fn sent(node: &NodeState, send_no: SendNo, now: Time) -> Option<&Sent> {
    let same_life = send_no.instance == node.holder.config().instance;
    node.holder.sends().get(send_no.count).filter(|sent| same_life && now < sent.forget)
}

/// A time as seen from now; all of the past is one.
fn left(time: Time, now: Time) -> u64 {
    (time - now).0
}

impl Hash for State {
    fn hash<H: Hasher>(&self, out: &mut H) {
        self.left.hash(out);
        self.highest.hash(out);
        self.broken.hash(out);
        if self.config.horizon.is_some() {
            self.now.hash(out);
        }
        for index in 0..self.nodes.len() {
            self.hash_node(index, out);
        }
        for driver in &self.drivers {
            match driver.stage() {
                crate::change::Stage::Wait(until) => (9, left(until, self.voter_time())).hash(out),
                stage => stage.hash(out),
            }
            driver.floor().hash(out);
            driver.word().hash(out);
        }
        let mut parts: Vec<u64> = (0..self.voters.len()).map(|index| self.voter_part(index)).collect();
        parts.sort_unstable();
        parts.hash(out);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let digest = |state: &Self| {
            let mut hasher = Xxh3Default::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}

impl State {
    fn hash_node<H: Hasher>(&self, index: usize, out: &mut H) {
        let (node, now) = (&self.nodes[index], self.node_time(index));
        left(Time(node.word), now).hash(out);
        (node.word == 0, node.armed, node.lives).hash(out);
        node.runs.map(|(until, epoch)| (left(until, now), epoch)).filter(|(until, _)| *until > 0).hash(out);
        node.runs.is_some().hash(out);
        let sets = node.holder.sets();
        sets.all().for_each(|set| set.number().hash(out));
        0u8.hash(out);
        node.holder.forgotten().hash(out);
        let Some(state) = node.holder.slot(&slot()) else { return };
        state.seen.hash(out);
        match &state.phase {
            Phase::Idle => 1u8.hash(out),
            Phase::Attempt(attempt) => (2u8, attempt.epoch, attempt.set, left(attempt.ends, now)).hash(out),
            Phase::Holding(holding) => {
                (3u8, holding.epoch, left(holding.deadline, now), holding.longest, holding.stopping.is_some()).hash(out);
            }
            Phase::Ended { epoch, longest } => (4u8, epoch, longest).hash(out),
        }
        if let Some(releasing) = &state.releasing {
            (releasing.epoch, left(releasing.until, now), releasing.successor.is_some()).hash(out);
        }
    }

    fn voter_part(&self, index: usize) -> u64 {
        let mut out = Xxh3Default::new();
        let (id, now) = (VoterId(index as u128), self.voter_time());
        for set in self.config.sets.iter().chain(&self.config.rival) {
            set.contains(&index).hash(&mut out);
        }
        let voter = &self.voters[index].voter;
        let (journal, header) = (voter.journal(), voter.header());
        (journal.set.as_ref(), journal.committed, journal.prepared.as_ref(), journal.mark).hash(&mut out);
        let until = |time: Option<Time>| time.map_or(0, |time| left(time, now));
        (header.base, until(header.waiting_until), until(header.unknown_until), voter.high()).hash(&mut out);
        for (_, state) in voter.records() {
            (state.floor, &state.released).hash(&mut out);
            state.grant.as_ref().map(|grant| (&grant.tenure, left(grant.expires, now))).hash(&mut out);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            self.hash_view(index, node, id, &mut out);
        }
        for driver in &self.drivers {
            if let Some(answer) = driver.answer(id) {
                (answer.installed.as_ref(), answer.prepared.as_ref(), answer.committed, answer.high, answer.base, answer.waiting)
                    .hash(&mut out);
            }
            7u8.hash(&mut out);
        }
        let mut letters: Vec<u64> = self.net.iter().filter_map(|envelope| self.letter(envelope, index)).collect();
        letters.sort_unstable();
        letters.dedup();
        letters.hash(&mut out);
        out.finish()
    }

    /// What a node knows of this voter.
    fn hash_view<H: Hasher>(&self, index: usize, node: &NodeState, id: VoterId, out: &mut H) {
        let now = self.node_time(index);
        node.holder.sets().label_of(id).hash(out);
        let Some(state) = node.holder.slot(&slot()) else { return };
        let votes = match &state.phase {
            Phase::Attempt(attempt) => {
                attempt.refused.contains(&id).hash(out);
                Some(&attempt.votes)
            }
            Phase::Holding(holding) => Some(&holding.votes),
            Phase::Idle | Phase::Ended { .. } => None,
        };
        for vote in votes.into_iter().flat_map(crate::holder::Votes::iter).filter(|vote| vote.voter == id) {
            (vote.set, left(vote.until, now)).hash(out);
        }
        if let Some(releasing) = &state.releasing {
            releasing.acked.contains(&id).hash(out);
        }
        3u8.hash(out);
    }

    /// A message to or from this voter, without its number and the voter's name.
    fn letter(&self, envelope: &Envelope, index: usize) -> Option<u64> {
        let mut out = Xxh3Default::new();
        match (envelope.from, envelope.to) {
            (other, Party::Voter(voter)) if voter == index => (0u8, other).hash(&mut out),
            (Party::Voter(voter), other) if voter == index => (1u8, other).hash(&mut out),
            _ => return None,
        }
        match (&envelope.message, envelope.from, envelope.to) {
            (Message::Acquire(ask), Party::Node(node), _) => self.hash_ask(0, ask, node, &mut out),
            (Message::Renew(ask), Party::Node(node), _) => self.hash_ask(1, ask, node, &mut out),
            (Message::Release(ask), Party::Node(node), _) => self.hash_ask(2, ask, node, &mut out),
            (Message::Answer(answer), _, Party::Node(node)) => self.hash_answer(answer, node, &mut out),
            (Message::SetAsk(ask), ..) => ask.step.hash(&mut out),
            (Message::SetAnswer(answer), ..) => {
                (answer.installed.as_ref(), answer.prepared.as_ref(), answer.committed, answer.high, answer.base, answer.waiting)
                    .hash(&mut out);
            }
            _ => {}
        }
        Some(out.finish())
    }

    fn hash_send<H: Hasher>(&self, send_no: SendNo, node: usize, out: &mut H) {
        let now = self.node_time(node);
        match sent(&self.nodes[node], send_no, now) {
            // The age matters for as long as an ack could move a deadline.
            Some(sent) if sent.purpose != Purpose::Release => (1u8, (now - sent.at).0, &sent.claims, sent.t, sent.set).hash(out),
            Some(sent) => (2u8, &sent.claims).hash(out),
            None => 0u8.hash(out),
        }
    }

    fn hash_ask<H: Hasher>(&self, kind: u8, ask: &Ask, node: usize, out: &mut H) {
        (kind, ask.set, ask.instance, ask.t, &ask.claims).hash(out);
        self.hash_send(ask.send_no, node, out);
    }

    fn hash_answer<H: Hasher>(&self, answer: &Answer, node: usize, out: &mut H) {
        (3u8, answer.set).hash(out);
        self.hash_send(answer.send_no, node, out);
        match &answer.verdict {
            Verdict::Slots { accepted, refused } => {
                (accepted.is_empty()).hash(out);
                refused.iter().for_each(|(why, _)| hash_why(why, out));
            }
            Verdict::Refused(why) => hash_why(why, out),
        }
    }
}

fn hash_why<H: Hasher>(why: &Why, out: &mut H) {
    why.hash(out);
}
