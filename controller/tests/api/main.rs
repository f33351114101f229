//! The API as clients meet it: a controller with its buckets, over TCP. Needs `nats-server` (scripts/setup).
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod history;
mod limits;
mod openapi;
mod stops;
mod tls;
mod watch;
mod world;
