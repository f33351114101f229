//! The voter's memory on this node (rules V6, V7): what a voter says is written before it is sent.
//!
//! Where it cannot be written the voter falls silent: it answers nobody, and is taken up again from what *is* written after a pause that
//! grows to [`PAUSE`]`.1`. It said nothing that is not written, so nothing is lost by that. Meanwhile this node's leases go on, as long as a majority
//! of the other voters answers.

use cluster_fence::clock;
use cluster_lease::message::Message;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{ClusterId, Node};
use cluster_lease::voter::{Journal, Voter, VoterAction, VoterConfig};
use tracing::{info, warn};

use super::host::Host;
use super::store::{StoreError, VoterStore};

/// First and longest pause before a silent voter's memory is tried again; it doubles in between.
const PAUSE: (Span, Span) = (Span::from_millis(250), Span::from_millis(10_000));
/// After so long without trouble the pause is the first one again.
const HEALED: Span = Span::from_millis(60_000);

/// When a voter's memory failed, and when it is tried again. Pure.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The voter is silent until then at least.
    until: Option<Time>,
    /// Last failure and the pause after it.
    last: Option<(Time, Span)>,
}

impl Silence {
    /// It failed: how long it is left alone.
    fn fall(&mut self, now: Time) -> Span {
        let again = self.last.filter(|(at, _)| now - *at < HEALED).map(|(_, pause)| pause.times(2).min(PAUSE.1));
        let pause = again.unwrap_or(PAUSE.0);
        self.last = Some((now, pause));
        self.until = Some(now + pause);
        pause
    }

    /// Whether the voter is silent.
    pub(super) const fn is_kept(&self) -> bool {
        self.until.is_some()
    }

    /// When its memory is tried again, if it is silent.
    pub(super) const fn next_wake(&self) -> Option<Time> {
        self.until
    }
}

/// The voter of this journal: it goes on from its records of this boot, if there are usable ones. Also what it has to do first.
pub(super) fn start(
    cluster: ClusterId,
    node: &Node,
    store: &mut VoterStore,
    journal: Journal,
) -> Result<(Voter, Vec<VoterAction>), StoreError> {
    let usable = store.image()?.filter(|image| image.header.boot == node.boot && image.header.voter == journal.voter);
    if usable.is_none() {
        store.clear()?;
    }
    Ok(Voter::start(VoterConfig::new(cluster, node.clone()), clock::now(), journal, usable))
}

impl Host {
    /// A message to this node's voter.
    pub(super) fn voter_message(&mut self, message: &Message) {
        if self.state.silence.is_kept() {
            return;
        }
        let mut actions = Vec::new();
        self.voter.handle(clock::now(), message, &mut actions);
        self.voter_actions(actions);
    }

    /// Time for the voter, or for its memory.
    pub(super) fn tick_voter(&mut self, now: Time) {
        if self.state.silence.is_kept() {
            if self.state.silence.next_wake().is_some_and(|at| at <= now) {
                self.take_up_voter();
            }
        } else if self.voter.next_wake().is_some_and(|at| at <= now) {
            let mut actions = Vec::new();
            self.voter.tick(now, &mut actions);
            self.voter_actions(actions);
        }
    }

    /// When the voter, or its memory, wants to be looked at.
    pub(super) fn voter_wake(&self) -> Option<Time> {
        if self.state.silence.is_kept() { self.state.silence.next_wake() } else { self.voter.next_wake() }
    }

    /// Carries out what the voter says, in order; nothing after what failed.
    pub(super) fn voter_actions(&mut self, actions: Vec<VoterAction>) {
        for action in actions {
            let done = match action {
                VoterAction::Journal(journal) => self.store.write_journal(&journal),
                VoterAction::StoreHeader(header) => self.store.write_header(&header),
                VoterAction::Store(slots) => {
                    let voter = &self.voter;
                    self.store.write(&slots, |slot| voter.record(slot))
                }
                VoterAction::Forget(slots) => self.store.forget(&slots),
                VoterAction::Send(to, message) => {
                    self.send(to, message);
                    Ok(())
                }
            };
            if let Err(error) = done {
                return self.fall_silent(&error);
            }
        }
        // The holder counts in the set that this node's own voter installed, if that is the newest.
        match self.voter.journal().set.clone() {
            Some(set) if set.number().0 > self.state.known_set => self.learn(set),
            _ => {}
        }
    }

    fn fall_silent(&mut self, error: &StoreError) {
        let pause = self.state.silence.fall(clock::now());
        let why = format!("this node's voter answers nobody: {}", cluster_telemetry::chain(error));
        if self.state.silent_why != why {
            warn!(retry_in = %pause, "{why}");
            self.state.silent_why = why;
            self.state.dirty = true;
        }
    }

    /// Goes on from what is written, as a process that starts does.
    fn take_up_voter(&mut self) {
        let taken = VoterStore::open(&self.folders.0, &self.folders.1).and_then(|mut store| {
            let journal = store.journal()?.ok_or_else(|| store.missing())?;
            let (voter, first) = start(self.cluster, &self.node, &mut store, journal)?;
            Ok((store, voter, first))
        });
        match taken {
            Ok((store, voter, first)) => {
                (self.store, self.voter) = (store, voter);
                self.state.silence.until = None;
                self.voter_actions(first);
                if !self.state.silence.is_kept() {
                    info!("this node's voter answers again");
                    self.state.silent_why.clear();
                    self.state.dirty = true;
                }
            }
            Err(error) => self.fall_silent(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v6_a_memory_that_fails_is_tried_again_with_growing_pauses() {
        let mut silence = Silence::default();
        assert!(!silence.is_kept());
        let mut now = Time(0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = silence.fall(now);
            assert_eq!(silence.next_wake(), Some(now + pause));
            pauses.push(pause.0 / 1_000_000);
            now = now + pause;
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        // All was well for a while.
        silence.until = None;
        assert_eq!(silence.fall(now + HEALED), PAUSE.0);
    }
}
