//! Server-sent events: what a watch sends, and how it is taken up again.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use serde::Serialize;

/// A comment goes out this often where nothing else does, so that both ends see whether the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
