//! The worker's life with drivers that have nothing to do: what it leaves in its folder, and when.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_schemas::app::{ExecSpec, Mode, UnitSpec, VipSpec};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, RingAssignment, Role, RunSpec, VipAssignment};
use cluster_schemas::hooks::{HookSpec, HooksSpec};
use cluster_schemas::node::{InstanceState, RingObserved};
use tokio::sync::{broadcast, mpsc, watch};

use super::target::{Desired, Tenures};
use super::{Parts, Report, Worker};
use crate::database::Databases;
use crate::drivers::{Command, Conflict, Held, HeldVip, Installed, InstalledUnit, Mac, UnitError, UnitState, Units, Verb, VipError, Vips};
use crate::fences::Armed;
use crate::lease::view::{TenureState, TenureView};

/// A node on which nothing runs and nothing can be started.
#[derive(Debug)]
struct Idle {
    changes: watch::Sender<u64>,
    /// Whether addresses cannot be read.
    blind: Arc<AtomicBool>,
    held: AtomicBool,
    conflicts: broadcast::Sender<Conflict>,
    /// Texts that were loaded.
    installed: Mutex<Vec<String>>,
    /// Whether units are started at boot.
    enabled: bool,
    /// Commands that were run: unit, partition and epoch.
    ran: Mutex<Vec<(String, String, String)>>,
    /// Commands that fail, by the end of their unit's name.
    bad: Mutex<Vec<&'static str>>,
}

impl Idle {
    fn new(blind: &Arc<AtomicBool>) -> Self {
        Self {
            changes: watch::Sender::new(0),
            blind: Arc::clone(blind),
            held: AtomicBool::new(false),
            conflicts: broadcast::Sender::new(8),
            installed: Mutex::default(),
            enabled: false,
            ran: Mutex::default(),
            bad: Mutex::default(),
        }
    }
}

impl Units for Idle {
    async fn install(&self, _: &str, content: &str) -> Result<Installed, UnitError> {
        self.installed.lock().unwrap().push(content.to_owned());
        Ok(Installed::New)
    }
    async fn verify(&self, unit: &str, content: &str) -> Result<(), UnitError> {
        let bad = content.contains("mistake");
        if bad { Err(UnitError::BadSetting { unit: unit.to_owned(), message: "a mistake".to_owned() }) } else { Ok(()) }
    }
    async fn uninstall(&self, _: &str) -> Result<(), UnitError> {
        Ok(())
    }
    async fn ours(&self) -> Result<Vec<InstalledUnit>, UnitError> {
        Ok(Vec::new())
    }
    async fn observe(&self, unit: &str) -> Result<UnitState, UnitError> {
        let unit_file_state = if self.enabled { "enabled" } else { "" }.to_owned();
        Ok(UnitState { unit: unit.to_owned(), unit_file_state, ..UnitState::default() })
    }
    async fn start(&self, unit: &str, _: Duration) -> Result<(), UnitError> {
        Err(UnitError::NotFound { unit: unit.to_owned() })
    }
    async fn stop(&self, _: &str, _: Duration) -> Result<(), UnitError> {
        Ok(())
    }
    async fn kill(&self, _: &str) -> Result<(), UnitError> {
        Ok(())
    }
    async fn restart(&self, unit: &str, _: Duration) -> Result<(), UnitError> {
        Err(UnitError::NotFound { unit: unit.to_owned() })
    }
    async fn reload(&self, unit: &str, _: Duration) -> Result<(), UnitError> {
        Err(UnitError::NotFound { unit: unit.to_owned() })
    }
    async fn run(&self, command: &Command) -> Result<(), UnitError> {
        let of = |name: &str| command.environment[name].clone();
        self.ran.lock().unwrap().push((of("CLUSTERCTL_HOOK"), of("CLUSTERCTL_PARTITION"), of("CLUSTERCTL_EPOCH")));
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.bad.lock().unwrap().iter().any(|bad| command.unit.ends_with(bad)) {
            let (unit, result) = (command.unit.clone(), "exit-code".to_owned());
            return Err(UnitError::JobFailed { unit, verb: Verb::Run, job: "failed".to_owned(), result });
        }
        Ok(())
    }
    fn changes(&self, _: &str) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    async fn log_tail(&self, _: &str, _: u32) -> Vec<String> {
        Vec::new()
    }
}

