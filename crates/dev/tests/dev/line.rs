//! The rest of the command line against a cluster that lives.

use crate::world::Dev;

#[test]
fn what_operators_type_works_against_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(&home.path().join("dev"), &["--nodes", "3"]);
    dev.until("three nodes", || (dev.says(&["get", "nodes", "-o", "name"]) == "node/n1\nnode/n2\nnode/n3\n").then_some(()));
    assert!(dev.ok(&["version"]).contains("controller"));
    dev.until("three voters", || (dev.says(&["get", "voters", "-o", "name"]).lines().count() == 3).then_some(()));

    dev.apply_shell("one", "Singleton", "exec sleep 3600");
    let active = || dev.running("one", "Active").first().cloned();
    let first = dev.until("an active instance", active);
    // The first take-over is recorded before the next one, and standbys are ready.
    dev.ok(&["wait", "--for=condition=Ready", "app/one", "--timeout", "80s"]);
    let other = if first == "n1" { "n2" } else { "n1" };
    dev.ok(&["switchover", "one", "--to", other, "--timeout", "60s"]);
    dev.until("the named node to be active", || (active()? == other).then_some(()));
    dev.until("the take-over to be told", || dev.says(&["failovers", "one"]).contains(other).then_some(()));
    dev.until("the lease to be listed", || dev.says(&["get", "leases"]).contains("app/one").then_some(()));

    let told = |object: &str, reason: &str| dev.says(&["events", "--for", object]).contains(reason).then_some(());
    let taken_over = format!("{other} is active with epoch");
    for reason in ["Created", "Placed", "Active", "ReadyTrue", &taken_over] {
        dev.until("what happened to be told", || told("app/one", reason));
    }
    dev.until("the description to have it", || dev.says(&["describe", "app", "one"]).contains(&taken_over).then_some(()));

    dev.ok(&["node", "drain", other, "--timeout", "80s"]);
    dev.until("the drained node to have nothing", || active().filter(|node| node != other));
    dev.ok(&["node", "uncordon", other]);
    dev.until("cordons to be told", || told(&format!("node/{other}"), "Uncordoned"));
    dev.ok(&["delete", "app", "one", "--timeout", "60s"]);
    assert_eq!(dev.ok(&["get", "apps", "-o", "name"]), "");
}
