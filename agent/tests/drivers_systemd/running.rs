//! Cases: start, stop, restart, reload and what they report.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::unit_text::{Values, exec_unit};
use cluster_agent::drivers::{ActiveState, LoadState, UnitError, UnitState, Units as _, Verb};
use cluster_schemas::app::ExecSpec;

use crate::node::{SLEEPER, SOON, changed, install, is_alive, quiet, run, show, until};

pub(crate) async fn a_unit_is_started_restarted_and_stopped(driver: &Systemd) {
    let unit = "t-run.service";
    install(driver, unit, &format!("Type=exec\nExecStart={SLEEPER}")).await;
    let before = driver.observe(unit).await.unwrap();
    assert_eq!((before.load_state, before.active_state, before.main_pid), (LoadState::Loaded, ActiveState::Inactive, 0));
    assert!(before.is_gone() && !before.is_running());

    let start = Instant::now();
    driver.start(unit, SOON).await.unwrap();
    println!("       a start takes {:.1?}", start.elapsed());
    let start = Instant::now();
    let state = driver.observe(unit).await.unwrap();
    println!("       a look takes {:.1?}", start.elapsed());
    assert!(state.is_running() && !state.is_gone() && state.populated, "{state:?}");
    assert_eq!((state.sub_state.as_str(), state.result.as_str(), state.restarts), ("running", "success", 0));
    assert_eq!(state.main_pid.to_string(), show(unit, "MainPID"));
    assert_eq!(state.invocation_id, show(unit, "InvocationID"));
    assert_eq!(state.active_enter_us.to_string(), show(unit, "ActiveEnterTimestampMonotonic"));
    assert_eq!(state.control_group, show(unit, "ControlGroup"));
    assert_eq!(state.fragment_path.as_deref(), Some(std::path::Path::new("/run/systemd/system/t-run.service")));
    assert!(!state.can_reload && !state.job_pending && !state.need_daemon_reload && !state.starts_at_boot(), "{state:?}");

    driver.start(unit, SOON).await.unwrap();
    assert_eq!(driver.observe(unit).await.unwrap(), state, "a start of what runs changes nothing");

    driver.restart(unit, SOON).await.unwrap();
    let again = driver.observe(unit).await.unwrap();
    assert!(again.is_running() && again.main_pid != state.main_pid && again.invocation_id != state.invocation_id, "{again:?}");
    assert!(!is_alive(state.main_pid));

    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(again.main_pid));
    let stopped = driver.observe(unit).await.unwrap();
    assert!(stopped.is_gone() && !stopped.populated, "{stopped:?}");
    driver.stop(unit, SOON).await.unwrap();
    // A restart of what is stopped starts it.
    driver.restart(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_running());
}

