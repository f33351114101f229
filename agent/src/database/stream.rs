//! The active's log into the durable stream (rules D6, N6). Nothing of a take-over, and nothing that the application does, waits for it: what
//! goes out is read from the log when there is room for it, and whatever is in doubt is read back before anything else is appended.
//!
//! A message of the stream is records one behind the other, as many as fit. It begins with the first start or with a snapshot; where it
//! does not (it was purged, or lost what it had acknowledged), or where the log does not reach back to its end, a snapshot is appended, and
//! what is before that is removed. So it is bounded: [`KEPT`] and twice the database, then it is begun anew with a snapshot.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use cluster_bus::{APPENDS_MAX, Append, Appended, DatabaseStream, StreamState};
use cluster_replica::lineage::{Chain, Position};
use cluster_replica::log::{LogError, TransactionLog};
use cluster_replica::role::{Backfill, StreamStep};
use cluster_replica::storage::Storage;
use cluster_replica::transaction::{DbId, Kind, MAX_CHUNK, Record, decode_all};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Stage;
use super::spool::Spool;
use super::task::Task;

/// Bytes of transactions that the stream keeps, beside twice the database, before it is begun anew.
const KEPT: u64 = 1 << 30;
/// How often the active looks whether the stream still begins where it should.
const LOOK: Duration = Duration::from_secs(10);
/// First and longest pause after the stream could not be reached; it doubles in between.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Messages at the end of the stream that are read backwards for one that counts. Where none of them does, a snapshot stands for all.
const BACKWARDS: u64 = 4096;

/// What the tasks that talk to the stream tell.
#[derive(Debug)]
pub(super) enum Told {
    Opened(Result<Opened, String>),
    Read(Result<Option<Bytes>, String>),
    Looked(Result<Option<StreamState>, String>),
    Appended(u64, Appended),
}

/// Where an active begins with the stream.
#[derive(Debug)]
pub(super) struct Opened {
    state: StreamState,
    /// Its first message begins with a start from nothing or a snapshot.
    whole: bool,
    /// The last message with something that counts, or the last one.
    last: u64,
    /// The last state in it that counts.
    after: Option<Position>,
    /// A higher epoch was found.
    higher: Option<u64>,
}

/// On its way.
#[derive(Debug)]
struct Sent {
    number: u64,
    expected: u64,
    /// Where it leads to, if it closes anything.
    reaches: Option<Position>,
    /// The first message of a snapshot.
    begins: bool,
}

/// What goes out next.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    after: Position,
    /// Where in the entry that follows.
    offset: u64,
}

/// A message, where it leads to, and whether a snapshot begins with it.
type Message = (Vec<u8>, Option<Position>, bool);

/// A snapshot that goes out.
struct Snapshot {
    spool: Spool,
    next: usize,
    at: Position,
}

impl Snapshot {
    /// All of it was sent. That the stream is at its state says nothing: it may have been before.
    fn is_out(&self) -> bool {
        self.next >= self.spool.len()
    }
}

/// The stream, as the active of one epoch has it.
pub(super) struct Streaming {
    epoch: u64,
    stream: DatabaseStream,
    backfill: Option<Backfill>,
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    appends: mpsc::Sender<Append>,
    in_flight: VecDeque<Sent>,
    number: u64,
    cursor: Option<Cursor>,
    snapshot: Option<Snapshot>,
    /// A snapshot is to be made.
    owed: bool,
    /// Sequence that the stream has to begin with.
    first: u64,
    /// Something on its way failed: nothing more goes out before all of it is told.
    doubt: bool,
    /// What failed was refused: should nothing be there, then the stream lost something.
    refused: bool,
    /// A question is on its way.
    asking: bool,
    look_at: Instant,
    failures: u32,
    retry_at: Option<Instant>,
    deposed: bool,
    /// Why it does not go on; empty while it does.
    pub message: String,
}

impl Streaming {
    /// What a task told; pends while there is no stream.
    pub(super) async fn told(streaming: &mut Option<Self>) -> Option<Told> {
        match streaming {
            Some(streaming) => streaming.told.recv().await,
            None => pending().await,
        }
    }

    /// When there is something to do.
    pub(super) fn until(&self) -> Instant {
        let waits = self.asking || self.doubt || self.deposed || !self.in_flight.is_empty();
        self.retry_at.unwrap_or(if waits { Instant::now() + LOOK } else { self.look_at })
    }

    /// The last position of the log that is in the stream.
    pub(super) fn durable(&self) -> Option<Position> {
        self.backfill.as_ref().map(Backfill::after)
    }

