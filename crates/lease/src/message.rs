//! What voters and holders say to each other. `cluster-bus` encodes it.
//!
//! All of it may be lost, late, doubled or out of order. A message without an answer means nothing (N4).

use crate::set::VoterSet;
use crate::slots::{Claims, SlotSet};
use crate::time::Span;
use crate::types::{ClusterId, Epoch, Instance, Node, NodeName, SendNo, SetNo, VoterId};

/// Slots of one message: so many bytes' worth at most, by [`weight`]. Larger batches are sent in parts.
pub const CLAIMS_WEIGHT_MAX: usize = 64 * 1024;

/// An upper bound of what one slot of this name takes in an encoded message, in bytes. A partition never takes more than 16.
#[must_use]
pub const fn weight(name_len: usize) -> usize {
    name_len + 16
}

/// Acquire, Renew or Release of many slots, to one voter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// Which cluster (V8).
    pub cluster: ClusterId,
    /// The set this ask is counted in (P4, B5.4). Release is taken in any set.
    pub set: SetNo,
    /// The voter meant. An ask that reaches a voter with another memory is refused (V8).
    pub voter: VoterId,
    /// Who asks.
    pub node: Node,
    /// Which life of its agent.
    pub instance: Instance,
    /// T, the lease length. Nothing in a Release.
    pub t: Span,
    /// Repeated in the answer (P1).
    pub send_no: SendNo,
    /// The slots, each with the epoch of the asker's tenure.
    pub claims: Claims,
}

/// A voter's answer to an [`Ask`]: the Ack and the Nacks of one message together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who answers.
    pub from: NodeName,
    /// With which memory. Answers are counted by this.
    pub voter: VoterId,
    /// The set the voter has installed.
    pub set: SetNo,
    /// Of the ask.
    pub send_no: SendNo,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Judged slot by slot. A slot in neither list was left out of an answer too long; its sender asks again.
    Slots {
        /// The Ack.
        accepted: SlotSet,
        /// The Nacks.
        refused: Vec<(Why, SlotSet)>,
    },
    /// Refused as a whole.
    Refused(Why),
}

/// Why a voter refuses. Nothing changes at a voter that refuses (V2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// V1: another node's grant has not expired.
    Held {
        /// Whose.
        by: Node,
        /// In which epoch.
        epoch: Epoch,
    },
    /// V3, V4: the epoch is not above this one.
    Epoch(Epoch),
    /// B5.2: another set is installed, this one.
    Set(VoterSet),
    /// V6: the voter, or this slot at it, waits out leases it may have granted.
    Waiting,
    /// V5: the tenure was released already.
    Released,
    /// V8: T is above the longest.
    Length,
    /// V8: another cluster.
    Cluster,
    /// V8: not the voter meant, or one that has no set.
    Voter,
    /// V8: an epoch that no tenure can have.
    EpochRange,
    /// The voter's table is full of live grants.
    Full,
}

/// A candidate asks a voter to be told when slots are free. Soft: forgotten after [`WATCH_TTL`](crate::voter::WATCH_TTL).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The voter meant.
    pub voter: VoterId,
    /// Who wants to know.
    pub node: NodeName,
    /// Which part of its list; a part replaces the former one of this number.
    pub part: u16,
    /// The slots it wants to know about.
    pub slots: SlotSet,
}

/// A voter's hint: these slots are free here (P7). Proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Free {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who says so.
    pub from: NodeName,
    /// With which memory.
    pub voter: VoterId,
    /// The slots, each with the highest epoch granted here.
    pub floors: Claims,
    /// The node whose grants of them ran out, if it is that: most likely it failed, and nobody waits for its rank's turn.
    pub ran_out: Option<NodeName>,
}

/// A former holder's hint to its successor: stopped and released, go (P5). Proves nothing; V1 still decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handover {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The former holder.
    pub from: NodeName,
    /// The slots, each with the epoch released.
    pub released: Claims,
}

