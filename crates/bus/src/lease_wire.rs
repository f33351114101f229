//! Encodings of the lease messages.
