//! `events`, and what `describe` shows of them.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::world::{database, list, node};

fn events() -> Value {
    let ago = |minutes: i64| (Timestamp::now() - SignedDuration::from_secs(minutes * 60 + 5)).to_string();
    list(&[
        json!({"object": "app/database", "type": "Normal", "reason": "TakenOver", "message": "n2 is active with epoch 7, n1 was",
               "firstSeen": ago(30), "lastSeen": ago(30), "count": 1}),
        json!({"object": "app/database", "type": "Warning", "reason": "UnitFailed", "message": "on n1", "firstSeen": ago(40),
               "lastSeen": ago(20), "count": 3}),
    ])
}

#[test]
fn events_have_their_age_and_how_often() {
    let fake = Fake::new().on("GET /v1/events", 200, &events()).on("GET /v1/events?for=app%2Fdatabase", 200, &events());
    let table = "\
AGE                 OBJECT         TYPE      REASON       MESSAGE
30m                 app/database   Normal    TakenOver    n2 is active with epoch 7, n1 was
20m (x3 over 40m)   app/database   Warning   UnitFailed   on n1
";
    fake.run(&["events"]).prints(table);
    fake.run(&["get", "events"]).prints(table);
    fake.run(&["events", "--for", "app/database", "-o", "jsonpath={.items[*].reason}"]).prints("TakenOver UnitFailed");
    fake.run(&["events", "--for", "app"]).fails(2, "error: \"app\" has no name\nhint: such as --for app/database\n");
    let none = Fake::new().on("GET /v1/events", 200, &list(&[]));
    assert_eq!(none.run(&["events"]).err, "No events found.\n");
}

#[test]
fn a_description_ends_with_the_last_events() {
    let fake = Fake::new().on("GET /v1/apps/database", 200, &database()).on("GET /v1/nodes", 200, &list(&[node("n2", "Ready")])).on(
        "GET /v1/events?for=app%2Fdatabase",
        200,
        &events(),
    );
    let run = fake.run(&["describe", "app", "database"]);
    let (_, told) = run.out.split_once("\nEvents:\n").unwrap_or_else(|| panic!("{run:?}"));
    assert_eq!(
        told,
        "  AGE                 TYPE      REASON       MESSAGE\n  30m                 Normal    TakenOver    n2 is active with epoch 7, \
         n1 was\n  20m (x3 over 40m)   Warning   UnitFailed   on n1\n"
    );
}
