//! One node's log and lineage: what it takes from whom, and what it answers.

use super::Sealed;
use crate::divergence::{self, DivergenceError};
use crate::lineage::{Admission, Chain, Corruption, Follow, Position, Start, admit};
use crate::log::{Item, Limits, LogError, TransactionLog};
use crate::meta::{Meta, MetaError};
use crate::storage::Storage;
use crate::transaction::{DbId, DecodeError, Record, decode};

/// Why a member could not do what was asked. Its state is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The log.
    #[error("the transaction log failed")]
    Log(#[source] LogError),
    /// The lineage file: without it nothing may be answered (D4).
    #[error("the lineage could not be noted")]
    Meta(#[source] MetaError),
    /// Divergence could not be kept, so nothing was thrown away.
    #[error("divergence could not be kept")]
    Divergence(#[source] DivergenceError),
    /// What came is no record.
    #[error("what was received is no record")]
    Decode(#[source] DecodeError),
    /// Same name, other content (D10).
    #[error("the database here and the one of the sender differ")]
    Corrupt(#[source] Corruption),
    /// The history here ends in an epoch whose start is not known: take a snapshot, with its chain.
    #[error("no start is known for epoch {0}")]
    NoChain(u64),
    /// An epoch can only be begun by who noted it, and above the one before.
    #[error("epoch {asked} cannot begin here: {noted} is noted")]
    Epoch {
        /// The epoch.
        asked: u64,
        /// Noted.
        noted: u64,
    },
}

impl From<LogError> for MemberError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<MetaError> for MemberError {
    fn from(error: MetaError) -> Self {
        Self::Meta(error)
    }
}

impl From<DivergenceError> for MemberError {
    fn from(error: DivergenceError) -> Self {
        Self::Divergence(error)
    }
}

/// What became of a live record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The log ends there now; durable, and to be confirmed, after the next [`Member::sync`].
    Appended(Position),
    /// A chunk of a group that is not whole yet.
    Partial,
    /// Known already.
    Known,
    /// Of an epoch below the noted one (D4): its sender is deposed.
    Refused {
        /// Noted here.
        noted: u64,
    },
    /// It does not follow the log's end: ask the sender for its tail.
    Behind,
}

/// What a snapshot is good for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotUse {
    /// It is a state of our log: the database becomes it, then [`Member::placed`], and the log leads on.
    Place,
    /// It is further than our log, or off it: [`Member::rewind`] to this state first (it keeps what is void), then the database becomes it, then
    /// [`Member::jump`].
    Jump(Position),
    /// We have that or more.
    Ignore,
}

/// What a node gives to one that asks for its tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Records that lead on, at most about as many bytes as asked for; ask again for more.
    Records {
        /// This node's history.
        chain: Chain,
        /// What follows it, encoded.
        records: Vec<Vec<u8>>,
    },
    /// Its log does not reach back so far: a snapshot is needed.
    Snapshot {
        /// This node's history.
        chain: Chain,
    },
}

/// What became of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailOutcome {
    /// The log ends there now.
    Appended(Position),
    /// Transactions of ours after this state are void: [`Member::rewind`] keeps them as divergence. A database beyond it needs a snapshot, and
    /// so does one at it when nothing of the log is part of the history.
    Diverged(Position),
    /// Its sender is deposed (D4).
    Refused {
        /// Noted here.
        noted: u64,
    },
}

/// See the module.
pub struct Member<S> {
    node: String,
    meta: Meta,
    log: TransactionLog<S>,
}

impl<S: Storage> Member<S> {
    /// Opens what this node has of database `db`, and mends what a crash left between its two files.
    pub fn open(storage: S, node: &str, db: DbId, limits: Limits) -> Result<Self, MemberError> {
        let known = Meta::load(&storage)?.filter(|meta| meta.db == db);
        let mut meta = known.unwrap_or_else(|| Meta::new(db));
        let mut log = TransactionLog::open(storage, db, limits)?;
        let head = log.head();
        // The log first, the lineage second: starts that got into the one only.
        for entry in log.entries() {
            if let Item::Start(start) = &entry.item
                && start.epoch > meta.chain.epoch()
            {
                let _ = meta.chain.push(start.clone());
            }
        }
        meta.chain = cut(&meta.chain, head);
        meta.noted = meta.noted.max(head.epoch);
        meta.store(log.storage_mut())?;
        Ok(Self { node: node.to_owned(), meta, log })
    }

