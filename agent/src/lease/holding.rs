//! The holder's side of the lease host: candidacies in, tenures and their words out.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_fence::{WordIndex, clock};
use cluster_lease::holder::{Action, Candidacy, Event};
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, NodeName, Slot};
use cluster_lease::word::KEPT;
use tracing::{debug, error, info, warn};

use super::DEFAULT_T;
use super::host::Host;
use super::view::{Command, LeaseView, TenureState, TenureView, Wanted, list_of, members_of};

/// Largest jitter of an attempt (rule P7).
const JITTER_MAX: Span = Span::from_millis(5);
/// The renewals of a planned restart are given so long to be answered.
const RESTART_WAIT: Span = Span::from_millis(60);

impl Host {
    /// Has the holder take these events together, and carries out what it says. What went wrong with a word is an event again.
    pub(super) fn holder_events(&mut self, mut events: Vec<Event>) {
        while !events.is_empty() {
            let jitter = self.jitter(JITTER_MAX);
            let Some(holder) = &mut self.holder else { return };
            let mut actions = Vec::new();
            holder.handle_all(clock::now(), jitter, std::mem::take(&mut events), &mut actions);
            for action in actions {
                events.extend(self.action(action));
            }
        }
    }

    fn action(&mut self, action: Action) -> Vec<Event> {
        let Some(action) = self.lock_action(action) else { return Vec::new() };
        match action {
            Action::Send(to, message) => self.send(to, message),
            Action::Arm { slot, tenure, deadline } => {
                let epoch = tenure.epoch;
                let was_kept = self.state.keeping.end(&slot);
                let until = self.until(&slot, deadline);
                let armed = self.word(&slot).map(|word| match was_kept {
                    true => self.table.word(word).follow(epoch),
                    false => self.table.word(word).arm(epoch, until, clock::now),
                });
                if !matches!(armed, Some(Ok(()))) {
                    warn!(slot = %slot, epoch = epoch.0, "lease acquired, but its word is not armed: {armed:?}");
                    return vec![Event::Fenced { slot, epoch }];
                }
                info!(slot = %slot, epoch = epoch.0, "lease acquired");
                self.note_acquired(&slot, epoch);
                self.set_tenure(slot.clone(), epoch, TenureState::Held);
                return if was_kept { self.offered(&slot) } else { Vec::new() };
            }
            Action::Extend { slot, epoch, deadline } => {
                let extended = self.word(&slot).map(|word| self.table.word(word).extend(deadline, clock::now));
                if !matches!(extended, Some(Ok(()))) {
                    warn!(slot = %slot, epoch = epoch.0, "the renewal came too late: {extended:?}");
                    return vec![Event::Fenced { slot, epoch }];
                }
            }
            Action::Lost { slot, epoch } if self.may_keep(&slot, epoch) => return self.keep(&slot, epoch),
            Action::Lost { slot, epoch } => {
                warn!(slot = %slot, epoch = epoch.0, "lease lost");
                self.fence(&slot);
                self.set_tenure(slot, epoch, TenureState::Lost);
            }
            // A kept slot's tenure is over, and what runs goes on.
            Action::Disarm { slot, .. } if self.state.keeping.has(&slot) => {}
            Action::Disarm { slot, .. } => self.fence(&slot),
            Action::Released { slot, epoch } => debug!(slot = %slot, epoch = epoch.0, "lease released"),
            Action::Failed { slot, taken: true, .. } if self.state.keeping.has(&slot) => return self.kept_no_longer(&slot),
            Action::Failed { slot, why, .. } => debug!(slot = %slot, "attempt without success: {why:?}"),
        }
        Vec::new()
    }

    pub(super) fn set_tenure(&mut self, slot: Slot, epoch: Epoch, state: TenureState) {
        self.state.tenures.insert(slot, TenureView { epoch: epoch.0, state });
        self.state.dirty = true;
    }

    pub(super) fn fence(&mut self, slot: &Slot) {
        if let Some(word) = self.word(slot) {
            self.table.word(word).fence();
        }
    }

