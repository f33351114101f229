//! The proposer (P1 to P7) of one node: asks for slots, renews them in batches, gives them up, and adopts them after a restart.
//!
//! # Flow, for whoever hosts it
//! 1. [`Holder::new`] with the voter set this agent knows and a random [`Instance`].
//! 2. After an agent restart, before anything else, one [`Event::Adopt`] for each slot that is [armed](crate::word::SlotWord::armed) *or
//!    still runs here*, with the word's deadline, or `Time(0)` if it is fenced; then [`Event::Tick`], which renews them all. What is too late answers with [`Action::Lost`], and is not asked
//!    for again before it has stopped. Everything else is not held, whatever it was.
//! 3. [`Event::Candidate`] for each slot the assignment makes this node a candidate for; again whenever rank or readiness change.
//! 4. Each arriving message as [`Event::Message`], after a check that it came from whom it says ([`Message::from`]). [`Event::Tick`] at
//!    [`Holder::next_wake`].
//! 5. Carry out the [`Action`]s in order. `now` is read right before each call, and `jitter` drawn from 0 to 5 ms.
//!
//! What the host owes:
//! - [`Action::Arm`]: [`SlotWord::arm`](crate::word::SlotWord::arm), and start the slot only after it returned `Ok`. On an error say
//!   [`Event::Fenced`]. A former tenure's unit on this node must be gone before the new one is started.
//! - [`Action::Extend`]: [`SlotWord::extend`](crate::word::SlotWord::extend). On an error say [`Event::Fenced`].
//! - [`Action::Lost`]: the guard fences on its own; help it, then say [`Event::Stopped`] once nothing runs and the address is gone.
//! - [`Action::Disarm`]: [`SlotWord::fence`](crate::word::SlotWord::fence), before any later action.
//! - [`Action::Send`]: may be lost. A message to this node itself goes to its own voter or holder.
//! - To move a slot: [`Event::Release`], stop the slot, then [`Event::Stopped`]. Renewals go on while it stops.
//!
//! # Guarantees
//! Between `Arm` and the deadline last armed or extended a majority of voters keeps every other node out (see the crate's text). A tenure
//! whose deadline passed is never extended. A Release never leaves before `Stopped`, or for an attempt, which never started anything.

mod candidate;
mod config;
mod sends;
mod sets;
mod slot;
mod votes;
mod watch;

pub use candidate::Candidacy;
pub use config::HolderConfig;
pub use sends::{Purpose, SENDS_MAX, Sends, Sent};
pub use sets::KnownSets;
pub use slot::{Attempt, CLASHES_MAX, Holding, Phase, Releasing, STOOD_BACK, SlotHolder};
pub use votes::{Vote, Votes};

use crate::message::{Answer, Free, Handover, Message, Verdict, Why};
use crate::rules::{AsWritten, Fault, Rules};
use crate::set::VoterSet;
use crate::slots::{Claims, SlotMap, SlotSet};
use crate::time::{Span, Time};
use crate::types::{Epoch, NodeName, Slot, SlotName, Tenure, VoterId};
use sends::{Outbox, Sender};
use slot::Env;
use std::collections::BTreeMap;

/// How often a candidate repeats its [`Watch`]. A lost hint costs at most this.
pub const WATCH_EVERY: Span = Span::from_millis(1_000);

/// How long a changed list of candidacies waits for further changes before it is sent.
pub const WATCH_DELAY: Span = Span::from_millis(2);

