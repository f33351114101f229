//! The thread of one database: one loop, all events one after the other. Disk calls block it, and nobody else.

use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cluster_bus::{DatabaseLink, DatabaseMessage, DatabaseMessages, Outgoing};
use cluster_replica::capture::Options;
use cluster_replica::host::{Host, HostError};
use cluster_replica::lineage::Position;
use cluster_replica::log::Limits;
use cluster_replica::role::Sealed;
use cluster_replica::transaction::DbId;
use cluster_schemas::database::DatabaseObserved;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::active::{Following, Retiring};
use super::answer::Offered;
use super::fetch::Fetch;
use super::job::Job;
use super::place::{self, Owner};
use super::promote::Promoting;
use super::stream::{Streaming, Told};
use super::wall::now_ms;
use super::{Name, Order, Stage, View, Wish};

/// How often the active says where it is, and a replica what it has.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// First and longest pause after something failed; it doubles in between.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Figures that only grow are reported this often: a busy database must not be a busy status.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Wait before subscribing again after the client gave a subscription up.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(250);

/// What a thread begins with.
#[derive(Debug)]
pub(super) struct Setup {
    pub name: Name,
    pub owner: Owner,
    /// Log and lineage.
    pub folder: PathBuf,
    pub link: DatabaseLink,
    pub outgoing: Outgoing,
    /// The agent's runtime.
    pub runtime: tokio::runtime::Handle,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In a word, for a condition.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// The active, as it was heard last.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub node: String,
    pub place: Position,
}

/// The thread's state.
pub(super) struct Task {
    pub setup: Setup,
    pub db: DbId,
    wish: watch::Receiver<Wish>,
    view: watch::Sender<View>,
    pub host: Option<Host>,
    pub stage: Stage,
    pub trouble: Option<Trouble>,
    failures: u32,
    pub retry_at: Option<Instant>,
    pub heard: Option<Heard>,
    pub fetch: Option<Fetch>,
    /// No question before, after one that brought nothing.
    pub ask_after: Option<Instant>,
    /// The active's log does not reach back to our place.
    pub wants_snapshot: bool,
    pub promoting: Option<Promoting>,
    pub following: Option<Following>,
    pub retiring: Option<Retiring>,
    pub offered: Option<Offered>,
    pub streaming: Option<Streaming>,
    pub job: Option<Job>,
    next_tick: Instant,
    figures: (Instant, DatabaseObserved),
    live: Option<DatabaseMessages>,
    asks: Option<DatabaseMessages>,
    pub confirms: Option<DatabaseMessages>,
    controls: Option<DatabaseMessages>,
    subscribe_at: Option<Instant>,
}

enum Event {
    Wish,
    Live(DatabaseMessage),
    Ask(DatabaseMessage),
    Control(DatabaseMessage),
    Confirm(DatabaseMessage),
    Sealed(String, Option<Sealed>),
    Fetched(Option<DatabaseMessage>),
    Written,
    Stream(Option<Told>),
    /// A subscription ended, or it is time for something.
    Tick,
}

impl Task {
    pub(super) fn new(setup: Setup, wish: watch::Receiver<Wish>, view: watch::Sender<View>) -> Self {
        let now = Instant::now();
        Self {
            db: DbId(place::id(&setup.name.uid)),
            setup,
            wish,
            view,
            host: None,
            stage: Stage::Closed,
            trouble: None,
            failures: 0,
            retry_at: None,
            heard: None,
            fetch: None,
            ask_after: None,
            wants_snapshot: false,
            promoting: None,
            following: None,
            retiring: None,
            offered: None,
            streaming: None,
            job: None,
            next_tick: now,
            figures: (now, DatabaseObserved::default()),
            live: None,
            asks: None,
            confirms: None,
            controls: None,
            subscribe_at: None,
        }
    }

    pub(super) fn app(&self) -> &str {
        &self.setup.name.app
    }

    pub(super) fn now_wished(&self) -> Wish {
        self.wish.borrow().clone()
    }

