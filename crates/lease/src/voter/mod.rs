//! The voter (V1 to V8): grants leases, one unexpired grant per slot at most, and remembers enough to do so across restarts.
//!
//! # Flow
//! The host calls [`Voter::start`] once, then [`Voter::handle`] for each message and [`Voter::tick`] at [`Voter::next_wake`]. Each returns
//! [`VoterAction`]s, to be carried out in order: a `Journal` is durable, and a `Store` is in the file under /run, before any `Send` after it
//! leaves. Between the two nothing may be skipped; if one fails, the host ends the process.
//!
//! # Assumptions
//! `now` is this boot's clock (rule K) and never steps back. The journal belongs to one process at a time.

mod codec;
mod grant;
mod hints;
mod locks;
mod sets;
mod state;

pub use codec::{
    HEADER_LEN, JOURNAL_MAX, RECORD_LEN, RecordError, decode_header, decode_journal, decode_record, encode_header, encode_journal,
    encode_record,
};
pub use grant::{Grant, RELEASED_MAX, Released, SlotState};
pub use hints::{WATCH_TTL, WATCHERS_MAX};
pub use state::{FORCE_STEP, Journal, MARK_STEP, RunHeader, RunImage};

use crate::message::{Answer, Ask, CLAIMS_WEIGHT_MAX, Free, Message, Verdict, Watch, Why, weight};
use crate::rules::{AsWritten, Fault, Rules};
use crate::slots::{Claims, SlotMap, SlotSet};
use crate::time::{MAX_T, Span, Time};
use crate::types::{ClusterId, EPOCH_END, Epoch, Node, NodeName, PARTITIONS_MAX, Slot, SlotName, Tenure};
use grant::Terms;
use hints::Hints;
use locks::Locks;
use std::collections::BTreeMap;

/// Slots a voter keeps records of. When full, slots without a live grant are forgotten into the common floor.
pub const SLOTS_MAX: usize = 65_536;

/// Locks (slots `lock/...`) a voter keeps records of before it looks for those that nobody holds. Their names are made up by applications, one
/// for each job maybe, so that they would fill the table in time.
pub const LOCKS_MAX: usize = 2_048;

/// What a voter must know about itself.
#[derive(Clone, Debug)]
pub struct VoterConfig {
    /// The cluster it votes in.
    pub cluster: ClusterId,
    /// Where it runs, in which boot.
    pub node: Node,
    /// The longest lease (V8) and the wait after a restart (V6): [`MAX_T`] everywhere but in the model.
    pub max_t: Span,
    /// [`SLOTS_MAX`] everywhere but in tests.
    pub slots_max: usize,
}

impl VoterConfig {
    /// The configuration of a real voter.
    #[must_use]
    pub const fn new(cluster: ClusterId, node: Node) -> Self {
        Self { cluster, node, max_t: MAX_T, slots_max: SLOTS_MAX }
    }
}

/// To be carried out by the host, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterAction {
    /// Write and fsync this before going on.
    Journal(Journal),
    /// Write the head of the file under /run.
    StoreHeader(RunHeader),
    /// Write the records of these slots, as [`Voter::record`] gives them, to the file under /run.
    Store(SlotSet),
    /// Empty the records of these slots.
    Forget(SlotSet),
    /// Send; losing it is allowed.
    Send(NodeName, Message),
}

/// One voter. See the module's text.
#[derive(Clone, Debug)]
pub struct Voter<R: Rules = AsWritten> {
    config: VoterConfig,
    rules: R,
    journal: Journal,
    waiting_until: Option<Time>,
    unknown_until: Option<Time>,
    base: Epoch,
    high: Epoch,
    slots: SlotMap<Cell>,
    locks: Locks,
    hints: Hints,
}

/// One slot: its record, and whether the hints will look at it.
#[derive(Clone, Debug, Default)]
struct Cell {
    state: SlotState,
    queued: bool,
}

impl Cell {
    fn queue(&mut self, slot: &Slot, hints: &mut Hints) {
        if let Some(grant) = self.state.grant.as_ref().filter(|_| !self.queued) {
            hints.queue(slot, grant.expires);
            self.queued = true;
        }
    }
}

