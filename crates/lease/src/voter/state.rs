//! What a voter keeps: the durable journal (V7) and the records under /run (V6), as values.

use super::grant::SlotState;
use crate::message::SetWord;
use crate::set::VoterSet;
use crate::time::Time;
use crate::types::{BootId, Epoch, Slot, VoterId};

/// Step by which epochs are reserved ahead (V7), so that one durable write serves about a million take-overs.
pub const MARK_STEP: u64 = 1 << 20;
/// By how much `voters force` lifts all floors: more than any reservation that dead voters may have made beyond the survivors'.
pub const FORCE_STEP: u64 = 1 << 32;

/// What must survive a power failure (V7). Written as a whole, fsynced before what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Identity of this memory. Lives and dies with the journal: a node that lost it gets a new one.
    pub voter: VoterId,
    /// Once true, acks may have left. A voter that starts with it true and without valid records waits (V6).
    pub may_have_acked: bool,
    /// The installed set (B5.2).
    pub set: Option<VoterSet>,
    /// The set before the installed one; with it a driver can finish a change that another left half done.
    pub former: Option<VoterSet>,
    /// Is the installed set committed (B5.3)?
    pub committed: bool,
    /// Its last word on the set that follows.
    pub prepared: Option<SetWord>,
    /// No epoch above this was ever granted here; after a reboot every floor is this.
    pub mark: Epoch,
}

impl Journal {
    /// The journal of a voter that never granted anything. The host writes it when the voter is made (`init`, `join`), with the
    /// first set if it is a voter from the start.
    #[must_use]
    pub const fn new(voter: VoterId, set: Option<VoterSet>) -> Self {
        Self { voter, may_have_acked: false, committed: set.is_some(), set, former: None, prepared: None, mark: Epoch(0) }
    }
}

/// Head of the file under /run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The file is valid in this boot only: its times are of this boot's clock.
    pub boot: BootId,
    /// Whose file.
    pub voter: VoterId,
    /// The voter answers `Waiting` until then. Kept here since a process restart must not cut the wait short.
    pub waiting_until: Option<Time>,
    /// Slots without a record of their own are held by unknown until then (a torn record could be anyone's).
    pub unknown_until: Option<Time>,
    /// Every floor is at least this.
    pub base: Epoch,
}

/// The file under /run as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunImage {
    /// Its head, checksum good.
    pub header: RunHeader,
    /// The records whose checksums are good.
    pub records: Vec<(Slot, SlotState)>,
    /// How many records were torn.
    pub torn: usize,
}
