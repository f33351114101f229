//! What other nodes and people ask.

use std::time::Duration;

use bytes::Bytes;
use cluster_bus::DatabaseMessage;
use cluster_replica::divergence;
use cluster_replica::host::Host;
use cluster_replica::lineage::Position;
use cluster_schemas::database::{
    DatabaseAnswer, DatabaseAsk, DatabaseDivergence, DatabaseNode, DatabaseSynced, DatabaseVerified, SYNC_MAX_MS, VoidTransaction,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::active::THERE;
use super::spool::Spool;
use super::stream::Streaming;
use super::task::Task;
use super::wall::now_ms;
use super::wire::{Answer, Ask, Begun, Kind, Place, Question, begun, chain, json, read};
use super::{Stage, Wish};

/// Records in one window of an answer: with the largest ones 16 MiB.
const WINDOW: usize = 32;
/// Bytes of records that one place is answered with, over all its windows; a larger transaction goes as a whole.
const TAIL_BYTES: u64 = 8 << 20;
/// A snapshot is kept so long after it was asked for last.
const OFFERED: Duration = Duration::from_secs(60);
/// Other nodes are given the same one for so long after it was made; what came since is in the log.
const SHARED: Duration = Duration::from_secs(30);
/// Most calls that wait for confirmations at once.
const WAITING_MAX: usize = 256;

/// A snapshot that other nodes are taking.
pub(super) struct Offered {
    spool: Spool,
    place: Place,
    chain: Vec<Begun>,
    made: Instant,
    asked: Instant,
}

impl Offered {
    /// The records, and the state that they hold.
    pub(super) fn into_parts(self) -> (Spool, Position) {
        (self.spool, self.place.into())
    }
}

/// A `db sync` that waits.
pub(super) struct Waiting {
    transaction: u64,
    standbys: usize,
    reply: String,
    until: Instant,
}

impl Task {
    /// Answers a question of another node.
    pub(super) fn answer(&mut self, message: &DatabaseMessage) {
        let (Some(reply), Some(question)) = (message.reply.clone(), read::<Question>(&message.payload)) else { return };
        if self.offered.as_ref().is_some_and(|offered| offered.asked.elapsed() > OFFERED) {
            self.offered = None;
        }
        let answers = match question.ask {
            _ if question.db != self.db.to_string() => Err("another database".to_owned()),
            Ask::Seal { epoch } => self.seal(epoch),
            Ask::Tail { place, chain, skip } => self.tail(place, &chain, skip),
            Ask::Snapshot { of, skip } => self.snapshot(of, skip),
        };
        let answers = answers.unwrap_or_else(|why| vec![json(&self.head(Kind::Refused { why })).into()]);
        let link = self.setup.link.clone();
        self.setup.runtime.spawn(async move { link.answer(reply, answers).await });
    }

    fn head(&self, kind: Kind) -> Answer {
        let member = self.host.as_ref().map(Host::member);
        Answer {
            noted: member.map_or(0, |member| member.noted()),
            place: member.map(|member| member.position()).unwrap_or_default().into(),
            chain: member.map(|member| begun(member.chain())).unwrap_or_default(),
            kind,
        }
    }

    /// D4, D5.
    fn seal(&mut self, epoch: u64) -> Result<Vec<Bytes>, String> {
        // The rest of a tenure that is over for the others is worth having; what comes later is divergence.
        if matches!(self.stage, Stage::Active(now) if now < epoch) {
            self.capture(false);
        }
        let host = self.host.as_mut().ok_or_else(closed)?;
        let sealed = host.member_mut().seal(epoch).map_err(|error| cluster_telemetry::chain(&error))?;
        let answer = Answer { noted: sealed.epoch, place: sealed.position.into(), chain: begun(&sealed.chain), kind: Kind::Sealed };
        Ok(vec![json(&answer).into()])
    }

    fn tail(&mut self, place: Place, starts: &[Begun], skip: u32) -> Result<Vec<Bytes>, String> {
        let host = self.host.as_ref().ok_or_else(closed)?;
        let chain = chain(starts).ok_or("a history that is none")?;
        let (mut records, mut seen, skip) = (Vec::new(), 0_usize, skip as usize);
        let found = host.member().tail_each(place.into(), &chain, TAIL_BYTES, |record| {
            if seen >= skip && records.len() < WINDOW {
                records.push(Bytes::copy_from_slice(record));
            }
            seen += 1;
        });
        if !found.map_err(|error| cluster_telemetry::chain(&error))? {
            return Ok(vec![json(&self.head(Kind::NeedsSnapshot)).into()]);
        }
        Ok(self.window(records, seen > skip + WINDOW, None))
    }

    fn snapshot(&mut self, of: Option<Place>, skip: u32) -> Result<Vec<Bytes>, String> {
        let now = Instant::now();
        let fresh = |offered: &Offered| offered.made.elapsed() < SHARED;
        let usable = self.offered.as_ref().is_some_and(|offered| of.map_or_else(|| fresh(offered), |of| of == offered.place));
        if !usable {
            if of.is_some() {
                return Err("that snapshot is gone".to_owned());
            }
            self.offered = Some(self.make_snapshot()?);
        }
        let Some(offered) = &mut self.offered else { return Err(closed()) };
        offered.asked = now;
        let skip = skip as usize;
        let records = (skip..offered.spool.len()).take(WINDOW).map(|number| offered.spool.get(number).map(Bytes::from));
        let records: Vec<Bytes> = records.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let more = offered.spool.len() > skip + WINDOW;
        let of = (offered.place, offered.chain.clone());
        Ok(self.window(records, more, Some(of)))
    }

    /// The application goes on meanwhile; nothing is shipped before it is done.
    pub(super) fn make_snapshot(&mut self) -> Result<Offered, String> {
        let host = self.host.as_mut().ok_or_else(closed)?;
        if host.capture().is_none() {
            return Err("this node is not active".to_owned());
        }
        let mut spool = Spool::new(&self.setup.folder).map_err(|error| format!("no room for a snapshot: {error}"))?;
        let began = Instant::now();
        let (place, chain) = host.snapshot(now_ms(), |record| spool.push(&record)).map_err(|error| cluster_telemetry::chain(&error))?;
        info!(app = self.setup.name.app, transaction = place.tx, took = ?began.elapsed(), "snapshot made for another node");
        Ok(Offered { spool, place: place.into(), chain: begun(&chain), made: Instant::now(), asked: Instant::now() })
    }

    fn window(&self, records: Vec<Bytes>, more: bool, of: Option<(Place, Vec<Begun>)>) -> Vec<Bytes> {
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let mut head = self.head(Kind::Records { count, more });
        if let Some((place, chain)) = of {
            (head.place, head.chain) = (place, chain);
        }
        std::iter::once(json(&head).into()).chain(records).collect()
    }

    /// Answers what people ask.
    pub(super) fn control(&mut self, message: &DatabaseMessage) {
        let Some(reply) = message.reply.clone() else { return };
        let answer = match read::<DatabaseAsk>(&message.payload) {
            None => DatabaseAnswer::Refused("this agent does not know that question: it may be older than the controller".to_owned()),
            Some(DatabaseAsk::Status) => DatabaseAnswer::Node(self.node()),
            Some(DatabaseAsk::Sync { timeout_ms }) => match self.sync(timeout_ms, reply.clone()) {
                Ok(()) => return,
                Err(why) => DatabaseAnswer::Refused(why),
            },
            Some(DatabaseAsk::AcceptLoss) => match self.accept_loss() {
                Ok(()) => DatabaseAnswer::Node(self.node()),
                Err(why) => DatabaseAnswer::Refused(why),
            },
            Some(DatabaseAsk::Divergence { name }) => {
                self.divergence(&name).map_or_else(DatabaseAnswer::Refused, DatabaseAnswer::Divergence)
            }
            Some(DatabaseAsk::Begin(job)) => self.begin_job(job).map_or_else(DatabaseAnswer::Refused, DatabaseAnswer::Work),
            Some(DatabaseAsk::Work) => self.job().map_or_else(DatabaseAnswer::Refused, DatabaseAnswer::Work),
            Some(DatabaseAsk::Verify) => self.verify().map_or_else(DatabaseAnswer::Refused, DatabaseAnswer::Verified),
        };
        self.reply(reply, &answer);
    }

    fn reply(&self, to: String, answer: &DatabaseAnswer) {
        let (link, answer) = (self.setup.link.clone(), json(answer));
        self.setup.runtime.spawn(async move { link.answer(to, vec![answer.into()]).await });
    }

    fn node(&self) -> DatabaseNode {
        let role = match self.stage {
            Stage::Closed => "Closed",
            Stage::Standby => "Standby",
            Stage::Promoting(_) | Stage::Refused(_) | Stage::Failed(_) => "Promoting",
            Stage::Ready(_) => "Waiting",
            Stage::Active(_) => "Active",
            Stage::Retiring(_) => "Retiring",
        };
        let host = self.host.as_ref();
        let capture = host.and_then(Host::capture);
        let version = capture.and_then(|capture| capture.writer_version().ok()).filter(|version| *version > 0);
        DatabaseNode {
            node: self.setup.link.node().to_owned(),
            role: role.to_owned(),
            observed: self.observed(),
            log_bytes: host.map_or(0, |host| host.member().log().bytes()),
            captured: capture.map_or(0, |capture| capture.counters().transactions),
            resyncs: capture.map_or(0, |capture| capture.counters().resyncs.values().sum()),
            durable: self.streaming.as_ref().and_then(Streaming::durable).map(|at| at.tx),
            stream: self.streaming.as_ref().map(|streaming| streaming.message.clone()).unwrap_or_default(),
            sqlite: version.map(|v| format!("{}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000)).unwrap_or_default(),
            divergences: host.and_then(|host| divergence::list(host.member().log().storage()).ok()).unwrap_or_default(),
        }
    }

    /// An operator's word: a promotion goes on without those who do not answer, or the file that lies here now counts.
    fn accept_loss(&mut self) -> Result<(), String> {
        if let Some(promoting) = &mut self.promoting {
            warn!(app = self.setup.name.app, "an operator accepts that transactions are lost");
            promoting.override_loss();
            return Ok(());
        }
        let Some(host) = &mut self.host else { return Err(closed()) };
        let replaced = self.trouble.as_ref().is_some_and(|trouble| matches!(trouble.reason, "DatabaseReplaced" | "DatabaseDeleted"));
        if !replaced && !host.is_foreign() {
            return Err("no promotion is held back on this node".to_owned());
        }
        let path = &self.setup.name.path;
        if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            return Err(format!("there is no database at {}: let the application make one first, or switch over", path.display()));
        }
        host.adopt_file().map_err(|error| format!("it cannot be noted that this file counts: {error}"))?;
        warn!(app = self.setup.name.app, "an operator accepts that the file counts as it is now");
        if !matches!(self.stage, Stage::Active(_)) {
            self.host = None;
        }
        self.retry_at = None;
        Ok(())
    }

    fn divergence(&self, name: &str) -> Result<DatabaseDivergence, String> {
        let host = self.host.as_ref().ok_or_else(closed)?;
        let storage = host.member().log().storage();
        let known = divergence::list(storage).map_err(|error| cluster_telemetry::chain(&error))?;
        if !known.iter().any(|known| known == name) {
            return Err(format!("there is no divergence {name:?} on this node"));
        }
        let read = divergence::read(storage, self.db, name, |_| {}).map_err(|error| cluster_telemetry::chain(&error))?;
        let void = read.void.iter().map(|void| VoidTransaction {
            epoch: void.epoch,
            transaction: void.tx,
            time_ms: void.time_ms,
            pages: u32::try_from(void.pages.len()).unwrap_or(u32::MAX),
        });
        Ok(DatabaseDivergence { node: self.setup.link.node().to_owned(), name: read.name, base: read.base.tx, void: void.collect() })
    }

    fn verify(&mut self) -> Result<DatabaseVerified, String> {
        let host = self.host.as_mut().ok_or_else(closed)?;
        let (at, wrong) = host.verify(now_ms()).map_err(|error| cluster_telemetry::chain(&error))?;
        let node = self.setup.link.node().to_owned();
        Ok(DatabaseVerified { node, epoch: at.epoch, transaction: at.tx, checksum: format!("{:016x}", at.checksum), wrong })
    }

    /// All that is committed by now is to be on as many standbys as `confirm` asks for, on one at least.
    fn sync(&mut self, timeout_ms: u64, reply: String) -> Result<(), String> {
        let Wish { confirm, .. } = self.now_wished();
        if !matches!(self.stage, Stage::Active(_)) {
            return Err("this node is not active".to_owned());
        }
        self.capture(false);
        let host = self.host.as_ref().filter(|host| host.capture().is_some());
        let transaction = host.map(|host| host.member().position().tx);
        let trouble = self.trouble.as_ref().map(|trouble| trouble.message.clone()).unwrap_or_default();
        let transaction = transaction.ok_or_else(|| format!("the database is not followed: {trouble}"))?;
        let Some(following) = &mut self.following else { return Err(closed()) };
        if following.waiting.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} calls wait already"));
        }
        let until = Instant::now() + Duration::from_millis(timeout_ms.min(SYNC_MAX_MS));
        let standbys = usize::try_from(confirm.max(1)).unwrap_or(usize::MAX);
        following.waiting.push(Waiting { transaction, standbys, reply, until });
        self.tell_waiting();
        Ok(())
    }

    /// Answers those whose transactions are confirmed.
    pub(super) fn tell_waiting(&mut self) {
        let Some(following) = &mut self.following else { return };
        let confirmations = &following.confirmations;
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut following.waiting).into_iter().partition(|w| confirmations.confirmed(w.standbys) >= w.transaction);
        following.waiting = waiting;
        let answer = |w: Waiting| {
            let has = confirmations.by_node().iter().filter(|(_, tx)| **tx >= w.transaction);
            let standbys = has.map(|(node, _)| node.clone()).collect();
            let node = self.setup.link.node().to_owned();
            (w.reply, DatabaseAnswer::Synced(DatabaseSynced { node, epoch: following.epoch, transaction: w.transaction, standbys }))
        };
        let answers: Vec<_> = done.into_iter().map(answer).collect();
        for (to, answer) in answers {
            self.reply(to, &answer);
        }
    }

    /// Answers those whose time is over.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        let Some(following) = &mut self.following else { return };
        let (over, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut following.waiting).into_iter().partition(|w| w.until <= now);
        following.waiting = waiting;
        let there: Vec<String> =
            following.standbys.iter().filter(|(_, seen)| seen.at.elapsed() < THERE).map(|(node, _)| node.clone()).collect();
        for waiting in over {
            let (wanted, has) = (waiting.standbys, following_has(self.following.as_ref(), waiting.transaction));
            let there = if there.is_empty() { "none is there".to_owned() } else { format!("there are {}", there.join(", ")) };
            let why = format!("transaction {} is on {has} of {wanted} standbys: {there}", waiting.transaction);
            self.reply(waiting.reply, &DatabaseAnswer::Refused(why));
        }
    }
}

fn following_has(following: Option<&super::active::Following>, transaction: u64) -> usize {
    following.map_or(0, |f| f.confirmations.by_node().values().filter(|tx| **tx >= transaction).count())
}

fn closed() -> String {
    "the database is not open on this node".to_owned()
}
