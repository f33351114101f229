//! Cases: D-Bus and systemd restarted under the driver.

use std::time::{Duration, Instant};

use cluster_agent::drivers::Units as _;
use cluster_agent::drivers::systemd::Systemd;

use crate::node::{SLEEPER, SOON, changed, install, is_alive, quiet, run, until};

/// A start that takes a second.
const SLOW: &str = "Type=exec\nExecStartPre=/bin/sleep 1\nExecStart=/usr/bin/perl -e 'sleep 1000'";
/// A start that fails after a second.
const FAILS: &str = "Type=exec\nExecStartPre=/bin/sleep 1\nExecStartPre=/bin/false\nExecStart=/bin/true";
/// A stop that takes a second.
const STOPS: &str = "Type=exec\nExecStart=/usr/bin/perl -e 'sleep 1000'\nExecStop=/bin/sleep 1";

/// Everything works, and every watcher was told to look again.
async fn works_on_after(driver: &Systemd, fault: impl AsyncFnOnce()) {
    let unit = "t-fault.service";
    install(driver, unit, &format!("Type=exec\nExecStart={SLEEPER}")).await;
    driver.start(unit, SOON).await.unwrap();
    let mut changes = driver.changes(unit);
    let mut idle = driver.changes("t-idle.service");
    let before = driver.observe(unit).await.unwrap();
    quiet(&mut changes).await;
    idle.mark_unchanged();

    let start = Instant::now();
    fault().await;
    changed(&mut changes, "the connection was lost").await;
    changed(&mut idle, "the connection was lost, which concerns every unit").await;
    println!("       watchers are told {:.0?} after the fault began", start.elapsed());
    let after = driver.observe(unit).await.unwrap();
    assert!(after.is_running() && after.main_pid == before.main_pid, "{after:?}");

    // Signals of units are heard again, and so are those of jobs.
    quiet(&mut changes).await;
    run("kill", &["-9", &after.main_pid.to_string()]);
    changed(&mut changes, "the kill").await;
    let start = Instant::now();
    driver.start(unit, SOON).await.unwrap();
    driver.stop(unit, SOON).await.unwrap();
    assert!(start.elapsed() < SOON, "the ends of jobs are not heard: {:?}", start.elapsed());
    assert!(driver.observe(unit).await.unwrap().is_gone());
}

/// Jobs that are under way get their results.
async fn jobs_survive(driver: &Systemd, fault: impl AsyncFnOnce()) {
    let (slow, fails, stops) = ("t-slow.service", "t-fails.service", "t-stops.service");
    install(driver, slow, SLOW).await;
    install(driver, fails, FAILS).await;
    install(driver, stops, STOPS).await;
    driver.start(stops, SOON).await.unwrap();
    let pid = driver.observe(stops).await.unwrap().main_pid;
    let begun = Instant::now();
    let (started, failed, stopped, ()) =
        tokio::join!(driver.start(slow, SOON), driver.start(fails, SOON), driver.stop(stops, SOON), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fault().await;
        });
    println!("       all jobs have their results after {:.0?}", begun.elapsed());
    started.unwrap();
    let state = until(driver, slow, "it runs", |state| state.is_running()).await;
    assert!(!state.job_pending, "{state:?}");
    let error = failed.unwrap_err();
    assert!(!error.is_permanent(), "{error:?}");
    println!("       the failing one: {error}");
    stopped.unwrap();
    assert!(!is_alive(pid));
}

/// The connection is away for a moment, then back.
async fn restart_d_bus() {
    tokio::task::spawn_blocking(|| run("systemctl", &["restart", "dbus.service"])).await.unwrap();
}

async fn reexecute() {
    tokio::task::spawn_blocking(|| run("systemctl", &["daemon-reexec"])).await.unwrap();
}

pub(crate) async fn d_bus_is_restarted_under_us(driver: &Systemd) {
    works_on_after(driver, restart_d_bus).await;
}

pub(crate) async fn d_bus_is_restarted_during_a_job(driver: &Systemd) {
    jobs_survive(driver, restart_d_bus).await;
}

pub(crate) async fn systemd_is_executed_again_under_us(driver: &Systemd) {
    works_on_after(driver, reexecute).await;
}

pub(crate) async fn systemd_is_executed_again_during_a_job(driver: &Systemd) {
    jobs_survive(driver, reexecute).await;
}

pub(crate) async fn systemd_is_reloaded_during_a_job(driver: &Systemd) {
    jobs_survive(driver, async || {
        tokio::task::spawn_blocking(|| run("systemctl", &["daemon-reload"])).await.unwrap();
    })
    .await;
}
