//! Drives a change of voters (B5), from outside the voters. Any number of drivers may try; each step is safe to repeat.
//!
//! # Flow
//! 1. *Prepare*: a majority of set n agrees that exactly this set is n+1. A voter gives one word per number and round, so no two sets of one
//!    number can both get there. (Two different sets n+1 need not meet: {U,V} may be followed by {U,V,X} or {U,V,Y}, with majorities {U,X}
//!    and {V,Y}.) Where the words differ, a driver goes on with the set that has most of them. Where all voters gave their word and none has a
//!    majority, that round can never decide, and the driver asks for the word of the next one. (One that is dead may have said anything: a
//!    split of the others waits for it, or for `voters force`.)
//! 2. *Install*: first a voter that joins, and once it does not wait any more (V6), everybody. From then on a voter refuses set n; its
//!    grants stay. (One that waits acks nothing: two voters of which one waits would let every lease end.)
//! 3. *Floor*: the highest epoch that a majority of n reports after it installed n+1 is carried to a majority of n+1. (Else, when n+2 is a
//!    majority that no voter of n is part of, an epoch could be granted again.)
//! 4. *Wait*: max T after the last of these answers. Then no deadline counted in set n lies in the future, whoever computed it.
//! 5. *Commit*: n+1 is committed; only now may n+2 be prepared.
//!
//! The host sends what [`SetChange::handle`] returns, hands it every [`SetAnswer`](crate::message::SetAnswer), and ticks it each
//! [`RESEND`]. A change that its driver left half done is finished by any other that starts with the same two sets; a voter's
//! `installed` and `former` name them.

use crate::message::{Message, SetAnswer, SetAsk, SetStep, SetWord};
use crate::rules::{AsWritten, Fault, Rules};
use crate::set::{Member, SetError, VoterSet};
use crate::time::{MAX_T, Span, Time};
use crate::types::{ClusterId, Epoch, NodeName, VoterId};
use std::collections::BTreeMap;

/// How often the current step is repeated to those that have not taken it.
pub const RESEND: Span = Span::from_millis(100);

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Step 1.
    Prepare,
    /// Step 2, the voter that joins.
    InstallJoining,
    /// Step 2, everybody.
    Install,
    /// Step 3.
    Floor,
    /// Step 4, until this time.
    Wait(Time),
    /// Done.
    Committed,
    /// Another set of this number is installed, which cannot follow the one that this driver began with.
    Conflict,
}

/// One change of voters. See the module's text.
#[derive(Clone, Debug)]
pub struct SetChange<R: Rules = AsWritten> {
    rules: R,
    cluster: ClusterId,
    me: NodeName,
    max_t: Span,
    from: VoterSet,
    word: SetWord,
    stage: Stage,
    floor: Epoch,
    answers: BTreeMap<VoterId, SetAnswer>,
    again: Time,
}

impl SetChange {
    /// Starts, or takes over, the change from one set to the next.
    ///
    /// # Errors
    /// [`SetError`] if the one cannot follow the other.
    pub fn new(cluster: ClusterId, me: NodeName, from: VoterSet, next: VoterSet) -> Result<Self, SetError> {
        Self::with_rules(AsWritten, cluster, me, MAX_T, from, next)
    }
}

impl<R: Rules> SetChange<R> {
    /// [`SetChange::new`] under given rules and longest T.
    ///
    /// # Errors
    /// [`SetError`] if the one cannot follow the other.
    pub fn with_rules(rules: R, cluster: ClusterId, me: NodeName, max_t: Span, from: VoterSet, next: VoterSet) -> Result<Self, SetError> {
        from.check_next(&next)?;
        let stage = if rules.breaks(Fault::InstallUnprepared) { Stage::InstallJoining } else { Stage::Prepare };
        let (floor, answers, again) = (Epoch(0), BTreeMap::new(), Time(0));
        let word = SetWord::first(next);
        Ok(Self { rules, cluster, me, max_t, from, word, stage, floor, answers, again })
    }

    /// How far it has come.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The set it leads to; another one once the voters are found to have agreed to that, or to be nearer to it.
    #[must_use]
    pub const fn next(&self) -> &VoterSet {
        &self.word.set
    }

    /// The word it asks the voters for.
    #[must_use]
    pub const fn word(&self) -> &SetWord {
        &self.word
    }

    /// The floor it carries over, once known.
    #[must_use]
    pub const fn floor(&self) -> Epoch {
        self.floor
    }

