//! However a dev cluster ends, nothing of it is left.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{Dev, LIMIT, clusterctl, processes_of};

fn nothing_is_left(folder: &Path) {
    let left = processes_of(folder);
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.exists(), "{} is still there", folder.display());
}

/// Three processes for each instance: one that ignores being asked, its child, and one that left its session.
const STUBBORN: &str = "trap '' TERM HUP; setsid sleep 3601 & sleep 3602 & while :; do sleep 1; done";

fn with_stubborn(folder: &Path) -> Dev {
    let dev = Dev::start(folder, &["--nodes", "2"]);
    dev.apply_shell("stubborn", "Spread", STUBBORN);
    dev.until("two instances", || (dev.running("stubborn", "Member").len() == 2).then_some(()));
    dev.until("what left its session", || (count(folder, "3601") == 2).then_some(()));
    dev
}

fn count(folder: &Path, argument: &str) -> usize {
    let has = |pid: &&i32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text.split(|b| *b == 0).any(|word| word == argument.as_bytes())
    };
    processes_of(folder).iter().filter(has).count()
}

#[test]
fn ctrl_c_leaves_nothing_not_even_what_ignores_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let mut dev = with_stubborn(&folder);
    assert!(dev.end(Signal::SIGINT).success());
    nothing_is_left(&folder);
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let mut dev = Dev::start(&folder, &["--nodes", "1"]);
    dev.apply_shell("quiet", "Spread", "exec sleep 3600");
    dev.until("an instance", || (dev.running("quiet", "Member").len() == 1).then_some(()));
    // Nobody reads any more, and the kernel says so.
    dev.out = None;
    assert!(dev.end(Signal::SIGHUP).success());
    nothing_is_left(&folder);
}

/// The same with a real terminal: its window is closed, which ends what held it.
#[test]
fn a_closed_window_ends_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let inside = format!("exec {} dev --port 0 --nodes 1 --dir {}", clusterctl().display(), folder.display());
    let mut window = Command::new("script");
    window.args(["--quiet", "--return", "--command", &inside, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut window = window.spawn().expect("script of util-linux");
    let mut out = BufReader::new(window.stdout.take().expect("its output"));
    let mut line = String::new();
    while !line.contains("is Ready after") && !line.contains("are Ready after") {
        line.clear();
        assert!(out.read_line(&mut line).expect("its output") > 0, "it ended");
    }
    window.kill().expect("a closed window");
    window.wait().expect("its status");
    let begun = Instant::now();
    while folder.exists() || !processes_of(&folder).is_empty() {
        assert!(begun.elapsed() < LIMIT, "{:?}", processes_of(&folder));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A service that is being stopped ignores it: it is killed after its time, and the rest of the cluster goes on.
#[test]
fn a_deleted_app_that_ignores_its_stop_is_killed() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = with_stubborn(&folder);
    dev.ok(&["delete", "app", "stubborn", "--timeout", "80s"]);
    assert_eq!((count(&folder, "3601"), count(&folder, "3602")), (0, 0));
}

#[test]
fn killed_it_can_be_started_again_and_what_it_left_is_ended() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let mut dev = with_stubborn(&folder);
    dev.signal(Signal::SIGKILL);
    assert_eq!(dev.child.wait().expect("its status").signal(), Some(9));
    // The kernel ends what was started directly; what that started is left.
    let begun = Instant::now();
    while count(&folder, "-c") > 0 {
        assert!(begun.elapsed() < LIMIT, "{:?}", processes_of(&folder));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(count(&folder, "3601") > 0, "this test is about what is left");
    let mut again = Dev::start(&folder, &["--nodes", "2"]);
    assert_eq!((count(&folder, "3601"), count(&folder, "3602")), (0, 0));
    assert!(again.end(Signal::SIGTERM).success());
    nothing_is_left(&folder);
}