    /// The word of a slot; made where the slot is wanted and has none yet.
    pub(super) fn word(&mut self, slot: &Slot) -> Option<WordIndex> {
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

    /// F4: without a guard nobody would end this node's tenures in time, so they end now.
    pub(super) fn fence_all(&mut self) {
        let held: Vec<(Slot, u64)> = self.state.tenures.iter().map(|(s, t)| (s.clone(), t.epoch)).collect();
        let mut events = Vec::new();
        for (slot, epoch) in held {
            self.fence(&slot);
            if self.state.keeping.end(&slot) {
                self.set_tenure(slot.clone(), Epoch(epoch), TenureState::Lost);
            }
            events.push(Event::Fenced { slot, epoch: Epoch(epoch) });
        }
        self.holder_events(events);
    }

    /// P6: what an earlier agent of this boot holds goes on under its epoch. What was armed when this agent started and is not any more,
    /// or is fenced and still runs, is lost and has to stop first.
    pub(super) fn adopt(&mut self) {
        let mut found: BTreeMap<Slot, (Epoch, Time)> = BTreeMap::new();
        let mut add = |name: &str, epoch: Epoch, deadline: Time| {
            if let Ok(slot) = name.parse::<Slot>() {
                found.insert(slot, (epoch, deadline));
            }
        };
        for (name, epoch) in self.table.leftovers(clock::now()) {
            add(&name, epoch, Time(0));
        }
        for (name, epoch, deadline) in self.table.armed(clock::now()) {
            add(&name, epoch, deadline);
        }
        for (slot, tenure) in &self.state.tenures {
            found.entry(slot.clone()).or_insert((Epoch(tenure.epoch), Time(0)));
        }
        let mut events = Vec::new();
        for (slot, (epoch, deadline)) in found {
            let Some(word) = self.table.find_word(&slot.to_string()) else { continue };
            info!(slot = %slot, epoch = epoch.0, in_time = deadline > Time(0), "taken up from the agent before");
            self.state.words.insert(slot.clone(), word);
            self.set_tenure(slot.clone(), epoch, TenureState::Held);
            // Its word tells no deadline, so nothing of its lease is known: it goes on as one without a majority until the lease is had anew.
            if deadline == KEPT {
                self.state.keeping.begin(slot.clone());
                events.push(Event::Seen { slot, epoch });
                continue;
            }
            let t = self.state.wanted.get(&slot).map_or(DEFAULT_T, |w| w.t);
            events.push(Event::Adopt { slot, t, epoch, deadline });
        }
        self.holder_events(events);
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Want(wanted) => self.want(wanted),
            Command::GiveUp(slots) => {
                let mut events = Vec::new();
                for (slot, successor) in slots {
                    let Some(tenure) = self.state.tenures.get_mut(&slot).filter(|t| t.state == TenureState::Held) else { continue };
                    tenure.state = TenureState::Releasing;
                    self.state.dirty = true;
                    info!(slot = %slot, epoch = tenure.epoch, successor = successor.as_ref().map(NodeName::as_str), "lease is given up in good order");
                    if self.state.keeping.has(&slot) {
                        events.push(Event::Withdraw(slot));
                    } else {
                        events.push(Event::Release { slot, successor });
                    }
                }
                self.holder_events(events);
            }
            Command::Stopped(tenures) => {
                let mut events = Vec::new();
                for (slot, epoch) in tenures {
                    if self.state.tenures.get(&slot).is_some_and(|t| t.epoch == epoch && t.state != TenureState::Held) {
                        self.state.tenures.remove(&slot);
                        self.state.acquired.remove(&slot);
                        self.state.dirty = true;
                        if self.state.keeping.end(&slot) {
                            self.fence(&slot);
                            events.extend(self.offered(&slot));
                        }
                        events.push(Event::Stopped { slot, epoch: Epoch(epoch) });
                    }
                }
                self.holder_events(events);
            }
            Command::WantVoters(list) => self.state.voting.want(members_of(&list)),
            Command::HeardVoters(list) => self.store_knows(&list),
            Command::ForceVoters(list) => self.force_voters(&list),
            Command::Lock(ask) => self.lock_asked(ask),
            Command::Restarting(done) => {
                self.end_locks();
                self.holder_events(vec![Event::RenewLong]);
                self.state.restarting = Some((clock::now() + RESTART_WAIT, done));
            }
        }
    }

    fn want(&mut self, wanted: BTreeMap<Slot, Wanted>) {
        let before = std::mem::replace(&mut self.state.wanted, wanted);
        let mut events: Vec<Event> =
            before.keys().filter(|slot| !self.state.wanted.contains_key(*slot)).cloned().map(Event::Withdraw).collect();
        for (slot, wish) in &self.state.wanted {
            let known = before.get(slot);
            // An App that was deleted and made again has another entry in the table: its words follow it.
            if known.map(|w| w.unit) != Some(wish.unit)
                && let Err(error) = self.table.word_for(&slot.to_string(), wish.unit, wish.role)
            {
                error!(slot = %slot, "no place in the fence table: {error}");
            }
            if known != Some(wish) {
                self.offer(slot, wish, &mut events);
            }
        }
        self.holder_events(events);
        self.follow_policies(&before);
    }

    pub(super) fn offer_candidacies(&mut self) {
        let mut events = Vec::new();
        for (slot, wish) in &self.state.wanted {
            self.offer(slot, wish, &mut events);
        }
        self.holder_events(events);
    }

    /// The candidacy for a slot, where it is wanted.
    pub(super) fn offered(&self, slot: &Slot) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(wanted) = self.state.wanted.get(slot) {
            self.offer(slot, wanted, &mut events);
        }
        events
    }

    fn offer(&self, slot: &Slot, wanted: &Wanted, events: &mut Vec<Event>) {
        if self.state.guard_stale {
            events.push(Event::Withdraw(slot.clone()));
            return;
        }
        // Who goes on without a majority asks before everybody else, and does not give way to those that rank better.
        let kept = self.state.keeping.has(slot);
        let order = if kept { vec![self.node.name.clone()] } else { wanted.order.clone() };
        let candidacy = Candidacy { order: order.into(), ready: kept || wanted.ready, unready_may_go: true };
        events.push(Event::Candidate { slot: slot.clone(), t: wanted.t, candidacy });
        events.push(Event::Seen { slot: slot.clone(), epoch: Epoch(wanted.seen) });
    }

    pub(super) fn publish(&mut self) {
        let current = self.holder.as_ref().map(|h| h.sets().current());
        let number = current.map_or(0, |set| set.number().0);
        let other_set = number != self.state.published_set;
        if let Some(set) = current.filter(|_| other_set) {
            (self.remember_voters)(set);
            self.state.published_set = number;
        }
        if !std::mem::take(&mut self.state.dirty) && !other_set {
            return;
        }
        let voters = current.map(list_of);
        let voter = format!("{:032x}", self.voter.journal().voter.0);
        let (tenures, acquired) = (self.state.tenures.clone(), self.state.acquired.clone());
        let (trouble, silent) = (self.state.trouble.clone(), self.state.silent_why.clone());
        let waits = self.voter.waiting(clock::now()).is_some();
        let view = LeaseView { tenures, acquired, voter, voters, waits, silent, trouble };
        self.view.send_replace(Arc::new(view));
    }
}
