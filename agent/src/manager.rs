//! The manager: the only owner of the node's assignment and of what is reported for the node. It takes assignments, tells each App's
//! worker what is desired, and gathers what the workers see.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_bus::{Beat, Change, ForceOrder};
use cluster_lease::types::Slot;
use cluster_schemas::assignment::{AppAssignment, Order, Role};
use cluster_schemas::name::check_name;
use cluster_schemas::node::{ActiveRecord, AppObserved, InstanceState};
use cluster_schemas::{Assignment, Heartbeat, NodeStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::accept::{Verdict, judge};
use crate::candidacies::{Here, given_up, has_tenures, stopped, tenures_of, wanted};
use crate::clock;
use crate::database::Databases;
use crate::drivers::{Units, Vips};
use crate::fences::Fences;
use crate::journal::{Journal, JournalError};
use crate::lease::LeaseHandle;
use crate::lease::view::{Command, LeaseView, Wanted};
use crate::leftovers;
use crate::place;
use crate::takeovers::TakeOvers;
use crate::worker::health::Standing;
use crate::worker::observe::is_active;
use crate::worker::target::{Desired, Tenures};
use crate::worker::{self, Report, Worker};

/// An assignment that the leader's beat knows, and we do not, for this long means that the watch is dead (rule C4).
const WATCH_DEAD_AFTER: Duration = Duration::from_secs(2);
/// Reports that may wait for the manager; then the workers wait.
const REPORTS_WAITING: usize = 1024;

/// Who the node is, for everything that the manager reports.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the node.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random per agent start.
    pub instance: String,
    /// First address, for `${node.address}`.
    pub address: Option<String>,
    /// See [`Place::data`](place::Place).
    pub data: Option<PathBuf>,
}

/// What the manager publishes; each reader takes the newest.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// The node's status, to be stored.
    pub status: watch::Sender<NodeStatus>,
    /// Who is active here, to be recorded: App to record.
    pub actives: watch::Sender<BTreeMap<String, ActiveRecord>>,
    /// What this node is to do, for the local API.
    pub assignment: watch::Sender<Option<Arc<Assignment>>>,
}

/// What comes in from outside.
#[derive(Debug)]
pub enum Input {
    /// The assignment's watch says something.
    Assignment(Change<Assignment>),
    /// A node's heartbeat.
    Heartbeat(Heartbeat),
    /// The leading controller's beat.
    Beat(Beat),
    /// An operator vouches that voters are dead.
    Force(ForceOrder),
}

#[derive(Debug)]
struct Handle {
    desired: watch::Sender<Desired>,
    task: JoinHandle<()>,
    observed: Option<AppObserved>,
    /// What leases have to know of its health.
    standing: Standing,
    /// Whether it reported at all.
    reported: bool,
    /// Generation of the newest desired state that was not [`Role::Absent`].
    wanted_last: Option<u64>,
    /// Generation as of which it reported that nothing is left.
    nothing_left: Option<u64>,
    tenures: Tenures,
}

impl Handle {
    /// Whether the worker, having reported that nothing is left, touches nothing any more. A report from before the App was wanted
    /// again is overtaken: the worker may have begun by now.
    fn is_done(&self) -> bool {
        self.nothing_left.is_some_and(|as_of| self.wanted_last.is_none_or(|wanted| wanted < as_of))
    }
}

/// What a manager is made of.
#[derive(Debug)]
pub struct Parts<U, V> {
    /// Who the node is.
    pub identity: Identity,
    /// Folder of the Apps' folders.
    pub runtime_dir: PathBuf,
    /// Service manager.
    pub units: Arc<U>,
    /// Addresses.
    pub vips: Arc<V>,
    /// What outlives a boot.
    pub journal: Journal,
    /// Entries in the fence table.
    pub fences: Fences,
    /// Leases.
    pub leases: LeaseHandle,
    /// Databases.
    pub databases: Databases,
}

