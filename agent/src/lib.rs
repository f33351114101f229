//! The agent of a node: drivers (systemd, VIP, ring), slots, journal.
