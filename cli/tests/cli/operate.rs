//! `node cordon|uncordon|drain`, `switchover`, `failovers`, `voters`.

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::world::{assignment, list, node};

/// A node with the lease of the App `database` in this epoch; 0 while it has not.
fn holding(name: &str, leased: u64, healthy: bool) -> Value {
    let mut node = node(name, "Ready");
    node["status"]["apps"]["database"]["leased"] = json!(leased);
    node["status"]["apps"]["database"]["healthy"] = json!(healthy);
    node
}

fn takeover(epoch: u64) -> Value {
    json!({"app": "database", "takeovers": [{"node": "n2", "epoch": epoch, "cause": "HandOver", "from": {"node": "n1", "epoch": 7},
        "grantedAt": "2026-11-23T12:00:00.500Z", "freeUs": -1000, "vipUs": 5000, "unitUs": 6000, "healthyUs": 6000}]})
}

#[test]
fn nodes_are_cordoned_one_by_one_and_what_was_so_already_is_told() {
    let fake = Fake::new()
        .on("PUT /v1/nodes/n1/cordon", 200, &json!({"cordon": "Cordoned", "changed": true}))
        .on("PUT /v1/nodes/n2/cordon", 200, &json!({"cordon": "Cordoned", "changed": false}))
        .refuse("PUT /v1/nodes/n9/cordon", 404, "not-found", "there is no node \"n9\"")
        .on("DELETE /v1/nodes/n1/cordon", 200, &json!({"cordon": "None", "changed": true}))
        .on("GET /v1/nodes", 200, &list(&[node("n1", "Ready"), node("n2", "Ready")]));
    let run = fake.run(&["node", "cordon", "n9", "n1", "n2"]);
    assert_eq!((run.code, run.out.as_str()), (1, "node/n1 cordoned\nnode/n2 already cordoned\n"));
    assert!(run.err.starts_with("error: node/n9 does not exist\n"), "{}", run.err);
    let sent: Value = serde_json::from_str(&fake.seen().iter().find(|s| s.request.starts_with("PUT /v1/nodes/n1")).unwrap().body).unwrap();
    assert_eq!(sent, json!({"drain": false}));
    fake.run(&["node", "uncordon", "n1"]).prints("node/n1 uncordoned\n");
}

#[test]
fn a_drain_waits_until_nothing_is_left_and_says_what_moved() {
    let empty = {
        let mut node = node("n2", "Ready");
        node["status"]["apps"] = json!({});
        node["cordon"] = json!("Draining");
        node
    };
    let mut nothing = assignment("n2");
    nothing["apps"] = json!({});
    let fake = Fake::new()
        .on("GET /v1/nodes/n2", 200, &node("n2", "Ready"))
        .on("GET /v1/nodes/n2", 200, &empty)
        .on("GET /v1/assignments/n2", 200, &assignment("n2"))
        .on("GET /v1/assignments/n2", 200, &nothing)
        .on("PUT /v1/nodes/n2/cordon", 200, &json!({"cordon": "Draining", "changed": true}));
    let run = fake.run(&["node", "drain", "n2"]);
    assert_eq!((run.code, run.out.as_str()), (0, "node/n2 drained\n"));
    assert!(run.err.contains("database") && run.err.contains("clusterctl node uncordon n2"), "{}", run.err);

    let fake = Fake::new().on("GET /v1/nodes/n2", 200, &node("n2", "Ready")).on("GET /v1/assignments/n2", 200, &assignment("n2")).on(
        "PUT /v1/nodes/n2/cordon",
        200,
        &json!({"cordon": "Draining", "changed": true}),
    );
    let run = fake.run(&["node", "drain", "n2", "--timeout", "100ms"]);
    assert_eq!((run.code, run.out.as_str()), (4, ""));
    assert!(run.err.starts_with("error: node/n2 still has database after 0.1 s\n"), "{}", run.err);
}

