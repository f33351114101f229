//! `POST /v1/locks/NAME`: locks and semaphores, held for as long as the answer's stream is open (docs/locks.md).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster_fence::clock;
use cluster_lease::time::{Span, Time};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::caller::Caller;
use super::{Local, LocalError, events};
use crate::lease::DEFAULT_T;
use crate::locks::{Grant, LockError, LockName, Locks, Want};

/// Longest wait for a lock.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The routes.
pub(super) fn routes(locks: Locks) -> Router<Arc<Local>> {
    let held = locks.clone();
    Router::new().route("/v1/locks", get(move |caller: Caller| list(held.clone(), caller))).route(
        "/v1/locks/{name}",
        post(move |State(local): State<Arc<Local>>, caller: Caller, Path(name): Path<String>, Query(query): Query<LockQuery>| {
            acquire(locks.clone(), local, caller, name, query)
        }),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockQuery {
    /// How long to wait: `500ms`, `10s`, `2m`. Not at all if it is not there.
    wait: Option<String>,
    /// A semaphore of so many holders.
    semaphore: Option<u16>,
    /// Read by [`Caller`].
    #[serde(rename = "app")]
    _app: Option<String>,
}

/// What is told of a lock that is held.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    app: String,
    lock: String,
    /// Rises with each holder.
    token: u64,
    /// Which place of a semaphore.
    place: u16,
    /// Seconds of `CLOCK_BOOTTIME` until which it is held, unless told otherwise.
    until: f64,
}

/// The state of a stream.
struct Stream {
    /// Dropped with the stream: then the lock is let go.
    _grant: Grant,
    until: watch::Receiver<Option<Time>>,
    told: Held,
    step: Step,
}

#[derive(PartialEq)]
enum Step {
    Granted,
    Held,
    Over,
}

async fn acquire(locks: Locks, local: Arc<Local>, caller: Caller, name: String, query: LockQuery) -> Result<Response, LocalError> {
    at_home(&caller)?;
    let lock = LockName::new(&caller.target, &name, query.semaphore).map_err(|error| LocalError::bad_request(error.to_string()))?;
    let wait = query.wait.as_deref().map_or(Ok(Duration::ZERO), read_wait)?;
    let lease = {
        let assignment = local.assignment.borrow();
        let ms = assignment.as_deref().and_then(|a| a.apps.get(&caller.target)).map_or(0, |entry| entry.lease_ms);
        if ms == 0 { DEFAULT_T } else { Span::from_millis(ms) }
    };
    let grant = locks.acquire(Want { name: lock, lease, wait }).await.map_err(|error| refusal(&error))?;
    let until = grant.until();
    let told = Held { app: caller.target, lock: name, token: grant.token, place: grant.place, until: 0.0 };
    let stream = Stream { _grant: grant, until, told, step: Step::Granted };
    Ok(events::answer(futures_util::stream::unfold(stream, next)))
}

/// `granted`, then `held` each time the deadline moves on, and `lost` in the end.
async fn next(mut stream: Stream) -> Option<(Event, Stream)> {
    if stream.step == Step::Over {
        return None;
    }
    if stream.step == Step::Held {
        let deadline = *stream.until.borrow_and_update();
        let left = deadline.map_or(Duration::ZERO, |at| Duration::from_nanos((at - clock::now()).0));
        tokio::select! {
            // A keeper that is gone extends nothing any more.
            changed = stream.until.changed(), if deadline.is_some() => if changed.is_err() { tokio::time::sleep(left).await },
            () = tokio::time::sleep(left) => {}
        }
    }
    let now = clock::now();
    let deadline = stream.until.borrow_and_update().filter(|deadline| now < *deadline);
    let name = match (deadline, &stream.step) {
        (None, _) => "lost",
        (Some(_), Step::Granted) => "granted",
        (Some(_), _) => "held",
    };
    stream.step = if deadline.is_none() { Step::Over } else { Step::Held };
    stream.told.until = boottime() + seconds(deadline.map_or(Span::ZERO, |deadline| deadline - now));
    let event = events::event(name, None, &stream.told);
    Some((event, stream))
}

/// What the App's processes on this node hold.
async fn list(locks: Locks, caller: Caller) -> Result<Json<serde_json::Value>, LocalError> {
    at_home(&caller)?;
    let prefix = format!("lock/{}/", caller.target);
    let held = locks.held();
    let held = held.borrow();
    let items = held.iter().filter_map(|(slot, token)| {
        let text = slot.to_string();
        Some(serde_json::json!({ "lock": text.strip_prefix(&prefix)?, "token": token }))
    });
    Ok(Json(serde_json::json!({ "app": caller.target, "held": items.collect::<Vec<_>>() })))
}

fn at_home(caller: &Caller) -> Result<(), LocalError> {
    if caller.is_at_home() {
        return Ok(());
    }
    Err(LocalError::forbidden(format!("{} may not use the locks of App {:?}", caller.name(), caller.target)))
}

fn read_wait(text: &str) -> Result<Duration, LocalError> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let found = units.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, ms)));
    let wait = found.and_then(|(number, ms)| number.checked_mul(*ms)).map(Duration::from_millis);
    wait.filter(|wait| *wait <= WAIT_MAX)
        .ok_or_else(|| LocalError::bad_request(format!("wait={text:.40} is no time such as 500ms, 10s or 2m, of a day at most")))
}

fn refusal(error: &LockError) -> LocalError {
    let text = error.to_string();
    match error {
        LockError::Held { .. } => LocalError::new(StatusCode::CONFLICT, "held", text),
        LockError::Holders(_) => LocalError::conflict(text),
        LockError::TooMany(_) => LocalError::new(StatusCode::SERVICE_UNAVAILABLE, "too-many", text),
        LockError::NoMajority | LockError::Ending => LocalError::unavailable(text),
    }
}

/// The clock that processes count by: it runs on while the machine sleeps, and any language can read it.
fn boottime() -> f64 {
    // The kernel has this clock wherever the agent runs. A deadline in the past would be a loss.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

fn seconds(span: Span) -> f64 {
    Duration::from_nanos(span.0).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_times_of_a_day_at_most() {
        let of = |text: &str| read_wait(text).ok();
        assert_eq!(of("500ms"), Some(Duration::from_millis(500)));
        assert_eq!((of("0s"), of("24h")), (Some(Duration::ZERO), Some(WAIT_MAX)));
        for bad in ["", "10", "s", "-1s", "1.5s", "25h", "18446744073709551615h"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_locks_of_another_app_are_refused() {
        let caller = |target: &str| Caller { who: crate::local::Who::App("api".to_owned()), target: target.to_owned(), pid: 7 };
        assert_eq!(at_home(&caller("api")), Ok(()));
        assert_eq!(at_home(&caller("jobs")).map_err(|refused| refused.problem().status), Err(403));
        assert_eq!(at_home(&Caller { who: crate::local::Who::Operator, ..caller("jobs") }), Ok(()));
    }

    #[test]
    fn refusals_tell_what_a_program_goes_by() {
        let of = |error| {
            let refused = refusal(&error);
            (refused.problem().status, refused.problem().kind.clone())
        };
        assert_eq!(of(LockError::Held { by: None }), (409, "held".to_owned()));
        assert_eq!(of(LockError::NoMajority), (503, "unavailable".to_owned()));
        assert_eq!(of(LockError::TooMany("in all")), (503, "too-many".to_owned()));
    }
}
