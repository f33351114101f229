//! One machine: an agent with its voter, a guard, and units; hosted as `holder` and `voter` say a host should.

use crate::holder::{Holder, HolderConfig};
use crate::message::Message;
use crate::rules::Planted;
use crate::set::VoterSet;
use crate::slots::SlotMap;
use crate::time::Time;
use crate::types::{BootId, ClusterId, Epoch, Instance, Node, NodeName};
use crate::voter::{Journal, RunImage, Voter, VoterConfig, decode_record, encode_record};
use crate::word::SlotWord;
use std::collections::VecDeque;

pub(super) const CLUSTER: ClusterId = ClusterId(11);

/// Messages kept for a paused agent.
const BACKLOG_MAX: usize = 4096;

/// A slot's word and unit on one node.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub word: SlotWord,
    /// The epoch the unit runs in.
    pub unit: Option<Epoch>,
    /// When the guard looks at it next, true time.
    pub look: Option<u64>,
    /// Its end is planned.
    pub stopping: bool,
}

/// The living part: gone with the agent's process.
pub(super) struct Agent {
    pub holder: Holder<Planted>,
    pub voter: Voter<Planted>,
    /// Stands still until then (true time).
    pub paused_until: u64,
    pub backlog: VecDeque<Message>,
    /// The next wake planned, true time.
    pub wake: Option<u64>,
}

pub(super) struct Machine {
    pub name: NodeName,
    pub boot: u128,
    pub lives: u64,
    /// How fast its clock goes, in parts per million off true time.
    pub drift: i64,
    pub powered: bool,
    pub cut: bool,
    pub agent: Option<Agent>,
    pub places: SlotMap<Place>,
    pub journal: Journal,
    /// What the mapped file under /run would hold; filled when the agent dies.
    pub run: Option<RunImage>,
    /// Assigned order of candidates; nodes may disagree.
    pub order: std::sync::Arc<[NodeName]>,
    pub ready: bool,
}

impl Machine {
    /// This machine's clock at a true time.
    pub(super) fn clock(&self, now: u64) -> Time {
        let rate = 1_000_000 + self.drift;
        Time((i128::from(now) * i128::from(rate) / 1_000_000) as u64 + 1_000_000)
    }

    /// The first true time at which this machine's clock shows `time`.
    pub(super) fn true_time(&self, time: Time) -> u64 {
        let rate = i128::from(1_000_000 + self.drift);
        let units = i128::from(time.0.saturating_sub(1_000_000)) * 1_000_000;
        u64::try_from((units + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    fn node(&self) -> Node {
        Node { boot: BootId(self.boot), name: self.name.clone() }
    }

    /// Starts agent and voter.
    pub(super) fn start(&mut self, now: u64, rules: Planted, set: VoterSet) {
        self.lives += 1;
        let config = HolderConfig::new(CLUSTER, self.node(), Instance(self.lives << 8 | u64::from(self.name.as_str().len() as u8)));
        let voter_config = VoterConfig::new(CLUSTER, self.node());
        let (voter, _) = Voter::start_with(rules, voter_config, self.clock(now), self.journal.clone(), self.run.take());
        self.journal = voter.journal().clone();
        let holder = Holder::with_rules(rules, config, set);
        self.agent = Some(Agent { holder, voter, paused_until: 0, backlog: VecDeque::new(), wake: None });
    }

    /// Kills the agent's process. What its voter had stored stays; with `torn`, one record of it was being written.
    pub(super) fn kill(&mut self, torn: Option<usize>) {
        let Some(agent) = self.agent.take() else { return };
        self.journal = agent.voter.journal().clone();
        let mut image = RunImage { header: agent.voter.header(), records: Vec::new(), torn: 0 };
        for (index, (slot, state)) in agent.voter.records().enumerate() {
            let mut bytes = encode_record(&slot, state);
            if torn == Some(index) {
                bytes[20] ^= 0xff;
            }
            match decode_record(&bytes) {
                Ok(record) => image.records.extend(record),
                Err(_) => image.torn += 1,
            }
        }
        self.run = Some(image);
    }

    pub(super) fn keep(&mut self, message: Message) {
        if let Some(agent) = &mut self.agent
            && agent.backlog.len() < BACKLOG_MAX
        {
            agent.backlog.push_back(message);
        }
    }
}
