//! Help for the cases: what is done to the node by other means than the driver, and seen by other means.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::unit_text::owned;
use cluster_agent::drivers::{UnitState, Units as _};
use tokio::sync::watch;

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// A program that lives long and takes any arguments; part of every Debian.
pub(crate) const SLEEPER: &str = "/usr/bin/perl -e 'sleep 1000'";

/// Runs a program and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A property of a unit, or without a unit of systemd itself, as `systemctl` shows it.
pub(crate) fn show(unit: &str, property: &str) -> String {
    let mut arguments = vec!["show", "--value", "--property", property];
    arguments.extend(Some(unit).filter(|unit| !unit.is_empty()));
    run("systemctl", &arguments)
}

/// Rises with each reload of systemd's configuration.
pub(crate) fn last_reload() -> u64 {
    show("", "UnitsLoadTimestampMonotonic").parse().expect("a number")
}

/// Text of a unit of ours with these lines in its section [Service].
pub(crate) fn service(lines: &str) -> String {
    owned("test", &format!("[Service]\n{lines}\n"))
}

/// Installs a unit of ours with these lines in its section [Service].
pub(crate) async fn install(driver: &Systemd, unit: &str, lines: &str) {
    driver.install(unit, &service(lines)).await.unwrap();
}

/// Writes a file that is not ours.
pub(crate) fn write(path: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(path);
    fs::create_dir_all(path.parent().expect("a folder")).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Looks until it is so.
pub(crate) async fn until(driver: &Systemd, unit: &str, what: &str, is_so: impl Fn(&UnitState) -> bool) -> UnitState {
    let start = Instant::now();
    loop {
        let state = driver.observe(unit).await.unwrap();
        if is_so(&state) {
            return state;
        }
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a change, and says how long it took.
pub(crate) async fn changed(changes: &mut watch::Receiver<u64>, what: &str) -> Duration {
    let start = Instant::now();
    tokio::time::timeout(SOON, changes.changed()).await.unwrap_or_else(|_| panic!("no change was told: {what}")).unwrap();
    start.elapsed()
}

/// No change is told for a while.
pub(crate) async fn quiet(changes: &mut watch::Receiver<u64>) {
    while tokio::time::timeout(Duration::from_millis(300), changes.changed()).await.is_ok() {}
}

pub(crate) fn is_alive(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Ends what a case left behind, by other means than the driver.
pub(crate) async fn clean_up() {
    // D-Bus may just be on its way back.
    let start = Instant::now();
    while !Command::new("systemctl").args(["stop", "t-*.service"]).output().is_ok_and(|output| output.status.success()) {
        assert!(start.elapsed() < SOON, "systemctl does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for folder in ["/run/systemd/system", "/etc/systemd/system", "/usr/local/lib/systemd/system"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("t-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    // Nothing may be failed, which is an error too.
    let _ = Command::new("systemctl").args(["reset-failed", "t-*.service"]).output();
    run("systemctl", &["daemon-reload"]);
}
