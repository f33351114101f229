//! What a replica missed, asked for: the records after its place, or the whole database. One question for each window of records, so that
//! neither side ever holds more than that, and whatever is lost on the way is asked for again.

use std::future::pending;
use std::time::Duration;

use cluster_bus::{DatabaseMessage, DatabaseMessages};
use cluster_replica::host::Host;
use cluster_replica::lineage::{Chain, Position};
use cluster_replica::role::TailOutcome;
use tokio::time::Instant;
use tracing::{info, warn};

use super::place;
use super::spool::Spool;
use super::task::Task;
use super::wall::now_ms;
use super::wire::{Answer, Ask, Kind, Place, Question, begun, chain, json, read};

/// Longest silence before what is missing of a window is asked for again. A snapshot is made before its first record comes.
const SILENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Questions without an answer before another node, or another way, is looked for.
const TRIES: u32 = 4;
/// Pause after a fetch that brought nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes of records that are made durable together.
const BATCH: usize = 1 << 20;

enum Way {
    Tail { place: Position, chain: Chain },
    Snapshot { spool: Spool },
}

/// A fetch under way.
pub(super) struct Fetch {
    pub node: String,
    /// When it is asked again.
    pub until: Instant,
    way: Way,
    answers: DatabaseMessages,
    head: Option<Answer>,
    /// The snapshot that is fetched, once it is known.
    of: Option<Place>,
    /// Records taken, of this question and those before.
    taken: u32,
    /// Records still to come of this window, once its head is here.
    left: u32,
    more: bool,
    batch: Vec<Vec<u8>>,
    tries: u32,
}

impl Fetch {
    /// What follows our place, from `node`.
    pub(super) async fn tail(task: &Task, node: &str) -> Option<Self> {
        let (_, place, chain) = task.host.as_ref()?.ask();
        Self::begin(task, node, Way::Tail { place, chain }).await
    }

    /// The whole database, from `node`, which has to be the active.
    pub(super) async fn snapshot(task: &Task, node: &str) -> Option<Self> {
        let spool = Spool::new(&task.setup.folder);
        let spool = spool.map_err(|error| warn!(app = task.app(), "no room for a snapshot: {error}")).ok()?;
        info!(app = task.app(), from = node, "asking for a snapshot of the database");
        Self::begin(task, node, Way::Snapshot { spool }).await
    }

    async fn begin(task: &Task, node: &str, way: Way) -> Option<Self> {
        let answers = question(task, node, &way, None, 0).await?;
        let until = Instant::now() + silence(&way);
        let (head, of, batch) = (None, None, Vec::new());
        Some(Self { node: node.to_owned(), until, way, answers, head, of, taken: 0, left: 0, more: false, batch, tries: 0 })
    }

    /// Asks for what is still missing.
    async fn again(&mut self, task: &Task) -> bool {
        self.head = None;
        let Some(answers) = question(task, &self.node, &self.way, self.of, self.taken).await else { return false };
        self.answers = answers;
        self.left = 0;
        self.until = Instant::now() + silence(&self.way);
        true
    }

    /// The next message of an answer; `None` in it: silence. Pends while nothing is fetched.
    pub(super) async fn next(fetch: &mut Option<Self>) -> Option<DatabaseMessage> {
        let Some(fetch) = fetch else { return pending().await };
        tokio::time::timeout_at(fetch.until, fetch.answers.next()).await.ok().flatten()
    }
}

fn silence(way: &Way) -> Duration {
    if matches!(way, Way::Snapshot { .. }) { SILENCE.1 } else { SILENCE.0 }
}

async fn question(task: &Task, node: &str, way: &Way, of: Option<Place>, skip: u32) -> Option<DatabaseMessages> {
    let ask = match way {
        Way::Tail { place, chain } => Ask::Tail { place: (*place).into(), chain: begun(chain), skip },
        Way::Snapshot { .. } => Ask::Snapshot { of, skip },
    };
    let question = Question { db: task.db.to_string(), ask };
    task.setup.link.ask(task.app(), node, json(&question).into()).await.ok()
}

/// What a message meant.
enum Next {
    /// More is to come.
    Wait,
    /// Ask for the rest.
    Ask,
    /// All is here.
    Done(Answer),
    /// Our own place is another one now: what follows is another question.
    Moved(String),
    /// It cannot be had so.
    Over(String),
}

impl Task {
    /// Takes a message of an answer, or silence.
    pub(super) fn fetched(&mut self, message: Option<DatabaseMessage>) {
        let Some(mut fetch) = self.fetch.take() else { return };
        let next = match message {
            Some(message) if message.nobody => Next::Over("nobody answers there".to_owned()),
            Some(message) => self.take_answer(&mut fetch, &message),
            None if fetch.tries >= TRIES => Next::Over("no answer".to_owned()),
            None => {
                fetch.tries += 1;
                Next::Ask
            }
        };
        match next {
            Next::Wait => self.fetch = Some(fetch),
            Next::Ask => {
                // Asked in the loop's next turn, where there is time to wait.
                fetch.until = Instant::now();
                fetch.left = u32::MAX;
                self.fetch = Some(fetch);
            }
            Next::Done(answer) => self.fetch_done(fetch, &answer),
            Next::Moved(why) => {
                info!(app = self.app(), from = fetch.node, "{why}");
                if let (Some(promoting), Some(host)) = (&mut self.promoting, &self.host) {
                    promoting.fetched(host);
                }
            }
            Next::Over(why) => self.fetch_over(&fetch, &why),
        }
    }

