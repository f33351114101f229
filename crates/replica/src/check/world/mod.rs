//! The schedule: who does what when, what the network makes of it, who crashes.

mod exchange;
mod promote;

use std::collections::BTreeSet;
use std::time::Duration;

use super::database::{Pages, sums};
use super::judge;
use super::ledger::Ledger;
use super::node::{Node, Role};
use super::rng::Rng;
use super::{Plant, Violation};
use crate::lineage::{Chain, Position};
use crate::log::Limits;
use crate::role::{MemberError, Policy, Sealed, StreamStep};

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

type Outcome = Result<(), Violation>;

/// Runs the schedule of `seed`.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Report, Violation> {
    let small_log = seed % 4 == 3;
    let limits = if small_log { Limits { bytes: 12_000, segment: 1500, transactions: 1000 } } else { Limits::default() };
    let policy = Policy { confirm: usize::from(!seed.is_multiple_of(3)), ..Policy::default() };
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
        let pages: Pages =
            (1..=commit).filter(|page| *page == 1 || !view.contains_key(page) || self.rng.chance(30)).map(|page| (page, id)).collect();
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
        self.nodes[at].keep_up();
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
            if self.plant != Some(Plant::MarkWithoutLock) {
                self.nodes[at].keep_sums();
            }
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
        if was_active && !self.wiped && self.policy.confirm > 0 && self.rng.chance(25) && self.standbys_hold_all(at) {
            self.wiped = true;
            self.nodes[at].wipe();
            self.survived[at].clear();
        }
        Ok(())
    }

    /// Whether a standby besides `at` holds each confirmed state. Else `at` was itself the standby that confirmed one, in an epoch before its
    /// own, and losing it is a loss of a standby and of that epoch's active: more than `confirm: 1` promises to outlive.
    fn standbys_hold_all(&self, at: usize) -> bool {
        let holds = |state: u64| {
            self.nodes.iter().enumerate().filter(|(node, _)| *node != at).any(|(_, node)| {
                let Some(member) = &node.member else { return false };
                let starts = member.chain().starts();
                let mine = |epoch: u64| starts.iter().any(|start| start.epoch == epoch && start.node == node.name);
                member.log().entries().any(|entry| entry.position.checksum == state && !mine(entry.position.epoch))
            })
        };
        self.ledger.confirmed.iter().all(|state| holds(*state))
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
        let same = self
            .nodes
            .iter()
            .enumerate()
            .all(|(node, this)| node == at || (matches!(this.role, Role::Standby) && this.applied == head && this.head() == head));
        let Role::Active(active) = &self.nodes[at].role else { return false };
        let streamed = active.backfill.after() == head && matches!(active.backfill.step(), StreamStep::Append { .. });
        same && streamed && self.nodes[at].captured_all()
    }
}
