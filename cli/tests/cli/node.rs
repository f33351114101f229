//! `node remove` and `recover`.

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::world::{list, node};

fn not_found() -> Value {
    json!({"type": "not-found", "title": "Not Found", "status": 404, "detail": "there is no node \"n3\""})
}

#[test]
fn a_node_that_is_gone_is_forgotten_and_what_it_ran_is_named() {
    let fake = Fake::new()
        .on("DELETE /v1/nodes/n3", 200, &json!({"node": "n3", "alive": false, "mayStillRun": ["api", "cache"]}))
        .on("GET /v1/nodes/n3", 200, &node("n3", "NotReady"))
        .on("GET /v1/nodes/n3", 404, &not_found());
    let run = fake.run(&["node", "remove", "n3"]);
    assert_eq!((run.code, run.out.as_str()), (0, "node/n3 removed\n"));
    assert_eq!(run.err, "warning: n3 may still run api, cache; look there with: systemctl list-units\n");
}

#[test]
fn a_living_node_is_refused_and_force_says_what_may_go_on() {
    let fake = Fake::new()
        .refuse("DELETE /v1/nodes/n3", 409, "conflict", "node \"n3\" is alive (heard 0.4 s ago): stop its agent there")
        .on("DELETE /v1/nodes/n3?force=true", 200, &json!({"node": "n3", "alive": true, "mayStillRun": ["database"]}))
        .on("GET /v1/nodes/n3", 404, &not_found());
    fake.run(&["node", "remove", "n3"]).fails(1, "error: node \"n3\" is alive (heard 0.4 s ago): stop its agent there (409 conflict)\n");
    let run = fake.run(&["node", "remove", "n3", "--force"]);
    assert_eq!((run.code, run.out.as_str()), (0, "node/n3 removed\n"));
    assert_eq!(
        run.err,
        "\
warning: n3 may still run database; look there with: systemctl list-units
warning: its agent was heard a moment ago. It gives up what is exclusive once it hears of this, and joins again when it is started \
         again: systemctl disable --now cluster-agent
"
    );
}

#[test]
fn a_node_that_nobody_knows_is_named_with_a_similar_one() {
    let fake = Fake::new().refuse("DELETE /v1/nodes/n33", 404, "not-found", "there is no node \"n33\"").on(
        "GET /v1/nodes",
        200,
        &list(&[node("n3", "Ready")]),
    );
    fake.run(&["node", "remove", "n33"]).fails(1, "error: node/n33 does not exist\nhint: did you mean node/n3?\n");
}

#[test]
fn a_node_that_is_not_forgotten_in_time_is_told() {
    let fake = Fake::new().on("DELETE /v1/nodes/n3", 200, &json!({"node": "n3", "alive": false})).on(
        "GET /v1/nodes/n3",
        200,
        &node("n3", "NotReady"),
    );
    let run = fake.run(&["node", "remove", "n3", "--timeout", "100ms"]);
    assert_eq!((run.code, run.out.as_str()), (4, ""));
    assert!(run.err.starts_with("error: node/n3 is not forgotten after 0.1 s\nhint: "), "{}", run.err);
}

fn lost() -> Value {
    json!({
        "incarnation": "62045d52-7cbe-4572-b1d5-dfc8dc71f306", "needed": true,
        "reasons": ["the store is new, and nodes hold assignments of another: n1 (dc5b8d95)"],
        "nodes": [
            {"node": "n1", "alive": true, "registered": true, "refuses": true, "known": true,
             "holds": {"incarnation": "dc5b8d95-61af-4bc1-bf95-11a483fe9ba6", "term": 1, "generation": 6},
             "apps": [{"app": "api", "role": "Member", "state": "Running"}, {"app": "database", "role": "Standby", "state": "Stopped"}]},
            {"node": "n2", "alive": false, "registered": true, "refuses": false, "known": false},
        ],
        "apps": ["api"], "missing": ["database"],
    })
}

const REPORT: &str = "\
Store: 62045d52-7cbe-4572-b1d5-dfc8dc71f306
The nodes do not follow it, and go on with what they hold:
  - the store is new, and nodes hold assignments of another: n1 (dc5b8d95)

NODE   ALIVE   HOLDS          FOLLOWS   APPS
n1     yes     dc5b8d95/1/6   no        api=Member,database=Standby
n2     no      <none>         yes       <unknown>

Apps in the store: api
Apps that run and are not in it: database
";

#[test]
fn a_lost_store_is_shown_with_what_to_do_and_nothing_is_signed() {
    let fake = Fake::new().on("GET /v1/recovery", 200, &lost());
    let run = fake.run(&["recover"]);
    assert_eq!((run.code, run.out.as_str()), (0, REPORT));
    assert_eq!(
        run.err,
        "\
hint: apply these again first (clusterctl apply -f FILE): database; or have them stopped: --stop database
hint: clusterctl recover --yes signs the store as it is; docs/recover.md tells what that means
"
    );
    assert_eq!(fake.requests(), ["GET /v1/recovery"]);
}

#[test]
fn a_signature_names_the_store_that_was_seen_and_what_is_stopped() {
    let fake = Fake::new().on("GET /v1/recovery", 200, &lost()).on(
        "POST /v1/recovery",
        200,
        &json!({"incarnation": "62045d52-7cbe-4572-b1d5-dfc8dc71f306", "recovers": ["dc5b8d95"]}),
    );
    let run = fake.run(&["recover", "--yes", "--stop", "database"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(run.out, format!("{REPORT}\nsigned: the nodes follow the store 62045d52-7cbe-4572-b1d5-dfc8dc71f306\n"));
    let sent: Value = serde_json::from_str(&fake.seen()[1].body).unwrap();
    assert_eq!(sent, json!({"incarnation": "62045d52-7cbe-4572-b1d5-dfc8dc71f306", "stop": ["database"]}));
    assert_eq!(fake.run(&["recover", "--stop", "database"]).code, 2, "nothing is stopped without a signature");
}

#[test]
fn a_refused_signature_is_a_failure() {
    let fake = Fake::new().on("GET /v1/recovery", 200, &lost()).refuse(
        "POST /v1/recovery",
        409,
        "conflict",
        "nodes run Apps that the store does not have",
    );
    let run = fake.run(&["recover", "--yes"]);
    assert_eq!((run.code, run.out.as_str()), (1, REPORT));
    assert_eq!(run.err, "error: nodes run Apps that the store does not have (409 conflict)\n");
}

#[test]
fn a_store_that_is_followed_needs_nothing() {
    let fake = Fake::new().on("GET /v1/recovery", 200, &json!({"incarnation": "i", "needed": false, "nodes": [], "apps": []}));
    fake.run(&["recover", "--yes"]).prints("Store: i\nThe nodes follow it; there is nothing to recover.\n");
    assert_eq!(fake.requests(), ["GET /v1/recovery"]);
}