/// The manager.
#[derive(Debug)]
pub struct Manager<U, V> {
    identity: Identity,
    runtime_dir: PathBuf,
    units: Arc<U>,
    vips: Arc<V>,
    journal: Journal,
    outputs: Outputs,
    assignment: Option<Assignment>,
    workers: BTreeMap<String, Handle>,
    /// Somebody removed this node from the cluster: nothing exclusive is held.
    removed: bool,
    fences: Fences,
    leases: LeaseHandle,
    databases: Databases,
    view: Arc<LeaseView>,
    /// What was asked of the lease host last.
    asked: BTreeMap<Slot, Wanted>,
    /// How the present tenures began.
    takeovers: TakeOvers,
    problems: BTreeMap<&'static str, String>,
    /// Since when the leader's beat knows a newer assignment than ours.
    behind_since: Option<Duration>,
    highest_term: u64,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
}

impl<U: Units, V: Vips> Manager<U, V> {
    /// Makes the manager with what the journal has; [`Manager::begin`] starts the workers.
    #[must_use]
    pub fn new(parts: Parts<U, V>, outputs: Outputs) -> Self {
        let Parts { identity, runtime_dir, units, vips, journal, fences, leases, databases } = parts;
        let view = Arc::clone(&leases.view().borrow());
        Self {
            identity,
            runtime_dir,
            units,
            vips,
            journal,
            outputs,
            assignment: None,
            workers: BTreeMap::new(),
            removed: false,
            fences,
            leases,
            databases,
            view,
            asked: BTreeMap::new(),
            takeovers: TakeOvers::default(),
            problems: BTreeMap::new(),
            behind_since: None,
            highest_term: 0,
            reports: mpsc::channel(REPORTS_WAITING),
        }
    }

    /// Takes up the journal's assignment and what an earlier agent of this boot left; sweeps addresses of ours that nobody wants.
    pub async fn begin(&mut self) {
        match self.journal.assignment() {
            Ok(Some(assignment)) if assignment.node == self.identity.node => {
                info!(term = assignment.order.term, generation = assignment.order.generation, "going on from the journal");
                self.take(assignment);
            }
            Ok(_) => {}
            Err(error) => {
                warn!("the journal is rebuilt from the next assignment: {}", cluster_telemetry::chain(&error));
            }
        }
        for app in leftovers::apps(&self.runtime_dir, &*self.units).await {
            self.worker(&app);
        }
        leftovers::sweep_addresses(self.assignment.as_ref(), &*self.vips).await;
        self.tell_workers();
        self.ask_leases().await;
        self.publish();
    }

    /// The next report of a worker.
    pub async fn next_report(&mut self) -> Option<Report> {
        self.reports.1.recv().await
    }

    /// The highest term seen, for heartbeats.
    #[must_use]
    pub const fn highest_term(&self) -> u64 {
        self.highest_term
    }

    /// Takes what came in. True when the watch of the assignment should list anew.
    pub async fn take_input(&mut self, input: Input) -> bool {
        match input {
            Input::Assignment(Change::Listed(mut all)) => {
                if let Some(entry) = all.remove(&self.key()) {
                    self.offered(entry.value).await;
                }
            }
            Input::Assignment(Change::Put { key, entry }) => {
                if key == self.key() {
                    self.offered(entry.value).await;
                }
            }
            // Nothing is stopped because a record is gone: what the node must stop is said in an assignment.
            Input::Assignment(Change::Deleted { .. }) => warn!("the assignment was deleted from the store, the one held stays"),
            Input::Assignment(Change::Unreadable { why, .. }) => {
                error!("the assignment cannot be read, the one held stays: {why}");
                self.problem("assignment", Some(format!("the newest assignment cannot be read: {why}")));
            }
            Input::Heartbeat(heartbeat) => self.heard(&heartbeat),
            Input::Beat(beat) => {
                if !beat.voters.is_empty() && beat.term >= self.highest_term {
                    self.leases.ask(Command::WantVoters(beat.voters.clone())).await;
                }
                return self.beat(&beat);
            }
            Input::Force(order) => self.leases.ask(Command::ForceVoters(order.next)).await,
        }
        false
    }

    /// This node was removed from the cluster, or not: exclusive things are given up then, pools go on.
    pub async fn set_removed(&mut self, removed: bool) {
        if self.removed != removed {
            self.removed = removed;
            self.ask_leases().await;
            self.publish();
        }
    }

    /// Takes the lease host's newest view.
    pub async fn leased(&mut self, view: Arc<LeaseView>) {
        self.problem("leases", (!view.trouble.is_empty()).then(|| view.trouble.clone()));
        self.problem("voter", (!view.silent.is_empty()).then(|| view.silent.clone()));
        self.view = view;
        self.takeovers.heard(&self.view);
        // The guard knows which address goes with which word before a worker may put it there.
        self.ask_leases().await;
        self.tell_workers();
        self.let_go_of_finished().await;
        self.publish();
    }

