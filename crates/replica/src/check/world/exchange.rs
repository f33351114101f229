//! What nodes make of each other's messages.

use super::super::database::Pages;
use super::super::node::Role;
use super::{Message, Outcome, World};
use crate::check::Plant;
use crate::lineage::{Chain, Position};
use crate::role::{Received, SnapshotUse, Tail, TailOutcome};
use crate::transaction::{Record, decode};

impl World {
    pub(super) fn deliver(&mut self) -> Outcome {
        if self.net.is_empty() {
            return Ok(());
        }
        let (from, to, message) = if self.calm { self.net.remove(0) } else { self.net.swap_remove(self.rng.below(self.net.len())) };
        let epoch = match &message {
            Message::Live(bytes) => decode(bytes).map_or(0, |record| match record {
                Record::Start { start, .. } => start.epoch,
                Record::Chunk(chunk) => chunk.epoch,
            }),
            Message::Seal(epoch)
            | Message::Ask { epoch, .. }
            | Message::AskSnapshot { epoch }
            | Message::Tail { epoch, .. }
            | Message::Snapshot { epoch, .. }
            | Message::Confirm { epoch, .. } => *epoch,
            Message::Sealed(sealed) => sealed.epoch,
        };
        if self.nodes[to].member.is_none() {
            return Ok(());
        }
        self.succeed(to, epoch)?;
        match message {
            Message::Live(bytes) => self.live(from, to, &bytes),
            Message::Seal(epoch) => {
                if matches!(self.nodes[to].role, Role::Active(_)) {
                    return Ok(());
                }
                let sealed = self.seal(to, epoch)?;
                self.send(to, from, Message::Sealed(sealed));
                Ok(())
            }
            Message::Sealed(sealed) => {
                let name = self.nodes[from].name.clone();
                if let Role::Promoting(promotion) = &mut self.nodes[to].role
                    && sealed.epoch >= self.epoch
                {
                    promotion.answer(&name, sealed);
                }
                Ok(())
            }
            Message::Ask { epoch, position, chain } => self.give(to, from, epoch, position, &chain),
            Message::AskSnapshot { .. } => self.give_snapshot(to, from),
            Message::Tail { epoch, chain, records } => self.take_tail(to, from, epoch, &chain, &records),
            Message::Snapshot { epoch, chain, position, pages } => self.take_snapshot(to, epoch, &chain, position, pages),
            Message::Confirm { epoch, tx } => {
                let name = self.nodes[from].name.clone();
                self.confirmed(to, &name, epoch, tx);
                Ok(())
            }
        }
    }

    pub(super) fn confirmed(&mut self, at: usize, name: &str, epoch: u64, tx: u64) {
        let count = self.policy.confirm;
        if let Role::Active(active) | Role::Retired(active) = &mut self.nodes[at].role {
            active.confirmations.confirm(name, epoch, tx);
            let have = active.confirmations.confirmed(count);
            let ledger = &mut self.ledger;
            active.syncs.retain(|(tx, checksum)| {
                // Of an empty database there is nothing to lose.
                if *tx <= have && *checksum != 0 {
                    ledger.confirmed.insert(*checksum);
                }
                *tx > have
            });
        }
    }

