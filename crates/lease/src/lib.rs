//! The lease: at most one node holds a slot at any time, and another one soon after it is gone. Logic only: no clock, no randomness, no
//! input or output, no hash order. `docs/lease.md` lists the rules by name and where each lives.
//!
//! # Parts
//! - [`voter`]: grants leases and remembers them (V1 to V8).
//! - [`holder`]: the proposer of one node, for many slots (P1 to P7).
//! - [`word`]: the deadline word that agent and guard share (F2).
//! - [`set`] and [`change`]: who votes, and how that changes (B5).
//! - [`message`]: what they say; `cluster-bus` encodes it. [`slots`]: many slots at once.
//! - `check` (feature of that name, tests only): the model and the simulation, which drive these very types.
//!
//! Each machine is (time, event) in, (state, actions) out. Its module says how to host it.
//!
//! # Flow
//! 1. A candidate asks all voters for a slot, with an epoch that nobody has used. Each voter grants if no other node's grant is live.
//! 2. With a majority of acks the candidate computes a deadline, arms the slot's word with it, and starts what the slot is for.
//! 3. Each T/6 it renews all its slots with one message per voter. Each ack may move the deadline; the word follows.
//! 4. At the deadline the guard fences the slot, whatever became of the agent. The voters' grants expire later than that.
//! 5. To give a slot up: stop it, fence the word, tell the voters, tell the successor.
//!
//! # Guarantees
//! - At most one node's word for a slot holds a deadline in the future, in true time; what runs under it is gone F after the deadline,
//!   before a voter may grant the slot to another node.
//! - Epochs of acquisitions rise. Nothing runs in an epoch after a higher one was acquired.
//! - A refusal changes nothing at the voter.
//! - With a network that delivers, a free slot with a ready candidate and a majority of voters is held soon: the simulation asserts
//!   T(1 + 2r) plus some staggers after a power loss.
//!
//! # Why it is safe
//! 1. A voter has at most one unexpired grant per slot (V1), also over restarts (V6).
//! 2. While `now < deadline` a majority of voters holds an unexpired grant to this node. The deadline counts from when asks were *sent*; a
//!    voter accepted each at or after that, and counts at least as long, since T_hold allows for both clocks' rates (P3). Only the
//!    node's own Release ends a grant early, and that is sent after the stop (P5), names the epoch and the agent's life (V5).
//! 3. Two majorities of one set, or of sets that follow each other, meet in a voter (B5.1); that voter has one grant. Sets further
//!    apart never both count: n+2 is prepared only when n+1 is committed, max T after a majority of n had stopped answering in n.
//! 4. The new majority meets the old one in a voter whose floor is at least the old epoch; V3 asks for more, V7 keeps floors over
//!    restarts, and a change of voters carries them over.
//! 5. Lost, late, doubled and reordered messages only add grants that nobody counts. They cost up to T, never safety.
//!
//! # Assumptions
//! - Clocks differ from true time by at most r in rate ([`time::Timing`]); a voter's and a holder's clock goes on while the machine sleeps.
//! - From the deadline on, nothing of the slot runs longer than F.
//! - A voter's journal is durable, and belongs to one process. A voter that lost it gets a new id.
//! - `/run` lasts as long as the boot and no longer. What is written to a mapped file there outlives the process.
//! - An agent's instance is random enough to be new; one agent at a time runs on a node.
//! - Outside: frozen or snapshot machines, and the loss of a majority with `voters force` while the dead still run. Epochs protect there.

pub mod bytes;
pub mod change;
#[cfg(feature = "check")]
pub mod check;
pub mod holder;
pub mod message;
pub mod rules;
pub mod set;
pub mod slots;
pub mod time;
pub mod types;
pub mod voter;
pub mod word;
