//! Watches: server-sent events of what changes, from a list or a revision on.
//!
//! A watch holds a cursor in the log of changes and nothing else: what it has not sent yet is not queued for it, and several changes of one
//! object that wait are one event with the object as it is now. So a thousand slow watches cost no memory; one that falls behind by more
//! than [the log keeps](crate::changes::CHANGES_KEPT) is told and ends.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use cluster_schemas::selector::Selector;
use cluster_schemas::watch::{WatchEvent, WatchKind};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::list::{behind, complete, labels, names, point, position_of, render};
use super::query::ListQuery;
use super::{Api, ApiError};
use crate::changes::{Cursor, Kind, Point};
use crate::world::World;

/// Most watches at one controller; another may have room.
pub const WATCHERS_MAX: usize = 1000;
/// A watch without news says this often that it lives: a comment, and a bookmark where the revision rose meanwhile.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events that are made at a time, under one look at the caches.
const BATCH: usize = 32;

struct Watcher {
    api: Arc<Api>,
    kind: Kind,
    /// Only the object of this name.
    only: Option<String>,
    selector: Selector,
    /// Names of the objects that the client has, where a selector decides which.
    selected: BTreeSet<String>,
    cursor: Cursor,
    /// Everything up to here was told.
    told: Point,
    /// Objects that were there at the beginning and are still to be told, as what.
    initial: VecDeque<String>,
    initially: WatchKind,
    /// The initial objects are told, and then a bookmark.
    begun: bool,
    /// The client stood at a revision before: what it has is not known exactly until it caught up.
    resuming: bool,
    out: VecDeque<Event>,
    changes: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// Begins a watch.
pub fn begin(api: &Arc<Api>, kind: Kind, only: Option<String>, query: ListQuery) -> Result<Response, ApiError> {
    let permit = Arc::clone(&api.watchers).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable(format!("{WATCHERS_MAX} watches are here already: ask another controller")))?;
    let (changes, stopping) = (api.world.changes(), api.stopping.subscribe());
    let watcher = {
        let world = api.world.read();
        complete(&world, kind)?;
        let log = world.changes.of(kind);
        let since = query.since.as_deref().map(|since| point(&world, kind, "?resourceVersion", since)).transpose()?;
        let (cursor, told) = match since {
            Some(since) => (log.after(&since).map_err(behind)?, since),
            None => (log.end(), log.point),
        };
        let all = || match &only {
            Some(only) => names(&world, kind, "").filter(|name| *name == only).cloned().collect(),
            None => names(&world, kind, "").cloned().collect::<VecDeque<String>>(),
        };
        // Whether a node is heard has no revision: who resumes is told of each once.
        let initial = if since.is_none() || kind == Kind::Nodes { all() } else { VecDeque::new() };
        let selects = |name: &String| labels(&world, kind, name).is_some_and(|labels| query.selector.matches(labels));
        let resuming = since.is_some();
        let selected = if query.selector.is_empty() || !resuming { BTreeSet::new() } else { all().into_iter().filter(selects).collect() };
        Watcher {
            kind,
            only,
            selector: query.selector,
            selected,
            cursor,
            told,
            initial,
            initially: if resuming { WatchKind::Modified } else { WatchKind::Added },
            begun: false,
            resuming,
            out: VecDeque::new(),
            changes,
            stopping,
            ended: false,
            _permit: permit,
            api: Arc::clone(api),
        }
    };
    let events = stream::unfold(watcher, async |mut watcher| {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    Ok(Sse::new(events).into_response())
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        let mut heartbeat = tokio::time::Instant::now() + HEARTBEAT;
        loop {
            if let Some(event) = self.out.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if *self.stopping.borrow_and_update() {
                self.end(ApiError::unavailable("this controller stops: resume at another from the last resourceVersion"));
                continue;
            }
            self.changes.mark_unchanged();
            self.fill();
            if !self.out.is_empty() || self.ended {
                continue;
            }
            tokio::select! {
                changed = self.changes.changed() => self.ended = changed.is_err(),
                _ = self.stopping.changed() => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    self.out.push_back(Event::default().comment("heartbeat"));
                    let (api, kind) = (Arc::clone(&self.api), self.kind);
                    let world = api.world.read();
                    let now = world.changes.of(kind).point;
                    // Changes may have come since; then the bookmark waits for the next time.
                    if now != self.told && world.changes.of(kind).is_at_end(&self.cursor) {
                        self.bookmark(&world, now);
                    }
                    heartbeat += HEARTBEAT;
                }
            }
        }
    }

