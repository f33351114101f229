//! Events: what happened, in words, for people.
//!
//! All of them are made in one place, from what the leading controller stores or sees change: the status of an App against the one before,
//! nodes and voters against the last look. So nothing is told while nothing changes, and an idle cluster writes nothing. An event decides
//! nothing, and may be missing: one that cannot be stored at once is left out.

mod difference;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_bus::Bus;
use cluster_schemas::AppStatus;
use cluster_schemas::event::{Event, EventKind};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tracing::{debug, warn};

pub use difference::Seen;

/// Events that wait for the store; more are left out.
const WAITING_MAX: usize = 1_024;
/// Events that a controller remembers, as many as the stream.
const REMEMBERED_MAX: usize = 10_000;
/// The same again within this time is counted.
const SAME_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Wait after the store did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What happened, before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    object: String,
    kind: EventKind,
    reason: String,
    message: String,
}

/// Takes in what happened, and never waits.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Draft>);

impl Recorder {
    /// An App has another status than before.
    pub fn status(&self, app: &str, before: Option<&AppStatus>, now: &AppStatus) {
        self.all(difference::of_app(app, before, now));
    }

    /// Nothing of an App is left.
    pub fn deleted(&self, app: &str) {
        self.all(vec![difference::deleted(app)]);
    }

    /// Several at once.
    pub fn all(&self, drafts: Vec<Draft>) {
        for draft in drafts {
            if self.0.try_send(draft).is_err() {
                debug!("more events than the store takes, some are left out");
            }
        }
    }
}

/// The events that are kept, oldest first; every controller has them.
#[derive(Debug, Clone, Default)]
pub struct EventLog(Arc<Mutex<VecDeque<Event>>>);

impl EventLog {
    /// Those about `object`, or all; the latest last.
    #[must_use]
    pub fn list(&self, object: Option<&str>) -> Vec<Event> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|event| object.is_none_or(|object| event.object == object)).cloned().collect()
    }

    fn take(&self, event: Event) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was counted once more stands for the one before.
        log.retain(|known| !same(known, &event) || known.first_seen != event.first_seen);
        log.push_back(event);
        if log.len() > REMEMBERED_MAX {
            log.pop_front();
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The event that `draft` becomes at `now`.
    fn complete(&self, draft: Draft, now: Timestamp) -> Event {
        let Draft { object, kind, reason, message } = draft;
        let at = format!("{now:.3}");
        let event = Event { object, kind, reason, message, first_seen: at.clone(), last_seen: at, count: 1 };
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |known: &Event| known.last_seen.parse::<Timestamp>().is_ok_and(|last| now.duration_since(last) < SAME_WITHIN);
        match log.iter().rev().find(|known| same(known, &event) && recent(known)) {
            Some(known) => Event { first_seen: known.first_seen.clone(), count: known.count + 1, ..event },
            None => event,
        }
    }
}

fn same(a: &Event, b: &Event) -> bool {
    a.object == b.object && a.reason == b.reason && a.message == b.message
}

/// Starts the tasks that store events and read them. They end with the runtime.
#[must_use]
pub fn start(bus: &Bus) -> (Recorder, EventLog) {
    let (sender, drafts) = mpsc::channel(WAITING_MAX);
    let log = EventLog::default();
    tokio::spawn(write(bus.clone(), log.clone(), drafts));
    tokio::spawn(read(bus.clone(), log.clone()));
    (Recorder(sender), log)
}

async fn write(bus: Bus, log: EventLog, mut drafts: mpsc::Receiver<Draft>) {
    while let Some(draft) = drafts.recv().await {
        let event = log.complete(draft, Timestamp::now());
        if let Err(why) = bus.publish_event(&event).await {
            debug!(object = event.object, reason = event.reason, "an event is left out, the store does not take it: {why}");
        }
    }
}

async fn read(bus: Bus, log: EventLog) {
    let mut connections = bus.connections();
    let mut complained = false;
    loop {
        connections.mark_unchanged();
        let reading = async {
            bus.create_events().await?;
            let mut reader = bus.read_events().await?;
            log.clear();
            loop {
                log.take(reader.next().await?.1);
            }
        };
        let why: Result<(), String> = tokio::select! {
            ended = reading => ended,
            // What was delivered meanwhile is lost.
            _ = connections.changed() => Ok(()),
        };
        if let Err(why) = why
            && !std::mem::replace(&mut complained, true)
        {
            warn!("events cannot be read, trying again: {why}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_counted_and_later_told_anew() {
        let log = EventLog::default();
        let draft = |message: &str| Draft {
            object: "app/db".to_owned(),
            kind: EventKind::Warning,
            reason: "Failed".to_owned(),
            message: message.to_owned(),
        };
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + 60 * minute).expect("a time");
        for minute in [0, 5, 14] {
            log.take(log.complete(draft("n1 failed"), at(minute)));
        }
        log.take(log.complete(draft("n2 failed"), at(15)));
        log.take(log.complete(draft("n1 failed"), at(60)));
        let all: Vec<(String, u64)> = log.list(Some("app/db")).into_iter().map(|event| (event.message, event.count)).collect();
        assert_eq!(all, [("n1 failed".to_owned(), 3), ("n2 failed".to_owned(), 1), ("n1 failed".to_owned(), 1)]);
        assert_eq!(log.list(Some("app/other")), []);
    }
}
