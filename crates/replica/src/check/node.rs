//! One node: disk, database, member, and what it is just now.

use super::Plant;
use super::database::{Database, Frame, Pages, image, page_size, sums};
use super::disk::Disk;
use super::rng::Rng;
use crate::lineage::{Position, Start};
use crate::log::{Item, Limits, LogError};
use crate::role::{Backfill, Confirmations, Member, MemberError, Promotion};
use crate::storage::Storage as _;
use crate::sums::PageSums;
use crate::transaction::{Compression, DbId, GroupWriter, Kind, Record, encode_start};
use crate::wal::WalMark;

/// The database's id.
pub(super) const DB: DbId = DbId([9; 16]);
/// Where [`Plant::PositionBeforePages`] notes what it believes.
const NOTED: &str = "noted-position";
/// Transactions after which a database is made durable: far fewer than the smallest log holds.
const DURABLE_EVERY: u64 = 20;

/// What an active has beside its log.
pub(super) struct Active {
    pub epoch: u64,
    pub sums: PageSums,
    pub salt: u32,
    pub frames: usize,
    pub confirmations: Confirmations,
    /// `db sync` calls that wait: transaction, and the state it stands for.
    pub syncs: Vec<(u64, u64)>,
    pub backfill: Backfill,
}

pub(super) enum Role {
    Standby,
    Promoting(Box<Promotion>),
    Active(Box<Active>),
    /// Its unit is stopped; its agent has not heard of a successor yet.
    Retired(Box<Active>),
}

pub(super) struct Node {
    pub name: String,
    pub disk: Disk,
    pub db: Database,
    /// `None`: down.
    pub member: Option<Member<Disk>>,
    pub role: Role,
    /// Where the database is.
    pub applied: Position,
    pub needs_snapshot: bool,
    /// Highest epoch it answered a seal for. The checker's own memory.
    pub answered: u64,
    /// Last transaction that the database and its kept checksums hold durably: the log is not cut beyond it.
    durable: u64,
    limits: Limits,
    plant: Option<Plant>,
}

