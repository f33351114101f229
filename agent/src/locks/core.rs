//! Who on this node wants which lock, who has it, and who comes next: pure. Time is an argument.
//!
//! # How a lock goes round
//! A process that wants a lock is a *claim*. Claims of one lock on this node stand in a line; the slot is asked for once, for the first of them
//! (`Asking`). Where another node has it this node becomes a candidate like those of an App (`Waiting`), and tells the holder's node of its
//! claims. **The holder's node keeps the queue**: all claims of all nodes in the order in which they came, told to each node that waits. When
//! the process is done its node names the queue's first as successor, which needs one message then. When the holder's node dies, the others
//! have the queue and ask in its order (rule P7).
//!
//! A semaphore is so many slots. Its claims wait for all of them, and take the first that comes.
//!
//! The queue is a courtesy: losing all of it costs time or a place, never exclusivity, which is the voters'.

use std::collections::BTreeMap;

use cluster_lease::time::{Span, Time};
use cluster_lease::types::{Epoch, NodeName, Slot};

use super::line::{Claim, Line};
use super::name::{Key, LockName};
use super::note::LockNote;
use super::place::{Place, State};
use super::{CLAIMS_MAX, CLAIMS_PER_APP_MAX, CLAIMS_PER_LOCK_MAX};
use crate::lease::locking::{LockAsk, LockEvent};

/// How often a node that waits says so again, and how long it is believed.
pub(super) const NOTE_EVERY: Span = Span::from_millis(1_000);
pub(super) const NOTE_TTL: Span = Span::from_millis(3_500);

/// Number of a process's claim, unique in this agent's life.
pub(super) type Id = u64;

/// Why a lock is not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Another has it, for as long as was waited.
    #[error("the lock is held{}", by.as_ref().map(|by| format!(" on {by}")).unwrap_or_default())]
    Held {
        /// Its node, where that is known.
        by: Option<String>,
    },
    /// No majority of the voters answered.
    #[error("no majority of the voters answers, so nobody can tell whether the lock is free")]
    NoMajority,
    /// Others on this node use the semaphore with another number of holders.
    #[error("the semaphore is in use on this node with {0} holders")]
    Holders(u16),
    /// Too many claims.
    #[error("this node has as many claims on locks {0} as it may have")]
    TooMany(&'static str),
    /// The agent ends.
    #[error("the agent ends")]
    Ending,
}

/// What happens.
#[derive(Debug)]
pub(super) enum Input {
    Want {
        id: Id,
        name: LockName,
        t: Span,
        until: Time,
        once: bool,
    },
    /// The process is gone, or done.
    Gone(Id),
    Lease(LockEvent),
    Note {
        from: NodeName,
        note: LockNote,
    },
    Tick,
}

/// What follows.
#[derive(Debug)]
pub(super) enum Output {
    Lease(LockAsk),
    Send(NodeName, LockNote),
    Give { id: Id, place: u16, epoch: Epoch, deadline: Time },
    Extend { id: Id, deadline: Time },
    Lose(Id),
    Refuse(Id, LockError),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Core {
    me: NodeName,
    lines: BTreeMap<Key, Line>,
    /// Which line a claim stands in, or holds a place of.
    claims: BTreeMap<Id, Key>,
    noted: Time,
}

impl Core {
    pub(super) const fn new(me: NodeName) -> Self {
        Self { me, lines: BTreeMap::new(), claims: BTreeMap::new(), noted: Time(0) }
    }

    /// What this node holds: lock by lock with its token.
    pub(super) fn held(&self) -> BTreeMap<Slot, Epoch> {
        let places = self.lines.iter().flat_map(|(key, line)| line.places.iter().map(move |(at, place)| (key, *at, place)));
        places.filter_map(|(key, at, place)| Some((key.slot(at)?, place.held()?.1))).collect()
    }

    /// When [`Input::Tick`] is due.
    pub(super) fn next_wake(&self) -> Option<Time> {
        let own = self.lines.values().filter_map(Line::next_wake).min();
        let notes = (!self.lines.is_empty()).then(|| self.noted + NOTE_EVERY);
        own.into_iter().chain(notes).min()
    }

