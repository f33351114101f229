//! Pure lease: voter and proposer state machines, deadline word, voter sets; model and simulation drive these same types.