    fn fail(&mut self, why: String) {
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(6)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + pause);
        self.message = why;
    }

    /// Everything about the stream is looked at anew.
    fn begin_anew(&mut self) {
        (self.backfill, self.cursor, self.snapshot) = (None, None, None);
    }

    fn opened(&mut self, opened: &Opened, chain: &Chain) {
        let Opened { state, whole, last, after, .. } = *opened;
        self.owed = self.owed || !whole;
        self.first = if state.messages == 0 { state.last + 1 } else { state.first };
        self.backfill = Some(Backfill::new(chain.clone(), last, after.unwrap_or_default()));
        self.look_at = Instant::now() + LOOK;
    }

    fn appended(&mut self, number: u64, outcome: Appended) {
        let Some(place) = self.in_flight.iter().position(|sent| sent.number == number) else { return };
        match outcome {
            Appended::Sequence(_) => {
                self.failures = 0;
                self.message.clear();
                // Those before it got through too: it was appended behind them.
                for sent in self.in_flight.drain(..=place) {
                    if let Some(backfill) = &mut self.backfill {
                        backfill.appended(sent.expected + 1, sent.reaches);
                    }
                    if sent.begins {
                        self.first = sent.expected + 1;
                    }
                }
            }
            Appended::Refused => (self.doubt, self.refused) = (true, true),
            Appended::Unsure(why) => {
                self.doubt = true;
                self.fail(why);
            }
        }
        if self.doubt {
            self.in_flight.retain(|sent| sent.number != number);
        }
        if self.doubt && self.in_flight.is_empty() {
            (self.doubt, self.cursor) = (false, None);
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.next = 0;
            }
            if let Some(backfill) = &mut self.backfill {
                backfill.unsure();
            }
        }
    }

    /// What is to go out next, with where it leads to, and whether a snapshot begins with it. `None`: nothing, for now.
    fn next<S: Storage>(&mut self, log: &TransactionLog<S>, after: Position) -> Result<Option<Message>, LogError> {
        if let Some(snapshot) = &mut self.snapshot {
            if snapshot.is_out() {
                return Ok(None);
            }
            let bytes = snapshot.spool.get(snapshot.next).map_err(LogError::Storage)?;
            snapshot.next += 1;
            let reaches = (snapshot.next == snapshot.spool.len()).then_some(snapshot.at);
            if let Some(at) = reaches {
                self.cursor = Some(Cursor { after: at, offset: 0 });
            }
            return Ok(Some((bytes, reaches, snapshot.next == 1)));
        }
        let mut cursor = self.cursor.unwrap_or(Cursor { after, offset: 0 });
        let Some(mut place) = log.place(cursor.after) else {
            self.owed = true;
            return Ok(None);
        };
        // Few and small: they wait for what is on its way, and go together.
        let mut waits = 0;
        for entry in (place..).map_while(|place| log.entry(place)) {
            waits += entry.bytes;
            if waits >= MAX_CHUNK as u64 {
                break;
            }
        }
        if waits == 0 || (waits < MAX_CHUNK as u64 && !self.in_flight.is_empty()) {
            return Ok(None);
        }
        let (mut message, mut reaches) = (Vec::new(), None);
        while let Some(entry) = log.entry(place) {
            let (record, next) = log.record(entry, cursor.offset)?;
            if !message.is_empty() && message.len() + record.len() > MAX_CHUNK {
                break;
            }
            message.extend_from_slice(&record);
            match next {
                Some(offset) => cursor.offset = offset,
                None => {
                    cursor = Cursor { after: entry.position, offset: 0 };
                    reaches = Some(entry.position);
                    place += 1;
                }
            }
        }
        self.cursor = Some(cursor);
        Ok(Some((message, reaches, false)))
    }
}