impl Node {
    pub fn new(name: &str, limits: Limits, plant: Option<Plant>) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            disk: Disk::default(),
            db: Database::default(),
            member: None,
            role: Role::Standby,
            applied: Position::default(),
            needs_snapshot: false,
            answered: 0,
            durable: 0,
            limits,
            plant,
        };
        node.boot().unwrap_or_else(|error| unreachable!("an empty disk opens: {error}"));
        node
    }

    pub fn crash(&mut self, rng: &mut Rng) {
        self.member = None;
        self.role = Role::Standby;
        self.disk.crash(rng);
        self.db.crash(rng);
    }

    pub fn wipe(&mut self) {
        self.disk.wipe();
        self.db = Database::default();
        self.answered = 0;
    }

    /// Comes up: finds out where its database is, and first of all keeps what only its old write-ahead log has (D9).
    pub fn boot(&mut self) -> Result<(), MemberError> {
        let mut member = Member::open(self.disk.clone(), &self.name, DB, self.limits)?;
        let checksum = sums(&self.db.view()).total();
        let found =
            member.log().entries().rev().map(|entry| entry.position).chain([member.log().base()]).find(|at| at.checksum == checksum);
        self.needs_snapshot = false;
        self.durable = 0;
        let mark = member.log().entries().next_back().and_then(|entry| entry.mark);
        match found {
            Some(position) => self.applied = position,
            None => match mark.filter(|_| !member.is_stale()) {
                Some(mark) => {
                    self.needs_snapshot = !self.read_old_wal(&mut member, mark)?;
                    self.applied = member.position();
                }
                None => self.needs_snapshot = true,
            },
        }
        if self.plant == Some(Plant::PositionBeforePages)
            && let Some(noted) = self.noted_position()
            && member.log().place(noted).is_some()
        {
            self.applied = noted;
            self.needs_snapshot = false;
        }
        if self.plant != Some(Plant::LeftoverWal) {
            self.db.fold();
        }
        self.member = Some(member);
        Ok(())
    }

    fn noted_position(&self) -> Option<Position> {
        let bytes = self.disk.read(NOTED, 100).ok()??;
        let long = |at: usize| bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map(u64::from_le_bytes);
        Some(Position { epoch: long(0)?, tx: long(8)?, checksum: long(16)? })
    }

    /// What was committed after the log's end: frame by frame where they are, else by comparing pages. `false`: the checksums at the log's end
    /// are lost, and nothing can be said.
    fn read_old_wal(&self, member: &mut Member<Disk>, mark: WalMark) -> Result<bool, MemberError> {
        let (salt, wal) = self.db.wal();
        let Some(mut sums) = crate::sums::at_head(member.log(), DB)? else { return Ok(false) };
        if mark.salt[0] == salt && mark.frames as usize <= wal.len() {
            for (place, frame) in wal.iter().enumerate().skip(mark.frames as usize) {
                log_frame(member, &mut sums, frame, salt, place + 1)?;
            }
        } else {
            let view = self.db.view();
            let commit = u32::try_from(view.len()).unwrap_or(u32::MAX);
            let changed = view.into_iter().filter(|(page, value)| sums.get(*page) != Some(crate::page::page_sum(*page, &image(*value))));
            let frame = Frame { pages: changed.collect(), commit };
            log_frame(member, &mut sums, &frame, salt, wal.len())?;
        }
        member.sync().map(|_| true)
    }

    /// An active that captured much since makes its database durable too, before the log is cut.
    pub fn keep_up(&mut self) {
        if self.head().tx > self.durable + DURABLE_EVERY {
            self.db.sync();
            self.keep_sums();
        }
    }

    /// After a checkpoint of everything: the checksums are kept, so that the log is not needed before it.
    pub fn keep_sums(&mut self) {
        let head = self.head();
        self.durable = head.tx;
        if let Role::Active(active) = &self.role {
            let _ = crate::sums::store(&mut self.disk, DB, page_size(), head, &active.sums);
        }
    }

    pub fn head(&self) -> Position {
        self.member.as_ref().map_or(Position::default(), Member::position)
    }

    /// Applies some of what the log has. Whether the pages are what the position says.
    pub fn apply(&mut self, rng: &mut Rng) -> Result<bool, MemberError> {
        let Some(member) = self.member.as_mut().filter(|_| !self.needs_snapshot) else { return Ok(true) };
        // The database must not outlive its log.
        member.sync()?;
        let Some(place) = member.log().place(self.applied) else {
            self.needs_snapshot = true;
            return Ok(true);
        };
        let many = 1 + rng.below(5);
        let (mut pages, mut commit, mut end) = (Pages::new(), None, self.applied);
        for entry in member.log().entries().skip(place).take(many) {
            end = entry.position;
            if let Item::Change(close) = &entry.item {
                member.log().read(entry, |_, record| {
                    if let Record::Chunk(chunk) = record {
                        pages.extend(values(&chunk));
                    }
                    Ok::<_, LogError>(())
                })?;
                pages.retain(|page, _| *page <= close.commit);
                commit = Some(close.commit);
            }
        }
        if end == self.applied {
            return Ok(true);
        }
        if self.plant == Some(Plant::PositionBeforePages) {
            let bytes: Vec<u8> = [end.epoch, end.tx, end.checksum].iter().flat_map(|long| long.to_le_bytes()).collect();
            let _ = self.disk.replace(NOTED, &bytes);
        }
        if let Some(commit) = commit {
            self.db.commit(pages, commit, false);
        }
        self.applied = end;
        let whole = sums(&self.db.view());
        if rng.chance(30) || end.tx > self.durable + DURABLE_EVERY {
            self.db.checkpoint();
            self.durable = end.tx;
            let _ = crate::sums::store(&mut self.disk, DB, page_size(), end, &whole);
        }
        Ok(whole.total() == end.checksum)
    }

    /// The database becomes this content.
    pub fn install(&mut self, pages: Pages, position: Position) -> bool {
        self.durable = position.tx;
        if self.plant != Some(Plant::LeftoverWal) {
            self.db.fold();
        }
        self.db.install(pages);
        self.applied = position;
        self.needs_snapshot = false;
        let whole = sums(&self.db.view());
        let _ = crate::sums::store(&mut self.disk, DB, page_size(), position, &whole);
        whole.total() == position.checksum
    }

    /// Begins to be active, its log and database being at the base. The record of its start.
    pub fn begin(&mut self, epoch: u64) -> Result<Option<Vec<u8>>, MemberError> {
        let Some(member) = self.member.as_mut() else { return Ok(None) };
        let (salt, frames) = (self.db.wal().0, self.db.wal().1.len());
        let base = member.position();
        let whole = sums(&self.db.view());
        self.db.sync();
        let _ = crate::sums::store(&mut self.disk, DB, page_size(), base, &whole);
        self.durable = base.tx;
        let start = if self.plant == Some(Plant::NoStart) && base.epoch > 0 { None } else { Some(member.make_start(epoch)?) };
        let record = start.as_ref().map(|start: &Start| encode_start(DB, start).unwrap_or_default());
        if let (Some(start), Some(record)) = (start, &record) {
            member.log_mut().append(record, Some(wal_mark(salt, frames)))?;
            member.sync()?;
            member.started(start)?;
        }
        self.db.keep();
        let backfill = Backfill::new(member.chain().clone(), 0, Position::default());
        let active = Active {
            epoch,
            sums: whole,
            salt,
            frames,
            confirmations: Confirmations::new(member.position().epoch),
            syncs: Vec::new(),
            backfill,
        };
        self.role = Role::Active(Box::new(active));
        Ok(record)
    }

    /// Captures what was committed; the records.
    pub fn poll(&mut self) -> Result<Vec<Vec<u8>>, MemberError> {
        let (Some(member), Role::Active(active) | Role::Retired(active)) = (self.member.as_mut(), &mut self.role) else {
            return Ok(Vec::new());
        };
        let (salt, wal) = self.db.wal();
        let restarted = salt != active.salt;
        if restarted {
            (active.salt, active.frames) = (salt, 0);
        }
        let mut records = Vec::new();
        for frame in wal.iter().skip(active.frames) {
            active.frames += 1;
            records.push(log_frame(member, &mut active.sums, frame, salt, active.frames)?);
        }
        if restarted {
            // Durable before it is shipped: a later mark in another write-ahead log leads nowhere.
            member.sync()?;
        }
        Ok(records)
    }

    /// Whether the log says what the database holds.
    pub fn captured_all(&self) -> bool {
        self.head().checksum == sums(&self.db.view()).total()
    }

    /// The unit is stopped; with `heard` of a successor too, the node becomes a standby, and keeps its tail in its log first (D9).
    pub fn retire(&mut self, heard: bool) -> Result<(), MemberError> {
        if heard && matches!(self.role, Role::Active(_) | Role::Retired(_)) {
            self.poll()?;
            if let Some(member) = &mut self.member {
                member.sync()?;
            }
            self.applied = self.head();
            if self.plant == Some(Plant::LeftoverWal) {
                self.db.let_go()
            } else {
                self.db.fold()
            }
            self.role = Role::Standby;
        } else if let Role::Active(active) = std::mem::replace(&mut self.role, Role::Standby) {
            self.role = Role::Retired(active);
        }
        Ok(())
    }
}

