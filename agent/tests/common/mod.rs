//! Help for the driver tests.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

pub(crate) mod netns;
pub(crate) mod packets;
