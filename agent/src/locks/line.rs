//! The claims of this node on one lock or semaphore, and its slots.

use std::collections::{BTreeMap, VecDeque};

use cluster_lease::time::{Span, Time};

use super::core::{Id, LockError};
use super::place::{Place, State};

/// A process that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) id: Id,
    /// How long it waits.
    pub(super) until: Time,
    /// It does not wait for another to let go.
    pub(super) once: bool,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) holders: u16,
    pub(super) t: Span,
    /// First come, first served.
    pub(super) claims: VecDeque<Claim>,
    /// Those that are not idle.
    pub(super) places: BTreeMap<u16, Place>,
    /// Voters answered the last attempt that failed.
    pub(super) answered: bool,
}

impl Line {
    pub(super) const fn new(holders: u16) -> Self {
        Self { holders, t: Span::ZERO, claims: VecDeque::new(), places: BTreeMap::new(), answered: false }
    }

    pub(super) fn ids(&self) -> Vec<Id> {
        self.claims.iter().map(|claim| claim.id).collect()
    }

    pub(super) fn asking(&self) -> usize {
        self.places.values().filter(|place| matches!(place.state, State::Asking)).count()
    }

    /// A place that was not asked for. Nodes begin at different ones, and mostly find it free.
    pub(super) fn idle(&self) -> Option<u16> {
        let first = self.claims.front().map_or(0, |claim| u16::try_from(claim.id % u64::from(self.holders.max(1))).unwrap_or(0));
        let places = (first..self.holders).chain(0..first);
        places.into_iter().find(|at| self.places.get(at).is_none_or(|place| matches!(place.state, State::Idle)))
    }

    /// Takes those out of the line that do not wait.
    pub(super) fn take_once(&mut self) -> Vec<Id> {
        let once = self.claims.iter().filter(|claim| claim.once).map(|claim| claim.id).collect();
        self.claims.retain(|claim| !claim.once);
        once
    }

    /// Takes those out of the line that waited long enough.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<Id> {
        let overdue = self.claims.iter().filter(|claim| now >= claim.until).map(|claim| claim.id).collect();
        self.claims.retain(|claim| now < claim.until);
        overdue
    }

    /// Why it is not had now.
    pub(super) fn why(&self) -> LockError {
        let by = self.places.values().find_map(|place| place.holder.as_ref());
        let here = self.places.values().any(|place| place.held().is_some());
        if by.is_some() || here || self.answered { LockError::Held { by: by.map(ToString::to_string) } } else { LockError::NoMajority }
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        let claims = self.claims.iter().map(|claim| claim.until);
        let ended = self.places.values().filter_map(|place| match place.state {
            State::Ended { until, .. } => Some(until),
            _ => None,
        });
        claims.chain(ended).min()
    }
}
