//! Pure lease: voter and proposer state machines, deadline word, voter sets; model and simulation drive these same types.
pub mod bytes;
#[cfg(feature = "check")]
pub mod check;
pub mod change;
pub mod holder;
pub mod message;
pub mod rules;
pub mod set;
pub mod slots;
pub mod time;
pub mod types;
pub mod voter;
pub mod word;