    /// Until the worker lets go of it.
    pub(super) async fn run(mut self) {
        place::sweep(&self.setup.folder);
        loop {
            self.wish.mark_unchanged();
            self.subscribe().await;
            self.step().await;
            self.publish();
            let until = self.next_time();
            let event = tokio::select! {
                changed = self.wish.changed() => if changed.is_ok() { Event::Wish } else { return },
                message = next(&mut self.live) => message.map_or(Event::Tick, Event::Live),
                message = next(&mut self.asks) => message.map_or(Event::Tick, Event::Ask),
                message = next(&mut self.controls) => message.map_or(Event::Tick, Event::Control),
                message = next(&mut self.confirms) => message.map_or(Event::Tick, Event::Confirm),
                (node, sealed) = Promoting::answered(&mut self.promoting) => Event::Sealed(node, sealed),
                message = Fetch::next(&mut self.fetch) => Event::Fetched(message),
                () = Following::written(&self.following) => Event::Written,
                told = Streaming::told(&mut self.streaming) => Event::Stream(told),
                () = tokio::time::sleep_until(until) => Event::Tick,
            };
            match event {
                Event::Wish | Event::Tick => {}
                Event::Live(message) => self.take_live(message),
                Event::Ask(message) => self.answer(&message),
                Event::Control(message) => self.control(&message),
                Event::Confirm(message) => self.confirmed(&message),
                Event::Sealed(node, sealed) => self.sealed(&node, sealed),
                Event::Fetched(message) => self.fetched(message),
                Event::Written => self.capture(true),
                Event::Stream(told) => self.stream_told(told),
            }
        }
    }

    /// What has to be done by the order and the time, before the next event.
    async fn step(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.ask_after.is_some_and(|at| at <= now) {
            self.ask_after = None;
        }
        if self.host.is_none() && self.retry_at.is_none() {
            self.open();
        }
        self.ask_on().await;
        let wish = self.now_wished();
        if self.host.is_some() {
            match wish.order {
                Order::Follow if self.stage.in_tenure() => self.retire(),
                Order::Follow => self.catch_up().await,
                Order::Promote { epoch, adopt } => self.promote_to(epoch, adopt, &wish).await,
            }
        }
        if self.host.is_none() {
            // What cannot be opened here may be had elsewhere.
            self.stage = match wish.order {
                Order::Promote { epoch, adopt: false } if self.trouble.is_some() => Stage::Failed(epoch),
                _ => Stage::Closed,
            };
        }
        if self.following.is_some() {
            self.follow(now);
        }
        self.stream_on();
        if self.next_tick <= now {
            // At the end of a tenure a lease waits for those that missed where its end is.
            self.next_tick = now + if self.retiring.is_some() { TICK / 10 } else { TICK };
            self.say_where();
        }
    }

    fn next_time(&self) -> Instant {
        let following = self.following.as_ref().map(Following::next_look);
        let promoting = self.promoting.as_ref().and_then(|p| p.until);
        let fetch = self.fetch.as_ref().map(|f| f.until);
        let retiring = self.retiring.as_ref().map(|r| r.until);
        let stream = self.streaming.as_ref().map(Streaming::until);
        let all = [Some(self.next_tick), self.retry_at, following, promoting, fetch, retiring, stream, self.ask_after, self.subscribe_at];
        // What is due already is looked at again after a moment, so that a slip here costs no processor.
        let least = Instant::now() + Duration::from_micros(200);
        all.into_iter().flatten().min().unwrap_or(self.next_tick).max(least)
    }

    fn open(&mut self) {
        let name = &self.setup.name;
        if let Err(error) = place::prepare(&name.path, &self.setup.owner) {
            self.failed(error.reason(), &error);
            return;
        }
        let opened = Host::open(&self.setup.folder, Options::new(&name.path), self.setup.link.node(), self.db, Limits::default(), now_ms());
        match opened {
            Ok(host) => {
                let (at, applied) = (host.member().position(), host.applied());
                info!(app = name.app, epoch = at.epoch, transaction = at.tx, behind = applied.is_none(), "database opened as a replica");
                self.host = Some(host);
                self.stage = Stage::Standby;
                self.well();
            }
            Err(error) => self.host_failed(&error),
        }
    }

    /// Something failed, and is tried again after a pause.
    pub(super) fn failed(&mut self, reason: &'static str, error: &dyn std::error::Error) {
        self.trouble(reason, cluster_telemetry::chain(error));
    }

    /// The same, of what the library says.
    pub(super) fn host_failed(&mut self, error: &HostError) {
        let reason = match error {
            HostError::Capture(why) => why.reason(),
            HostError::Member(cluster_replica::role::MemberError::Corrupt(_)) => "Corrupt",
            HostError::Member(_) => "LogFailed",
            HostError::Apply(_) => "ReplicaFailed",
            HostError::Snapshot(_) | HostError::Decode(_) => "SnapshotFailed",
            HostError::Role(_) => "Internal",
        };
        self.failed(reason, error);
    }

