//! What a voter knows of one slot, and rules V1 to V5 on it. Each function either accepts and changes, or refuses and changes
//! nothing (V2).

use crate::message::Why;
use crate::rules::{Fault, Rules};
use crate::time::{Span, Time};
use crate::types::{Epoch, Instance, Node, Tenure};

/// Releases remembered per slot. Forgetting one is safe: a late Renew of that tenure would be granted, which nobody counts, and cost up
/// to T of availability.
pub const RELEASED_MAX: usize = 4;

/// A lease given to a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// To whom and in which epoch.
    pub tenure: Tenure,
    /// The voter's own time from which on it may be given to another.
    pub expires: Time,
}

/// The latest release of one life of a node's agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Released {
    /// Whose.
    pub node: Node,
    /// The highest epoch released.
    pub epoch: Epoch,
    /// Which life of its agent released it.
    pub instance: Instance,
}

impl Released {
    /// Was this tenure released? Only by the same life of the agent: epochs rise within a life (P2), and a restarted agent may be below
    /// its former life's attempts, so a late Release of that must not end what the present one holds.
    fn covers(&self, tenure: &Tenure) -> bool {
        self.node == tenure.node && self.instance == tenure.instance && tenure.epoch <= self.epoch
    }
}

/// One slot at one voter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotState {
    /// The last grant, expired or not, unless it was released.
    pub grant: Option<Grant>,
    /// The highest epoch granted.
    pub floor: Epoch,
    /// Who released what.
    pub released: Vec<Released>,
}

/// The time, the length asked for and the floor under all slots, for one ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub now: Time,
    pub t: Span,
    pub base: Epoch,
}

impl SlotState {
    /// The grant that stands in the way of everybody but its node.
    #[must_use]
    pub fn live(&self, now: Time) -> Option<&Grant> {
        self.grant.as_ref().filter(|grant| now < grant.expires)
    }

    /// V1: while `now < expires` nobody but the grant's node gets anything.
    fn blocked(&self, now: Time, node: &Node) -> Result<(), Why> {
        match self.live(now) {
            Some(grant) if grant.tenure.node != *node => Err(Why::Held { by: grant.tenure.node.clone(), epoch: grant.tenure.epoch }),
            _ => Ok(()),
        }
    }

    /// V3: a live grant is not replaced for another life of its node's agent either. A late Acquire of a former life would take the place
    /// of what the present life holds, and that life's Release would then clear it.
    fn other_life(&self, now: Time, tenure: &Tenure) -> Result<(), Why> {
        match self.live(now) {
            Some(grant) if grant.tenure.node == tenure.node && grant.tenure.instance != tenure.instance => {
                Err(Why::Held { by: grant.tenure.node.clone(), epoch: grant.tenure.epoch })
            }
            _ => Ok(()),
        }
    }

    /// V3: a new tenure.
    pub(crate) fn acquire<R: Rules>(&mut self, rules: &R, terms: Terms, tenure: &Tenure) -> Result<(), Why> {
        if let Err(why) = self.blocked(terms.now, &tenure.node) {
            let held = self.grant.as_ref().map(|grant| &grant.tenure);
            let overridden = rules.breaks(Fault::HigherEpochOverrides) && held.is_some_and(|held| tenure.epoch > held.epoch);
            let handed =
                rules.breaks(Fault::SuccessorSkipsV1) && held.is_some_and(|held| self.released.iter().any(|r| r.node == held.node));
            if !overridden && !handed {
                if rules.breaks(Fault::RefusalRaisesFloor) {
                    self.floor = self.floor.max(tenure.epoch);
                }
                return Err(why);
            }
        }
        if !rules.breaks(Fault::OtherLifeReplaces) {
            self.other_life(terms.now, tenure)?;
        }
        self.check_released(tenure)?;
        let floor = self.floor.max(terms.base);
        let repeats = self.grant.as_ref().is_some_and(|grant| grant.tenure == *tenure);
        if tenure.epoch <= floor && !repeats {
            return Err(Why::Epoch(floor));
        }
        self.give(terms, tenure);
        Ok(())
    }

