//! The voter's part in a change of voters (B5).

use super::state::FORCE_STEP;
use super::{Voter, VoterAction};
use crate::message::{Ask, Message, SetAnswer, SetAsk, SetStep, SetWord, Why};
use crate::rules::{Fault, Rules};
use crate::set::VoterSet;
use crate::time::Time;
use crate::types::{EPOCH_END, Epoch, SetNo};

impl<R: Rules> Voter<R> {
    /// V8, B5.2: only the installed set is answered, and only by its voters.
    pub(super) fn admit_set(&self, ask: &Ask) -> Result<(), Why> {
        let Some(set) = &self.journal.set else { return Err(Why::Voter) };
        if self.rules.breaks(Fault::OldSetAnswered) && ask.set < set.number() {
            return Ok(());
        }
        if ask.set != set.number() || !set.has(self.journal.voter) {
            return Err(Why::Set(set.clone()));
        }
        Ok(())
    }

    /// The set number that an answer carries.
    pub(super) fn answered_set(&self, ask: &Ask) -> SetNo {
        if self.rules.breaks(Fault::OldSetAnswered) {
            return ask.set;
        }
        self.journal.set.as_ref().map_or(SetNo(0), VoterSet::number)
    }

    pub(super) fn set_ask(&mut self, now: Time, ask: &SetAsk, actions: &mut Vec<VoterAction>) {
        if ask.cluster != self.config.cluster || ask.voter != self.journal.voter {
            return;
        }
        let (journal, base, waiting) = (self.journal.clone(), self.base, self.waiting_until);
        match &ask.step {
            SetStep::Report => {}
            SetStep::Prepare(word) => self.prepare(word),
            SetStep::Install(next) => self.install(next),
            SetStep::Floor(number, floor) => self.raise(*number, *floor),
            SetStep::Commit(number) => {
                if self.installed() == Some(*number) {
                    self.journal.committed = true;
                }
            }
            SetStep::Force(next) => self.force(now, next),
        }
        // Durable before the answer; its driver counts on it.
        if journal != self.journal {
            actions.push(VoterAction::Journal(self.journal.clone()));
        }
        if base != self.base || waiting != self.waiting_until {
            actions.push(VoterAction::StoreHeader(self.header()));
        }
        let answer = SetAnswer {
            cluster: self.config.cluster,
            from: self.config.node.name.clone(),
            voter: self.journal.voter,
            installed: self.journal.set.clone(),
            former: self.journal.former.clone(),
            committed: self.journal.committed,
            prepared: self.journal.prepared.clone(),
            high: self.high,
            base: self.base,
            waiting: self.waiting(now).is_some(),
        };
        actions.push(VoterAction::Send(ask.reply_to.clone(), Message::SetAnswer(answer)));
    }

    fn installed(&self) -> Option<SetNo> {
        self.journal.set.as_ref().map(VoterSet::number)
    }

    /// Names one successor of the installed set in a round and never another, so that a majority can name one only. A later round's driver
    /// vouches that no round before can decide any more.
    fn prepare(&mut self, word: &SetWord) {
        let Some(set) = &self.journal.set else { return };
        // B5.3: nothing follows a set that is not committed.
        let settled = self.journal.committed || self.rules.breaks(Fault::NextSetWithoutWait);
        let unsaid = self.journal.prepared.as_ref().is_none_or(|said| said.round < word.round);
        if settled && unsaid && set.has(self.journal.voter) && set.check_next(&word.set).is_ok() {
            self.journal.prepared = Some(word.clone());
        }
    }

    /// B5.2. A voter that was away for several changes may skip numbers: its driver vouches that a majority prepared this set.
    fn install(&mut self, next: &VoterSet) {
        let concerned = next.has(self.journal.voter) || self.journal.set.as_ref().is_some_and(|set| set.has(self.journal.voter));
        let newer = self.installed().is_none_or(|number| number < next.number());
        if !concerned || !newer {
            return;
        }
        self.journal.former = self.journal.set.replace(next.clone());
        self.journal.committed = false;
        self.journal.prepared = None;
    }

    /// Carries the floors of former sets over: a voter that is new to the cluster knows none of their epochs.
    fn raise(&mut self, number: SetNo, floor: Epoch) {
        if self.installed().is_none_or(|installed| installed < number) || floor >= EPOCH_END {
            return;
        }
        self.base = self.base.max(floor);
        self.lift_high();
    }

    fn lift_high(&mut self) {
        self.high = self.high.max(self.base);
        if self.high > self.journal.mark {
            // V7: the mark covers whatever floor is answered for.
            self.journal.mark = Epoch(self.high.0.saturating_add(super::MARK_STEP));
        }
    }

    /// The majority is gone for good. Leases granted by the dead may still run, so wait; epochs granted by the dead are unknown, so
    /// jump.
    fn force(&mut self, now: Time, next: &VoterSet) {
        let newer = self.installed().is_none_or(|number| number < next.number());
        let floor = Epoch(self.journal.mark.0.saturating_add(FORCE_STEP));
        if !newer || !next.has(self.journal.voter) || floor >= EPOCH_END {
            return;
        }
        self.journal.former = self.journal.set.replace(next.clone());
        self.journal.committed = true;
        self.journal.prepared = None;
        self.base = floor;
        self.lift_high();
        self.waiting_until = Some(now + self.config.max_t);
    }
}