/// A step of a voter-set change (B5), from whoever drives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetAsk {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The voter meant.
    pub voter: VoterId,
    /// Where the answer goes.
    pub reply_to: NodeName,
    /// The step.
    pub step: SetStep,
}

/// What a voter says, once per round and for good, when it is asked which set shall follow the installed one. A majority of one word in one
/// round decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetWord {
    /// Rises when the words of all voters in the round before were split, so that it can never decide.
    pub round: u32,
    /// The set that shall follow.
    pub set: VoterSet,
}

impl SetWord {
    /// The word of the first round.
    #[must_use]
    pub const fn first(set: VoterSet) -> Self {
        Self { round: 0, set }
    }
}

/// See [`SetChange`](crate::change::SetChange).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetStep {
    /// Report only.
    Report,
    /// Give this word; nothing else changes.
    Prepare(SetWord),
    /// Install this set; a majority of the former one prepared it.
    Install(VoterSet),
    /// Raise all floors to this epoch; the set is installed.
    Floor(SetNo, Epoch),
    /// The change to this set is complete.
    Commit(SetNo),
    /// `clusterctl voters force`: an operator vouches that the voters not listed are dead.
    Force(VoterSet),
}

/// A voter's state after a [`SetAsk`], whether it did as asked or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetAnswer {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who answers.
    pub from: NodeName,
    /// With which memory.
    pub voter: VoterId,
    /// Installed, durably.
    pub installed: Option<VoterSet>,
    /// The set installed before.
    pub former: Option<VoterSet>,
    /// Is the installed set committed?
    pub committed: bool,
    /// Its last word on the next set, durable, and that set not yet installed.
    pub prepared: Option<SetWord>,
    /// The highest epoch granted in any set so far.
    pub high: Epoch,
    /// Every floor here is at least this.
    pub base: Epoch,
    /// It waits after a restart (V6) and acks nothing yet.
    pub waiting: bool,
}

/// Any message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// To a voter: a new tenure.
    Acquire(Ask),
    /// To a voter: a held tenure goes on.
    Renew(Ask),
    /// To a voter: a tenure has ended.
    Release(Ask),
    /// To a holder.
    Answer(Answer),
    /// To a voter.
    Watch(Watch),
    /// To a candidate.
    Free(Free),
    /// To a candidate.
    Handover(Handover),
    /// To a voter.
    SetAsk(SetAsk),
    /// To the driver of a change.
    SetAnswer(SetAnswer),
}

impl Message {
    /// The node that says it sent this. The receiver compares it with the subject the message came on.
    #[must_use]
    pub const fn from(&self) -> &NodeName {
        match self {
            Self::Acquire(ask) | Self::Renew(ask) | Self::Release(ask) => &ask.node.name,
            Self::Answer(answer) => &answer.from,
            Self::Watch(watch) => &watch.node,
            Self::Free(free) => &free.from,
            Self::Handover(handover) => &handover.from,
            Self::SetAsk(ask) => &ask.reply_to,
            Self::SetAnswer(answer) => &answer.from,
        }
    }

    /// The cluster it belongs to.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        match self {
            Self::Acquire(ask) | Self::Renew(ask) | Self::Release(ask) => ask.cluster,
            Self::Answer(answer) => answer.cluster,
            Self::Watch(watch) => watch.cluster,
            Self::Free(free) => free.cluster,
            Self::Handover(handover) => handover.cluster,
            Self::SetAsk(ask) => ask.cluster,
            Self::SetAnswer(answer) => answer.cluster,
        }
    }

    /// Is it for the voter on the receiving node (else for its holder, or for the driver of a set change)?
    #[must_use]
    pub const fn is_for_voter(&self) -> bool {
        matches!(self, Self::Acquire(_) | Self::Renew(_) | Self::Release(_) | Self::Watch(_) | Self::SetAsk(_))
    }
}