enum Kind {
    Acquire,
    Renew,
    Release,
}

impl Voter {
    /// A voter that starts or restarts: from its journal, and from what the file under /run says, if it is there and its head is whole.
    pub fn start(config: VoterConfig, now: Time, journal: Journal, run: Option<RunImage>) -> (Self, Vec<VoterAction>) {
        Self::start_with(AsWritten, config, now, journal, run)
    }
}

impl<R: Rules> Voter<R> {
    /// [`Voter::start`] under given rules.
    pub fn start_with(rules: R, config: VoterConfig, now: Time, journal: Journal, run: Option<RunImage>) -> (Self, Vec<VoterAction>) {
        let run = run.filter(|run| run.header.boot == config.node.boot && run.header.voter == journal.voter);
        let fresh = !journal.may_have_acked;
        let mut voter = Self {
            waiting_until: None,
            unknown_until: None,
            base: Epoch(0),
            high: Epoch(0),
            slots: SlotMap::default(),
            locks: Locks::default(),
            hints: Hints::default(),
            config,
            rules,
            journal,
        };
        let mut actions = Vec::new();
        match run {
            // V6: same boot and file valid: go on at once.
            Some(run) => voter.resume(now, run, &mut actions),
            // V6, the exception: this id has never acked anything, since the mark is written only now. Nothing to wait for.
            None if fresh => {
                voter.journal.may_have_acked = true;
                voter.reserve(&mut actions);
            }
            // V6, V7: grants are forgotten, so wait until all have expired; floors become the mark.
            None => {
                if !voter.rules.breaks(Fault::NoRestartWait) {
                    voter.waiting_until = Some(now + voter.config.max_t);
                }
                voter.base = if voter.rules.breaks(Fault::FloorForgotten) { Epoch(0) } else { voter.journal.mark };
                voter.high = voter.base;
                voter.reserve(&mut actions);
            }
        }
        actions.push(VoterAction::StoreHeader(voter.header()));
        (voter, actions)
    }

    fn resume(&mut self, now: Time, run: RunImage, actions: &mut Vec<VoterAction>) {
        if !self.rules.breaks(Fault::WaitForgotten) {
            self.waiting_until = run.header.waiting_until;
        }
        self.unknown_until = run.header.unknown_until;
        self.base = run.header.base;
        self.high = self.base;
        for (slot, state) in run.records {
            self.high = self.high.max(state.floor);
            let mut cell = Cell { state, queued: false };
            cell.queue(&slot, &mut self.hints);
            self.locks.count(&slot);
            self.slots.insert(&slot, cell);
        }
        if run.torn > 0 && !self.rules.breaks(Fault::TornRecordIgnored) {
            // V6: held by unknown for max T. Its floor is lost too, so the mark stands in for it.
            self.unknown_until = Some(now + self.config.max_t);
            self.base = self.base.max(self.journal.mark);
            self.high = self.high.max(self.base);
            self.reserve(actions);
        }
    }

    /// V7: reserves epochs ahead of the highest one.
    fn reserve(&mut self, actions: &mut Vec<VoterAction>) {
        self.journal.mark = self.journal.mark.max(Epoch(self.high.0.saturating_add(MARK_STEP)));
        actions.push(VoterAction::Journal(self.journal.clone()));
    }

    /// The journal as it should be on disk.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The head of the file under /run as it should be.
    #[must_use]
    pub fn header(&self) -> RunHeader {
        RunHeader {
            boot: self.config.node.boot,
            voter: self.journal.voter,
            waiting_until: self.waiting_until,
            unknown_until: self.unknown_until,
            base: self.base,
        }
    }

    /// The record of a slot as it should be under /run.
    #[must_use]
    pub fn record(&self, slot: &Slot) -> Option<&SlotState> {
        self.slots.get(slot).map(|cell| &cell.state)
    }