/// What happens to a holder.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came. What is not for a holder is ignored.
    Message(Message),
    /// Time has passed.
    Tick,
    /// The assignment makes this node a candidate, or says something new about it.
    Candidate {
        /// For this slot.
        slot: Slot,
        /// With leases of this length.
        t: Span,
        /// In this order and state.
        candidacy: Candidacy,
    },
    /// P2: an epoch of a known slot that was heard of elsewhere; attempts use higher ones.
    Seen {
        /// This slot.
        slot: Slot,
        /// The epoch.
        epoch: Epoch,
    },
    /// No candidate any more. What is held stays held until released.
    Withdraw(Slot),
    /// Ask for the slot now, once, whatever the ranks (locks).
    Acquire {
        /// This one.
        slot: Slot,
        /// With a lease of this length.
        t: Span,
    },
    /// Give the slot up: renewals go on until [`Event::Stopped`].
    Release {
        /// This one.
        slot: Slot,
        /// In favour of this node.
        successor: Option<NodeName>,
    },
    /// The guard reports: nothing of this tenure runs, its address is gone.
    Stopped {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
    },
    /// The slot's word is fenced, or was not armed.
    Fenced {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
    },
    /// P6: the word says that this tenure of a former life is armed, or its unit still runs.
    Adopt {
        /// This slot.
        slot: Slot,
        /// With leases of this length.
        t: Span,
        /// The tenure's epoch.
        epoch: Epoch,
        /// What the word says; `Time(0)` if it is fenced.
        deadline: Time,
    },
    /// A voter set read from elsewhere; older ones are ignored.
    Set(VoterSet),
    /// Renew everything now, as for the next interval.
    RenewNow,
    /// P6: this agent is about to be restarted: renew everything with the longest T.
    RenewLong,
}

/// To be carried out by the host, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send; losing it is allowed.
    Send(NodeName, Message),
    /// The slot is held from now on: arm its word, then start it.
    Arm {
        /// This slot.
        slot: Slot,
        /// The new tenure.
        tenure: Tenure,
        /// Until when, for now.
        deadline: Time,
    },
    /// The deadline moved: extend the word.
    Extend {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
        /// Until when now.
        deadline: Time,
    },
    /// The tenure is over before it was released.
    Lost {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
    },
    /// Fence the slot's word.
    Disarm {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
    },
    /// A majority knows of the release, or all grants of it have expired.
    Released {
        /// This slot.
        slot: Slot,
        /// The tenure's epoch.
        epoch: Epoch,
    },
    /// An attempt ended without the slot. For the log; a candidate tries again by itself.
    Failed {
        /// This slot.
        slot: Slot,
        /// The last refusal, if any came.
        why: Option<Why>,
        /// Whether a majority of the voters refused, and among them one because another node holds the slot.
        taken: bool,
    },
}

/// The proposer of one node. See the module's text.
#[derive(Clone, Debug)]
pub struct Holder<R: Rules = AsWritten> {
    config: HolderConfig,
    rules: R,
    sets: KnownSets,
    slots: SlotMap<SlotHolder>,
    sends: Sends,
    out: Outbox,
    renewals: BTreeMap<Span, Time>,
    rings: BTreeMap<SlotName, Epoch>,
    forgotten: Epoch,
    watch_at: Option<Time>,
    wakes: BTreeMap<Time, SlotSet>,
}

impl Holder {
    /// A holder that holds nothing.
    #[must_use]
    pub fn new(config: HolderConfig, set: VoterSet) -> Self {
        Self::with_rules(AsWritten, config, set)
    }
}

impl<R: Rules> Holder<R> {
    /// [`Holder::new`] under given rules.
    pub fn with_rules(rules: R, config: HolderConfig, set: VoterSet) -> Self {
        Self {
            config,
            rules,
            sets: KnownSets::new(set),
            slots: SlotMap::default(),
            sends: Sends::default(),
            out: Outbox::default(),
            renewals: BTreeMap::new(),
            rings: BTreeMap::new(),
            forgotten: Epoch(0),
            watch_at: None,
            wakes: BTreeMap::new(),
        }
    }

    /// One step. `now` is this boot's clock read just before, `jitter` a fresh random span of 0 to 5 ms.
    pub fn handle(&mut self, now: Time, jitter: Span, event: Event, actions: &mut Vec<Action>) {
        self.handle_all(now, jitter, [event], actions);
    }

    /// One step for events that came together: they go out in one message per voter.
    pub fn handle_all(&mut self, now: Time, jitter: Span, events: impl IntoIterator<Item = Event>, actions: &mut Vec<Action>) {
        self.sends.prune(now);
        events.into_iter().for_each(|event| self.take(now, jitter, event, actions));
        self.flush(now, actions);
    }

