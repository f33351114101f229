//! Long work on a database beside its thread: a snapshot into the object store, a database made anew from what is durable, and the check of
//! that. One at a time; how far it is can be asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use cluster_bus::{DatabaseLink, StoredSnapshot};
use cluster_replica::lineage::Position;
use cluster_replica::restore::{Restore, Restored};
use cluster_replica::stream::{Lineage, Survey};
use cluster_replica::transaction::{DbId, decode_all};
use cluster_schemas::database::{DatabaseJob, DatabaseWork, WorkState};
use tokio::io::{AsyncRead, ReadBuf};
use tracing::{info, warn};

use super::spool::Spool;
use super::task::Task;
use super::wall::now_ms;

/// Snapshots that may be kept.
const KEEP_MAX: u32 = 1000;
/// Name of the folder for what is needed meanwhile, beside the log.
const SCRATCH: &str = "work";

/// Work under way or done.
pub(super) struct Job {
    seen: Seen,
    /// What a check found, until it is compared with this node's log.
    compare: bool,
}

/// How far it is, for those who ask.
#[derive(Debug, Clone)]
struct Seen(Arc<Mutex<DatabaseWork>>);

impl Seen {
    fn change(&self, change: impl FnOnce(&mut DatabaseWork)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> DatabaseWork {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, bytes: u64) {
        self.change(|work| work.done_bytes += bytes);
    }

    fn end(&self, outcome: Result<Outcome, String>) {
        self.change(|work| match outcome {
            Ok(Outcome { at, message, remarks }) => {
                (work.state, work.message, work.remarks) = (WorkState::Done, message, remarks);
                (work.epoch, work.transaction, work.checksum) = (at.epoch, at.tx, format!("{:016x}", at.checksum));
            }
            Err(why) => (work.state, work.message) = (WorkState::Failed, why),
        });
    }
}

struct Outcome {
    at: Position,
    message: String,
    remarks: Vec<String>,
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    seen: Seen,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.seen.add((buffer.filled().len() - before) as u64);
        polled
    }
}

impl Task {
    /// Begins a job.
    pub(super) fn begin_job(&mut self, job: DatabaseJob) -> Result<DatabaseWork, String> {
        let running = |job: &Job| job.seen.read().state == WorkState::Running;
        if let Some(job) = self.job.as_ref().filter(|job| running(job)) {
            return Err(format!("{} is under way", job.seen.read().what));
        }
        let (what, compare) = match &job {
            DatabaseJob::Snapshot { .. } => ("a snapshot", false),
            DatabaseJob::Restore { .. } => ("a restore", false),
            DatabaseJob::Verify => ("a check", true),
        };
        let node = self.setup.link.node().to_owned();
        let work = DatabaseWork { id: now_ms(), node, what: what.to_owned(), ..DatabaseWork::default() };
        let seen = Seen(Arc::new(Mutex::new(work)));
        match job {
            DatabaseJob::Snapshot { keep } => self.begin_upload(keep.clamp(1, KEEP_MAX), seen.clone())?,
            DatabaseJob::Restore { to } => {
                let target = PathBuf::from(&to);
                if !target.is_absolute() || target == self.setup.name.path {
                    return Err(format!("{to} is no path that a database can be restored to: it has to be absolute, and another one"));
                }
                self.begin_restore(Some(target), seen.clone());
            }
            DatabaseJob::Verify => self.begin_restore(None, seen.clone()),
        }
        info!(app = self.setup.name.app, "{what} is begun");
        let work = seen.read();
        self.job = Some(Job { seen, compare });
        Ok(work)
    }