pub(crate) async fn arguments_and_environment_arrive_byte_for_byte(driver: &Systemd) {
    let odd = [
        "",
        ";",
        "a b",
        " lead",
        "%h %% %",
        "$HOME",
        "${HOME}",
        "$$",
        "'single'",
        "\"double\"",
        "back\\slash\\",
        "tab\tnew\nline\r",
        "é🦀",
        "\u{1}\u{7f}",
        "@-:+!",
        "#",
        "\\x41",
        "${database.path",
        "--opt=\"x y\"",
    ];
    let command = ["/usr/bin/perl", "-e", "sleep 1000", "--"].iter().chain(&odd).map(|&word| word.to_owned()).collect::<Vec<_>>();
    let odd_value = "a b\tc\nd %h %% $HOME ${X} \"q\" 'q' \\ \\n é;#";
    let exec = ExecSpec {
        command: command.clone(),
        environment: BTreeMap::from([("ODD".to_owned(), odd_value.to_owned())]),
        user: Some("nobody".to_owned()),
        group: Some("daemon".to_owned()),
        working_directory: Some("/usr/lib".to_owned()),
        limits: BTreeMap::from([("LimitNOFILE".to_owned(), "1000:2000".to_owned())]),
    };
    let values = Values { node: "n1", node_address: None, database_path: None, app_runtime_dir: "/run/clusterctl/odd" };
    let unit = "t-odd.service";
    driver.install(unit, &exec_unit("odd", &exec, &values).unwrap()).await.unwrap();
    driver.start(unit, SOON).await.unwrap();
    let state = driver.observe(unit).await.unwrap();
    assert!(state.can_reload);
    let proc = |file: &str| fs::read(format!("/proc/{}/{file}", state.main_pid)).unwrap();
    let split = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.strip_suffix('\0').unwrap().split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(split(proc("cmdline")), command);
    let environment: BTreeMap<_, _> =
        split(proc("environ")).into_iter().map(|line| line.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap()).collect();
    assert_eq!(environment["ODD"], odd_value);
    assert_eq!(environment["CLUSTERCTL_APP"], "odd");
    assert_eq!(environment["CLUSTERCTL_NODE"], "n1");
    assert_eq!(environment["CLUSTERCTL_ROLE_FILE"], "/run/clusterctl/odd/role.json");
    assert_eq!(environment["CLUSTERCTL_PARTITIONS_FILE"], "/run/clusterctl/odd/partitions.json");
    let status = String::from_utf8(proc("status")).unwrap();
    let ids = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u32>().ok());
    assert_eq!((ids("Uid:"), ids("Gid:")), (Some(65534), Some(1)));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", state.main_pid)).unwrap().to_str(), Some("/usr/lib"));
    let limits = String::from_utf8(proc("limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files") && line.contains("1000") && line.contains("2000")), "{limits}");
}

pub(crate) async fn a_failing_start_is_told_with_its_log(driver: &Systemd) {
    let failure = |error: UnitError| match error {
        UnitError::JobFailed { verb: Verb::Start, job, result, .. } => (job, result),
        other => panic!("{other:?}"),
    };
    // `Type=exec`, as the units for `exec` have, sees a program that does not exist.
    install(driver, "t-missing.service", "Type=exec\nExecStart=/usr/bin/no-such-program").await;
    let error = driver.start("t-missing.service", SOON).await.unwrap_err();
    assert!(!error.is_permanent());
    assert_eq!(failure(error), ("failed".to_owned(), "exit-code".to_owned()));
    let log = driver.log_tail("t-missing.service", 10).await;
    assert!(log.iter().any(|line| line.contains("no-such-program")), "{log:?}");

    let told = "Type=exec\nExecStartPre=/bin/echo cannot find my database\nExecStartPre=/bin/false\nExecStart=/bin/true";
    install(driver, "t-pre.service", told).await;
    let start = Instant::now();
    assert_eq!(failure(driver.start("t-pre.service", SOON).await.unwrap_err()).1, "exit-code");
    let state = driver.observe("t-pre.service").await.unwrap();
    assert_eq!((state.active_state, state.result.as_str()), (ActiveState::Failed, "exit-code"));
    let log = driver.log_tail("t-pre.service", 20).await;
    println!("       a failed start and its log take {:.0?}", start.elapsed());
    assert!(log.iter().any(|line| line == "cannot find my database"), "{log:?}");
    assert!(driver.log_tail("t-pre.service", 1).await.len() == 1);
    assert_eq!(driver.log_tail("t-nothing.service", 10).await, Vec::<String>::new());
    assert_eq!(driver.log_tail("--version", 10).await, Vec::<String>::new());

    // A dependency that fails.
    let text =
        crate::node::service("ExecStart=/bin/true").replace("[Service]", "[Unit]\nRequires=t-pre.service\nAfter=t-pre.service\n[Service]");
    driver.install("t-needs.service", &text).await.unwrap();
    assert_eq!(failure(driver.start("t-needs.service", SOON).await.unwrap_err()).0, "dependency");
}

