//! From a granted lease to a start, and the active's way into the stream.

use super::super::database::{Pages, image, page_size};
use super::super::node::{DB, Role};
use super::{Message, NODES, Outcome, World};
use crate::check::{Plant, Violation};
use crate::lineage::Position;
use crate::role::{Backfill, Promotion, Sealed, StayDown, Step, StreamStep};
use crate::transaction::{Compression, GroupWriter, Kind, decode};

/// A snapshot as one record.
fn snapshot_record(pages: &Pages, at: Position) -> Vec<u8> {
    let mut writer = GroupWriter::new(DB, at.epoch, at.tx, Kind::Snapshot, page_size(), Compression::Lz4);
    for (page, value) in pages {
        let _ = writer.push(*page, &image(*value));
    }
    let commit = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    writer.finish(commit, 0, at.checksum, 0).unwrap_or_default()
}

impl World {
    pub(super) fn grant(&mut self) -> Outcome {
        if self.holder.is_some() {
            return Ok(());
        }
        let Some(at) = self.up() else { return Ok(()) };
        self.epoch += 1;
        self.holder = Some(at);
        self.succeed(at, self.epoch)?;
        let sealed = self.seal(at, self.epoch)?;
        let others = self.nodes.iter().map(|node| node.name.clone()).filter(|name| *name != self.nodes[at].name).collect();
        let promotion = Promotion::new(&self.nodes[at].name, self.policy, self.now, sealed, others, 0);
        self.nodes[at].role = Role::Promoting(Box::new(promotion));
        self.promote()
    }

    pub(super) fn seal(&mut self, at: usize, epoch: u64) -> Result<Sealed, Violation> {
        let node = &mut self.nodes[at];
        let Some(member) = node.member.as_mut() else { return Err(self.violation("liveness", "a node that is down was sealed")) };
        // Without starts nothing tells epochs apart, so nothing of theirs is noted either.
        let noted = if self.plant == Some(Plant::NoStart) && member.position().epoch > 0 { member.noted() } else { epoch };
        node.answered = node.answered.max(epoch);
        let sealed = member.seal(noted);
        let mut sealed = self.member(sealed)?;
        if self.plant == Some(Plant::NoStart) {
            sealed.epoch = epoch;
        }
        Ok(sealed)
    }

    pub(super) fn promote(&mut self) -> Outcome {
        let Some(at) = self.holder else { return Ok(()) };
        let step = match &self.nodes[at].role {
            Role::Promoting(promotion) => promotion.decide(self.now),
            _ => return Ok(()),
        };
        let number = |world: &Self, name: &str| world.nodes.iter().position(|node| node.name == name).unwrap_or(0);
        match step {
            Step::Wait { ask, .. } => {
                for node in ask {
                    let to = number(self, &node);
                    self.send(at, to, Message::Seal(self.epoch));
                }
            }
            Step::StayDown(StayDown::TooFewAnswers { .. }) => {
                for to in 0..NODES {
                    self.send(at, to, Message::Seal(self.epoch));
                }
            }
            Step::StayDown(StayDown::Deposed(_) | StayDown::TooFarBehind { .. }) => {
                self.nodes[at].role = Role::Standby;
                self.holder = None;
            }
            Step::StayDown(StayDown::Corrupt(corruption)) => return Err(self.violation("D3", corruption.to_string())),
            Step::Fetch { from, .. } | Step::Resync { from, .. } => {
                if self.rng.chance(10)
                    && let Role::Promoting(promotion) = &mut self.nodes[at].role
                {
                    promotion.lost(&from);
                    return Ok(());
                }
                let to = number(self, &from);
                if let Some(member) = &self.nodes[at].member {
                    let ask = Message::Ask { epoch: self.epoch, position: member.position(), chain: member.chain().clone() };
                    self.send(at, to, ask);
                }
            }
            Step::Start { .. } => self.start(at)?,
        }
        Ok(())
    }

    pub(super) fn start(&mut self, at: usize) -> Outcome {
        let whole = self.nodes[at].member.as_ref().is_some_and(|member| member.log().base() == Position::default());
        if self.nodes[at].needs_snapshot && whole && !self.nodes[at].install(Pages::new(), Position::default()) {
            return Err(self.violation("D9", "a database begun anew is not empty: something old lies over it"));
        }
        for _ in 0..1000 {
            if self.nodes[at].needs_snapshot || self.nodes[at].applied == self.nodes[at].head() {
                break;
            }
            self.apply(at)?;
        }
        if self.nodes[at].needs_snapshot || self.nodes[at].applied != self.nodes[at].head() {
            // Its log is the best, and its database cannot be made from it: whoever has a state of that log gives it.
            for to in 0..NODES {
                self.send(at, to, Message::AskSnapshot { epoch: self.epoch });
            }
            // Nobody does: another may have better luck.
            if self.rng.chance(10) {
                self.nodes[at].role = Role::Standby;
                self.holder = None;
            }
            return Ok(());
        }
        self.report.epochs += 1;
        let begun = self.nodes[at].begin(self.epoch);
        if let Some(record) = self.member(begun)? {
            for to in 0..NODES {
                self.send(at, to, Message::Live(record.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn stream_step(&mut self) -> Outcome {
        self.capture()?;
        let Some(at) = self.active() else { return Ok(()) };
        let fate = if self.calm { 0 } else { self.rng.below(10) };
        let node = &mut self.nodes[at];
        let (Role::Active(active), Some(member)) = (&mut node.role, &node.member) else { return Ok(()) };
        let backfill: &mut Backfill = &mut active.backfill;
        let next = |after: Position| member.log().entries().nth(member.log().place(after).unwrap_or(usize::MAX));
        let bytes = |entry| {
            let mut all = Vec::new();
            let _ = member.log().read(entry, |bytes, _| {
                all = bytes.to_vec();
                Ok::<_, crate::log::LogError>(())
            });
            all
        };
        match backfill.step() {
            StreamStep::Append { last, after } => {
                let head = member.position();
                let (record, position) = match next(after) {
                    Some(entry) => (bytes(entry), entry.position),
                    None if member.log().place(after).is_some() => return Ok(()),
                    // The log begins later than the stream ends: a snapshot stands for what is between.
                    None => (snapshot_record(&node.db.view(), head), head),
                };
                if fate == 1 {
                    // Lost on the way.
                    backfill.unsure();
                } else if last == self.stream.len() as u64 {
                    self.stream.push(record);
                    if fate == 2 { backfill.unsure() } else { backfill.appended(last + 1, Some(position)) }
                } else {
                    backfill.unsure();
                }
            }
            StreamStep::Read { sequence } => {
                let there = usize::try_from(sequence).ok().and_then(|sequence| self.stream.get(sequence - 1));
                let found = there.and_then(|there| decode(there).ok());
                let mine = |at: Position| member.log().place(at).is_some();
                let foreign = found.as_ref().and_then(crate::transaction::Record::reaches).is_some_and(|at| !mine(at));
                if self.plant == Some(Plant::MismatchIsDeposed) && foreign {
                    return Err(self.violation("D6", "an active stepped down though nobody has a higher epoch"));
                }
                backfill.found(found.as_ref().map(std::iter::once), mine);
            }
            StreamStep::Deposed => return Err(self.violation("D6", "an active stepped down though nobody has a higher epoch")),
        }
        Ok(())
    }
}