    pub(super) fn handle(&mut self, now: Time, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Want { id, name, t, until, once } => self.want(id, &name, (t, until, once), &mut out),
            Input::Gone(id) => self.gone(id, &mut out),
            Input::Lease(event) => self.leased(now, event, &mut out),
            Input::Note { from, note } => self.noted(now, &from, note, &mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn want(&mut self, id: Id, name: &LockName, (t, until, once): (Span, Time, bool), out: &mut Vec<Output>) {
        let key = name.key();
        let of_app = self.claims.values().filter(|known| known.app == key.app).count();
        let of_lock = self.claims.values().filter(|known| **known == key).count();
        let in_use = self.lines.get(&key).map(|line| line.holders).filter(|n| *n != name.holders());
        let refusal = match in_use {
            Some(holders) => Some(LockError::Holders(holders)),
            None if self.claims.len() >= CLAIMS_MAX => Some(LockError::TooMany("in all")),
            None if of_app >= CLAIMS_PER_APP_MAX => Some(LockError::TooMany("of this App")),
            None if of_lock >= CLAIMS_PER_LOCK_MAX => Some(LockError::TooMany("of this name")),
            None => None,
        };
        if let Some(error) = refusal {
            out.push(Output::Refuse(id, error));
            return;
        }
        self.claims.insert(id, key.clone());
        let line = self.lines.entry(key.clone()).or_insert_with(|| Line::new(name.holders()));
        line.t = t;
        line.claims.push_back(Claim { id, until, once });
        self.changed(&key, out);
    }

    fn gone(&mut self, id: Id, out: &mut Vec<Output>) {
        let Some(key) = self.claims.remove(&id) else { return };
        if let Some(line) = self.lines.get_mut(&key) {
            line.claims.retain(|claim| claim.id != id);
            let at = line.places.iter().find(|(_, place)| place.is_of(id)).map(|(at, _)| *at);
            if let Some(at) = at {
                self.let_go(&key, at, out);
            }
        }
        self.changed(&key, out);
    }

    /// The place's process is done with it.
    fn let_go(&mut self, key: &Key, at: u16, out: &mut Vec<Output>) {
        let Some(slot) = key.slot(at) else { return };
        let Some(line) = self.lines.get_mut(key) else { return };
        let (t, waits) = (line.t, !line.claims.is_empty());
        let Some(place) = line.places.get_mut(&at) else { return };
        match std::mem::replace(&mut place.state, State::Idle) {
            State::Held { epoch, .. } => {
                let first = place.queue.first().map(|told| told.node.clone());
                let again = waits && first.as_ref().is_none_or(|first| *first == self.me);
                let successor = first.filter(|first| *first != self.me);
                place.heard.clear();
                place.holder.clone_from(&successor);
                out.push(Output::Lease(LockAsk::Release { slot: slot.clone(), epoch, successor, again: again.then_some(t) }));
                if again {
                    place.state = State::Asking;
                } else if waits {
                    place.state = State::Waiting;
                    out.push(Output::Lease(LockAsk::Wait { slot, t, order: place.order(&self.me) }));
                } else {
                    place.queue.clear();
                }
            }
            State::Ended { epoch, .. } => out.push(Output::Lease(LockAsk::Stopped { slot, epoch })),
            before => place.state = before,
        }
    }

    fn leased(&mut self, now: Time, event: LockEvent, out: &mut Vec<Output>) {
        let (LockEvent::Granted { slot, .. }
        | LockEvent::Extended { slot, .. }
        | LockEvent::Lost { slot, .. }
        | LockEvent::Failed { slot, .. }) = &event;
        let slot = slot.clone();
        let Some((key, at)) = Key::of(&slot) else { return };
        match event {
            LockEvent::Granted { epoch, deadline, .. } => self.granted(now, (&key, at), &slot, (epoch, deadline), out),
            LockEvent::Extended { epoch, deadline, .. } => {
                if let Some((id, held)) = self.place(&key, at).and_then(|place| place.held())
                    && held == epoch
                {
                    out.push(Output::Extend { id, deadline });
                }
            }
            LockEvent::Lost { epoch, .. } => match self.place(&key, at) {
                Some(place) if place.held().is_some_and(|(_, held)| held == epoch) => {
                    let t = self.lines.get(&key).map_or(Span::ZERO, |line| line.t);
                    let Some(place) = self.place(&key, at) else { return };
                    let Some((id, _)) = place.held() else { return };
                    place.state = State::Ended { id, epoch, until: now + t };
                    place.heard.clear();
                    out.push(Output::Lose(id));
                }
                // Nobody here knows of it.
                _ => out.push(Output::Lease(LockAsk::Stopped { slot, epoch })),
            },
            LockEvent::Failed { by, answered, .. } => {
                let Some(line) = self.lines.get_mut(&key) else { return };
                let t = line.t;
                line.answered = answered;
                let Some(place) = line.places.get_mut(&at) else { return };
                let asked = matches!(place.state, State::Asking);
                if !asked && !matches!(place.state, State::Waiting) {
                    return;
                }
                let by = by.filter(|by| *by != self.me);
                let another = by.is_some() && place.holder != by;
                if by.is_some() {
                    place.holder = by;
                }
                if asked {
                    place.state = State::Waiting;
                    out.push(Output::Lease(LockAsk::Wait { slot, t, order: place.order(&self.me) }));
                }
                if asked || another {
                    place.announced.clear();
                }
            }
        }
        self.changed(&key, out);
    }

    fn granted(&mut self, now: Time, (key, at): (&Key, u16), slot: &Slot, (epoch, deadline): (Epoch, Time), out: &mut Vec<Output>) {
        let me = self.me.clone();
        // What is held stays held; it is not to be asked for again when it is let go.
        if self.place(key, at).is_some_and(|place| matches!(place.state, State::Waiting)) {
            out.push(Output::Lease(LockAsk::Withdraw(slot.clone())));
        }
        let line = self.lines.get_mut(key);
        let claim = line.and_then(|line| line.claims.pop_front().map(|claim| (line, claim)));
        let Some((line, claim)) = claim else {
            // Nobody here wants it any more.
            let first = self.place(key, at).and_then(|place| place.queue.iter().find(|told| told.node != me).map(|told| told.node.clone()));
            out.push(Output::Lease(LockAsk::Release { slot: slot.clone(), epoch, successor: first, again: None }));
            if let Some(place) = self.place(key, at) {
                place.state = State::Idle;
            }
            return;
        };
        let ids = line.ids();
        let place = line.places.entry(at).or_default();
        place.state = State::Held { id: claim.id, epoch };
        place.holder = None;
        // The queue as it was told; who of it is still there says so again within the time that it is believed.
        place.heard = place.queue.iter().filter(|told| told.node != me).map(|told| (told.node.clone(), now)).collect();
        place.merge(&me, &ids);
        place.told.clear();
        out.push(Output::Give { id: claim.id, place: at, epoch, deadline });
        // Those that wait learn whom to wait for.
        self.tell_queue(key, at, out);
    }

    fn noted(&mut self, now: Time, from: &NodeName, note: LockNote, out: &mut Vec<Output>) {
        let (LockNote::Waiting { slot, .. } | LockNote::Queue { slot, .. }) = &note;
        let Ok(slot) = slot.parse::<Slot>() else { return };
        let Some((key, at)) = Key::of(&slot) else { return };
        match note {
            LockNote::Waiting { claims, .. } => {
                let Some(place) = self.place(&key, at).filter(|place| place.held().is_some()) else { return };
                if claims.is_empty() {
                    place.heard.remove(from);
                } else {
                    place.heard.insert(from.clone(), now);
                }
                place.merge(from, &claims);
                if place.told == place.queue && !claims.is_empty() {
                    // It says so again each second: what it was told may be lost.
                    let queue = place.queue.clone();
                    out.push(Output::Send(from.clone(), LockNote::Queue { slot: slot.to_string(), queue }));
                }
                self.tell_queue(&key, at, out);
            }
            LockNote::Queue { queue, .. } => {
                let me = self.me.clone();
                let Some(line) = self.lines.get_mut(&key) else {
                    // It believes that somebody here waits.
                    if queue.iter().any(|told| told.node == me) {
                        out.push(Output::Send(from.clone(), LockNote::Waiting { slot: slot.to_string(), claims: Vec::new() }));
                    }
                    return;
                };
                let t = line.t;
                let Some(place) = line.places.get_mut(&at).filter(|place| matches!(place.state, State::Waiting)) else { return };
                let before = place.order(&me);
                if place.holder.as_ref() != Some(from) {
                    place.holder = Some(from.clone());
                    place.announced.clear();
                }
                place.take_queue(queue);
                let order = place.order(&me);
                if order != before {
                    out.push(Output::Lease(LockAsk::Wait { slot, t, order }));
                }
                self.changed(&key, out);
            }
        }
    }

    /// Tells the queue to all nodes in it, if it is another than the one told last.
    fn tell_queue(&mut self, key: &Key, at: u16, out: &mut Vec<Output>) {
        let me = self.me.clone();
        let (Some(slot), Some(place)) = (key.slot(at), self.place(key, at)) else { return };
        if place.told == place.queue {
            return;
        }
        place.told.clone_from(&place.queue);
        for node in place.order(&me).into_iter().filter(|node| *node != me) {
            out.push(Output::Send(node, LockNote::Queue { slot: slot.to_string(), queue: place.queue.clone() }));
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = now >= self.noted + NOTE_EVERY;
        if due {
            self.noted = now;
        }
        let keys: Vec<Key> = self.lines.keys().cloned().collect();
        for key in keys {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            for claim in line.overdue(now) {
                self.claims.remove(&claim);
                out.push(Output::Refuse(claim, line.why()));
            }
            let ids = line.ids();
            let mut over = Vec::new();
            for (at, place) in &mut line.places {
                match &place.state {
                    State::Ended { until, epoch, .. } if now >= *until => over.push((*at, *epoch)),
                    State::Waiting if due => {
                        if let (Some(holder), Some(slot)) = (&place.holder, key.slot(*at)) {
                            let note = LockNote::Waiting { slot: slot.to_string(), claims: ids.clone() };
                            out.push(Output::Send(holder.clone(), note));
                        }
                    }
                    State::Held { .. } if due => place.forget_silent(&self.me, now),
                    _ => {}
                }
            }
            for (at, epoch) in over {
                // Its grants are over by now, whatever its process does (rule P5).
                if let (Some(slot), Some(place)) = (key.slot(at), line.places.get_mut(&at)) {
                    place.state = State::Idle;
                    out.push(Output::Lease(LockAsk::Stopped { slot, epoch }));
                }
            }
            self.changed(&key, out);
        }
    }

    /// Brings the places of a line into accord with its claims.
    fn changed(&mut self, key: &Key, out: &mut Vec<Output>) {
        let me = self.me.clone();
        let Some(line) = self.lines.get_mut(key) else { return };
        let ids = line.ids();
        for place in line.places.values_mut().filter(|place| place.held().is_some()) {
            place.merge(&me, &ids);
        }
        // As many places are asked for at a time as there are claims.
        while line.asking() < line.claims.len()
            && let Some(at) = line.idle()
            && let Some(slot) = key.slot(at)
        {
            line.places.entry(at).or_default().state = State::Asking;
            out.push(Output::Lease(LockAsk::Acquire { slot, t: line.t }));
        }
        if line.asking() == 0 && line.idle().is_none() {
            let why = line.why();
            for id in line.take_once() {
                self.claims.remove(&id);
                out.push(Output::Refuse(id, why.clone()));
            }
        }
        let ids = line.ids();
        for (at, place) in &mut line.places {
            let Some(slot) = key.slot(*at).filter(|_| matches!(place.state, State::Asking | State::Waiting)) else { continue };
            if ids.is_empty() {
                if let Some(holder) = place.holder.take() {
                    out.push(Output::Send(holder, LockNote::Waiting { slot: slot.to_string(), claims: Vec::new() }));
                }
                *place = Place::default();
                out.push(Output::Lease(LockAsk::Withdraw(slot)));
            } else if place.announced != ids
                && let (Some(holder), State::Waiting) = (&place.holder, &place.state)
            {
                out.push(Output::Send(holder.clone(), LockNote::Waiting { slot: slot.to_string(), claims: ids.clone() }));
                place.announced.clone_from(&ids);
            }
        }
        let held: Vec<u16> = line.places.iter().filter(|(_, place)| place.held().is_some()).map(|(at, _)| *at).collect();
        line.places.retain(|_, place| !matches!(place.state, State::Idle));
        if line.places.is_empty() && line.claims.is_empty() {
            self.lines.remove(key);
        }
        for at in held {
            self.tell_queue(key, at, out);
        }
    }

    fn place(&mut self, key: &Key, at: u16) -> Option<&mut Place> {
        self.lines.get_mut(key)?.places.get_mut(&at)
    }
}
