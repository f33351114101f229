//! The controller: leadership, caches, reconcile loop and HTTP API.
//!
//! # Tasks
//! | task | owns | tells |
//! |---|---|---|
//! | [`feed`] (one per bucket part, heartbeats, beats) | one part each of the [`world::World`] | a version that rises |
//! | [`leadership`] | whether this controller leads | a `watch` behind a handle |
//! | [`reconcile`] | what this leadership has written | the store |
//! | [`events`] | what happened, in words | the store, and the API |
//! | [`api`] | nothing | users |
//!
//! # Invariants
//! - Nothing is planned before every cache was listed, nor on an assignment that was not read from the stream's leader (rule C4).
//! - Nothing is planned on a store that says less than the nodes hold, until an operator signed it (rule C3, [`recovery`]).
//! - Every assignment write is conditional on the leader record (rule C2). Every plan passes the checker before it is written.
//! - The API works on every controller; a write goes to the store by compare-and-set, never to the leader.

pub mod api;
pub mod changes;
pub mod config;
pub mod events;
pub mod feed;
pub mod handover;
pub mod leadership;
pub mod orders;
pub mod planning;
pub mod reconcile;
pub mod recovery;
pub mod run;
pub mod status;
pub mod voters;
pub mod world;