impl Vips for Idle {
    async fn hold(&self, _: &VipSpec, _: Duration) -> Result<Held, VipError> {
        self.held.store(true, Ordering::Relaxed);
        Ok(Held::Fresh)
    }
    async fn release(&self, _: &VipSpec) -> Result<(), VipError> {
        self.held.store(false, Ordering::Relaxed);
        Ok(())
    }
    async fn announce(&self, _: &VipSpec) -> Result<(), VipError> {
        Ok(())
    }
    async fn ours(&self) -> Result<Vec<HeldVip>, VipError> {
        Ok(Vec::new())
    }
    async fn present(&self, _: &VipSpec) -> Result<bool, VipError> {
        let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
        let blind = self.blind.load(Ordering::Relaxed);
        if blind { Err(VipError::Kernel { action: "read addresses".to_owned(), source }) } else { Ok(self.held.load(Ordering::Relaxed)) }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    fn conflicts(&self) -> broadcast::Receiver<Conflict> {
        self.conflicts.subscribe()
    }
}

fn desired(role: Role, generation: u64) -> Desired {
    let exec = ExecSpec {
        command: vec!["/bin/true".to_owned()],
        environment: Default::default(),
        user: None,
        group: None,
        working_directory: None,
        limits: Default::default(),
    };
    let run = RunSpec { exec: Some(exec), ..RunSpec::default() };
    let mode = if role == Role::Member { Mode::Spread } else { Mode::Singleton };
    let entry = AppAssignment { uid: "u".to_owned(), generation: 1, mode, role, run: run.into(), ..AppAssignment::default() };
    Desired { entry, generation, tenures: Tenures::default(), node_address: None }
}

fn start(folder: &Path, first: Desired) -> (watch::Sender<Desired>, mpsc::Receiver<Report>) {
    start_on(folder, first, &Arc::default())
}

fn start_on(folder: &Path, first: Desired, blind: &Arc<AtomicBool>) -> (watch::Sender<Desired>, mpsc::Receiver<Report>) {
    start_with(folder, first, &Arc::new(Idle::new(blind)))
}

fn start_with(folder: &Path, first: Desired, idle: &Arc<Idle>) -> (watch::Sender<Desired>, mpsc::Receiver<Report>) {
    let (told, receiver) = watch::channel(first);
    let (reports, heard) = mpsc::channel(64);
    let (units, vips) = (Arc::clone(idle), Arc::clone(idle));
    let (armed, databases) = (Armed::always(), Databases::none());
    let parts = Parts { app: "a".to_owned(), node: "n1".to_owned(), folder: folder.join("a"), units, vips, armed, databases, reports };
    tokio::spawn(Worker::new(parts, receiver).run());
    (told, heard)
}

async fn until_nothing_is_left(heard: &mut mpsc::Receiver<Report>) -> u64 {
    loop {
        let report = heard.recv().await.expect("a report");
        if report.observed.is_none() {
            return report.generation;
        }
    }
}

/// The manager ends a worker that reported that nothing is left, at whatever moment it reads that: nothing may be there then, though
/// newer assignments, in which the App is to be absent still, came in between.
#[tokio::test(start_paused = true)]
async fn after_nothing_is_left_nothing_is_written_until_the_app_is_wanted_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (told, mut heard) = start(folder.path(), desired(Role::Member, 1));
    while !folder.path().join("a/role.json").exists() {
        heard.recv().await.expect("a report");
    }
    told.send_replace(desired(Role::Absent, 2));
    assert_eq!(until_nothing_is_left(&mut heard).await, 2);
    for generation in 3..6 {
        told.send_replace(desired(Role::Absent, generation));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!folder.path().join("a").exists(), "something was written for generation {generation}");
        assert!(heard.try_recv().is_err(), "there is nothing to report");
    }
    told.send_replace(desired(Role::Member, 6));
    let report = heard.recv().await.expect("a report");
    assert_eq!((report.generation, report.observed.map(|o| o.role)), (6, Some(Role::Member)));
}

/// An entry that says Absent from the first leaves no trace either.
#[tokio::test(start_paused = true)]
async fn a_worker_for_what_is_absent_leaves_no_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_told, mut heard) = start(folder.path(), desired(Role::Absent, 1));
    let first = heard.recv().await.expect("a report").observed.expect("a look");
    assert_eq!(first.state, InstanceState::Stopped);
    assert!(!folder.path().join("a").exists(), "a folder was made to forget");
    assert_eq!(until_nothing_is_left(&mut heard).await, 1);
}

