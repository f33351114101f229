//! Cases: commands that run to their end beside a unit.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cluster_agent::drivers::systemd::Systemd;
use cluster_agent::drivers::{Command, UnitError, Units as _};

use crate::node::{SOON, is_alive, until};

fn command(unit: &str, arguments: &[&str]) -> Command {
    Command {
        unit: unit.to_owned(),
        description: "a test".to_owned(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        timeout: SOON,
        ..Command::default()
    }
}

/// Nothing of the unit runs, and systemd has forgotten it.
async fn is_forgotten(driver: &Systemd, unit: &str) {
    until(driver, unit, "it is forgotten", |state| state.is_gone() && state.fragment_path.is_none()).await;
}

pub(crate) async fn a_command_runs_to_its_end_as_it_was_written(driver: &Systemd) {
    let out = "/run/t-command.out";
    let script = "use English; print join(\"\\n\", @ARGV, $ENV{GIVEN}, $UID, (split / /, $GID)[0]), \"\\n\"";
    let odd = ["/usr/bin/perl", "-e", script, "two  words", "$HOME", "${GIVEN}", "50%", "%n", "\"q\"", ""];
    let mut arguments = vec!["/bin/sh", "-c", "exec \"$@\" >/run/t-command.out", "sh"];
    arguments.extend(odd);
    let mut told = command("t-run.service", &arguments);
    told.environment = BTreeMap::from([("GIVEN".to_owned(), "a $b 100% \"c\"".to_owned())]);
    let start = Instant::now();
    driver.run(&told).await.unwrap();
    println!("       a command takes {:.0?}", start.elapsed());
    assert_eq!(fs::read_to_string(out).unwrap(), "two  words\n$HOME\n${GIVEN}\n50%\n%n\n\"q\"\n\na $b 100% \"c\"\n0\n0\n");
    is_forgotten(driver, "t-run.service").await;

    // The same name again, as somebody else.
    let mut as_nobody = command("t-run.service", &["/bin/sh", "-c", "test \"$(id -un):$(id -gn)\" = nobody:daemon"]);
    as_nobody.user = Some("nobody".to_owned());
    as_nobody.group = Some("daemon".to_owned());
    driver.run(&as_nobody).await.unwrap();
    fs::remove_file(out).unwrap();
}

pub(crate) async fn a_command_that_fails_or_takes_too_long_leaves_nothing(driver: &Systemd) {
    let failed = driver.run(&command("t-fails.service", &["/bin/sh", "-c", "echo no luck; exit 3"])).await.unwrap_err();
    assert!(matches!(&failed, UnitError::JobFailed { result, .. } if result == "exit-code"), "{failed:?}");
    assert!(driver.log_tail("t-fails.service", 10).await.iter().any(|line| line == "no luck"));
    let missing = driver.run(&command("t-missing.service", &["/no/such/program"])).await.unwrap_err();
    assert!(matches!(missing, UnitError::JobFailed { .. }), "{missing:?}");

    let pids = "/run/t-command.pids";
    let script = "trap '' TERM; sleep 1000 & echo $$ $! >/run/t-command.pids; wait";
    let slow = Command { timeout: Duration::from_millis(300), ..command("t-slow.service", &["/bin/sh", "-c", script]) };
    let start = Instant::now();
    let late = driver.run(&slow).await.unwrap_err();
    assert!(matches!(&late, UnitError::JobFailed { result, .. } if result == "timeout"), "{late:?}");
    assert!(start.elapsed() >= Duration::from_millis(300));
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        assert!(!is_alive(pid.parse().unwrap()), "process {pid} is left");
    }
    for unit in ["t-fails.service", "t-missing.service", "t-slow.service"] {
        is_forgotten(driver, unit).await;
    }
    fs::remove_file(pids).unwrap();
}

pub(crate) async fn a_command_of_an_earlier_agent_is_ended_first(driver: &Systemd) {
    let (one, other) = ("t-cmd.own.1.service", "t-cmd.own.2.service");
    let long = |unit: &str| command(unit, &["/bin/sleep", "1000"]);
    let (first, second) = (long(one), long(other));
    let start = |told: Command| {
        tokio::spawn(async move {
            let earlier = Systemd::new();
            earlier.run(&told).await
        })
    };
    let (first, second) = (start(first), start(second));
    let before = until(driver, one, "it runs", |state| state.main_pid > 0).await.main_pid;
    until(driver, other, "it runs", |state| state.main_pid > 0).await;
    first.abort();
    driver.run(&command(one, &["/bin/true"])).await.unwrap();
    assert!(!is_alive(before), "the earlier one still runs");
    driver.end_commands("t-cmd.").await.unwrap();
    assert!(second.await.unwrap().is_err(), "who waits for a command that is ended hears so");
    is_forgotten(driver, other).await;
    driver.end_commands("t-cmd.").await.unwrap();
}