    /// The same, in words.
    pub(super) fn trouble(&mut self, reason: &'static str, message: String) {
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(7)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + pause);
        let trouble = Trouble { reason, message };
        if self.trouble.as_ref() != Some(&trouble) {
            warn!(app = self.app(), reason, "{}", trouble.message);
            self.trouble = Some(trouble);
        }
    }

    /// It works.
    pub(super) fn well(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        if self.trouble.take().is_some() {
            info!(app = self.app(), "the database is well again");
        }
    }

    /// Nothing more can be done with it as it is: it is opened anew, after a pause.
    pub(super) fn close(&mut self, error: &HostError) {
        self.host_failed(error);
        self.shut();
    }

    /// The same, where its folder is not what it should be.
    pub(super) fn close_place(&mut self, error: &place::PlaceError) {
        self.failed(error.reason(), error);
        self.shut();
    }

    fn shut(&mut self) {
        self.host = None;
        (self.fetch, self.promoting, self.following, self.retiring) = (None, None, None, None);
        self.stage = Stage::Closed;
    }

    async fn subscribe(&mut self) {
        if self.subscribe_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.subscribe_at = None;
        let (link, app) = (&self.setup.link, self.setup.name.app.as_str());
        let mut failed = false;
        let mut keep = |result: Result<DatabaseMessages, _>| match result {
            Ok(messages) => Some(messages),
            Err(_) => {
                failed = true;
                None
            }
        };
        // The active hears no records: they would be its own.
        let hears = self.following.is_none();
        if !hears {
            self.live = None;
        } else if self.live.is_none() {
            self.live = keep(link.hear_live(app).await);
        }
        let counts = self.following.is_some() || self.retiring.is_some();
        if !counts {
            self.confirms = None;
        } else if self.confirms.is_none() {
            self.confirms = keep(link.hear_confirms(app).await);
        }
        if self.asks.is_none() {
            self.asks = keep(link.hear_asks(app).await);
        }
        if self.controls.is_none() {
            self.controls = keep(link.hear_controls(app).await);
        }
        if failed {
            self.subscribe_at = Some(Instant::now() + SUBSCRIBE_RETRY);
        }
    }

    /// One live message that is here already.
    pub(super) fn next_live(&mut self) -> Option<DatabaseMessage> {
        self.live.as_mut().and_then(DatabaseMessages::try_next)
    }

    /// Says something to all, soon. False: there was no room.
    pub(super) fn say(&self, subject: String, payload: Vec<u8>) -> bool {
        self.setup.outgoing.send(subject, Bytes::from(payload))
    }

    /// What is to be asked of the disk by others: all that is known of this database here.
    pub(super) fn observed(&self) -> DatabaseObserved {
        let at = self.host.as_ref().map(|host| host.member().position()).unwrap_or_default();
        let lost = self.host.as_ref().is_none_or(|host| host.applied().is_none());
        let active = matches!(self.stage, Stage::Active(_) | Stage::Ready(_));
        let heard = self.heard.as_ref().filter(|heard| !active && heard.place.epoch >= at.epoch);
        let lag = heard.map_or(0, |heard| heard.place.tx.saturating_sub(at.tx));
        let (reason, message) = match &self.trouble {
            Some(trouble) => (trouble.reason.to_owned(), trouble.message.clone()),
            None if !active && lost && at.epoch == 0 && heard.is_none() => (String::new(), String::new()),
            None if !active && lost => ("NeedsSnapshot".to_owned(), "it waits for a snapshot of the active's database".to_owned()),
            None => (String::new(), String::new()),
        };
        DatabaseObserved {
            epoch: at.epoch,
            transaction: at.tx,
            lag,
            bytes: std::fs::metadata(&self.setup.name.path).map_or(0, |file| file.len()),
            follows: reason.is_empty() && matches!(self.stage, Stage::Standby | Stage::Active(_)) && (active || (!lost && heard.is_some())),
            reason,
            message,
        }
    }

    fn publish(&mut self) {
        let now = self.observed();
        let (at, told) = &self.figures;
        let coarse = |o: &DatabaseObserved| (o.epoch, o.follows, o.reason.clone(), o.message.clone());
        if coarse(&now) != coarse(told) || (now != *told && at.elapsed() >= REPORT_EVERY) {
            self.figures = (Instant::now(), now);
        }
        // Before anybody has a history, any node may begin one.
        let may_begin = |host: &Host| host.member().chain().starts().is_empty() && self.heard.is_none();
        let fit = self.host.as_ref().is_some_and(|host| host.applied().is_some() || may_begin(host));
        let view = View { stage: self.stage, fit, observed: self.figures.1.clone() };
        self.view.send_if_modified(|before| {
            let changed = *before != view;
            if changed {
                *before = view;
            }
            changed
        });
    }
}

async fn next(messages: &mut Option<DatabaseMessages>) -> Option<DatabaseMessage> {
    let Some(open) = messages else { return pending().await };
    let message = open.next().await;
    if message.is_none() {
        *messages = None;
    }
    message
}
