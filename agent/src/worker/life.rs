//! The worker's life with drivers that have nothing to do: what it leaves in its folder, and when.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_schemas::app::{ExecSpec, Mode, UnitSpec, VipSpec};
use cluster_schemas::assignment::{AppAssignment, Role, RunSpec, VipAssignment};
use cluster_schemas::node::InstanceState;
use tokio::sync::{broadcast, mpsc, watch};

use super::target::{Desired, Tenures};
use super::{Parts, Report, Worker};
use crate::drivers::{Conflict, Held, HeldVip, Installed, InstalledUnit, Mac, UnitError, UnitState, Units, VipError, Vips};
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
    let parts =
        Parts { app: "a".to_owned(), node: "n1".to_owned(), folder: folder.join("a"), units, vips, armed: Armed::always(), reports };
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
