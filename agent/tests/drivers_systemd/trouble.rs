//! Cases: texts with mistakes, units that keep ending, and time-outs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cluster_agent::drivers::flaps::Flaps;
use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::unit_change::needs_restart;
use cluster_agent::drivers::{ActiveState, Installed, UnitError, UnitState, Units as _, Verb};

use crate::node::{SLEEPER, SOON, install, is_alive, last_reload, run, service, show, until};

pub(crate) async fn a_text_is_verified_before_it_is_loaded(driver: &Systemd) {
    let unit = "t-verify.service";
    let good = service(&format!("Type=exec\nExecStart={SLEEPER}"));
    driver.install(unit, &good).await.unwrap();
    driver.start(unit, SOON).await.unwrap();
    let before = driver.observe(unit).await.unwrap();
    let reload = last_reload();
    for (lines, complaint) in [
        ("Type=exec", "no ExecStart"),
        ("ExecStart=/bin/true\nRestartt=always", "t-verify.service:4: Unknown key 'Restartt' in section [Service], ignoring."),
        ("ExecStart=/bin/true\nRestart=perhaps", "restart specifier, ignoring: perhaps"),
        ("ExecStart=/bin/true\nMemoryMax=lots", "Invalid memory limit 'lots'"),
        ("ExecStart=/bin/true\n[Serviec]\nA=b", "Unknown section 'Serviec'"),
        ("ExecStart=/bin/true\nno setting at all", "Missing '='"),
        ("ExecStart=/usr/bin/no-such-program", "no-such-program is not executable"),
    ] {
        let error = driver.verify(unit, &service(lines)).await.unwrap_err();
        let UnitError::BadSetting { message, .. } = &error else { panic!("{lines:?}: {error:?}") };
        assert!(message.contains(complaint) && !message.contains("/run/"), "{lines:?}: {message}");
        assert!(error.is_permanent());
    }
    assert!(matches!(driver.verify("../x.service", &good).await.unwrap_err(), UnitError::BadName { .. }));
    assert!(matches!(driver.verify(unit, "[Service]\n").await.unwrap_err(), UnitError::BadContent { .. }));
    // Nothing of it came to systemd.
    assert_eq!(last_reload(), reload);
    assert_eq!(driver.observe(unit).await.unwrap(), before);
    let left = fs::read_dir("/run").unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("clusterctl-verify"));
    assert_eq!(left.count(), 0, "the copies are removed");

    let start = Instant::now();
    driver.verify(unit, &good).await.unwrap();
    println!("       a text is verified in {:.0?}", start.elapsed());
    // What it needs may be missing or wrong: that is not this text's mistake. Instances have their own names.
    let needs = good.replace("[Service]", "[Unit]\nRequires=t-no-such.service\n[Service]");
    driver.verify(unit, &needs).await.unwrap();
    driver.verify("t-verify@7.service", &good.replace("sleep 1000", "sleep %i")).await.unwrap();
}

pub(crate) async fn a_unit_that_restarts_always_ends_when_it_is_stopped(driver: &Systemd) {
    let unit = "t-always.service";
    install(driver, unit, &format!("Type=exec\nRestart=always\nRestartSec=100ms\nExecStart={SLEEPER}")).await;
    driver.start(unit, SOON).await.unwrap();
    let first = driver.observe(unit).await.unwrap().main_pid;
    // A kill is no stop: systemd starts it again. So a stop has to follow.
    driver.kill(unit).await.unwrap();
    let again = until(driver, unit, "systemd starts it again", |state| state.is_running() && ![0, first].contains(&state.main_pid)).await;
    assert_eq!(again.restarts, 1);
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(again.main_pid) && driver.observe(unit).await.unwrap().is_gone());

    // One that waits for its restart is not gone, though nothing of it runs.
    let waits = "t-waits.service";
    install(driver, waits, "Type=exec\nRestart=always\nRestartSec=1h\nExecStart=/bin/true").await;
    driver.start(waits, SOON).await.unwrap();
    let waiting = until(driver, waits, "it waits", |state| state.sub_state == "auto-restart").await;
    assert!(waiting.active_state == ActiveState::Activating && !waiting.is_gone() && !waiting.is_running(), "{waiting:?}");
    driver.stop(waits, SOON).await.unwrap();
    let stopped = driver.observe(waits).await.unwrap();
    assert!(stopped.is_gone() && stopped.active_state == ActiveState::Inactive, "{stopped:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    for unit in [unit, waits] {
        assert!(driver.observe(unit).await.unwrap().is_gone(), "{unit} came back");
    }
    // A start does not wait for the pause either.
    driver.start(waits, SOON).await.unwrap();
    until(driver, waits, "it waits", |state| state.sub_state == "auto-restart").await;
    let before = driver.observe(waits).await.unwrap().invocation_id;
    let start = Instant::now();
    driver.start(waits, SOON).await.unwrap();
    assert!(start.elapsed() < SOON / 2 && driver.observe(waits).await.unwrap().invocation_id != before);
}

