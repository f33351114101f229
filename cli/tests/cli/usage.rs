//! Arguments, help, versions, completion, and the streams.

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Fake, clusterctl, command};
use crate::world::{app, list};

#[test]
fn mistakes_in_arguments_get_code_two_and_a_suggestion() {
    for (arguments, part) in [
        (&["aply", "-f", "x"][..], "apply"),
        (&["get", "pods"], "instances are part of an App: clusterctl describe app NAME (known here: apps, nodes, assignments)"),
        (&["get", "deploy"], "an App with mode Replicas"),
        (&["get", "sts"], "an App with mode Singleton or Ring"),
        (&["get", "ds"], "an App with mode Spread"),
        (&["get", "svc"], "an App has a VIP"),
        (&["get", "ns"], "there are no namespaces"),
        (&["get", "cm"], "configuration is in the units"),
        (&["get", "pvc"], "clusterctl explain app.spec.database"),
        (&["get", "all"], "clusterctl get apps,nodes,assignments"),
        (&["get", "apps,events"], "that list stands alone"),
        (&["get", "aps"], "did you mean apps?"),
        (&["get", "ndoes"], "did you mean nodes?"),
        (&["get"], "KIND"),
        (&["get"], "a kind comes first: clusterctl get apps"),
        (&["get", "app/"], "has no name"),
        (&["get", "app", "node/n1"], "write KIND NAME NAME, or KIND/NAME KIND/NAME"),
        (&["get", "apps", "-o", "jsn"], "did you mean json?"),
        (&["get", "apps", "-o", "go-template={{.x}}"], "known: table, wide, json, yaml, name, jsonpath, custom-columns"),
        (&["get", "apps", "-o", "jsonpath={.items[*].metadata.name"], "a brace { is not closed"),
        (&["get", "apps", "-o", "jsonpath={range .items[*]}{.x}"], "a {range} has no {end}"),
        (&["get", "apps", "-o", "jsonpath={items}"], "a path begins with a dot"),
        (&["get", "apps", "-o", "custom-columns=NAME"], "columns are written like NAME:.metadata.name"),
        (&["get", "apps", "--sort-by", "{.metadata.name"], "--sort-by: \"{.metadata.name\" has no closing brace"),
        (&["get", "apps", "-l", "a within (b)"], "key=value, key!=value, key in (a,b) or key notin (a,b)"),
        (&["get", "apps", "-l", "tier>3"], "\"tier>3\" is no requirement: write key,"),
        (&["get", "app", "x", "-l", "a=b"], "names and a selector exclude each other"),
        (&["get", "apps,nodes", "-w"], "one kind can be watched at a time"),
        (&["get", "apps", "-n", "default"], "there are no namespaces"),
        (&["get", "apps", "-A"], "there are no namespaces"),
        (&["get", "apps", "--field-selector", "x=y"], "choose with -l LABELS"),
        (&["get", "apps", "--ouput", "json"], "--output"),
        (&["apply"], "--filename"),
        (&["apply"], "clusterctl apply -f FILE, -f FOLDER, or -f - for stdin"),
        (&["apply", "app.yaml"], "files are named with -f: clusterctl apply -f FILE"),
        (&["validate", "app.yaml"], "files are named with -f"),
        (&["delete", "apps"], "all Apps at once are not deleted"),
        (&["delete"], "app NAME"),
        (&["delete", "pod", "x"], "instances are part of an App"),
        (&["describe", "assignment", "n1"], "known here: apps, nodes"),
        (&["scale", "workers", "--replicas=5"], "set spec.replicas"),
        (&["rollout", "status", "deploy/x"], "clusterctl wait --for=condition=Ready app/NAME"),
        (&["rollout", "restart", "deploy/x"], "clusterctl switchover APP"),
        (&["cordon", "n1"], "clusterctl node cordon NODE"),
        (&["drain", "n1"], "clusterctl node drain NODE"),
        (&["exec", "-it", "db", "--", "sh"], "log in to the node"),
        (&["port-forward", "db", "80"], "Apps listen on their nodes, or on their VIP"),
        (&["expose", "db"], "clusterctl explain app.spec.vip"),
        (&["patch", "app", "db"], "clusterctl apply -f FILE"),
        (&["replace", "-f", "x"], "clusterctl apply -f FILE"),
        (&["label", "node", "n1", "a=b"], "those of a node of its agent.yaml"),
        (&["taint", "node", "n1"], "spec.placement.avoidLabels"),
        (&["top", "nodes"], "the load"),
        (&["cluster-info"], "clusterctl version says who answers"),
        (&["api-resources"], "kinds are apps, nodes and assignments"),
        (&["job", "status"], "clusterctl get app NAME"),
        (&["alloc", "logs", "x"], "the last lines"),
        (&["status"], "clusterctl get apps,nodes"),
        (&["restart", "db"], "clusterctl describe app NAME names the unit"),
        (&["list-units"], "clusterctl get apps"),
        (&["failover"], "to move a Singleton: clusterctl switchover APP"),
        (&["completion", "tcsh"], "bash"),
        (&["get", "apps", "--request-timeout", "5x"], "no unit of time"),
        (&[], "Usage: clusterctl"),
    ] {
        let run = clusterctl("http://127.0.0.1:1", arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(part), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn help_goes_to_stdout_and_readme_has_the_same_exit_codes() {
    let run = clusterctl("", &["--help"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let readme = include_str!("../../README.md");
    let (_, codes) = run.out.split_once("Exit codes:\n").unwrap();
    let codes: Vec<&str> = codes.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(codes.len(), 5, "one line each: {codes:?}");
    for line in codes {
        let (code, meaning) = line.split_once("  ").unwrap();
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "README.md lacks {row}");
    }
}

#[test]
fn versions_of_client_and_controller() {
    let version = env!("CARGO_PKG_VERSION");
    clusterctl("http://127.0.0.1:1", &["version", "--client"]).prints(&format!("Client:  {version}\n"));
    let fake = Fake::new().on(
        "GET /v1/version",
        200,
        &json!({"version": "0.9.9", "cluster": "lab", "controller": "n1", "leader": "n2", "term": 5}),
    );
    fake.run(&["version"]).prints(&format!(
        "\
Client:      {version}
Server:      0.9.9 at {}
Cluster:     lab
Controller:  n1
Leader:      n2
Term:        5
",
        fake.url()
    ));
    let run = fake.run(&["version", "-o", "json"]);
    let value: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&value["client"]["version"], &value["server"]["term"]), (&json!(version), &json!(5)));
    // Without a controller the own version is still told.
    let run = clusterctl("http://127.0.0.1:1", &["version"]);
    assert_eq!((run.code, run.out), (3, format!("Client:  {version}\n")));
    assert!(run.err.contains("http://127.0.0.1:1: connection refused"), "{}", run.err);
}

#[test]
fn shells_that_are_not_known_are_refused() {
    // What the others are told is in complete.rs.
    let run = clusterctl("", &["completion", "tcsh"]);
    assert_eq!((run.code, run.out.as_str()), (2, ""));
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let many: Vec<Value> = (0..5_000).map(|n| app(&format!("app-{n}"), "Spread", Value::Null)).collect();
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&many));
    let mut child = command(&["get", "apps", "--server", &fake.url()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str(), &first), (Some(0), "", b"NAME"));
}
