//! Small things that the worker waits for, and texts of what it found.

use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::drivers::Conflict;

pub(super) fn with_log(mut text: String, log: Vec<String>) -> String {
    for line in log {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

pub(super) async fn next_conflict(conflicts: &mut broadcast::Receiver<Conflict>) -> Conflict {
    loop {
        match conflicts.recv().await {
            Ok(conflict) => return conflict,
            // The next one says the same.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