    /// Asks again where that was found to be needed.
    pub(super) async fn ask_on(&mut self) {
        let Some(mut fetch) = self.fetch.take_if(|fetch| fetch.left == u32::MAX) else { return };
        if fetch.again(self).await {
            self.fetch = Some(fetch);
        } else {
            self.fetch_over(&fetch, "no connection");
        }
    }

    fn fetch_over(&mut self, fetch: &Fetch, why: &str) {
        self.ask_after = Some(Instant::now() + PAUSE);
        if let Some(promoting) = &mut self.promoting {
            promoting.lost(&fetch.node);
        }
        tracing::debug!(app = self.app(), from = fetch.node, "nothing fetched: {why}");
    }

    fn take_answer(&mut self, fetch: &mut Fetch, message: &DatabaseMessage) -> Next {
        let Some(host) = &mut self.host else { return Next::Over("the database is closed".to_owned()) };
        fetch.until = Instant::now() + silence(&fetch.way);
        if fetch.head.is_none() {
            let Some(answer) = read::<Answer>(&message.payload) else { return Next::Over("an answer that cannot be read".to_owned()) };
            return match answer.kind.clone() {
                Kind::Records { count, more } => {
                    (fetch.left, fetch.more) = (count, more);
                    fetch.of = Some(answer.place);
                    fetch.head = Some(answer);
                    fetch.tries = 0;
                    if count == 0 { take_window(host, fetch) } else { Next::Wait }
                }
                Kind::NeedsSnapshot => {
                    self.wants_snapshot = true;
                    Next::Over("its log does not reach back so far".to_owned())
                }
                Kind::Refused { why } => Next::Over(why),
                Kind::Sealed => Next::Over("an answer to another question".to_owned()),
            };
        }
        fetch.left = fetch.left.saturating_sub(1);
        fetch.taken += 1;
        if let Way::Snapshot { spool } = &mut fetch.way {
            if let Err(error) = spool.push(&message.payload) {
                return Next::Over(format!("no room for a snapshot: {error}"));
            }
        } else {
            fetch.batch.push(message.payload.to_vec());
        }
        let bytes: usize = fetch.batch.iter().map(Vec::len).sum();
        if fetch.left == 0 || bytes >= BATCH { take_window(host, fetch) } else { Next::Wait }
    }

    fn fetch_done(&mut self, mut fetch: Fetch, answer: &Answer) {
        let node = fetch.node.clone();
        if let Way::Snapshot { spool } = &mut fetch.way {
            self.take_snapshot(spool, answer);
        } else {
            self.hear(&node, answer.place.into(), true);
        }
        self.settle();
        if let (Some(promoting), Some(host)) = (&mut self.promoting, &self.host) {
            promoting.fetched(host);
        }
    }

    fn take_snapshot(&mut self, spool: &mut Spool, answer: &Answer) {
        let (Some(host), Some(chain)) = (&mut self.host, chain(&answer.chain)) else { return };
        match host.set_aside(now_ms()) {
            Ok(None) => {}
            Ok(Some(aside)) => {
                warn!(app = self.setup.name.app, kept = %aside.display(), "a database that was here before was put aside");
                if let Err(error) = place::prepare(&self.setup.name.path, &self.setup.owner) {
                    return self.failed(error.reason(), &error);
                }
            }
            Err(error) => return self.trouble("Unreadable", format!("the database that was here before cannot be put aside: {error}")),
        }
        let taken = spool.records().map(|records| host.take_snapshot(answer.noted, answer.place.into(), &chain, records));
        match taken {
            Ok(Ok(useful)) => {
                info!(app = self.setup.name.app, transaction = answer.place.tx, useful, "snapshot taken");
                self.well();
            }
            Ok(Err(error)) => self.close(&error),
            Err(error) => self.trouble("SnapshotFailed", error.to_string()),
        }
        self.ask_after = None;
        self.wants_snapshot = false;
    }
}

/// Takes what is here of a window.
fn take_window(host: &mut Host, fetch: &mut Fetch) -> Next {
    let Some(answer) = fetch.head.clone() else { return Next::Ask };
    if matches!(fetch.way, Way::Tail { .. }) {
        let Some(chain) = chain(&answer.chain) else { return Next::Over("a history that is none".to_owned()) };
        let records = std::mem::take(&mut fetch.batch);
        match host.take_tail(answer.noted, &chain, &records) {
            Ok(TailOutcome::Appended(_)) => {}
            // Ours was void and is kept in a file now: from another place, or by a snapshot.
            Ok(TailOutcome::Diverged(keep)) => {
                return Next::Moved(format!("what was here after transaction {} is void and kept as divergence", keep.tx));
            }
            Ok(TailOutcome::Refused { noted }) => return Next::Over(format!("epoch {noted} is noted here")),
            Err(error) => return Next::Over(cluster_telemetry::chain(&error)),
        }
    }
    match (fetch.left, fetch.more) {
        (0, true) => Next::Ask,
        (0, false) => Next::Done(answer),
        _ => Next::Wait,
    }
}
