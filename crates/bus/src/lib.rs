//! Typed NATS: every subject and bucket name, encodings, watch with re-list, compare-and-set, connections.