    /// How far it is.
    pub(super) fn job(&mut self) -> Result<DatabaseWork, String> {
        let job = self.job.as_mut().ok_or("nothing was begun here")?;
        let work = job.seen.read();
        if work.state == WorkState::Done && std::mem::take(&mut job.compare) {
            let found = u64::from_str_radix(&work.checksum, 16).unwrap_or_default();
            let at = Position { epoch: work.epoch, tx: work.transaction, checksum: found };
            // A replica that began with a snapshot has nothing of what came before in its log.
            let member = self.host.as_ref().map(|host| host.member());
            let own = member.map(|member| member.position());
            let log = member.into_iter().flat_map(|member| member.log().entries().rev().map(|entry| entry.position));
            let entry = own.into_iter().chain(log).find(|here| (here.epoch, here.tx) == (at.epoch, at.tx));
            job.seen.change(|work| match entry {
                Some(here) if here == at => work.message.push_str(", as this node has it"),
                Some(here) => work.remarks.push(format!("its checksum is {found:016x}, this node has {:016x}", here.checksum)),
                None => work.message.push_str(", which this node does not remember"),
            });
        }
        Ok(job.seen.read())
    }

    fn begin_upload(&mut self, keep: u32, seen: Seen) -> Result<(), String> {
        let (spool, at) = self.make_snapshot()?.into_parts();
        let file = spool.file().map_err(|error| error.to_string())?;
        seen.change(|work| work.total_bytes = spool.bytes());
        let (link, app, db) = (self.setup.link.clone(), self.setup.name.app.clone(), self.db);
        self.setup.runtime.spawn(async move {
            let mut from = Counted { inner: tokio::fs::File::from_std(file), seen: seen.clone() };
            let outcome = upload(&link, &app, db, at, &mut from, keep).await;
            if let Err(why) = &outcome {
                warn!(app, "the snapshot is not kept: {why}");
            }
            seen.end(outcome);
        });
        Ok(())
    }

    /// `to`: none, to a file that goes again.
    fn begin_restore(&self, to: Option<PathBuf>, seen: Seen) {
        let scratch = self.setup.folder.join(SCRATCH);
        let (link, app, db) = (self.setup.link.clone(), self.setup.name.app.clone(), self.db);
        let handle = self.setup.runtime.clone();
        self.setup.runtime.spawn_blocking(move || {
            // What an agent that was killed left.
            let _gone = std::fs::remove_dir_all(&scratch);
            let target = to.clone().unwrap_or_else(|| scratch.join("restored.db"));
            let source = Source { link, app, db, scratch: scratch.clone(), seen: seen.clone(), handle };
            let made = std::fs::create_dir_all(&scratch).map_err(|error| error.to_string()).and_then(|()| source.restore(&target));
            let _gone = std::fs::remove_dir_all(&scratch);
            seen.end(made.map(|(restored, from)| {
                let at = restored.position;
                let whither = to.map_or_else(|| "restored elsewhere".to_owned(), |to| format!("restored to {}", to.display()));
                let message = format!("{whither} from {from}: transaction {} of epoch {}, checksum {:016x}", at.tx, at.epoch, at.checksum);
                Outcome { at, message, remarks: restored.remarks() }
            }));
        });
    }
}

fn object(at: Position) -> String {
    // Sorted by name they are sorted by age.
    format!("e{:020}-t{:020}", at.epoch, at.tx)
}

async fn upload(
    link: &DatabaseLink,
    app: &str,
    db: DbId,
    at: Position,
    from: &mut (impl AsyncRead + Unpin),
    keep: u32,
) -> Result<Outcome, String> {
    let store = link.snapshots(app);
    let said = [
        ("db", db.to_string()),
        ("epoch", at.epoch.to_string()),
        ("transaction", at.tx.to_string()),
        ("checksum", format!("{:016x}", at.checksum)),
        ("timeMs", now_ms().to_string()),
    ];
    let metadata: BTreeMap<String, String> = said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let name = object(at);
    store.put(&name, metadata, from).await.map_err(|error| error.to_string())?;
    let all = store.list().await.map_err(|error| error.to_string())?;
    let surplus = all.len().saturating_sub(keep as usize);
    let mut remarks = Vec::new();
    for old in all.iter().take(surplus).filter(|old| old.name != name) {
        if let Err(error) = store.remove(&old.name).await {
            remarks.push(format!("snapshot {} is still there: {error}", old.name));
        }
    }
    let message = format!("snapshot {name} is kept, {} are there", all.len() - surplus);
    Ok(Outcome { at, message, remarks })
}

/// Where a database is made anew from.
struct Source {
    link: DatabaseLink,
    app: String,
    db: DbId,
    scratch: PathBuf,
    seen: Seen,
    handle: tokio::runtime::Handle,
}

