//! A random simulation: 3 to 9 machines with drifting clocks, a bad network, blows of all kinds, changes of voters, and many slots.
//!
//! It drives [`Holder`](crate::holder::Holder), [`Voter`](crate::voter::Voter), [`SetChange`](crate::change::SetChange) and
//! [`SlotWord`](crate::word::SlotWord) as a host would. All chance comes from one seed, and every event goes into a hash, so a
//! finding can be had again exactly. Time jumps from event to event.
//!
//! Each round has a bad time and a fair time. Checked always: no two machines run a slot's unit at one true time; epochs of
//! acquisitions rise; no Release leaves while the unit runs; refusals change nothing. Checked in the fair time: every slot is held
//! within [`SETTLE`]; after a holder's power loss its slots are held again within [`takeover_bound`].

mod blows;
mod checks;
mod host;
mod network;
mod node;
mod rng;
mod stats;
mod world;

pub use rng::Rng;
pub use stats::{Blow, FOUND, Found, Stats};

use crate::holder::WATCH_EVERY;
use crate::rules::Fault;
use crate::time::{MAX_T, Span};

/// Bound of the fair time: from any state, with all machines up and a network that loses nothing, every slot is held after this. The
/// voters' wait (V6), a lease that was renewed for the longest T just before, a lost hint, and some attempts.
pub const SETTLE: Span = Span(2 * MAX_T.0 + 2 * WATCH_EVERY.0 + 1_000_000_000);

/// Bound of a take-over in fair times: T as the slowest voter counts it, a stagger for each rank, jitter and two for the first
/// hints, the attempt, and one attempt more for those that met another's.
#[must_use]
pub fn takeover_bound(t: Span, nodes: usize) -> Span {
    Span(t.0 + t.0 / 500 + 20_000_000 * (nodes as u64 + 3) + 60_000_000)
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Machines, 3 to 9.
    pub nodes: usize,
    /// Partitions of the one ring.
    pub partitions: u16,
    /// Slots with names.
    pub named: usize,
    /// Rounds of bad and fair times.
    pub rounds: usize,
    /// Blows per round.
    pub blows: usize,
    /// The rule left out.
    pub fault: Option<Fault>,
}

impl Plan {
    /// A plan of this size, its shape drawn from the seed.
    #[must_use]
    pub fn drawn(seed: u64, partitions: u16, rounds: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let nodes = 3 + rng.index(7);
        Self { seed, nodes, partitions, named: 8, rounds, blows: 240, fault: None }
    }
}

/// How a simulation ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan's seed.
    pub seed: u64,
    /// What was reached.
    pub stats: Stats,
    /// Hash of every event in order.
    pub trace: u64,
    /// What broke, if anything did; it ends the simulation.
    pub broken: Option<String>,
}

/// Runs a plan. The same plan always ends with the same outcome.
#[must_use]
pub fn simulate(plan: &Plan) -> Outcome {
    let mut world = world::World::new(plan.clone());
    for _ in 0..plan.rounds {
        if world.broken.is_none() {
            world.round();
        }
    }
    world.outcome()
}