pub(crate) async fn a_unit_over_its_start_limit_starts_again(driver: &Systemd) {
    let (unit, allowed) = ("t-limit.service", "/run/t-limit-allowed");
    let limit = "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=2\n[Service]";
    let lines = format!("Type=exec\nExecStartPre=/usr/bin/test -e {allowed}\nExecStart={SLEEPER}");
    driver.install(unit, &crate::node::service(&lines).replace("[Service]", limit)).await.unwrap();
    let _ = fs::remove_file(allowed);
    for round in 0..6 {
        let error = driver.start(unit, SOON).await.unwrap_err();
        let UnitError::JobFailed { result, .. } = &error else { panic!("round {round}: {error:?}") };
        assert_eq!(result, "exit-code", "round {round}: the limit would hide why it fails");
    }
    fs::write(allowed, "").unwrap();
    driver.start(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_running());
}

pub(crate) async fn a_stop_counts_only_when_no_process_is_left(driver: &Systemd) {
    let unit = "t-left.service";
    // The child stays behind when the main process is stopped.
    let parent = "Type=exec\nKillMode=process\nSendSIGKILL=no\nExecStart=/usr/bin/perl -e 'fork; sleep 1000'";
    install(driver, unit, parent).await;
    driver.start(unit, SOON).await.unwrap();
    let main = driver.observe(unit).await.unwrap().main_pid;
    let both = || run("pgrep", &["-f", "fork; sleep 1000"]).lines().map(|pid| pid.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let start = Instant::now();
    while both().len() < 2 {
        assert!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let child = both().into_iter().find(|pid| *pid != main).unwrap();
    let error = driver.stop(unit, Duration::from_millis(700)).await.unwrap_err();
    assert!(matches!(&error, UnitError::ProcessesLeft { pids, .. } if *pids == [child]), "{child}: {error:?}");
    let state = driver.observe(unit).await.unwrap();
    assert!(state.active_state == ActiveState::Inactive && state.populated && !state.is_gone(), "{state:?}");
    run("kill", &["-9", &child.to_string()]);
    driver.stop(unit, SOON).await.unwrap();
    assert!(driver.observe(unit).await.unwrap().is_gone());
}

pub(crate) async fn a_stop_kills_what_does_not_heed_it(driver: &Systemd) {
    let unit = "t-deaf.service";
    let deaf = "Type=exec\nRestart=always\nRestartSec=0\nTimeoutStopSec=1\nExecStart=:/usr/bin/perl -e '$SIG{TERM}=\"IGNORE\"; sleep 1000 while 1'";
    install(driver, unit, deaf).await;
    driver.start(unit, SOON).await.unwrap();
    let pid = driver.observe(unit).await.unwrap().main_pid;
    // So that the signal is ignored before it comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = driver.stop(unit, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, UnitError::JobTimeout { verb: Verb::Stop, .. }), "{error:?}");
    assert!(is_alive(pid), "still there, and said so");
    driver.stop(unit, SOON).await.unwrap();
    assert!(!is_alive(pid));
    let state = driver.observe(unit).await.unwrap();
    assert!(state.is_gone() && state.result == "timeout", "{state:?}");
}

pub(crate) async fn a_start_that_takes_too_long_is_told_and_can_be_stopped(driver: &Systemd) {
    let unit = "t-slow.service";
    install(driver, unit, "Type=exec\nExecStartPre=/bin/sleep 60\nExecStart=/bin/true").await;
    let start = Instant::now();
    let error = driver.start(unit, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, UnitError::JobTimeout { verb: Verb::Start, .. }) && !error.is_permanent(), "{error:?}");
    assert!(start.elapsed() < SOON);
    let state = driver.observe(unit).await.unwrap();
    assert!(state.active_state == ActiveState::Activating && state.job_pending && !state.is_gone(), "{state:?}");

    // Two that want opposite things: the newer wins, the older is told.
    let (started, stopped) = tokio::join!(driver.start(unit, SOON), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        driver.stop(unit, SOON).await
    });
    stopped.unwrap();
    assert!(matches!(&started, Err(UnitError::JobFailed { job, .. }) if job == "canceled"), "{started:?}");
    assert!(driver.observe(unit).await.unwrap().is_gone());
}

