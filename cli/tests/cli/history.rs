//! Revisions, the audit, `undo`.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::world::{app, list};

fn ago(minutes: i64) -> String {
    (Timestamp::now() - SignedDuration::from_secs(minutes * 60 + 5)).to_string()
}

fn revision(number: u64, change: &str, command: &str) -> Value {
    json!({
        "app": "web", "revision": number, "change": change, "at": ago(60 - i64::try_from(number).unwrap()), "resourceVersion": 10 + number,
        "generation": number, "who": {"name": "ci", "role": "deployer", "address": "10.0.0.9"}, "set": "site", "sourceRevision": format!("c0ffee{number}"),
        "labels": {"tier": "web"}, "spec": {"mode": "Spread", "exec": {"command": [command]}},
    })
}

fn revisions() -> Value {
    list(&[revision(1, "created", "/bin/a"), revision(2, "changed", "/bin/b")])
}

fn plan(change: &str) -> Value {
    json!({
        "apps": [{"name": "web", "change": change}], "effects": {}, "basis": {"revisions": {"web": 7}, "hash": "0123456789abcdef"},
    })
}

#[test]
fn revisions_are_printed_in_their_order() {
    let fake = Fake::new().on("GET /v1/apps/web/revisions", 200, &revisions()).on("GET /v1/revisions?limit=1000", 200, &revisions());
    let table = "\
APP   REVISION   CHANGE    WHO   SOURCE    AGE
web   1          created   ci    c0ffee1   59m
web   2          changed   ci    c0ffee2   58m
";
    fake.run(&["get", "revisions", "web"]).prints(table);
    fake.run(&["get", "revisions"]).prints(table);
    fake.run(&["get", "revisions", "app/web", "-o", "name"]).prints("revision/web/1\nrevision/web/2\n");
    fake.run(&["get", "revisions", "web", "-o", "jsonpath={.items[1].spec.exec.command[0]}"]).prints("/bin/b");
    let wide = fake.run(&["get", "revisions", "web", "-o", "wide", "--no-headers"]);
    assert!(wide.out.contains("site") && wide.out.contains("10.0.0.9"), "{wide:?}");
    fake.run(&["get", "revisions", "a", "b"]).fails(2, "error: one name at a time\nhint: such as: clusterctl get revisions database\n");
    let none = Fake::new().on("GET /v1/revisions?limit=1000", 200, &list(&[]));
    assert_eq!(none.run(&["get", "revisions"]).err, "No revisions found.\n");
}

#[test]
fn the_audit_says_who_asked_for_what_and_how_it_ended() {
    let record = |outcome: &str, status: u16, detail: &str| {
        json!({
            "sequence": 7, "at": ago(12), "who": {"name": "ci", "role": "deployer", "address": "10.0.0.9"}, "controller": "n1",
            "request": "PUT /v1/apps/web", "object": "app/web", "outcome": outcome, "status": status, "detail": detail,
            "changes": [{"pointer": "/spec/replicas", "before": 1, "after": 2}],
        })
    };
    let audit = json!({"items": [record("done", 200, ""), record("refused", 409, "another write came between")], "missed": 0});
    let mut missed = audit.clone();
    missed["missed"] = json!(2);
    let fake = Fake::new().on("GET /v1/audit?limit=1000", 200, &audit).on("GET /v1/audit?limit=1000&for=app%2Fweb", 200, &missed);
    fake.run(&["get", "audit"]).prints(
        "\
AGE   WHO   OBJECT    REQUEST            OUTCOME   STATUS
12m   ci    app/web   PUT /v1/apps/web   done      200
12m   ci    app/web   PUT /v1/apps/web   refused   409
",
    );
    let one = fake.run(&["get", "audit", "app/web", "-o", "wide"]);
    assert!(one.out.contains("/spec/replicas") && one.out.contains("another write came between"), "{one:?}");
    assert!(one.err.contains("2 records could not be stored"), "{one:?}");
}

#[test]
fn undo_writes_what_was_before_on_the_revision_that_it_read() {
    let present = app("web", "Spread", Value::Null);
    let applied = json!({"results": [{"name": "web", "outcome": "configured"}]});
    let fake = Fake::new()
        .on("GET /v1/apps/web/revisions", 200, &revisions())
        .on("GET /v1/apps/web", 200, &present)
        .on("POST /v1/plan", 200, &plan("changed"))
        .on("POST /v1/apply", 200, &applied);
    let run = fake.run(&["undo", "app/web"]);
    assert_eq!((run.code, run.out.as_str()), (0, "app/web configured\n"));
    assert_eq!(run.err, "app/web is what it was at revision 1\n");
    let sent: Value = serde_json::from_str(&fake.seen().last().unwrap().body).unwrap();
    assert_eq!(sent["apps"][0]["spec"]["exec"]["command"], json!(["/bin/a"]));
    assert_eq!(sent["apps"][0]["metadata"]["labels"], json!({"tier": "web"}));
    assert_eq!(sent["apps"][0]["metadata"]["resourceVersion"], 7, "another writer gets in between: a conflict");
    assert_eq!(sent["basis"]["hash"], "0123456789abcdef", "and what else changed since it was planned, too");
    assert_eq!((&sent["options"]["set"], &sent["options"]["sourceRevision"]), (&Value::Null, &json!("c0ffee1")));

    let requests = fake.requests().len();
    fake.run(&["undo", "web", "--dry-run"]);
    assert!(!fake.requests()[requests..].contains(&"POST /v1/apply".to_owned()), "a dry run writes nothing");
    let unknown = fake.run(&["undo", "web", "--to-revision", "9"]);
    assert!(unknown.code == 2 && unknown.err.contains("has no revision 9"), "{unknown:?}");
}

#[test]
fn what_was_deleted_comes_back_into_its_set_unless_it_is_there_again() {
    let deleted = list(&[revision(1, "created", "/bin/a"), revision(2, "deleted", "/bin/a")]);
    let with = |change: &str| {
        Fake::new()
            .on("GET /v1/apps/web/revisions", 200, &deleted)
            .refuse("GET /v1/apps/web", 404, "not-found", "there is no App web")
            .on("POST /v1/plan", 200, &plan(change))
            .on("POST /v1/apply", 200, &json!({"results": [{"name": "web", "outcome": "created"}]}))
    };
    let fake = with("created");
    assert_eq!(fake.run(&["undo", "web"]).out, "app/web created\n");
    let sent: Value = serde_json::from_str(&fake.seen().last().unwrap().body).unwrap();
    assert_eq!((&sent["options"]["set"], &sent["apps"][0]["spec"]["exec"]["command"]), (&json!("site"), &json!(["/bin/a"])));
    let late = with("changed");
    let run = late.run(&["undo", "web"]);
    assert!(run.code == 1 && run.err.contains("was made anew meanwhile"), "{run:?}");
    assert!(!late.requests().contains(&"POST /v1/apply".to_owned()));
}
