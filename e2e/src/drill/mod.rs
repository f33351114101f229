//! Drills: every kind of fault on real nodes, with the witness watching. The scenarios play each kind once, the soak draws at random.

mod faults;
mod kind;
mod load;
mod soak;
pub(crate) mod stage;

pub use kind::{KINDS, Kind};
pub use load::Load;
pub use soak::Soak;
pub use stage::{APPS, Drill, MANIFEST, Outcome, Played, only_blind};