/// A Singleton's instance with a VIP.
fn with_vip(role: Role, generation: u64) -> Desired {
    let mut desired = desired(role, generation);
    desired.entry.epoch = generation;
    desired.tenures.app = (role == Role::Active).then_some(TenureView { epoch: generation, state: TenureState::Held });
    let vip = VipAssignment { address: "10.0.0.1/24".to_owned(), interface: "eth0".to_owned(), ..VipAssignment::default() };
    desired.entry.vip = Some(VipAssignment { hold: role == Role::Active, epoch: generation, ..vip });
    desired
}

/// The message of the next report that has another one than `before`.
async fn next_message(heard: &mut mpsc::Receiver<Report>, before: &str) -> String {
    loop {
        let message = heard.recv().await.expect("a report").observed.expect("a look").message;
        if message != before {
            return message;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_systemd_refuses_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let idle = Arc::new(Idle::new(&Arc::default()));
    let with_text = |text: &str, generation| {
        let mut desired = desired(Role::Member, generation);
        let unit = UnitSpec { name: "x".to_owned(), content: Some(text.to_owned()) };
        desired.entry.run = RunSpec { unit: Some(unit), ..RunSpec::default() }.into();
        desired
    };
    let (told, mut heard) = start_with(folder.path(), with_text("a mistake", 1), &idle);
    let message = next_message(&mut heard, "").await;
    assert_eq!(message, "cannot write unit x.service: unit x.service cannot be loaded: a mistake");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(idle.installed.lock().unwrap().is_empty());
    told.send_replace(with_text("good", 2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(idle.installed.lock().unwrap().iter().all(|text| text.contains("good")));
    assert!(!idle.installed.lock().unwrap().is_empty());
    // The texts that the agent makes need no such look.
    told.send_replace(desired(Role::Member, 3));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(idle.installed.lock().unwrap().iter().any(|text| text.contains("/bin/true")));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_should_know_is_told_while_nothing_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let idle = Arc::new(Idle { enabled: true, ..Idle::new(&Arc::default()) });
    let (_told, mut heard) = start_with(folder.path(), with_vip(Role::Standby, 1), &idle);
    let enabled = next_message(&mut heard, "").await;
    assert!(enabled.contains("systemctl disable clusterctl-a.service"), "{enabled}");
    let conflict = Conflict { address: "10.0.0.1".parse().unwrap(), interface: "eth0".to_owned(), mac: Mac([2, 0, 0, 0, 0, 9]) };
    idle.conflicts.send(conflict).unwrap();
    let both = next_message(&mut heard, &enabled).await;
    assert!(both.contains("02:00:00:00:00:09") && both.ends_with(&enabled), "{both}");
}

/// A standby that could not look at its addresses for a moment, and then becomes active: it has not failed before it was tried. (Otherwise
/// the leader passes the tenure on to the next such node at once, and so round and round.)
#[tokio::test(start_paused = true)]
async fn trouble_of_a_standby_is_no_failure_of_a_tenure_that_begins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let blind = Arc::new(AtomicBool::new(true));
    let (told, mut heard) = start_on(folder.path(), with_vip(Role::Standby, 1), &blind);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(heard.try_recv().is_err(), "what was not seen is not reported");
    blind.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let standby = heard.recv().await.expect("a report").observed.expect("a look");
    assert_eq!((standby.state, standby.message.as_str()), (InstanceState::Stopped, ""), "it sees again, and says so");

    // The trouble is there when the tenure begins.
    blind.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.send_replace(with_vip(Role::Active, 2));
    blind.store(false, Ordering::Relaxed);
    let first = loop {
        let report = heard.recv().await.expect("a report");
        if report.generation == 2 {
            break report.observed.expect("a look");
        }
    };
    assert_eq!((first.state, first.message.as_str()), (InstanceState::Starting, ""));
}

/// A Ring's member with hooks that holds and lets go of these partitions, with epoch 3.
fn with_hooks(generation: u64, held: &str, releasing: &str) -> Desired {
    let mut desired = desired(Role::Member, generation);
    let hook = || Some(HookSpec { command: vec!["/bin/true".to_owned()], environment: Default::default(), timeout: "1s".to_owned() });
    let hooks = Some(HooksSpec { on_own: hook(), on_release: hook() });
    desired.entry.run = Arc::new(RunSpec { hooks, ..(*desired.entry.run).clone() });
    desired.entry.mode = Mode::Ring;
    desired.entry.ring = Some(RingAssignment { partitions: 16, ..RingAssignment::default() });
    let group = |set: &str| vec![OwnedPartitions { epoch: 3, partitions: set.parse().unwrap() }];
    desired.tenures = Tenures { version: generation, ring: group(held), releasing: group(releasing), ..Tenures::default() };
    desired
}

/// The partitions in the file, and the last report on them once nothing more comes.
async fn rest(folder: &Path, heard: &mut mpsc::Receiver<Report>) -> (String, RingObserved, String) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut last = None;
    while let Ok(report) = heard.try_recv() {
        last = report.observed.or(last);
    }
    let file: super::target::PartitionsFile =
        serde_json::from_slice(&std::fs::read(folder.join("a/partitions.json")).expect("a partition file")).expect("its text");
    let last = last.expect("a report");
    (file.owned().to_string(), last.ring.expect("a ring"), last.message)
}

/// R1, R3: what is acquired is told to the process after its `onOwn`, with the epoch; what goes is held until its `onRelease` ended.
#[tokio::test(start_paused = true)]
async fn r1_r3_hooks_run_once_for_each_partition_that_comes_or_goes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let idle = Arc::new(Idle::new(&Arc::default()));
    let (told, mut heard) = start_with(folder.path(), with_hooks(1, "0-9", ""), &idle);
    let (file, ring, _) = rest(folder.path(), &mut heard).await;
    assert_eq!((file.as_str(), ring.held.to_string().as_str()), ("0-9", "0-9"));
    let ran = std::mem::take(&mut *idle.ran.lock().unwrap());
    assert!(ran.len() == 10 && ran.iter().all(|(hook, _, epoch)| (hook.as_str(), epoch.as_str()) == ("onOwn", "3")), "{ran:?}");
    told.send_replace(with_hooks(2, "0-7", "8-9"));
    let (file, ring, _) = rest(folder.path(), &mut heard).await;
    assert_eq!((file.as_str(), ring.held.to_string().as_str()), ("0-7", "0-7"));
    let mut ran = std::mem::take(&mut *idle.ran.lock().unwrap());
    ran.sort();
    let release = |p: &str| ("onRelease".to_owned(), p.to_owned(), "3".to_owned());
    assert_eq!(ran, [release("8"), release("9")]);
    // Two are lost: another node may own them by now, so no hook speaks for them.
    told.send_replace(with_hooks(3, "0-5", ""));
    let (file, ring, _) = rest(folder.path(), &mut heard).await;
    assert_eq!((file.as_str(), ring.held.to_string().as_str()), ("0-5", "0-5"));
    assert_eq!(*idle.ran.lock().unwrap(), []);
    // The App goes: each of them is let go of in good order, and only then nothing is left.
    let mut gone = with_hooks(4, "", "0-5");
    gone.entry.role = Role::Absent;
    told.send_replace(gone);
    assert_eq!(until_nothing_is_left(&mut heard).await, 4);
    assert_eq!(idle.ran.lock().unwrap().len(), 6);
}

/// A failed `onOwn` gives its partition back, and only that; it is tried again after a pause that grows. A failed `onRelease` holds up nothing
/// once the unit is gone.
#[tokio::test(start_paused = true)]
async fn r2_a_failed_hook_gives_its_partition_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let idle = Arc::new(Idle::new(&Arc::default()));
    idle.bad.lock().unwrap().extend([".onOwn.2.service", ".onRelease.1.service"]);
    let (told, mut heard) = start_with(folder.path(), with_hooks(1, "0-3", ""), &idle);
    let (file, ring, message) = rest(folder.path(), &mut heard).await;
    assert_eq!((file.as_str(), ring.held.to_string().as_str(), ring.refused.to_string().as_str()), ("0-1,3", "0-1,3", "2"));
    assert!(message.contains("onOwn failed for partitions 2") && message.contains("exit-code"), "{message}");
    // It is kept by its lease for the time being; nobody asks again meanwhile, and then after 5, 10, 20 s.
    let tries = || idle.ran.lock().unwrap().iter().filter(|(hook, p, _)| hook == "onOwn" && p == "2").count();
    assert_eq!(tries(), 1);
    tokio::time::sleep(Duration::from_secs(34)).await;
    assert_eq!(tries(), 4, "{:?}", idle.ran);
    idle.bad.lock().unwrap().retain(|bad| *bad != ".onOwn.2.service");
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.send_replace(with_hooks(2, "0,2-3", "1"));
    let (file, ring, _) = rest(folder.path(), &mut heard).await;
    assert_eq!((file.as_str(), ring.held.to_string().as_str(), ring.refused.to_string().as_str()), ("0,2-3", "0,2-3", ""));
}