    /// V4: a held tenure goes on. No floor check: a voter that missed the acquisition, or granted a failed attempt since, heals.
    /// The instance may be new (P6): only what was acquired is renewed, so this never takes the place of anything newer.
    pub(crate) fn renew(&mut self, terms: Terms, tenure: &Tenure) -> Result<(), Why> {
        self.blocked(terms.now, &tenure.node)?;
        if let Some(grant) = &self.grant
            && grant.tenure.node == tenure.node
            && grant.tenure.epoch > tenure.epoch
        {
            return Err(Why::Epoch(grant.tenure.epoch));
        }
        self.check_released(tenure)?;
        self.give(terms, tenure);
        Ok(())
    }

    fn check_released(&self, tenure: &Tenure) -> Result<(), Why> {
        if self.released.iter().any(|released| released.covers(tenure)) { Err(Why::Released) } else { Ok(()) }
    }

    fn give(&mut self, terms: Terms, tenure: &Tenure) {
        let until = terms.now + terms.t;
        self.floor = self.floor.max(tenure.epoch);
        match &mut self.grant {
            // The common case, a renewal: nothing but the time changes.
            Some(grant) if grant.tenure == *tenure => grant.expires = grant.expires.max(until),
            grant => {
                // Another node's grant has expired (V1), so its time is not the later one.
                let expires = grant.as_ref().map_or(until, |former| former.expires.max(until));
                *grant = Some(Grant { tenure: tenure.clone(), expires });
            }
        }
    }