    /// The end of its log.
    pub fn position(&self) -> Position {
        self.log.head()
    }

    /// Its history.
    pub fn chain(&self) -> &Chain {
        &self.meta.chain
    }

    /// The highest epoch it noted.
    pub fn noted(&self) -> u64 {
        self.meta.noted
    }

    /// Its database's id.
    pub fn db(&self) -> DbId {
        self.meta.db
    }

    /// Its log.
    pub fn log(&self) -> &TransactionLog<S> {
        &self.log
    }

    /// Its log, for a capture to append to.
    pub fn log_mut(&mut self) -> &mut TransactionLog<S> {
        &mut self.log
    }

    /// D4, D5: notes `epoch` durably, throws a half group away, and says what is here.
    pub fn seal(&mut self, epoch: u64) -> Result<Sealed, MemberError> {
        self.meta.note(self.log.storage_mut(), epoch)?;
        self.log.abandon_group();
        self.log.sync()?;
        Ok(Sealed { epoch: self.meta.noted, position: self.log.head(), chain: self.meta.chain.clone() })
    }

    /// Takes a live record.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Received, MemberError> {
        let record = decode(bytes).map_err(MemberError::Decode)?;
        let epoch = match &record {
            Record::Start { start, .. } => start.epoch,
            Record::Chunk(chunk) => chunk.epoch,
        };
        if admit(self.meta.noted, epoch) == Admission::Refuse {
            return Ok(Received::Refused { noted: self.meta.noted });
        }
        self.meta.note(self.log.storage_mut(), epoch)?;
        let head = self.log.head();
        match record {
            Record::Start { start, .. } => {
                if self.meta.chain.starts().contains(&start) {
                    return Ok(Received::Known);
                }
                if (start.base.epoch, start.base.tx) != (head.epoch, head.tx) {
                    return Ok(Received::Behind);
                }
                if start.base.checksum != head.checksum {
                    return Err(corrupt(head, start.base.checksum));
                }
                let position = self.log.append(bytes, None)?;
                self.log.sync()?;
                self.adopt(start)?;
                Ok(position.map_or(Received::Partial, Received::Appended))
            }
            Record::Chunk(chunk) if chunk.epoch == head.epoch && chunk.tx <= head.tx => Ok(Received::Known),
            Record::Chunk(chunk) if chunk.epoch != head.epoch || chunk.tx != head.tx + 1 => Ok(Received::Behind),
            Record::Chunk(_) => match self.log.append(bytes, None) {
                Ok(Some(position)) => Ok(Received::Appended(position)),
                Ok(None) => Ok(Received::Partial),
                Err(LogError::Group(_)) => Ok(Received::Behind),
                Err(LogError::Checksum { found, .. }) => Err(corrupt(head, found)),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Makes everything received durable. What may be confirmed then, to the active of the noted epoch; `None` when what is here is of an
    /// epoch before (D4).
    pub fn sync(&mut self) -> Result<Option<Position>, MemberError> {
        self.log.sync()?;
        let head = self.log.head();
        Ok((head.epoch == self.meta.noted).then_some(head))
    }

    /// What to give to a node with this position and history: whole transactions of about `limit` bytes together, but one at least. A
    /// transaction is in memory as a whole here; [`Self::tail_each`] gives it chunk by chunk.
    pub fn tail(&self, position: Position, chain: &Chain, limit: u64) -> Result<Tail, MemberError> {
        let mut records = Vec::new();
        let found = self.tail_each(position, chain, limit, |record| records.push(record.to_vec()))?;
        let chain = self.meta.chain.clone();
        Ok(if found { Tail::Records { chain, records } } else { Tail::Snapshot { chain } })
    }

    /// The same, each record to `each`. `false`: a snapshot is needed. The other side may give what it receives to [`Self::take_tail`] in as many
    /// calls as it likes: a group is begun in one and closed in another.
    pub fn tail_each(&self, position: Position, chain: &Chain, limit: u64, mut each: impl FnMut(&[u8])) -> Result<bool, MemberError> {
        let head = self.log.head();
        let common = match chain.follow(position, &self.meta.chain, head.tx) {
            Follow::Continue { from } => from,
            Follow::Diverged { common } => common,
        };
        // The last state with that number which the asker has too.
        let known = |at: &Position| at.tx <= common && (chain.holds(at.epoch, at.tx) || *at == Position::default());
        let from = self.log.entries().rposition(|entry| known(&entry.position)).map(|place| place + 1);
        let from = from.or_else(|| known(&self.log.base()).then_some(0));
        let last = from.and_then(|from| from.checked_sub(1)).and_then(|last| self.log.entries().nth(last));
        let at = last.map_or(self.log.base(), |entry| entry.position);
        let Some(from) = from.filter(|_| at.tx == common) else { return Ok(false) };
        let mut bytes = 0;
        for entry in self.log.entries().skip(from) {
            if bytes > 0 && bytes + entry.bytes > limit {
                break;
            }
            bytes += entry.bytes;
            self.log.read(entry, |record, _| {
                each(record);
                Ok::<_, LogError>(())
            })?;
        }
        Ok(true)
    }

    /// Takes a tail: what follows our part of history `chain`. The sender, who noted `epoch`, is the active of that epoch, or the standby a
    /// promotion chose.
    pub fn take_tail(&mut self, epoch: u64, chain: &Chain, records: &[Vec<u8>]) -> Result<TailOutcome, MemberError> {
        if admit(self.meta.noted, epoch) == Admission::Refuse {
            return Ok(TailOutcome::Refused { noted: self.meta.noted });
        }
        self.meta.note(self.log.storage_mut(), epoch)?;
        let head = self.log.head();
        let Some(keep) = self.shared(chain) else { return Ok(TailOutcome::Diverged(self.log.base())) };
        if keep.tx < head.tx {
            return Ok(TailOutcome::Diverged(keep));
        }
        if keep != head {
            // Only a start that came to nothing.
            self.rewind(keep)?;
        }
        for bytes in records {
            let record = decode(bytes).map_err(MemberError::Decode)?;
            match self.log.append(bytes, None) {
                Ok(_) => {}
                // Came live meanwhile.
                Err(LogError::Sequence { .. }) => continue,
                Err(LogError::Checksum { found, head, .. }) => return Err(corrupt(head, found)),
                Err(error) => return Err(error.into()),
            }
            if let Record::Start { start, .. } = record {
                self.log.sync()?;
                self.adopt(start)?;
            }
        }
        self.log.sync()?;
        Ok(TailOutcome::Appended(self.log.head()))
    }

    /// The last state of our log that history `chain` has too. `None`: all that the log holds, its base included, is void. What is void only
    /// the chain tells, not how far its node is: an answer may be late, and we ahead of it.
    pub fn shared(&self, chain: &Chain) -> Option<Position> {
        let shared = |at: &Position| *at == Position::default() || chain.holds(at.epoch, at.tx);
        self.log.entries().rev().map(|entry| entry.position).chain([self.log.base()]).find(shared)
    }

    /// Judges a snapshot at `position` of a node with history `chain`. `needed`: our database is at no state of our log.
    pub fn weigh(&self, position: Position, chain: &Chain, needed: bool) -> SnapshotUse {
        let head = self.log.head();
        if self.log.place(position).is_some() {
            return if needed { SnapshotUse::Place } else { SnapshotUse::Ignore };
        }
        let ahead = position.tx < head.tx || (position.tx == head.tx && !needed);
        if ahead && chain.holds(head.epoch, head.tx) {
            return SnapshotUse::Ignore;
        }
        SnapshotUse::Jump(self.shared(chain).unwrap_or_else(|| self.log.base()))
    }

    /// Goes back to `keep`, a state in the log: what came after it is void, and kept as divergence first (D9). The name of that file.
    pub fn rewind(&mut self, keep: Position) -> Result<Option<String>, MemberError> {
        let name = divergence::keep(&mut self.log, self.meta.db, keep)?;
        if name.is_some() && !self.meta.stale {
            // Before the log forgets them: else the database, after a crash, would look as if it had gone on by itself.
            self.meta.stale = true;
            self.meta.store(self.log.storage_mut())?;
        }
        self.log.truncate_after(keep)?;
        self.meta.chain = cut(&self.meta.chain, keep);
        self.meta.store(self.log.storage_mut())?;
        Ok(name)
    }

    /// The database was set to `position` by a snapshot of a node with history `chain`: the log goes on from there. What the log held beyond
    /// the common part must have been kept before ([`Self::rewind`]).
    pub fn jump(&mut self, position: Position, chain: &Chain) -> Result<(), MemberError> {
        self.log.reset(position)?;
        self.meta.stale = false;
        self.meta.chain = cut(chain, position);
        self.meta.noted = self.meta.noted.max(position.epoch);
        self.meta.store(self.log.storage_mut())?;
        Ok(())
    }

    /// Whether the database may hold void transactions that the log has no more ([`Meta::stale`]).
    pub fn is_stale(&self) -> bool {
        self.meta.stale
    }

    /// The database was found, or put, at a state of the log.
    pub fn placed(&mut self) -> Result<(), MemberError> {
        if std::mem::take(&mut self.meta.stale) {
            self.meta.store(self.log.storage_mut())?;
        }
        Ok(())
    }

    /// The start with which this node opens `epoch` at its log's end. It is part of the history with [`Self::started`].
    pub fn make_start(&self, epoch: u64) -> Result<Start, MemberError> {
        let base = self.log.head();
        if self.meta.noted != epoch || epoch <= base.epoch {
            return Err(MemberError::Epoch { asked: epoch, noted: self.meta.noted });
        }
        Ok(Start { epoch, base, node: self.node.clone() })
    }

    /// Whether this node began `epoch`, and nothing later was noted or appended. A start that a crash left in the log alone is taken over.
    pub fn began(&mut self, epoch: u64) -> Result<bool, MemberError> {
        if self.meta.noted != epoch || self.log.head().epoch != epoch {
            return Ok(false);
        }
        if self.meta.chain.epoch() < epoch {
            let of = |item: &Item| matches!(item, Item::Start(start) if start.epoch == epoch).then(|| item.clone());
            let Some(Item::Start(start)) = self.log.entries().rev().find_map(|entry| of(&entry.item)) else { return Ok(false) };
            self.adopt(start)?;
        }
        Ok(self.meta.chain.starts().last().is_some_and(|start| start.epoch == epoch && start.node == self.node))
    }

    /// The start is in the log, durably: the epoch has begun, with the database at the log's end.
    pub fn started(&mut self, start: Start) -> Result<(), MemberError> {
        self.meta.stale = false;
        self.adopt(start)
    }

    fn adopt(&mut self, start: Start) -> Result<(), MemberError> {
        let epoch = start.epoch;
        self.meta.chain.push(start).map_err(|_| MemberError::NoChain(epoch))?;
        self.meta.store(self.log.storage_mut())?;
        Ok(())
    }
}

/// A history up to a state: epochs that began later are left out. Empty when the state's own epoch is not in it.
fn cut(chain: &Chain, head: Position) -> Chain {
    let starts: Vec<_> = chain.starts().iter().filter(|start| start.epoch <= head.epoch).cloned().collect();
    let known = starts.last().is_none_or(|last| last.epoch == head.epoch);
    if known { Chain::new(starts).unwrap_or_default() } else { Chain::default() }
}

fn corrupt(head: Position, found: u64) -> MemberError {
    MemberError::Corrupt(Corruption { epoch: head.epoch, tx: head.tx, left: head.checksum, right: found })
}
