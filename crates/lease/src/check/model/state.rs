//! The state of a model run: real voters, real holders, real set changes, and a network that forgets nothing.

use super::config::{Config, Limits};
use crate::change::SetChange;
use crate::holder::{Holder, HolderConfig};
use crate::message::Message;
use crate::rules::{Fault, Planted};
use crate::set::{Member, VoterSet};
use crate::time::{Span, Time, Timing};
use crate::types::{BootId, ClusterId, Epoch, Instance, Node, NodeName, SetNo, Slot, SlotName, VoterId};
use crate::voter::{Journal, Voter, VoterConfig};
use std::sync::Arc;

pub(super) const CLUSTER: ClusterId = ClusterId(7);

/// The one slot. A partition, so that renewals go as bitmaps.
pub(super) fn slot() -> Slot {
    thread_local!(static SLOT: Slot = {
        #[expect(clippy::unwrap_used, reason = "a constant name")]
        let ring = SlotName::new("s").unwrap();
        Slot::Ring { ring, partition: 0 }
    });
    SLOT.with(Clone::clone)
}

/// Who a message is from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A candidate.
    Node(usize),
    /// A voter.
    Voter(usize),
    /// A driver of a set change.
    Driver(usize),
}

/// A message that may be delivered at any time from now on, any number of times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Envelope {
    /// Sender.
    pub from: Party,
    /// Receiver.
    pub to: Party,
    /// What it says.
    pub message: Message,
}

/// A candidate's machine.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// Its agent.
    pub holder: Holder<Planted>,
    /// The slot's deadline word.
    pub word: u64,
    /// The epoch last armed.
    pub armed: Epoch,
    /// The slot's unit executes until this local time, in this epoch, unless stopped before: deadline + fence.
    pub runs: Option<(Time, Epoch)>,
    /// Lives of the agent.
    pub lives: u64,
}

/// A voter's machine.
#[derive(Clone, Debug)]
pub struct VoterState {
    /// The voter.
    pub voter: Voter<Planted>,
    /// Boots of its machine.
    pub boots: u64,
}

/// The whole cluster.
#[derive(Clone)]
pub struct State {
    /// True time in ticks.
    pub now: u64,
    /// Voters.
    pub voters: Vec<Arc<VoterState>>,
    /// Candidates.
    pub nodes: Vec<Arc<NodeState>>,
    /// Set changes under way or done.
    pub drivers: Vec<Arc<SetChange<Planted>>>,
    /// Everything ever sent that may still matter.
    pub net: Vec<Arc<Envelope>>,
    /// What may still happen.
    pub left: Limits,
    /// Highest epoch acquired.
    pub highest: Epoch,
    /// What went wrong.
    pub broken: Option<&'static str>,
    pub(super) config: Arc<Config>,
}

pub(super) fn name(prefix: char, index: usize) -> NodeName {
    #[expect(clippy::unwrap_used, reason = "two characters")]
    NodeName::new(&format!("{prefix}{index}")).unwrap()
}

/// The voter set `index` of the run, or the rival one.
pub(super) fn voter_set(number: u64, voters: &[usize]) -> VoterSet {
    let members = voters.iter().map(|&v| Member { id: VoterId(v as u128), node: name('v', v) }).collect();
    #[expect(clippy::unwrap_used, reason = "sets of a run are written down by hand")]
    VoterSet::new(SetNo(number), members).unwrap()
}

impl Config {
    pub(super) fn span(&self, ticks: u64) -> Span {
        Span(ticks * self.unit)
    }

    pub(super) fn holder(&self, index: usize, life: u64) -> Holder<Planted> {
        // P2 left out: a restarted agent is not told from its former life.
        let life = if self.fault == Some(Fault::EpochReused) { 0 } else { life };
        let node = Node { boot: BootId(1), name: name('n', index) };
        let config = HolderConfig {
            cluster: CLUSTER,
            node,
            instance: Instance(life),
            timing: Timing { rate_ppm: self.rate_ppm, fence: self.span(self.fence) },
            stagger: Span::ZERO,
            max_t: self.span(self.max_t),
            // No timers of its own: the run decides when to renew and whether to ask again.
            renewals_per_t: 1,
        };
        let mut holder = Holder::with_rules(Planted(self.fault), config, voter_set(1, &self.sets[0]));
        holder.assume_seen(Epoch(self.seen[index]));
        holder
    }

    pub(super) fn voter_config(&self, index: usize, boot: u64) -> VoterConfig {
        let node = Node { boot: BootId(u128::from(boot)), name: name('v', index) };
        VoterConfig { cluster: CLUSTER, node, max_t: self.span(self.max_t), slots_max: 8 }
    }

    pub(super) fn init(self: &Arc<Self>) -> State {
        let all = self.sets.iter().chain(&self.rival).flatten().max().map_or(0, |highest| highest + 1);
        let voters = (0..all).map(|index| {
            let set = self.sets[0].contains(&index).then(|| voter_set(1, &self.sets[0]));
            let mut journal = Journal::new(VoterId(index as u128), set);
            journal.may_have_acked = self.joining_wait && journal.set.is_none();
            let (voter, _) = Voter::start_with(Planted(self.fault), self.voter_config(index, 1), Time(0), journal, None);
            Arc::new(VoterState { voter, boots: 1 })
        });
        let nodes = (0..2).map(|index| {
            let holder = self.holder(index, 0);
            Arc::new(NodeState { holder, word: crate::word::FENCED, armed: Epoch(0), runs: None, lives: 0 })
        });
        State {
            now: 0,
            voters: voters.collect(),
            nodes: nodes.collect(),
            drivers: Vec::new(),
            net: Vec::new(),
            left: self.limits.clone(),
            highest: Epoch(0),
            broken: None,
            config: Arc::clone(self),
        }
    }
}

impl State {
    /// A node's clock.
    pub(super) fn node_time(&self, index: usize) -> Time {
        Time(self.now * self.config.node_speed[index])
    }

    /// Every voter's clock, and every driver's.
    pub(super) fn voter_time(&self) -> Time {
        Time(self.now * self.config.voter_speed)
    }

    /// The nodes on which the slot's unit executes, and in which epoch.
    pub fn executing(&self) -> impl Iterator<Item = (usize, Epoch)> + '_ {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| node.runs.filter(|(until, _)| self.node_time(index) < *until).map(|(_, epoch)| (index, epoch)))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let executing: Vec<_> = self.executing().collect();
        write!(f, "tick {}, executing {executing:?}, highest {}, broken {:?}", self.now, self.highest, self.broken)
    }
}
