//! Cases: unit files, ours and others'.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::{Installed, InstalledUnit, LoadState, UnitError, Units as _};

use crate::node::{SLEEPER, SOON, changed, install, last_reload, quiet, run, service, show, write};

pub(crate) async fn a_new_file_needs_no_reload_and_a_changed_one_does(driver: &Systemd) {
    let unit = "t-text.service";
    let (one, two) = (service(&format!("Type=exec\nExecStart={SLEEPER} one")), service(&format!("Type=exec\nExecStart={SLEEPER} two")));
    // systemd may know the name already, as one that does not exist.
    assert_eq!(driver.observe(unit).await.unwrap().load_state, LoadState::NotFound);
    let reload = last_reload();
    assert_eq!(driver.install(unit, &one).await.unwrap(), Installed::New);
    driver.start(unit, SOON).await.unwrap();
    assert_eq!(driver.install(unit, &one).await.unwrap(), Installed::Unchanged);
    assert_eq!(last_reload(), reload, "systemd was reloaded without need");

    let pid = driver.observe(unit).await.unwrap().main_pid;
    let start = Instant::now();
    assert_eq!(driver.install(unit, &two).await.unwrap(), Installed::Changed);
    println!("       a changed text is loaded in {:.0?}", start.elapsed());
    let reloaded = last_reload();
    assert!(reloaded > reload);
    let state = driver.observe(unit).await.unwrap();
    assert!(state.main_pid == pid && !state.need_daemon_reload, "what runs is not touched: {state:?}");
    driver.restart(unit, SOON).await.unwrap();
    let pid = driver.observe(unit).await.unwrap().main_pid;
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().ends_with("two\0"));

    // Several that change at once share their reloads.
    let units: Vec<_> = (0..8).map(|number| format!("t-text{number}.service")).collect();
    for unit in &units {
        driver.install(unit, &one).await.unwrap();
        driver.start(unit, SOON).await.unwrap();
    }
    assert_eq!(last_reload(), reloaded);
    let start = Instant::now();
    for result in futures_util::future::join_all(units.iter().map(|unit| driver.install(unit, &two))).await {
        assert_eq!(result.unwrap(), Installed::Changed);
    }
    println!("       8 changed texts are loaded in {:.0?}", start.elapsed());
    for unit in &units {
        assert!(!driver.observe(unit).await.unwrap().need_daemon_reload);
    }
}

pub(crate) async fn a_reload_that_was_missed_is_made_up_for(driver: &Systemd) {
    let unit = "t-missed.service";
    install(driver, unit, &format!("Type=exec\nExecStart={SLEEPER} one")).await;
    driver.start(unit, SOON).await.unwrap();
    // As if the agent had been killed right after it wrote the new text.
    let two = service(&format!("Type=exec\nExecStart={SLEEPER} two"));
    write("/run/systemd/system/t-missed.service", &two);
    assert!(driver.observe(unit).await.unwrap().need_daemon_reload);
    assert_eq!(driver.install(unit, &two).await.unwrap(), Installed::Unchanged);
    assert!(!driver.observe(unit).await.unwrap().need_daemon_reload);
    driver.restart(unit, SOON).await.unwrap();
    let pid = driver.observe(unit).await.unwrap().main_pid;
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().ends_with("two\0"));
}

pub(crate) async fn units_of_others_are_not_touched(driver: &Systemd) {
    let text = service(&format!("ExecStart={SLEEPER}"));
    let foreign = format!("[Service]\nExecStart={SLEEPER}\n");
    for folder in ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"] {
        let path = write(&format!("{folder}/t-theirs.service"), &foreign);
        let error = driver.install("t-theirs.service", &text).await.unwrap_err();
        assert!(matches!(&error, UnitError::NotOurs { path: found, .. } if *found == path), "{folder}: {error:?}");
        assert!(error.is_permanent());
        driver.uninstall("t-theirs.service").await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
        assert!(Path::new("/run/systemd/system/t-theirs.service").exists() == (folder == "/run/systemd/system"));
        // Only its text is theirs: it is started and stopped as asked.
        driver.start("t-theirs.service", SOON).await.unwrap();
        driver.stop("t-theirs.service", SOON).await.unwrap();
        fs::remove_file(&path).unwrap();
        run("systemctl", &["daemon-reload"]);
    }
    // An instance of somebody's template has no file of its own.
    write("/etc/systemd/system/t-template@.service", &format!("[Service]\nType=exec\nExecStart={SLEEPER} %i\n"));
    let error = driver.install("t-template@7.service", &text).await.unwrap_err();
    assert!(matches!(&error, UnitError::NotOurs { path, .. } if path.ends_with("t-template@.service")), "{error:?}");
    driver.start("t-template@7.service", SOON).await.unwrap();
    let pid = driver.observe("t-template@7.service").await.unwrap().main_pid;
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().ends_with("7\0"));

    let error = driver.install("systemd-journald.service", &text).await.unwrap_err();
    assert!(matches!(&error, UnitError::NotOurs { .. }), "{error:?}");
    for bad in ["../t-x.service", "t-x", "t-template@.service"] {
        assert!(matches!(driver.install(bad, &text).await.unwrap_err(), UnitError::BadName { .. }), "{bad}");
        assert!(matches!(driver.start(bad, SOON).await.unwrap_err(), UnitError::BadName { .. }), "{bad}");
        assert!(matches!(driver.observe(bad).await.unwrap_err(), UnitError::BadName { .. }), "{bad}");
    }
    let error = driver.install("t-x.service", &foreign).await.unwrap_err();
    assert!(matches!(error, UnitError::BadContent { .. }), "{error:?}");
}

