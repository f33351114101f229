//! Pure lease: voter and proposer state machines, deadline word, voter sets; model and simulation drive these same types.
pub mod bytes;
pub mod message;
pub mod rules;
pub mod set;
pub mod slots;
pub mod time;
pub mod types;
pub mod voter;
pub mod word;