    fn take(&mut self, now: Time, jitter: Span, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Message(Message::Answer(answer)) => self.answered(now, jitter, &answer, actions),
            Event::Message(Message::Free(free)) => self.freed(now, jitter, &free, actions),
            Event::Message(Message::Handover(handover)) => self.handed(now, jitter, &handover, actions),
            Event::Message(_) => {}
            Event::Tick => {
                self.tick(now, jitter, actions);
                self.send_watch(now, actions);
            }
            Event::Candidate { slot, t, candidacy } => {
                self.watch_soon(now);
                self.create(&slot, t);
                self.step(now, jitter, &slot, actions, |state, env| state.assigned(env, &slot, t, candidacy));
            }
            Event::Seen { slot, epoch } => self.step(now, jitter, &slot, actions, |state, _| state.seen = state.seen.max(epoch)),
            Event::Withdraw(slot) => self.step(now, jitter, &slot, actions, |state, env| state.withdraw(env, &slot)),
            Event::Acquire { slot, t } => {
                self.create(&slot, t);
                self.step(now, jitter, &slot, actions, |state, env| state.begin(env, &slot));
            }
            Event::Release { slot, successor } => {
                self.step(now, jitter, &slot, actions, |state, env| state.stop(env, &slot, successor));
            }
            Event::Stopped { slot, epoch } => {
                self.step(now, jitter, &slot, actions, |state, env| state.stopped(env, &slot, epoch));
                self.watch_soon(now);
            }
            Event::Fenced { slot, epoch } => self.step(now, jitter, &slot, actions, |state, env| state.fenced(env, &slot, epoch)),
            Event::Adopt { slot, t, epoch, deadline } => {
                self.create(&slot, t);
                // Thousands may be adopted at once, so the renewal is due now and goes out for all of them with the next tick.
                self.step(now, jitter, &slot, actions, |state, env| state.adopt(env, &slot, epoch, deadline));
            }
            Event::Set(set) => {
                if self.sets.learn(&set) {
                    self.new_set(now);
                }
            }
            Event::RenewNow => self.renew(now, None, None, None),
            Event::RenewLong => self.renew(now, None, None, Some(self.config.max_t)),
        }
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        let renewal = self.renewals.values().min().copied();
        let wake = self.wakes.keys().next().copied();
        renewal.into_iter().chain(wake).chain(self.watch_at).min()
    }

    /// Where a slot stands.
    #[must_use]
    pub fn phase(&self, slot: &Slot) -> Option<&Phase> {
        self.slots.get(slot).map(|state| &state.phase)
    }

    /// The epoch and deadline of a slot that is held at `now`, for a status page; the word decides.
    #[must_use]
    pub fn held(&self, now: Time, slot: &Slot) -> Option<(Epoch, Time)> {
        match self.phase(slot) {
            Some(Phase::Holding(holding)) if now < holding.deadline => Some((holding.epoch, holding.deadline)),
            _ => None,
        }
    }

    /// All slots it has to do with.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &SlotHolder)> {
        self.slots.iter()
    }

    /// The voter sets it knows.
    #[must_use]
    pub const fn sets(&self) -> &KnownSets {
        &self.sets
    }

    /// What it was made with.
    #[must_use]
    pub const fn config(&self) -> &HolderConfig {
        &self.config
    }

    /// The state of a slot.
    #[cfg(feature = "check")]
    pub(crate) fn slot(&self, slot: &Slot) -> Option<&SlotHolder> {
        self.slots.get(slot)
    }

    #[cfg(feature = "check")]
    pub(crate) const fn assume_seen(&mut self, epoch: Epoch) {
        self.forgotten = epoch;
    }

    #[cfg(feature = "check")]
    pub(crate) const fn forgotten(&self) -> Epoch {
        self.forgotten
    }

    /// Unanswered sends.
    #[must_use]
    pub const fn sends(&self) -> &Sends {
        &self.sends
    }

    fn create(&mut self, slot: &Slot, t: Span) {
        if self.slots.get(slot).is_none() {
            self.slots.insert(slot, SlotHolder::new(t));
        }
    }

    /// Runs one step of one slot: time first, then the event.
    fn step(
        &mut self,
        now: Time,
        jitter: Span,
        slot: &Slot,
        actions: &mut Vec<Action>,
        event: impl FnOnce(&mut SlotHolder, &mut Env<'_, R>),
    ) {
        let Self { config, rules, sets, slots, out, renewals, rings, forgotten, wakes, .. } = self;
        let Some(state) = slots.get_mut(slot) else { return };
        let mut env = Env { now, jitter, config, rules, sets, out, actions, renewals, rings, forgotten: *forgotten };
        state.settle(&mut env, slot);
        event(state, &mut env);
        // A slot is queued at its earliest wake only; a later one is found when that comes.
        if let Some(wake) = state.wake().filter(|wake| state.queued.is_none_or(|queued| *wake < queued)) {
            state.queued = Some(wake);
            wakes.entry(wake).or_default().insert(slot);
        }
        if state.is_idle() {
            // P2: its epochs stay used.
            *forgotten = (*forgotten).max(state.seen);
            slots.remove(slot);
        }
    }

    fn tick(&mut self, now: Time, jitter: Span, actions: &mut Vec<Action>) {
        while let Some(entry) = self.wakes.first_entry().filter(|entry| *entry.key() <= now) {
            let (at, slots) = entry.remove_entry();
            for slot in slots.iter() {
                if let Some(state) = self.slots.get_mut(&slot).filter(|state| state.queued == Some(at)) {
                    state.queued = None;
                    self.step(now, jitter, &slot, actions, |_, _| {});
                }
            }
        }
        self.renew_due(now);
    }

    /// One renewal per interval for all slots of one T.
    fn renew_due(&mut self, now: Time) {
        let due: Vec<Span> = self.renewals.iter().filter(|(_, at)| **at <= now).map(|(t, _)| *t).collect();
        for t in due {
            self.renew(now, Some(t), None, None);
        }
    }

    /// Renews what is held: of one T or of all, at one voter or at all, with the slots' own T or another.
    fn renew(&mut self, now: Time, only_t: Option<Span>, only_voter: Option<VoterId>, with_t: Option<Span>) {
        let mut by_t: BTreeMap<Span, Claims> = BTreeMap::new();
        let slots: Vec<Slot> = match with_t {
            // The longest T is noted in each tenure, so its slots are needed one by one.
            Some(_) => self.slots.iter().filter(|(_, state)| renewable(state, now)).map(|(slot, _)| slot).collect(),
            None => Vec::new(),
        };
        for slot in &slots {
            if let Some(SlotHolder { phase: Phase::Holding(holding), .. }) = self.slots.get_mut(slot) {
                holding.longest = with_t.map_or(holding.longest, |t| t.max(holding.longest));
            }
        }
        for (slot, state) in self.slots.iter().filter(|(_, state)| renewable(state, now)) {
            if let Phase::Holding(holding) = &state.phase
                && only_t.is_none_or(|t| t == state.t)
            {
                by_t.entry(state.t).or_default().insert(&slot, holding.epoch);
            }
        }
        for (t, claims) in &by_t {
            for member in self.sets.voters().filter(|member| only_voter.is_none_or(|only| only == member.id)) {
                if let Some(set) = self.sets.label_of(member.id) {
                    self.out.ask_all(Purpose::Renew, (member.id, set), with_t.unwrap_or(*t), claims);
                }
            }
        }
        if only_voter.is_some() || with_t.is_some() {
            return;
        }
        let per_t = self.config.renewals_per_t;
        let asked = |t: &Span| only_t.is_none_or(|only| only == *t);
        self.renewals.retain(|t, _| !asked(t) || by_t.contains_key(t));
        for (t, at) in self.renewals.iter_mut().filter(|(t, _)| asked(t)) {
            *at = now + t.part(per_t);
        }
    }

    /// B5.2: another set counts from now on; renew at once.
    fn new_set(&mut self, now: Time) {
        self.renew(now, None, None, None);
        if self.watch_at.is_some() {
            self.watch_soon(now);
        }
    }

    fn answered(&mut self, now: Time, jitter: Span, answer: &Answer, actions: &mut Vec<Action>) {
        if answer.cluster != self.config.cluster || answer.send_no.instance != self.config.instance {
            return;
        }
        let Some(sent) = self.sends.get(answer.send_no.count).filter(|sent| sent.voter == answer.voter) else { return };
        let mut sent = sent.clone();
        if self.rules.breaks(Fault::AckWithoutSendNo)
            && let Some(latest) = self.sends.latest(answer.voter, sent.purpose)
        {
            sent.at = latest.at;
        }
        let (voter, set) = (sent.voter, sent.set);
        match &answer.verdict {
            Verdict::Slots { accepted, refused } => {
                // B5.4: an ack counts in the set that was named, which is the one the voter has installed.
                if sent.purpose == Purpose::Release || answer.set == set {
                    let hold = if self.rules.breaks(Fault::DriftIgnored) {
                        sent.t.less(self.config.timing.fence)
                    } else {
                        self.config.timing.hold(sent.t)
                    };
                    let from = if self.rules.breaks(Fault::TimerFromAnswer) { now } else { sent.at };
                    for (slot, epoch) in sent.claims.iter().filter(|(slot, _)| accepted.contains(slot)) {
                        self.step(now, jitter, &slot, actions, |state, env| {
                            state.acked(env, &slot, epoch, sent.purpose, (set, voter), from + hold);
                        });
                    }
                }
                for (why, slots) in refused {
                    for (slot, epoch) in sent.claims.iter().filter(|(slot, _)| slots.contains(slot)) {
                        self.step(now, jitter, &slot, actions, |state, env| state.nacked(env, &slot, epoch, (set, voter), why));
                    }
                }
            }
            Verdict::Refused(why) if sent.purpose == Purpose::Acquire => {
                for (slot, epoch) in sent.claims.iter() {
                    self.step(now, jitter, &slot, actions, |state, env| state.nacked(env, &slot, epoch, (set, voter), why));
                }
            }
            Verdict::Refused(_) => {}
        }
        self.follow_set(now, answer);
    }

    /// B5.2: holders resend at once in the set that the voter answers in.
    fn follow_set(&mut self, now: Time, answer: &Answer) {
        let mut learned = false;
        if let Verdict::Refused(Why::Set(set)) = &answer.verdict {
            learned = self.sets.learn(set);
        }
        let moved = self.sets.label(answer.voter, answer.set);
        if learned {
            self.new_set(now);
        } else if moved {
            self.renew(now, None, Some(answer.voter), None);
        }
    }

    fn freed(&mut self, now: Time, jitter: Span, free: &Free, actions: &mut Vec<Action>) {
        if free.cluster != self.config.cluster {
            return;
        }
        for (slot, floor) in free.floors.iter() {
            self.step(now, jitter, &slot, actions, |state, env| state.freed(env, &slot, free.voter, floor, free.ran_out.as_ref()));
        }
        self.begin_due(now, jitter, actions);
    }

    fn handed(&mut self, now: Time, jitter: Span, handover: &Handover, actions: &mut Vec<Action>) {
        if handover.cluster != self.config.cluster {
            return;
        }
        for (slot, epoch) in handover.released.iter() {
            self.step(now, jitter, &slot, actions, |state, env| state.handed(env, &slot, epoch));
        }
        self.begin_due(now, jitter, actions);
    }

    /// Starts what a hint made due, without waiting for the next tick. After all of the hint was read, so that partitions freed
    /// together are asked for in one epoch.
    fn begin_due(&mut self, now: Time, jitter: Span, actions: &mut Vec<Action>) {
        self.tick(now, jitter, actions);
    }

    fn flush(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Self { config, sets, sends, out, .. } = self;
        let from = Sender { cluster: config.cluster, node: &config.node, instance: config.instance };
        let life = |purpose, t| match purpose {
            Purpose::Release => config.max_t,
            Purpose::Acquire | Purpose::Renew => config.timing.hold(t),
        };
        let node_of = |id| sets.voters().find(|member| member.id == id).map(|member| member.node.clone());
        out.flush(now, &from, sends, life, node_of, |to, message| actions.push(Action::Send(to, message)));
    }
}

/// Held and alive. Not while it is dead but unnoticed: after the deadline a tenure sends nothing but Release (P5).
fn renewable(state: &SlotHolder, now: Time) -> bool {
    matches!(&state.phase, Phase::Holding(holding) if now < holding.deadline)
}
