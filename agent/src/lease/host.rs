//! The lease host: one thread with a runtime and connections of its own, that owns this node's voter, its holder and the deadline words.
//! Nothing else writes them. It does not wait for disks on the way of a renewal, nor for JetStream ever.
//!
//! In: messages of the lease connections, [`Command`]s, time. Out: messages, words, and a [`LeaseView`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cluster_bus::{LeaseLink, lease_wire};
use cluster_fence::{BEAT, STALE, Table, UnitIndex, WordIndex, clock};
use cluster_lease::holder::{Action, Candidacy, Event, Holder};
use cluster_lease::message::Message;
use cluster_lease::set::VoterSet;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, Node, NodeName, Slot};
use cluster_lease::voter::{Voter, VoterAction};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::store::{StoreError, VoterStore};
use super::view::{Command, LeaseView, TenureState, TenureView, Wanted, list_of};

/// Largest jitter of an attempt (rule P7).
const JITTER_MAX: Span = Span::from_millis(5);
/// The renewals of a planned restart are given so long to be answered.
const RESTART_WAIT: Span = Span::from_millis(60);
/// Messages handled in a row before time is looked at again.
const IN_A_ROW: usize = 64;

/// The parts of a host.
pub struct Host {
    pub(super) node: Node,
    pub(super) link: LeaseLink,
    pub(super) table: Arc<Table>,
    pub(super) store: VoterStore,
    pub(super) voter: Voter,
    pub(super) holder: Option<Holder>,
    /// Makes the holder once the voters are known.
    pub(super) make_holder: Box<dyn Fn(VoterSet) -> Holder + Send>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) view: watch::Sender<Arc<LeaseView>>,
    pub(super) remember_voters: Box<dyn Fn(&VoterSet) + Send>,
    pub(super) state: State,
}

/// What the host itself remembers.
#[derive(Default)]
pub(super) struct State {
    wanted: BTreeMap<Slot, Wanted>,
    words: BTreeMap<Slot, WordIndex>,
    tenures: BTreeMap<Slot, TenureView>,
    /// Messages to this node itself.
    local: VecDeque<Message>,
    guard_stale: bool,
    trouble: String,
    next_beat: Time,
    known_set: u64,
    /// Xorshift state for jitter; any non-zero number.
    random: u64,
    restarting: Option<(Time, tokio::sync::oneshot::Sender<()>)>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed | 1, ..Self::default() }
    }
}

impl Host {
    /// Runs until all command senders are gone, or the voter's storage fails: a voter that cannot remember must not answer.
    ///
    /// `remembered` is the set that an earlier agent of this boot counted in.
    pub(super) async fn run(mut self, start: Vec<VoterAction>, remembered: Option<VoterSet>) -> Result<(), StoreError> {
        self.voter_actions(start).await?;
        if let Some(set) = remembered {
            self.learn(set).await;
        }
        self.publish();
        loop {
            self.beat().await;
            let pause = self.pause();
            tokio::select! {
                biased;
                arrived = self.link.next() => match arrived {
                    Some(first) => {
                        self.arrived(&first.from, &first.payload).await?;
                        for _ in 0..IN_A_ROW {
                            let Ok(Some(more)) = tokio::time::timeout(Duration::ZERO, self.link.next()).await else { break };
                            self.arrived(&more.from, &more.payload).await?;
                        }
                    }
                    None => return Ok(()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(pause) => {}
            }
            self.tick().await?;
            self.publish();
        }
    }

    fn pause(&self) -> Duration {
        let now = clock::now();
        let holder = self.holder.as_ref().and_then(Holder::next_wake);
        let restarting = self.state.restarting.as_ref().map(|(at, _)| *at);
        let next = holder.into_iter().chain(self.voter.next_wake()).chain(restarting).chain([self.state.next_beat]).min();
        Duration::from_nanos(next.map_or(BEAT, |at| at - now).0)
    }

    async fn tick(&mut self) -> Result<(), StoreError> {
        let now = clock::now();
        if self.voter.next_wake().is_some_and(|at| at <= now) {
            let mut actions = Vec::new();
            self.voter.tick(now, &mut actions);
            self.voter_actions(actions).await?;
        }
        if self.holder.as_ref().and_then(Holder::next_wake).is_some_and(|at| at <= now) {
            self.event(Event::Tick).await?;
        }
        if self.state.restarting.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, done)) = self.state.restarting.take()
        {
            // Who asked may have given up waiting.
            let _told = done.send(());
        }
        Ok(())
    }

