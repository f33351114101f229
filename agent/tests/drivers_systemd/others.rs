//! Cases: units that others than the agent start, mask, remove or share.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::{LoadState, UnitError, Units as _};

use crate::node::{SLEEPER, SOON, changed, is_alive, quiet, run, until, write};

pub(crate) async fn a_unit_that_is_enabled_is_warned_about_and_stopped(driver: &Systemd) {
    let unit = "t-boot.service";
    write(
        "/etc/systemd/system/t-boot.service",
        &format!("[Service]\nExecStart={SLEEPER}\nRestart=always\n[Install]\nWantedBy=t-boot.target\n"),
    );
    write("/etc/systemd/system/t-boot.target", "[Unit]\nDescription=as a boot does\n");
    run("systemctl", &["daemon-reload"]);
    assert_eq!(driver.observe(unit).await.unwrap().started_by_others(), None);
    run("systemctl", &["enable", unit]);
    let warned = driver.observe(unit).await.unwrap();
    let expected =
        "unit t-boot.service is enabled on this node, so a boot starts it whatever the cluster wants: systemctl disable t-boot.service";
    assert_eq!(warned.started_by_others().as_deref(), Some(expected));

    // A boot starts it; it is found running, and a stop ends it for good, enabled or not.
    let mut changes = driver.changes(unit);
    quiet(&mut changes).await;
    run("systemctl", &["start", "t-boot.target"]);
    changed(&mut changes, "others started it").await;
    let running = until(driver, unit, "it runs", |state| state.main_pid != 0).await;
    assert!(running.started_by_others().is_some());
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(running.main_pid));
    // Reloads of systemd, which others cause, do not bring it back.
    run("systemctl", &["daemon-reload"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(driver.observe(unit).await.unwrap().is_gone());
    run("systemctl", &["disable", unit]);
    assert_eq!(driver.observe(unit).await.unwrap().started_by_others(), None);
    run("systemctl", &["stop", "t-boot.target"]);
    fs::remove_file("/etc/systemd/system/t-boot.target").unwrap();
}

pub(crate) async fn a_unit_that_others_start_is_told_with_their_names(driver: &Systemd) {
    let unit = "t-called.service";
    write("/etc/systemd/system/t-called.service", &format!("[Service]\nExecStart={SLEEPER}\n"));
    write("/etc/systemd/system/t-called.socket", "[Socket]\nListenStream=/run/t-called.socket\n");
    write("/etc/systemd/system/t-wants.service", &format!("[Unit]\nWants={unit}\n[Service]\nExecStart={SLEEPER}\n"));
    run("systemctl", &["daemon-reload"]);
    // Static: nobody enabled it, nor can.
    run("systemctl", &["start", "t-called.socket", "t-wants.service"]);
    let state = until(driver, unit, "it is pulled in", |state| state.main_pid != 0).await;
    assert!(!state.starts_at_boot());
    let expected = "unit t-called.service is started by t-called.socket, t-wants.service whatever the cluster wants";
    assert_eq!(state.started_by_others().as_deref(), Some(expected));
    driver.stop(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_gone());
    // Whoever connects starts it again: this is what the warning is for.
    drop(std::os::unix::net::UnixStream::connect("/run/t-called.socket").unwrap());
    until(driver, unit, "a connection starts it", |state| state.main_pid != 0).await;
    run("systemctl", &["stop", "t-called.socket"]);
    driver.stop(unit, SOON).await.unwrap();
    fs::remove_file("/etc/systemd/system/t-called.socket").unwrap();
}

pub(crate) async fn a_unit_masked_or_removed_while_it_runs_is_stopped(driver: &Systemd) {
    let unit = "t-maskedlater.service";
    write("/usr/local/lib/systemd/system/t-maskedlater.service", &format!("[Service]\nExecStart={SLEEPER}\nRestart=always\n"));
    run("systemctl", &["daemon-reload"]);
    driver.start(unit, SOON).await.unwrap();
    symlink("/dev/null", "/etc/systemd/system/t-maskedlater.service").unwrap();
    run("systemctl", &["daemon-reload"]);
    let state = driver.observe(unit).await.unwrap();
    assert!(state.load_state == LoadState::Masked && state.is_running(), "masked, and runs on: {state:?}");
    let error = driver.restart(unit, SOON).await.unwrap_err();
    assert!(matches!(error, UnitError::Masked { .. }), "{error:?}");
    assert!(is_alive(state.main_pid), "what cannot be started again is not stopped for it");
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(state.main_pid) && driver.observe(unit).await.unwrap().is_gone());

    let unit = "t-removedlater.service";
    let path = write("/etc/systemd/system/t-removedlater.service", &format!("[Service]\nExecStart={SLEEPER}\nRestart=always\n"));
    run("systemctl", &["daemon-reload"]);
    driver.start(unit, SOON).await.unwrap();
    fs::remove_file(path).unwrap();
    run("systemctl", &["daemon-reload"]);
    let state = driver.observe(unit).await.unwrap();
    assert!(state.load_state == LoadState::NotFound && state.main_pid != 0 && !state.is_gone(), "{state:?}");
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(state.main_pid) && driver.observe(unit).await.unwrap().is_gone());
}

pub(crate) async fn instances_of_a_template_live_apart(driver: &Systemd) {
    write("/etc/systemd/system/t-part@.service", &format!("[Service]\nType=exec\nExecStart={SLEEPER} %i %I\n"));
    run("systemctl", &["daemon-reload"]);
    let (one, two, odd) = ("t-part@1.service", "t-part@2.service", r"t-part@a\x2db.service");
    let (mut of_one, mut of_two) = (driver.changes(one), driver.changes(two));
    for unit in [one, two, odd] {
        assert!(driver.observe(unit).await.unwrap().is_gone());
        driver.start(unit, SOON).await.unwrap();
    }
    let arguments =
        async |unit: &str| fs::read_to_string(format!("/proc/{}/cmdline", driver.observe(unit).await.unwrap().main_pid)).unwrap();
    assert!(arguments(one).await.ends_with("\x001\x001\0"));
    assert!(arguments(two).await.ends_with("\x002\x002\0"));
    assert!(arguments(odd).await.ends_with("\0a\\x2db\0a-b\0"));
    quiet(&mut of_one).await;
    quiet(&mut of_two).await;
    let kept = driver.observe(two).await.unwrap();
    assert_eq!(kept.fragment_path.as_deref(), Some(std::path::Path::new("/etc/systemd/system/t-part@.service")));
    driver.stop(one, SOON).await.unwrap();
    changed(&mut of_one, "the stop").await;
    assert!(driver.observe(one).await.unwrap().is_gone());
    assert_eq!(driver.observe(two).await.unwrap(), kept);
    assert!(!of_two.has_changed().unwrap(), "the change of an instance is not told to others");
    // One instance alone can be masked.
    symlink("/dev/null", format!("/run/systemd/system/{one}")).unwrap();
    run("systemctl", &["daemon-reload"]);
    assert!(matches!(driver.start(one, SOON).await.unwrap_err(), UnitError::Masked { .. }));
    assert!(driver.observe(two).await.unwrap().is_running());
    assert!(matches!(driver.start("t-part@.service", SOON).await.unwrap_err(), UnitError::BadName { .. }));
    for unit in [two, odd] {
        driver.stop(unit, SOON).await.unwrap();
    }
}