    /// All records, for a status page and for tests.
    pub fn records(&self) -> impl Iterator<Item = (Slot, &SlotState)> {
        self.slots.iter().map(|(slot, cell)| (slot, &cell.state))
    }

    /// The highest epoch granted here, or carried over.
    #[must_use]
    pub const fn high(&self) -> Epoch {
        self.high
    }

    /// Until when it answers `Waiting` to everything, if it still does at `now`.
    #[must_use]
    pub fn waiting(&self, now: Time) -> Option<Time> {
        self.waiting_until.filter(|until| now < *until)
    }

    fn unknown(&self, now: Time) -> bool {
        self.unknown_until.is_some_and(|until| now < until)
    }

    /// Takes one message. What is not for a voter is ignored.
    pub fn handle(&mut self, now: Time, message: &Message, actions: &mut Vec<VoterAction>) {
        match message {
            Message::Acquire(ask) => self.ask(now, &Kind::Acquire, ask, actions),
            Message::Renew(ask) => self.ask(now, &Kind::Renew, ask, actions),
            Message::Release(ask) => self.ask(now, &Kind::Release, ask, actions),
            Message::Watch(watch) => self.watch(now, watch, actions),
            Message::SetAsk(ask) => self.set_ask(now, ask, actions),
            Message::Answer(_) | Message::Free(_) | Message::Handover(_) | Message::SetAnswer(_) => {}
        }
    }