#[test]
fn a_switchover_names_the_tenure_it_ends_and_tells_the_next() {
    let fake = Fake::new()
        .on("GET /v1/nodes", 200, &list(&[holding("n1", 7, true), holding("n2", 0, false)]))
        .on("GET /v1/nodes", 200, &list(&[holding("n1", 0, false), holding("n2", 8, false)]))
        .on("GET /v1/nodes", 200, &list(&[holding("n1", 0, false), holding("n2", 8, true)]))
        .on("POST /v1/apps/database/switchover", 200, &json!({"app": "database", "from": "n1", "epoch": 7, "to": "n2"}))
        .on("GET /v1/failovers/database", 200, &takeover(8));
    let run = fake.run(&["switchover", "database", "--to", "n2"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        run.out,
        "app/database switched over: n1 (epoch 7) -> n2 (epoch 8)\nfree 0.0 ms, grant 1.0 ms, VIP 6.0 ms, unit 7.0 ms, healthy 7.0 ms\n"
    );
    let sent = fake.seen().into_iter().find(|s| s.request.starts_with("POST")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), json!({"epoch": 7, "to": "n2"}));
}

#[test]
fn a_switchover_to_another_than_asked_for_is_a_failure_and_a_refusal_says_why() {
    let fake = Fake::new()
        .on("GET /v1/nodes", 200, &list(&[holding("n1", 7, true)]))
        .on("GET /v1/nodes", 200, &list(&[holding("n2", 8, true)]))
        .on("POST /v1/apps/database/switchover", 200, &json!({"app": "database", "from": "n1", "epoch": 7, "to": "n3"}))
        .on("GET /v1/failovers/database", 200, &takeover(8));
    let run = fake.run(&["switchover", "database", "--to", "n3"]);
    assert_eq!((run.code, run.err.as_str()), (1, "error: n3 did not take over in time, so n2 did\n"));

    let fake = Fake::new().on("GET /v1/nodes", 200, &list(&[holding("n1", 7, true)])).refuse(
        "POST /v1/apps/database/switchover",
        409,
        "conflict",
        "n3 cannot take over App \"database\": it is cordoned",
    );
    fake.run(&["switchover", "database", "--to", "n3"])
        .fails(1, "error: n3 cannot take over App \"database\": it is cordoned (409 conflict)\n");
}

#[test]
fn failovers_are_shown_under_both_names() {
    let fake =
        Fake::new().on("GET /v1/failovers/database", 200, &takeover(8)).on("GET /v1/failovers", 200, &json!({"items": [takeover(8)]}));
    let one = fake.run(&["failovers", "database"]);
    assert_eq!(one.code, 0);
    assert!(one.out.starts_with("app/database  2026-11-23T12:00:00.500Z  hand-over: n1 (epoch 7) -> n2 (epoch 8)\n"), "{}", one.out);
    assert_eq!(fake.run(&["get", "failovers"]).out, one.out);
    assert_eq!(fake.run(&["get", "failovers", "database", "-o", "name"]).out, "app/database\n");
}

#[test]
fn a_force_says_what_may_go_wrong_and_does_nothing_without_a_word() {
    let plan = json!({"set": 4, "next": {"number": 14, "voters": [{"node": "n1", "id": "a"}]}});
    let mut left = node("n1", "Ready");
    left["status"]["voters"] = json!({"number": 14, "voters": [{"node": "n1", "id": "a"}]});
    let fake = Fake::new().on("POST /v1/voters/force", 200, &plan).on("GET /v1/nodes", 200, &list(&[left]));
    let run = fake.run(&["voters", "force", "--dead", "n2,n3"]);
    assert_eq!((run.code, run.err.as_str()), (0, "hint: nothing was done; --yes vouches for it\n"));
    assert!(run.out.contains("Dead, by your word: n2, n3") && run.out.contains("two nodes are active"), "{}", run.out);
    let bodies = |fake: &Fake| -> Vec<Value> {
        fake.seen().iter().filter(|s| s.request.starts_with("POST")).map(|s| serde_json::from_str(&s.body).unwrap()).collect()
    };
    assert_eq!(bodies(&fake), [json!({"dead": ["n2", "n3"]})]);
    let run = fake.run(&["voters", "force", "--dead", "n2,n3", "--yes"]);
    assert!(run.code == 0 && run.out.ends_with("voters: n1 (set 14)\n"), "{}", run.out);
    assert_eq!(bodies(&fake).last(), Some(&json!({"dead": ["n2", "n3"], "set": 4})));
    assert_eq!(fake.run(&["voters", "force", "--yes"]).code, 2);
}
