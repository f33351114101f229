//! Locks: `clusterctl lock` on several nodes, and what becomes of it when somebody dies.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Dev, clusterctl};

/// `clusterctl lock` on a node.
fn lock(dev: &Dev, node: &str, name: &str, options: &[&str], script: &str) -> Child {
    let socket = dev.folder.join("nodes").join(node).join("run/local.sock");
    let mut command = Command::new(clusterctl());
    command.arg("lock").arg(name).arg("--socket").arg(socket).args(options).args(["--", "/bin/sh", "-c", script]);
    command.stdin(Stdio::null()).spawn().expect("clusterctl runs")
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

/// The code that it ends with.
fn code(dev: &Dev, mut child: Child) -> Option<i32> {
    dev.until("an end", || child.try_wait().expect("its status")).code()
}

#[test]
fn one_holds_a_lock_and_the_next_one_has_it_whatever_becomes_of_the_holder() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    let at = |name: &str| home.path().join(name);
    let long = ["--wait", "80s"];

    // Twelve on three nodes, one at a time: a folder that is made by one is in the way of every other.
    let (inside, tokens) = (at("inside"), at("tokens"));
    let (i, t) = (inside.display(), tokens.display());
    let script = format!("mkdir {i} || exit 9; echo $CLUSTERCTL_LOCK_TOKEN >> {t}; rmdir {i} && exit 5");
    let all: Vec<Child> = (0..12).map(|n| lock(&dev, ["n1", "n2", "n3"][n % 3], "jobs/count", &long, &script)).collect();
    let codes: Vec<Option<i32>> = all.into_iter().map(|child| code(&dev, child)).collect();
    assert_eq!(codes, [Some(5); 12], "the command's own exit code");
    let seen: Vec<u64> = lines(&tokens).iter().map(|line| line.parse().expect("a token")).collect();
    assert!(seen.len() == 12 && seen.windows(2).all(|pair| pair[0] < pair[1]), "tokens rise: {seen:?}");

    // One that has it keeps others out; a semaphore of the name is another thing.
    let hold = |file: &str| format!("echo $$ $CLUSTERCTL_LOCK_TOKEN >> {}; exec sleep 3600", at(file).display());
    let of = |file: &str| -> Option<(i32, u64)> {
        let lines = lines(&at(file));
        let (pid, token) = lines.first()?.split_once(' ')?;
        Some((pid.parse().ok()?, token.parse().ok()?))
    };
    let mut first = lock(&dev, "n1", "jobs/one", &long, &hold("first"));
    let (process, token) = dev.until("a holder", || of("first"));
    assert_eq!(code(&dev, lock(&dev, "n2", "jobs/one", &["--wait", "0s"], "exit 0")), Some(4), "it is held");
    assert_eq!(code(&dev, lock(&dev, "n2", "jobs/one", &["--wait", "0s", "--semaphore", "2"], "exit 0")), Some(0));

    // The holder is killed: its command goes with it, and the next one has the lock.
    let mut second = lock(&dev, "n2", "jobs/one", &long, &hold("second"));
    first.kill().expect("a signal");
    first.wait().expect("its end");
    dev.until("the command to be gone", || (kill(Pid::from_raw(process), None).is_err()).then_some(()));
    let (process, next) = dev.until("the next holder", || of("second"));
    assert!(next > token, "{next} after {token}");

    // Its node stands still: the deadline passes, the command is stopped, and another node's process has the lock.
    let third = lock(&dev, "n3", "jobs/one", &long, &hold("third"));
    dev.play("pause", "n2");
    let ended = dev.until("the loss to be noticed", || second.try_wait().expect("its status"));
    assert_eq!(ended.code(), Some(1));
    assert!(kill(Pid::from_raw(process), None).is_err(), "the command is gone with the lock");
    let (_, last) = dev.until("the holder after that", || of("third"));
    assert!(last > next, "{last} after {next}");
    dev.play("heal", "n2");

    // A waiter that is killed is passed over, and SIGTERM ends a holder in good order.
    let mut waiter = lock(&dev, "n1", "jobs/one", &long, "exit 0");
    let patient = lock(&dev, "n2", "jobs/one", &long, "exit 3");
    waiter.kill().expect("a signal");
    waiter.wait().expect("its end");
    kill(pid(&third), Signal::SIGTERM).expect("a signal");
    assert_eq!(code(&dev, third), Some(128 + 15), "as the command ended");
    assert_eq!(code(&dev, patient), Some(3));
}
