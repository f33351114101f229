//! An exhaustive model of one slot: a few voters, two candidates, and every order of events.
//!
//! It drives [`Voter`](crate::voter::Voter), [`Holder`](crate::holder::Holder), [`SetChange`](crate::change::SetChange) and the word's rule
//! themselves. The network keeps each message for ever: it may come late, again, out of order, or never. Clocks tick together, each at
//! its own speed. A unit executes until its deadline plus the time a fence takes, the worst that the guard may do.
//!
//! Checked in every state: at most one node executes the slot; an acquisition's epoch is above all before; no epoch executes after a
//! newer one was acquired; a refusal leaves the voter as it was; no Release while the slot is armed or executes.

mod canon;
mod config;
mod runs;
mod state;
mod step;

pub use config::{Before, Config, Limits};
pub use runs::{fault_runs, large_runs, small_runs};
pub use state::{NodeState, Party, State, VoterState};
pub use step::Step;

use stateright::{Checker, HasDiscoveries, Model, Property};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which run.
    pub name: &'static str,
    /// Different states.
    pub states: usize,
    /// Steps that were tried.
    pub steps: usize,
    /// The longest shortest path.
    pub depth: usize,
    /// Was every reachable state seen?
    pub exhausted: bool,
    /// The rule that broke and the steps that led there.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// How often something was acquired on the way: a run that never acquires shows nothing.
    pub acquired: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frontier = if self.exhausted { "exhausted" } else { "cut off" };
        write!(f, "{:<32} {:>10} states {:>11} steps, depth {:>3}, {frontier}", self.name, self.states, self.steps, self.depth)?;
        match &self.broken {
            Some((what, path)) => write!(f, ", BROKEN after {} steps: {what}", path.len()),
            None => write!(f, ", nothing broken"),
        }
    }
}

struct LeaseModel(Arc<Config>);

impl Model for LeaseModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = self.0.init();
        state.begin();
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        next.take(&step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("safe", |_, state: &State| state.broken.is_none()),
            Property::sometimes("acquired twice", |_, state: &State| state.highest.0 >= 2),
        ]
    }
}

/// Explores a run breadth first, on `threads` threads, until something broke, everything was seen, or `states_max` states were.
#[must_use]
pub fn explore(config: Config, threads: usize, states_max: Option<usize>) -> Report {
    let name = config.name;
    let mut builder = LeaseModel(Arc::new(config)).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(max) = states_max.and_then(NonZeroUsize::new) {
        builder = builder.target_state_count(max.get());
    }
    let checker = builder.spawn_bfs().join();
    let cut = states_max.is_some_and(|max| checker.state_count() >= max);
    let broken = checker.discovery("safe").map(|path| {
        let what = path.last_state().broken.unwrap_or("?");
        let mut steps: Vec<String> = Vec::new();
        for (state, step) in path.into_vec() {
            if let Some(step) = step {
                steps.push(format!("t{} {}", state.now, shown(&step)));
            }
        }
        (what, steps)
    });
    Report {
        name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        exhausted: !cut && broken.is_none(),
        acquired: checker.discovery("acquired twice").is_some(),
        broken,
    }
}

/// A step in one line.
fn shown(step: &Step) -> String {
    use crate::message::{Message, SetStep, Verdict};
    let Step::Deliver(envelope) = step else { return format!("{step:?}") };
    let what = match &envelope.message {
        Message::Acquire(ask) => format!("Acquire {:?} set {}", ask.claims.iter().collect::<Vec<_>>(), ask.set),
        Message::Renew(ask) => format!("Renew {:?} set {}", ask.claims.iter().collect::<Vec<_>>(), ask.set),
        Message::Release(ask) => format!("Release {:?}", ask.claims.iter().collect::<Vec<_>>()),
        Message::Answer(answer) => match &answer.verdict {
            Verdict::Slots { accepted, .. } if !accepted.is_empty() => format!("Ack of send {}", answer.send_no.count),
            verdict => format!("Nack of send {}: {verdict:?}", answer.send_no.count),
        },
        Message::SetAsk(ask) => match &ask.step {
            SetStep::Prepare(word) => format!("Prepare set {} in round {}", word.set.number(), word.round),
            SetStep::Install(set) => format!("Install set {}", set.number()),
            other => format!("{other:?}"),
        },
        Message::SetAnswer(_) => "set answer".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{:?} -> {:?}: {what}", envelope.from, envelope.to)
}