pub(crate) async fn ours_are_listed_and_removed(driver: &Systemd) {
    let ours =
        |names: &[&str]| names.iter().map(|&unit| InstalledUnit { unit: unit.to_owned(), app: "test".to_owned() }).collect::<Vec<_>>();
    install(driver, "t-b.service", &format!("ExecStart={SLEEPER}")).await;
    install(driver, "t-a@1.service", &format!("ExecStart={SLEEPER}")).await;
    install(driver, "t-failed.service", "Type=exec\nExecStart=/bin/no-such-program").await;
    assert_eq!(driver.ours().await.unwrap(), ours(&["t-a@1.service", "t-b.service", "t-failed.service"]));
    driver.start("t-b.service", SOON).await.unwrap();
    driver.start("t-failed.service", SOON).await.unwrap_err();
    driver.stop("t-b.service", SOON).await.unwrap();
    for unit in ["t-b.service", "t-failed.service", "t-a@1.service", "t-b.service", "t-never.service"] {
        driver.uninstall(unit).await.unwrap();
        let state = driver.observe(unit).await.unwrap();
        assert_eq!(state.load_state, LoadState::NotFound, "{unit}: {state:?}");
        assert!(matches!(driver.start(unit, SOON).await.unwrap_err(), UnitError::NotFound { .. }), "{unit}");
    }
    assert_eq!(driver.ours().await.unwrap(), []);
    // And back again.
    install(driver, "t-b.service", &format!("ExecStart={SLEEPER}")).await;
    driver.start("t-b.service", SOON).await.unwrap();
}

pub(crate) async fn a_missing_masked_or_bad_unit_is_told_apart(driver: &Systemd) {
    let missing = "t-missing.service";
    let state = driver.observe(missing).await.unwrap();
    assert!(state.load_state == LoadState::NotFound && state.is_gone(), "{state:?}");
    for error in [driver.start(missing, SOON).await.unwrap_err(), driver.restart(missing, SOON).await.unwrap_err()] {
        assert!(matches!(&error, UnitError::NotFound { unit } if unit == missing) && error.is_permanent(), "{error:?}");
    }
    driver.stop(missing, SOON).await.unwrap();
    driver.uninstall(missing).await.unwrap();

    for folder in ["/etc/systemd/system", "/run/systemd/system"] {
        let link = Path::new(folder).join("t-masked.service");
        symlink("/dev/null", &link).unwrap();
        run("systemctl", &["daemon-reload"]);
        let state = driver.observe("t-masked.service").await.unwrap();
        assert!(state.load_state == LoadState::Masked && state.is_gone(), "{folder}: {state:?}");
        let installed = driver.install("t-masked.service", &service(&format!("ExecStart={SLEEPER}"))).await.unwrap_err();
        let started = driver.start("t-masked.service", SOON).await.unwrap_err();
        for error in [installed, started] {
            assert!(matches!(&error, UnitError::Masked { .. }) && error.is_permanent(), "{folder}: {error:?}");
        }
        driver.stop("t-masked.service", SOON).await.unwrap();
        driver.uninstall("t-masked.service").await.unwrap();
        assert!(link.is_symlink());
        fs::remove_file(&link).unwrap();
        run("systemctl", &["daemon-reload"]);
    }

    let installed = driver.install("t-bad.service", &service("Type=exec")).await.unwrap_err();
    let started = driver.start("t-bad.service", SOON).await.unwrap_err();
    for error in [installed, started] {
        assert!(matches!(&error, UnitError::BadSetting { message, .. } if !message.is_empty()) && error.is_permanent(), "{error:?}");
    }
    // A better text mends it.
    install(driver, "t-bad.service", &format!("ExecStart={SLEEPER}")).await;
    driver.start("t-bad.service", SOON).await.unwrap();
}

pub(crate) async fn a_unit_enabled_at_boot_is_seen(driver: &Systemd) {
    write("/etc/systemd/system/t-boot.service", &format!("[Service]\nExecStart={SLEEPER}\n[Install]\nWantedBy=multi-user.target\n"));
    run("systemctl", &["daemon-reload"]);
    assert!(!driver.observe("t-boot.service").await.unwrap().starts_at_boot());
    run("systemctl", &["enable", "t-boot.service"]);
    assert!(driver.observe("t-boot.service").await.unwrap().starts_at_boot());
    run("systemctl", &["disable", "t-boot.service"]);
    assert!(!driver.observe("t-boot.service").await.unwrap().starts_at_boot());
}

pub(crate) async fn an_alias_is_watched(driver: &Systemd) {
    write("/etc/systemd/system/t-real.service", &format!("[Service]\nExecStart={SLEEPER}\n"));
    symlink("t-real.service", "/etc/systemd/system/t-alias.service").unwrap();
    run("systemctl", &["daemon-reload"]);
    let mut changes = driver.changes("t-alias.service");
    driver.start("t-alias.service", SOON).await.unwrap();
    let state = driver.observe("t-alias.service").await.unwrap();
    assert!(state.is_running() && state.unit == "t-alias.service", "{state:?}");
    assert_eq!(show("t-real.service", "MainPID"), state.main_pid.to_string());
    quiet(&mut changes).await;
    run("kill", &["-9", &state.main_pid.to_string()]);
    changed(&mut changes, "the kill").await;
    driver.stop("t-alias.service", SOON).await.unwrap();
}
