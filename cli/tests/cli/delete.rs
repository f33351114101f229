//! `delete`.

use serde_json::{Value, json};

use crate::fake::{Fake, command, run_with_stdin};
use crate::world::{app, database, instance, list, manifest, status};

fn terminating(states: &[(&str, &str)]) -> Value {
    let instances: Vec<Value> = states.iter().map(|(node, state)| instance(node, "Absent", state)).collect();
    let mut app = app("database", "Singleton", status("0/0", &instances, &[("Terminating", "True", "Waiting", "")]));
    app["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:00Z");
    app
}

fn not_found() -> Value {
    json!({"type": "not-found", "title": "Not Found", "status": 404, "detail": "there is no App \"database\""})
}

#[test]
fn it_waits_until_the_app_is_gone_and_says_for_whom() {
    let fake = Fake::new()
        .on("DELETE /v1/apps/database", 200, &json!({"gone": false}))
        .on("GET /v1/apps/database", 200, &terminating(&[("n1", "Stopping"), ("n2", "Stopping")]))
        .on("GET /v1/apps/database", 200, &terminating(&[("n2", "Unknown")]))
        .on("GET /v1/apps/database", 404, &not_found());
    let run = fake.run(&["delete", "app", "database"]);
    assert_eq!((run.code, run.out.as_str()), (0, "app/database deleted\n"));
    assert_eq!(run.err, "app/database: waiting for n1, n2\napp/database: waiting for n2 (not heard)\n");
}

#[test]
fn what_is_not_gone_in_time_names_its_nodes() {
    let fake = Fake::new().on("DELETE /v1/apps/database", 200, &json!({"gone": false})).on(
        "GET /v1/apps/database",
        200,
        &terminating(&[("n3", "Unknown")]),
    );
    let run = fake.run(&["delete", "app/database", "--timeout", "100ms"]);
    assert_eq!((run.code, run.out.as_str()), (4, ""));
    assert_eq!(
        run.err,
        "\
app/database: waiting for n3 (not heard)
error: app/database is not gone after 0.1 s: waiting for n3 (not heard)
hint: it goes once these nodes confirm; --force forgets it at once and names the nodes that may still run it
"
    );
}

#[test]
fn it_need_not_wait() {
    let fake = Fake::new().on("DELETE /v1/apps/database", 200, &json!({"gone": false}));
    fake.run(&["delete", "app", "database", "--wait=false"]).prints("app/database is being deleted\n");
    assert_eq!(fake.requests(), ["DELETE /v1/apps/database"]);
}

#[test]
fn force_says_what_may_still_run() {
    let fake = Fake::new().on("GET /v1/apps/database", 200, &database()).on(
        "DELETE /v1/apps/database?force=true",
        200,
        &json!({"gone": true, "mayStillRun": ["n2", "n3"]}),
    );
    let run = fake.run(&["delete", "app", "database", "--force"]);
    assert_eq!((run.code, run.out.as_str()), (0, "app/database deleted\n"));
    assert_eq!(run.err, "warning: app/database may still run on n2, n3; look for clusterctl-database.service there\n");
}

#[test]
fn what_does_not_exist_fails_unless_told_otherwise_and_the_others_go() {
    let fake = Fake::new().on("DELETE /v1/apps/cache", 200, &json!({"gone": true})).on("GET /v1/apps", 200, &list(&[database()]));
    let run = fake.run(&["delete", "app", "databse", "cache"]);
    assert_eq!((run.code, run.out.as_str()), (1, "app/cache deleted\n"));
    assert_eq!(run.err, "error: app/databse does not exist\nhint: did you mean app/database?\n");
    fake.run(&["delete", "app", "databse", "cache", "--ignore-not-found"]).prints("app/cache deleted\n");
}

#[test]
fn files_name_what_to_delete() {
    let fake = Fake::new().on("DELETE /v1/apps/api", 200, &json!({"gone": true})).on("DELETE /v1/apps/web", 200, &json!({"gone": true}));
    let mut from_stdin = command(&["delete", "-f", "-", "--server", &fake.url()]);
    run_with_stdin(&mut from_stdin, &manifest(&["api", "web"])).prints("app/api deleted\napp/web deleted\n");
}

#[test]
fn all_apps_at_once_are_not_deleted() {
    let fake = Fake::new();
    fake.run(&["delete", "apps"])
        .fails(2, "error: which app?\nhint: name them: clusterctl delete app NAME; all Apps at once are not deleted\n");
    fake.run(&["delete", "node", "n1"]).fails(2, "error: there is no kind \"node\"\nhint: known here: apps\n");
    assert_eq!(fake.run(&["delete"]).code, 2);
    assert_eq!(fake.requests(), Vec::<String>::new());
}

#[test]
fn controllers_that_fail_over_meanwhile_do_not_end_the_wait() {
    let fake = Fake::new()
        .on("DELETE /v1/apps/database", 200, &json!({"gone": false}))
        .on("GET /v1/apps/database", 200, &terminating(&[("n1", "Stopping")]))
        // Both rounds of one look fail.
        .on("GET /v1/apps/database", 503, &not_found())
        .on("GET /v1/apps/database", 503, &not_found())
        .on("GET /v1/apps/database", 404, &not_found());
    let run = fake.run(&["delete", "app", "database"]);
    assert_eq!((run.code, run.out.as_str()), (0, "app/database deleted\n"));
    assert_eq!(run.err, "app/database: waiting for n1\napp/database: no controller answers, still waiting\n");
}