fn wal_mark(salt: u32, frames: usize) -> WalMark {
    WalMark { salt: [salt, 0], frames: u32::try_from(frames).unwrap_or(u32::MAX), sum: [0; 2] }
}

/// Pages of a chunk as the model has them.
pub(super) fn values(chunk: &crate::transaction::Chunk) -> Pages {
    let value = |data: &[u8]| data.last_chunk::<8>().map_or(0, |eight| u64::from_le_bytes(*eight));
    chunk.pages().map(|(page, data)| (page, value(data))).collect()
}

/// Logs one transaction of the write-ahead log.
fn log_frame(member: &mut Member<Disk>, sums: &mut PageSums, frame: &Frame, salt: u32, place: usize) -> Result<Vec<u8>, MemberError> {
    let head = member.position();
    let mut writer = GroupWriter::new(DB, head.epoch, head.tx + 1, Kind::Change, page_size(), Compression::Lz4);
    let mut changed = std::collections::BTreeMap::new();
    for (page, value) in &frame.pages {
        let data = image(*value);
        changed.insert(*page, crate::page::page_sum(*page, &data));
        let _ = writer.push(*page, &data);
    }
    let change = sums.change(page_size(), changed, frame.commit);
    let record = writer.finish(frame.commit, head.checksum, change.after, 0).unwrap_or_default();
    member.log_mut().append(&record, Some(wal_mark(salt, place)))?;
    sums.apply(&change);
    Ok(record)
}
