//! What may happen, and what comes of it.

use super::config::Before;
use super::state::{CLUSTER, Envelope, NodeState, Party, State, VoterState, slot, voter_set};
use crate::change::{SetChange, Stage};
use crate::holder::{Action, Event, Phase, Purpose};
use crate::message::{Message, SetStep, Verdict, Why};
use crate::rules::{Fault, Planted};
use crate::set::VoterSet;
use crate::time::{Span, Time};
use crate::types::{Epoch, NodeName, SetNo, VoterId};
use crate::voter::{Released, RunImage, SlotState, Voter, VoterAction, decode_header, decode_record, encode_header, encode_record};
use crate::word::{FENCED, extended};
use std::sync::Arc;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time goes on by one tick.
    Tick,
    /// A message arrives.
    Deliver(Arc<Envelope>),
    /// A node tries to acquire.
    Attempt(usize),
    /// A node renews.
    Renew(usize),
    /// A node renews with the longest T.
    RenewLong(usize),
    /// A node learns of the newest set that a voter has installed.
    Learn(usize),
    /// A node is told to give up the slot.
    Release(usize),
    /// The unit has stopped, and the agent hears of it.
    Stopped(usize),
    /// The guard fences, at or after the deadline.
    Fence(usize),
    /// The guard fences before the deadline.
    FenceEarly(usize),
    /// The agent notices that the word is fenced.
    Notice(usize),
    /// The agent dies and starts again.
    Crash(usize),
    /// A voter's process dies and starts again in the same boot.
    Restart(usize),
    /// The same, in the midst of writing its record.
    RestartTorn(usize),
    /// A voter's machine boots again.
    Reboot(usize),
    /// The next change of voters begins.
    Change,
    /// The rival change begins.
    Rival,
}

impl State {
    /// Everything that may happen now.
    pub(super) fn steps(&self, steps: &mut Vec<Step>) {
        if self.broken.is_some() {
            return;
        }
        let left = &self.left;
        steps.extend(self.net.iter().map(|envelope| Step::Deliver(Arc::clone(envelope))));
        for (index, node) in self.nodes.iter().enumerate() {
            let phase = node.holder.phase(&slot());
            let idle = phase.is_none_or(|phase| matches!(phase, Phase::Idle));
            let executing = self.executing().any(|(node, _)| node == index);
            let now = self.node_time(index);
            if left.attempts[index] > 0 && idle && !executing && node.word == FENCED {
                steps.push(Step::Attempt(index));
            }
            if self.config.prompt_changes {
                let known = node.holder.sets().current().number();
                steps.extend(self.newest(index).filter(|set| set.number() > known).map(|_| Step::Learn(index)));
            }
            if let Some(Phase::Holding(holding)) = phase {
                if left.renewals[index] > 0 {
                    steps.push(Step::Renew(index));
                }
                if left.long_renewals > 0 {
                    steps.push(Step::RenewLong(index));
                }
                if left.releases > 0 && holding.stopping.is_none() {
                    steps.push(Step::Release(index));
                }
                if node.word == FENCED {
                    steps.push(Step::Notice(index));
                }
                if holding.stopping.is_some() {
                    steps.push(Step::Stopped(index));
                }
            }
            if matches!(phase, Some(Phase::Ended { .. })) {
                steps.push(Step::Stopped(index));
            }
            if node.word != FENCED {
                if now.0 >= node.word {
                    steps.push(Step::Fence(index));
                } else if left.early_fences > 0 {
                    steps.push(Step::FenceEarly(index));
                }
            }
            if left.crashes > 0 && left.crash_node == index && phase.is_some() {
                steps.push(Step::Crash(index));
            }
        }
        for index in 0..self.voters.len() {
            let used = self.voters[index].voter.records().next().is_some();
            if left.restarts > 0 && (used || self.voters[index].voter.waiting(self.voter_time()).is_some()) {
                steps.push(Step::Restart(index));
            }
            if left.torn > 0 && used {
                steps.push(Step::RestartTorn(index));
            }
            if left.reboots > 0 && used {
                steps.push(Step::Reboot(index));
            }
        }
        let acquired = self.highest > Epoch(0) || self.config.change_any_time;
        let settled = self.drivers.last().is_none_or(|driver| driver.stage() == Stage::Committed);
        if self.drivers.len() + 1 < self.config.sets.len() && settled && acquired {
            steps.push(Step::Change);
        }
        if self.config.rival.is_some() && self.drivers.len() == 1 {
            steps.push(Step::Rival);
        }
        if self.config.horizon.is_none_or(|end| self.now < end) {
            steps.push(Step::Tick);
        }
    }

