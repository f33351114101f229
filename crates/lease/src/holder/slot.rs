//! One slot as its candidate and holder sees it: P2 to P7 for one slot. The [`Holder`](super::Holder) keeps many and batches what they say.

use super::sends::{Outbox, Purpose};
use super::sets::KnownSets;
use super::votes::Votes;
use super::{Action, Candidacy, HolderConfig};
use crate::message::Why;
use crate::rules::{Fault, Rules};
use crate::time::{Span, Time};
use crate::types::{EPOCH_END, Epoch, NodeName, SetNo, Slot, SlotName, Tenure, VoterId};
use std::collections::{BTreeMap, BTreeSet};

/// P7: a slot that all ready candidates left alone for so many staggers is open to one that is not ready.
pub const STOOD_BACK: u64 = 5;

/// P7: the jitter doubles with each clash in a row, so often at most: up to 5 ms times 32.
pub const CLASHES_MAX: u32 = 5;

/// Where one slot stands on this node.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Not held and not asked for.
    Idle,
    /// Asked for.
    Attempt(Attempt),
    /// Held, as long as `now < deadline`.
    Holding(Holding),
    /// Was held; waits for word that it stopped.
    Ended {
        /// The tenure's epoch.
        epoch: Epoch,
        /// The longest T asked for in it.
        longest: Span,
    },
}

impl Phase {
    /// The epoch of the attempt or tenure.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Idle => None,
            Self::Attempt(attempt) => Some(attempt.epoch),
            Self::Holding(holding) => Some(holding.epoch),
            Self::Ended { epoch, .. } => Some(*epoch),
        }
    }
}

/// P2: one try with a fresh epoch, in one set.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its epoch.
    pub epoch: Epoch,
    /// The set it is counted in (P4, B5.4).
    pub set: SetNo,
    /// Acks so far.
    pub votes: Votes,
    /// Voters that refused, and have not said "free" since.
    pub refused: BTreeSet<VoterId>,
    /// Did a voter refuse for a reason that a quick retry does not mend?
    pub slow: bool,
    /// Was it refused because another holds?
    pub held: bool,
    /// Was it refused for its epoch? That voter will never ack it.
    pub outdated: bool,
    /// The last reason.
    pub why: Option<Why>,
    /// First send + T_hold.
    pub ends: Time,
    /// When to ask the silent ones again.
    pub again: Time,
}

/// A held tenure.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Its epoch.
    pub epoch: Epoch,
    /// Acks of this tenure.
    pub votes: Votes,
    /// P3. What the slot's word says too, if the word was not fenced.
    pub deadline: Time,
    /// The longest T asked for.
    pub longest: Span,
    /// Asked to stop, for this successor.
    pub stopping: Option<Option<NodeName>>,
}

/// P5: an ended tenure tells the voters.
#[derive(Clone, Debug)]
pub struct Releasing {
    /// Its epoch; releases of lower ones are covered by it (V5).
    pub epoch: Epoch,
    /// Who should start at once.
    pub successor: Option<NodeName>,
    /// Who acked.
    pub acked: BTreeSet<VoterId>,
    /// The last grant has expired by then: no need to repeat further.
    pub until: Time,
    /// When to repeat.
    pub again: Time,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct SlotHolder {
    /// Lease length of the present phase.
    pub(crate) t: Span,
    /// Lease length from the next attempt on.
    pub(super) next_t: Span,
    pub(crate) candidacy: Option<Candidacy>,
    /// Highest epoch seen or used for this slot (P2).
    pub(crate) seen: Epoch,
    pub(crate) phase: Phase,
    pub(crate) releasing: Option<Releasing>,
    /// Voters that said "free" since the last attempt.
    free: BTreeSet<VoterId>,
    /// The node whose lease ran out before the slot was free, as far as voters said.
    ran_out: Option<NodeName>,
    /// Attempts that met another's, in a row.
    clashes: u32,
    /// When the last of them did.
    clashed: Time,
    /// P7: when to ask.
    pub(crate) start: Option<Time>,
    /// P7: it let go in favour of another, whom it leaves so much time to ask first.
    yields_until: Time,
    /// The earliest entry in the holder's queue of wakes.
    pub(super) queued: Option<Time>,
}

/// What a slot may use of its holder.
pub(super) struct Env<'a, R> {
    pub now: Time,
    pub jitter: Span,
    pub config: &'a HolderConfig,
    pub rules: &'a R,
    pub sets: &'a KnownSets,
    pub out: &'a mut Outbox,
    pub actions: &'a mut Vec<Action>,
    /// When to renew, by T.
    pub renewals: &'a mut BTreeMap<Span, Time>,
    /// Highest epoch seen in any partition, by ring, so that a batch of partitions shares one epoch and thus one bitmap.
    pub rings: &'a mut BTreeMap<SlotName, Epoch>,
    /// Highest epoch of slots that were forgotten.
    pub forgotten: Epoch,
}

