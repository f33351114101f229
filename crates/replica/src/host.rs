//! One node's database, whole: [`Member`], and the file as replica or as the application's own. What an agent drives.
//!
//! No threads, no network: the agent calls, and carries what is returned to the other nodes. Every call may read and write the disk, so
//! it belongs on a thread for such work.
//!
//! # Flow
//! - Standby: [`Host::receive`] for each live record; then [`Host::settle`] once for all that came together, and the position it returns is
//!   confirmed to the active. [`Received::Behind`]: ask the sender with [`Host::ask`], give its answer to [`Host::take_tail`].
//! - Promotion: [`Member::seal`] here and on the others, a [`crate::role::Promotion`] that says what to do, then [`Host::begin`]: from
//!   there on the file is the application's. A database that the application has yet to make: start the unit first, and begin when it is there.
//! - Active: on each wake of [`Host::watch`] ship what [`Host::poll`] gives, and answer those who ask with [`Host::give`].
//! - A database file that is not there is made, empty. One that is to belong to the application's user is made by the caller before that;
//!   SQLite gives its `-wal` and `-shm` files the same owner.
//! - End of a tenure, its unit stopped: [`Host::retire`], before the lease is released in a switchover (D11).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::{ApplyError, Replica};
use crate::capture::{Capture, CaptureError, Options, SnapshotError, Watch, beside};
use crate::lineage::{Chain, Position};
use crate::log::{Limits, LogError};
use crate::role::{Member, MemberError, Received, SnapshotUse, Tail, TailOutcome};
use crate::storage::Directory;
use crate::sums::PageSums;
use crate::transaction::{DbId, DecodeError, Record, decode};