impl Task {
    /// Brings the stream forward. Never waits.
    pub(super) fn stream_on(&mut self) {
        let Stage::Active(epoch) = self.stage else {
            self.streaming = None;
            return;
        };
        let (Some(host), now) = (&self.host, Instant::now()) else { return };
        if self.streaming.as_ref().is_none_or(|streaming| streaming.epoch != epoch) {
            self.streaming = Some(self.begin_stream(epoch));
        }
        let Some(streaming) = &mut self.streaming else { return };
        if streaming.deposed || streaming.retry_at.is_some_and(|at| at > now) {
            return;
        }
        streaming.retry_at = None;
        let (stream, tell, runtime) = (streaming.stream.clone(), streaming.tell.clone(), &self.setup.runtime);
        if streaming.asking || streaming.doubt {
            return;
        }
        let Some(backfill) = &streaming.backfill else {
            let (chain, db) = (host.member().chain().clone(), self.db);
            streaming.asking = true;
            runtime.spawn(async move { tell.send(Told::Opened(open(&stream, &chain, db).await)).await });
            return;
        };
        if streaming.look_at <= now {
            // Nothing more goes out until it was looked at: what is on its way would look like a loss.
            if !streaming.in_flight.is_empty() {
                return;
            }
            streaming.look_at = now + LOOK;
            streaming.asking = true;
            runtime.spawn(async move { tell.send(Told::Looked(stream.state().await.map_err(|error| error.to_string()))).await });
            return;
        }
        match backfill.step() {
            StreamStep::Read { sequence } => {
                streaming.asking = true;
                runtime.spawn(async move { tell.send(Told::Read(stream.read(sequence).await.map_err(|error| error.to_string()))).await });
            }
            StreamStep::Append { .. } => self.append_on(),
            StreamStep::Deposed => {}
        }
    }

    fn begin_stream(&self, epoch: u64) -> Streaming {
        let stream = self.setup.link.stream(self.app());
        let (tell, told) = mpsc::channel(APPENDS_MAX * 2);
        let (appends, mut answers) = {
            let _on_the_agents = self.setup.runtime.enter();
            stream.appends()
        };
        let forward = tell.clone();
        self.setup.runtime.spawn(async move {
            while let Some((number, outcome)) = answers.recv().await {
                if forward.send(Told::Appended(number, outcome)).await.is_err() {
                    return;
                }
            }
        });
        Streaming {
            epoch,
            stream,
            backfill: None,
            told,
            tell,
            appends,
            in_flight: VecDeque::new(),
            number: 0,
            cursor: None,
            snapshot: None,
            owed: false,
            first: 0,
            doubt: false,
            refused: false,
            asking: false,
            look_at: Instant::now() + LOOK,
            failures: 0,
            retry_at: None,
            deposed: false,
            message: String::new(),
        }
    }

    fn append_on(&mut self) {
        loop {
            let (Some(host), Some(streaming)) = (&self.host, &mut self.streaming) else { return };
            let Some(StreamStep::Append { last, after }) = streaming.backfill.as_ref().map(Backfill::step) else { return };
            if streaming.in_flight.is_empty()
                && streaming.snapshot.as_ref().is_some_and(|snapshot| snapshot.is_out() && after == snapshot.at)
            {
                streaming.snapshot_is_in(&self.setup.runtime);
            }
            if streaming.in_flight.len() >= APPENDS_MAX {
                return;
            }
            if streaming.owed && streaming.snapshot.is_none() {
                if streaming.in_flight.is_empty() {
                    self.snapshot_into_stream();
                    continue;
                }
                return;
            }
            let next = match streaming.next(host.member().log(), after) {
                Ok(Some(next)) => next,
                Ok(None) if streaming.owed && streaming.snapshot.is_none() => continue,
                Ok(None) => return,
                Err(error) => return streaming.fail(cluster_telemetry::chain(&error)),
            };
            let (message, reaches, begins) = next;
            let expected = last + streaming.in_flight.len() as u64;
            streaming.number += 1;
            let number = streaming.number;
            // There is room: no more than its capacity are on their way.
            if streaming.appends.try_send(Append { number, expected, payload: message.into() }).is_err() {
                streaming.cursor = None;
                return streaming.fail("appends cannot be sent".to_owned());
            }
            streaming.in_flight.push_back(Sent { number, expected, reaches, begins });
        }
    }

    fn snapshot_into_stream(&mut self) {
        let made = self.make_snapshot();
        let Some(streaming) = &mut self.streaming else { return };
        match made {
            Ok(made) => {
                info!(app = self.setup.name.app, "the stream is begun anew with a snapshot");
                (streaming.owed, streaming.cursor) = (false, None);
                let (spool, at) = made.into_parts();
                streaming.snapshot = Some(Snapshot { spool, next: 0, at });
            }
            Err(why) => streaming.fail(format!("it needs a snapshot, which was not made: {why}")),
        }
    }