pub(crate) async fn a_unit_that_flaps_is_told(driver: &Systemd) {
    let unit = "t-flaps.service";
    let text = service("Type=exec\nRestart=always\nRestartSec=50ms\nExecStart=/bin/sh -c 'sleep 0.05; exit 3'");
    driver.install(unit, &text.replace("[Service]", "[Unit]\nStartLimitIntervalSec=0\n[Service]")).await.unwrap();
    let (mut flaps, begin) = (Flaps::default(), Instant::now());
    driver.start(unit, SOON).await.unwrap();
    assert_eq!(flaps.note(begin.elapsed(), &driver.observe(unit).await.unwrap()), None, "it just started");
    let mut running = 0;
    let flapping = loop {
        let state = driver.observe(unit).await.unwrap();
        running += u32::from(state.is_running());
        if let Some(flapping) = flaps.note(begin.elapsed(), &state) {
            break flapping;
        }
        assert!(begin.elapsed() < SOON, "{state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!("       told after {:.1?}: {flapping}", begin.elapsed());
    assert!(running > 0, "a look may find it running all the same");
    assert!(flapping.restarts >= 3 && !flapping.gave_up, "{flapping:?}");
    assert_eq!((flapping.result.as_str(), flapping.exit_status), ("exit-code", 3), "how it ends, not how it begins again");
    driver.stop(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_gone());
}

pub(crate) async fn a_unit_that_used_up_its_start_limit_by_itself_is_told(driver: &Systemd) {
    let unit = "t-givesup.service";
    let text = service("Type=exec\nRestart=on-failure\nRestartSec=10ms\nExecStart=/bin/sh -c 'sleep 0.05; exit 4'");
    driver.install(unit, &text.replace("[Service]", "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]")).await.unwrap();
    driver.start(unit, SOON).await.unwrap();
    let state = until(driver, unit, "systemd gives up", |state| state.active_state == ActiveState::Failed && !state.job_pending).await;
    let flapping = Flaps::default().note(Duration::ZERO, &state).expect("it flaps");
    println!("       unit {unit} {flapping}");
    assert!(flapping.gave_up && flapping.restarts >= 2, "{flapping:?} {state:?}");
    // The agent's own attempt is not refused by the limit, and begins a new count.
    driver.start(unit, SOON).await.unwrap();
    assert_eq!(driver.observe(unit).await.unwrap().restarts, 0);
    driver.stop(unit, SOON).await.unwrap();
}

pub(crate) async fn time_outs_of_the_units_own_are_told(driver: &Systemd) {
    let failure = |error: UnitError| match error {
        UnitError::JobFailed { verb: Verb::Start, job, result, .. } => (job, result),
        other => panic!("{other:?}"),
    };
    install(driver, "t-never.service", "Type=notify\nTimeoutStartSec=300ms\nExecStart=/usr/bin/perl -e 'sleep 1000'").await;
    assert_eq!(failure(driver.start("t-never.service", SOON).await.unwrap_err()), ("failed".to_owned(), "timeout".to_owned()));
    assert!(driver.observe("t-never.service").await.unwrap().is_gone(), "systemd ends what is not ready in time");

    // The time-out of the job rather than the service: the start goes on, so it is not gone, and a stop ends it.
    let unit = "t-job.service";
    let text = service("Type=exec\nExecStartPre=/bin/sleep 60\nExecStart=/bin/true");
    let text = text.replace("[Service]", "[Unit]\nJobRunningTimeoutSec=300ms\n[Service]");
    driver.install(unit, &text).await.unwrap();
    assert_eq!(failure(driver.start(unit, SOON).await.unwrap_err()).0, "timeout");
    let state = driver.observe(unit).await.unwrap();
    assert!(state.active_state == ActiveState::Activating && !state.is_gone(), "{state:?}");
    driver.stop(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_gone());
}

pub(crate) async fn a_reload_that_hangs_is_told(driver: &Systemd) {
    let unit = "t-hangs.service";
    install(driver, unit, &format!("Type=exec\nExecStart={SLEEPER}\nExecReload=/bin/sleep 60")).await;
    driver.start(unit, SOON).await.unwrap();
    let main = driver.observe(unit).await.unwrap().main_pid;
    let start = Instant::now();
    let error = driver.reload(unit, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, UnitError::JobTimeout { verb: Verb::Reload, .. }) && !error.is_permanent(), "{error:?}");
    assert!(start.elapsed() < SOON);
    let state = driver.observe(unit).await.unwrap();
    assert!(state.active_state == ActiveState::Reloading && state.main_pid == main, "it goes on serving: {state:?}");
    // Rule R2: what does not take its orders is stopped, hanging reload and all.
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(main) && driver.observe(unit).await.unwrap().is_gone());

    // One that its own time-out ends is a reload that failed; systemd leaves the unit running.
    install(driver, unit, &format!("Type=exec\nExecStart={SLEEPER}\nExecReload=/bin/sleep 60\nTimeoutStartSec=300ms")).await;
    driver.start(unit, SOON).await.unwrap();
    let error = driver.reload(unit, SOON).await.unwrap_err();
    assert!(matches!(&error, UnitError::JobFailed { verb: Verb::Reload, .. }), "{error:?}");
    assert!(driver.observe(unit).await.unwrap().is_running());
}