pub(crate) async fn a_reload_is_done_refused_or_failed(driver: &Systemd) {
    let reload = |unit: &'static str| async move { driver.reload(unit, SOON).await };
    let listens = "Type=exec\nExecReload=/bin/kill -HUP $MAINPID\n\
        ExecStart=:/usr/bin/perl -e '$SIG{HUP}=sub{open F,\">/run/t-reloaded\"}; sleep 1000 while 1'";
    install(driver, "t-reload.service", listens).await;
    let _ = fs::remove_file("/run/t-reloaded");
    let inactive = reload("t-reload.service").await.unwrap_err();
    assert!(matches!(inactive, UnitError::Refused { .. }), "{inactive:?}");
    driver.start("t-reload.service", SOON).await.unwrap();
    let before = driver.observe("t-reload.service").await.unwrap();
    assert!(before.can_reload);
    tokio::time::sleep(Duration::from_millis(300)).await;
    reload("t-reload.service").await.unwrap();
    let start = Instant::now();
    while fs::metadata("/run/t-reloaded").is_err() {
        assert!(start.elapsed() < SOON, "the signal never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(driver.observe("t-reload.service").await.unwrap().main_pid, before.main_pid);

    install(driver, "t-noreload.service", &format!("ExecStart={SLEEPER}")).await;
    driver.start("t-noreload.service", SOON).await.unwrap();
    let error = reload("t-noreload.service").await.unwrap_err();
    assert!(matches!(error, UnitError::Refused { verb: Verb::Reload, .. }) && error.is_permanent(), "{error:?}");

    install(driver, "t-badreload.service", &format!("ExecStart={SLEEPER}\nExecReload=/bin/false")).await;
    driver.start("t-badreload.service", SOON).await.unwrap();
    let error = reload("t-badreload.service").await.unwrap_err();
    assert!(matches!(error, UnitError::JobFailed { verb: Verb::Reload, .. }), "{error:?}");
    assert!(driver.observe("t-badreload.service").await.unwrap().is_running());
}

pub(crate) async fn a_killed_unit_is_noticed(driver: &Systemd) {
    let (unit, other) = ("t-killed.service", "t-other.service");
    install(driver, unit, &format!("Type=exec\nRestart=on-failure\nRestartSec=100ms\nExecStart={SLEEPER}")).await;
    install(driver, other, &format!("ExecStart={SLEEPER}")).await;
    let (mut changes, mut others) = (driver.changes(unit), driver.changes(other));
    driver.start(unit, SOON).await.unwrap();
    changed(&mut changes, "the start").await;
    quiet(&mut changes).await;
    others.mark_unchanged();
    let before = driver.observe(unit).await.unwrap();
    run("kill", &["-9", &before.main_pid.to_string()]);
    println!("       a kill is told after {:.1?}", changed(&mut changes, "the kill").await);
    let is_back = |state: &UnitState| state.is_running() && state.restarts == 1 && state.main_pid != before.main_pid;
    until(driver, unit, "systemd starts it again", is_back).await;
    assert!(!others.has_changed().unwrap(), "the change of a unit is not told to others");
}

pub(crate) async fn many_units_start_at_once(driver: &Systemd) {
    let units: Vec<_> = (0..40).map(|number| format!("t-many{number}.service")).collect();
    let text = crate::node::service(&format!("Type=exec\nExecStart={SLEEPER}"));
    let start = Instant::now();
    let all = units.iter().map(async |unit| {
        driver.install(unit, &text).await?;
        driver.start(unit, SOON).await?;
        driver.observe(unit).await
    });
    for state in futures_util::future::join_all(all).await {
        assert!(state.unwrap().is_running());
    }
    println!("       40 units are installed, started and looked at in {:.0?}", start.elapsed());
    let start = Instant::now();
    for result in futures_util::future::join_all(units.iter().map(|unit| driver.stop(unit, SOON))).await {
        result.unwrap();
    }
    println!("       and stopped in {:.0?}", start.elapsed());
}