/// Why a host did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Log or lineage.
    #[error("the history of the database cannot be kept")]
    Member(#[source] MemberError),
    /// The replica.
    #[error("the replica cannot be brought forward")]
    Apply(#[source] ApplyError),
    /// The application's database.
    #[error("the database cannot be followed")]
    Capture(#[source] CaptureError),
    /// A snapshot was not made.
    #[error("a snapshot was not made")]
    Snapshot(#[source] SnapshotError),
    /// A part of a snapshot is no record.
    #[error("a part of the snapshot is damaged")]
    Decode(#[source] DecodeError),
    /// The call does not fit what the node is just now.
    #[error("not now: {0}")]
    Role(&'static str),
}

impl From<MemberError> for HostError {
    fn from(error: MemberError) -> Self {
        Self::Member(error)
    }
}

impl From<LogError> for HostError {
    fn from(error: LogError) -> Self {
        Self::Member(error.into())
    }
}

impl From<ApplyError> for HostError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(error)
    }
}

impl From<CaptureError> for HostError {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

/// The replica is made durable each time the log has grown by this part of its limits.
const DURABLE_PART: u64 = 8;

/// What the file is.
enum FileRole {
    Replica(Box<Replica>),
    /// A replica at no state of the log.
    Lost,
    Application(Box<Capture>),
}

/// See the module.
pub struct Host {
    member: Member<Directory>,
    options: Options,
    limits: Limits,
    file: FileRole,
    shipped: Position,
    /// What lies at the path is neither the application's database nor a replica of it.
    foreign: bool,
    /// Where the log was when the replica was made durable last: bytes and transactions.
    durable: (u64, u64),
}

impl Host {
    /// Opens what this node has: `state` is the directory of log and side files, `options.path` the database. Always as a standby: what an
    /// earlier tenure left in the old write-ahead log is taken into the log first (D9). `now_ms`: the wall clock, for figures.
    pub fn open(state: &Path, options: Options, node: &str, db: DbId, limits: Limits, now_ms: u64) -> Result<Self, HostError> {
        let storage = Directory::open(state).map_err(|why| ApplyError::File { path: state.to_owned(), why })?;
        let mut member = Member::open(storage, node, db, limits)?;
        let (file, foreign) = open_file(&mut member, &options, now_ms)?;
        let shipped = member.position();
        Ok(Self { member, options, limits, file, shipped, foreign, durable: (0, 0) })
    }

    /// Log and lineage: for [`Member::seal`], positions and chains.
    pub fn member(&self) -> &Member<Directory> {
        &self.member
    }

    /// The same, to change.
    pub fn member_mut(&mut self) -> &mut Member<Directory> {
        &mut self.member
    }

    /// Where the file is; `None` when it is at no state of the log and waits for a snapshot.
    pub fn applied(&self) -> Option<Position> {
        match &self.file {
            FileRole::Replica(replica) => Some(replica.position()),
            FileRole::Application(_) => Some(self.member.position()),
            FileRole::Lost => None,
        }
    }

    /// What the capture did, while this node is active.
    pub fn capture(&self) -> Option<&Capture> {
        match &self.file {
            FileRole::Application(capture) => Some(capture),
            _ => None,
        }
    }

    /// A standby takes a live record.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Received, HostError> {
        if self.capture().is_some() {
            return Err(HostError::Role("an active takes no records"));
        }
        Ok(self.member.receive(bytes)?)
    }

    /// Makes durable what came, then applies it. The position to confirm, if it may be (D4).
    pub fn settle(&mut self) -> Result<Option<Position>, HostError> {
        let confirm = self.member.sync()?;
        if let FileRole::Replica(replica) = &mut self.file {
            replica.check()?;
            loop {
                let before = replica.position();
                match replica.apply(self.member.log()) {
                    Ok(at) if at == before => break,
                    Ok(_) => {}
                    Err(ApplyError::Gap { .. } | ApplyError::PageSize { .. }) => {
                        self.file = FileRole::Lost;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        // A log that overflows must not lose what the replica does not hold durably: after a power cut it would be nowhere.
        let (bytes, transactions) = self.durable;
        let (now, head) = (self.member.log().bytes(), self.member.position().tx);
        let grown = now.abs_diff(bytes) > self.limits.bytes / DURABLE_PART;
        if grown || head.abs_diff(transactions) > self.limits.transactions as u64 / DURABLE_PART {
            self.checkpoint()?;
            self.durable = (now, head);
        }
        Ok(confirm)
    }

    /// Makes the replica durable, so that the log may be released up to the position returned.
    pub fn checkpoint(&mut self) -> Result<Option<Position>, HostError> {
        match &mut self.file {
            FileRole::Replica(replica) => Ok(Some(replica.checkpoint(self.member.log_mut().storage_mut())?)),
            _ => Ok(None),
        }
    }

    /// What to ask another node for its tail with: epoch, position, history.
    pub fn ask(&self) -> (u64, Position, Chain) {
        (self.member.noted(), self.member.position(), self.member.chain().clone())
    }

    /// Answers such a question, with about `limit` bytes of records.
    pub fn give(&self, position: Position, chain: &Chain, limit: u64) -> Result<Tail, HostError> {
        Ok(self.member.tail(position, chain, limit)?)
    }

    /// Takes an answer. [`TailOutcome::Diverged`]: what was void is in a divergence file now, and [`Self::applied`] says whether a snapshot is
    /// needed.
    pub fn take_tail(&mut self, epoch: u64, chain: &Chain, records: &[Vec<u8>]) -> Result<TailOutcome, HostError> {
        if self.capture().is_some() {
            return Err(HostError::Role("an active takes no tail"));
        }
        let outcome = self.member.take_tail(epoch, chain, records)?;
        if let TailOutcome::Diverged(keep) = outcome {
            let shared = self.member.shared(chain).is_some();
            self.member.rewind(keep)?;
            if self.applied().is_none_or(|applied| applied.tx > keep.tx) || !shared {
                self.file = FileRole::Lost;
            }
        }
        Ok(outcome)
    }

    /// The whole database in chunks, each to `sink`. Which state, of which history.
    pub fn snapshot(&mut self, now_ms: u64, sink: impl FnMut(Vec<u8>) -> std::io::Result<()>) -> Result<(Position, Chain), HostError> {
        let FileRole::Application(capture) = &mut self.file else { return Err(HostError::Role("only an active makes a snapshot")) };
        let position = capture.snapshot(self.member.log_mut(), now_ms, sink).map_err(HostError::Snapshot)?;
        Ok((position, self.member.chain().clone()))
    }

    /// Takes a snapshot, all its chunks in order, of a node that noted `epoch`. Whether it was of use. What is void here is kept first.
    pub fn take_snapshot(
        &mut self,
        epoch: u64,
        position: Position,
        chain: &Chain,
        chunks: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<bool, HostError> {
        let needed = self.applied().is_none();
        let usage = self.member.weigh(position, chain, needed);
        if self.capture().is_some() || epoch < self.member.noted() || usage == SnapshotUse::Ignore {
            return Ok(false);
        }
        if let SnapshotUse::Jump(keep) = usage {
            self.member.rewind(keep)?;
        }
        // From here on the file is at no state of the log until the last step is done; a crash between finds it so.
        self.file = FileRole::Lost;
        let mut replica = Replica::open_unknown(&self.options.path, self.member.db())?;
        let mut writer = replica.snapshot();
        let mut reached = None;
        for bytes in chunks {
            let Record::Chunk(chunk) = decode(bytes.as_ref()).map_err(HostError::Decode)? else {
                return Err(HostError::Role("a start in a snapshot"));
            };
            reached = writer.take(&chunk)?;
        }
        drop(writer);
        if reached != Some(position) {
            return Err(ApplyError::Snapshot("it ends early, or at another state".to_owned()).into());
        }
        replica.checkpoint(self.member.log_mut().storage_mut())?;
        match usage {
            SnapshotUse::Jump(_) => self.member.jump(position, chain)?,
            _ => self.member.placed()?,
        }
        self.file = FileRole::Replica(Box::new(replica));
        self.foreign = false;
        Ok(true)
    }

    /// Begins `epoch` here, sealed and with the best tail in the log. From now on the application may open the file (or has made it: the first
    /// time there is nothing to apply).
    pub fn begin(&mut self, epoch: u64, now_ms: u64) -> Result<(), HostError> {
        self.settle()?;
        let start = self.member.make_start(epoch)?;
        self.shipped = start.base;
        let sums = match &mut self.file {
            FileRole::Replica(replica) if replica.position() != start.base => {
                return Err(HostError::Role("the database is not at the end of the log"));
            }
            FileRole::Replica(replica) => {
                replica.checkpoint(self.member.log_mut().storage_mut())?;
                replica.sums().clone()
            }
            // Nobody has a history yet: what the application has, from before or made just now, is what it begins with.
            FileRole::Lost if start.base == Position::default() => PageSums::default(),
            _ => return Err(HostError::Role("the database is at no state of the log")),
        };
        // Ours closes before the capture's descriptors are opened: each close drops the locks of the whole process.
        self.file = FileRole::Lost;
        let db = self.member.db();
        match Capture::begin(self.options.clone(), db, self.member.log_mut(), &start, sums, now_ms) {
            Ok(capture) => {
                self.file = FileRole::Application(Box::new(capture));
                self.member.started(start)?;
                Ok(())
            }
            Err(error) => {
                (self.file, self.foreign) = open_file(&mut self.member, &self.options, now_ms)?;
                Err(error.into())
            }
        }
    }

    /// Captures what was committed, moves the keeper when it is time (`quiet`: since when nothing was), and gives each record to `ship`.
    pub fn poll(&mut self, quiet: Duration, now_ms: u64, ship: impl FnMut(&[u8])) -> Result<(), HostError> {
        let FileRole::Application(capture) = &mut self.file else { return Err(HostError::Role("only an active captures")) };
        capture.poll(self.member.log_mut(), now_ms)?;
        capture.advance(self.member.log_mut(), quiet, now_ms)?;
        self.unshipped(ship)
    }

    /// One record in memory at a time.
    fn unshipped(&mut self, mut ship: impl FnMut(&[u8])) -> Result<(), HostError> {
        let log = self.member.log();
        let place = log.place(self.shipped).unwrap_or(0);
        for entry in log.entries().skip(place) {
            log.read(entry, |bytes, _| {
                ship(bytes);
                Ok::<_, LogError>(())
            })?;
        }
        self.shipped = self.member.position();
        Ok(())
    }

    /// Wakes when the application writes.
    pub fn watch(&self) -> Option<Watch> {
        self.capture().map(Capture::watch)
    }

    /// The tenure is over and the unit stopped: the rest of the write-ahead log goes into the log, and the file is a replica again. `ship` gets
    /// what was not shipped yet, for a successor that waits for it (D11).
    pub fn retire(&mut self, now_ms: u64, ship: impl FnMut(&[u8])) -> Result<(), HostError> {
        if let FileRole::Application(capture) = &mut self.file {
            // What cannot be followed any more is looked at below, with nobody beside us.
            let polled = capture.poll(self.member.log_mut(), now_ms);
            self.file = FileRole::Lost;
            polled?;
            self.member.sync()?;
        }
        self.file = FileRole::Lost;
        (self.file, self.foreign) = open_file(&mut self.member, &self.options, now_ms)?;
        self.unshipped(ship)
    }

    /// Goes on as the active of `epoch`, which this node began: after a restart of this process beside an application that runs on, or once
    /// the database can be followed again. What was committed meanwhile is read from the write-ahead log, or found by comparing pages and
    /// counted ([`crate::capture::Resync`]). `false`: this node did not begin that epoch, or another has been noted since; nothing was done.
    ///
    /// After an error the file is held up in nothing, and this may be tried again.
    pub fn resume(&mut self, epoch: u64, now_ms: u64) -> Result<bool, HostError> {
        if self.member.is_stale() || !self.member.began(epoch)? {
            return Ok(false);
        }
        // Ours closes before the capture's descriptors are opened: each close drops the locks of the whole process.
        self.file = FileRole::Lost;
        let db = self.member.db();
        let sums = crate::sums::at_head(self.member.log(), db)?;
        let capture = Capture::resume(self.options.clone(), db, self.member.log_mut(), sums, now_ms)?;
        self.member.sync()?;
        self.file = FileRole::Application(Box::new(capture));
        Ok(true)
    }

    /// Whether what lies at the path, while nothing is applied or followed, is another file than the application had.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// An operator's word: the file that lies at the path now is the application's database, although it is not the one that was followed
    /// ([`CaptureError::Replaced`]). [`Self::resume`] compares it with what was known, and what differs becomes the next transaction.
    pub fn adopt_file(&mut self) -> std::io::Result<()> {
        let db = self.member.db();
        Capture::adopt(self.member.log_mut(), db)
    }

    /// Makes room for the active's database where a file lies that was there before anything was replicated, or that took the place of the
    /// application's: it gets another name, with its write-ahead log, and that name is given. `None`: there is no such file.
    pub fn set_aside(&mut self, now_ms: u64) -> std::io::Result<Option<PathBuf>> {
        let untouched = self.member.chain().starts().is_empty() && self.member.position() == Position::default();
        let path = &self.options.path;
        let ours = !untouched && !self.foreign;
        if !matches!(self.file, FileRole::Lost) || ours || std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            return Ok(None);
        }
        let aside = beside(path, &format!(".before-{now_ms}"));
        // The write-ahead log first: a crash in between leaves a database without it under the old name, and both files are kept.
        match std::fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::rename(path, &aside)?,
        }
        match std::fs::remove_file(beside(path, "-shm")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(aside)),
        }
    }

    /// Lets go of a database that cannot be followed for now, so that the application is held up in nothing. [`Self::resume`] goes on.
    pub fn let_go(&mut self) {
        self.file = FileRole::Lost;
    }

    /// Reads the whole database: whether it is what the transactions made of it, and, of a replica, what SQLite's own check says. Gives the state
    /// that was read and what is wrong, nothing where all is well. The state's checksum is equal on all nodes that have it.
    pub fn verify(&mut self, now_ms: u64) -> Result<(Position, Vec<String>), HostError> {
        match &mut self.file {
            FileRole::Application(capture) => {
                let found = capture.verify(self.member.log_mut(), now_ms)?;
                Ok((
                    found.position,
                    found.wrong.iter().map(|page| format!("page {page} is not what its transactions made of it")).collect(),
                ))
            }
            FileRole::Replica(replica) => {
                let position = replica.position();
                let found = replica.read_all()?.total();
                let mut wrong = Vec::new();
                if found != position.checksum {
                    wrong.push(format!("its pages sum up to {found:016x} instead of {:016x}", position.checksum));
                }
                wrong.extend(replica.integrity_check()?.into_iter().filter(|line| line != "ok"));
                Ok((position, wrong))
            }
            FileRole::Lost => Err(HostError::Role("the database is at no state of the log")),
        }
    }

    /// The database file.
    pub fn path(&self) -> PathBuf {
        self.options.path.clone()
    }
}

/// The file as a replica, wherever it is; what only its write-ahead log has goes into the log first. Also, whether it is another file than the
/// application had: that is no replica, and nothing of it goes into the log.
fn open_file(member: &mut Member<Directory>, options: &Options, now_ms: u64) -> Result<(FileRole, bool), HostError> {
    let db = member.db();
    match Replica::open(&options.path, db, member.log()) {
        Ok(replica) => return Ok((FileRole::Replica(Box::new(replica)), false)),
        Err(ApplyError::Unknown { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let captured = member.log().entries().next_back().is_some_and(|entry| entry.mark.is_some());
    let sums = if captured && !member.is_stale() { crate::sums::at_head(member.log(), db)? } else { None };
    let Some(sums) = sums else { return Ok((FileRole::Lost, false)) };
    // Nobody else has the file open: this is the old write-ahead log of an earlier tenure of ours.
    match Capture::resume(options.clone(), db, member.log_mut(), Some(sums), now_ms) {
        Ok(capture) => drop(capture),
        Err(CaptureError::Replaced(_) | CaptureError::Deleted(_)) => return Ok((FileRole::Lost, true)),
        Err(error) => return Err(error.into()),
    }
    member.sync()?;
    match Replica::open(&options.path, db, member.log()) {
        Ok(replica) => Ok((FileRole::Replica(Box::new(replica)), false)),
        Err(ApplyError::Unknown { .. }) => Ok((FileRole::Lost, false)),
        Err(error) => Err(error.into()),
    }
}
