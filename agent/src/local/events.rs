//! Server-sent events: what a watch sends, and how it is taken up again.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A comment goes out this often where nothing else does, so that both ends see whether the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Parameters of what can be watched.
#[derive(Debug, Deserialize)]
pub struct WatchQuery {
    /// Whether to tell each change too.
    #[serde(default)]
    pub watch: bool,
}

/// An event with a JSON body.
pub fn event(name: &str, id: Option<&str>, body: &impl Serialize) -> Event {
    // What we serialize has string keys and finite numbers only.
    let text = serde_json::to_string(body).unwrap_or_default();
    let event = Event::default().event(name).data(text);
    match id {
        Some(id) => event.id(id),
        None => event,
    }
}

/// The answer that carries them.
pub fn answer(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let events = events.map(Ok::<Event, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// The id of what the client was told last; empty where it says none.
pub fn last_id(headers: &HeaderMap) -> String {
    headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned()
}

/// The answer to a watch of a view of what is known: at once, unless the client was told it before, and whenever it is another. `view` gives its
/// id too; none where there is nothing to tell.
pub fn views<K, V>(
    known: watch::Receiver<K>,
    name: &'static str,
    headers: &HeaderMap,
    view: impl Fn(&K) -> Option<(String, V)> + Send + 'static,
) -> Response
where
    K: Send + Sync + 'static,
    V: Serialize + PartialEq + Send + 'static,
{
    let held = (known, last_id(headers), None::<V>, view);
    answer(futures_util::stream::unfold(held, move |(mut known, last, told, view)| async move {
        loop {
            let now = view(&known.borrow_and_update());
            if let Some((id, now)) = now
                && told.as_ref() != Some(&now)
                && (told.is_some() || id != last)
            {
                let event = event(name, Some(&id), &now);
                return Some((event, (known, id, Some(now), view)));
            }
            known.changed().await.ok()?;
        }
    }))
}