impl Source {
    /// With the words that say from what it was made.
    fn restore(&self, target: &Path) -> Result<(Restored, String), String> {
        let (mut spool, lineage) = self.download()?;
        let mut snapshots = self.snapshots(&lineage)?;
        let mut remarks = Vec::new();
        loop {
            let mut restore = Restore::begin(target, &self.scratch, self.db, lineage.clone()).map_err(|e| cluster_telemetry::chain(&e))?;
            let snapshot = snapshots.pop();
            if let Some(snapshot) = &snapshot
                && let Err(why) = self.place(&mut restore, snapshot)
            {
                remarks.push(format!("snapshot {} cannot be used: {why}", snapshot.name));
                restore.discard();
                continue;
            }
            let fed = self.feed(&mut restore, &mut spool);
            let made = fed.and_then(|()| restore.finish().map_err(|error| cluster_telemetry::chain(&error)));
            let mut restored = made?;
            restored.wrong.append(&mut remarks);
            let from = snapshot.map_or_else(|| "the stream".to_owned(), |snapshot| format!("snapshot {} and the stream", snapshot.name));
            return Ok((restored, from));
        }
    }

    /// The stream, in a file without a name, and what of it counts.
    fn download(&self) -> Result<(Spool, Lineage), String> {
        let stream = self.link.stream(&self.app);
        let mut spool = Spool::new(&self.scratch).map_err(|error| format!("no room for the stream: {error}"))?;
        let mut survey = Survey::default();
        let state = self.handle.block_on(stream.state()).map_err(|error| error.to_string())?;
        if let Some(state) = state.filter(|state| state.messages > 0) {
            self.seen.change(|work| work.total_bytes += 2 * state.bytes);
            let mut failed = None;
            let read = stream.read_all(state.first, state.last, |_, message| {
                for (_, record) in decode_all(&message).map_while(Result::ok).filter(|(_, record)| record.db() == self.db) {
                    survey.take(&record);
                }
                failed = spool.push(&message).err();
                self.seen.add(message.len() as u64);
                failed.is_none()
            });
            self.handle.block_on(read).map_err(|error| error.to_string())?;
            if let Some(error) = failed {
                return Err(format!("no room for the stream: {error}"));
            }
        }
        let lineage = survey.lineage().ok_or("the starts in the stream make no history")?;
        Ok((spool, lineage))
    }

    /// Those that can be used, the newest last.
    fn snapshots(&self, lineage: &Lineage) -> Result<Vec<StoredSnapshot>, String> {
        let all = self.handle.block_on(self.link.snapshots(&self.app).list()).map_err(|error| error.to_string())?;
        let number = |snapshot: &StoredSnapshot, key: &str| snapshot.metadata.get(key).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        let nothing = lineage.last() == 0;
        let usable = |snapshot: &StoredSnapshot| {
            let ours = snapshot.metadata.get("db") == Some(&self.db.to_string());
            ours && (nothing || lineage.holds(number(snapshot, "epoch"), number(snapshot, "transaction")))
        };
        Ok(all.into_iter().filter(usable).collect())
    }

    fn place(&self, restore: &mut Restore, snapshot: &StoredSnapshot) -> Result<(), String> {
        let path = self.scratch.join("object");
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(|error| error.to_string())?;
        let mut to = tokio::fs::File::from_std(file.try_clone().map_err(|error| error.to_string())?);
        self.handle.block_on(self.link.snapshots(&self.app).get(&snapshot.name, &mut to)).map_err(|error| error.to_string())?;
        file.rewind().map_err(|error| error.to_string())?;
        restore.place_snapshot(BufReader::new(file)).map_err(|error| cluster_telemetry::chain(&error))?;
        std::fs::remove_file(&path).map_err(|error| error.to_string())
    }

    fn feed(&self, restore: &mut Restore, spool: &mut Spool) -> Result<(), String> {
        for message in spool.records().map_err(|error| error.to_string())? {
            restore.take(&message).map_err(|error| cluster_telemetry::chain(&error))?;
            self.seen.add(message.len() as u64);
        }
        Ok(())
    }
}