    /// When [`Voter::tick`] is due next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.hints.next_due()
    }

    /// Hints that grants have expired, and the next reservation of epochs, off the path of any take-over.
    pub fn tick(&mut self, now: Time, actions: &mut Vec<VoterAction>) {
        if self.high.0 + MARK_STEP / 2 > self.journal.mark.0 {
            self.reserve(actions);
        }
        let mut free = Vec::new();
        for slot in self.hints.pop_due(now) {
            let Some(cell) = self.slots.get_mut(&slot) else { continue };
            cell.queued = false;
            if cell.state.live(now).is_some() {
                cell.queue(&slot, &mut self.hints);
            } else {
                free.push(slot);
            }
        }
        self.hint(now, &free, actions);
    }

    fn ask(&mut self, now: Time, kind: &Kind, ask: &Ask, actions: &mut Vec<VoterAction>) {
        let verdict = match self.admit(now, kind, ask) {
            Err(why) => Verdict::Refused(why),
            Ok(()) => self.judge(now, kind, ask, actions),
        };
        let answer = Answer {
            cluster: self.config.cluster,
            from: self.config.node.name.clone(),
            voter: self.journal.voter,
            set: self.answered_set(ask),
            send_no: ask.send_no,
            verdict,
        };
        actions.push(VoterAction::Send(ask.node.name.clone(), Message::Answer(answer)));
    }

    /// V8 and V6: is this ask judged at all?
    fn admit(&self, now: Time, kind: &Kind, ask: &Ask) -> Result<(), Why> {
        if ask.cluster != self.config.cluster {
            return Err(Why::Cluster);
        }
        if ask.voter != self.journal.voter {
            return Err(Why::Voter);
        }
        let renew = matches!(kind, Kind::Renew);
        if self.waiting(now).is_some() && !(renew && self.rules.breaks(Fault::RenewDuringWait)) {
            return Err(Why::Waiting);
        }
        if matches!(kind, Kind::Release) {
            return Ok(()); // in any set
        }
        self.admit_set(ask)?;
        if ask.t > self.config.max_t {
            return Err(Why::Length);
        }
        Ok(())
    }

    fn judge(&mut self, now: Time, kind: &Kind, ask: &Ask, actions: &mut Vec<VoterAction>) -> Verdict {
        let mut batch = Batch::default();
        let mut tenure = Tenure { epoch: Epoch(0), node: ask.node.clone(), instance: ask.instance };
        for (name, epoch) in &ask.claims.named {
            tenure.epoch = *epoch;
            self.judge_slot(now, kind, ask.t, &tenure, &Slot::Named(name.clone()), &mut batch);
        }
        for (ring, by_epoch) in &ask.claims.rings {
            for (epoch, bits) in by_epoch {
                tenure.epoch = *epoch;
                for partition in bits.iter().take_while(|p| *p < PARTITIONS_MAX) {
                    let slot = Slot::Ring { ring: ring.clone(), partition };
                    self.judge_slot(now, kind, ask.t, &tenure, &slot, &mut batch);
                }
            }
        }
        // V7: the reservation is durable before the ack. Ticks keep it ahead, so this is for epochs that jump.
        if self.high > self.journal.mark {
            self.reserve(actions);
        }
        if batch.header {
            actions.push(VoterAction::StoreHeader(self.header()));
        }
        if !batch.forgotten.is_empty() {
            actions.push(VoterAction::Forget(batch.forgotten));
        }
        if !batch.changed.is_empty() {
            actions.push(VoterAction::Store(batch.changed));
        }
        self.hint(now, &batch.freed, actions);
        Verdict::Slots { accepted: batch.accepted, refused: batch.refused.into_iter().collect() }
    }

    fn judge_slot(&mut self, now: Time, kind: &Kind, t: Span, tenure: &Tenure, slot: &Slot, batch: &mut Batch) {
        match self.try_slot(now, kind, t, tenure, slot, batch) {
            Ok(()) => batch.accepted.insert(slot),
            Err(why) => batch.refuse(why, slot),
        }
    }

    fn try_slot(&mut self, now: Time, kind: &Kind, t: Span, tenure: &Tenure, slot: &Slot, batch: &mut Batch) -> Result<(), Why> {
        if tenure.epoch >= EPOCH_END || tenure.epoch == Epoch(0) {
            return Err(Why::EpochRange);
        }
        let terms = Terms { now, t, base: self.base };
        let unknown = self.unknown(now);
        if let Some(cell) = self.slots.get_mut(slot) {
            let state = &mut cell.state;
            match kind {
                Kind::Acquire => state.acquire(&self.rules, terms, tenure)?,
                Kind::Renew => {
                    let known = state.grant.as_ref().map(|grant| &grant.tenure).filter(|known| known.node == tenure.node);
                    match known {
                        Some(known) if self.rules.breaks(Fault::BitWithoutEpoch) && matches!(slot, Slot::Ring { .. }) => {
                            let known = known.clone();
                            state.renew(terms, &known)?;
                        }
                        _ => state.renew(terms, tenure)?,
                    }
                }
                Kind::Release => {
                    if state.release(&self.rules, tenure) {
                        batch.freed.push(slot.clone());
                    }
                }
            }
            self.high = self.high.max(state.floor);
            cell.queue(slot, &mut self.hints);
        } else {
            // V6: a torn record might be this slot's.
            if unknown {
                return Err(Why::Waiting);
            }
            let mut state = SlotState::default();
            match kind {
                Kind::Acquire => state.acquire(&self.rules, terms, tenure)?,
                Kind::Renew => state.renew(terms, tenure)?,
                Kind::Release => {
                    state.release(&self.rules, tenure);
                }
            }
            if !self.make_room(now, batch) {
                return Err(Why::Full);
            }
            self.high = self.high.max(state.floor);
            let mut cell = Cell { state, queued: false };
            cell.queue(slot, &mut self.hints);
            self.slots.insert(slot, cell);
            self.locks.count(slot);
        }
        batch.changed.insert(slot);
        Ok(())
    }

    /// Forgets all slots without a live grant when the table is full, and all such locks when there are many.
    fn make_room(&mut self, now: Time, batch: &mut Batch) -> bool {
        if self.slots.len() >= self.config.slots_max {
            self.forget_idle(now, batch, |_| true);
        } else if self.locks.are_many() {
            self.forget_idle(now, batch, locks::is_lock);
        }
        self.slots.len() < self.config.slots_max
    }

    /// Forgets slots without a live grant. Their floors go into the common floor, so none is lost.
    fn forget_idle(&mut self, now: Time, batch: &mut Batch, which: impl Fn(&Slot) -> bool) {
        let idle = self.slots.iter().filter(|(_, cell)| cell.state.live(now).is_none()).map(|(slot, _)| slot);
        let idle: Vec<Slot> = idle.filter(|slot| which(slot) && !batch.changed.contains(slot)).collect();
        for slot in &idle {
            if let Some(cell) = self.slots.remove(slot) {
                self.base = self.base.max(cell.state.floor);
                batch.forgotten.insert(slot);
                batch.header = true;
            }
        }
        self.locks.recount(self.slots.iter().filter(|(slot, _)| locks::is_lock(slot)).count());
    }

    fn watch(&mut self, now: Time, watch: &Watch, actions: &mut Vec<VoterAction>) {
        if watch.cluster != self.config.cluster || watch.voter != self.journal.voter {
            return;
        }
        self.hints.watch(now, watch);
        let free: Vec<Slot> = watch.slots.iter().filter(|slot| self.is_free(now, slot)).collect();
        let free: Vec<&Slot> = free.iter().collect();
        self.send_free(&watch.node, &free, actions);
    }

    fn is_free(&self, now: Time, slot: &Slot) -> bool {
        match self.slots.get(slot) {
            Some(cell) => cell.state.live(now).is_none(),
            None => !self.unknown(now),
        }
    }

    fn hint(&self, now: Time, slots: &[Slot], actions: &mut Vec<VoterAction>) {
        if slots.is_empty() || self.waiting(now).is_some() {
            return;
        }
        for (node, slots) in self.hints.interested(slots) {
            self.send_free(&node, &slots, actions);
        }
    }

    /// In a message for each node whose grants ran out, and one for what was released.
    fn send_free(&self, to: &NodeName, slots: &[&Slot], actions: &mut Vec<VoterAction>) {
        let mut by_holder: BTreeMap<Option<&NodeName>, Vec<&Slot>> = BTreeMap::new();
        for slot in slots {
            let grant = self.slots.get(slot).and_then(|cell| cell.state.grant.as_ref());
            by_holder.entry(grant.map(|grant| &grant.tenure.node.name)).or_default().push(slot);
        }
        for (ran_out, slots) in by_holder {
            self.send_free_of(to, ran_out, &slots, actions);
        }
    }

    fn send_free_of(&self, to: &NodeName, ran_out: Option<&NodeName>, slots: &[&Slot], actions: &mut Vec<VoterAction>) {
        let mut floors = Claims::default();
        let mut size = 0;
        for slot in slots {
            // What does not fit is left out; the next Watch brings it.
            size += weight(ring_or_name(slot).as_str().len());
            if size > CLAIMS_WEIGHT_MAX {
                break;
            }
            floors.insert(slot, self.slots.get(slot).map_or(self.base, |cell| cell.state.floor.max(self.base)));
        }
        if !floors.is_empty() {
            let from = self.config.node.name.clone();
            let free = Free { cluster: self.config.cluster, from, voter: self.journal.voter, floors, ran_out: ran_out.cloned() };
            actions.push(VoterAction::Send(to.clone(), Message::Free(free)));
        }
    }
}

const fn ring_or_name(slot: &Slot) -> &SlotName {
    match slot {
        Slot::Named(name) | Slot::Ring { ring: name, .. } => name,
    }
}

/// The outcome of one ask, slot by slot.
#[derive(Default)]
struct Batch {
    accepted: SlotSet,
    refused: BTreeMap<Why, SlotSet>,
    refused_weight: usize,
    changed: SlotSet,
    forgotten: SlotSet,
    freed: Vec<Slot>,
    header: bool,
}

impl Batch {
    fn refuse(&mut self, why: Why, slot: &Slot) {
        // The answer stays bounded; a slot left out is asked for again. 128 covers a holder's name and boot id.
        self.refused_weight += weight(ring_or_name(slot).as_str().len());
        self.refused_weight += if self.refused.contains_key(&why) { 0 } else { 128 };
        if self.refused_weight <= CLAIMS_WEIGHT_MAX {
            self.refused.entry(why).or_default().insert(slot);
        }
    }
}
