//! D6: the active's log into the stream, behind whatever is there.

use crate::lineage::{Chain, Found, Position, judge};
use crate::transaction::Record;

/// What to do next with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStep {
    /// Append the record behind this one of our log, on condition that the stream ends with `last`. Where the log begins later than `after`
    /// (it overflowed, or came from a snapshot), a snapshot of the present state is appended in its place: what is between is in nobody's hands.
    Append {
        /// The stream's last sequence, as far as known.
        last: u64,
        /// Last of our log's positions that is in the stream; what follows it is to be appended.
        after: Position,
    },
    /// Read the record at this sequence, by a leader get, and tell [`Backfill::found`].
    Read {
        /// Its sequence.
        sequence: u64,
    },
    /// Somebody with a higher epoch appends: stop being active.
    Deposed,
}

/// Where the active of one epoch is with the stream. Live frames never wait for it.
#[derive(Clone, Debug)]
pub struct Backfill {
    chain: Chain,
    last: u64,
    after: Position,
    reading: bool,
    deposed: bool,
}

impl Backfill {
    /// Begins behind sequence `last`: everything up to there is in our history or was judged before; what of our log that is, `after` says.
    /// Reads on from there first, since a new active does not know what the old one appended.
    pub fn new(chain: Chain, last: u64, after: Position) -> Self {
        Self { chain, last, after, reading: true, deposed: false }
    }

    /// The next step.
    pub fn step(&self) -> StreamStep {
        if self.deposed {
            StreamStep::Deposed
        } else if self.reading {
            StreamStep::Read { sequence: self.last + 1 }
        } else {
            StreamStep::Append { last: self.last, after: self.after }
        }
    }

    /// The append got through: the stream ends with `sequence`, and that is our record at `position`; `None`: a part of one, more of which is
    /// to follow.
    pub fn appended(&mut self, sequence: u64, position: Option<Position>) {
        self.last = sequence;
        self.after = position.unwrap_or(self.after);
    }

    /// The append was refused, or nobody knows: never tried again blindly.
    pub fn unsure(&mut self) {
        self.reading = true;
    }

    /// What is at the sequence read: nothing, or these records. `log`: whether a state is one of our log.
    pub fn found<'r>(&mut self, records: Option<impl IntoIterator<Item = &'r Record>>, log: impl Fn(Position) -> bool) {
        let Some(records) = records else {
            self.reading = false;
            return;
        };
        for record in records {
            // A part of a group is judged by its epoch only: it counts with its last chunk, and what is begun here is begun anew.
            let part = Position { epoch: record.epoch(), ..Position::default() };
            let whole = record.reaches();
            let position = whole.unwrap_or(part);
            match judge(&self.chain, whole.is_some_and(&log), position.epoch, position.tx) {
                Found::Deposed => {
                    self.deposed = true;
                    return;
                }
                Found::Mine | Found::Inherited if whole.is_some() && position.tx >= self.after.tx => self.after = position,
                Found::Mine | Found::Inherited | Found::Void => {}
            }
        }
        self.last += 1;
    }

    /// The last sequence that was judged.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Last of our log's positions that is in the stream.
    pub fn after(&self) -> Position {
        self.after
    }
}
