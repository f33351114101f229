//! A unit that systemd calls failed may have failed before the present tenure began: the guard killed it when an earlier one ran out, or
//! a stop came while it was starting. That is no failure of this tenure, in which nothing was tried yet, and no reason to have another
//! node take over. Runs are told apart by their invocation ID.

use super::target::Wish;
use crate::drivers::{ActiveState, UnitState};

/// The run of the unit that ended before the present tenure.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Epoch of the tenure that was seen last, 0 for none.
    tenure: u64,
    /// Its run as seen last.
    last: String,
    /// The run that says nothing about the present tenure.
    over: String,
}

impl Past {
    /// Takes a look at the unit under the tenure `epoch` (0 for none); `fenced` where the unit may only run while a slot is held that is not.
    /// True where the unit's failure is an earlier tenure's.
    pub(super) fn seen(&mut self, epoch: u64, run: Wish, hot: bool, fenced: bool, unit: &UnitState) -> bool {
        // A hot process goes on from one tenure to the next; any other was stopped or killed in between.
        if std::mem::replace(&mut self.tenure, epoch) != epoch && !hot {
            self.over.clone_from(&self.last);
        }
        let failed = unit.active_state == ActiveState::Failed;
        if failed && (fenced || !run.may_stay()) {
            self.over.clone_from(&unit.invocation_id);
        }
        self.last.clone_from(&unit.invocation_id);
        failed && !self.over.is_empty() && self.over == unit.invocation_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active_state: ActiveState, run: &str) -> UnitState {
        UnitState { active_state, invocation_id: run.to_owned(), ..UnitState::default() }
    }

    #[test]
    fn what_was_killed_at_the_end_of_a_tenure_is_no_failure_of_the_next() {
        let mut past = Past::default();
        assert!(!past.seen(1, Wish::Yes, false, false, &unit(ActiveState::Active, "a")));
        assert!(past.seen(1, Wish::Fence, false, true, &unit(ActiveState::Failed, "a")));
        assert!(past.seen(0, Wish::No, false, true, &unit(ActiveState::Failed, "a")));
        assert!(past.seen(2, Wish::Yes, false, false, &unit(ActiveState::Failed, "a")));
        assert!(!past.seen(2, Wish::Yes, false, false, &unit(ActiveState::Activating, "b")));
        assert!(!past.seen(2, Wish::Yes, false, false, &unit(ActiveState::Failed, "b")), "it was started in this tenure");
    }

    #[test]
    fn a_tenure_that_came_and_went_between_two_looks_is_over_as_well() {
        let mut past = Past::default();
        assert!(!past.seen(1, Wish::Yes, false, false, &unit(ActiveState::Active, "a")));
        assert!(past.seen(2, Wish::Yes, false, false, &unit(ActiveState::Failed, "a")));
    }

    #[test]
    fn what_the_guard_kills_before_the_loss_is_told_is_no_failure() {
        let mut past = Past::default();
        assert!(!past.seen(1, Wish::Yes, false, false, &unit(ActiveState::Active, "a")));
        assert!(past.seen(1, Wish::Yes, false, true, &unit(ActiveState::Failed, "a")));
    }

    #[test]
    fn a_hot_process_that_fails_after_it_became_active_has_failed() {
        let mut past = Past::default();
        assert!(!past.seen(0, Wish::Yes, true, false, &unit(ActiveState::Active, "a")));
        assert!(!past.seen(3, Wish::Yes, true, false, &unit(ActiveState::Active, "a")));
        assert!(!past.seen(3, Wish::Yes, true, false, &unit(ActiveState::Failed, "a")));
    }

    #[test]
    fn what_fails_at_the_first_look_has_failed() {
        assert!(!Past::default().seen(0, Wish::Yes, false, false, &unit(ActiveState::Failed, "a")));
    }
}