    /// The latest answer of a voter.
    #[must_use]
    pub fn answer(&self, voter: VoterId) -> Option<&SetAnswer> {
        self.answers.get(&voter)
    }

    /// When it wants to be ticked next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        match self.stage {
            Stage::Committed | Stage::Conflict => None,
            Stage::Wait(until) => Some(until),
            _ => Some(self.again),
        }
    }

    /// One step: an answer, or just time. Returns what to send.
    pub fn handle(&mut self, now: Time, answer: Option<&SetAnswer>) -> Vec<(NodeName, Message)> {
        let before = self.stage;
        let news = answer.filter(|answer| answer.cluster == self.cluster).is_some_and(|answer| self.note(answer));
        self.advance(now);
        if before == self.stage && !news && now < self.again {
            return Vec::new();
        }
        self.again = now + RESEND;
        self.asks()
    }

    /// Keeps the latest answer of each voter; true if it says anything new. Answers come out of order: what was installed or raised
    /// stays so.
    fn note(&mut self, answer: &SetAnswer) -> bool {
        let before = self.answers.get(&answer.voter).cloned();
        self.merge(answer);
        self.answers.get(&answer.voter) != before.as_ref()
    }

    fn merge(&mut self, answer: &SetAnswer) {
        let number = |answer: &SetAnswer| answer.installed.as_ref().map(VoterSet::number);
        match self.answers.get_mut(&answer.voter) {
            Some(known) if number(known) > number(answer) => {}
            Some(known) => {
                let same = number(known) == number(answer);
                let mut latest = answer.clone();
                if same {
                    latest.high = latest.high.max(known.high);
                    latest.base = latest.base.max(known.base);
                    latest.committed |= known.committed;
                    let round = |word: &Option<SetWord>| word.as_ref().map(|word| word.round);
                    if round(&latest.prepared) < round(&known.prepared) {
                        latest.prepared = known.prepared.take();
                    }
                }
                *known = latest;
            }
            None => {
                if self.from.has(answer.voter) || self.next().has(answer.voter) {
                    self.answers.insert(answer.voter, answer.clone());
                }
            }
        }
    }

    fn installed(&self, id: VoterId) -> bool {
        let installed = self.answers.get(&id).and_then(|answer| answer.installed.as_ref());
        installed.is_some_and(|set| set == self.next() || set.number() > self.next().number())
    }

    fn prepared(&self, id: VoterId) -> bool {
        self.installed(id) || self.answers.get(&id).is_some_and(|answer| answer.prepared.as_ref() == Some(&self.word))
    }

    /// It said last that it acks nothing yet.
    fn waits(&self, id: VoterId) -> bool {
        !self.rules.breaks(Fault::JoinedWhileWaiting) && self.answers.get(&id).is_some_and(|answer| answer.waiting)
    }

    fn raised(&self, id: VoterId) -> bool {
        self.installed(id) && self.answers.get(&id).is_some_and(|answer| answer.base >= self.floor)
    }

    /// A set of this number is installed somewhere: then a majority agreed to it.
    fn decided(&self) -> Option<&VoterSet> {
        let installed = self.answers.values().filter_map(|answer| answer.installed.as_ref());
        installed.filter(|set| set.number() == self.next().number()).min()
    }

    /// The last words of the voters on the set after the former one.
    fn words(&self) -> impl Iterator<Item = &SetWord> {
        let said = self.answers.iter().filter(|(id, _)| self.from.has(**id)).filter_map(|(_, answer)| answer.prepared.as_ref());
        said.filter(|word| self.from.check_next(&word.set).is_ok())
    }

    /// The word to ask for, by what the voters said so far. Any word is safe in the latest round, for those that gave none in it; one of a
    /// later round only where this one can never decide.
    fn better(&self) -> Option<SetWord> {
        let round = self.words().map(|word| word.round).max()?;
        let mut counts: BTreeMap<&VoterSet, usize> = BTreeMap::new();
        for word in self.words().filter(|word| word.round == round) {
            *counts.entry(&word.set).or_default() += 1;
        }
        if self.rules.breaks(Fault::RoundNotSplit) && !counts.contains_key(self.next()) {
            return round.checked_add(1).map(|round| SetWord { round, set: self.next().clone() }).filter(|word| *word != self.word);
        }
        let most = counts.values().max().copied()?;
        // Most words, then the first in order, so that all drivers ask for the same.
        let set = counts.iter().find(|(_, count)| **count == most).map(|(set, _)| (*set).clone())?;
        let split = counts.values().sum::<usize>() == self.from.members().len() && most < self.from.majority();
        let round = if split { round.checked_add(1)? } else { round };
        Some(SetWord { round, set }).filter(|word| word.round >= self.word.round && *word != self.word)
    }

    fn joining(&self) -> impl Iterator<Item = &Member> {
        self.next().members().iter().filter(|member| !self.from.has(member.id))
    }

    fn advance(&mut self, now: Time) {
        loop {
            let next = match self.stage {
                Stage::Prepare if self.from.agreed(|id| self.prepared(id)) => Stage::InstallJoining,
                Stage::Prepare => match self.decided().cloned() {
                    Some(set) if self.from.check_next(&set).is_err() => Stage::Conflict,
                    Some(set) => {
                        self.word.set = set;
                        Stage::InstallJoining
                    }
                    None => {
                        let Some(word) = self.better() else { return };
                        self.word = word;
                        Stage::Prepare
                    }
                },
                Stage::InstallJoining if self.joining().all(|member| self.installed(member.id) && !self.waits(member.id)) => Stage::Install,
                Stage::Install if self.from.agreed(|id| self.installed(id)) && self.next().agreed(|id| self.installed(id)) => {
                    self.floor = self.highest();
                    Stage::Floor
                }
                Stage::Floor if self.next().agreed(|id| self.raised(id)) || self.rules.breaks(Fault::FloorNotCarried) => {
                    let wait = if self.rules.breaks(Fault::NextSetWithoutWait) { Span::ZERO } else { self.max_t };
                    Stage::Wait(now + wait)
                }
                Stage::Wait(until) if now >= until => Stage::Committed,
                _ => return,
            };
            self.stage = next;
        }
    }

    /// The highest epoch that a voter of the former set reports after it stopped answering in that set. A majority of them met every
    /// acquisition in it, and carries the floor of the sets before.
    fn highest(&self) -> Epoch {
        let highs = self.answers.iter().filter(|(id, _)| self.from.has(**id) && self.installed(**id));
        highs.map(|(_, answer)| answer.high).max().unwrap_or_default()
    }

    fn asks(&self) -> Vec<(NodeName, Message)> {
        let everybody = || self.from.members().iter().chain(self.joining());
        match self.stage {
            Stage::Prepare => {
                // A voter that missed the commit of the former set would refuse; whoever knows of it says so.
                let number = self.from.number();
                let committed = self
                    .answers
                    .values()
                    .any(|answer| answer.committed && answer.installed.as_ref().is_some_and(|set| set.number() == number));
                let mut asks = Vec::new();
                if committed {
                    asks.extend(self.ask(self.from.members().iter(), &SetStep::Commit(number)));
                }
                asks.extend(
                    self.ask(self.from.members().iter().filter(|member| !self.prepared(member.id)), &SetStep::Prepare(self.word.clone())),
                );
                asks
            }
            Stage::InstallJoining => {
                let mut asks = self.ask(self.joining().filter(|m| !self.installed(m.id)), &SetStep::Install(self.next().clone()));
                asks.extend(self.ask(self.joining().filter(|m| self.installed(m.id)), &SetStep::Report));
                asks
            }
            Stage::Install => self.ask(everybody().filter(|m| !self.installed(m.id)), &SetStep::Install(self.next().clone())),
            Stage::Floor | Stage::Wait(_) => {
                let floor = SetStep::Floor(self.next().number(), self.floor);
                let carried = !self.rules.breaks(Fault::FloorNotCarried);
                let low = self.next().members().iter().filter(|m| carried && self.installed(m.id) && !self.raised(m.id));
                let mut asks = self.ask(low, &floor);
                let late = everybody().filter(|m| !self.installed(m.id));
                asks.extend(self.ask(late, &SetStep::Install(self.next().clone())));
                asks
            }
            Stage::Committed => self.ask(self.next().members().iter(), &SetStep::Commit(self.next().number())),
            Stage::Conflict => Vec::new(),
        }
    }

    fn ask<'a>(&self, to: impl Iterator<Item = &'a Member>, step: &SetStep) -> Vec<(NodeName, Message)> {
        to.map(|member| {
            let ask = SetAsk { cluster: self.cluster, voter: member.id, reply_to: self.me.clone(), step: step.clone() };
            (member.node.clone(), Message::SetAsk(ask))
        })
        .collect()
    }
}