impl SlotHolder {
    pub(super) const fn new(t: Span) -> Self {
        Self {
            t,
            next_t: t,
            candidacy: None,
            seen: Epoch(0),
            phase: Phase::Idle,
            releasing: None,
            free: BTreeSet::new(),
            ran_out: None,
            clashes: 0,
            clashed: Time(0),
            start: None,
            yields_until: Time(0),
            queued: None,
        }
    }

    /// Nothing to remember but `seen`.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.candidacy.is_none() && self.releasing.is_none()
    }

    pub(super) fn saw<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch) {
        self.seen = self.seen.max(epoch);
        if let Slot::Ring { ring, .. } = slot {
            match env.rings.get_mut(ring) {
                Some(highest) => *highest = (*highest).max(epoch),
                None => {
                    env.rings.insert(ring.clone(), epoch);
                }
            }
        }
    }

    /// The next time this slot wants to be looked at.
    pub(super) fn wake(&self) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Idle => self.start,
            Phase::Attempt(attempt) => Some(attempt.ends.min(attempt.again)),
            Phase::Holding(holding) => Some(holding.deadline),
            Phase::Ended { .. } => None,
        };
        let releasing = self.releasing.as_ref().map(|releasing| releasing.until.min(releasing.again));
        phase.into_iter().chain(releasing).min()
    }

    /// Everything that time alone brings about. Comes first in every step, so that no event finds a dead tenure alive (P3).
    pub(super) fn settle<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        self.settle_release(env, slot);
        let revives = env.rules.breaks(Fault::DeadTenureRevived) || env.rules.breaks(Fault::FencedExtended);
        match &mut self.phase {
            Phase::Holding(holding) if env.now >= holding.deadline && !revives => self.end(env, slot),
            Phase::Attempt(attempt) if env.now >= attempt.ends => self.fail(env, slot),
            Phase::Attempt(attempt) if env.now >= attempt.again => {
                attempt.again = env.config.grid(env.now + self.t.part(env.config.renewals_per_t), true);
                self.ask_silent(env, slot);
            }
            Phase::Idle if self.start.is_some_and(|start| start <= env.now) => {
                self.start = None;
                if self.candidacy.is_some() {
                    self.begin(env, slot);
                }
            }
            _ => {}
        }
    }

    /// P2: a fresh epoch, one set, all its voters.
    pub(super) fn begin<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        let ring = match slot {
            Slot::Ring { ring, .. } => env.rings.get(ring).copied().unwrap_or_default(),
            Slot::Named(_) => Epoch(0),
        };
        let epoch = self.seen.max(ring).max(env.forgotten).next();
        if epoch >= EPOCH_END {
            env.actions.push(Action::Failed { slot: slot.clone(), why: Some(Why::EpochRange), taken: false });
            return;
        }
        self.seen = epoch;
        self.t = self.next_t;
        self.free.clear();
        self.start = None;
        self.phase = Phase::Attempt(Attempt {
            epoch,
            set: env.sets.for_attempt().number(),
            votes: Votes::default(),
            refused: BTreeSet::new(),
            slow: false,
            held: false,
            outdated: false,
            why: None,
            ends: env.config.grid(env.now + env.config.timing.hold(self.t), false),
            again: env.config.grid(env.now + self.t.part(env.config.renewals_per_t), true),
        });
        self.ask_silent(env, slot);
    }

    /// Asks every voter of the attempt's set that neither acked nor refused. The same tenure again is no second attempt (V3).
    fn ask_silent<R: Rules>(&self, env: &mut Env<'_, R>, slot: &Slot) {
        let Phase::Attempt(attempt) = &self.phase else { return };
        let Some(set) = env.sets.get(attempt.set) else { return };
        for member in set.members() {
            if attempt.refused.contains(&member.id) || attempt.votes.iter().any(|vote| vote.voter == member.id) {
                continue;
            }
            self.ask_one(env, slot, attempt, member.id);
        }
    }

    fn ask_one<R: Rules>(&self, env: &mut Env<'_, R>, slot: &Slot, attempt: &Attempt, voter: VoterId) {
        let planted = env.rules.breaks(Fault::RenewCountsAsAcquire);
        let purpose = if planted { Purpose::Renew } else { Purpose::Acquire };
        env.out.ask(purpose, (voter, attempt.set), self.t, slot, attempt.epoch);
    }

    /// An ack of this slot in this epoch. `until` is send time + T_hold of that send (P3).
    pub(super) fn acked<R: Rules>(
        &mut self,
        env: &mut Env<'_, R>,
        slot: &Slot,
        epoch: Epoch,
        purpose: Purpose,
        (set, voter): (SetNo, VoterId),
        until: Time,
    ) {
        match (&mut self.phase, purpose) {
            (_, Purpose::Release) => self.release_acked(env, slot, epoch, voter),
            (Phase::Attempt(attempt), _) if attempt.epoch == epoch && attempt.set == set => {
                // P4: nothing but Acquire was sent in this epoch yet, so this is an ack of one.
                attempt.votes.ack(set, voter, until);
                attempt.refused.remove(&voter);
                let deadline = env.sets.get(set).and_then(|set| attempt.votes.deadline(set));
                if let Some(deadline) = deadline.filter(|deadline| env.now < *deadline) {
                    let votes = std::mem::take(&mut attempt.votes);
                    self.hold(env, slot, epoch, votes, deadline);
                }
            }
            (Phase::Holding(holding), _) if holding.epoch == epoch => {
                holding.votes.ack(set, voter, until);
                // B5.4: the later of the sets' deadlines. `settle` saw to it that the present one has not passed.
                let deadline = env.sets.all().filter_map(|set| holding.votes.deadline(set)).max();
                if let Some(deadline) = deadline.filter(|deadline| *deadline > holding.deadline) {
                    holding.deadline = deadline;
                    env.actions.push(Action::Extend { slot: slot.clone(), epoch, deadline });
                }
            }
            _ => {}
        }
    }

    fn hold<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch, votes: Votes, deadline: Time) {
        self.phase = Phase::Holding(Holding { epoch, votes, deadline, longest: self.t, stopping: None });
        self.clashes = 0;
        env.renewals.entry(self.t).or_insert(env.now + self.t.part(env.config.renewals_per_t));
        let tenure = Tenure { epoch, node: env.config.node.clone(), instance: env.config.instance };
        env.actions.push(Action::Arm { slot: slot.clone(), tenure, deadline });
    }

    /// P6: goes on with a tenure of this agent's former life.
    pub(super) fn adopt<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch, deadline: Time) {
        self.saw(env, slot, epoch);
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.start = None;
        // The former life may have asked for the longest T (planned restart).
        let longest = env.config.max_t;
        let holding = Holding { epoch, votes: Votes::default(), deadline, longest, stopping: None };
        self.phase = Phase::Holding(holding);
        if env.now < deadline {
            env.renewals.insert(self.t, env.now);
        } else {
            // Too late, but it may still run. No attempt before it has stopped: the Release of a failed one would clear the grants that
            // keep everybody else out until then (V5).
            self.end(env, slot);
        }
    }

    /// A refusal of this slot in this epoch.
    pub(super) fn nacked<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch, (set, voter): (SetNo, VoterId), why: &Why) {
        if let Why::Epoch(seen) | Why::Held { epoch: seen, .. } = why {
            self.saw(env, slot, *seen);
        }
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        if attempt.epoch != epoch || attempt.set != set {
            return;
        }
        // An ack stays true whatever comes later: it was given, and lasts its T.
        if attempt.votes.iter().all(|vote| vote.voter != voter) {
            attempt.refused.insert(voter);
        }
        attempt.held |= matches!(why, Why::Held { .. });
        // P2: the epoch is too low for good, so wait for the silent ones for a stagger only; some may be dead, and whoever has acked
        // keeps everybody else out meanwhile.
        if matches!(why, Why::Epoch(_)) {
            attempt.outdated = true;
            attempt.ends = attempt.ends.min(env.config.grid(env.now + env.config.stagger, true));
        }
        attempt.slow |= !matches!(why, Why::Held { .. } | Why::Epoch(_) | Why::Set(_) | Why::Released);
        attempt.why = Some(why.clone());
        let possible = env.sets.get(set).is_some_and(|set| set.agreed(|id| !attempt.refused.contains(&id)));
        // P7: of two that split the votes the lower rank gives way at once.
        let yields = match (why, &self.candidacy) {
            (Why::Held { by, .. }, Some(candidacy)) => candidacy.before(&by.name, &env.config.node.name),
            _ => false,
        };
        if !possible || yields {
            self.fail(env, slot);
        }
    }

    /// P2: the attempt is over; release it and back off.
    fn fail<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        let attempt = Attempt { why: attempt.why.take(), ..attempt.clone() };
        let possible = env.sets.get(attempt.set).is_some_and(|set| set.agreed(|id| !attempt.refused.contains(&id)));
        self.phase = Phase::Idle;
        let row = if self.row_goes_on(env.now) { self.clashes } else { 0 };
        self.clashes = if attempt.held { row.saturating_add(1) } else { 0 };
        self.clashed = env.now;
        env.actions.push(Action::Failed { slot: slot.clone(), why: attempt.why, taken: attempt.held && !possible });
        self.begin_release(env, slot, attempt.epoch, None, self.t);
        let Some(candidacy) = &self.candidacy else { return };
        // A slot that is held needs no retry: its voters say when it is free.
        if attempt.held && !attempt.outdated || !candidacy.may_go() {
            return;
        }
        let rank = candidacy.rank_after(&env.config.node.name, self.ran_out.as_ref());
        let pause = if attempt.slow { self.t.part(2) } else { Span::ZERO };
        let start = env.now + env.config.stagger.times(rank) + env.jitter + pause + self.apart(env.now, env.jitter);
        self.start = Some(env.config.grid(start, true));
    }

    /// Attempts that are more than a lease apart are not in a row: the slot was held in between, and who lost against its holder did not clash.
    fn row_goes_on(&self, now: Time) -> bool {
        now < self.clashed + self.t
    }

    /// The assignment says something new. Who may not go any more (not ready, and its policy forbids) gives up what it was about to do.
    pub(super) fn assigned<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, t: Span, candidacy: Candidacy) {
        self.next_t = t;
        let may_go = candidacy.may_go();
        self.candidacy = Some(candidacy);
        if may_go {
            self.plan_start(env);
        } else {
            self.fail(env, slot);
            self.start = None;
        }
    }

    /// No candidate any more: an attempt under way is given up, so that no late ack starts what nobody wants.
    pub(super) fn withdraw<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        self.candidacy = None;
        self.start = None;
        self.fail(env, slot);
    }

    /// The deadline passed or the word was fenced: this tenure is dead for ever (P3).
    fn end<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        let Phase::Holding(holding) = &self.phase else { return };
        let (epoch, longest) = (holding.epoch, holding.longest);
        self.phase = Phase::Ended { epoch, longest };
        env.actions.push(Action::Lost { slot: slot.clone(), epoch });
    }

    /// The slot's word is fenced, or could not be armed.
    pub(super) fn fenced<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch) {
        if matches!(&self.phase, Phase::Holding(holding) if holding.epoch == epoch) {
            self.end(env, slot);
        }
    }

    /// P5: asked to give the slot up. Renewals go on until it has stopped.
    pub(super) fn stop<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, successor: Option<NodeName>) {
        // An attempt has started nothing: giving it up is all.
        self.fail(env, slot);
        let Phase::Holding(holding) = &mut self.phase else { return };
        let epoch = holding.epoch;
        let longest = holding.longest;
        holding.stopping = Some(successor.clone());
        if env.rules.breaks(Fault::ReleaseBeforeStop) {
            self.begin_release(env, slot, epoch, successor, longest);
        }
    }

    /// P5: the slot has stopped and its address is gone. Only now the voters hear of it.
    pub(super) fn stopped<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, stopped: Epoch) {
        let (epoch, longest, successor) = match &mut self.phase {
            Phase::Holding(holding) => (holding.epoch, holding.longest, holding.stopping.take().flatten()),
            Phase::Ended { epoch, longest } => (*epoch, *longest, None),
            Phase::Idle | Phase::Attempt(_) => return,
        };
        if epoch != stopped {
            return;
        }
        self.phase = Phase::Idle;
        // What was heard and planned before or during the tenure says nothing of the time after it.
        self.free.clear();
        self.start = None;
        if successor.is_some() {
            let ranks = self.candidacy.as_ref().map_or(0, |candidacy| candidacy.order.len() as u64);
            self.yields_until = env.now + env.config.stagger.times(ranks + STOOD_BACK);
        }
        // The word first: nothing may start under this tenure once the voters know.
        env.actions.push(Action::Disarm { slot: slot.clone(), epoch });
        self.begin_release(env, slot, epoch, successor, longest);
    }

    fn begin_release<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch, successor: Option<NodeName>, longest: Span) {
        let until = env.now + longest;
        let again = env.config.grid(env.now + self.t.part(env.config.renewals_per_t), true);
        self.releasing = Some(Releasing { epoch, successor, acked: BTreeSet::new(), until, again });
        self.ask_release(env, slot);
    }

    fn ask_release<R>(&self, env: &mut Env<'_, R>, slot: &Slot) {
        let Some(releasing) = &self.releasing else { return };
        for member in env.sets.voters().filter(|member| !releasing.acked.contains(&member.id)) {
            let set = env.sets.label_of(member.id).unwrap_or(env.sets.current().number());
            env.out.ask(Purpose::Release, (member.id, set), Span::ZERO, slot, releasing.epoch);
        }
    }

    fn release_acked<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot, epoch: Epoch, voter: VoterId) {
        let Some(releasing) = &mut self.releasing else { return };
        if releasing.epoch != epoch {
            return;
        }
        releasing.acked.insert(voter);
        if !env.sets.current().agreed(|id| releasing.acked.contains(&id)) {
            return;
        }
        // The successor's copy goes out when its Acquire will find the grants gone.
        if let Some(successor) = &releasing.successor {
            env.out.hand_over(successor, slot, epoch);
        }
        self.releasing = None;
        env.actions.push(Action::Released { slot: slot.clone(), epoch });
    }

    fn settle_release<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot) {
        let Some(releasing) = &mut self.releasing else { return };
        if env.now >= releasing.until {
            let epoch = releasing.epoch;
            self.releasing = None;
            env.actions.push(Action::Released { slot: slot.clone(), epoch });
        } else if env.now >= releasing.again {
            releasing.again = env.config.grid(env.now + self.t.part(env.config.renewals_per_t), true);
            self.ask_release(env, slot);
        }
    }

    /// P7: a voter says that the slot is free.
    pub(super) fn freed<R: Rules>(&mut self, env: &mut Env<'_, R>, slot: &Slot, voter: VoterId, floor: Epoch, ran_out: Option<&NodeName>) {
        self.saw(env, slot, floor);
        self.ran_out = ran_out.cloned();
        if let Phase::Attempt(attempt) = &mut self.phase {
            if attempt.refused.remove(&voter)
                && let Phase::Attempt(attempt) = &self.phase
            {
                self.ask_one(env, slot, attempt, voter);
            }
            return;
        }
        if env.sets.current().has(voter) {
            self.free.insert(voter);
        }
        self.plan_start(env);
    }

    /// Stale assignments may make two nodes believe that they are first. After each clash they draw from a wider range.
    fn apart(&self, now: Time, jitter: Span) -> Span {
        match self.clashes {
            0 => Span::ZERO,
            _ if !self.row_goes_on(now) => Span::ZERO,
            clashes => jitter.times(1 << if clashes < CLASHES_MAX { clashes } else { CLASHES_MAX }),
        }
    }

    /// P7: when to ask, after what the voters said so far.
    pub(super) fn plan_start<R>(&mut self, env: &Env<'_, R>) {
        let (Some(candidacy), false) = (&self.candidacy, self.free.is_empty()) else { return };
        let Some(delay) = candidacy.delay(&env.config.node.name, self.ran_out.as_ref(), env.config.stagger, env.jitter) else { return };
        // A majority should be free, else most would refuse; but a voter may be down, so do not wait for it for long.
        let majority = env.sets.current().agreed(|id| self.free.contains(&id));
        let patience = if majority { Span::ZERO } else { env.config.stagger };
        let start = (env.now + delay + patience + self.apart(env.now, env.jitter)).max(self.yields_until);
        // At once stays at once.
        let start = if start > env.now { env.config.grid(start, true) } else { start };
        self.start = Some(self.start.map_or(start, |planned| planned.min(start)));
    }

    /// P5: the former holder says that this node is next. A hint: V1 still decides.
    pub(super) fn handed<R>(&mut self, env: &mut Env<'_, R>, slot: &Slot, released: Epoch) {
        self.saw(env, slot, released);
        if self.candidacy.is_some() && matches!(self.phase, Phase::Idle) {
            self.start = Some(env.now);
        }
    }
}