    /// F4: the agent's beat, and a look at the guard's.
    async fn beat(&mut self) {
        let now = clock::now();
        if now < self.state.next_beat {
            return;
        }
        self.state.next_beat = now + BEAT;
        self.table.agent_beats();
        let stale = self.table.guard_silence(now) > STALE;
        if stale != self.state.guard_stale {
            self.state.guard_stale = stale;
            if stale {
                warn!("the guard does not beat: exclusive things are given up until it does");
                self.state.trouble = "cluster-guard does not run on this node, so nothing exclusive can be held".to_owned();
                self.fence_all().await;
            } else {
                info!("the guard beats");
                self.state.trouble.clear();
            }
            self.offer_candidacies().await;
        }
    }

    /// F4: without a guard nobody would end this node's tenures in time, so they end now.
    async fn fence_all(&mut self) {
        let held: Vec<(Slot, u64)> = self.state.tenures.iter().map(|(s, t)| (s.clone(), t.epoch)).collect();
        for (slot, epoch) in held {
            if let Some(word) = self.state.words.get(&slot) {
                self.table.word(*word).fence();
            }
            if let Err(error) = self.event(Event::Fenced { slot, epoch: Epoch(epoch) }).await {
                error!("{}", cluster_telemetry::chain(&error));
            }
        }
    }

    async fn arrived(&mut self, from: &str, payload: &[u8]) -> Result<(), StoreError> {
        match lease_wire::decode(payload) {
            // The subject is what permissions are written for (rule N5): the message must say the same.
            Ok(message) if message.from().as_str() == from => self.deliver(message).await,
            Ok(message) => {
                warn!(from, says = message.from().as_str(), "a lease message under another's name is left out");
                Ok(())
            }
            Err(error) => {
                debug!(from, "an unreadable lease message is left out: {error}");
                Ok(())
            }
        }
    }

