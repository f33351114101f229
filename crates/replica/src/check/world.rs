//! The schedule: who does what when, what the network makes of it, who crashes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database::{Pages, image, page_size, sums};
use super::judge;
use super::ledger::Ledger;
use super::node::{DB, Node, Role};
use super::rng::Rng;
use super::{Plant, Violation};
use crate::lineage::{Chain, Position};
use crate::log::Limits;
use crate::role::{Backfill, MemberError, Policy, Promotion, Received, Sealed, SnapshotUse, StayDown, Step, StreamStep, Tail, TailOutcome};
use crate::transaction::{Compression, GroupWriter, Kind, Record, decode};

/// Steps with faults; then all is mended and must come together.
const STEPS: usize = 1000;
/// Rounds for that.
const ROUNDS: usize = 300;
/// Nodes.
const NODES: usize = 3;

/// What a schedule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Transactions that applications committed.
    pub commits: usize,
    /// Of these, in the end in nobody's database.
    pub lost: usize,
    /// `db sync` calls that were answered.
    pub confirmed: usize,
    /// Epochs begun.
    pub epochs: u64,
    /// Crashes.
    pub crashes: usize,
    /// Snapshots installed.
    pub snapshots: usize,
    /// Divergence files left.
    pub divergence: usize,
}

pub(super) enum Message {
    Live(Vec<u8>),
    Seal(u64),
    Sealed(Sealed),
    Ask { epoch: u64, position: Position, chain: Chain },
    AskSnapshot { epoch: u64 },
    Tail { epoch: u64, chain: Chain, records: Vec<Vec<u8>> },
    Snapshot { epoch: u64, chain: Chain, position: Position, pages: Pages },
    Confirm { epoch: u64, tx: u64 },
}

pub(super) struct World {
    pub nodes: Vec<Node>,
    pub ledger: Ledger,
    pub stream: Vec<Vec<u8>>,
    pub small_log: bool,
    /// States that were on a node's disk when it returned.
    pub survived: Vec<BTreeSet<u64>>,
    pub report: Report,
    rng: Rng,
    net: Vec<(usize, usize, Message)>,
    holder: Option<usize>,
    epoch: u64,
    now: Duration,
    policy: Policy,
    plant: Option<Plant>,
    wiped: bool,
    calm: bool,
    seed: u64,
    step: usize,
}

/// A snapshot as one record.
fn snapshot_record(pages: &Pages, at: Position) -> Vec<u8> {
    let mut writer = GroupWriter::new(DB, at.epoch, at.tx, Kind::Snapshot, page_size(), Compression::Lz4);
    for (page, value) in pages {
        let _ = writer.push(*page, &image(*value));
    }
    let commit = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    writer.finish(commit, 0, at.checksum, 0).unwrap_or_default()
}

type Outcome = Result<(), Violation>;

/// Runs the schedule of `seed`.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Report, Violation> {
    let small_log = seed % 4 == 3;
    let limits = if small_log { Limits { bytes: 6000, segment: 1500, transactions: 1000 } } else { Limits::default() };
    let policy = Policy { confirm: usize::from(seed % 3 != 0), ..Policy::default() };
    let mut world = World {
        nodes: ["n-1", "n-2", "n-3"].map(|name| Node::new(name, limits, plant)).into(),
        ledger: Ledger::default(),
        stream: Vec::new(),
        small_log,
        survived: vec![BTreeSet::new(); NODES],
        report: Report::default(),
        rng: Rng::new(seed),
        net: Vec::new(),
        holder: None,
        epoch: 0,
        now: Duration::ZERO,
        policy,
        plant,
        wiped: false,
        calm: false,
        seed,
        step: 0,
    };
    for step in 0..STEPS {
        world.step = step;
        world.event()?;
    }
    world.settle()?;
    judge::judge(&mut world)?;
    Ok(world.report)
}

impl World {
    pub fn violation(&self, rule: &'static str, what: impl Into<String>) -> Violation {
        Violation { seed: self.seed, step: self.step, rule, what: what.into() }
    }