    /// Makes the next events, up to [`BATCH`].
    fn fill(&mut self) {
        let api = Arc::clone(&self.api);
        let world = api.world.read();
        let now = Instant::now();
        while let Some(name) = self.initial.pop_front() {
            if let Some(what) = self.judge(&world, &name, self.initially) {
                let object = render(&world, self.kind, &name, now);
                // No revision: who breaks off here has not seen the others.
                self.out.push_back(event(what, &name, "", object.as_deref()));
            }
            if self.out.len() >= BATCH {
                return;
            }
        }
        if !self.begun {
            self.begun = true;
            if !self.resuming {
                self.bookmark(&world, self.told);
            }
        }
        while self.out.len() < BATCH {
            match world.changes.of(self.kind).next(&mut self.cursor) {
                Ok(Some((entry, what))) => {
                    self.told = entry.point;
                    let Some(what) = self.judge(&world, &entry.key, what) else { continue };
                    let object = (what != WatchKind::Deleted).then(|| {
                        let made = || render(&world, self.kind, &entry.key, now).unwrap_or_default().into();
                        Arc::clone(entry.rendered.get_or_init(made))
                    });
                    let stands = position_of(&world, self.kind, &entry.point);
                    self.out.push_back(event(what, &entry.key, &stands, object.as_deref()));
                }
                Ok(None) => {
                    self.resuming = false;
                    return;
                }
                Err(late) => {
                    let mut problem = behind(late).into_problem();
                    problem.detail = format!("this watch was too slow, {}", problem.detail);
                    self.finish(&problem);
                    return;
                }
            }
        }
    }

    /// What a change of an object is to this client; none where it is nothing.
    fn judge(&mut self, world: &World, name: &str, what: WatchKind) -> Option<WatchKind> {
        if self.only.as_ref().is_some_and(|only| only != name) {
            return None;
        }
        let there = labels(world, self.kind, name);
        if self.selector.is_empty() {
            return Some(if there.is_some() { what } else { WatchKind::Deleted });
        }
        if there.is_some_and(|labels| self.selector.matches(labels)) {
            let new = self.selected.insert(name.to_owned());
            return Some(if new || what == WatchKind::Added { WatchKind::Added } else { WatchKind::Modified });
        }
        (self.selected.remove(name) || self.resuming).then_some(WatchKind::Deleted)
    }

    fn bookmark(&mut self, world: &World, point: Point) {
        self.told = point;
        self.out.push_back(event(WatchKind::Bookmark, "", &position_of(world, self.kind, &point), None));
    }

    fn end(&mut self, why: ApiError) {
        self.finish(&why.into_problem());
    }

    fn finish(&mut self, problem: &cluster_schemas::api::Problem) {
        self.ended = true;
        let (kind, problem) = (WatchKind::Error, Some(problem.clone()));
        let last = WatchEvent::<()> { kind, name: String::new(), resource_version: String::new(), object: None, problem };
        let data = serde_json::to_string(&last).unwrap_or_default();
        self.out.push_back(Event::default().event(kind.as_str()).data(data));
    }
}

/// A [`WatchEvent`] around an object that is JSON already.
fn event(kind: WatchKind, name: &str, stands: &str, object: Option<&str>) -> Event {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut data = format!("{{\"type\":{}", quoted(kind.as_str()));
    if !name.is_empty() {
        data.push_str(&format!(",\"name\":{}", quoted(name)));
    }
    if !stands.is_empty() {
        data.push_str(&format!(",\"resourceVersion\":{}", quoted(stands)));
    }
    if let Some(object) = object {
        data.push_str(",\"object\":");
        data.push_str(object);
    }
    data.push('}');
    let event = Event::default().event(kind.as_str()).data(data);
    if stands.is_empty() { event } else { event.id(stands) }
}