    /// V5: a tenure has ended. True if this cleared the grant.
    pub(crate) fn release<R: Rules>(&mut self, rules: &R, tenure: &Tenure) -> bool {
        let mark = Released { node: tenure.node.clone(), epoch: tenure.epoch, instance: tenure.instance };
        match self.released.iter_mut().find(|released| released.node == tenure.node && released.instance == tenure.instance) {
            Some(released) => released.epoch = released.epoch.max(tenure.epoch),
            None => {
                if self.released.len() >= RELEASED_MAX {
                    self.released.remove(0);
                }
                self.released.push(mark);
            }
        }
        let clears = self.grant.as_ref().is_some_and(|grant| {
            let same_life = grant.tenure.instance == tenure.instance || rules.breaks(Fault::ReleaseIgnoresInstance);
            grant.tenure.node == tenure.node && (rules.breaks(Fault::ReleaseByNodeOnly) || same_life && grant.tenure.epoch <= tenure.epoch)
        });
        if clears {
            self.grant = None;
        }
        clears
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::AsWritten;
    use crate::types::{BootId, NodeName};

    fn tenure(name: &str, epoch: u64, instance: u64) -> Tenure {
        let node = Node { boot: BootId(1), name: NodeName::new(name).unwrap() };
        Tenure { epoch: Epoch(epoch), node, instance: Instance(instance) }
    }

    fn at(now: u64) -> Terms {
        Terms { now: Time(now), t: Span(10), base: Epoch(0) }
    }

    fn held() -> SlotState {
        let mut state = SlotState::default();
        state.acquire(&AsWritten, at(0), &tenure("a", 5, 1)).unwrap();
        state
    }

    #[test]
    fn v1_a_live_grant_keeps_everybody_else_out() {
        let mut state = held();
        let why = Why::Held { by: tenure("a", 5, 1).node, epoch: Epoch(5) };
        assert_eq!(state.acquire(&AsWritten, at(9), &tenure("b", 9, 1)), Err(why.clone()));
        assert_eq!(state.renew(at(9), &tenure("b", 9, 1)), Err(why));
        assert_eq!(state, held(), "V2: a refusal changes nothing");
        state.acquire(&AsWritten, at(10), &tenure("b", 9, 1)).unwrap();
    }

    #[test]
    fn v1_another_boot_is_another_node() {
        let mut rebooted = tenure("a", 9, 1);
        rebooted.node.boot = BootId(2);
        assert!(matches!(held().acquire(&AsWritten, at(9), &rebooted), Err(Why::Held { .. })));
    }

    #[test]
    fn v3_acquire_needs_a_new_epoch_or_the_very_same_tenure() {
        let mut state = held();
        assert_eq!(state.acquire(&AsWritten, at(11), &tenure("a", 5, 2)), Err(Why::Epoch(Epoch(5))));
        state.acquire(&AsWritten, at(1), &tenure("a", 5, 1)).unwrap();
        assert_eq!(state.grant.as_ref().unwrap().expires, Time(11));
        let based = Terms { base: Epoch(20), ..at(30) };
        assert_eq!(state.acquire(&AsWritten, based, &tenure("b", 20, 1)), Err(Why::Epoch(Epoch(20))));
        state.acquire(&AsWritten, based, &tenure("b", 21, 1)).unwrap();
        assert_eq!(state.floor, Epoch(21));
    }

    #[test]
    fn v3_v4_never_shorten() {
        let mut state = held();
        state.renew(Terms { t: Span(100), ..at(1) }, &tenure("a", 5, 1)).unwrap();
        state.renew(at(2), &tenure("a", 5, 1)).unwrap();
        state.acquire(&AsWritten, at(2), &tenure("a", 6, 1)).unwrap();
        assert_eq!(state.grant.unwrap().expires, Time(101));
    }

    #[test]
    fn v4_heals_and_follows_a_new_instance() {
        let mut state = SlotState { floor: Epoch(9), ..SlotState::default() };
        state.renew(at(0), &tenure("a", 5, 1)).unwrap();
        state.renew(at(1), &tenure("a", 5, 2)).unwrap();
        assert_eq!(state.grant.as_ref().unwrap().tenure, tenure("a", 5, 2));
        assert_eq!(state.floor, Epoch(9));
        assert_eq!(state.renew(at(2), &tenure("a", 4, 2)), Err(Why::Epoch(Epoch(5))));
    }

    #[test]
    fn v4_v5_a_released_tenure_stays_released() {
        let mut state = held();
        assert!(state.release(&AsWritten, &tenure("a", 5, 1)));
        let after = state.clone();
        assert_eq!(state.renew(at(1), &tenure("a", 5, 1)), Err(Why::Released));
        assert_eq!(state.renew(at(1), &tenure("a", 4, 1)), Err(Why::Released));
        assert_eq!(state.acquire(&AsWritten, at(1), &tenure("a", 5, 1)), Err(Why::Released));
        assert_eq!(state, after, "V2");
        state.acquire(&AsWritten, at(1), &tenure("a", 6, 1)).unwrap();
        assert!(!state.release(&AsWritten, &tenure("a", 5, 1)), "a late repeat clears nothing newer");
        assert!(!state.release(&AsWritten, &tenure("b", 9, 1)), "nor another node's");
    }

    /// A restarted agent has forgotten its attempts, so the former life's messages may be of higher epochs.
    #[test]
    fn v3_v5_messages_of_a_former_life_change_nothing() {
        for late in [7, 9] {
            let mut state = SlotState::default();
            state.acquire(&AsWritten, at(0), &tenure("a", 7, 2)).unwrap();
            let why = Why::Held { by: tenure("a", 7, 2).node, epoch: Epoch(7) };
            assert_eq!(state.acquire(&AsWritten, at(1), &tenure("a", late, 1)), Err(why));
            assert!(!state.release(&AsWritten, &tenure("a", late, 1)));
            state.renew(at(1), &tenure("a", 7, 2)).unwrap();
            assert!(state.release(&AsWritten, &tenure("a", 7, 2)));
        }
    }

    #[test]
    fn v3_a_former_life_blocks_no_longer_than_its_grant() {
        let mut state = held();
        assert!(matches!(state.acquire(&AsWritten, at(9), &tenure("a", 6, 2)), Err(Why::Held { .. })));
        state.acquire(&AsWritten, at(10), &tenure("a", 6, 2)).unwrap();
    }

    #[test]
    fn released_marks_are_bounded() {
        let mut state = SlotState::default();
        for i in 0..20 {
            state.release(&AsWritten, &tenure(&format!("n{i}"), i, 1));
        }
        assert_eq!(state.released.len(), RELEASED_MAX);
    }
}
