//! Checks of the protocol that drive the very types of this crate: an exhaustive [`model`] of small clusters and a random
//! [`sim`]ulation of larger ones. Compiled for this crate's tests and examples only.

pub mod model;
#[expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of a simulation are small, and a wrong one would only make another schedule"
)]
pub mod sim;
