//! `init`, `join` and `join-file`: what they write and print, and what they refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fake::{Run, command, run, run_with_stdin};

fn init(dir: &Path, more: &[&str]) -> Run {
    let dir = dir.to_str().unwrap();
    let first = ["init", "--cluster", "prod", "--node", "m1", "--nats", "10.0.0.11,10.0.0.12,10.0.0.13", "--dir", dir];
    run(&mut command(&[&first, more].concat()))
}

fn join(dir: &Path, file: &str, more: &[&str]) -> Run {
    let first = ["join", "--from", "-", "--node", "m2", "--dir", dir.to_str().unwrap()];
    run_with_stdin(&mut command(&[&first, more].concat()), file)
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_first_machine_is_configured_and_told_what_comes_next() {
    let etc = tempfile::tempdir().unwrap();
    let dir = etc.path().join("clusterctl");
    let ran = init(&dir, &["--address", "10.0.0.11", "--label", "zone=a", "--label", "disk=ssd"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let (agent, token) = (read(&dir, "agent.yaml"), read(&dir, "token"));
    let id = field(&agent, "clusterId").to_owned();
    assert_eq!((id.len(), token.trim().len()), (36, 64));
    assert!(!ran.out.contains(token.trim()), "the token stays in its file");
    let d = dir.display();
    assert_eq!(
        ran.out,
        format!(
            "\
wrote {d}/token (0600)
wrote {d}/agent.yaml (0600)
wrote {d}/cli.yaml (0644)
wrote {d}/controller.yaml (0600)

The cluster prod ({id}) begins with the node m1. Start it here:

  systemctl enable --now cluster-guard cluster-agent cluster-controller

Then add machines. The join file has the token, so it goes from machine to machine and into no file or command line:

  clusterctl join-file --dir {d} | ssh root@MACHINE clusterctl join --from - --node NAME

With --controller that machine runs a controller too; three controllers survive the loss of one.
"
        )
    );
    assert_eq!(
        agent,
        format!(
            "\
# Made by clusterctl init.
cluster: prod
clusterId: {id}
node: m1
address: \"10.0.0.11\"
labels: {{ \"disk\": \"ssd\", \"zone\": \"a\" }}
voters: [m1]
nats:
  servers: [\"nats://10.0.0.11:4222\", \"nats://10.0.0.12:4222\", \"nats://10.0.0.13:4222\"]
  replicas: 3
"
        )
    );
    assert_eq!(
        read(&dir, "controller.yaml"),
        format!(
            "\
# Made by clusterctl init.
cluster: prod
clusterId: {id}
name: m1
nats:
  servers: [\"nats://10.0.0.11:4222\", \"nats://10.0.0.12:4222\", \"nats://10.0.0.13:4222\"]
  replicas: 3
listen: \"0.0.0.0:7070\"
# Beside this file, or where systemd shows both to the service.
tokenFile: token
"
        )
    );
    assert_eq!(read(&dir, "cli.yaml"), "# Made by clusterctl init.\nservers: [\"http://10.0.0.11:7070\"]\ntokenFile: token\n");
    let bits = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(["token", "agent.yaml", "controller.yaml", "cli.yaml"].map(bits), [0o600, 0o600, 0o600, 0o644]);
}

#[test]
fn a_machine_that_is_configured_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("agent.yaml"), "mine").unwrap();
    fs::write(dir.path().join("token"), "mine").unwrap();
    let d = dir.path().display();
    let refusal = format!("this machine is configured already: {d}/token, {d}/agent.yaml exist\n");
    let hint = "hint: nothing was written; remove them to begin anew, --dry-run shows what would be in them\n";
    init(dir.path(), &[]).fails(2, &format!("error: {refusal}{hint}"));
    assert_eq!((read(dir.path(), "agent.yaml").as_str(), fs::read_dir(dir.path()).unwrap().count()), ("mine", 2));
    let ran = init(dir.path(), &["--dry-run"]);
    assert_eq!((ran.code, ran.err), (0, format!("dry run: nothing was written\n{refusal}")));
}

#[test]
fn a_dry_run_prints_all_files_but_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let ran = init(dir.path(), &["--dry-run"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "dry run: nothing was written\n"));
    for part in ["/token (0600)\n(the token of the API)", "/agent.yaml (0600)\n# Made", "/controller.yaml (0600)", "/cli.yaml (0644)"] {
        assert!(ran.out.contains(part), "{part} is missing in {}", ran.out);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_join_file_makes_other_machines_of_the_same_cluster() {
    let (first, second, third) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(init(first.path(), &["--address", "10.0.0.11", "--controllers", "10.0.0.11,10.0.0.12"]).code, 0);
    let printed = run(&mut command(&["join-file", "--dir", first.path().to_str().unwrap()]));
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    let (id, token) = (field(&read(first.path(), "agent.yaml"), "clusterId").to_owned(), read(first.path(), "token"));

    let ran = join(second.path(), &printed.out, &["--address", "10.0.0.12", "--controller"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let d = second.path().display();
    assert_eq!(
        ran.out,
        format!(
            "\
wrote {d}/token (0600)
wrote {d}/agent.yaml (0600)
wrote {d}/cli.yaml (0644)
wrote {d}/controller.yaml (0600)

This machine is the node m2 of the cluster prod. Start it here:

  systemctl enable --now cluster-guard cluster-agent cluster-controller

Then look for it:

  clusterctl get nodes
"
        )
    );
    let agent = read(second.path(), "agent.yaml");
    assert_eq!((field(&agent, "clusterId"), field(&agent, "node"), field(&agent, "voters")), (id.as_str(), "m2", "[m1]"));
    assert_eq!(read(second.path(), "token"), token);
    assert!(read(second.path(), "cli.yaml").contains("[\"http://10.0.0.11:7070\", \"http://10.0.0.12:7070\"]"));

    // Any machine may hand the cluster on, and a controller that nobody knew is told about.
    let handed_on = run(&mut command(&["join-file", "--dir", second.path().to_str().unwrap()]));
    let ran = join(third.path(), &handed_on.out, &["--controller", "--listen", "10.0.0.13:7070"]);
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.err,
        "note: the other machines do not know http://10.0.0.13:7070 yet; add it to servers in /etc/clusterctl/cli.yaml there\n"
    );
}

#[test]
fn a_machine_without_a_controller_gets_no_file_for_one() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(first.path(), &[]);
    let file = run(&mut command(&["join-file", "--dir", first.path().to_str().unwrap()])).out;
    let ran = join(second.path(), &file, &[]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("systemctl enable --now cluster-guard cluster-agent\n"), "{}", ran.out);
    assert!(!second.path().join("controller.yaml").exists());
    // The same once more is refused: the file names are taken.
    assert_eq!(join(second.path(), &file, &[]).code, 2);
}

#[test]
fn mistakes_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let good = ["init", "--dir", at, "--cluster", "prod", "--node", "m1", "--nats", "a"];
    for (more, part) in [
        (&["--cluster", "Prod"][..], "--cluster"),
        (&["--label", "zone"], "write it like zone=a"),
        (&["--replicas", "3"], "3 copies need 3 NATS servers, --nats names 1"),
        (&["--listen", "7070"], "--listen"),
        (&["--controllers", "ftp://a"], "neither http nor https"),
    ] {
        // The later of two wins nowhere: clap refuses, or ours do.
        let arguments: Vec<&str> = if more[0] == "--cluster" {
            ["init", "--dir", at, "--node", "m1", "--nats", "a"].iter().chain(more).copied().collect()
        } else {
            good.iter().chain(more).copied().collect()
        };
        let ran = run(&mut command(&arguments));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{more:?}: {}", ran.err);
        assert!(ran.err.contains(part), "{more:?}: {}", ran.err);
    }
    let ran = join(dir.path(), "cluster: prod\n", &[]);
    assert!(ran.code == 2 && ran.err.contains("stdin:1:1: missing field"), "{}", ran.err);
    let ran = run(&mut command(&["join", "--from", "/nowhere/join.yaml", "--node", "m2", "--dir", at]));
    assert!(ran.code == 2 && ran.err.contains("hint: clusterctl join-file on a machine of the cluster prints a join file"), "{}", ran.err);
    assert_eq!(run(&mut command(&["join", "--from", "-", "--listen", "0.0.0.0:1", "--dir", at])).code, 2, "only a controller listens");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_configuration_made_by_hand_has_no_join_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("agent.yaml"), "cluster: c\nnode: n1\nnats: { servers: [\"nats://a:4222\"], replicas: 1 }\n").unwrap();
    let ran = run(&mut command(&["join-file", "--dir", dir.path().to_str().unwrap()]));
    assert!(ran.code == 2 && ran.err.contains("it has no clusterId; clusterctl init makes one"), "{}", ran.err);
}
