//! The rules as a type, so that the model can break one on purpose.
//!
//! [`AsWritten`] breaks none, costs nothing, and is the only [`Rules`] there is in a build without the feature `check`. The trait is
//! sealed: no other crate can add one.

use std::fmt::Debug;

/// A rule to leave out, so that a test shows that the checks see it missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// V6: a voter without valid records answers at once.
    NoRestartWait,
    /// V6: renewals are accepted during the wait.
    RenewDuringWait,
    /// V6: a process restart in the midst of the wait forgets the wait.
    WaitForgotten,
    /// V6: a torn record is taken for an empty one.
    TornRecordIgnored,
    /// V7: floors start at nothing after a reboot.
    FloorForgotten,
    /// V1: a higher epoch replaces a live grant of another node.
    HigherEpochOverrides,
    /// V1, P5: once a holder's node released anything of the slot, another node is let in.
    SuccessorSkipsV1,
    /// V2: a refused Acquire raises the floor all the same, as a promise would.
    RefusalRaisesFloor,
    /// V3: an Acquire of another life of the agent replaces its node's live grant.
    OtherLifeReplaces,
    /// V4: a partition's bit is taken for whatever epoch the voter knows.
    BitWithoutEpoch,
    /// V5: a release clears any grant of its node.
    ReleaseByNodeOnly,
    /// V5: a release clears the grant of another life of the agent.
    ReleaseIgnoresInstance,
    /// P1, P3: the deadline counts from the answer.
    TimerFromAnswer,
    /// P1: an answer is taken for one to the latest message.
    AckWithoutSendNo,
    /// P2: a restarted agent is taken for its former life and uses an epoch again.
    EpochReused,
    /// P3: a late ack revives a tenure whose deadline passed.
    DeadTenureRevived,
    /// P3, K: the holder makes no allowance for clock rates.
    DriftIgnored,
    /// P4: renewals count as acquisition.
    RenewCountsAsAcquire,
    /// P5: Release leaves before the slot stopped.
    ReleaseBeforeStop,
    /// F2: the agent extends a word that was fenced.
    FencedExtended,
    /// B5: set n+2 follows n+1 without the wait for n's deadlines.
    NextSetWithoutWait,
    /// B5: a voter that installed n+1 still answers in set n.
    OldSetAnswered,
    /// B5: the next set starts with floors of its own.
    FloorNotCarried,
    /// B5: a set is installed before a majority of the former one agreed to exactly it.
    InstallUnprepared,
    /// B5: a driver asks for the word of the next round although the present one may still decide.
    RoundNotSplit,
    /// B5: a set is installed by everybody while a voter that it takes for a majority still waits.
    JoinedWhileWaiting,
}

mod sealed {
    pub trait Sealed {}
}

/// Says which rule is left out. Sealed; [`AsWritten`] leaves out none.
pub trait Rules: sealed::Sealed + Clone + Debug + Default + Send + Sync + 'static {
    /// Is this rule left out?
    fn breaks(&self, fault: Fault) -> bool;
}

/// The rules as written.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsWritten;

impl sealed::Sealed for AsWritten {}

impl Rules for AsWritten {
    #[inline(always)]
    fn breaks(&self, _: Fault) -> bool {
        false
    }
}

/// The rules less at most one.
#[cfg(feature = "check")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted(pub Option<Fault>);

#[cfg(feature = "check")]
impl sealed::Sealed for Planted {}

#[cfg(feature = "check")]
impl Rules for Planted {
    fn breaks(&self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}