    /// Tells the lease host what this node is a candidate for, and what it is to let go.
    async fn ask_leases(&mut self) {
        let node = self.identity.node.clone();
        let mut wants = BTreeMap::new();
        let mut gives = BTreeMap::new();
        if let Some(assignment) = self.assignment.as_ref().filter(|_| !self.removed) {
            for (app, entry) in assignment.apps.iter().filter(|(_, e)| e.role != Role::Absent) {
                let here = self.workers.get(app).map(|w| Here { observed: w.observed.as_ref(), standing: w.standing });
                if let Some(unit) = self.fences.unit(app, entry) {
                    wanted(&node, app, entry, here.unwrap_or_default(), unit, &mut wants);
                }
            }
        }
        if self.assignment.as_ref().is_some_and(|a| a.cordoned) {
            // P7: it goes only if nobody else does.
            wants.values_mut().for_each(|wanted| wanted.ready = false);
        }
        for (app, handle) in &self.workers {
            let entry = self.assignment.as_ref().filter(|_| !self.removed).and_then(|a| a.apps.get(app));
            given_up(&node, app, entry, Here { observed: handle.observed.as_ref(), standing: handle.standing }, &self.view, &mut gives);
        }
        if self.asked != wants {
            self.asked.clone_from(&wants);
            self.leases.ask(Command::Want(wants)).await;
        }
        if !gives.is_empty() {
            self.leases.ask(Command::GiveUp(gives)).await;
        }
    }

    /// Takes a worker's report.
    pub async fn reported(&mut self, report: Report) {
        let Report { app, observed, generation, tenures, standing, cgroup } = report;
        let entry = self.assignment.as_ref().and_then(|a| a.apps.get(&app));
        self.fences.set_cgroup(&app, &cgroup);
        if let Some(handle) = self.workers.get_mut(&app) {
            handle.reported = true;
            handle.standing = standing;
            // What was seen under older tenures says nothing of the present ones: the worker may have started something since.
            if tenures == handle.tenures.version {
                let gone = stopped(&app, entry, observed.as_ref(), &self.view);
                if !gone.is_empty() {
                    self.leases.ask(Command::Stopped(gone)).await;
                }
            }
            handle.nothing_left = observed.is_none().then_some(generation);
            if let Some(seen) = observed {
                if tenures == handle.tenures.version {
                    self.takeovers.look(&self.identity.node, &app, &seen, &self.view);
                }
                handle.observed = Some(seen);
            }
        }
        self.let_go_of_finished().await;
        self.ask_leases().await;
        self.publish();
    }

    /// Ends the workers that said that nothing is left, and the last of their tenures.
    async fn let_go_of_finished(&mut self) {
        let mut gone = Vec::new();
        let mut finished = Vec::new();
        for app in self.workers.iter().filter(|(_, h)| h.is_done()).map(|(app, _)| app) {
            let entry = self.assignment.as_ref().and_then(|a| a.apps.get(app));
            gone.extend(stopped(app, entry, None, &self.view));
            if !has_tenures(app, entry, &self.view) {
                finished.push(app.clone());
            }
        }
        if !gone.is_empty() {
            self.leases.ask(Command::Stopped(gone)).await;
        }
        for app in finished {
            if let Some(handle) = self.workers.remove(&app) {
                handle.task.abort();
            }
            self.fences.remove(&app);
        }
    }

    fn key(&self) -> String {
        format!("node.{}", self.identity.node)
    }

    fn heard(&mut self, heartbeat: &Heartbeat) {
        if heartbeat.node == self.identity.node {
            let other = heartbeat.instance != self.identity.instance && heartbeat.boot_id != self.identity.boot_id;
            let text = other.then(|| format!("another machine calls itself {} too", self.identity.node));
            if let Some(text) = &text {
                error!("{text}: give it another name in its agent.yaml");
            }
            if other {
                self.problem("name", text);
            }
        }
    }