    /// Takes what a task told.
    pub(super) fn stream_told(&mut self, told: Option<Told>) {
        let (Some(told), Some(streaming), Some(host)) = (told, &mut self.streaming, &self.host) else { return };
        let log = host.member().log();
        streaming.asking = streaming.asking && matches!(told, Told::Appended(..));
        let size = std::fs::metadata(&self.setup.name.path).map_or(0, |file| file.len());
        let mut higher = None;
        match told {
            Told::Opened(Err(why)) | Told::Looked(Err(why)) => streaming.fail(why),
            Told::Read(Err(why)) => {
                streaming.fail(why);
                streaming.begin_anew();
            }
            Told::Opened(Ok(opened)) => {
                higher = opened.higher;
                let chain = host.member().chain();
                streaming.opened(&opened, chain);
            }
            Told::Looked(Ok(state)) => {
                let begins = state.filter(|state| state.messages > 0).map(|state| state.first);
                let empty = streaming.durable().is_none_or(|at| at == Position::default());
                if begins.is_none_or(|first| first > streaming.first) && !empty {
                    warn!(app = self.setup.name.app, "the stream of the database lost its beginning");
                    streaming.owed = true;
                    streaming.begin_anew();
                } else if state.is_some_and(|state| state.bytes > KEPT + 2 * size) && streaming.snapshot.is_none() {
                    streaming.owed = true;
                }
            }
            Told::Appended(number, outcome) => streaming.appended(number, outcome),
            Told::Read(Ok(None)) if std::mem::take(&mut streaming.refused) => {
                warn!(app = self.setup.name.app, "the stream of the database is shorter than it was");
                streaming.begin_anew();
            }
            Told::Read(Ok(message)) => {
                streaming.refused = false;
                if let Some(backfill) = &mut streaming.backfill {
                    // What is no record of ours leads nowhere, and is passed over.
                    let records = message.map(|message| records(&message, self.db));
                    let most = records.iter().flatten().map(Record::epoch).max();
                    backfill.found(records.as_ref(), |at| log.place(at).is_some());
                    if backfill.step() == StreamStep::Deposed {
                        higher = most;
                    }
                }
            }
        }
        if let Some(higher) = higher {
            self.deposed_by_stream(higher);
        }
    }

    /// D6: somebody with a higher epoch appends. The unit has to stop; what is here is sorted out as a replica.
    fn deposed_by_stream(&mut self, higher: u64) {
        let Some(streaming) = &mut self.streaming else { return };
        streaming.deposed = true;
        let epoch = streaming.epoch;
        let noted = self.host.as_mut().map(|host| host.member_mut().seal(higher));
        if let Some(Err(error)) = noted {
            return self.close(&error.into());
        }
        self.trouble("Deposed", format!("epoch {higher} has begun elsewhere, as its records in the stream say"));
        self.stage = Stage::Refused(epoch);
    }
}

impl Streaming {
    /// What is before the snapshot is of no use any more.
    fn snapshot_is_in(&mut self, runtime: &tokio::runtime::Handle) {
        self.snapshot = None;
        let (stream, first) = (self.stream.clone(), self.first);
        runtime.spawn(async move {
            if let Err(error) = stream.purge_before(first).await {
                warn!("what is before the snapshot stays for now: {error}");
            }
        });
    }
}

/// The records of a message that are of this database.
fn records(message: &[u8], db: DbId) -> Vec<Record> {
    decode_all(message).map_while(Result::ok).map(|(_, record)| record).filter(|record| record.db() == db).collect()
}

/// Makes the stream where it is not there, and finds from its end backwards the last message that counts in the history `chain`.
async fn open(stream: &DatabaseStream, chain: &Chain, db: DbId) -> Result<Opened, String> {
    let text = |error: cluster_bus::StreamError| error.to_string();
    let state = stream.open().await.map_err(text)?;
    let mut opened = Opened { state, whole: true, last: state.last, after: None, higher: None };
    if state.messages == 0 {
        return Ok(opened);
    }
    let begins = stream.read(state.first).await.map_err(text)?;
    opened.whole = begins.is_some_and(|message| {
        records(&message, db).first().is_some_and(|first| match first {
            Record::Start { start, .. } => start.base == Position::default(),
            Record::Chunk(chunk) => chunk.kind == Kind::Snapshot && chunk.index == 0,
        })
    });
    for sequence in (state.first.max(state.last.saturating_sub(BACKWARDS))..=state.last).rev() {
        let Some(message) = stream.read(sequence).await.map_err(text)? else { continue };
        let records = records(&message, db);
        opened.higher = opened.higher.max(records.iter().map(Record::epoch).max().filter(|epoch| *epoch > chain.epoch()));
        let counts = records.iter().rev().filter_map(Record::reaches).find(|at| chain.holds(at.epoch, at.tx));
        if counts.is_some() {
            (opened.last, opened.after) = (sequence, counts);
            break;
        }
    }
    Ok(opened)
}