    /// Lets happen what has happened before the run.
    pub(super) fn begin(&mut self) {
        for before in self.config.before.clone() {
            match before {
                Before::Attempt(node) => self.take(&Step::Attempt(node)),
                Before::Learn(node) => self.take(&Step::Learn(node)),
                Before::Renew(node) => self.take(&Step::Renew(node)),
                Before::Tick => self.take(&Step::Tick),
                Before::Stopped(node) => self.take(&Step::Stopped(node)),
                Before::Change => self.take(&Step::Change),
                Before::Rival => self.take(&Step::Rival),
                Before::Exchange(node, voter) => self.exchange(Party::Node(node), Party::Voter(voter)),
                Before::Drive(driver, voter) => self.exchange(Party::Driver(driver), Party::Voter(voter)),
            }
        }
    }

    fn exchange(&mut self, a: Party, b: Party) {
        for (from, to) in [(a, b), (b, a)] {
            let letters: Vec<_> = self.net.iter().filter(|e| e.from == from && e.to == to).cloned().collect();
            letters.into_iter().for_each(|envelope| self.take(&Step::Deliver(envelope)));
        }
    }

    /// Lets it happen.
    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Tick => self.tick(),
            Step::Deliver(envelope) => self.deliver(envelope),
            Step::Attempt(index) => {
                self.left.attempts[*index] -= 1;
                self.node_event(*index, Event::Acquire { slot: slot(), t: self.config.span(self.config.t) });
            }
            Step::Renew(index) => {
                self.left.renewals[*index] -= 1;
                self.node_event(*index, Event::RenewNow);
            }
            Step::RenewLong(index) => {
                self.left.long_renewals -= 1;
                self.node_event(*index, Event::RenewLong);
            }
            Step::Learn(index) => {
                if let Some(newest) = self.newest(*index) {
                    self.node_event(*index, Event::Set(newest));
                }
            }
            Step::Release(index) => {
                self.left.releases -= 1;
                let successor = super::state::name('n', 1 - index);
                self.node_event(*index, Event::Release { slot: slot(), successor: Some(successor) });
            }
            Step::Stopped(index) => {
                let epoch = self.nodes[*index].holder.phase(&slot()).and_then(Phase::epoch).unwrap_or_default();
                self.node(*index).runs = None;
                self.node_event(*index, Event::Stopped { slot: slot(), epoch });
            }
            Step::Fence(index) => self.node(*index).word = FENCED,
            Step::FenceEarly(index) => {
                self.left.early_fences -= 1;
                let until = self.node_time(*index) + self.config.span(self.config.fence_takes);
                let node = self.node(*index);
                node.word = FENCED;
                node.runs = node.runs.map(|(planned, epoch)| (planned.min(until), epoch));
            }
            Step::Notice(index) => {
                let epoch = self.nodes[*index].armed;
                self.node_event(*index, Event::Fenced { slot: slot(), epoch });
            }
            Step::Crash(index) => self.crash(*index),
            Step::Restart(index) => {
                self.left.restarts -= 1;
                self.restart(*index, false);
            }
            Step::RestartTorn(index) => {
                self.left.torn -= 1;
                self.restart(*index, true);
            }
            Step::Reboot(index) => {
                self.left.reboots -= 1;
                let boots = self.voters[*index].boots + 1;
                self.start_voter(*index, boots, None);
            }
            Step::Change => {
                let number = self.drivers.len() as u64 + 1;
                let (from, next) = (&self.config.sets[self.drivers.len()], &self.config.sets[self.drivers.len() + 1]);
                let (from, next) = (voter_set(number, from), voter_set(number + 1, next));
                self.drive(from, next);
            }
            Step::Rival => {
                let from = voter_set(1, &self.config.sets[0]);
                let next = voter_set(2, self.config.rival.as_deref().unwrap_or_default());
                self.drive(from, next);
            }
        }
        self.judge();
        let dead: Vec<bool> = self.net.iter().map(|envelope| self.is_dead(envelope)).collect();
        let mut dead = dead.into_iter();
        self.net.retain(|_| !dead.next().unwrap_or(false));
    }

    /// The newest set installed anywhere. Should there be two of one number, each node hears of another one.
    fn newest(&self, index: usize) -> Option<VoterSet> {
        let mut installed: Vec<_> = self.voters.iter().filter_map(|voter| voter.voter.journal().set.clone()).collect();
        installed.sort_by_key(VoterSet::number);
        let highest = installed.last().map(VoterSet::number);
        installed.retain(|set| Some(set.number()) == highest);
        if index == 0 { installed.into_iter().next() } else { installed.pop() }
    }

    fn drive(&mut self, from: VoterSet, next: VoterSet) {
        let name = super::state::name('d', self.drivers.len());
        let rules = Planted(self.config.fault);
        let span = self.config.span(self.config.max_t);
        if let Ok(driver) = SetChange::with_rules(rules, CLUSTER, name, span, from, next) {
            self.drivers.push(Arc::new(driver));
            self.driver_event(self.drivers.len() - 1, None);
        }
    }

    fn node(&mut self, index: usize) -> &mut NodeState {
        Arc::make_mut(&mut self.nodes[index])
    }

    fn tick(&mut self) {
        self.now += 1;
        for index in 0..self.nodes.len() {
            // Lets the holder see the time; what it then sends could as well be sent later, which is what the network does anyway.
            self.node_event(index, Event::Fenced { slot: slot(), epoch: Epoch(0) });
        }
        for index in 0..self.drivers.len() {
            if matches!(self.drivers[index].stage(), Stage::Wait(_)) {
                self.driver_event(index, None);
            }
        }
    }

    fn deliver(&mut self, envelope: &Envelope) {
        match envelope.to {
            Party::Node(index) => self.node_event(index, Event::Message(envelope.message.clone())),
            Party::Voter(index) => self.voter_message(index, &envelope.message),
            Party::Driver(index) => {
                if let Message::SetAnswer(answer) = &envelope.message {
                    self.driver_event(index, Some(answer));
                }
            }
        }
    }

    fn send(&mut self, from: Party, to: &NodeName, message: Message) {
        let mut letters = to.as_str().chars();
        let kind = letters.next();
        let index = letters.as_str().parse().unwrap_or(usize::MAX);
        let to = match kind {
            Some('v') => Party::Voter(index),
            Some('d') => Party::Driver(index),
            _ => Party::Node(index),
        };
        if matches!(message, Message::Watch(_) | Message::Free(_) | Message::Handover(_)) {
            return; // hints: attempts may be made at any time here
        }
        if let (Message::SetAnswer(answer), Party::Driver(driver), true) = (&message, to, self.config.prompt_changes) {
            self.driver_event(driver, Some(answer));
            return;
        }
        let envelope = Envelope { from, to, message };
        if self.net.iter().all(|known| **known != envelope) {
            self.net.push(Arc::new(envelope));
        }
    }

    fn node_event(&mut self, index: usize, event: Event) {
        let now = self.node_time(index);
        let mut actions = Vec::new();
        self.node(index).holder.handle(now, Span::ZERO, event, &mut actions);
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    if let Message::Release(ask) = &message {
                        let released = ask.claims.iter().next().map(|(_, epoch)| epoch);
                        let runs = self.executing().any(|(node, epoch)| node == index && Some(epoch) == released);
                        if runs || self.nodes[index].word != FENCED && released == Some(self.nodes[index].armed) {
                            self.broken = Some("P5: Release sent while the slot is armed or executes");
                        }
                    }
                    self.send(Party::Node(index), &to, message);
                }
                Action::Arm { tenure, deadline, .. } => {
                    if tenure.epoch <= self.highest {
                        self.broken = Some("epochs of acquisitions do not rise");
                    }
                    self.highest = self.highest.max(tenure.epoch);
                    let until = deadline + self.config.span(self.config.fence_takes);
                    let node = self.node(index);
                    (node.word, node.armed, node.runs) = (deadline.0, tenure.epoch, Some((until, tenure.epoch)));
                }
                Action::Extend { epoch, deadline, .. } => {
                    let until = deadline + self.config.span(self.config.fence_takes);
                    let planted = Planted(self.config.fault);
                    let node = self.node(index);
                    let was = node.word;
                    match extended(&planted, node.word, now, deadline) {
                        Ok(Some(word)) => {
                            (node.word, node.runs) = (word, Some((until, epoch)));
                            if was == FENCED {
                                self.broken = Some("F2: a fenced word was extended");
                            } else if now.0 >= was {
                                self.broken = Some("P3: a dead tenure lives again");
                            }
                        }
                        Ok(None) => {}
                        Err(_) => self.node_event(index, Event::Fenced { slot: slot(), epoch }),
                    }
                }
                Action::Disarm { .. } => self.node(index).word = FENCED,
                Action::Lost { .. } | Action::Released { .. } | Action::Failed { .. } => {}
            }
        }
    }

    /// P6. What is armed is adopted; everything else is not held.
    fn crash(&mut self, index: usize) {
        self.left.crashes -= 1;
        let lives = self.nodes[index].lives + 1;
        let holder = self.config.holder(index, lives);
        let now = self.node_time(index);
        let node = self.node(index);
        (node.holder, node.lives) = (holder, lives);
        if now.0 < node.word {
            let (epoch, deadline) = (node.armed, Time(node.word));
            let t = self.config.span(self.config.t);
            self.node_event(index, Event::Adopt { slot: slot(), t, epoch, deadline });
            self.node_event(index, Event::Tick);
        }
    }

    fn voter_message(&mut self, index: usize, message: &Message) {
        let now = self.voter_time();
        let is_release = matches!(message, Message::Release(_));
        let before = Arc::clone(&self.voters[index]);
        let mut actions = Vec::new();
        Arc::make_mut(&mut self.voters[index]).voter.handle(now, message, &mut actions);
        for action in actions {
            if let VoterAction::Send(to, message) = action {
                if let Message::Answer(answer) = &message {
                    let refused = match &answer.verdict {
                        Verdict::Slots { accepted, .. } => accepted.is_empty(),
                        Verdict::Refused(_) => true,
                    };
                    if refused && !same(&before, &self.voters[index]) {
                        self.broken = Some("V2: a refusal changed the voter");
                    }
                    let of_set = matches!(answer.verdict, Verdict::Refused(Why::Set(_)));
                    if refused && !(of_set && !self.config.prompt_changes || self.config.nacks) || is_release && !self.config.release_acks {
                        continue;
                    }
                }
                self.send(Party::Voter(index), &to, message);
            }
        }
    }

    /// V6: a restart in the same boot, through the bytes that a mapped file would hold.
    fn restart(&mut self, index: usize, torn: bool) {
        let voter = &self.voters[index].voter;
        let mut records: Vec<(crate::types::Slot, SlotState)> = Vec::new();
        let mut bad = 0;
        for (slot, state) in voter.records() {
            let mut bytes = encode_record(&slot, state);
            if torn {
                bytes[9] ^= 0x5a;
            }
            match decode_record(&bytes) {
                Ok(record) => records.extend(record),
                Err(_) => bad += 1,
            }
        }
        let Ok(header) = decode_header(&encode_header(&voter.header())) else {
            self.broken = Some("V6: the head does not read back");
            return;
        };
        let boots = self.voters[index].boots;
        self.start_voter(index, boots, Some(RunImage { header, records, torn: bad }));
    }

    fn start_voter(&mut self, index: usize, boots: u64, run: Option<RunImage>) {
        let journal = self.voters[index].voter.journal().clone();
        let config = self.config.voter_config(index, boots);
        let (voter, _) = Voter::start_with(Planted(self.config.fault), config, self.voter_time(), journal, run);
        self.voters[index] = Arc::new(VoterState { voter, boots });
    }

    fn driver_event(&mut self, index: usize, answer: Option<&crate::message::SetAnswer>) {
        let now = self.voter_time();
        let asks = Arc::make_mut(&mut self.drivers[index]).handle(now, answer);
        for (to, message) in asks {
            self.send(Party::Driver(index), &to, message);
        }
    }

    /// A message that changes nothing now nor later, so that states with and without it are one.
    fn is_dead(&self, envelope: &Envelope) -> bool {
        match (&envelope.message, envelope.from, envelope.to) {
            (Message::Answer(answer), _, Party::Node(index)) => {
                let node = &self.nodes[index];
                let Some(sent) = super::canon::sent(node, answer.send_no, self.node_time(index)) else { return true };
                let acked = matches!(&answer.verdict, Verdict::Slots { accepted, .. } if !accepted.is_empty());
                if !acked || sent.purpose == Purpose::Release {
                    return false;
                }
                let votes = match node.holder.phase(&slot()) {
                    Some(Phase::Attempt(attempt)) if sent.claims.iter().any(|(_, epoch)| epoch == attempt.epoch) => &attempt.votes,
                    Some(Phase::Holding(holding)) if sent.claims.iter().any(|(_, epoch)| epoch == holding.epoch) => &holding.votes,
                    // Of a tenure that is over, unless it may still tell of another set.
                    _ => return self.config.sets.len() == 1,
                };
                let plain = !matches!(self.config.fault, Some(Fault::AckWithoutSendNo | Fault::TimerFromAnswer));
                let until = sent.at + node.holder.config().timing.hold(sent.t);
                let counted = votes.iter().any(|vote| vote.voter == answer.voter && vote.set == sent.set && vote.until >= until);
                counted && plain && self.config.sets.len() == 1
            }
            (Message::Acquire(ask) | Message::Renew(ask) | Message::Release(ask), _, Party::Voter(index)) => {
                let installed = self.voters[index].voter.journal().set.as_ref().map_or(SetNo(0), VoterSet::number);
                let release = matches!(envelope.message, Message::Release(_));
                if self.config.prompt_changes && !release && ask.set < installed && self.config.fault != Some(Fault::OldSetAnswered) {
                    return true;
                }
                // The mark of a release outlives everything but a reboot or a torn record.
                let lasting = self.left.reboots == 0 && self.left.torn == 0 && !self.config.nacks && !self.config.release_acks;
                let marked = |released: &Released| {
                    ask.claims
                        .iter()
                        .all(|(_, epoch)| released.node == ask.node && released.instance == ask.instance && epoch <= released.epoch)
                };
                lasting
                    && self.voters[index].voter.records().any(|(_, state)| state.released.iter().any(marked))
                    && self.config.fault.is_none_or(|fault| fault != Fault::ReleaseByNodeOnly && fault != Fault::ReleaseIgnoresInstance)
            }
            (Message::SetAsk(ask), _, Party::Voter(index)) if self.config.prompt_changes => {
                let voter = &self.voters[index].voter;
                let installed = voter.journal().set.as_ref().map_or(SetNo(0), VoterSet::number);
                match &ask.step {
                    SetStep::Prepare(word) => word.set.number() <= installed,
                    SetStep::Install(set) => set.number() <= installed,
                    SetStep::Floor(_, floor) => voter.header().base >= *floor,
                    SetStep::Commit(number) => *number < installed || *number == installed && voter.journal().committed,
                    SetStep::Report => false,
                    SetStep::Force(_) => true,
                }
            }
            _ => false,
        }
    }

    /// The properties.
    fn judge(&mut self) {
        if self.broken.is_some() {
            return;
        }
        if self.executing().count() > 1 {
            self.broken = Some("two nodes execute");
        } else if self.executing().any(|(_, epoch)| epoch < self.highest) {
            self.broken = Some("an old epoch executes after a newer one was acquired");
        } else if self.nodes.iter().any(|node| node.word != FENCED && node.runs.is_none()) {
            self.broken = Some("F2: armed after it stopped");
        } else if self.config.limits.reboots == 0 && self.drivers.iter().any(|driver| self.is_stuck(driver)) {
            self.broken = Some("B5.3: a set is installed in which no majority answers yet");
        }
    }

    /// Whether voters left the former set for one that needs a voter that waits: every lease would run out.
    fn is_stuck(&self, driver: &SetChange<Planted>) -> bool {
        let (next, now) = (driver.next(), self.voter_time());
        let of = |id: VoterId| self.voters.get(usize::try_from(id.0).unwrap_or(usize::MAX)).map(|state| &state.voter);
        let waits = |id: VoterId| of(id).is_some_and(|voter| voter.waiting(now).is_some());
        let left = |id: VoterId| of(id).is_some_and(|voter| voter.journal().set.as_ref() == Some(next));
        let answer = next.agreed(|id| !waits(id));
        !answer && next.members().iter().any(|member| left(member.id) && !waits(member.id))
    }
}

fn same(a: &VoterState, b: &VoterState) -> bool {
    a.voter.journal() == b.voter.journal() && a.voter.header() == b.voter.header() && a.voter.records().eq(b.voter.records())
}
