//! A database made anew from what is durable: a snapshot, if there is one, and the records of the stream after it. The file appears under its
//! name when it is complete.
//!
//! Nothing is taken on trust: each record by its checksum, each transaction by the checksum of the whole database before and after it, and in
//! the end all pages of the file and SQLite's own check. What is missing or damaged ends the way, and is named.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::apply::{ApplyError, Replica};
use crate::capture::beside;
use crate::lineage::Position;
use crate::log::{Limits, LogError, TransactionLog};
use crate::storage::Directory;
use crate::stream::{Lineage, Reader, StreamError, Use};
use crate::transaction::{Chunk, DbId, DecodeError, MAX_CHUNK, Record, decode, decode_all};

/// Bytes of records that are applied together.
const TOGETHER: usize = 4 << 20;

/// Why a database was not made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing that is there is ever written over.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A file beside it.
    #[error("{path} cannot be written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        why: std::io::Error,
    },
    /// The records go into a log first, as those of a replica do.
    #[error("the records cannot be kept")]
    Log(#[source] LogError),
    /// And from there into the file.
    #[error("the database cannot be written")]
    Apply(#[source] ApplyError),
    /// Two records that do not fit each other.
    #[error("the records contradict each other")]
    Stream(#[source] StreamError),
    /// The snapshot.
    #[error("a record of the snapshot is damaged")]
    Snapshot(#[source] DecodeError),
    /// There is nothing to make it from.
    #[error("there is neither a snapshot nor a record from the beginning on")]
    Nothing,
}

impl From<LogError> for RestoreError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ApplyError> for RestoreError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(error)
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The state that the file has.
    pub position: Position,
    /// The last transaction of which anything is there: beyond the file's where one between is missing or damaged.
    pub last: u64,
    /// Messages that are no records of this database, or damaged.
    pub damaged: u64,
    /// What is wrong with the file: nothing.
    pub wrong: Vec<String>,
}

impl Restored {
    /// What is not as it should be, in sentences.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.wrong.clone();
        if self.damaged > 0 {
            remarks.push(format!("{} messages of the stream are damaged or of another database", self.damaged));
        }
        if self.position.tx < self.last {
            let Position { tx, .. } = self.position;
            remarks.push(format!(
                "transaction {} is missing or damaged in the stream, which goes up to {}: restored up to {tx}",
                tx + 1,
                self.last
            ));
        }
        remarks
    }
}

/// See the module.
pub struct Restore {
    target: PathBuf,
    making: PathBuf,
    scratch: PathBuf,
    db: DbId,
    log: TransactionLog<Directory>,
    replica: Replica,
    reader: Reader,
    /// The chunks of a snapshot that is not whole yet.
    snapshot: Option<BufWriter<File>>,
    pending: usize,
    damaged: u64,
}

impl Restore {
    /// Begins. `scratch`: a folder for what is needed meanwhile, of the same database or new; its files are the caller's to remove.
    pub fn begin(target: &Path, scratch: &Path, db: DbId, lineage: Lineage) -> Result<Self, RestoreError> {
        if target.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists(target.to_owned()));
        }
        let making = beside(target, ".restoring");
        for old in [making.clone(), beside(&making, "-wal"), beside(&making, "-shm")] {
            match std::fs::remove_file(&old) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(RestoreError::File { path: old, why }),
                _ => {}
            }
        }
        let storage = Directory::open(scratch).map_err(|why| RestoreError::File { path: scratch.to_owned(), why })?;
        let mut log = TransactionLog::open(storage, db, Limits::default())?;
        log.reset(Position::default())?;
        let replica = Replica::open_unknown(&making, db)?;
        let (target, scratch) = (target.to_owned(), scratch.to_owned());
        Ok(Self { target, making, scratch, db, log, replica, reader: Reader::new(lineage), snapshot: None, pending: 0, damaged: 0 })
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    /// Takes the next message of the stream, in their order.
    pub fn take(&mut self, message: &[u8]) -> Result<(), RestoreError> {
        for record in decode_all(message) {
            match record {
                Ok((bytes, record)) if record.db() == self.db => self.take_one(bytes, &record)?,
                _ => {
                    self.damaged += 1;
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_one(&mut self, bytes: &[u8], record: &Record) -> Result<(), RestoreError> {
        match (self.reader.take(record).map_err(RestoreError::Stream)?, record) {
            (Use::Skip, _) => {}
            (Use::Snapshot, Record::Chunk(chunk)) => self.take_chunk(bytes, chunk)?,
            _ => {
                if matches!(record, Record::Chunk(chunk) if chunk.index == 0) {
                    // Begun anew where it broke off.
                    self.log.abandon_group();
                }
                self.log.append(bytes, None)?;
                self.pending += bytes.len();
                if self.pending >= TOGETHER {
                    self.apply()?;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RestoreError> {
        self.pending = 0;
        loop {
            let before = self.replica.position();
            if self.replica.apply(&self.log)? == before {
                break;
            }
        }
        Ok(self.log.release(self.replica.position().tx)?)
    }

    /// A snapshot is of use when it is whole, and not before.
    fn take_chunk(&mut self, bytes: &[u8], chunk: &Chunk) -> Result<(), RestoreError> {
        let path = self.scratch.join("snapshot");
        let failed = |why| RestoreError::File { path: path.clone(), why };
        if chunk.index == 0 {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
            self.snapshot = Some(BufWriter::new(file));
        }
        let Some(file) = &mut self.snapshot else { return Ok(()) };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        file.write_all(&length).and_then(|()| file.write_all(bytes)).map_err(failed)?;
        if chunk.close.is_none() {
            return Ok(());
        }
        let Some(file) = self.snapshot.take() else { return Ok(()) };
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.rewind().map_err(failed)?;
        let placed = self.place(BufReader::new(file), &path)?;
        std::fs::remove_file(&path).map_err(failed)?;
        self.log.reset(placed)?;
        self.pending = 0;
        Ok(())
    }

    /// Begins with a snapshot from elsewhere: chunks, each behind its length in four bytes. It has to be one of this history.
    pub fn place_snapshot(&mut self, chunks: impl std::io::Read) -> Result<Position, RestoreError> {
        let path = self.making.clone();
        let placed = self.place(chunks, &path)?;
        self.log.reset(placed)?;
        self.reader = Reader::at(self.reader.lineage().clone(), placed);
        Ok(placed)
    }

    fn place(&mut self, mut chunks: impl std::io::Read, path: &Path) -> Result<Position, RestoreError> {
        let failed = |why| RestoreError::File { path: path.to_owned(), why };
        let mut writer = self.replica.snapshot();
        loop {
            let mut length = [0; 4];
            chunks.read_exact(&mut length).map_err(failed)?;
            let length = (u32::from_le_bytes(length) as usize).min(MAX_CHUNK);
            let mut bytes = vec![0; length];
            chunks.read_exact(&mut bytes).map_err(failed)?;
            let Record::Chunk(chunk) = decode(&bytes).map_err(RestoreError::Snapshot)? else {
                return Err(RestoreError::Snapshot(DecodeError::Content("a start in a snapshot")));
            };
            if let Some(at) = writer.take(&chunk)? {
                return Ok(at);
            }
        }
    }

    /// All was given: the file is checked, and gets its name.
    pub fn finish(mut self) -> Result<Restored, RestoreError> {
        self.apply()?;
        let position = self.replica.position();
        if position.tx == 0 {
            self.discard();
            return Err(RestoreError::Nothing);
        }
        let mut wrong: Vec<String> = self.replica.integrity_check()?.into_iter().filter(|line| line != "ok").collect();
        let found = self.replica.read_all()?.total();
        if found != position.checksum {
            wrong.push(format!("its pages sum up to {found:016x} instead of {:016x}", position.checksum));
        }
        let Self { target, making, scratch, replica, reader, damaged, .. } = self;
        // Its last connection takes the write-ahead log into the file.
        drop(replica);
        let failed = |why| RestoreError::File { path: target.clone(), why };
        File::open(&making).and_then(|file| file.sync_all()).map_err(failed)?;
        if target.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists(target));
        }
        std::fs::rename(&making, &target).map_err(failed)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(&scratch);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Restored { position, last: reader.lineage().last().max(position.tx), damaged, wrong })
    }

    /// Gives it up: nothing of it stays but in the scratch folder.
    pub fn discard(&self) {
        for file in [self.making.clone(), beside(&self.making, "-wal"), beside(&self.making, "-shm")] {
            // Not there, as a rule.
            let _gone = std::fs::remove_file(file);
        }
    }
}
