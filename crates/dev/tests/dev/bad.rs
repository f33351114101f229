//! What cannot be is refused with the reason and what to do, and leaves nothing.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::world::{Dev, command, processes_of};

/// Writes a program. Another process does: who executes a file that this one has open for writing, or has just passed on to a child, is told
/// that it is busy.
fn script(path: &Path, text: &str) {
    let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let written = Command::new("/bin/sh").args(["-c", write, "sh"]).arg(path).arg(text).status().expect("a shell");
    assert!(written.success());
}

/// Starts a cluster that must not start.
fn refused(folder: &Path, more: &[&str], parts: &[&str]) {
    let output = command(folder, more).output().expect("clusterctl runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stdout));
    for part in parts {
        assert!(err.contains(part), "{more:?}: {part:?} is not in {err}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_hint() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    refused(&folder, &["--port", &port], &["cannot listen on 127.0.0.1", "in use", "--port"]);
    refused(Path::new("/proc/clusterctl-dev"), &[], &["cannot make /proc/clusterctl-dev", "--dir"]);
    refused(&folder, &["--nats-server", "/nonexistent/nats-server"], &["/nonexistent/nats-server"]);
    let old = home.path().join("nats-server");
    script(&old, "#!/bin/sh\necho nats-server: v2.9.25\n");
    let old = old.to_string_lossy().into_owned();
    refused(&folder, &["--nats-server", &old], &["2.11 or newer", "v2.9.25", "scripts/setup"]);
    refused(&folder, &["--nodes", "0"], &["--nodes"]);
    refused(&folder, &["--lease", "1h"], &["1h is no lease"]);
    refused(home.path(), &["--port", "0"], &["was not made by clusterctl dev", "--dir"]);
    refused(&folder, &["kill", "n1"], &[]);
    assert!(!folder.exists() && processes_of(&folder).is_empty());
}

#[test]
fn a_folder_in_use_is_refused_and_a_second_cluster_beside_is_not() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "1"]);
    refused(&folder, &["--port", "0"], &["another dev cluster runs in", "--dir"]);
    let beside = Dev::start(&home.path().join("other"), &["--nodes", "1"]);
    assert_ne!((&dev.servers, &dev.vips), (&beside.servers, &beside.vips));
    let output = dev.run(&["dev", "kill", "n9", "--dir", &folder.to_string_lossy()]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("there is no node \"n9\"; there are n1"), "{err}");
}

/// A cluster that was refused in the middle of its start leaves nothing either.
#[test]
fn a_server_that_does_not_come_up_is_told_with_its_log() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let sick = home.path().join("nats-server");
    let text = "#!/bin/sh\n[ \"$1\" = --version ] && echo nats-server: v2.15.1 && exit\necho no disk is left\nexit 1\n";
    script(&sick, text);
    refused(&folder, &["--port", "0", "--nats-server", &sick.to_string_lossy()], &["does not come up", "no disk is left"]);
    assert!(!folder.exists() && processes_of(&folder).is_empty());
}