    fn beat(&mut self, beat: &Beat) -> bool {
        let held = self.assignment.as_ref().map(|a| &a.order);
        if held.is_none_or(|h| h.incarnation == beat.incarnation) {
            self.highest_term = self.highest_term.max(beat.term);
        }
        let known = beat.assignments.get(&self.identity.node);
        let behind = known.is_some_and(|known| held.is_none_or(|h| h.incarnation == beat.incarnation && (h.term, h.generation) < *known));
        if !behind {
            self.behind_since = None;
            return false;
        }
        let now = clock::since_boot();
        let since = *self.behind_since.get_or_insert(now);
        if now.saturating_sub(since) < WATCH_DEAD_AFTER {
            return false;
        }
        warn!("the leader knows a newer assignment than we do, listing anew");
        self.behind_since = None;
        true
    }

    async fn offered(&mut self, assignment: Assignment) {
        let order = assignment.order.clone();
        let problem = match judge(&self.identity.node, self.assignment.as_ref(), &assignment) {
            Verdict::Same => None,
            Verdict::Take => {
                // Durable before anything is done by it; a full disk must not keep the node from what the cluster decided, though.
                self.write_down(&assignment).await;
                info!(term = order.term, generation = order.generation, "assignment taken");
                self.take(assignment);
                self.ask_leases().await;
                None
            }
            Verdict::Older => {
                warn!(term = order.term, generation = order.generation, "an older assignment came, it is refused");
                None
            }
            Verdict::Contradiction => {
                error!(term = order.term, generation = order.generation, "another assignment of the same generation came, it is refused");
                Some("two different assignments have the same generation".to_owned())
            }
            Verdict::OtherIncarnation => {
                error!(incarnation = order.incarnation, "an assignment of another store came, it is refused");
                Some(format!(
                    "the store was made anew (incarnation {}); the assignment of the old one is kept until an operator says otherwise",
                    order.incarnation
                ))
            }
            Verdict::OtherNode => Some(format!("an assignment for node {:?} came under this node's key", assignment.node)),
        };
        self.problem("assignment", problem);
        self.publish();
    }

    async fn write_down(&mut self, assignment: &Assignment) {
        match self.journal.store(assignment).await {
            Ok(()) => self.problem("journal", None),
            Err(error) => self.not_durable(&error),
        }
    }

    /// The journal's disk does not take it: said until it does, see [`Manager::tend`].
    pub fn not_durable(&mut self, error: &JournalError) {
        let text = format!("{}; what this node is to do would not outlive a restart", cluster_telemetry::chain(error));
        if self.problems.get("journal") != Some(&text) {
            warn!("{text}");
            self.problem("journal", Some(text));
        }
    }

    /// Tries again what the disk refused.
    pub async fn tend(&mut self) {
        if self.problems.contains_key("journal") {
            if let Some(assignment) = self.assignment.clone() {
                self.write_down(&assignment).await;
            } else if self.journal.back_to_disk().is_ok() {
                self.problem("journal", None);
            }
            self.publish();
        }
    }

    fn take(&mut self, assignment: Assignment) {
        self.highest_term = self.highest_term.max(assignment.order.term);
        let apps: Vec<String> = assignment.apps.keys().cloned().collect();
        self.outputs.assignment.send_replace(Some(Arc::new(assignment.clone())));
        self.assignment = Some(assignment);
        for app in apps {
            // The controller checked the name; it becomes a path here, so it is checked again.
            match check_name(&app) {
                Ok(()) => self.worker(&app),
                Err(why) => error!(app, "the assignment has an App whose name is refused: {why}"),
            }
        }
        self.tell_workers();
    }

    fn desired(&self, app: &str) -> Desired {
        let assignment = self.assignment.as_ref();
        let mut entry = assignment.and_then(|a| a.apps.get(app)).cloned();
        if let (Some(data), Some(entry)) = (&self.identity.data, &mut entry) {
            place::adapt(data, Arc::make_mut(&mut entry.run));
        }
        Desired {
            entry: entry.unwrap_or_else(|| AppAssignment { role: Role::Absent, ..AppAssignment::default() }),
            generation: assignment.map_or(0, |a| a.order.generation),
            tenures: self.workers.get(app).map(|w| w.tenures.clone()).unwrap_or_default(),
            node_address: self.identity.address.clone(),
        }
    }