    fn member<T>(&self, outcome: Result<T, MemberError>) -> Result<T, Violation> {
        outcome.map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            self.violation(if matches!(error, MemberError::Corrupt(_)) { "D3" } else { "liveness" }, format!("{error}{source}"))
        })
    }

    fn active(&self) -> Option<usize> {
        self.nodes.iter().position(|node| matches!(node.role, Role::Active(_)))
    }

    fn up(&mut self) -> Option<usize> {
        let up: Vec<_> = (0..NODES).filter(|at| self.nodes[*at].member.is_some()).collect();
        up.get(self.rng.below(up.len())).copied()
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from != to && (self.calm || !self.rng.chance(10)) {
            self.net.push((from, to, message));
        }
    }

    fn event(&mut self) -> Outcome {
        self.now += Duration::from_millis(10);
        match self.rng.below(100) {
            0..28 => self.app_commit(),
            28..38 => self.capture(),
            38..42 => self.move_keeper(),
            42..45 => {
                if let Some(at) = self.active() {
                    self.nodes[at].db.checkpoint();
                }
                Ok(())
            }
            45..64 => self.deliver(),
            64..75 => self.standby(),
            75..79 => self.stream_step(),
            79..83 => self.db_sync(),
            83..86 => self.ask(),
            86..92 => self.promote(),
            92..95 => self.restart(),
            95 if self.rng.chance(50) => self.crash(),
            95 if self.rng.chance(50) => self.depose(),
            _ => self.grant(),
        }
    }

    fn app_commit(&mut self) -> Outcome {
        let Some(at) = self.active() else { return Ok(()) };
        let view = self.nodes[at].db.view();
        let id = self.ledger.next_id();
        let size = 1 + self.rng.below(8);
        let commit = u32::try_from(size).unwrap_or(1);
        // New pages, page 1, and some others.
        let pages: Pages = (1..=commit).filter(|page| *page == 1 || !view.contains_key(page) || self.rng.chance(30)).map(|page| (page, id)).collect();
        let synced = self.rng.chance(50);
        let node = &mut self.nodes[at];
        node.db.commit(pages, commit, synced);
        self.ledger.add(sums(&view).total(), sums(&node.db.view()).total());
        Ok(())
    }

    fn capture(&mut self) -> Outcome {
        let Some(at) = self.active() else { return Ok(()) };
        let records = self.nodes[at].poll();
        let records = self.member(records)?;
        if !self.nodes[at].captured_all() {
            return Err(self.violation("D2", "the log ends with other pages than the database: frames were missed"));
        }
        if self.rng.chance(50) {
            let synced = self.nodes[at].member.as_mut().map_or(Ok(None), |member| member.sync());
            self.member(synced)?;
        }
        for record in records {
            for to in 0..NODES {
                self.send(at, to, Message::Live(record.clone()));
                if self.rng.chance(5) {
                    self.send(at, to, Message::Live(record.clone()));
                }
            }
        }
        Ok(())
    }

    fn move_keeper(&mut self) -> Outcome {
        let Some(at) = self.active() else { return Ok(()) };
        self.capture()?;
        if self.plant == Some(Plant::MarkWithoutLock) && self.rng.chance(50) {
            self.app_commit()?;
        }
        // Frames may be written over from now on: the log must hold them durably.
        let synced = self.nodes[at].member.as_mut().map_or(Ok(None), |member| member.sync());
        self.member(synced)?;
        let checkpoint = self.rng.chance(50);
        let db = &mut self.nodes[at].db;
        db.keep();
        if checkpoint {
            db.checkpoint();
            db.keep();
        }
        Ok(())
    }

    fn db_sync(&mut self) -> Outcome {
        let Some(at) = self.active().filter(|_| self.policy.confirm > 0) else { return Ok(()) };
        self.capture()?;
        let head = self.nodes[at].head();
        if let Role::Active(active) = &mut self.nodes[at].role {
            active.syncs.push((head.tx, head.checksum));
        }
        Ok(())
    }

    fn standby(&mut self) -> Outcome {
        let Some(at) = self.up() else { return Ok(()) };
        if !matches!(self.nodes[at].role, Role::Standby) {
            return Ok(());
        }
        if self.rng.chance(50) { self.apply(at) } else { self.confirm(at) }
    }

    fn apply(&mut self, at: usize) -> Outcome {
        let applied = self.nodes[at].apply(&mut self.rng);
        if self.member(applied)? { Ok(()) } else { Err(self.violation("D8", "a replica is not what its position says")) }
    }

    fn confirm(&mut self, at: usize) -> Outcome {
        let plant = self.plant == Some(Plant::NoSeal);
        let Some(member) = self.nodes[at].member.as_mut() else { return Ok(()) };
        let confirmed = member.sync();
        let head = member.position();
        let confirmed = self.member(confirmed)?.or(plant.then_some(head));
        let Some(position) = confirmed.filter(|position| position.tx > 0) else { return Ok(()) };
        if self.nodes[at].answered > position.epoch && self.plant != Some(Plant::NoStart) {
            return Err(self.violation("D4", "a sealed standby confirmed a record of a lower epoch"));
        }
        for to in 0..NODES {
            self.send(at, to, Message::Confirm { epoch: position.epoch, tx: position.tx });
        }
        Ok(())
    }

    fn ask(&mut self) -> Outcome {
        let Some(at) = self.up().filter(|at| matches!(self.nodes[*at].role, Role::Standby)) else { return Ok(()) };
        let Some(to) = self.active() else { return Ok(()) };
        let node = &self.nodes[at];
        let Some(member) = &node.member else { return Ok(()) };
        let message = if node.needs_snapshot {
            Message::AskSnapshot { epoch: member.noted() }
        } else {
            Message::Ask { epoch: member.noted(), position: member.position(), chain: member.chain().clone() }
        };
        self.send(at, to, message);
        Ok(())
    }

    fn crash(&mut self) -> Outcome {
        let Some(at) = self.up() else { return Ok(()) };
        let was_active = matches!(self.nodes[at].role, Role::Active(_));
        self.report.crashes += 1;
        self.nodes[at].crash(&mut self.rng);
        if self.holder == Some(at) {
            self.holder = None;
        }
        // confirm: 1 promises to outlive the loss of the active, once.
        if was_active && !self.wiped && self.policy.confirm > 0 && self.rng.chance(25) {
            self.wiped = true;
            self.nodes[at].wipe();
            self.survived[at].clear();
        }
        Ok(())
    }

    fn restart(&mut self) -> Outcome {
        let Some(at) = (0..NODES).find(|at| self.nodes[*at].member.is_none()) else { return Ok(()) };
        let view = sums(&self.nodes[at].db.view()).total();
        let booted = self.nodes[at].boot();
        self.member(booted)?;
        self.remember(at, view);
        let head = self.nodes[at].head().checksum;
        self.remember(at, head);
        Ok(())
    }

    /// What a returning node has must not vanish without a file.
    fn remember(&mut self, at: usize, checksum: u64) {
        if self.ledger.history(checksum).is_some() && checksum != 0 {
            self.survived[at].insert(checksum);
        }
    }

    fn depose(&mut self) -> Outcome {
        let Some(at) = self.holder.take() else { return Ok(()) };
        if matches!(self.nodes[at].role, Role::Promoting(_)) {
            self.nodes[at].role = Role::Standby;
            return Ok(());
        }
        let retired = self.nodes[at].retire(false);
        self.member(retired)
    }

    /// A retired active hears of its successor.
    fn succeed(&mut self, at: usize, epoch: u64) -> Outcome {
        let node = &mut self.nodes[at];
        if !matches!(&node.role, Role::Retired(active) if epoch > active.epoch) {
            return Ok(());
        }
        let view = sums(&node.db.view()).total();
        let retired = node.retire(true);
        self.member(retired)?;
        self.remember(at, view);
        Ok(())
    }

    fn grant(&mut self) -> Outcome {
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

    fn seal(&mut self, at: usize, epoch: u64) -> Result<Sealed, Violation> {
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

    fn promote(&mut self) -> Outcome {
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

    fn start(&mut self, at: usize) -> Outcome {
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

    fn stream_step(&mut self) -> Outcome {
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
                    if fate == 2 { backfill.unsure() } else { backfill.appended(last + 1, position) }
                } else {
                    backfill.unsure();
                }
            }
            StreamStep::Read { sequence } => {
                let there = usize::try_from(sequence).ok().and_then(|sequence| self.stream.get(sequence - 1));
                let mine = next(backfill.after()).map(bytes);
                let found = there.and_then(|there| {
                    let position = match decode(there).ok()? {
                        Record::Start { start, .. } => Position { epoch: start.epoch, ..start.base },
                        Record::Chunk(chunk) => Position { epoch: chunk.epoch, tx: chunk.tx, checksum: chunk.close?.after },
                    };
                    Some((position, mine.as_ref() == Some(there)))
                });
                if self.plant == Some(Plant::MismatchIsDeposed) && found.is_some_and(|(_, mine)| !mine) {
                    return Err(self.violation("D6", "an active stepped down though nobody has a higher epoch"));
                }
                backfill.found(found);
            }
            StreamStep::Deposed => return Err(self.violation("D6", "an active stepped down though nobody has a higher epoch")),
        }
        Ok(())
    }

    fn deliver(&mut self) -> Outcome {
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

    fn confirmed(&mut self, at: usize, name: &str, epoch: u64, tx: u64) {
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

    fn live(&mut self, from: usize, to: usize, bytes: &[u8]) -> Outcome {
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
    fn give(&mut self, at: usize, to: usize, epoch: u64, position: Position, chain: &Chain) -> Outcome {
        let node = &self.nodes[at];
        let Some(member) = &node.member else { return Ok(()) };
        let active = matches!(node.role, Role::Active(_));
        if !active && (epoch != member.noted() || !matches!(self.nodes[to].role, Role::Promoting(_))) && self.plant != Some(Plant::NoStart) {
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

    fn give_snapshot(&mut self, at: usize, to: usize) -> Outcome {
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

    fn take_tail(&mut self, at: usize, from: usize, epoch: u64, chain: &Chain, records: &[Vec<u8>]) -> Outcome {
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
                node.needs_snapshot |= node.applied.tx > keep.tx || node.member.as_ref().is_some_and(|member| member.shared(chain).is_none());
                self.send(at, from, Message::AskSnapshot { epoch: noted });
                self.caught_up(at);
            }
        }
        Ok(())
    }

    fn caught_up(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let (Role::Promoting(promotion), Some(member)) = (&mut node.role, &node.member) {
            promotion.fetched(member.position(), member.chain().clone());
        }
    }

    fn take_snapshot(&mut self, at: usize, epoch: u64, chain: &Chain, position: Position, pages: Pages) -> Outcome {
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

    /// No more faults: all must come together.
    fn settle(&mut self) -> Outcome {
        self.calm = true;
        for round in 0..ROUNDS {
            self.step = STEPS + round;
            self.now += Duration::from_millis(50);
            while self.nodes.iter().any(|node| node.member.is_none()) {
                self.restart()?;
            }
            self.grant()?;
            self.promote()?;
            self.capture()?;
            for at in 0..NODES {
                self.succeed(at, self.epoch)?;
                if matches!(self.nodes[at].role, Role::Standby) {
                    self.apply(at)?;
                    let Some(to) = self.active() else { continue };
                    let node = &self.nodes[at];
                    let Some(member) = &node.member else { continue };
                    let ask = Message::Ask { epoch: member.noted(), position: member.position(), chain: member.chain().clone() };
                    let ask = if node.needs_snapshot { Message::AskSnapshot { epoch: member.noted() } } else { ask };
                    self.send(at, to, ask);
                }
            }
            for _ in 0..self.net.len() {
                self.deliver()?;
            }
            for _ in 0..20 {
                self.stream_step()?;
            }
            if self.settled() {
                return Ok(());
            }
        }
        let what = self.nodes.iter().map(|node| {
            let role = match &node.role {
                Role::Standby => "standby".to_owned(),
                Role::Promoting(promotion) => format!("promoting {:?}", promotion.decide(self.now)),
                Role::Active(active) => format!("active, stream {:?}", active.backfill.step()),
                Role::Retired(_) => "retired".to_owned(),
            };
            format!("{} {role}: log {:?}, database {:?}, wants snapshot: {}", node.name, node.head(), node.applied, node.needs_snapshot)
        });
        Err(self.violation("liveness", format!("does not come together: {}", what.collect::<Vec<_>>().join("; "))))
    }

    fn settled(&self) -> bool {
        let Some(at) = self.active() else { return false };
        let head = self.nodes[at].head();
        let same = self.nodes.iter().enumerate().all(|(node, this)| node == at || (matches!(this.role, Role::Standby) && this.applied == head && this.head() == head));
        let Role::Active(active) = &self.nodes[at].role else { return false };
        let streamed = active.backfill.after() == head && matches!(active.backfill.step(), StreamStep::Append { .. });
        same && streamed && self.nodes[at].captured_all()
    }
}