pub(crate) async fn a_stop_sees_the_cgroups_below(driver: &Systemd) {
    let unit = "t-below.service";
    let program = "/run/t-below.pl";
    // A child that moves to a cgroup below that of the unit, as containers and session managers do, and outlives the main process.
    let text = r#"use strict;
my ($unified) = map { /^0::(.*)$/ ? $1 : () } do { open my $f, '<', '/proc/self/cgroup'; <$f> };
my $below = "/sys/fs/cgroup$unified/below";
mkdir $below or die "$below: $!";
if (fork == 0) {
    open my $procs, '>', "$below/cgroup.procs" or die $!;
    print $procs $$;
    close $procs or die $!;
    open my $ready, '>', '/run/t-below.pid';
    print $ready $$;
    close $ready;
    sleep 1000;
}
sleep 1000;
"#;
    fs::write(program, text).unwrap();
    let _ = fs::remove_file("/run/t-below.pid");
    install(driver, unit, &format!("Type=exec\nDelegate=yes\nKillMode=process\nSendSIGKILL=no\nExecStart=/usr/bin/perl {program}")).await;
    driver.start(unit, SOON).await.unwrap();
    let start = Instant::now();
    let child: u32 = loop {
        let pid = fs::read_to_string("/run/t-below.pid").ok().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid {
            break pid;
        }
        assert!(start.elapsed() < SOON, "{:?}", driver.log_tail(unit, 10).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap().contains("t-below.service/below"));
    let error = driver.stop(unit, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(&error, UnitError::ProcessesLeft { pids, .. } if *pids == [child]), "{child}: {error:?}");
    assert!(!driver.observe(unit).await.unwrap().is_gone());
    run("kill", &["-9", &child.to_string()]);
    driver.stop(unit, SOON).await.unwrap();
    let state = driver.observe(unit).await.unwrap();
    assert!(state.is_gone() && !is_alive(child), "{state:?}");
    assert!(
        !Path::new("/sys/fs/cgroup").join(state.control_group.trim_start_matches('/')).join("below/cgroup.procs").exists()
            || state.control_group.is_empty()
    );
}

pub(crate) async fn only_a_change_of_the_process_needs_a_restart(driver: &Systemd) {
    let unit = "t-change.service";
    let old = service(&format!("Type=exec\nExecStart={SLEEPER}\nExecStop=/bin/false"));
    driver.install(unit, &old).await.unwrap();
    driver.start(unit, SOON).await.unwrap();
    let pid = driver.observe(unit).await.unwrap().main_pid;
    // What systemd reads when it needs it works without a restart, once it is loaded.
    let _ = fs::remove_file("/run/t-changed");
    let new =
        old.replace("ExecStop=/bin/false", "ExecStop=/bin/touch /run/t-changed\nExecReload=/bin/true\nRestart=always\nRestartSec=50ms");
    assert!(!needs_restart(&old, &new));
    assert_eq!(driver.install(unit, &new).await.unwrap(), Installed::Changed);
    let state: UnitState = driver.observe(unit).await.unwrap();
    assert!(state.main_pid == pid && state.can_reload, "{state:?}");
    assert_eq!(show(unit, "Restart"), "always");
    run("kill", &["-9", &pid.to_string()]);
    until(driver, unit, "it is restarted as the new text says", |state| state.is_running() && ![0, pid].contains(&state.main_pid)).await;
    driver.stop(unit, SOON).await.unwrap();
    assert!(Path::new("/run/t-changed").exists(), "it is stopped as the new text says");
}