    /// Makes sure that the App has a worker.
    fn worker(&mut self, app: &str) {
        if self.workers.contains_key(app) {
            return;
        }
        // From its first look on it knows what is held here: else it would stop what an earlier agent left running.
        let entry = self.assignment.as_ref().and_then(|a| a.apps.get(app));
        let tenures = Tenures { version: 1, ..tenures_of(app, entry, &self.view) };
        let desired = Desired { tenures: tenures.clone(), ..self.desired(app) };
        let wanted_last = (desired.entry.role != Role::Absent).then_some(desired.generation);
        let (desired, receiver) = watch::channel(desired);
        let parts = worker::Parts {
            app: app.to_owned(),
            node: self.identity.node.clone(),
            folder: self.runtime_dir.join(app),
            units: Arc::clone(&self.units),
            vips: Arc::clone(&self.vips),
            armed: self.fences.armed(),
            databases: self.databases.clone(),
            reports: self.reports.0.clone(),
        };
        let task = tokio::spawn(Worker::new(parts, receiver).run());
        let handle = Handle {
            desired,
            task,
            observed: None,
            standing: Standing::default(),
            reported: false,
            wanted_last,
            nothing_left: None,
            tenures,
        };
        self.workers.insert(app.to_owned(), handle);
    }

    fn tell_workers(&mut self) {
        for (app, handle) in &mut self.workers {
            let entry = self.assignment.as_ref().and_then(|a| a.apps.get(app));
            let version = handle.tenures.version;
            let now = Tenures { version, ..tenures_of(app, entry, &self.view) };
            if now != handle.tenures {
                handle.tenures = Tenures { version: version + 1, ..now };
            }
        }
        let newest: BTreeMap<String, Desired> = self.workers.keys().map(|app| (app.clone(), self.desired(app))).collect();
        for (app, desired) in newest {
            let Some(handle) = self.workers.get_mut(&app) else { continue };
            if desired.entry.role != Role::Absent {
                handle.wanted_last = Some(desired.generation);
            }
            handle.desired.send_if_modified(|now| {
                let changed = *now != desired;
                if changed {
                    *now = desired;
                }
                changed
            });
        }
    }

    fn problem(&mut self, kind: &'static str, text: Option<String>) {
        match text {
            Some(text) => self.problems.insert(kind, text),
            None => self.problems.remove(kind),
        };
    }

    fn publish(&self) {
        let order = self.assignment.as_ref().map(|a| a.order.clone());
        let observed = |(app, handle): (&String, &Handle)| handle.observed.clone().map(|o| (app.clone(), o));
        let status = NodeStatus {
            node: self.identity.node.clone(),
            boot_id: self.identity.boot_id.clone(),
            instance: self.identity.instance.clone(),
            // An App without a first report is not known to have nothing here, so the status does not yet speak for this assignment.
            assignment: order.filter(|_| self.all_reported()).or_else(|| self.outputs.status.borrow().assignment.clone()),
            quorum: !self.removed && self.view.trouble.is_empty(),
            apps: self.workers.iter().filter_map(observed).collect(),
            problems: self.problems.values().cloned().collect(),
            voter_id: self.view.voter.clone(),
            voters: self.view.voters.clone(),
        };
        let actives: BTreeMap<String, ActiveRecord> = status
            .apps
            .iter()
            // Told once, when it serves or cannot: a take-over that is under way is not worth a write for each of its steps.
            .filter(|(_, o)| is_active(o) || o.leased > 0 && o.state == InstanceState::Failed)
            .map(|(app, o)| (app.clone(), self.active_record(app, o)))
            .collect();
        self.outputs.status.send_if_modified(|now| {
            let changed = *now != status;
            if changed {
                *now = status;
            }
            changed
        });
        self.outputs.actives.send_if_modified(|now| {
            let changed = *now != actives;
            if changed {
                *now = actives;
            }
            changed
        });
    }

    fn active_record(&self, app: &str, seen: &AppObserved) -> ActiveRecord {
        let takeover = self.takeovers.of(app, seen.epoch);
        ActiveRecord { uid: seen.uid.clone(), node: self.identity.node.clone(), epoch: seen.epoch, takeover, history: Vec::new() }
    }

    /// Whether every worker that has something to do reported at least once.
    fn all_reported(&self) -> bool {
        self.workers.iter().all(|(app, handle)| {
            let wanted = self.assignment.as_ref().is_some_and(|a| a.apps.contains_key(app));
            !wanted || handle.reported
        })
    }

    /// The order of the assignment held.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        self.assignment.as_ref().map(|a| a.order.clone())
    }
}
