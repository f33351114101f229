//! Lists, pages, watches, and what comes of them at another controller.

use serde_json::Value;

use crate::world::{Controller, Nats, until};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("a list").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn version(value: &Value) -> String {
    value["resourceVersion"].as_str().expect("a revision").to_owned()
}

/// Statuses come after Apps; until they are there the revision of a list goes on by itself.
fn settled(controller: &Controller, apps: usize) -> Value {
    until("the statuses of all Apps", || {
        let list = controller.get("/v1/apps");
        let items = list["items"].as_array()?;
        let done = |item: &Value| item["status"]["observedGeneration"] == item["metadata"]["generation"];
        (items.len() == apps && items.iter().all(done)).then_some(list)
    })
}

#[test]
fn lists_have_pages_selectors_and_a_revision_that_can_be_waited_for() {
    let nats = Nats::start();
    let (one, two) = (Controller::ready(&nats, "one", ""), Controller::ready(&nats, "two", ""));
    for name in ["a", "b", "c", "d", "e"] {
        let applied = one.apply(name, 1);
        // Written at one, asked at the other at once.
        let revision = &applied["app"]["metadata"]["resourceVersion"];
        assert!(names(&two.get(&format!("/v1/apps?atLeast={revision}"))).contains(&name));
    }
    let first = two.get("/v1/apps?limit=2");
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["continue"].as_str().expect("there is more");
    let second = one.get(&format!("/v1/apps?limit=2&continue={next}"));
    assert_eq!((names(&second), version(&second)), (vec!["c", "d"], version(&first)), "a page of another controller");
    let last = one.get(&format!("/v1/apps?limit=2&continue={}", second["continue"].as_str().expect("there is more")));
    assert_eq!((names(&last), &last["continue"]), (vec!["e"], &Value::Null));
    assert_eq!(names(&one.get("/v1/apps?labelSelector=called%20in%20(b,d),!other")), ["b", "d"]);

    let (status, problem) = one.ask("GET", "/v1/apps?limit=0&labelSelector==&color=red", None);
    let pointers: Vec<&str> = problem["errors"].as_array().expect("errors").iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert_eq!((status, pointers), (400, vec!["?limit", "?labelSelector", "?color"]));
    let (status, problem) = one.ask("GET", "/v1/apps?atLeast=999999999", None);
    assert_eq!((status, problem["type"].as_str()), (504, Some("behind")));
}

#[test]
fn a_watch_tells_of_every_change_and_is_resumed_at_another_controller() {
    let nats = Nats::start();
    let (one, two) = (Controller::ready(&nats, "one", ""), Controller::ready(&nats, "two", ""));
    one.apply("a", 1);
    settled(&one, 1);
    let mut watch = one.watch("/v1/apps?watch=true");
    let (seen, _) = watch.begin();
    assert_eq!(seen, ["ADDED a"]);
    two.apply("b", 1);
    let (first, event) = watch.change();
    assert_eq!((first.as_str(), &event["object"]["spec"]["replicas"]), ("ADDED b", &Value::from(1)));
    // From here at the other: what came in between is told there, and the end of a.
    let since = version(&event);
    two.apply("b", 2);
    let (status, body) = one.ask("DELETE", "/v1/apps/a?force=true", None);
    assert_eq!(status, 200, "{body}");
    watch.until("DELETED a");
    let mut resumed = two.watch(&format!("/v1/apps?watch=true&resourceVersion={since}"));
    let (mut gone, mut changed) = (false, false);
    while !(gone && changed) {
        let (what, event) = resumed.change();
        gone |= what == "DELETED a";
        changed |= what == "MODIFIED b" && event["object"]["spec"]["replicas"] == 2;
        assert!(what != "ADDED b", "it was told before");
    }
    // One object, which need not be there yet; a selector that an object leaves.
    let mut single = one.watch("/v1/apps/later?watch=true");
    assert_eq!(single.begin().0, Vec::<String>::new());
    let mut selected = one.watch("/v1/apps?watch=true&labelSelector=called=later");
    assert_eq!(selected.begin().0, Vec::<String>::new());
    one.apply("later", 1);
    single.until("ADDED later");
    selected.until("ADDED later");
    let mut other = crate::world::app("later", 1);
    other["metadata"]["labels"]["called"] = Value::from("otherwise");
    one.ask("PUT", "/v1/apps/later", Some(&other));
    selected.until("DELETED later");

    // A controller that stops tells its watches so.
    one.end();
    let last = selected.last().expect("a reason");
    assert_eq!((last["type"].as_str(), last["problem"]["type"].as_str()), (Some("ERROR"), Some("unavailable")));
}

#[test]
fn a_watch_that_cannot_go_on_is_told_why() {
    let nats = Nats::start();
    let one = Controller::ready(&nats, "one", "changesKept: 8\n");
    one.apply("a", 1);
    let list = settled(&one, 1);
    for replicas in 2..12 {
        one.apply("a", replicas);
    }
    let (status, problem) = one.ask("GET", &format!("/v1/apps?watch=true&resourceVersion={}", version(&list)), None);
    assert_eq!((status, problem["type"].as_str()), (410, Some("gone")));
    let (status, _) = one.ask("GET", "/v1/apps?watch=true&resourceVersion=elsewhere.1.1", None);
    assert_eq!(status, 400, "a piece of an incarnation is shorter");
    let (status, _) = one.ask("GET", "/v1/apps?watch=true&resourceVersion=ffffffff.1.1", None);
    assert_eq!(status, 410, "of another store");
}

/// It reads nothing while more comes than the buffers of the connection hold and the log keeps.
#[test]
fn a_slow_watch_is_dropped_with_a_reason_and_can_begin_again() {
    const WRITES: u32 = 100;
    let nats = Nats::start();
    let one = Controller::ready(&nats, "one", "changesKept: 8\n");
    one.apply("a", 1);
    settled(&one, 1);
    let mut slow = one.watch("/v1/apps?watch=true");
    assert_eq!(slow.begin().0, ["ADDED a"]);
    let mut large = crate::world::app("a", 1);
    for part in 0..48 {
        large["metadata"]["annotations"][format!("part{part}")] = Value::from("x".repeat(4096));
    }
    for write in 0..WRITES {
        large["metadata"]["annotations"]["write"] = Value::from(write.to_string());
        let (status, body) = one.ask("PUT", "/v1/apps/a", Some(&large));
        assert_eq!(status, 200, "{body}");
    }
    let events: Vec<Value> = slow.collect();
    let last = events.last().expect("a reason");
    assert_eq!((last["type"].as_str(), last["problem"]["type"].as_str()), (Some("ERROR"), Some("gone")), "of {} events", events.len());
    assert!(events.len() < WRITES as usize, "what waited was not queued for it");
    let mut again = one.watch("/v1/apps?watch=true");
    let first = again.next().expect("an event");
    assert_eq!(first["object"]["metadata"]["annotations"]["write"], (WRITES - 1).to_string());
}