    pub(super) fn live(&mut self, from: usize, to: usize, bytes: &[u8]) -> Outcome {
        if !matches!(self.nodes[to].role, Role::Standby | Role::Promoting(_)) {
            return Ok(());
        }
        let Some(member) = self.nodes[to].member.as_mut() else { return Ok(()) };
        let received = member.receive(bytes);
        match self.member(received)? {
            Received::Refused { .. } if self.plant == Some(Plant::NoSeal) => {
                if let Some(member) = self.nodes[to].member.as_mut() {
                    let _ = member.log_mut().append(bytes, None);
                }
            }
            Received::Behind => {
                if let Some(member) = &self.nodes[to].member {
                    let ask = Message::Ask { epoch: member.noted(), position: member.position(), chain: member.chain().clone() };
                    self.send(to, from, ask);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An active gives to whom is behind; a sealed standby to the one whose promotion asks.
    pub(super) fn give(&mut self, at: usize, to: usize, epoch: u64, position: Position, chain: &Chain) -> Outcome {
        let node = &self.nodes[at];
        let Some(member) = &node.member else { return Ok(()) };
        let active = matches!(node.role, Role::Active(_));
        if !active && (epoch != member.noted() || !matches!(self.nodes[to].role, Role::Promoting(_))) && self.plant != Some(Plant::NoStart)
        {
            return Ok(());
        }
        let tail = member.tail(position, chain, 2000);
        let noted = member.noted();
        match self.member(tail)? {
            Tail::Records { chain, records } => self.send(at, to, Message::Tail { epoch: noted, chain, records }),
            Tail::Snapshot { .. } => return self.give_snapshot(at, to),
        }
        Ok(())
    }

    pub(super) fn give_snapshot(&mut self, at: usize, to: usize) -> Outcome {
        if matches!(self.nodes[at].role, Role::Active(_)) {
            self.capture()?;
        }
        let node = &self.nodes[at];
        let ready = !node.needs_snapshot && !matches!(node.role, Role::Retired(_));
        let Some(member) = node.member.as_ref().filter(|_| ready) else { return Ok(()) };
        let position = if matches!(node.role, Role::Active(_)) { member.position() } else { node.applied };
        if member.log().place(position).is_none() {
            return Ok(());
        }
        let message = Message::Snapshot { epoch: member.noted(), chain: member.chain().clone(), position, pages: node.db.view() };
        self.send(at, to, message);
        Ok(())
    }

    pub(super) fn take_tail(&mut self, at: usize, from: usize, epoch: u64, chain: &Chain, records: &[Vec<u8>]) -> Outcome {
        if !matches!(self.nodes[at].role, Role::Standby | Role::Promoting(_)) {
            return Ok(());
        }
        let Some(member) = self.nodes[at].member.as_mut() else { return Ok(()) };
        let outcome = member.take_tail(epoch, chain, records);
        match self.member(outcome)? {
            TailOutcome::Appended(_) => self.caught_up(at),
            TailOutcome::Refused { .. } => {}
            TailOutcome::Diverged(keep) => {
                let Some(member) = self.nodes[at].member.as_mut() else { return Ok(()) };
                let kept = member.rewind(keep);
                let noted = member.noted();
                self.member(kept)?;
                let node = &mut self.nodes[at];
                // What the database is at is void, or was never in the log.
                node.needs_snapshot |=
                    node.applied.tx > keep.tx || node.member.as_ref().is_some_and(|member| member.shared(chain).is_none());
                self.send(at, from, Message::AskSnapshot { epoch: noted });
                self.caught_up(at);
            }
        }
        Ok(())
    }

    pub(super) fn caught_up(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let (Role::Promoting(promotion), Some(member)) = (&mut node.role, &node.member) {
            promotion.fetched(member.position(), member.chain().clone());
        }
    }

    pub(super) fn take_snapshot(&mut self, at: usize, epoch: u64, chain: &Chain, position: Position, pages: Pages) -> Outcome {
        let node = &mut self.nodes[at];
        let Some(member) = node.member.as_mut() else { return Ok(()) };
        if epoch < member.noted() || !matches!(node.role, Role::Standby | Role::Promoting(_)) {
            return Ok(());
        }
        let needed = node.needs_snapshot;
        match member.weigh(position, chain, needed) {
            SnapshotUse::Ignore => return Ok(()),
            SnapshotUse::Place => {}
            SnapshotUse::Jump(keep) => {
                let jumped = member.rewind(keep).and_then(|_| member.jump(position, chain));
                self.member(jumped)?;
            }
        }
        self.report.snapshots += 1;
        if !self.nodes[at].install(pages, position) {
            return Err(self.violation("D9", "a database taken from a snapshot is not what was sent: something old lies over it"));
        }
        let placed = self.nodes[at].member.as_mut().map_or(Ok(()), |member| member.placed());
        self.member(placed)?;
        self.caught_up(at);
        Ok(())
    }
}