    async fn deliver(&mut self, message: Message) -> Result<(), StoreError> {
        self.state.local.push_back(message);
        // What a message makes this node say to itself is done in the same breath.
        while let Some(message) = self.state.local.pop_front() {
            if message.is_for_voter() {
                let mut actions = Vec::new();
                self.voter.handle(clock::now(), &message, &mut actions);
                Box::pin(self.voter_actions(actions)).await?;
            } else {
                self.holder_event(Event::Message(message)).await;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), StoreError> {
        self.holder_event(event).await;
        match self.state.local.pop_front() {
            Some(message) => self.deliver(message).await,
            None => Ok(()),
        }
    }

    async fn voter_actions(&mut self, actions: Vec<VoterAction>) -> Result<(), StoreError> {
        for action in actions {
            match action {
                VoterAction::Journal(journal) => self.store.write_journal(&journal)?,
                VoterAction::StoreHeader(header) => self.store.write_header(&header)?,
                VoterAction::Store(slots) => {
                    let voter = &self.voter;
                    self.store.write(&slots, |slot| voter.record(slot))?;
                }
                VoterAction::Forget(slots) => self.store.forget(&slots)?,
                VoterAction::Send(to, message) => self.send(to, message).await,
            }
        }
        self.learn_own_set().await;
        Ok(())
    }

    /// The holder counts in the set that this node's own voter installed, if that is the newest.
    async fn learn_own_set(&mut self) {
        let Some(set) = self.voter.journal().set.clone() else { return };
        if set.number().0 > self.state.known_set {
            self.learn(set).await;
        }
    }

    async fn learn(&mut self, set: VoterSet) {
        if set.number().0 <= self.state.known_set {
            return;
        }
        self.state.known_set = set.number().0;
        info!(number = set.number().0, voters = set.members().len(), "voter set learned");
        (self.remember_voters)(&set);
        if self.holder.is_some() {
            self.holder_event(Event::Set(set)).await;
        } else {
            self.holder = Some((self.make_holder)(set));
            self.adopt().await;
            self.offer_candidacies().await;
        }
    }

    /// P6: what an earlier agent of this boot holds goes on under its epoch.
    async fn adopt(&mut self) {
        for (name, epoch, deadline) in self.table.armed(clock::now()) {
            let (Ok(slot), Some(word)) = (name.parse::<Slot>(), self.table.find_word(&name)) else { continue };
            info!(slot = name, epoch = epoch.0, "taken up from the agent before");
            self.state.words.insert(slot.clone(), word);
            self.state.tenures.insert(slot.clone(), TenureView { epoch: epoch.0, state: TenureState::Held });
            let t = self.state.wanted.get(&slot).map_or(super::DEFAULT_T, |w| w.t);
            self.holder_event(Event::Adopt { slot, t, epoch, deadline }).await;
        }
    }

    async fn holder_event(&mut self, event: Event) {
        let jitter = self.jitter();
        let Some(holder) = &mut self.holder else { return };
        let mut actions = Vec::new();
        holder.handle(clock::now(), jitter, event, &mut actions);
        let mut queue: VecDeque<Action> = actions.into();
        while let Some(action) = queue.pop_front() {
            if let Some(event) = self.action(action).await {
                let jitter = self.jitter();
                let mut more = Vec::new();
                if let Some(holder) = &mut self.holder {
                    holder.handle(clock::now(), jitter, event, &mut more);
                }
                queue.extend(more);
            }
        }
    }

    /// Carries out one action; what went wrong with a word is an event.
    async fn action(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(to, message) => self.send(to, message).await,
            Action::Arm { slot, tenure, deadline } => {
                let epoch = tenure.epoch;
                let armed = self.word(&slot).map(|word| self.table.word(word).arm(epoch, deadline, clock::now));
                match armed {
                    Some(Ok(())) => {
                        info!(slot = %slot, epoch = epoch.0, "lease acquired");
                        self.state.tenures.insert(slot, TenureView { epoch: epoch.0, state: TenureState::Held });
                    }
                    other => {
                        warn!(slot = %slot, epoch = epoch.0, "lease acquired, but its word is not armed: {other:?}");
                        return Some(Event::Fenced { slot, epoch });
                    }
                }
            }
            Action::Extend { slot, epoch, deadline } => {
                let extended = self.word(&slot).map(|word| self.table.word(word).extend(deadline, clock::now));
                if !matches!(extended, Some(Ok(()))) {
                    warn!(slot = %slot, epoch = epoch.0, "the renewal came too late: {extended:?}");
                    return Some(Event::Fenced { slot, epoch });
                }
            }
            Action::Lost { slot, epoch } => {
                warn!(slot = %slot, epoch = epoch.0, "lease lost");
                if let Some(word) = self.word(&slot) {
                    self.table.word(word).fence();
                }
                self.state.tenures.insert(slot, TenureView { epoch: epoch.0, state: TenureState::Lost });
            }
            Action::Disarm { slot, .. } => {
                if let Some(word) = self.word(&slot) {
                    self.table.word(word).fence();
                }
            }
            Action::Released { slot, epoch } => debug!(slot = %slot, epoch = epoch.0, "lease released"),
            Action::Failed { slot, why } => debug!(slot = %slot, "attempt without success: {why:?}"),
        }
        None
    }

    async fn send(&mut self, to: NodeName, message: Message) {
        if to == self.node.name {
            self.state.local.push_back(message);
            return;
        }
        match lease_wire::encode(&message) {
            Ok(payload) => self.link.send(to.as_str(), payload).await,
            Err(error) => error!(to = to.as_str(), "a lease message cannot be encoded: {error}"),
        }
    }

    /// The word of a slot; made where the slot is wanted and has none yet.
    fn word(&mut self, slot: &Slot) -> Option<WordIndex> {
        if let Some(word) = self.state.words.get(slot) {
            return Some(*word);
        }
        let wanted = self.state.wanted.get(slot)?;
        match self.table.word_for(&slot.to_string(), wanted.unit, wanted.role) {
            Ok(word) => {
                self.state.words.insert(slot.clone(), word);
                Some(word)
            }
            Err(error) => {
                error!(slot = %slot, "no place in the fence table: {error}");
                None
            }
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Want(wanted) => {
                let gone: Vec<Slot> = self.state.wanted.keys().filter(|s| !wanted.contains_key(*s)).cloned().collect();
                self.bind_units(&wanted);
                let before = std::mem::replace(&mut self.state.wanted, wanted);
                for slot in gone {
                    self.event(Event::Withdraw(slot)).await?;
                }
                let changed: Vec<Slot> =
                    self.state.wanted.iter().filter(|(s, w)| before.get(*s) != Some(*w)).map(|(s, _)| s.clone()).collect();
                for slot in changed {
                    self.offer(&slot).await?;
                }
            }
            Command::GiveUp(slots) => {
                for (slot, successor) in slots {
                    let Some(tenure) = self.state.tenures.get_mut(&slot).filter(|t| t.state == TenureState::Held) else { continue };
                    tenure.state = TenureState::Releasing;
                    info!(slot = %slot, epoch = tenure.epoch, successor = successor.as_ref().map(NodeName::as_str), "lease is given up in good order");
                    self.event(Event::Release { slot, successor }).await?;
                }
            }
            Command::Stopped(tenures) => {
                for (slot, epoch) in tenures {
                    if self.state.tenures.get(&slot).is_some_and(|t| t.epoch == epoch && t.state != TenureState::Held) {
                        self.state.tenures.remove(&slot);
                        self.event(Event::Stopped { slot, epoch: Epoch(epoch) }).await?;
                    }
                }
            }
            Command::Voters(set) => self.learn(set).await,
            Command::Restarting(done) => {
                self.event(Event::RenewLong).await?;
                self.state.restarting = Some((clock::now() + RESTART_WAIT, done));
            }
        }
        Ok(())
    }

    /// An App that was deleted and made again has another entry in the table: words follow it.
    fn bind_units(&mut self, wanted: &BTreeMap<Slot, Wanted>) {
        for (slot, wish) in wanted {
            let known: Option<UnitIndex> = self.state.wanted.get(slot).map(|w| w.unit);
            if known != Some(wish.unit)
                && let Err(error) = self.table.word_for(&slot.to_string(), wish.unit, wish.role)
            {
                error!(slot = %slot, "no place in the fence table: {error}");
            }
        }
    }

    async fn offer_candidacies(&mut self) {
        let slots: Vec<Slot> = self.state.wanted.keys().cloned().collect();
        for slot in slots {
            if let Err(error) = Box::pin(self.offer(&slot)).await {
                error!("{}", cluster_telemetry::chain(&error));
            }
        }
    }

    async fn offer(&mut self, slot: &Slot) -> Result<(), StoreError> {
        let Some(wanted) = self.state.wanted.get(slot) else { return Ok(()) };
        if self.state.guard_stale {
            return self.event(Event::Withdraw(slot.clone())).await;
        }
        let (t, seen) = (wanted.t, Epoch(wanted.seen));
        let candidacy = Candidacy { order: wanted.order.clone().into(), ready: wanted.ready, unready_may_go: true };
        self.event(Event::Candidate { slot: slot.clone(), t, candidacy }).await?;
        self.event(Event::Seen { slot: slot.clone(), epoch: seen }).await
    }

    fn publish(&mut self) {
        let voters = self.holder.as_ref().map(|h| list_of(h.sets().current()));
        let view = LeaseView { tenures: self.state.tenures.clone(), voters, trouble: self.state.trouble.clone() };
        self.view.send_if_modified(|now| {
            let changed = **now != view;
            if changed {
                *now = Arc::new(view);
            }
            changed
        });
    }

    /// 0 to [`JITTER_MAX`]: spreads attempts, nothing rests on its quality.
    fn jitter(&mut self) -> Span {
        let x = &mut self.state.random;
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        Span(*x % JITTER_MAX.0)
    }
}
